"""Write a folder of a decoder of any size with random weights, to measure its reading.

    python scripts/large_folder.py FOLDER [--layers 22 --hidden 2048 ...] [--read]

The defaults give a model of 1.1 billion parameters (2.2 GB in bfloat16). With `--read` a separate
process reads the folder and reports its time and peak memory.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

READ = """
import json, resource, sys, threading, time
from pathlib import Path
import ncut
from ncut.extract.assembly.assemble import assemble
from ncut.extract.lowering.kinds import lower
from ncut.extract.readers.folder import read_folder

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))

peak, done = {"RssAnon": 0, "RssFile": 0}, threading.Event()

def watch():
    while not done.wait(0.01):
        for key in peak:
            peak[key] = max(peak[key], memory(key))

before = memory("VmRSS")
threading.Thread(target=watch, daemon=True).start()
started = time.perf_counter()
wiring, shapes = read_folder(Path(sys.argv[1]), lower)
wired = time.perf_counter()
graph = assemble(wiring, parameters=shapes)
seconds = time.perf_counter() - started
done.set()
arrays = {id(b.weights): b.weights for b in graph.blocks}.values()
print(json.dumps({
    "seconds": round(seconds, 1),
    "seconds to follow the forward pass": round(wired - started, 2),
    "vertices": graph.n_vertices,
    "blocks": len(graph.blocks),
    "bytes of blocks": sum((a if hasattr(a, "nbytes") else a.data).nbytes for a in arrays),
    "types of blocks": sorted({str(b.weights.dtype) for b in graph.blocks}),
    "RSS after the import": before,
    "peak RSS": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    "peak anonymous memory": peak["RssAnon"],
    "peak of mapped files": peak["RssFile"],
}))
"""


def tensors(args: argparse.Namespace) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all tensors."""
    key_width = args.hidden // args.heads * args.key_heads
    yield "model.embed_tokens.weight", (args.vocabulary, args.hidden)
    for number in range(args.layers):
        block = f"model.layers.{number}"
        for name, shape in (
            ("input_layernorm", (args.hidden,)),
            ("self_attn.q_proj", (args.hidden, args.hidden)),
            ("self_attn.k_proj", (key_width, args.hidden)),
            ("self_attn.v_proj", (key_width, args.hidden)),
            ("self_attn.o_proj", (args.hidden, args.hidden)),
            ("post_attention_layernorm", (args.hidden,)),
            ("mlp.gate_proj", (args.intermediate, args.hidden)),
            ("mlp.up_proj", (args.intermediate, args.hidden)),
            ("mlp.down_proj", (args.hidden, args.intermediate)),
        ):
            yield f"{block}.{name}.weight", shape
    yield "model.norm.weight", (args.hidden,)
    yield "lm_head.weight", (args.vocabulary, args.hidden)


def shards(args: argparse.Namespace) -> list[list[tuple[str, tuple[int, ...]]]]:
    """The tensors, divided among files of about the same size."""
    everything = [*tensors(args)]
    total = sum(int(np.prod(shape)) for _, shape in everything)
    found: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    size = 0
    for name, shape in everything:
        if size >= total / args.shards:
            found.append([])
            size = 0
        found[-1].append((name, shape))
        size += int(np.prod(shape))
    return found


def write_shard(
    path: Path, entries: list[tuple[str, tuple[int, ...]]], rng: np.random.Generator
) -> int:
    """Write one file; returns its size."""
    header = {}
    at = 0
    for name, shape in entries:
        n_bytes = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape in entries:
            for _ in range(shape[0]) if len(shape) == 2 else range(1):
                values = rng.standard_normal(shape[-1], dtype=np.float32)
                values = 0.02 * values if len(shape) == 2 else 1 + 0.02 * values
                # The first half of the bits of a float32 is a bfloat16.
                file.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())
    return path.stat().st_size


def write_folder(folder: Path, args: argparse.Namespace) -> int:
    """Write the files; returns the size of the tensors' files together."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": args.hidden, "intermediate_size": args.intermediate,
        "num_hidden_layers": args.layers, "num_attention_heads": args.heads,
        "num_key_value_heads": args.key_heads, "vocab_size": args.vocabulary,
        "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    rng = np.random.default_rng(args.seed)
    files = shards(args)
    weight_map = {}
    total = 0
    for number, entries in enumerate(files):
        file = f"model-{number + 1:05d}-of-{len(files):05d}.safetensors"
        total += write_shard(folder / file, entries, rng)
        weight_map.update({name: file for name, _ in entries})
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def main() -> None:
    """Write the folder, and read it if requested."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-heads", type=int, default=4)
    parser.add_argument("--intermediate", type=int, default=5632)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", action="store_true", help="read it, in a process of its own")
    args = parser.parse_args()
    if not (args.folder / "config.json").exists():
        write_folder(args.folder, args)
    size = sum(file.stat().st_size for file in args.folder.glob("*.safetensors"))
    print(f"{args.folder}: {size} bytes of tensors")
    if args.read:
        result = subprocess.run(
            [sys.executable, "-c", READ, str(args.folder)], capture_output=True, text=True
        )
        if result.returncode:
            sys.exit(result.stderr)
        found = json.loads(result.stdout)
        for key, value in found.items():
            print(f"  {key}: {value}")
        for key in ("peak RSS", "peak anonymous memory"):
            print(f"  {key} / size of the files: {found[key] / size:.2f}")


if __name__ == "__main__":
    main()
