"""Compiles the CUDA kernels to machine code, without a GPU, and prints what they need as JSON.

    CUDA_HOME=... python compiled_kernels.py PTXAS

CUDA_HOME: where nvvm/lib64/libnvvm.so is; PTXAS: NVIDIA's assembler. For each kernel and compute
capability the registers of a thread and the bytes that were spilled.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from numba import cuda, types
from numba.cuda import dispatcher

from ncut.device import cuda_kernels

CAPABILITIES = ((7, 5), (8, 0), (9, 0), (10, 0))
"""From Turing to Blackwell."""


def array(dtype: Any, ndim: int) -> Any:
    """The type of a C-contiguous array."""
    return types.Array(dtype, ndim, "C")


WORD, WHOLE, REAL = types.uint64, types.int64, types.float64
FLOATS, LABELS, DISTANCES = (array(of, 2) for of in (types.float32, types.int32, REAL))
CENTRES = array(types.float32, 3)
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "keys": (*[WORD] * 5, array(WORD, 1)),
    "nearer": (FLOATS, FLOATS, FLOATS, FLOATS),
    "lloyd": (
        *(FLOATS, array(WHOLE, 2), REAL, REAL, WHOLE),
        *(CENTRES, LABELS, array(WHOLE, 3), LABELS, DISTANCES),
    ),
    "own_distance": (FLOATS, CENTRES, LABELS, DISTANCES),
    "row_links": (
        *(array(types.int32, 1), array(types.int32, 1), array(types.float32, 1)),
        *(array(types.int32, 1), DISTANCES),
    ),
}


def assembled(ptx: str, ptxas: str, major: int, minor: int) -> dict[str, int]:
    """Registers and spilled bytes of a kernel in machine code."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx, encoding="ascii")
        command = [ptxas, "-v", f"-arch=sm_{major}{minor}", str(source), "-o", f"{source}.cubin"]
        done = subprocess.run(command, capture_output=True, text=True)
    said = done.stderr + done.stdout
    assert done.returncode == 0, said
    registers = re.search(r"Used (\d+) registers", said)
    spilled = re.search(r"(\d+) bytes spill stores", said)
    assert registers is not None, said
    assert spilled is not None, said
    return {"registers": int(registers[1]), "spilled": int(spilled[1])}


def main() -> None:
    """Compile every kernel for every capability."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for major, minor in CAPABILITIES:
        # Device functions are compiled for the GPU at hand: this is one.
        here = SimpleNamespace(compute_capability=(major, minor))
        dispatcher.get_current_device = lambda here=here: here
        for name, signature in SIGNATURES.items():
            kernel = getattr(cuda_kernels, name)
            ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=(major, minor))
            found.setdefault(name, {})[f"{major}.{minor}"] = assembled(
                ptx, sys.argv[1], major, minor
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
