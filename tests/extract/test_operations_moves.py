"""Moves of channels, and writes into parts of tensors, land where torch puts them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from torch_nets import Model, expect, into

from ncut.errors import InputError, ModelError
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

pytestmark = pytest.mark.usefixtures("doubles")


def landing(operation, c, shape):
    """Map from `c` channels to the outputs at which they arrive: shape (c, channels of the result).

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
def test_scattered_largest_activations_act_like_a_relu(change):
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
