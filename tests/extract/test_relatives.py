"""Relatives of networks that were once read wrongly: the whole adjacency, worked out by hand."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_nets import Model, array, expect, into  # noqa: E402

pytestmark = pytest.mark.usefixtures("doubles")


def read(model, *inputs, residual="readers"):
    return read_graph(model, example_inputs=inputs, scope="all", residual=residual)


# --- inputs without an axis of examples ---------------------------------------------------------

VECTORS = {
    "a vector": (lambda m, x: m.a(x), nn.Linear, [(6,)]),
    "made a batch inside": (lambda m, x: m.a(x[None])[0], nn.Linear, [(6,)]),
    "two vectors": (lambda m, x, y: m.a(torch.cat([x, y])), nn.Linear, [(2,), (4,)]),
    "an image": (lambda m, x: m.a(x), nn.Conv2d, [(6, 4, 5)]),
    "an image made a batch": (lambda m, x: m.a(x.unsqueeze(0)), nn.Conv2d, [(6, 4, 5)]),
}


@pytest.mark.parametrize("case", VECTORS)
def test_an_input_without_examples_has_a_vertex_for_each_feature(case):
    first, kind, shapes = VECTORS[case]
    sizes = (1,) if kind is nn.Conv2d else ()
    model = Model(
        lambda m, *x: m.b(torch.relu(first(m, *x))), a=kind(6, 5, *sizes), b=kind(5, 3, *sizes)
    )
    graph = read(model, *map(torch.zeros, shapes))
    expect(graph, [6, 5, 3], {(0, 1): into(model.a.weight), (1, 2): into(model.b.weight)})


def test_features_of_one_number_that_are_as_many_as_examples_are_not_its_examples():
    model = Model(
        lambda m, t: m.b(torch.relu(m.a(torch.sin(t[:, None] * m.waves)))),
        a=nn.Linear(4, 5), b=nn.Linear(5, 3), waves=torch.tensor([1.0, 2.0, 4.0, 8.0]),
    )  # fmt: skip
    assert [layer.size for layer in read(model, torch.zeros(3)).layers] == [1, 5, 3]


# --- a layer that enters a sum several times ------------------------------------------------------

MASK = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])


def adapted(m, h, g):
    """DoRA: a layer plus its change of magnitude and direction."""
    return h + ((m.s - 1) * h + m.s * g * 0.5)


MULTIPLES = {
    "plus": lambda m, h, g: h + m.s * h,
    "minus": lambda m, h, g: h - m.s * h,
    "the negative": lambda m, h, g: m.s * h + (-h),
    "twice": lambda m, h, g: h + h,
    "numbers": lambda m, h, g: 0.7 * h - 2 * h / 4,
    "alpha": lambda m, h, g: torch.sub(h, h, alpha=3),
    "reversed": lambda m, h, g: torch.rsub(h, m.s * h, alpha=3),
    "in place": lambda m, h, g: h.clone().sub_(m.s * h),
    "quotients": lambda m, h, g: h / m.s - h,
    "a mask": lambda m, h, g: h - h * MASK,
    "rounded, with a gradient": lambda m, h, g: h + (2 * h - h).detach() * 3,
    "mixed": lambda m, h, g: h + m.s * (g - h),
    "lerp": lambda m, h, g: torch.lerp(h, g, m.s),
    "adapted": adapted,
    "taken away": lambda m, h, g: (h + g) - h,
    "a weighted sum": lambda m, h, g: 0.3 * (h + g) - h - g * 0.3,
}


@pytest.mark.parametrize("case", MULTIPLES)
@pytest.mark.parametrize("residual", ["readers", "stream"])
def test_a_layer_that_enters_a_sum_several_times_has_the_sum_of_its_factors(case, residual):
    model = Model(
        lambda m, x: m.o(MULTIPLES[case](m, m.h(x), m.g(x))),
        h=nn.Linear(6, 5), g=nn.Linear(6, 5), s=nn.Parameter(torch.randn(5)), o=nn.Linear(5, 3),
    )  # fmt: skip
    graph = read(model, torch.zeros(1, 6), residual=residual)
    # The sum is linear in each layer's neurons: ones give their factors.
    one, zero = torch.ones(5), torch.zeros(5)
    factors = MULTIPLES[case](model, one, zero), MULTIPLES[case](model, zero, one)
    layers = zip((model.h, model.g), factors, strict=True)
    used = [into(layer.weight * factor[:, None]) for layer, factor in layers if factor.any()]
    sizes = [6, 5, 3] if len(used) == 1 or residual == "stream" else [6, 6, 5, 3]
    last = len(sizes) - 2
    edges = {(last, last + 1): into(model.o.weight)}
    for at, part in enumerate(used):
        place = (at if last > 1 else 0, last)
        edges[place] = edges.get(place, 0) + part
    expect(graph, sizes, edges)


# --- sums of a product and something else --------------------------------------------------------


def plain(m, h, g):
    return 0.5 * g + 3 * (h @ m.w)


PRODUCTS = {
    "by hand": plain,
    "addmm": lambda m, h, g: torch.addmm(g, h, m.w, beta=0.5, alpha=3),
    "addmv": lambda m, h, g: torch.addmv(g[0], m.w.T, h[0], beta=0.5, alpha=3)[None],
    "baddbmm": lambda m, h, g: torch.baddbmm(g[None], h[None], m.w[None], beta=0.5, alpha=3)[0],
    "addbmm": lambda m, h, g: torch.addbmm(g, h[None], m.w[None], beta=0.5, alpha=3),
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_what_a_product_is_added_to_is_joined(product):
    model = Model(
        lambda m, x: m.o(PRODUCTS[product](m, m.h(x), m.g(x))),
        h=nn.Linear(6, 4), g=nn.Linear(6, 5), w=nn.Parameter(torch.rand(4, 5)), o=nn.Linear(5, 3),
    )  # fmt: skip
    x = torch.randn(1, 6)
    torch.testing.assert_close(model(x), model.o(plain(model, model.h(x), model.g(x))))
    h, g, w, o = into(model.h.weight), into(model.g.weight), array(model.w), into(model.o.weight)
    expect(
        read(model, x), [6, 6, 4, 5, 3],
        {(0, 2): h, (1, 3): 0.5 * g, (2, 3): 3 * w, (3, 4): o},
    )  # fmt: skip


def test_weights_that_another_layer_makes_are_a_factor():
    # A network that makes the weights of another, in one function and written out.
    def run(m, x, z, function):
        w = m.make(torch.relu(m.z(z))).view(4, 5)
        h = torch.relu(m.a(x))
        return m.o(torch.relu(functional.linear(h, w) if function else h @ w.T))

    parts = {"z": nn.Linear(3, 4), "make": nn.Linear(4, 20), "a": nn.Linear(6, 5)}
    graphs = [
        read(
            Model(functools.partial(run, function=function), **parts, o=nn.Linear(4, 2)),
            torch.zeros(2, 6), torch.zeros(3),
        )
        for function in (True, False)
    ]  # fmt: skip
    for graph in graphs:
        assert [layer.size for layer in graph.layers] == [3, 4, 6, 4, 2]
        assert graph.placed_share == 1
    assert graphs[0].adjacency.nnz == graphs[1].adjacency.nnz


def test_a_product_of_parameters_is_added_as_a_bias():
    model = Model(
        lambda m, x: m.o(torch.addmm(m.a(x), m.v, m.w, beta=2)),
        a=nn.Linear(6, 4), v=nn.Parameter(torch.rand(2, 3)), w=nn.Parameter(torch.rand(3, 4)),
        o=nn.Linear(4, 2),
    )  # fmt: skip
    graph = read(model, torch.zeros(2, 6))
    expect(graph, [6, 4, 2], {(0, 1): 2 * into(model.a.weight), (1, 2): into(model.o.weight)})
    roles = {p.name: p.placed for p in graph.parameters}
    assert not roles["v"]
    assert not roles["w"]


# --- attention whose queries or keys are parameters ----------------------------------------------


def in_heads(x, n=2):
    return x.unflatten(-1, (n, -1)).transpose(-2, -3)


def shares_by_hand(q, k, v):
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v


def by_blocks(q, k, v):
    q, k, v = (x.flatten(0, 1) for x in (q.contiguous(), k, v))
    return torch.bmm(torch.bmm(q, k.transpose(1, 2)).div(3**0.5).softmax(-1), v).unflatten(
        0, (-1, 2)
    )


SPELLINGS = {
    "one function": functional.scaled_dot_product_attention,
    "by hand": shares_by_hand,
    "in one batch": by_blocks,
}


def pooled(attend, x, n):
    def run(m, x):
        q = in_heads(m.q.expand(len(x), 3, 6))
        return m.o(attend(q, in_heads(m.k(x)), in_heads(m.v(x))).transpose(1, 2).flatten(2))

    torch.manual_seed(3)
    model = Model(
        run, q=nn.Parameter(torch.rand(3, 6)), k=nn.Linear(5, 6), v=nn.Linear(5, 6),
        o=nn.Linear(6, 2),
    )  # fmt: skip
    return model, read(model, x.expand(n, -1, -1))


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_learned_queries_are_weights_in_every_spelling_and_for_any_number_of_examples(spelling, n):
    model, graph = pooled(SPELLINGS[spelling], torch.randn(1, 4, 5), n)
    k, v, o = into(model.k.weight), into(model.v.weight), into(model.o.weight)
    # Each query weights what a head pools: dimension d of a head is read by its three queries.
    q = array(model.q).reshape(3, 2, 3).transpose(1, 2, 0) * 3**-0.5
    shares = [np.repeat(q[head].sum(1, keepdims=True), 3, 1) for head in range(2)]
    between = np.zeros((6, 6))
    between[:3, :3], between[3:, 3:] = shares
    expect(graph, [5, 5, 6, 6, 2], {(0, 2): k, (1, 3): v, (2, 3): between, (3, 4): o})


def test_several_heads_of_torchs_attention_do_not_multiply_with_the_examples():
    def run(m, x):
        return m.o(m.a(m.q.expand(len(x), 3, 6), x, x)[0])

    model = Model(
        run, q=nn.Parameter(torch.rand(3, 6)), a=nn.MultiheadAttention(6, 2, batch_first=True),
        o=nn.Linear(6, 2),
    )  # fmt: skip
    for residual in ("readers", "stream"):
        one, many = (read(model, torch.zeros(n, 4, 6), residual=residual) for n in (1, 3))
        assert [layer.size for layer in one.layers] == [layer.size for layer in many.layers]
        assert abs(one.adjacency - many.adjacency).max() < 1e-12


@pytest.mark.parametrize("spelling", ["one function", "by hand"])
def test_learned_keys_and_values_are_two_layers(spelling):
    attend = SPELLINGS[spelling]
    model = Model(
        lambda m, x: m.o(attend(m.q(x), m.k, m.v)),
        q=nn.Linear(5, 4), k=nn.Parameter(torch.rand(3, 4)), v=nn.Parameter(torch.rand(3, 6)),
        o=nn.Linear(6, 2),
    )  # fmt: skip
    expect(
        read(model, torch.zeros(2, 7, 5)), [5, 4, 3, 6, 2],
        {
            (0, 1): into(model.q.weight), (1, 2): array(model.k).T / 2, (2, 3): array(model.v),
            (3, 4): into(model.o.weight),
        },
    )  # fmt: skip
