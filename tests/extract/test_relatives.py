"""Relatives of networks that were once read wrongly: the whole adjacency, worked out by hand."""

from __future__ import annotations

import pytest

from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
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
