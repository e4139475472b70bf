"""PyTorch modules whose layers form no chain: sums, concatenations, recurrence, attention."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ncut.errors import InputError
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from module_nets import Body, Doubled, layers_of, magnitude  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils import parametrize  # noqa: E402


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return x + F.relu(self.fc(x))


def with_unused_branch(self, x):
    x = self.a(x)
    torch.tanh(x)
    return self.b(x)


def adjacency_of(graph, *edges):
    """The adjacency whose blocks are these, (first layer's position, second's, weights)."""
    starts = np.cumsum([0, *(layer.size for layer in graph.layers)])
    matrix = np.zeros((starts[-1], starts[-1]))
    for source, target, weights in edges:
        rows = slice(starts[source], starts[source + 1])
        columns = slice(starts[target], starts[target + 1])
        matrix[rows, columns] += weights
        matrix[columns, rows] += np.asarray(weights).T
    return matrix


def assert_graph(graph, layers, *edges):
    """Check the layers and the whole adjacency."""
    assert layers_of(graph) == layers
    assert_allclose(graph.adjacency.toarray(), adjacency_of(graph, *edges), rtol=1e-6)


def test_residual_sums():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(Residual()), nn.Linear(3, 2))
    graph = read_graph(model)
    first, second, last = (magnitude(x) for x in (model[0], model[1][0].fc, model[2]))
    assert_graph(
        graph,
        [("input", 3), ("0", 3), ("input of 2", 3), ("2", 2)],
        (0, 1, first),
        (0, 2, first),
        (1, 2, second),
        (2, 3, last),
    )
    assert graph.left_out == ()


def test_concatenations():
    model = Body(lambda self, x: self.c(torch.cat([self.a(x), torch.tanh(self.b(x))], 1)))
    model.c = nn.Linear(6, 2)
    a, b, c = (magnitude(x) for x in (model.a, model.b, model.c))
    assert_graph(
        read_graph(model),
        [("input", 3), ("input of c", 6), ("c", 2)],
        (0, 1, np.hstack([a, b])),
        (1, 2, c),
    )


def test_a_branch_that_nothing_reads_makes_no_difference():
    model = Body(with_unused_branch)
    expected = magnitude(model.a), magnitude(model.b)
    assert_graph(
        read_graph(model),
        [("input", 3), ("a", 3), ("b", 3)],
        (0, 1, expected[0]),
        (1, 2, expected[1]),
    )


def test_several_results():
    model = Body(lambda self, x: (self.a(x), {"b": self.b(torch.relu(self.a(x)))}))
    a, b = magnitude(model.a), magnitude(model.b)
    graph = read_graph(model)
    assert_graph(
        graph,
        [("input", 3), ("a (call 2)", 3), ("a", 3), ("b", 3)],
        (0, 2, a),
        (0, 1, a),
        (1, 3, b),
    )


def test_neurons_that_are_returned_twice_are_there_once():
    once, twice = (Body(lambda self, x, n=n: (self.b(self.a(x)),) * n) for n in (1, 2))
    twice.load_state_dict(once.state_dict())
    assert (read_graph(once).adjacency != read_graph(twice).adjacency).nnz == 0


@pytest.mark.parametrize("activated", [False, True])
def test_a_parameter_as_a_factor(activated):
    def body(self, x):
        x = self.a(x)
        return self.b((torch.relu(x) if activated else x) * self.scale)

    model = Body(body)
    with torch.no_grad():
        model.scale.copy_(torch.tensor([2.0, -3.0, 0.5]))
    scale = np.array([2.0, 3.0, 0.5])
    a, b = magnitude(model.a), magnitude(model.b)
    graph = read_graph(model)
    assert_graph(
        graph,
        [("input", 3), ("a", 3), ("b", 3)],
        (0, 1, a if activated else a * scale),
        (1, 2, b * scale[:, None] if activated else b),
    )
    assert {p.name: p.placed for p in graph.parameters} == {
        "scale": True, "a.weight": True, "a.bias": False, "b.weight": True, "b.bias": False,
    }  # fmt: skip


def test_a_model_of_parameters_without_inputs_has_no_weights():
    with pytest.raises(InputError, match="Body: no weights found"):
        read_graph(Body(lambda self, x: torch.tanh(self.scale)))


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("n_hidden", [1, 4])
def test_recurrent_layers(kind, n_hidden):
    model = nn.Sequential(nn.Linear(3, 2), kind(2, n_hidden))
    n_gates = {nn.RNN: 1, nn.LSTM: 4, nn.GRU: 3}[kind]

    def over_gates(weight):
        return weight.detach().abs().numpy().reshape(n_gates, n_hidden, -1).sum(axis=0).T

    within = over_gates(model[1].weight_hh_l0)
    # Half of what goes both ways, as the adjacency adds the transpose; no self-loops.
    within = (within + within.T) * (1 - np.eye(n_hidden)) / 2
    graph = read_graph(model)
    assert_graph(
        graph,
        [("input", 3), ("0", 2), ("1", n_hidden)],
        (0, 1, magnitude(model[0])),
        (1, 2, over_gates(model[1].weight_ih_l0)),
        (2, 2, within),
    )
    assert [layer.rescalable for layer in graph.layers] == [False, True, False]
    noted = [(item.name, item.shape) for item in graph.left_out]
    assert noted == ([("1 (recurrent)", (1, 1))] if n_hidden == 1 else [])


def test_bilinear_layers():
    model = Body(lambda self, x: self.c(torch.relu(self.a(x)), self.b(x)))
    model.c = nn.Bilinear(3, 3, 4)
    weight = model.c.weight.detach().abs().numpy()
    assert_graph(
        read_graph(model),
        [("input", 3), ("input read by b", 3), ("a", 3), ("b", 3), ("output", 4)],
        (0, 2, magnitude(model.a)),
        (1, 3, magnitude(model.b)),
        (2, 4, weight.sum(axis=2).T),
        (3, 4, weight.sum(axis=1).T),
    )


def test_attention_alone():
    model = nn.MultiheadAttention(4, 2)
    query, key, value = model.in_proj_weight.detach().abs().numpy().reshape(3, 4, 4)
    graph = read_graph(model)
    assert_graph(
        graph,
        [
            *(("query", 4), ("in_proj_weight", 4), ("key", 4), ("value", 4)),
            *(("in_proj_weight (call 3)", 4), ("out_proj", 4)),
        ],
        (0, 1, query.T),
        (2, 1, key.T),
        (3, 4, value.T),
        (4, 5, magnitude(model.out_proj)),
    )


class Doubling(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def parametrized_subclass():
    layer = Doubling(2, 3)
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def patched_instance():
    layer = nn.Linear(2, 3)
    layer.forward = lambda x: 2 * F.linear(x, layer.weight)
    return layer


@pytest.mark.parametrize("make", [lambda: Doubling(2, 3), parametrized_subclass, patched_instance])
def test_layers_with_a_forward_pass_of_their_own(make):
    model = nn.Sequential(make(), nn.Linear(3, 2))
    with torch.no_grad():
        first = 2 * magnitude(model[0])
    assert_graph(
        read_graph(model),
        [("input", 2), ("0", 3), ("1", 2)],
        (0, 1, first),
        (1, 2, magnitude(model[1])),
    )
