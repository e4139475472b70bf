"""Parts of models: the blocks of the whole graph that lie in them, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncut
from ncut.errors import InputError

torch = pytest.importorskip("torch", reason="pip install torch")

IDS = torch.zeros(1, 3, dtype=torch.long)


class Block(torch.nn.Module):
    """A layer of a transformer, whose names say nothing of what its weights do."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a, self.b = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (torch.nn.Linear(width, width) for _ in range(4))
        self.up, self.gate = torch.nn.Linear(width, 12), torch.nn.Linear(width, 12)
        self.low = torch.nn.Sequential(torch.nn.Linear(width, 2), torch.nn.Linear(2, 12))
        self.down = torch.nn.Linear(12, width)

    def forward(self, x: Any) -> Any:
        h = self.a(x)
        q, k = (layer(h) * 0.5 + layer(h).flip(-1) * 0.5 for layer in (self.q, self.k))
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ self.v(h)
        x = x + self.o(mixed)
        h = self.b(x)
        gate = torch.nn.functional.silu(self.gate(h) + self.low(h))
        return x + self.down(gate * self.up(h))


class Net(torch.nn.Module):
    """Two layers, and a head with a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(9, 8)
        self.layer = torch.nn.ModuleList([Block(), Block()])
        self.head = torch.nn.Sequential(
            torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 9)
        )

    def forward(self, ids: Any) -> Any:
        x = self.words(ids)
        for layer in self.layer:
            x = layer(x)
        return self.head(x)


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def names(graph: ncut.NeuronGraph) -> set[str]:
    return {block.name.partition(" (call")[0] for block in graph.blocks}


MLP = {f"layer.{n}.{name}" for n in range(2) for name in ("up", "gate", "down")}
ATTENTION = {f"layer.{n}.{name}" for n in range(2) for name in "qkvo"}
LOW = {"layer.0.low.0", "layer.0.low.1"}


@pytest.mark.parametrize("residual", ["readers", "stream"])
@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("attention", ATTENTION),
        ("layer.1.attention", {f"layer.1.{name}" for name in "qkvo"}),
        ("layer.0", {n for n in MLP | ATTENTION if n.startswith("layer.0")} | LOW),
        ("layer.*.up", {"layer.0.up", "layer.1.up"}),
        ("1.[qk]", {"layer.1.q", "layer.1.k"}),
        ("words.weight", {"words"}),
        ("head", {"head.0", "head.2"}),
    ],
)
def test_a_part_is_the_blocks_of_the_whole_graph(
    net: Net, part: str, expected: set[str], residual: Any
) -> None:
    whole = ncut.graph(net, example_inputs=IDS, residual=residual)
    graph = ncut.graph(net, example_inputs=IDS, residual=residual, part=part)
    assert names(graph) == expected
    blocks = [block for block in whole.blocks if block.name.partition(" (call")[0] in expected]
    assert len(blocks) == len(graph.blocks)
    for block, other in zip(graph.blocks, blocks, strict=True):
        assert np.array_equal(block.weights, other.weights)
        for end in ("source", "target"):
            layers = (graph.layers[getattr(block, end)], whole.layers[getattr(other, end)])
            assert layers[0].name == layers[1].name
            assert layers[0].size == layers[1].size
    assert graph.n_vertices == sum(
        whole.layers[n].size for n in {end for b in blocks for end in (b.source, b.target)}
    )
    assert graph.name == f"Net, {part}"


def test_left_out_parameters_are_listed_and_counted(net: Net) -> None:
    graph = ncut.graph(net, example_inputs=IDS, part="mlp")
    assert names(graph) >= MLP
    assert not names(graph) & {"head.0", "head.2", "words"} | names(graph) & ATTENTION
    reasons = {item.name.partition(" (call")[0]: item.reason for item in graph.left_out}
    left = {name for name, reason in reasons.items() if reason == "not in the part 'mlp'"}
    assert left == names(ncut.graph(net, example_inputs=IDS)) - names(graph)
    matrices = {n: p.numel() for n, p in net.named_parameters() if p.ndim > 1}
    kept = sum(size for n, size in matrices.items() if n.removesuffix(".weight") in names(graph))
    assert graph.placed_share == pytest.approx(kept / sum(matrices.values()))
    assert all(p.placed == (p.name.removesuffix(".weight") in names(graph))
               for p in graph.parameters if len(p.shape) > 1)  # fmt: skip


def test_invalid_parts_are_named(net: Net) -> None:
    there = "There are 'mlp', 'attention', 'layer', 'head', 'layer.0'"
    with pytest.raises(InputError, match=rf"of 'layr.1'; did you mean 'layer.1'\? {there}"):
        ncut.graph(net, example_inputs=IDS, part="layr.1")
    with pytest.raises(InputError, match=r"no weights of 'attention'. There are 'mlp'"):
        ncut.graph([np.ones((4, 3)), np.ones((3, 2))], part="attention")
    with pytest.raises(InputError, match="part: must be a name, got 3"):
        ncut.graph(net, example_inputs=IDS, part=3)
    with pytest.raises(InputError, match="no weights of ''"):
        ncut.graph(net, example_inputs=IDS, part="")
    images = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 5, 3))
    with pytest.raises(InputError, match="'0' is '0' and has no edges in the graph; scope='all'"):
        ncut.graph(images, part="0")
    for given in (ncut.graph(net, example_inputs=IDS), np.eye(3)):
        with pytest.raises(InputError):
            ncut.graph(given, part="mlp")
    with pytest.raises(InputError, match="part: has no effect on attributions"):
        ncut.graph(net, edges="attribution", data=(IDS, IDS), part="mlp")


def test_a_chain_is_one_mlp() -> None:
    chain = [np.ones((4, 3)), np.ones((3, 2))]
    assert ncut.graph(chain, part="mlp").n_edges == ncut.graph(chain).n_edges == 18
    assert [layer.size for layer in ncut.graph(chain, part="w1").layers] == [3, 2]


@pytest.mark.parametrize(
    ("kind", "mlp"),
    [("Bert", ("intermediate.dense", "output.dense")), ("GPTNeoX", ("h_to_4h", "4h_to_h")),
     ("Llama", ("gate_proj", "up_proj", "down_proj"))],
)  # fmt: skip
def test_parts_of_folders_match_modules(kind: str, mlp: tuple[str, ...], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=24,
        vocab_size=20, max_position_embeddings=8, num_key_value_heads=2,
    )  # fmt: skip
    head = "ForMaskedLM" if kind == "Bert" else "ForCausalLM"
    model = getattr(transformers, f"{kind}{head}")(config)
    model.save_pretrained(tmp_path)
    for part in ("mlp", "attention", "1.mlp"):
        graph, expected = (ncut.graph(given, part=part) for given in (tmp_path, model))
        assert names(graph) == names(expected)
        assert (graph.adjacency != expected.adjacency).nnz == 0
        assert graph.placed_share == expected.placed_share
    found = names(ncut.graph(tmp_path, part="mlp"))
    assert all(name.endswith(mlp) and "attention" not in name for name in found)
    assert len(found) == 2 * len(mlp)


def test_parts_of_onnx_files_by_the_names_of_nodes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="pip install onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes, arrays, before = [], [], "x"
    for number in range(3):
        arrays.append(numpy_helper.from_array(np.ones((4, 4), np.float32), f"onnx::{number}"))
        for kind, reads in (("MatMul", [before, f"onnx::{number}"]), ("Relu", [f"m{number}"])):
            made = f"m{number}" if kind == "MatMul" else f"r{number}"
            name = f"/encoder/layer.{number}/dense/{kind}"
            nodes.append(helper.make_node(kind, reads, [made], name=name))
        before = f"r{number}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    nodes.append(helper.make_node("Identity", [before], ["y"]))
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], arrays)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "a.onnx")
    graph = ncut.graph(tmp_path / "a.onnx", part="encoder.layer.1")
    assert [layer.size for layer in graph.layers] == [4, 4]
    assert ncut.graph(tmp_path / "a.onnx", part="layer.[12].dense").n_edges == 32
    assert ncut.graph(tmp_path / "a.onnx", part="mlp").n_edges == 48


def test_parts_on_the_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ncut.cli import app

    np.savez(tmp_path / "a.npz", a=np.ones((4, 3)), b=np.ones((3, 2)), c=np.ones((2, 5)))
    told = CliRunner().invoke(app, ["info", str(tmp_path / "a.npz"), "--part", "b"]).output
    assert "a, b" in told
    assert "21.4%" in told
    assert "not in the part 'b'" in told
    done = CliRunner().invoke(
        app, ["scan", str(tmp_path), "--out", str(tmp_path / "out"), "--part", "b",
              "--shuffles", "2", "-k", "2", "--tests", "none"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
