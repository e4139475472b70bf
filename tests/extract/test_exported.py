"""Programs of torch.export have the graph of their module."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncut
from ncut.errors import ModelError
from ncut.extract.formats import format_of

torch = pytest.importorskip("torch", reason="pip install torch")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


class Residual(torch.nn.Module):
    """Convolutions with norms and a sum, sizes asked for, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.out = torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 5)
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 1.0]).view(1, 4, 1, 1))

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.norm(self.a(x))) * self.mask
        x = x + torch.nn.functional.gelu(self.b(x), approximate="tanh")
        return self.out(x.mean((2, 3)).reshape(x.shape[0], -1))


class Attending(torch.nn.Module):
    """An embedding, attention and an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(11, 8)
        self.layer = torch.nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.out = torch.nn.Linear(8, 3)

    def forward(self, ids: Any) -> Any:
        x = self.words(ids)
        first, second = self.layer(x).split(4, dim=-1)
        return self.out(torch.cat([first, second * 2], dim=-1))


class Bags(torch.nn.Module):
    """Bags of embeddings, as in recommender models."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = torch.nn.EmbeddingBag(11, 8, mode="mean")
        self.inner, self.out = torch.nn.Linear(8, 6), torch.nn.Linear(6, 3)

    def forward(self, ids: Any) -> Any:
        return self.out(torch.relu(self.inner(self.bags(ids))))


CASES = {
    "bags": (Bags, lambda: torch.zeros(2, 5, dtype=torch.long)),
    "residual": (Residual, lambda: torch.zeros(2, 3, 8, 8)),
    "attending": (Attending, lambda: torch.zeros(2, 5, dtype=torch.long)),
}


def exported(kind: str, to: Path, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    make, example = CASES[kind]
    module = make().eval()
    for name, value in module.named_buffers():
        if "running_var" in name:
            value.uniform_(0.5, 2)
    program = torch.export.export(module, (example(),), **options)
    torch.export.save(program, to)
    return module, example()


def same(graph: ncut.NeuronGraph, other: ncut.NeuronGraph) -> None:
    assert [layer.size for layer in graph.layers] == [layer.size for layer in other.layers]
    assert [block.name for block in graph.blocks] == [block.name for block in other.blocks]
    assert np.allclose(graph.adjacency.toarray(), other.adjacency.toarray(), rtol=1e-6)
    assert graph.placed_share == other.placed_share


@pytest.mark.parametrize("kind", CASES)
def test_a_program_has_the_graph_of_its_module(kind: str, tmp_path: Path) -> None:
    module, example = exported(kind, tmp_path / "a.pt2")
    assert format_of(tmp_path / "a.pt2").name == "a program of torch.export"
    for options in ({"residual": "readers"}, {"residual": "stream", "scope": "all"}):
        given = ncut.graph(module, example_inputs=example, **options)
        same(ncut.graph(tmp_path / "a.pt2", **options), given)
    (tmp_path / "a.pt2").rename(tmp_path / "weights.bin")
    graph = ncut.graph(tmp_path / "weights.bin", part="out" if kind == "residual" else "mlp",
                       scope="all")  # fmt: skip
    assert graph.n_edges


def test_a_program_computes_what_its_module_does(tmp_path: Path) -> None:
    """The graph that is followed is the one of the file: its numbers are those of the module."""
    from ncut.extract.readers.exported import Exported, _content

    for kind in CASES:
        module, example = exported(kind, tmp_path / f"{kind}.pt2")
        with zipfile.ZipFile(tmp_path / f"{kind}.pt2") as archive:
            again = Exported(*_content(archive, tmp_path / f"{kind}.pt2")).eval()
        values = torch.randn_like(example) if example.is_floating_point() else example + 3
        with torch.no_grad():
            torch.testing.assert_close(again(values)[0], module(values))


def test_sizes_that_were_left_open(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=2, max=64)
    module, example = exported("residual", tmp_path / "a.pt2", dynamic_shapes=({0: batch},))
    same(ncut.graph(tmp_path / "a.pt2"), ncut.graph(module, example_inputs=example))


def rewritten(path: Path, change: Any) -> Path:
    """Write an archive with another program."""
    to = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("models/model.json"):
                program = json.loads(content)
                change(program["graph_module"]["graph"]["nodes"])
                content = json.dumps(program).encode()
            new.writestr(name, content)
    return to


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("torch.ops.aten.from_file.default", "may name files"),
        ("torch.ops.aten.save.default", "may name files|does not have"),
        ("torch.ops.higher_order.cond", "calls 'torch.ops.higher_order.cond', which is not read"),
        ("os.system", r"calls 'os\.system', which is not read"),
        ("torch.ops.aten.nothing.default", "this version of torch does not have"),
    ],
)
def test_foreign_operations_are_refused(target: str, message: str, tmp_path: Path) -> None:
    exported("residual", tmp_path / "a.pt2")

    def change(nodes: list[Any]) -> None:
        nodes[1]["target"] = target

    with pytest.raises(ModelError, match=message):
        ncut.graph(rewritten(tmp_path / "a.pt2", change))


def test_tensors_too_large_to_be_a_network_are_refused(tmp_path: Path) -> None:
    exported("residual", tmp_path / "a.pt2")

    def change(nodes: list[Any]) -> None:
        sizes = {"name": "size", "arg": {"as_ints": [2**20, 2**20]}, "kind": 1}
        nodes[1] |= {"target": "torch.ops.aten.zeros.default", "inputs": [sizes]}

    with pytest.raises(ModelError, match="too large"):
        ncut.graph(rewritten(tmp_path / "a.pt2", change))


def test_archives_of_before_torch_2_8(tmp_path: Path) -> None:
    """Their program, state dict and constants lie in three members of other names."""
    module, example = exported("residual", tmp_path / "a.pt2")
    with zipfile.ZipFile(tmp_path / "a.pt2") as new, zipfile.ZipFile(
        tmp_path / "b.pt2", "w"
    ) as old:  # fmt: skip
        program = next(name for name in new.namelist() if name.endswith("models/model.json"))
        old.writestr("serialized_exported_program.json", new.read(program))
        for member, content in (("state_dict", module.state_dict()), ("constants", {})):
            torch.save(content, tmp_path / member)
            old.writestr(f"serialized_{member}.pt", (tmp_path / member).read_bytes())
    same(ncut.graph(tmp_path / "b.pt2"), ncut.graph(module, example_inputs=example))
