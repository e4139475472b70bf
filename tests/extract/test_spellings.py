"""One function written in several ways has one graph."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ncut.errors import ModelError
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402


class Model(nn.Module):
    """A forward pass given as a function of the module and its inputs."""

    def __init__(self, run, **parts):
        super().__init__()
        torch.manual_seed(5)
        self.run = run
        for name, make in parts.items():
            setattr(self, name, make())

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def facts(graph):
    degrees = np.sort(np.asarray(graph.adjacency.sum(axis=0)).ravel())
    return sorted(layer.size for layer in graph.layers), graph.n_edges, degrees


def assert_alike(first, second, inputs, residuals=("readers", "stream")):
    """Two models with the same weights that compute the same have the same graph."""
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert_allclose(first(*inputs), second(*inputs), atol=1e-5)
    for residual in residuals:
        graphs = [
            read_graph(model, example_inputs=inputs, scope="all", residual=residual)
            for model in (first, second)
        ]
        ours, theirs = map(facts, graphs)
        assert ours[:2] == theirs[:2], residual
        assert_allclose(ours[2], theirs[2], rtol=1e-5)


# --- branches that are summed -------------------------------------------------------------------


def branches(join):
    def run(m, x):
        h = torch.relu(m.a(x))
        return m.o(join(m, [torch.relu(part(h)) for part in (m.b, m.c, m.d)]))

    parts = {name: lambda: nn.Linear(5, 7) for name in "bcd"}
    mix = lambda: nn.Parameter(torch.tensor([0.2, -0.3, 0.5]))  # noqa: E731
    return Model(run, a=lambda: nn.Linear(4, 5), **parts, o=lambda: nn.Linear(7, 2), mix=mix)


@pytest.mark.parametrize(
    "join",
    [
        lambda m, p: torch.stack(p).sum(0),
        lambda m, p: torch.stack(p, 1).sum(1),
        lambda m, p: torch.stack(p, -1).sum(-1),
        lambda m, p: torch.einsum("ebk->bk", torch.stack(p)),
        lambda m, p: torch.cat(p, 1).view(-1, 3, 7).sum(1),
        lambda m, p: 3 * torch.stack(p).mean(0),
    ],
)
def test_a_sum_of_branches(join):
    assert_alike(branches(lambda m, p: p[0] + p[1] + p[2]), branches(join), (torch.randn(3, 4),))


@pytest.mark.parametrize(
    "join",
    [
        lambda m, p: torch.einsum("ebk,e->bk", torch.stack(p), m.mix),
        lambda m, p: torch.tensordot(m.mix, torch.stack(p), dims=1),
        lambda m, p: (torch.stack(p, 1) * m.mix[:, None]).sum(1),
        lambda m, p: torch.stack(p, -1) @ m.mix,
        lambda m, p: torch.einsum("ebk,e->bk", torch.stack(p), m.mix.detach().clone()),
    ],
)
def test_branches_with_factors(join):
    def expected(m, parts):
        return sum(factor * part for factor, part in zip(m.mix.unbind(), parts, strict=True))

    assert_alike(branches(expected), branches(join), (torch.randn(3, 4),))


@pytest.mark.parametrize(
    "join",
    [
        lambda g, e: (g[..., None] * e).sum(1),
        lambda g, e: torch.einsum("be,beo->bo", g, e),
        lambda g, e: torch.bmm(g[:, None], e)[:, 0],
        lambda g, e: (e.transpose(1, 2) @ g[:, :, None]).squeeze(2),
        lambda g, e: (g.T[..., None] * e.transpose(0, 1)).sum(0),
    ],
)
def test_a_soft_mixture_of_experts(join):
    def model(mixed):
        def run(m, x):
            h = torch.relu(m.a(x))
            parts = torch.stack([torch.relu(part(h)) for part in (m.b, m.c, m.d)], 1)
            return m.o(mixed(torch.softmax(m.gate(h), -1), parts))

        parts = {name: lambda: nn.Linear(5, 7) for name in "bcd"}
        return Model(
            run, a=lambda: nn.Linear(4, 5), gate=lambda: nn.Linear(5, 3), **parts,
            o=lambda: nn.Linear(7, 2),
        )  # fmt: skip

    by_hand = model(lambda g, e: sum(g[:, at : at + 1] * e[:, at] for at in range(3)))
    assert_alike(by_hand, model(join), (torch.randn(3, 4),))


# --- known masks and places ---------------------------------------------------------------------

MASK = torch.tensor([True, False, True, True, False])
KEPT = torch.tensor([0, 2, 3])


def between(change, n_out=5):
    def run(m, x):
        return m.o(change(torch.relu(m.a(x))))

    return Model(run, a=lambda: nn.Linear(6, 5), o=lambda: nn.Linear(n_out, 2))


def put(h, key, value):
    h = h.clone()
    h[key] = value
    return h


@pytest.mark.parametrize(
    "change",
    [
        lambda h: torch.where(MASK, h, torch.zeros_like(h)),
        lambda h: torch.where(MASK, h, 0.0),
        lambda h: torch.where(~MASK, 0.0, h),
        lambda h: h.masked_fill(~MASK, 0.0),
        lambda h: h.clone().masked_fill_(~MASK, 0.0),
        lambda h: h.index_fill(1, torch.tensor([1, 4]), 0.0),
        lambda h: put(h, (slice(None), ~MASK), 0.0),
        lambda h: put(h, (slice(None), torch.tensor([1, 4])), 0.0),
        lambda h: put(h, (slice(None), slice(1, 5, 3)), 0.0),
        lambda h: torch.lerp(torch.zeros(5), h, MASK.float()),
        lambda h: torch.addcmul(torch.zeros(5), h, MASK.float()),
        lambda h: h * MASK + h * 0,
        lambda h: h @ torch.eye(5) * 0 + torch.stack([h] * 5, 1).triu().tril()[:, 3] * 0 + h * MASK,
    ],
)
def test_neurons_under_a_known_mask_are_lost(change):
    assert_alike(between(lambda h: h * MASK), between(change), (torch.randn(3, 6),))


@pytest.mark.parametrize(
    "change",
    [
        lambda h: torch.zeros_like(h).index_copy(1, KEPT, h[:, MASK]),
        lambda h: torch.zeros_like(h).scatter(1, KEPT.expand(3, 3), h[:, MASK]),
        lambda h: torch.zeros_like(h).index_add(1, KEPT, h[:, MASK]),
        lambda h: torch.zeros_like(h).scatter_add(1, KEPT.expand(3, 3), h[:, MASK]),
        lambda h: torch.zeros_like(h).index_put((torch.arange(3)[:, None], KEPT[None]), h[:, MASK]),
        lambda h: torch.zeros_like(h).masked_scatter(MASK, h[:, MASK]),
        lambda h: put(torch.zeros_like(h), (slice(None), MASK), h[:, KEPT]),
    ],
)
def test_neurons_at_known_places(change):
    def expected(h):
        zero = torch.zeros(3, 1)
        return torch.cat([h[:, :1], zero, h[:, 2:4], zero], 1)

    assert_alike(between(expected), between(change), (torch.randn(3, 6),))


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.gather(1, torch.tensor([[4, 3, 2, 1, 1]]).expand(3, 5)),
        lambda h: torch.take_along_dim(h, torch.tensor([[4, 3, 2, 1, 1]]).expand(3, 5), 1),
        lambda h: h.index_select(1, torch.tensor([4, 3, 2, 1, 1])),
        lambda h: torch.take(h, torch.arange(15).view(3, 5)[:, [4, 3, 2, 1, 1]]),
    ],
)
def test_neurons_chosen_by_a_known_index(change):
    expected = between(lambda h: h[:, [4, 3, 2, 1, 1]])
    assert_alike(expected, between(change), (torch.randn(3, 6),))


def test_overwritten_neurons_are_read_with_their_new_value():
    """A channel's mean over examples put in its own place, as an ablation does."""

    def averaged(h):
        h = h.clone()
        h[:, 2] = h[:, 2].mean()
        return h

    plain, changed = between(lambda h: h), between(averaged)
    assert (
        facts(read_graph(plain, example_inputs=torch.zeros(3, 6)))[:2]
        == (facts(read_graph(changed, example_inputs=torch.zeros(3, 6)))[:2])
    )


# --- factors of sums ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        (lambda a, b: torch.add(a, b, alpha=0.3), lambda a, b: a + 0.3 * b),
        (lambda a, b: torch.sub(a, b, alpha=0.3), lambda a, b: a - 0.3 * b),
        (lambda a, b: torch.rsub(a, b, alpha=0.3), lambda a, b: b - 0.3 * a),
        (lambda a, b: a.clone().add_(b, alpha=0.3), lambda a, b: a + 0.3 * b),
        (lambda a, b: torch.lerp(a, b, 0.3), lambda a, b: a * 0.7 + b * 0.3),
        (
            lambda a, b: torch.addcmul(a, b, torch.tensor(0.5), value=3),
            lambda a, b: a + b * 0.5 * 3,
        ),
        (lambda a, b: torch.addcdiv(a, b, torch.tensor(2.0)), lambda a, b: a + b / 2),
        (
            lambda a, b: torch.addmm(a, b, torch.eye(5), beta=0.2, alpha=3),
            lambda a, b: 0.2 * a + 3 * (b @ torch.eye(5)),
        ),
        (
            lambda a, b: torch.baddbmm(a[None], b[None], torch.eye(5)[None], beta=0.2, alpha=3)[0],
            lambda a, b: 0.2 * a + 3 * (b @ torch.eye(5)),
        ),
    ],
)
def test_factors_inside_sums(join, expected):
    def model(how):
        def run(m, x):
            return m.o(how(m.a(x), m.b(x)))

        parts = {name: lambda: nn.Linear(6, 5) for name in "ab"}
        return Model(run, **parts, o=lambda: nn.Linear(5, 2))

    assert_alike(model(expected), model(join), (torch.randn(3, 6),), ("readers",))


# --- rows of tables, and choices ----------------------------------------------------------------

IDS = torch.randint(0, 9, (3, 4))


@pytest.mark.parametrize(
    "rows",
    [
        lambda m, ids: m.e.weight[ids],
        lambda m, ids: m.e.weight.index_select(0, ids.view(-1)).view(3, 4, 5),
        lambda m, ids: torch.index_select(m.e.weight, 0, ids.view(-1)).view(3, 4, 5),
        lambda m, ids: functional.embedding(ids, m.e.weight),
        lambda m, ids: m.e.weight[ids, :],
        lambda m, ids: m.e.weight[ids, ...],
        lambda m, ids: m.e.weight.T[:, ids].permute(1, 2, 0),
        lambda m, ids: m.e.weight.view(9, 5, 1)[ids, :, 0],
        lambda m, ids: m.e.weight.view(1, 9, 5)[0, ids],
    ],
)
def test_rows_of_a_table(rows):
    def model(how):
        def run(m, ids):
            return m.o(how(m, ids).mean(1))

        return Model(run, e=lambda: nn.Embedding(9, 5), o=lambda: nn.Linear(5, 2))

    assert_alike(model(lambda m, ids: m.e(ids)), model(rows), (IDS,))


@pytest.mark.parametrize(
    "entries",
    [
        lambda e, ids: e.gather(0, ids.view(-1, 1).expand(-1, 5)),
        lambda e, ids: torch.take_along_dim(e, ids.view(-1, 1), 0),
    ],
)
def test_entries_of_a_table_are_refused(entries):
    model = Model(
        lambda m, ids: m.o(entries(m.e.weight, ids)),
        e=lambda: nn.Embedding(9, 5), o=lambda: nn.Linear(5, 2),
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"look up rows: table\[indices\]"):
        read_graph(model, example_inputs=(IDS,))


def test_whole_numbers_beside_values_are_features():
    def run(m, ids, x):
        return m.o(torch.relu(m.a(torch.cat([ids[:, :2].float(), x[:, :2]], 1))))

    model = Model(run, a=lambda: nn.Linear(4, 5), o=lambda: nn.Linear(5, 3))
    graph = read_graph(model, example_inputs=(IDS, torch.zeros(3, 4)))
    assert graph.n_edges == 20 + 15


def test_a_router_that_takes_the_largest():
    """Candidates of an argmax are vertices, and chosen experts reach the result."""

    def run(m, x):
        h = torch.relu(m.a(x))
        at = m.gate(h).argmax(-1)
        parts = torch.stack([part(h) for part in (m.b, m.c, m.d)], 1)
        return m.o(parts[torch.arange(3), at])

    parts = {name: lambda: nn.Linear(5, 7) for name in "bcd"}
    model = Model(
        run, a=lambda: nn.Linear(4, 5), gate=lambda: nn.Linear(5, 3), **parts,
        o=lambda: nn.Linear(7, 2),
    )  # fmt: skip
    graph = read_graph(model, example_inputs=torch.zeros(3, 4), residual="readers")
    assert graph.n_edges == 20 + 15 + 3 * 35 + 14
    assert {p.name for p in graph.parameters if not p.placed and len(p.shape) > 1} == set()


def test_attention_between_all_channels_reaches_all_of_them():
    def run(m, x):
        q, k, v = m.q(torch.relu(m.a(x))).flatten(2).chunk(3, 1)
        shares = torch.softmax(q @ k.transpose(1, 2), -1)
        return m.o((shares @ v).view(2, 4, 3, 3))

    model = Model(
        run, a=lambda: nn.Conv2d(3, 4, 1), q=lambda: nn.Conv2d(4, 12, 1),
        o=lambda: nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    example = torch.zeros(2, 3, 3, 3)
    graph = read_graph(model, example_inputs=example, scope="all", residual="readers")
    assert "q" not in [entry.name for entry in graph.left_out]
    # Four inputs of the last layer get the same four neurons, and are one vertex.
    assert [layer.size for layer in graph.layers][-2:] == [1, 2]


# --- arguments and results ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Frozen:
    ids: Any
    x: Any


class Named(NamedTuple):
    ids: Any
    x: Any


@pytest.mark.parametrize("kind", [Frozen, Named, types.SimpleNamespace])
def test_tensors_inside_objects_are_inputs(kind):
    def run(m, given):
        return m.o(m.e(given.ids).mean(1) + m.a(given.x))

    model = Model(
        run, e=lambda: nn.Embedding(9, 5), a=lambda: nn.Linear(4, 5), o=lambda: nn.Linear(5, 2)
    )
    given = kind(ids=IDS, x=torch.zeros(3, 4))
    graph = read_graph(model, example_inputs=(given,), residual="readers")
    assert graph.n_edges == 45 + 20 + 10
    assert type(given.x) is torch.Tensor


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: types.SimpleNamespace(y=y),
        lambda y: torch.distributions.Normal(y, 1.0),
        lambda y: Frozen(None, [y]),
        lambda y: {y},
    ],
)
def test_results_inside_objects(wrap):
    model = Model(
        lambda m, x: wrap(m.b(torch.relu(m.a(x)))), a=lambda: nn.Linear(4, 5),
        b=lambda: nn.Linear(5, 2),
    )  # fmt: skip
    assert read_graph(model).n_edges == 20 + 10


def test_a_choice_by_a_mask_that_depends_on_the_data_is_refused():
    with pytest.raises(ModelError, match="depend on the data"):
        read_graph(
            between(lambda h: torch.masked_select(h, h > 0).view(-1, 5)),
            example_inputs=torch.zeros(3, 6),
        )
