"""Trains with DistributedDataParallel and a regularizer; what test_distributed.py starts.

python distributed_run.py RANK WORLD RENDEZVOUS OUT
"""

from __future__ import annotations

import sys

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import ncut

STEPS, BATCH = 12, 16


def refuse_shards(world: int) -> None:
    """Print what a regularizer says to a model that FSDP2 shards, before it is made and after."""
    model = nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 6))
    made = ncut.EigenvalueRegularizer(model)
    fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    for call in (made, lambda: ncut.EigenvalueRegularizer(model)):
        try:
            call()
        except ncut.InputError as error:
            print(error)


def main(rank: int, world: int, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world
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
    torch.save([parameter.detach() for parameter in trained], out)
    if world > 1:
        refuse_shards(world)
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
