"""Clusterability of a small transformer trained on text, as a whole and in parts.

    python benchmarks/paper/transformer.py [--out FILE.csv] [--steps 1400] [--runs 2]

The paper measures perceptrons and convolutional networks and leaves transformers open. A decoder of
characters learns Python from the standard library's own sources, and then trains on while its
smallest weights are pruned, from 50 to 90 percent of each linear layer. It is measured as it was
initialized, trained and pruned, whole and in parts. The CSV gets a row per run, phase, part,
residual convention and convention of scale; a JSON file beside it the losses, ncut's warnings and
the layers of clusters. `--weights FOLDER` keeps the weights for later calls.

Its MLPs use ReLU instead of GELU, so that a hidden neuron's scale is free, as in the paper's
networks, and conventions of scale apply.
"""

from __future__ import annotations

import argparse
import json
import math
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import ncut

TRAINING = """_pydecimal argparse ast bdb calendar configparser dataclasses difflib doctest enum
    fractions ftplib functools heapq imaplib inspect ipaddress mailbox optparse pdb pickle
    pickletools platform plistlib pydoc random shutil smtplib socket ssl statistics subprocess
    tarfile threading turtle typing"""
HELD_OUT = "textwrap tokenize traceback uuid weakref"
CHARACTERS = b"\n" + bytes(range(ord(" "), ord("~") + 1))
"""The vocabulary, in order; other bytes are dropped from the text."""

N_BLOCKS, WIDTH, N_HEADS, CONTEXT, BATCH = 3, 96, 4, 64, 32
LEARNING_RATE, WARM_UP = 3e-3, 50
TRAINING_SHARE, PRUNING_SHARE = 0.6, 0.8
"""Share of the steps before pruning begins, and of those after in which masks still change."""

PHASES = ("initial", "trained", "pruned")
PARTS = {
    "whole": "*",
    "blocks": "blocks.*",
    "MLPs": "*.mlp.*",
    "attention": "*.attention.*",
    "values": "*.attention.[vo]*",
    "queries, keys": "*.attention.[qk]*",
}
"""Patterns for the names of the layers that a part keeps of the whole graph."""
SCALED = ("whole", "MLPs")
"""The parts that are also measured by readers, where conventions of scale apply."""


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        layers = (self.query, self.key, self.value)
        heads = [layer(x).unflatten(-1, (N_HEADS, -1)).transpose(1, 2) for layer in layers]
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        hidden = 4 * WIDTH
        self.mlp = nn.Sequential(nn.Linear(WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """From tokens, (batch, length), to the next token's logits, (batch, length, characters)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(CHARACTERS), WIDTH)
        self.positions = nn.Parameter(torch.zeros(CONTEXT, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(N_BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.unembed = nn.Linear(WIDTH, len(CHARACTERS), bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.positions[: tokens.shape[1]]
        return self.unembed(self.norm(self.blocks(x)))


def text(modules: str) -> Tensor:
    """The sources of modules of the standard library, one after another, as tokens."""
    folder = Path(sysconfig.get_path("stdlib"))
    content = b"".join((folder / f"{name}.py").read_bytes() for name in modules.split())
    numbers = np.full(256, -1)
    numbers[list(CHARACTERS)] = np.arange(len(CHARACTERS))
    tokens = numbers[np.frombuffer(content, np.uint8)]
    return torch.from_numpy(tokens[tokens >= 0])


def mean_loss(model: nn.Module, tokens: Tensor, starts: Tensor) -> Tensor:
    """Nats per character, over the windows of text that begin at `starts`."""
    windows = tokens[starts[:, None] + torch.arange(CONTEXT + 1)]
    return functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: nn.Module) -> float:
    tokens = text(HELD_OUT)
    starts = torch.arange(0, len(tokens) - CONTEXT, len(tokens) // 640).split(BATCH)
    return float(torch.stack([mean_loss(model, tokens, some) for some in starts]).mean())


def train(model: nn.Module, n_steps: int, seed: int, *, pruned: bool) -> None:
    """A new Adam, whose rate warms up and falls to a tenth by a cosine; pruning if asked for."""
    tokens, generator = text(TRAINING), torch.Generator().manual_seed(seed)
    end = int(PRUNING_SHARE * n_steps)
    pruning = ncut.PolynomialPruning(model, end_step=end) if pruned else None
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(n_steps):
        falling = 0.55 + 0.45 * math.cos(math.pi * step / n_steps)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * falling * min(1, (step + 1) / WARM_UP)
        if pruning is not None:
            pruning.step()
        starts = torch.randint(len(tokens) - CONTEXT, (BATCH,), generator=generator)
        optimizer.zero_grad()
        mean_loss(model, tokens, starts).backward()
        optimizer.step()
    if pruning is not None:
        pruning.remove()


def networks(run: int, n_steps: int, folder: Path | None) -> Iterator[tuple[str, Transformer]]:
    """The network of each phase: trained, and saved to `folder`, or read from there."""
    torch.manual_seed(run)
    model, n_trained = Transformer(), int(TRAINING_SHARE * n_steps)
    for phase, n in zip(PHASES, (0, n_trained, n_steps - n_trained), strict=True):
        file = folder / f"{phase}-{run}-{n_steps}.safetensors" if folder else None
        if file and file.exists():
            model.load_state_dict(load_file(file))
        elif n:
            train(model, n, seed=run, pruned=phase == "pruned")
        if file:
            save_file(model.state_dict(), file)
        yield phase, model


def parts(model: Transformer) -> Iterator[tuple[str, str, ncut.NeuronGraph]]:
    """The whole, layers of one kind in all blocks together, and those of a single block.

    With each part's name goes how its residual sums are read; "alone" has none.
    """
    tokens = torch.zeros(1, CONTEXT, dtype=torch.long)
    for residual, names in (("stream", PARTS), ("readers", SCALED)):
        whole = ncut.graph(model, residual=residual, example_inputs=tokens)
        for name in names:
            kept = tuple(block for block in whole.blocks if fnmatch(block.name, PARTS[name]))
            yield name, residual, replace(whole, blocks=kept)
    for number, block in enumerate(model.blocks, start=1):
        attention, gamma = block.attention, block.norm1.weight
        value = nn.Sequential(block.norm1, attention.value, attention.out)
        # A head knows queries and keys by their products alone: a chain that meets in them.
        scores = [(attention.query.weight * gamma).T, attention.key.weight * gamma]
        yield f"MLP {number}", "alone", ncut.graph(nn.Sequential(block.norm2, *block.mlp))
        yield f"values {number}", "alone", ncut.graph(value)
        yield f"queries, keys {number}", "alone", ncut.graph([s.detach() for s in scores])


def measured(
    model: Transformer, run: int, phase: str, shuffles: int
) -> Iterator[tuple[dict[str, Any], ncut.Report]]:
    """The reports of all parts. In a stream edges have no direction: no convention applies."""
    for name, residual, graph in parts(model):
        as_it_is = phase == "initial" or residual == "stream"
        for scale in ("none",) if as_it_is else ("none", "l2", "balanced"):
            options = {"k": 12, "shuffles": shuffles, "normalize": scale, "seed": run}
            place = {"run": run, "phase": phase, "part": name, "residual": residual}
            yield place | {"normalize": scale}, ncut.analyze(graph, threads=1, **options)


def row(report: ncut.Report) -> dict[str, Any]:
    """A report's row of the table; vertices without edges are not counted.

    `clusters` are sizes, `terms` the clusters' terms of the n-cut, the largest cluster first.
    """
    members = np.equal.outer(report.labels, np.arange(report.k)).astype(float)
    between = members.T @ (report.graph.adjacency @ members)
    terms, sizes = 1 - between.diagonal() / between.sum(axis=1), members.sum(axis=0).astype(int)
    order = np.argsort(-sizes, kind="stable")
    return {
        "ncut": report.ncut, "shuffled_mean": report.shuffled_mean,
        "shuffled_std": report.shuffled_std, "z": report.z_score, "p": report.p_value,
        "z_refined": report.statistics["refined_ncut"].z_score,
        "z_lower_bound": report.statistics["lower_bound"].z_score,
        "vertices": sizes.sum(), "edges": report.n_edges,
        "clusters": " ".join(map(str, sizes[order])),
        "terms": " ".join(f"{term:.2f}" for term in terms[order]),
    }  # fmt: skip


def layers_of_clusters(report: ncut.Report) -> dict[str, str]:
    """For each layer, how many of its neurons are in each cluster."""
    sizes = zip(report.layers, report.cluster_sizes(), strict=True)
    return {layer.name: " ".join(map(str, row)) for layer, row in sizes}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    results = Path(__file__).parent / "results" / "transformer.csv"
    parser.add_argument("--out", type=Path, default=results)
    parser.add_argument("--steps", type=int, default=1400, help="of training and pruning together")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--shuffles", type=int, default=50)
    parser.add_argument("--weights", type=Path, help="an existing folder that keeps the weights")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    notes: dict[str, Any] = {"steps": chosen.steps, "losses": {}, "warnings": {}, "layers": {}}
    for run in range(chosen.runs):
        for phase, model in networks(run, chosen.steps, chosen.weights):
            notes["losses"][f"{run} {phase}"] = loss = round(held_out_loss(model), 4)
            for place, report in measured(model, run, phase, chosen.shuffles):
                rows.append(place | {"loss": loss} | row(report))
                where = ", ".join(map(str, place.values()))
                print(f"{where}: n-cut {report.ncut:.3f}, Z {report.z_score}", flush=True)
                for warning in report.warnings:
                    notes["warnings"].setdefault(warning, []).append(where)
                if (place["part"], place["residual"]) == ("whole", "stream"):
                    notes["layers"][f"{run} {phase}"] = layers_of_clusters(report)
            pd.DataFrame(rows).round(4).to_csv(chosen.out, index=False)
            chosen.out.with_suffix(".json").write_text(json.dumps(notes, indent=1) + "\n")


if __name__ == "__main__":
    main()
