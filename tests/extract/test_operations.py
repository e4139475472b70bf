"""Each operation in a small network whose whole adjacency is known.

What is expected is computed from the definition: magnitudes of weight arrays with numpy, and
where channels land by sending one channel at a time through the operation itself.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ncut.errors import InputError, ModelError
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils import parametrizations, prune  # noqa: E402

from ncut.extract import registry  # noqa: E402
from ncut.extract.program.values import Value, indexed  # noqa: E402


@pytest.fixture(autouse=True)
def _doubles():
    """Double precision, so that what is expected is met to the last digits."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def declared():
    """Rules that a test declares are gone after it."""
    known = dict(registry.declared)
    yield
    registry.declared.clear()
    registry.declared.update(known)


class Model(nn.Module):
    """Modules by name, and a forward pass `run(self, *inputs)`."""

    def __init__(self, run, **parts):
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            elif isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            else:
                self.register_buffer(name, part)
        self.run = run

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def array(tensor):
    return tensor.detach().numpy()


def into(weight, groups=1):
    """|w| of (out, in / groups, positions...) as (in, out)."""
    weight = np.abs(array(weight) if isinstance(weight, torch.Tensor) else weight)
    slices = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
    n_out, per_group = slices.shape
    result = np.zeros((per_group * groups, n_out))
    for group in range(groups):
        outs = slice(group * n_out // groups, (group + 1) * n_out // groups)
        ins = slice(group * per_group, (group + 1) * per_group)
        result[ins, outs] = slices[outs].T
    return result


def trained(norm):
    """A norm with weights and statistics that are not 0 and 1."""
    with torch.no_grad():
        for name in ("weight", "bias"):
            if getattr(norm, name, None) is not None:
                getattr(norm, name).copy_(torch.rand_like(getattr(norm, name)) + 0.5)
        if getattr(norm, "running_var", None) is not None:
            norm.running_var.copy_(torch.rand_like(norm.running_var) + 0.5)
            norm.running_mean.copy_(torch.rand_like(norm.running_mean))
    return norm


def factor(norm):
    """What a norm multiplies by, apart from what depends on the data."""
    gamma = np.ones(1) if norm.weight is None else array(norm.weight)
    if getattr(norm, "running_var", None) is None:
        return np.abs(gamma)
    return np.abs(gamma) / np.sqrt(array(norm.running_var) + norm.eps)


def expect(graph, sizes, edges):
    """The whole adjacency: layers of these sizes, and edges by the positions of two layers.

    Where source and target are the same, the matrix holds both directions of each pair.
    """
    assert [layer.size for layer in graph.layers] == list(sizes), [*graph.layers]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    whole = np.zeros((starts[-1], starts[-1]))
    for (source, target), weights in edges.items():
        rows = slice(starts[source], starts[source + 1])
        columns = slice(starts[target], starts[target + 1])
        whole[rows, columns] += weights
        if source != target:
            whole[columns, rows] += weights.T
    found = graph.adjacency.toarray()
    assert_array_equal(found, found.T)
    assert_allclose(found, whole, rtol=1e-7, atol=1e-12)
    assert_array_equal(found != 0, whole != 0)


def chain(*parts):
    return nn.Sequential(*parts)


# --- matrices and kernels -----------------------------------------------------------------------


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
def test_a_matrix_of_its_own_for_each_group(how):
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


def test_embedding_bag():
    model = chain(nn.EmbeddingBag(7, 4, mode="sum"), nn.ReLU(), nn.Linear(4, 3))
    expect(
        read_graph(model), [7, 4, 3],
        {(0, 1): np.abs(array(model[0].weight)), (1, 2): into(model[2].weight)},
    )  # fmt: skip


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


# --- where channels land ------------------------------------------------------------------------


def landing(operation, c, shape):
    """Which of `c` channels arrives at which output: shape (c, channels of the result).

    Channels go through the operation one at a time.
    """
    rows = []
    for channel in range(c):
        x = torch.zeros(1, c, *shape)
        x[:, channel] = torch.rand(shape) + 1
        result = operation(x)
        rows.append((result.abs() > 0).movedim(1, 0).reshape(result.shape[1], -1).any(dim=1))
    return torch.stack(rows).numpy().astype(float)


def by_vertex(reaches):
    """Inputs that carry the same channels, in the order in which they come: (vertices, inputs).

    Those that carry none are no vertices.
    """
    columns = [tuple(column) for column in reaches.T]
    kinds = [kind for kind in dict.fromkeys(columns) if any(kind)]
    return np.array([[column == kind for column in columns] for kind in kinds], dtype=float)


MOVES = {
    "cat": lambda x: torch.cat([x[:, 3:], x], 1),
    "chunk": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "split": lambda x: torch.cat(x.split([1, 2, 3], 1)[1:], 1),
    "tensor_split": lambda x: torch.cat(torch.tensor_split(x, 4, 1)[::-1], 1),
    "slice": lambda x: x[:, 1:5],
    "step": lambda x: x[:, ::2],
    "narrow": lambda x: x.narrow(1, 2, 3),
    "select": lambda x: x.select(1, 4).unsqueeze(1),
    "index_select": lambda x: x.index_select(1, torch.tensor([5, 0, 0, 2])),
    "fancy": lambda x: x[:, [3, 1, 4]],
    "mask": lambda x: x[:, torch.tensor([True, False, True, True, False, True])],
    "take_positions": lambda x: x[:, :, [0, 2]][..., torch.tensor([[0], [1]]), torch.arange(2)],
    "flip": lambda x: x.flip(1),
    "flip_positions": lambda x: x.flip(2, 3),
    "roll": lambda x: x.roll(2, 1),
    "roll_positions": lambda x: x.roll((1, 1), (2, 3)),
    "pad_channels": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)),
    "crop_channels": lambda x: F.pad(x, (0, 0, 0, 0, -1, -2)),
    "pad_positions": lambda x: F.pad(x, (1, 1, 2, 0)),
    "pad_reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "pad_circular": lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"),
    "shuffle": lambda x: x.view(-1, 2, 3, 4, 4).transpose(1, 2).reshape(-1, 6, 4, 4),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 3),
    "interleave": lambda x: x.repeat_interleave(2, dim=1),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "tile": lambda x: x.tile(1, 3, 1, 1),
    "stack": lambda x: torch.stack([x, x.flip(1)], 2).flatten(1, 2),
    "unbind": lambda x: torch.stack(x.unbind(1)[2:], 1),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "permute_twice": lambda x: x.permute(0, 2, 3, 1).flip(-1).permute(0, 3, 1, 2),
    "movedim": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x[:, :4], 2),
    "focus": lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]], 1),
    "windows": lambda x: (
        x.view(-1, 6, 2, 2, 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, 6, 2, 2)[:1]
    ),
    "unfold": lambda x: F.unfold(x, 2).unflatten(2, (3, 3)),
    "tensor_unfold": lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 6, 2, 8),
    "fold": lambda x: F.fold(F.unfold(x, 2, stride=2), (4, 4), 2, stride=2),
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "lp_pool": lambda x: F.lp_pool2d(x, 2, 2),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 2) + F.adaptive_max_pool2d(x, 2),
    "global": lambda x: x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True),
    "sorted_positions": lambda x: x.sort(dim=3)[0].topk(2, dim=2)[0],
    "cumulated": lambda x: x.cumsum(2).cumsum(3),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear": lambda x: F.interpolate(x, size=(3, 5), mode="bilinear", align_corners=False),
    "sampled": lambda x: F.grid_sample(
        x, F.affine_grid(torch.eye(2, 3)[None], (1, 1, 3, 3), align_corners=False),
        align_corners=False,
    ),
    "mean_of_groups": lambda x: x.view(-1, 2, 3, 4, 4).mean(2),
    "max_of_groups": lambda x: x.view(-1, 3, 2, 4, 4).amax(2),
    "sum_of_slices": lambda x: x[:, :3] + x[:, 3:],
    "product_of_slices": lambda x: x[:, :3] * (x[:, 3:] + 1) + x[:, 3:],
    "split_and_sum": lambda x: torch.cat([x[:, :2] + x[:, 2:4], x[:, 4:]], 1),
    "fourier": lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * torch.rand(4, 3)),
    "squeeze": lambda x: x.unsqueeze(2).squeeze(2).unsqueeze(-1).squeeze(-1),
    "unflatten": lambda x: x.unflatten(1, (3, 2)).flatten(1, 2),
    "diff_of_pool": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x,
    "triangle": lambda x: x.tril() + x.triu(),
    "copied": lambda x: x.clone().copy_(x.flip(1)),
    "dropped": lambda x: F.dropout2d(F.dropout(x, 0.5, False), 0.5, False),
    "swapped": lambda x: x.swapaxes(2, 3).mT,
    "broadcast": lambda x: torch.broadcast_to(x[:, 2:3], (x.shape[0], 3, 4, 4)),
    "gathered": lambda x: x.gather(2, torch.zeros(x.shape[0], 6, 2, 4, dtype=torch.int64)),
    "added_to_index": lambda x: (x * 0).index_add(2, torch.tensor([0, 1]), x[:, :, :2]),
    "lerp": lambda x: torch.lerp(x[:, :3], x[:, 3:], 0.3),
    "maximum": lambda x: torch.maximum(x[:, :3], x[:, 3:]) + torch.minimum(x[:, :3], x[:, 3:]),
}  # fmt: skip


# What comes of a mean or an interpolation has factors; by the channel that goes in.
SHARES = {"mean_of_groups": 1 / 3, "lerp": np.repeat([0.7, 0.3], 3)[:, None]}


@pytest.mark.parametrize("name", MOVES)
def test_channels_land_where_torch_puts_them(name):
    operation = MOVES[name]
    reaches = landing(operation, 6, (4, 4))
    n_in = reaches.shape[1]
    model = Model(
        lambda m, x: m.b(operation(torch.relu(m.a(x)))),
        a=nn.Conv2d(2, 6, 1),
        b=nn.Conv2d(n_in, 3, 1),
    )
    graph = read_graph(
        model, scope="all", residual="readers", example_inputs=torch.zeros(1, 2, 4, 4)
    )
    groups = by_vertex(reaches)
    first = np.argmax(groups, axis=1)
    a, b = into(model.a.weight), into(model.b.weight)
    shares = reaches[:, first] * SHARES.get(name, 1)
    expect(graph, [2, len(groups), 3], {(0, 1): a @ shares, (1, 2): groups @ b})


@pytest.mark.parametrize(
    ("name", "flat"),
    {
        "flatten": lambda x: x.flatten(1),
        "reshape": lambda x: x.reshape(x.shape[0], -1),
        "view": lambda x: x.contiguous().view(-1, 6 * 4 * 4),
        "pooled": lambda x: F.adaptive_avg_pool2d(x, (2, 1)).flatten(1),
        "mean": lambda x: x.mean((2, 3)),
        "max": lambda x: x.flatten(2).max(dim=2)[0],
        "channels_last": lambda x: x.permute(0, 2, 3, 1).flatten(1),
        "statistics": lambda x: torch.cat([x.flatten(2).mean(2), x.flatten(2).std(2) + 1], 1),
        "spatial": lambda x: x[:, :, 0, 0],
        "sums": lambda x: x.sum(3).sum(2),
        "variance": lambda x: x.var((2, 3)) + x.mean((2, 3)),
        "norm": lambda x: x.flatten(2).norm(dim=2),
        "logsumexp": lambda x: x.flatten(2).logsumexp(2) * x.mean((2, 3)),
        "einsum": lambda x: torch.einsum("nchw->nc", x),
    }.items(),
)  # fmt: skip
def test_features_of_channels(name, flat):
    def as_channels(x):
        result = flat(x)
        return result[:, :, None, None]

    if name == "statistics":
        reaches = np.concatenate([np.eye(6), np.eye(6)], axis=1)
    else:
        reaches = landing(as_channels, 6, (4, 4))
    model = Model(
        lambda m, x: m.b(flat(torch.relu(m.a(x)))),
        a=nn.Conv2d(2, 6, 1), b=nn.Linear(reaches.shape[1], 3),
    )  # fmt: skip
    graph = read_graph(
        model, scope="all", residual="readers", example_inputs=torch.zeros(2, 2, 4, 4)
    )
    groups = by_vertex(reaches)
    a, b = into(model.a.weight), into(model.b.weight)
    first = np.argmax(groups, axis=1)
    expect(graph, [2, len(groups), 3], {(0, 1): a @ reaches[:, first], (1, 2): groups @ b})


def test_a_mean_over_all_channels_is_a_statistic():
    def run(self, x):
        x = self.a(x)
        return self.b(x - x.mean(1, keepdim=True) * x.std(1, keepdim=True))

    model = Model(run, a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    expect(
        read_graph(model), [3, 4, 2], {(0, 1): into(model.a.weight), (1, 2): into(model.b.weight)}
    )


# --- sums, products -----------------------------------------------------------------------------


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


# --- attention ----------------------------------------------------------------------------------


def attention_edges(a, query, key, value, out, b):
    """Layers: input, what attention reads, scores' dimensions, values, result, output."""
    return {(0, 1): a, (1, 2): query + key, (1, 3): value, (3, 4): out, (4, 5): b}


def split_weights(attention, d):
    """|W_q|, |W_k|, |W_v|, |W_o| of nn.MultiheadAttention as (in, out)."""
    if attention.in_proj_weight is not None:
        rows = np.abs(array(attention.in_proj_weight))
        found = [rows[at * d : (at + 1) * d].T for at in range(3)]
    else:
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        found = [into(getattr(attention, name)) for name in names]
    return [*found, into(attention.out_proj.weight)]


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention(separate, need_weights, batch_first):
    attention = nn.MultiheadAttention(6, 2, batch_first=batch_first)
    if separate:
        attention = nn.MultiheadAttention(6, 2, batch_first=batch_first, kdim=4, vdim=5)
        attention = attention.eval()

    def run(self, x):
        x = self.a(x)
        key, value = (x[..., :4], x[..., 1:]) if separate else (x, x)
        y, _ = self.attention(x, key, value, need_weights=need_weights)
        return self.b(y)

    model = Model(run, a=nn.Linear(3, 6), attention=attention, b=nn.Linear(6, 2)).eval()
    graph = read_graph(model, example_inputs=torch.zeros(2, 5, 3))
    q, k, v, o = split_weights(attention, 6)
    if separate:
        k = np.concatenate([k, np.zeros((2, 6))])
        v = np.concatenate([np.zeros((1, 6)), v])
    a, b = into(model.a.weight), into(model.b.weight)
    if separate:
        expect(graph, [3, 6, 6, 6, 6, 2], attention_edges(a, q, k, v, o, b))
    else:
        # One matrix writes the scores' dimensions and the values: they are one layer.
        written = np.concatenate([q + k, v], axis=1)
        read = np.concatenate([np.zeros((6, 6)), o])
        expect(graph, [3, 6, 12, 6, 2], {(0, 1): a, (1, 2): written, (2, 3): read, (3, 4): b})
    assert graph.left_out == ()


def by_hand(scores):
    """Attention of two heads of three dimensions each."""

    def run(self, x):
        x = self.a(x)
        n, time, _ = x.shape
        q, k, v = (
            getattr(self, name)(x).view(n, time, 2, 3).transpose(1, 2) for name in ("q", "k", "v")
        )
        y = scores(q, k, v).transpose(1, 2).reshape(n, time, 6)
        return self.b(self.o(y))

    return run


def softmax_by_hand(q, k, v):
    scores = q @ k.transpose(-2, -1) / 3**0.5
    scores = scores.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -torch.inf)
    return torch.softmax(scores, -1) @ v


@pytest.mark.parametrize(
    "scores",
    [
        softmax_by_hand,
        F.scaled_dot_product_attention,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
        lambda q, k, v: torch.einsum(
            "nhst,nhtd->nhsd", torch.einsum("nhsd,nhtd->nhst", q, k).softmax(-1), v
        ),
        lambda q, k, v: torch.einsum(
            "nhst,nhtd->nhsd", F.softmax(torch.einsum("nhsd,nhtd->nhst", q, k) + 1, -1), v
        ),
        lambda q, k, v: torch.bmm(
            torch.baddbmm(
                torch.zeros(4, 5, 5), q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2)
            ).softmax(-1),
            v.flatten(0, 1),
        ).view(2, 2, 5, 3),
    ],
)
def test_attention_by_hand(scores):
    parts = {name: nn.Linear(6, 6) for name in "qkvo"}
    model = Model(by_hand(scores), a=nn.Linear(3, 6), **parts, b=nn.Linear(6, 2))
    graph = read_graph(model, example_inputs=torch.zeros(2, 5, 3))
    q, k, v, o = (into(getattr(model, name).weight) for name in "qkvo")
    edges = attention_edges(into(model.a.weight), q, k, v, o, into(model.b.weight))
    expect(graph, [3, 6, 6, 6, 6, 2], edges)


@pytest.mark.parametrize("native", [True, False])
def test_keys_that_several_queries_share(native):
    """Four query heads, two heads of keys and values, of three dimensions each."""

    def run(self, x):
        x = self.a(x)
        n, time, _ = x.shape
        q = self.q(x).view(n, time, 4, 3).transpose(1, 2)
        k, v = (getattr(self, name)(x).view(n, time, 2, 3).transpose(1, 2) for name in ("k", "v"))
        if native:
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        else:
            y = F.scaled_dot_product_attention(
                q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
            )
        return self.o(y.transpose(1, 2).reshape(n, time, 12))

    parts = {
        "q": nn.Linear(5, 12),
        "k": nn.Linear(5, 6),
        "v": nn.Linear(5, 6),
        "o": nn.Linear(12, 5),
    }
    model = Model(run, a=nn.Linear(3, 5), **parts)
    graph = read_graph(model, example_inputs=torch.zeros(2, 7, 3))
    a, q, k, v, o = (into(getattr(model, name).weight) for name in "aqkvo")
    # Query head h has the keys and values of head h // 2.
    shared = np.array([[c // 3 == h // 2 and c % 3 == d for h in range(4) for d in range(3)]
                       for c in range(6)], dtype=float)  # fmt: skip
    expect(
        graph, [3, 5, 12, 6, 5],
        {(0, 1): a, (1, 2): q + k @ shared, (1, 3): v, (3, 4): shared @ o},
    )  # fmt: skip


def test_attention_between_channels():
    """Channels weigh channels: each result has all values of its head."""

    def run(self, x):
        q, k, v = (getattr(self, name)(x).view(-1, 5, 2, 3).permute(0, 2, 3, 1) for name in "qkv")
        shares = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)).softmax(-1)
        return self.o((shares @ v).permute(0, 3, 1, 2).reshape(-1, 5, 6))

    parts = {name: nn.Linear(6, 6) for name in "qkvo"}
    model = Model(lambda m, x: run(m, m.a(x)), a=nn.Linear(4, 6), **parts)
    graph = read_graph(model, example_inputs=torch.zeros(2, 5, 4))
    a, q, k, v, o = (into(getattr(model, name).weight) for name in "aqkvo")
    heads = np.kron(np.eye(2), np.ones((3, 3)))
    expect(
        graph, [4, 6, 6, 6, 6, 6],
        {(0, 1): a, (1, 2): q, (1, 3): k, (1, 4): v, (4, 5): heads @ o},
    )  # fmt: skip


def test_a_query_and_a_key_of_one_matrix_are_one_vertex():
    """Weights of both add up where one matrix writes queries, keys and values."""

    def run(self, x):
        q, k, v = self.qkv(self.a(x)).chunk(3, -1)
        return self.o((q @ k.transpose(-2, -1)).softmax(-1) @ v)

    model = Model(run, a=nn.Linear(4, 6), qkv=nn.Linear(6, 9), o=nn.Linear(3, 2))
    graph = read_graph(model, example_inputs=torch.zeros(2, 5, 4))
    w = into(model.qkv.weight)
    written = np.concatenate([w[:, :3] + w[:, 3:6], w[:, 6:]], axis=1)
    read = np.concatenate([np.zeros((3, 2)), into(model.o.weight)])
    expect(graph, [4, 6, 6, 2], {(0, 1): into(model.a.weight), (1, 2): written, (2, 3): read})


def test_cross_attention():
    def run(self, x, memory):
        x, memory = self.a(x), self.m(memory)
        return self.b(self.attention(x, memory, memory)[0])

    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    parts = {"a": nn.Linear(3, 4), "m": nn.Linear(5, 4), "b": nn.Linear(4, 2)}
    model = Model(run, attention=attention, **parts)
    graph = read_graph(model, example_inputs=(torch.zeros(2, 6, 3), torch.zeros(2, 7, 5)))
    q, k, v, o = split_weights(attention, 4)
    edges = {
        (0, 1): into(model.a.weight), (2, 3): into(model.m.weight), (1, 4): q, (3, 4): k,
        (3, 5): v, (5, 6): o, (6, 7): into(model.b.weight),
    }  # fmt: skip
    expect(graph, [3, 4, 5, 4, 4, 4, 4, 2], edges)


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_encoder_layer(norm_first):
    layer = nn.TransformerEncoderLayer(
        4, 2, 7, batch_first=True, norm_first=norm_first, activation="gelu"
    )
    for norm in (layer.norm1, layer.norm2):
        trained(norm)
    model = chain(nn.Linear(3, 4), layer).eval()
    graph = read_graph(model, example_inputs=torch.zeros(2, 5, 3))
    q, k, v, o = split_weights(layer.self_attn, 4)
    up, down = into(layer.linear1.weight), into(layer.linear2.weight)
    g1, g2 = factor(layer.norm1)[:, None], factor(layer.norm2)[:, None]
    if norm_first:
        q, k, v, up = q * g1, k * g1, v * g1, up * g2
    else:
        up = up * g1
    # The stream: what a writes, what attention and the MLP add.
    attended = np.concatenate([q + k, v + o.T], axis=1)
    edges = {(0, 1): into(model[0].weight), (1, 2): attended, (1, 3): up + down.T}
    expect(graph, [3, 4, 8, 7], edges)


def test_transformer_decoder_reads_the_memory():
    model = nn.Transformer(
        4, 2, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=6, batch_first=True
    ).eval()
    graph = read_graph(model, example_inputs=(torch.zeros(2, 5, 4), torch.zeros(2, 3, 4)))
    # Two inputs and two streams of 4; 4 scores' dimensions and 4 values of each of three
    # attentions; two MLPs.
    assert graph.n_vertices == 2 * (4 + 4) + 3 * 8 + 2 * 6
    assert all(p.placed for p in graph.parameters if len(p.shape) > 1)


# --- shared weights -----------------------------------------------------------------------------


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


# --- recurrent layers ---------------------------------------------------------------------------


def gates(weight, hidden):
    """Magnitudes summed over gates, as (in, hidden)."""
    weight = np.abs(array(weight))
    return weight.reshape(-1, hidden, weight.shape[1]).sum(axis=0).T


def recurrence(weight, hidden, projection=None):
    """Both directions between each pair of hidden units."""
    one_way = gates(weight, hidden)
    if projection is not None:
        one_way = np.abs(array(projection)).T @ one_way
    both = one_way + one_way.T
    np.fill_diagonal(both, 0)
    return both


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers(kind, batch_first):
    layer = kind(3, 4, num_layers=2, batch_first=batch_first)
    model = Model(lambda m, x: m.b(m.a(x)[0]), a=layer, b=nn.Linear(4, 2))
    edges = {
        (0, 1): gates(layer.weight_ih_l0, 4), (1, 1): recurrence(layer.weight_hh_l0, 4),
        (1, 2): gates(layer.weight_ih_l1, 4), (2, 2): recurrence(layer.weight_hh_l1, 4),
        (2, 3): into(model.b.weight),
    }  # fmt: skip
    expect(read_graph(model), [3, 4, 4, 2], edges)


@pytest.mark.parametrize(
    "last", [lambda y, s: y[:, -1], lambda y, s: s[0][-1], lambda y, s: y.mean(1)]
)
def test_last_state_of_an_lstm(last):
    layer = nn.LSTM(3, 4, batch_first=True)
    model = Model(lambda m, x: m.b(last(*m.a(x))), a=layer, b=nn.Linear(4, 2))
    edges = {
        (0, 1): gates(layer.weight_ih_l0, 4), (1, 1): recurrence(layer.weight_hh_l0, 4),
        (1, 2): into(model.b.weight),
    }  # fmt: skip
    expect(read_graph(model), [3, 4, 2], edges)


def test_both_directions():
    layer = nn.GRU(3, 4, bidirectional=True)
    model = Model(lambda m, x: m.b(m.a(x)[0]), a=layer, b=nn.Linear(8, 2))
    zero = np.zeros((4, 4))
    within = np.block([
        [recurrence(layer.weight_hh_l0, 4), zero], [zero, recurrence(layer.weight_hh_l0_reverse, 4)]
    ])  # fmt: skip
    there, back = gates(layer.weight_ih_l0, 4), gates(layer.weight_ih_l0_reverse, 4)
    graph = read_graph(model, residual="readers")
    expect(
        graph, [3, 8, 2],
        {
            (0, 1): np.concatenate([there, back], axis=1), (1, 1): within,
            (1, 2): into(model.b.weight),
        },
    )  # fmt: skip


def test_projected_states():
    layer = nn.LSTM(3, 4, proj_size=2)
    model = Model(lambda m, x: m.b(m.a(x)[0]), a=layer, b=nn.Linear(2, 2))
    edges = {
        (0, 1): gates(layer.weight_ih_l0, 4),
        (1, 1): recurrence(layer.weight_hh_l0, 4, layer.weight_hr_l0),
        (1, 2): into(layer.weight_hr_l0), (2, 3): into(model.b.weight),
    }  # fmt: skip
    expect(read_graph(model), [3, 4, 2, 2], edges)


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_cells(kind):
    def run(self, x):
        state = self.a(x)
        return self.b(state[0] if isinstance(state, tuple) else state)

    model = Model(run, a=kind(3, 4), b=nn.Linear(4, 2))
    edges = {
        (0, 1): gates(model.a.weight_ih, 4), (1, 1): recurrence(model.a.weight_hh, 4),
        (1, 2): into(model.b.weight),
    }  # fmt: skip
    expect(read_graph(model), [3, 4, 2], edges)


# --- weights that are computed ------------------------------------------------------------------


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


# --- operations that are not known --------------------------------------------------------------

LIBRARY = torch.library.Library("ncut_tests", "DEF")
LIBRARY.define("twist(Tensor x) -> Tensor")
LIBRARY.define("squash(Tensor x) -> Tensor")
LIBRARY.impl("twist", lambda x: x.flip(1), "CompositeExplicitAutograd")
LIBRARY.impl("squash", lambda x: x[..., ::2].contiguous(), "CompositeExplicitAutograd")


class Twist(nn.Module):
    """A module whose forward pass cannot be followed."""

    def forward(self, x):
        return torch.as_tensor(np.asarray(x.detach().numpy()))


def with_middle(operation, positions=()):
    kind = nn.Conv1d if positions else nn.Linear
    extra = (1,) if positions else ()
    part = {"twist": operation} if isinstance(operation, nn.Module) else {}
    return Model(
        lambda m, x: m.b(m.twist(m.a(x)) if part else operation(m.a(x))),
        a=kind(3, 4, *extra), b=kind(4, 2, *extra), **part,
    )  # fmt: skip


def test_unknown_operation():
    inner = Model(lambda m, x: torch.ops.ncut_tests.twist(x))
    model = chain(nn.Linear(3, 4), inner, nn.Linear(4, 2))
    with pytest.raises(ModelError, match=r"register_operation") as caught:
        read_graph(model)
    message = str(caught.value)
    assert "ncut_tests::twist" in message
    assert "module '1' (Model)" in message
    assert "unknown='elementwise'" in message
    graph = read_graph(model, unknown="elementwise")
    expect(graph, [3, 4, 2], {(0, 1): into(model[0].weight), (1, 2): into(model[2].weight)})
    assert any("twist" in item.name and "unknown" in item.reason for item in graph.left_out)


def test_declared_operations(declared):
    model = with_middle(lambda x: torch.ops.ncut_tests.twist(x))
    a, b = into(model.a.weight), into(model.b.weight)
    registry.register_operation("ncut_tests::twist", "elementwise")
    expect(read_graph(model), [3, 4, 2], {(0, 1): a, (1, 2): b})

    def twisted(call):
        return indexed(call.signal(0), 1, slice(None, None, -1))

    registry.register_operation("ncut_tests::twist", twisted)
    expect(read_graph(model), [3, 4, 2], {(0, 1): a[:, ::-1], (1, 2): b})

    registry.register_operation("ncut_tests::squash", "positions")
    model = with_middle(lambda x: torch.ops.ncut_tests.squash(x), positions=(4,))
    a, b = into(model.a.weight), into(model.b.weight)
    graph = read_graph(model, scope="all", example_inputs=torch.zeros(2, 3, 4))
    expect(graph, [3, 4, 2], {(0, 1): a, (1, 2): b})


def test_declared_modules_and_functions(declared):
    model = with_middle(Twist())
    with pytest.raises(ModelError):
        read_graph(model)
    registry.register_operation(Twist, "elementwise")
    a, b = into(model.a.weight), into(model.b.weight)
    expect(read_graph(model), [3, 4, 2], {(0, 1): a, (1, 2): b})

    weight = nn.Parameter(torch.randn(5, 4))

    class Kernel(Twist):
        def __init__(self):
            super().__init__()
            self.weight = weight

    registry.register_operation(
        Kernel,
        lambda call: call.wiring.linear(call.signal(0), array(call.module.weight).T, name="kernel"),
    )
    model = Model(lambda m, x: m.b(m.k(m.a(x))), a=nn.Linear(3, 4), k=Kernel(), b=nn.Linear(5, 2))
    expect(
        read_graph(model), [3, 4, 5, 2],
        {(0, 1): into(model.a.weight), (1, 2): into(weight), (2, 3): into(model.b.weight)},
    )  # fmt: skip

    registry.register_operation(torch.special.entr, "elementwise")
    model = with_middle(torch.special.entr)
    expect(
        read_graph(model), [3, 4, 2], {(0, 1): into(model.a.weight), (1, 2): into(model.b.weight)}
    )


def test_rules_of_the_wrong_shape_are_named(monkeypatch):
    model = Model(lambda m, x: m.b(torch.special.i1(m.a(x))), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    monkeypatch.setitem(registry.declared, "aten::special_i1", lambda call: Value((1, 1)))
    with pytest.raises(ModelError, match=r"shape \(1, 1\) for a result of shape \(5, 4\)"):
        read_graph(model)
    monkeypatch.setitem(registry.declared, "aten::special_i1", lambda call: [])
    with pytest.raises(ModelError, match="gives 0 signals for 1 results"):
        read_graph(model)


def test_bad_declarations():
    with pytest.raises(InputError, match="target"):
        registry.register_operation(3, "elementwise")
    with pytest.raises(InputError, match="rule"):
        registry.register_operation("a::b", "sideways")
    with pytest.raises(InputError, match="unknown"):
        read_graph(nn.Linear(2, 2), unknown="ignore")


# --- what cannot be followed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (lambda x: x if x.sum() > 0 else -x, "depend on the data"),
        (lambda x: x * float(x.max()), "depend on the data"),
        (lambda x: x[x > 0], "mask|depend"),
        (lambda x: x[:, x.mean(0).argsort()], "depends on the data|order"),
        (lambda x: x[:, x.mean(0).argmax().item() :], "depend on the data"),
        (lambda x: torch.fft.fft(x, dim=1).real, "without any weights"),
        (lambda x: x.sort(dim=1)[0], "order that depends on the data"),
    ],
)
def test_what_depends_on_the_data_is_refused(step, told):
    model = Model(lambda m, x: m.b(step(m.a(x))), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    with pytest.raises(ModelError, match=told):
        read_graph(model, example_inputs=torch.zeros(2, 3))


def assign(x, y):
    x = x.clone()
    x[:, :2] = y[:, 2:]
    return x


def fill_zeros(x, y):
    z = torch.zeros(x.shape)
    z[:, :2] = y[:, :2]
    return x + z


def own_part(x, y):
    x = x.clone()
    x[:, :2] = x[:, 2:]
    return x


def put(x, y):
    x = x.clone()
    x[:, [0, 2]] = y[:, :2]
    return x


def assigned(x, y):
    return torch.cat([y[:, 2:], x[:, 2:]], 1)


def filled(x, y):
    return x + torch.cat([y[:, :2], torch.zeros(x.shape[0], 2)], 1)


def repeated(x, y):
    return torch.cat([x[:, 2:], x[:, 2:]], 1)


def added(x, y):
    z = torch.zeros(x.shape)
    z.index_add_(0, torch.arange(len(x)), x)
    return z + y


@pytest.mark.parametrize(
    ("write", "same"),
    [
        (assign, assigned), (fill_zeros, filled), (own_part, repeated),
        (added, lambda x, y: x + y),
        (put, lambda x, y: torch.cat([y[:, :1], x[:, 1:2], y[:, 1:2], x[:, 3:]], 1)),
    ],
)  # fmt: skip
def test_writing_into_a_part_is_what_concatenation_is(write, same):
    parts = {"a": nn.Linear(3, 4), "b": nn.Linear(3, 4), "c": nn.Linear(4, 2)}
    example = torch.zeros(2, 3)
    ours, theirs = (
        read_graph(Model(lambda m, x, w=w: m.c(w(m.a(x), m.b(x))), **parts), example_inputs=example)
        for w in (write, same)
    )
    assert [layer.size for layer in ours.layers] == [layer.size for layer in theirs.layers]
    assert (ours.adjacency != theirs.adjacency).nnz == 0


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: (lambda h: h + m.b(torch.relu(m.a(h))))(x + m.c(x)),
        lambda m, x: m.n(x + m.c(x) + m.b(torch.relu(m.a(x)))),
        lambda m, x: (x.mT + m.b(torch.relu(m.a(x))).mT).mT,
    ],
)
def test_a_result_with_the_input_in_its_sum_has_a_neuron_for_each_channel(run):
    """Not one for each position and channel."""
    model = Model(run, a=nn.Linear(6, 8), b=nn.Linear(8, 6), c=nn.Linear(6, 6), n=nn.LayerNorm(6))
    graph = read_graph(model, example_inputs=torch.zeros(2, 4, 6), residual="readers")
    assert graph.layers[-1].name == "output"
    assert graph.layers[-1].size == 6


def test_an_encoder_layer_alone_ends_in_its_width():
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True).eval()
    graph = read_graph(layer, example_inputs=torch.zeros(1, 4, 6), residual="readers")
    assert [(graph.layers[-1].name, graph.layers[-1].size)] == [("output", 6)]


def largest(h):
    values, places = h.topk(2, -1)
    return torch.zeros_like(h).scatter_(-1, places, torch.relu(values))


def largest_of_batch(h):
    values, places = torch.relu(h).flatten().topk(5)
    return torch.zeros(h.numel()).scatter(-1, places, values).reshape(h.shape)


def largest_as_mask(h):
    return torch.where(torch.zeros_like(h).scatter(-1, h.topk(2).indices, 1.0) > 0, h, 0.0)


@pytest.mark.parametrize("change", [largest, largest_of_batch, largest_as_mask])
def test_the_largest_activations_put_back_are_what_a_relu_is(change):
    """As in sparse autoencoders that keep the k largest."""
    parts = {"a": nn.Linear(3, 6), "b": nn.Linear(6, 3)}
    example = torch.zeros(2, 3)
    ours, theirs = (
        read_graph(Model(lambda m, x, c=c: m.b(c(m.a(x))), **parts), example_inputs=example)
        for c in (change, torch.relu)
    )
    assert [layer.size for layer in ours.layers] == [layer.size for layer in theirs.layers]
    assert (ours.adjacency != theirs.adjacency).nnz == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda h: torch.ones_like(h).scatter(-1, h.topk(2).indices, h.topk(2).values),
        lambda h: torch.zeros_like(h).scatter(-1, h.topk(2).indices, h[:, :2]),
    ],
)
def test_other_values_put_where_the_largest_are_do_not_pass_for_them(change):
    model = Model(lambda m, x: m.b(change(m.a(x))), a=nn.Linear(3, 6), b=nn.Linear(6, 3))
    with pytest.raises((ModelError, InputError)):
        read_graph(model, example_inputs=torch.zeros(2, 3))


def test_a_view_that_was_taken_before_a_write_is_refused():
    def run(self, x):
        x = self.a(x).clone()
        before = x[:, 1:3]
        x[:, :2] = self.b(x)
        return self.c(before)

    model = Model(run, a=nn.Linear(3, 4), b=nn.Linear(4, 2), c=nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"torch\.cat or torch\.stack"):
        read_graph(model, example_inputs=torch.zeros(2, 3))


def test_writing_at_places_that_the_data_choose_is_refused():
    def write(x, y):
        x = x.clone()
        x[:, y.mean(0).topk(2).indices] = y[:, :2]
        return x

    model = Model(
        lambda m, x: m.c(write(m.a(x), m.b(x))),
        a=nn.Linear(3, 4), b=nn.Linear(3, 4), c=nn.Linear(4, 2),
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"torch\.cat or torch\.stack"):
        read_graph(model, example_inputs=torch.zeros(2, 3))


def test_writing_in_place_where_neurons_stay_is_followed():
    def run(self, x):
        x = self.a(x)
        x[:, :2].relu_()
        x[:, 0] = 0
        x[:, 2:] *= 2
        x[x < -1] = -1
        return self.b(x.sub_(1))

    model = Model(run, a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    found = read_graph(model).adjacency.toarray()
    # The first neuron is overwritten.
    assert_array_equal(found[:3, 3:7] > 0, np.tile([False, True, True, True], (3, 1)))
    assert_allclose(found[3:7, 7:], into(model.b.weight), rtol=1e-12)


# --- the model afterwards, inputs and outputs ---------------------------------------------------


@pytest.mark.parametrize("fails", [True, False])
def test_the_model_is_as_it_was(fails):
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 4)
            self.norm = nn.BatchNorm1d(4)
            self.b = nn.Linear(4, 2)
            self.register_buffer("count", torch.zeros(1))
            self.cache = None

        def forward(self, x):
            self.count += 1
            self.cache = self.a(x)
            self.extra = x
            x = self.norm(self.cache)
            if fails:
                raise RuntimeError("broken")
            return self.b(x)

    model = Stateful().train()
    model.norm.eval()
    hooked = []
    model.a.register_forward_hook(lambda *_: hooked.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    keys = sorted(vars(model))
    module_call, fast_path = nn.Module.__call__, torch.backends.mha.get_fastpath_enabled()
    state = torch.get_rng_state()
    if fails:
        with pytest.raises(ModelError, match="broken"):
            read_graph(model)
    else:
        read_graph(model)
    assert nn.Module.__call__ is module_call
    assert torch.backends.mha.get_fastpath_enabled() is fast_path
    assert torch.is_grad_enabled()
    assert_array_equal(torch.get_rng_state(), state)
    assert model.training
    assert model.a.training
    assert not model.norm.training
    assert model.cache is None
    assert sorted(vars(model)) == keys
    assert hooked == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("how", ["tuple", "mapping", "list"])
def test_several_inputs(how):
    def run(self, image, ids, scale=1.0):
        return self.c(torch.cat([self.a(image), self.b(ids)], 1) * scale)

    class Two(Model):
        def forward(self, image, ids, scale=1.0):
            return run(self, image, ids, scale)

    model = Two(None, a=nn.Linear(3, 4), b=nn.EmbeddingBag(5, 2), c=nn.Linear(6, 2))
    image, ids = torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.int64)
    inputs = {
        "tuple": (image, ids), "list": [image, ids], "mapping": {"image": image, "ids": ids}
    }[how]  # fmt: skip
    graph = read_graph(model, example_inputs=inputs)
    a, b, c = into(model.a.weight), np.abs(array(model.b.weight)), into(model.c.weight)
    expect(
        graph, [3, 5, 6, 2],
        {
            (0, 2): np.concatenate([a, np.zeros((3, 2))], axis=1),
            (1, 2): np.concatenate([np.zeros((5, 4)), b], axis=1),
            (2, 3): c,
        },
    )  # fmt: skip


def test_bad_example_inputs():
    model = chain(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(InputError, match="example_inputs"):
        read_graph(model, example_inputs="x")
    with pytest.raises(ModelError, match=r"module '0'.* reads 3 values, but gets 5"):
        read_graph(model, example_inputs=torch.zeros(2, 5))
    with pytest.raises(ModelError, match="example_inputs"):
        read_graph(model, example_inputs=(torch.zeros(2, 3), torch.zeros(2, 3)))


def test_outputs_in_a_dictionary():
    def run(self, x):
        x = torch.relu(self.a(x))
        return {"scores": self.b(x), "more": [self.c(x), {"hidden": x}], "n": 3}

    model = Model(run, a=nn.Linear(3, 4), b=nn.Linear(4, 2), c=nn.Linear(4, 5))
    graph = read_graph(model, residual="stream")
    a, b, c = (into(getattr(model, name).weight) for name in "abc")
    expect(graph, [3, 4, 2, 5], {(0, 1): a, (1, 2): b, (1, 3): c})


def test_error_messages_have_no_line_breaks_in_the_middle_of_words():
    model = Model(lambda m, x: m.b(m.a(x)), a=nn.Linear(3, 4), b=nn.Linear(5, 2))
    with pytest.raises(ModelError) as caught:
        read_graph(model, example_inputs=torch.zeros(2, 3))
    assert re.search(r"'b'", str(caught.value))
    assert "5" in str(caught.value)
    assert "4" in str(caught.value)


# --- networks as deep as they come --------------------------------------------------------------


def test_ways_around_a_layer_do_not_multiply():
    """Position mixing with a scale of its own, block after block: x + gamma pool(x)."""

    def run(self, x):
        x = self.a(x)
        for gamma in (self.g, self.h) * 12:
            x = x + gamma[:, None, None] * (F.avg_pool2d(x, 3, 1, 1) - x)
        return self.b(x)

    scales = {"g": nn.Parameter(torch.rand(4) + 1), "h": nn.Parameter(-torch.rand(4) / 2)}
    model = Model(run, a=nn.Conv2d(2, 4, 1), b=nn.Conv2d(4, 3, 1), **scales)
    graph = read_graph(model, scope="all", example_inputs=torch.zeros(1, 2, 4, 4))
    assert [layer.size for layer in graph.layers] == [2, 4, 3]
    found = graph.adjacency.toarray()[:2, 2:6] / into(model.a.weight)
    # One factor for each channel: the way that widens it most, not the sum of 2^24 ways.
    assert_allclose(found, found[:1].repeat(2, axis=0), rtol=1e-9)
    assert_allclose(found[0], array(model.g) ** 12, rtol=1e-9)
