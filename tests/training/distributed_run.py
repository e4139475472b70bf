"""Trains with DistributedDataParallel and a regularizer, in two processes and in one.

python distributed_run.py FOLDER

The processes are forked, so that what takes long is imported once. What test_distributed.py starts.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import ncut
import ncut.training

STEPS, BATCH = 12, 16


def refused_shards(world: int) -> list[str]:
    """Errors of a regularizer for a model that FSDP2 shards, before and after its construction."""
    model = nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 6))
    made = ncut.EigenvalueRegularizer(model)
    fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    said = []
    for call in (made, lambda: ncut.EigenvalueRegularizer(model)):
        try:
            call()
        except ncut.InputError as error:
            said.append(str(error))
    return said


def train(folder: Path, rank: int, world: int) -> None:
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=world
        )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 6))
    wrapped = DistributedDataParallel(model) if world > 1 else model
    eigenvalues = ncut.EigenvalueRegularizer(wrapped, (2, 3, 4), 0.5, disconnect="ignore")
    soft = ncut.SoftCutRegularizer(wrapped, 3, 0.3)
    modules = nn.Sequential(nn.Linear(9, 12), nn.ReLU(), nn.Linear(12, 6))
    cut: nn.Module = ncut.CutDropout(modules, 3)
    both = DistributedDataParallel(cut) if world > 1 else cut
    trained = [*model.parameters(), *modules.parameters()]
    optimizer = torch.optim.SGD(trained, 0.1)
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(BATCH, 9, generator=generator)
        # Each process takes every so-manieth half of the batch whole and apart alike.
        ours = x.reshape(2, world, -1, 9)[:, rank].reshape(-1, 9)
        loss = (wrapped(ours) - ours[:, :6]).square().mean() + eigenvalues() + soft()
        loss = loss + (both(ours) - ours[:, :6]).square().mean() + cut.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    said = refused_shards(world) if world > 1 else []
    parameters = [parameter.detach() for parameter in trained]
    torch.save({"parameters": parameters, "said": said}, folder / f"rank-{rank}-of-{world}.pt")
    if world > 1:
        distributed.destroy_process_group()


def main() -> None:
    context = multiprocessing.get_context("fork")
    folder = Path(sys.argv[1])
    started = [
        context.Process(target=train, args=(folder, *run)) for run in ((0, 2), (1, 2), (0, 1))
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    sys.exit(any(process.exitcode for process in started))


if __name__ == "__main__":
    main()
