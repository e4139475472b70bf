"""Checkpoints for the tests: python tests/extract/make_orbax_files.py (orbax-checkpoint, flax).

Written by orbax-checkpoint 0.12.8 and flax 0.12.8 to orbax_files.zip, with the values in it.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import flax.nnx
import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp

RNG = np.random.default_rng(7)
SHAPES = {"Conv_0": (3, 3, 2, 6), "Conv_1": (1, 1, 6, 6), "Dense_2": (6, 5), "Dense_3": (5, 4)}


def state(dtype: Any = np.float32) -> dict[str, Any]:
    """A training state: parameters, statistics, a step, an optimizer's moments."""
    params = {name: {"kernel": RNG.normal(size=shape).astype(dtype), "bias": np.zeros(shape[-1])}
              for name, shape in SHAPES.items()}  # fmt: skip
    params["BatchNorm_0"] = {"scale": np.ones(6, "f4"), "bias": np.zeros(6, "f4")}
    statistics = {"BatchNorm_0": {"mean": np.zeros(6), "var": np.linspace(1, 2, 6)}}
    moments = jax.tree.map(np.zeros_like, params)
    return {"params": params, "batch_stats": statistics, "step": 3, "opt_state": (moments, None)}


class Small(flax.nnx.Module):
    def __init__(self) -> None:
        keys = flax.nnx.Rngs(0)
        self.a, self.b = flax.nnx.Linear(5, 6, rngs=keys), flax.nnx.Linear(6, 4, rngs=keys)
        self.norm = flax.nnx.BatchNorm(6, rngs=keys)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "files"
        kinds = {"ocdbt": {}, "zarr3": {"use_zarr3": True}, "plain": {"use_ocdbt": False}}
        values = {}
        for kind, options in kinds.items():
            tree = state(ml_dtypes.bfloat16 if kind == "zarr3" else np.float32)
            handler = ocp.PyTreeCheckpointHandler(**options)
            arguments = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=256), tree)
            ocp.Checkpointer(handler).save(home / kind, tree, save_args=arguments)
            for layer in SHAPES:
                values[f"{kind}.{layer}"] = tree["params"][layer]["kernel"].astype("f4")
        manager = ocp.CheckpointManager(home / "manager")
        for step in (1, 2):
            tree = state()
            manager.save(step, args=ocp.args.StandardSave({"params": tree["params"]}))
            manager.wait_until_finished()
            values |= {f"manager.{n}": tree["params"][n]["kernel"] for n in SHAPES}  # the last
        model = Small()
        saver = ocp.StandardCheckpointer()
        saver.save(home / "nnx", flax.nnx.state(model))
        saver.wait_until_finished()
        values |= {f"nnx.{n}": np.asarray(getattr(model, n).kernel) for n in ("a", "b")}
        np.savez(home / "values.npz", **values)
        shutil.make_archive(str(Path(__file__).with_name("orbax_files")), "zip", home)


if __name__ == "__main__":
    main()
