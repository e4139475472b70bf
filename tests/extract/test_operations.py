"""Each operation in a small network whose whole adjacency is known.

What is expected is computed from the definition: magnitudes of weight arrays with numpy, and
where channels land by sending one channel at a time through the operation itself.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from torch_nets import Model, array, chain, expect, factor, into, trained

from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils import parametrizations, prune  # noqa: E402

pytestmark = pytest.mark.usefixtures("doubles")


def test_linear_layers():
    model = chain(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    graph = read_graph(model)
    expect(
        graph,
        [4, 3, 5, 2],
        {(at, at + 1): into(model[2 * at].weight) for at in range(3)},
    )
    assert [layer.rescalable for layer in graph.layers] == [False, True, False, False]
    assert [layer.read_by for layer in graph.layers] == [("0",), ("2",), ("4",), ()]


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("n_axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolutions(n_axes, groups, norm):
    kind = [nn.Conv1d, nn.Conv2d, nn.Conv3d][n_axes - 1]
    model = chain(
        kind(3, 6, 2),
        nn.ReLU(),
        kind(6, 12, 3, groups=groups, padding=1),
        nn.ReLU(),
        kind(12, 2, 1),
    )
    graph = read_graph(model, scope="all", norm=norm)
    weights = [array(part.weight) for part in (model[0], model[2], model[4])]
    if norm == "l2":
        weights = [np.sqrt((w.reshape(*w.shape[:2], -1) ** 2).sum(axis=2)) for w in weights]
    expected = [into(w, g) for w, g in zip(weights, (1, groups, 1), strict=True)]
    expect(graph, [3, 6, 12, 2], {(at, at + 1): w for at, w in enumerate(expected)})


@pytest.mark.parametrize("n_axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 3])
def test_transposed_convolutions(n_axes, groups):
    kinds = [(nn.Conv1d, nn.ConvTranspose1d), (nn.Conv2d, nn.ConvTranspose2d)]
    plain, transposed = [*kinds, (nn.Conv3d, nn.ConvTranspose3d)][n_axes - 1]
    model = chain(plain(2, 6, 1), transposed(6, 9, 2, stride=2, groups=groups), plain(9, 2, 1))
    weight = np.abs(array(model[1].weight)).reshape(6, 9 // groups, -1).sum(axis=2)
    expected = np.zeros((6, 9))
    for channel in range(6):
        group = channel // (6 // groups)
        outs = np.arange(9 // groups) + group * (9 // groups)
        expected[channel, outs] = weight[channel]
    graph = read_graph(model, scope="all")
    expect(
        graph, [2, 6, 9, 2],
        {(0, 1): into(model[0].weight), (1, 2): expected, (2, 3): into(model[2].weight)},
    )  # fmt: skip


def test_many_groups_are_sparse():
    model = chain(nn.Conv2d(1, 300, 1), nn.Conv2d(300, 300, 3, groups=300), nn.Conv2d(300, 2, 1))
    graph = read_graph(model, scope="all")
    expected = np.diag(np.abs(array(model[1].weight)).sum(axis=(1, 2, 3)))
    expect(
        graph, [1, 300, 300, 2],
        {(0, 1): into(model[0].weight), (1, 2): expected, (2, 3): into(model[2].weight)},
    )  # fmt: skip


def test_weights_as_functions_and_products():
    """Each of the ways to apply a matrix to the last axis, or to the one before it."""
    p = {n: nn.Parameter(torch.randn(4, 4)) for n in "abcdefgh"}

    def run(self, x):
        x = torch.relu(F.linear(x, self.a))
        x = torch.relu(x @ self.b)
        x = torch.relu(torch.matmul(x, self.c.t()))
        x = torch.relu(torch.einsum("nti,oi->nto", x, self.d))
        x = torch.relu((self.e @ x.transpose(1, 2)).transpose(1, 2))
        x = torch.relu(F.conv1d(x.transpose(1, 2), self.f[:, :, None]).transpose(1, 2))
        x = torch.relu(torch.tensordot(x, self.g, dims=1))
        return torch.einsum("io,nti->nto", self.h, x)

    graph = read_graph(Model(run, **p), scope="all", example_inputs=torch.zeros(2, 3, 4))
    w = {n: np.abs(array(v)) for n, v in p.items()}
    outs = [w["a"].T, w["b"], w["c"].T, w["d"].T, w["e"].T, w["f"].T, w["g"], w["h"]]
    expect(graph, [4] * 9, {(at, at + 1): m for at, m in enumerate(outs)})
    assert all(parameter.placed for parameter in graph.parameters)


def test_a_vector_as_the_last_layer():
    model = Model(
        lambda m, x: torch.relu(m.a(x)) @ m.w, a=nn.Linear(3, 4), w=nn.Parameter(torch.randn(4))
    )
    expect(
        read_graph(model), [3, 4, 1],
        {(0, 1): into(model.a.weight), (1, 2): np.abs(array(model.w))[:, None]},
    )  # fmt: skip


@pytest.mark.parametrize("how", ["bmm", "einsum"])
def test_each_group_has_its_own_matrix(how):
    weight = nn.Parameter(torch.randn(3, 2, 5))

    def run(self, x):
        x = torch.relu(self.a(x)).reshape(-1, 3, 2)
        if how == "bmm":
            x = torch.bmm(x.transpose(0, 1), self.w).transpose(0, 1)
        else:
            x = torch.einsum("ngi,gio->ngo", x, self.w)
        return self.b(torch.relu(x).reshape(-1, 15))

    model = Model(run, a=nn.Linear(4, 6), w=weight, b=nn.Linear(15, 2))
    expected = np.zeros((6, 15))
    for group in range(3):
        expected[2 * group : 2 * group + 2, 5 * group : 5 * group + 5] = np.abs(array(weight))[
            group
        ]
    expect(
        read_graph(model, example_inputs=torch.zeros(4, 4)), [4, 6, 15, 2],
        {(0, 1): into(model.a.weight), (1, 2): expected, (2, 3): into(model.b.weight)},
    )  # fmt: skip


def test_bilinear_reads_both_inputs():
    model = Model(lambda m, x, y: m.b(m.a(x, y)), a=nn.Bilinear(2, 3, 4), b=nn.Linear(4, 2))
    graph = read_graph(model, example_inputs=(torch.zeros(5, 2), torch.zeros(5, 3)))
    weight = np.abs(array(model.a.weight))
    expect(
        graph, [2, 3, 4, 2],
        {(0, 2): weight.sum(axis=2).T, (1, 2): weight.sum(axis=1).T, (2, 3): into(model.b.weight)},
    )  # fmt: skip


# --- norms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm1d(4),
        lambda: nn.BatchNorm1d(4, affine=False),
        lambda: nn.LayerNorm(4),
        lambda: nn.RMSNorm(4),
        lambda: nn.GroupNorm(2, 4),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_norms_fold_on_the_side_without_an_activation(norm, before):
    norm = trained(norm())
    middle = [norm, nn.ReLU()] if before else [nn.ReLU(), norm]
    model = chain(nn.Linear(3, 4), *middle, nn.Linear(4, 2))
    first, last = into(model[0].weight), into(model[3].weight)
    scaled = {(0, 1): first * factor(norm), (1, 2): last} if before else {
        (0, 1): first, (1, 2): last * factor(norm)[:, None] if factor(norm).size > 1 else last
    }  # fmt: skip
    expect(read_graph(model), [3, 4, 2], scaled)


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm2d(4),
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        lambda: nn.InstanceNorm2d(4, affine=True),
        lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        lambda: nn.GroupNorm(2, 4),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_norms_of_channels(norm, before):
    norm = trained(norm())
    middle = [norm, nn.ReLU()] if before else [nn.ReLU(), norm]
    model = chain(nn.Conv2d(3, 4, 3), *middle, nn.Conv2d(4, 2, 3))
    first, last = into(model[0].weight), into(model[3].weight)
    if before:
        first = first * factor(norm)
    else:
        last = last * factor(norm)[:, None]
    expect(read_graph(model, scope="all"), [3, 4, 2], {(0, 1): first, (1, 2): last})


def test_norm_written_by_hand():
    def run(self, x):
        x = self.a(x)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gamma
        x = self.b(x)
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()
        return self.c(x * self.delta + 1)

    gamma, delta = nn.Parameter(torch.rand(4) + 1), nn.Parameter(torch.rand(3) + 1)
    parts = {"a": nn.Linear(3, 4), "b": nn.Linear(4, 3), "c": nn.Linear(3, 2)}
    model = Model(run, gamma=gamma, delta=delta, **parts)
    expect(
        read_graph(model), [3, 4, 3, 2],
        {
            (0, 1): into(model.a.weight) * array(gamma),
            (1, 2): into(model.b.weight) * array(delta),
            (2, 3): into(model.c.weight),
        },
    )  # fmt: skip


def test_norm_of_each_head_written_by_hand_mixes_no_neurons():
    def run(model, x):
        heads = model.a(x).unflatten(-1, (2, 4))
        heads = heads * torch.rsqrt(heads.pow(2).mean(-1, keepdim=True) + 1e-6)
        return model.b(heads.flatten(-2))

    model = Model(run, a=nn.Linear(3, 8), b=nn.Linear(8, 2))
    graph = read_graph(model, example_inputs=torch.zeros(2, 5, 3))
    assert [layer.size for layer in graph.layers] == [3, 8, 2]
    for block, layer in zip(graph.blocks, (model.a, model.b), strict=True):
        assert_allclose(block.weights, layer.weight.detach().abs().numpy().T)
    assert [item.name for item in graph.left_out] == ["norm"]


@pytest.mark.parametrize("activated", [True, False])
def test_norm_on_one_path_scales_that_path_only(activated):
    """Pre-activation: the norm is on the way to one reader, the sum goes on without it."""

    def run(self, x):
        x = self.a(x)
        x = torch.relu(x) if activated else x
        return self.c(x + self.b(torch.relu(self.norm(x))))

    parts = {"a": nn.Conv1d(2, 4, 1), "b": nn.Conv1d(4, 4, 1), "c": nn.Conv1d(4, 3, 1)}
    model = Model(run, **parts, norm=trained(nn.BatchNorm1d(4)))
    a, b, c = (into(getattr(model, name).weight) for name in "abc")
    scale = factor(model.norm)
    to_b = {(0, 1): a, (1, 2): b * scale[:, None]} if activated else {(0, 1): a * scale, (1, 2): b}
    graph = read_graph(model, scope="all")
    expect(graph, [2, 4, 4, 3], {**to_b, (0, 2): a, (2, 3): c})


def test_layer_scale_folds_into_the_branch():
    def run(self, x):
        x = self.a(x)
        return self.c(x + self.gamma * self.b(torch.relu(x)))

    gamma = nn.Parameter(torch.rand(4) + 1)
    parts = {"a": nn.Linear(2, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 3)}
    model = Model(run, gamma=gamma, **parts)
    a, b, c = (into(getattr(model, name).weight) for name in "abc")
    for residual, sizes in (("readers", [2, 4, 4, 3]), ("stream", [2, 4, 3])):
        graph = read_graph(model, residual=residual)
        if residual == "readers":
            edges = {(0, 1): a, (0, 2): a, (1, 2): b * array(gamma), (2, 3): c}
        else:
            # Both ends of the branch are the stream: i -> j and j -> i are one edge.
            loop = b * array(gamma)
            within = loop + loop.T
            np.fill_diagonal(within, 0)
            edges = {(0, 1): a, (1, 1): within, (1, 2): c}
        expect(graph, sizes, edges)


# --- tables -------------------------------------------------------------------------------------


def test_embedding_rows_are_vertices():
    model = chain(nn.Embedding(7, 4), nn.Linear(4, 3))
    expect(
        read_graph(model), [7, 4, 3],
        {(0, 1): np.abs(array(model[0].weight)), (1, 2): into(model[1].weight)},
    )  # fmt: skip


BAGS = {
    "equal": (torch.zeros(2, 3, dtype=torch.long), None),
    "of several lengths": (torch.zeros(6, dtype=torch.long), torch.tensor([0, 2, 3])),
    "with the last end": (torch.zeros(6, dtype=torch.long), torch.tensor([0, 2, 6])),
}


@pytest.mark.parametrize("case", BAGS)
def test_embedding_bag(case):
    ends = case == "with the last end"
    model = Model(
        lambda m, ids, offsets: m.o(m.e(ids, offsets).relu()),
        e=nn.EmbeddingBag(7, 4, mode="sum", include_last_offset=ends), o=nn.Linear(4, 3),
    )  # fmt: skip
    expect(
        read_graph(model, example_inputs=BAGS[case]), [7, 4, 3],
        {(0, 1): np.abs(array(model.e.weight)), (1, 2): into(model.o.weight)},
    )  # fmt: skip


def test_embedding_bag_with_weights_from_the_data():
    def bag(m, ids, shares):
        return m.e(ids, per_sample_weights=shares)

    def plain(m, ids, shares):
        return (F.embedding(ids, m.e.weight) * shares[..., None]).sum(1)

    parts = {"e": nn.EmbeddingBag(7, 4, mode="sum"), "s": nn.Linear(5, 3), "o": nn.Linear(4, 3)}
    inputs = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 5)
    graphs = [
        read_graph(
            Model(lambda m, ids, x, run=run: m.o(run(m, ids, m.s(x))), **parts),
            example_inputs=inputs,
        )
        for run in (bag, plain)
    ]
    assert [layer.size for layer in graphs[0].layers] == [5, 7, 4, 3, 3]
    assert abs(graphs[0].adjacency - graphs[1].adjacency).max() == 0


def test_sum_of_two_embeddings_reaches_both_tables():
    def run(self, ids):
        return self.c(self.a(ids) + self.b(torch.arange(ids.shape[1])))

    model = Model(run, a=nn.Embedding(6, 4), b=nn.Embedding(5, 4), c=nn.Linear(4, 3))
    edges = {
        (0, 2): np.abs(array(model.a.weight)),
        (1, 2): np.abs(array(model.b.weight)),
        (2, 3): into(model.c.weight),
    }
    graph = read_graph(model, example_inputs=torch.zeros(2, 5, dtype=torch.int64))
    expect(graph, [6, 5, 4, 3], edges)


def test_residual_sums():
    """x1 = a(x); x2 = x1 + b(relu(x1)); x3 = x2 + c(relu(x2)); d(x3)."""

    def run(self, x):
        x = self.a(x)
        x = x + self.b(torch.relu(x))
        x = x + self.c(torch.relu(x))
        return self.d(torch.relu(x))

    parts = {"a": nn.Linear(3, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4), "d": nn.Linear(4, 2)}
    model = Model(run, **parts)
    a, b, c, d = (into(getattr(model, name).weight) for name in "abcd")
    expect(
        read_graph(model), [3, 4, 4, 4, 2],
        {(0, 1): a, (0, 2): a, (0, 3): a, (1, 2): b, (1, 3): b, (2, 3): c, (3, 4): d},
    )  # fmt: skip
    within = b + c + (b + c).T
    np.fill_diagonal(within, 0)
    graph = read_graph(model, residual="stream")
    expect(graph, [3, 4, 2], {(0, 1): a, (1, 1): within, (1, 2): d})


def test_a_depthwise_kernel_on_a_stream_joins_nothing():
    """A neuron's edge to itself is none; the kernel is left out, the rest is there."""

    def run(self, x):
        x = self.a(x)
        x = x + self.depthwise(x)
        return self.c(x + self.b(torch.relu(x)))

    parts = {"a": nn.Conv1d(2, 4, 1), "b": nn.Conv1d(4, 4, 1), "c": nn.Conv1d(4, 3, 1)}
    model = Model(run, depthwise=nn.Conv1d(4, 4, 3, padding=1, groups=4), **parts)
    graph = read_graph(model, scope="all", residual="stream", example_inputs=torch.zeros(1, 2, 8))
    a, b, c = (into(getattr(model, name).weight) for name in "abc")
    within = b + b.T
    np.fill_diagonal(within, 0)
    expect(graph, [2, 4, 3], {(0, 1): a, (1, 1): within, (1, 2): c})
    assert [item.name for item in graph.left_out] == ["depthwise"]


def test_a_branch_that_begins_with_zeros_is_left_out():
    """The last norm of a residual branch often starts with gamma 0."""

    def run(self, x):
        x = self.a(x)
        return self.c(x + self.norm(self.b(torch.relu(x))))

    parts = {"a": nn.Conv1d(2, 4, 1), "b": nn.Conv1d(4, 4, 1), "norm": nn.BatchNorm1d(4)}
    model = Model(run, **parts, c=nn.Conv1d(4, 3, 1))
    nn.init.zeros_(model.norm.weight)
    graph = read_graph(model, scope="all", example_inputs=torch.zeros(1, 2, 8))
    a, c = into(model.a.weight), into(model.c.weight)
    expect(graph, [2, 4, 4, 3], {(0, 1): a, (0, 2): a, (2, 3): c})
    assert [item.name for item in graph.left_out] == ["b"]
    assert not next(p for p in graph.parameters if p.name == "b.weight").placed


def test_dense_connections():
    def run(self, x):
        x = self.a(x)
        y = torch.cat([x, torch.relu(self.b(x))], 1)
        return self.d(torch.cat([y, torch.relu(self.c(y))], 1))

    parts = {"a": nn.Conv1d(2, 3, 1), "b": nn.Conv1d(3, 2, 1), "c": nn.Conv1d(5, 2, 1)}
    model = Model(run, **parts, d=nn.Conv1d(7, 2, 1))
    a, b, c, d = (into(getattr(model, name).weight) for name in "abcd")
    at_c = np.concatenate([a, np.zeros((2, 2))], axis=1)
    at_d = np.concatenate([a, np.zeros((2, 4))], axis=1)
    expect(
        read_graph(model, scope="all"), [2, 3, 5, 7, 2],
        {
            (0, 1): a, (0, 2): at_c, (0, 3): at_d,
            (1, 2): np.concatenate([np.zeros((3, 3)), b], axis=1),
            (1, 3): np.concatenate([np.zeros((3, 3)), b, np.zeros((3, 2))], axis=1),
            (2, 3): np.concatenate([np.zeros((5, 5)), c], axis=1),
            (3, 4): d,
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    "gate",
    [
        lambda x, y: x * y,
        lambda x, y: F.silu(x) * y,
        lambda x, y: x.sigmoid().mul_(y),
        lambda x, y: F.glu(torch.cat([x, y], -1)),
        lambda x, y: F.glu(torch.cat([x, y], 1), 1),
        lambda x, y: x / (y.abs() + 1),
        lambda x, y: torch.where(y > 0, x, y),
        lambda x, y: torch.atan2(x, y),
        lambda x, y: torch.einsum("ni,ni->ni", x, y),
    ],
)
def test_both_factors_reach_the_reader(gate):
    def run(self, x):
        return self.c(gate(self.a(x), self.b(x)))

    model = Model(run, a=nn.Linear(3, 4), b=nn.Linear(3, 4), c=nn.Linear(4, 2))
    a, b, c = (into(getattr(model, name).weight) for name in "abc")
    graph = read_graph(model, residual="readers")
    expect(graph, [3, 4, 2], {(0, 1): a + b, (1, 2): c})


def test_squeeze_and_excitation():
    def run(self, x):
        x = torch.relu(self.a(x))
        s = F.adaptive_avg_pool2d(x, 1)
        return self.d(x * torch.sigmoid(self.c(torch.relu(self.b(s)))))

    parts = {"a": nn.Conv2d(2, 4, 3), "b": nn.Conv2d(4, 2, 1), "c": nn.Conv2d(2, 4, 1)}
    model = Model(run, **parts, d=nn.Conv2d(4, 3, 3))
    a, b, c, d = (into(getattr(model, name).weight) for name in "abcd")
    expect(
        read_graph(model, scope="all"), [2, 4, 2, 4, 3],
        {(0, 1): a, (1, 2): b, (2, 3): c, (0, 3): a, (3, 4): d},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("activation", "homogeneous"),
    [
        (lambda x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3))), False),
        (lambda x: x * torch.sigmoid(1.7 * x), False),
        (lambda x: x * F.softplus(x).tanh(), False),
        (lambda x: x * (x > 0), False),
        (lambda x: x / (1 + x.abs()), False),
        (lambda x: x.clamp(min=0) ** 2, False),
        (lambda x: torch.exp(-(x**2)), False),
        (torch.erf, False),
        (F.hardswish, False),
        (lambda x: F.hardswish(x.clone(), inplace=True), False),
        (F.hardsigmoid, False),
        (F.logsigmoid, False),
        (F.softsign, False),
        (F.gelu, False),
        (F.mish, False),
        (F.celu, False),
        (F.selu, False),
        (F.relu6, False),
        (F.softshrink, False),
        (F.tanhshrink, False),
        (lambda x: F.threshold(x, 0.1, 0), False),
        (F.relu, True),
        (F.leaky_relu, True),
        (torch.abs, True),
        (lambda x: x.clamp(min=0), True),
        (lambda x: torch.clamp_min(x, 0), True),
        (lambda x: F.threshold(x, 0, 0), True),
        (lambda x: F.rrelu(x, training=False), True),
        (lambda x: x.clone().relu_(), True),
        (lambda x: torch.sin(x).neg().round(), False),
    ],
)
def test_activations_give_no_factor(activation, homogeneous):
    model = Model(lambda m, x: m.b(activation(m.a(x))), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    graph = read_graph(model)
    expect(graph, [3, 4, 2], {(0, 1): into(model.a.weight), (1, 2): into(model.b.weight)})
    assert graph.layers[1].rescalable is homogeneous


def test_scalars_are_factors():
    def run(self, x):
        x = torch.relu(self.a(x) * 3 / 2)
        return self.b(-x * self.scale + 1)

    model = Model(run, a=nn.Linear(3, 4), b=nn.Linear(4, 2), scale=nn.Parameter(torch.tensor(0.5)))
    graph = read_graph(model)
    found = graph.adjacency.toarray()
    a, b = into(model.a.weight), into(model.b.weight)
    # The whole layer's factor may lie on either side of a positively homogeneous activation.
    product = found[:3, 3:7].sum() * found[3:7, 7:].sum()
    assert_allclose(product, a.sum() * b.sum() * 3 / 2 * 0.5, rtol=1e-12)
    assert graph.layers[1].rescalable is True


def test_tied_embedding_and_output():
    model = Model(
        lambda m, ids: F.linear(torch.relu(m.h(m.e(ids))), m.e.weight),
        e=nn.Embedding(6, 4), h=nn.Linear(4, 4),
    )  # fmt: skip
    graph = read_graph(model, example_inputs=torch.zeros(2, 5, dtype=torch.int64))
    e, h = np.abs(array(model.e.weight)), into(model.h.weight)
    expect(graph, [6, 4, 4, 6], {(0, 1): e, (1, 2): h, (2, 3): e.T})
    blocks = {(block.source, block.target): block for block in graph.blocks}
    assert blocks[2, 3].tie == blocks[0, 1].tie != ""
    assert blocks[2, 3].tie_transposed is not blocks[0, 1].tie_transposed
    assert blocks[1, 2].tie == ""


def test_a_module_called_twice():
    def run(self, x):
        x = torch.relu(self.a(x))
        x = torch.relu(self.b(x))
        return self.c(torch.relu(self.b(x)))

    model = Model(run, a=nn.Linear(3, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 2))
    a, b, c = (into(getattr(model, name).weight) for name in "abc")
    graph = read_graph(model)
    expect(graph, [3, 4, 4, 4, 2], {(0, 1): a, (1, 2): b, (2, 3): b, (3, 4): c})
    assert graph.blocks[1].tie == graph.blocks[2].tie != ""
    assert not graph.blocks[2].tie_transposed


def test_one_module_under_two_names():
    shared = nn.Linear(4, 4)
    model = chain(nn.Linear(3, 4), nn.ReLU(), shared, nn.ReLU(), shared)
    w = into(shared.weight)
    expect(read_graph(model), [3, 4, 4, 4], {(0, 1): into(model[0].weight), (1, 2): w, (2, 3): w})


def test_parametrized_pruned_and_normalized_weights():
    model = chain(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(),
        nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2),
    )  # fmt: skip
    parametrizations.weight_norm(model[0])
    prune.random_unstructured(model[2], "weight", 0.5)
    parametrizations.orthogonal(model[4])
    torch.nn.utils.spectral_norm(model[6])
    parametrizations.spectral_norm(model[8])
    model.eval()
    with torch.no_grad():
        model(torch.zeros(2, 3))
        weights = [into(model[at].weight) for at in (0, 2, 4, 6, 8)]
    graph = read_graph(model)
    expect(graph, [3, 4, 5, 4, 3, 2], {(at, at + 1): w for at, w in enumerate(weights)})
    assert np.count_nonzero(weights[1]) == 10


@pytest.mark.filterwarnings("ignore")
def test_old_style_weight_norm():
    model = chain(torch.nn.utils.weight_norm(nn.Conv1d(3, 4, 2)), nn.Conv1d(4, 2, 1))
    v, g = array(model[0].weight_v), array(model[0].weight_g)
    weight = g * v / np.sqrt((v**2).sum(axis=(1, 2), keepdims=True))
    graph = read_graph(model, scope="all")
    expect(graph, [3, 4, 2], {(0, 1): into(weight), (1, 2): into(model[1].weight)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    model = chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
    graph = read_graph(model)
    exact = [into(model[at].weight.double()) for at in (0, 2)]
    expect(graph, [3, 4, 2], {(0, 1): exact[0], (1, 2): exact[1]})


needs_quantization = pytest.mark.skipif(
    torch.backends.quantized.engine in ("none", ""),
    reason="needs a torch with a quantized engine (x86 or qnnpack): pip install a CPU build",
)


@needs_quantization
@pytest.mark.filterwarnings("ignore")
def test_dynamically_quantized():
    quantization = pytest.importorskip(
        "torch.ao.quantization", reason="install a torch that still has torch.ao.quantization"
    )
    model = chain(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)).float().eval()
    quantized = quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    weights = [np.abs(quantized[at].weight().dequantize().numpy()).T for at in (0, 2)]
    graph = read_graph(quantized, example_inputs=torch.zeros(2, 8))
    expect(graph, [8, 6, 4], {(0, 1): weights[0], (1, 2): weights[1]})


@needs_quantization
@pytest.mark.filterwarnings("ignore")
def test_statically_quantized():
    quantization = pytest.importorskip(
        "torch.ao.quantization", reason="install a torch that still has torch.ao.quantization"
    )
    model = chain(
        quantization.QuantStub(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1),
        nn.Flatten(), nn.Linear(5 * 4, 2), quantization.DeQuantStub(),
    ).float().eval()  # fmt: skip
    model.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
    fused = quantization.fuse_modules(model, [["1", "2"]])
    prepared = quantization.prepare(fused)
    prepared(torch.rand(2, 3, 4, 4, dtype=torch.float32))
    quantized = quantization.convert(prepared)
    weights = [quantized[at].weight().dequantize().numpy() for at in (1, 3, 5)]
    graph = read_graph(quantized, scope="all", example_inputs=torch.rand(2, 3, 4, 4))
    last = np.abs(weights[2]).reshape(2, 5, 4).sum(axis=2).T
    expect(graph, [3, 4, 5, 2], {(0, 1): into(weights[0]), (1, 2): into(weights[1]), (2, 3): last})
