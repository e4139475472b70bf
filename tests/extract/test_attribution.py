"""Edges from data: |a w dL/dz| summed over examples, free of scale; matrices of attributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

import ncut
from ncut.errors import InputError

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3)
    ).double()


def batch(n: int = 20) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (n,), generator=generator)


def blocks(graph: ncut.NeuronGraph) -> list[np.ndarray]:
    """The graph's blocks in the unit of its weights."""
    return [
        np.asarray(b.weights.toarray() if sparse.issparse(b.weights) else b.weights)
        * 2.0**graph.exponent
        for b in graph.blocks
    ]


def per_example(model: nn.Sequential, x: Any, y: Any) -> list[np.ndarray]:
    """By the derivative of each example's loss, one at a time: |w dL/dw|."""
    sums = [0.0] * 3
    for one, target in zip(x, y, strict=True):
        model.zero_grad()
        functional.cross_entropy(model(one[None]), target[None]).backward()
        for number, layer in enumerate((model[0], model[2], model[4])):
            sums[number] = sums[number] + (layer.weight * layer.weight.grad).abs().detach()
    return [np.asarray(total.numpy().T) for total in sums]  # type: ignore[union-attr]


def test_linear_layers_by_the_derivatives_of_each_example() -> None:
    model, (x, y) = mlp(), batch()
    graph = ncut.graph(model, edges="attribution", data=(x, y))
    expected = per_example(model, x, y)
    assert [layer.name for layer in graph.layers] == ["input", "0", "2", "4"]
    for ours, theirs in zip(blocks(graph), expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def test_no_rescaling_of_neurons_changes_it() -> None:
    model, data = mlp(), batch()
    graph = ncut.graph(model, edges="attribution", data=data)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for before, after in ((model[0], model[2]), (model[2], model[4])):
            n = before.out_features
            factors = torch.randn(n, generator=generator, dtype=torch.float64).exp()
            before.weight *= factors[:, None]
            before.bias *= factors
            after.weight /= factors
    again = ncut.graph(model, edges="attribution", data=data)
    for ours, theirs in zip(blocks(graph), blocks(again), strict=True):
        assert_allclose(ours, theirs, rtol=1e-9, atol=1e-14)
    ours, theirs = ncut.graph(model), ncut.graph(mlp())
    assert not np.allclose(ours.adjacency.toarray(), theirs.adjacency.toarray())


def test_convolutions_entry_by_entry() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 2, groups=2),
        nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6 * 16, 3),
    ).double()  # fmt: skip
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    y = torch.tensor([0, 2, 1])
    graph = ncut.graph(model, edges="attribution", data=(x, y), scope="all", example_inputs=x)
    first, second, last = blocks(graph)

    z1 = model[0](x)
    a1 = z1.relu()
    z2 = model[2](a1)
    a2 = z2.relu().flatten(1)
    z3 = model[5](a2)
    d1, d2, d3 = torch.autograd.grad(functional.cross_entropy(z3, y, reduction="sum"), (z1, z2, z3))
    expected = np.zeros((2, 4))
    padded = functional.pad(x, (1, 1, 1, 1))
    for i in range(2):
        for o in range(4):
            for r in range(3):
                for c in range(3):
                    seen = padded[:, i, r : r + 5, c : c + 5]
                    w = model[0].weight[o, i, r, c]
                    expected[i, o] += float((seen * w * d1[:, o]).detach().abs().sum())
    assert_allclose(first, expected, rtol=1e-10)
    expected = np.zeros((4, 6))
    for o in range(6):
        for i in range(2):
            channel = o // 3 * 2 + i
            for r in range(2):
                for c in range(2):
                    seen = a1[:, channel, r : r + 4, c : c + 4]
                    w = model[2].weight[o, i, r, c]
                    expected[channel, o] += float((seen * w * d2[:, o]).detach().abs().sum())
    assert_allclose(second, expected, rtol=1e-10)
    each = torch.einsum("ni,oi,no->io", a2.abs(), model[5].weight.abs(), d3.abs())
    assert_allclose(last, each.reshape(6, 16, 3).sum(1).detach().numpy(), rtol=1e-10)


def test_a_transformer_with_sums_as_layers() -> None:
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_embd=12, n_head=2, vocab_size=15, n_positions=8, tie_word_embeddings=False
    )
    model = transformers.GPT2LMHeadModel(config).train()
    ids = torch.randint(0, 15, (3, 5))

    def loss(network: Any, data: Any) -> Any:
        return network(input_ids=data, labels=data).loss

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    graph = ncut.graph(model, edges="attribution", data=ids, loss=loss)
    sizes = [(layer.name, layer.size) for layer in ncut.graph(model).layers]
    assert [(layer.name, layer.size) for layer in graph.layers] == sizes
    assert model.training
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not any(module._forward_hooks for module in model.modules())
    # By hand for the layer that writes to the stream last.
    model.eval()
    reads: list[Any] = []
    gives: list[Any] = []
    layer = model.transformer.h[0].mlp.c_proj
    handle = layer.register_forward_hook(lambda m, a, o: (reads.append(a[0]), gives.append(o))[0])
    value = loss(model, ids)
    handle.remove()
    (slope,) = torch.autograd.grad(value, gives[0])
    expected = torch.einsum("nti,io,nto->io", reads[0].abs(), layer.weight.abs(), slope.abs())
    found = [b for b in graph.blocks if b.name == "transformer.h.0.mlp.c_proj"]
    (matrix,) = [blocks(graph)[graph.blocks.index(b)] for b in found]
    matrix = matrix if matrix.shape == tuple(expected.shape) else matrix.T
    assert_allclose(matrix, expected.detach().numpy(), rtol=1e-5)


def test_modules_are_distinguished_from_a_bottleneck() -> None:
    """Two halves that share a neck by weights, and pass nothing through it."""
    model = mlp()
    data = batch(200)
    with torch.no_grad():
        model[0].weight[:4, 3:] = 0
        model[0].weight[4:, :3] = 0
        model[2].weight[:3, 4:] = 0
        model[2].weight[3:, :4] = 0
        model[0].bias[0] = -1e3  # a neuron that never fires
        model[2].weight[:, 0] = 50.0
    labels = np.array([0] * 3 + [1] * 3 + [0] * 4 + [1] * 4 + [0] * 3 + [1] * 4 + [0, 1, 1])
    by_weights = ncut.normalized_cut(ncut.graph(model), labels)
    by_data = ncut.normalized_cut(ncut.graph(model, edges="attribution", data=data), labels)
    assert by_data < 0.7 * by_weights


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        x = self.a(x).relu()
        return self.c((x + self.b(x)).relu())


def test_indistinguishable_layers_are_refused() -> None:
    data = batch()
    model = Sum().double()
    with pytest.raises(InputError, match="pass residual='stream'"):
        ncut.graph(model, edges="attribution", data=data, residual="readers")
    assert ncut.graph(model, edges="attribution", data=data, residual="stream").n_edges
    twice = nn.Linear(6, 6)
    with pytest.raises(InputError, match="is called several times"):
        ncut.graph(nn.Sequential(twice, nn.ReLU(), twice), edges="attribution", data=data)
    attention = nn.TransformerEncoderLayer(6, 2, 8)
    with pytest.raises(InputError, match="linear layers, convolutions and embeddings only"):
        ncut.graph(attention, edges="attribution", data=data, residual="stream",
                   example_inputs=torch.zeros(4, 1, 6))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": "x"}, "edges: must be 'weights' or 'attribution'"),
        ({"data": None}, "data: edges='attribution' of a module needs a batch"),
        ({"data": torch.zeros(2)}, "data: must be a pair of tensors"),
        ({"loss": lambda m, d: 3.0}, "loss: must return a scalar tensor"),
        ({"edges": "weights"}, "data: has no effect on edges='weights'"),
        ({"layers": ["0"]}, "layers: names the parts of a matrix"),
        ({"model": [np.ones((2, 2))] * 2}, "is for a torch module with data, or a square matrix"),
        ({"model": np.ones((2, 2))}, "data: has no effect on a matrix"),
        ({"model": np.ones((2, 3)), "data": None}, "must be a square matrix"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        ncut.graph(**({"model": mlp(), "edges": "attribution", "data": batch()} | change))
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_a_signed_and_directed_matrix(kind: Any) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(9, 9))
    graph = ncut.graph(kind(matrix), edges="attribution", layers={"a": 4, "b": 5}, name="features")
    expected = np.abs(matrix) + np.abs(matrix).T
    np.fill_diagonal(expected, 0)
    assert_allclose(graph.adjacency.toarray() * 2.0**graph.exponent, expected)
    assert [(layer.name, layer.size) for layer in graph.layers] == [("a", 4), ("b", 5)]
    assert graph.name == "features"
    off = matrix[~np.eye(9, dtype=bool)]
    assert {note.name: note.reason for note in graph.left_out} == {
        "signs": f"magnitudes are taken: {(off < 0).sum()} of 72 entries are negative",
        "directions": "the matrix is not symmetric: an edge weighs |a_ij| + |a_ji|",
    }
    report = ncut.analyze(graph, k=2, shuffles=3)
    assert "features" in str(report)


def test_a_matrix_that_is_a_graph_is_kept_whole() -> None:
    matrix = np.abs(np.random.default_rng(1).normal(size=(6, 6)))
    graph = ncut.graph(matrix + matrix.T, edges="attribution")
    assert graph.left_out == ()
    with pytest.raises(InputError, match="layers: have 5 features together, the matrix 6"):
        ncut.graph(matrix, edges="attribution", layers={"a": 5})
