"""Check the kernels' object files, one for each instruction set: kernel_objects.py BUILD_FOLDER.

They must not define functions that the linker could merge with those of another file (a processor
without AVX-512 might then run a standard function compiled for AVX-512), must run nothing when the
module is loaded, and must work on whole registers of their instruction set.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# A multiply-add or multiplication of whole registers, as the disassembler writes it.
PACKED = {
    "x86_64_v4": r"vfn?madd\d+ps .*%zmm",
    "x86_64_v3": r"vfn?madd\d+ps .*%ymm",
    "x86_64": r"\smulps .*%xmm",
    "baseline": r"fml[as]\s+v\d+\.4s",
}

KERNELS = ("assign(", "add_placed<float, float>(", "inner_products<float>(", "subtract<float>(")
LEAST = 8  # of them in each


def faults(path: Path) -> list[str]:
    """The faults of one instruction set's object file."""
    isa = path.parents[2].name.removeprefix("ncut_").removesuffix(".dir")
    found = []
    symbols = subprocess.run(
        ["nm", "--demangle", path], capture_output=True, text=True, check=True
    ).stdout
    for line in symbols.splitlines():
        kind, name = line[17:18], line[19:]
        if kind in "WVu":
            found.append(f"{isa}: the linker may merge {name} with that of another file")
    if "_GLOBAL__sub_I" in symbols:
        found.append(f"{isa}: something runs when the module is loaded")
    listing = subprocess.run(
        ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", path],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    functions = re.split(r"\n[0-9a-f]+ <(.*)>:\n", listing)
    bodies = dict(zip(functions[1::2], functions[2::2], strict=True))
    for kernel in KERNELS:
        own = [text for name, text in bodies.items() if f"::{kernel}" in name]
        packed = max((len(re.findall(PACKED[isa], text)) for text in own), default=0)
        if packed < LEAST:
            found.append(f"{isa}: {packed} operations on whole registers in {kernel[:-1]}")
    return found


def main() -> None:
    paths = sorted(Path(sys.argv[1]).glob("CMakeFiles/ncut_*.dir/csrc/vector/kernels.cpp.o"))
    if not paths:
        sys.exit(f"no object files of kernels in {sys.argv[1]}")
    found = [fault for path in paths for fault in faults(path)]
    print("\n".join(found) or f"{len(paths)} instruction sets: whole registers, own functions")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
