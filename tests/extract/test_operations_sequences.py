"""Attention and recurrent layers in small networks whose whole adjacency is known."""

from __future__ import annotations

import numpy as np
import pytest
from torch_nets import Model, array, chain, expect, factor, into, trained

from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

pytestmark = pytest.mark.usefixtures("doubles")


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
