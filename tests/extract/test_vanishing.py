"""Neurons that a reading could lose without a word: each has a vertex, or is listed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ncut
from ncut.errors import ModelError
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_nets import Model  # noqa: E402


def read(model, *inputs, residual="readers"):
    torch.manual_seed(1)
    return read_graph(model, example_inputs=inputs, scope="all", residual=residual)


def sizes(graph):
    return [layer.size for layer in graph.layers]


def weights(graph, name):
    (block,) = [block for block in graph.blocks if block.name == name]
    found = block.weights
    return np.asarray(found if isinstance(found, np.ndarray) else found.toarray())


# --- queries and keys of one matrix -------------------------------------------------------------


def scores_by_products(q, k):
    return (q[:, :, None] * k[:, None]).sum(-1)


@pytest.mark.parametrize("scores", [scores_by_products, lambda q, k: q @ k.transpose(1, 2)])
def test_queries_and_keys_beside_values_in_one_matrix_are_vertices(scores):
    def run(m, x):
        q, k, v = m.qkv(x).chunk(3, -1)
        return m.out(scores(q, k).softmax(-1) @ v)

    model = Model(run, qkv=nn.Linear(6, 12), out=nn.Linear(4, 2))
    graph = read(model, torch.zeros(2, 5, 6))
    assert sorted(sizes(graph)) == [2, 4, 4, 6]
    assert not graph.left_out
    # Queries, keys and values: all rows of the matrix have edges.
    total = sum(np.sum(block.weights) for block in graph.blocks if block.name == "qkv")
    assert_allclose(total, model.qkv.weight.abs().sum().item(), rtol=1e-5)


def test_a_selective_scan_keeps_what_it_multiplies():
    # Mamba: the state is written by B and read by C, both from the matrix that also makes dt.
    def run(m, x):
        dt, b, c = m.x(x).split([2, 3, 3], -1)
        dt = functional.softplus(m.dt(dt))
        h, ys = torch.zeros(2, 6, 3), []
        for t in range(4):
            decay = torch.exp(-dt[:, t, :, None] * m.a.exp())
            h = decay * h + dt[:, t, :, None] * b[:, t, None] * x[:, t, :, None]
            ys.append((h * c[:, t, None]).sum(-1))
        return m.out(torch.stack(ys, 1))

    parts = {"x": nn.Linear(6, 8), "dt": nn.Linear(2, 6), "a": nn.Parameter(torch.rand(6, 3))}
    graph = read(Model(run, **parts, out=nn.Linear(6, 2)), torch.zeros(2, 4, 6))
    # B and C are one layer of vertices for all steps, as queries and keys are.
    assert sorted(sizes(graph)) == [2, 2, 3, 6, 6]
    assert [block.weights.shape for block in graph.blocks if block.name == "x"].count((6, 3)) == 2


def test_neurons_of_a_layer_that_nothing_reads_are_listed():
    model = Model(
        lambda m, x: m.b(m.a(x)[:, :3].relu()), a=nn.Linear(6, 5), b=nn.Linear(3, 2)
    )  # fmt: skip
    (item,) = read(model, torch.zeros(2, 6)).left_out
    assert (item.name, item.shape) == ("neurons of a", (2,))
    assert item.reason == "nothing that is in the graph reads these neurons"


# --- a model's input as an operand --------------------------------------------------------------


def pooled_by_sum(x, w):
    return (x * w).sum(1)


def pooled_by_product(x, w):
    return (w.transpose(1, 2) @ x).squeeze(1)


def pooled_from_the_left(x, w):
    return (x.transpose(1, 2) @ w).squeeze(2)


@pytest.mark.parametrize("pool", [pooled_by_sum, pooled_by_product, pooled_from_the_left])
def test_the_positions_of_an_input_are_weighted(pool):
    model = Model(
        lambda m, x: m.b(m.a(pool(x, m.w(x).softmax(1))).relu()),
        w=nn.Linear(6, 1), a=nn.Linear(6, 4), b=nn.Linear(4, 2),
    )  # fmt: skip
    graph = read(model, torch.zeros(2, 5, 6))
    assert sizes(graph) == [6, 6, 4, 2]
    assert_allclose(weights(graph, "a"), model.a.weight.abs().detach().T)
    # Each feature is weighted by the one neuron.
    assert_allclose(weights(graph, "w"), model.w.weight.abs().detach().T.expand(6, 6))


@pytest.mark.parametrize("keepdim", [True, False])
def test_the_mean_of_an_image_is_read(keepdim):
    def run(m, x):
        mean = x.mean((2, 3), keepdim=keepdim).reshape(2, 4, 1, 1)
        return m.out((m.b(x) * torch.sigmoid(m.gate(mean))).relu())

    parts = {"gate": nn.Conv2d(4, 3, 1), "b": nn.Conv2d(4, 3, 1), "out": nn.Conv2d(3, 2, 1)}
    graph = read(Model(run, **parts), torch.zeros(2, 4, 8, 8))
    assert sizes(graph) == [4, 4, 3, 2]
    assert not graph.left_out


@pytest.mark.parametrize(
    ("shape", "axes"), [((2, 5, 4), -1), ((2, 4, 5, 5), (2, 3)), ((2, 4, 9), -1)]
)
def test_the_mean_that_normalizes_an_input_carries_no_neurons(shape, axes):
    def run(m, x):
        mean = x.mean(axes, keepdim=True)
        x = (x - mean) / (((x - mean) ** 2).mean(axes, keepdim=True) + 1e-5).sqrt()
        return m.b(m.a(x.flatten(2) if x.ndim == 4 else x).relu())

    n = shape[-1] if len(shape) == 3 else 25
    model = Model(run, a=nn.Linear(n, 3), b=nn.Linear(3, 2))
    graph = read(model, torch.zeros(shape))
    assert sizes(graph) == [n, 3, 2]
    assert_allclose(weights(graph, "a"), model.a.weight.abs().detach().T)


# --- softmax over positions ---------------------------------------------------------------------


def test_weights_of_positions_for_each_channel_are_gates():
    def run(m, x):
        h = m.a(x).relu()
        share = m.w(h).softmax(1)
        return m.out((h * share).sum(1))

    model = Model(run, a=nn.Linear(6, 5), w=nn.Linear(5, 5), out=nn.Linear(5, 2))
    graph = read(model, torch.zeros(2, 4, 6))
    assert sizes(graph) == [6, 5, 5, 2]
    assert_allclose(weights(graph, "w"), model.w.weight.abs().detach().T)


def test_several_weights_of_positions_are_gates_of_what_each_pools():
    def run(m, x):
        h = m.a(x).relu()
        return m.out((m.w(h).softmax(1).transpose(1, 2) @ h).flatten(1))

    model = Model(run, a=nn.Linear(6, 5), w=nn.Linear(5, 3), out=nn.Linear(15, 2))
    graph = read(model, torch.zeros(2, 4, 6))
    assert sizes(graph) == [6, 5, 15, 2]
    expected = model.w.weight.abs().detach().T.repeat_interleave(5, 1)
    assert_allclose(weights(graph, "w"), expected)


def test_coordinates_from_a_softmax_over_an_image_are_the_channels():
    def run(m, x):
        share = m.c(x).flatten(2).softmax(-1)
        return m.out((share * torch.linspace(-1, 1, 36)).sum(-1).relu())

    model = Model(run, c=nn.Conv2d(3, 5, 1), out=nn.Linear(5, 2))
    assert sizes(read(model, torch.zeros(2, 3, 6, 6))) == [3, 5, 2]


@pytest.mark.parametrize("norms", [False, True])
def test_linear_attention_has_vertices_for_queries_and_keys(norms):
    def run(m, x):
        q, k, v = m.q(x), m.k(x), m.v(x)
        if norms:
            q, k = q.softmax(-1), k.softmax(1)
        return m.out(q @ (k.transpose(1, 2) @ v))

    parts = {name: nn.Linear(6, n) for name, n in {"q": 4, "k": 4, "v": 5}.items()}
    graph = read(Model(run, **parts, out=nn.Linear(5, 2)), torch.zeros(2, 3, 6))
    assert graph.placed_share == 1
    assert sorted(sizes(graph)) == [2, 4, 5, 6, 6, 6]


def test_biases_of_scores_carry_no_neurons_for_any_number_of_heads():
    def run(m, x):
        q, k, v = (y.view(2, 5, 2, 3).transpose(1, 2) for y in m.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(-1, -2) + m.bias(torch.arange(25).view(5, 5)).permute(2, 0, 1)
        return m.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    parts = {"qkv": nn.Linear(6, 18), "bias": nn.Embedding(25, 2), "out": nn.Linear(6, 2)}
    graph = read(Model(run, **parts), torch.zeros(2, 5, 6))
    assert [item.name for item in graph.left_out] == ["bias"]


def test_a_query_that_is_a_parameter_is_a_layer_that_reads_the_keys():
    parts = {"attend": nn.MultiheadAttention(6, 2, batch_first=True), "out": nn.Linear(6, 2)}

    def run(m, x):
        return m.out(m.attend(m.query.expand(2, 1, 6), x, x)[0])

    graph = read(Model(run, query=nn.Parameter(torch.rand(1, 1, 6)), **parts), torch.zeros(2, 5, 6))
    placed = {p.name: p.placed for p in graph.parameters}
    assert placed["attend.in_proj_weight"]
    assert placed["attend.out_proj.weight"]
    assert placed["query"]
    assert graph.placed_share == 1
    # Three dimensions of each head's keys make one score, whatever the number of examples.
    assert weights(graph, "attend").shape == (6, 2)


# --- distances to centres -----------------------------------------------------------------------


def expanded(h, c):
    return (h**2).sum(1, keepdim=True) - 2 * h @ c.T + (c**2).sum(1)


DISTANCES = [
    lambda h, c: ((h[:, None] - c) ** 2).sum(-1),
    lambda h, c: (c[None] - h[:, None, :]).square().sum(2),
    lambda h, c: sum_of_products(h[:, None] - c),
    lambda h, c: (h.unsqueeze(1) - c).norm(dim=-1) ** 2,
    lambda h, c: torch.cdist(h, c) ** 2,
    lambda h, c: torch.cdist(c, h).T ** 2,
]


def sum_of_products(d):
    return (d * d).sum(-1)


@pytest.mark.parametrize("residual", ["readers", "stream"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_distance_to_centres_is_a_layer(distance, residual):
    def model(measure):
        torch.manual_seed(2)
        parts = {"a": nn.Linear(6, 5), "c": nn.Parameter(torch.randn(4, 5)), "o": nn.Linear(4, 2)}
        return Model(lambda m, x: m.o(torch.exp(-measure(m.a(x).relu(), m.c))), **parts)

    x = torch.randn(3, 6)
    ours, theirs = model(distance), model(expanded)
    assert_allclose(ours(x).detach(), theirs(x).detach(), atol=1e-4)
    graphs = [read(m, x, residual=residual) for m in (ours, theirs)]
    for graph in graphs:
        assert sizes(graph) == [6, 5, 4, 2]
        assert_allclose(weights(graph, "c"), ours.c.abs().detach().T, rtol=1e-6)
        assert_allclose(weights(graph, "a"), 2 * ours.a.weight.abs().detach().T, rtol=1e-6)
        assert {p.name: p.placed for p in graph.parameters}["c"]
    assert (graphs[0].adjacency != graphs[1].adjacency).nnz == 0


@pytest.mark.parametrize("mean", [False, True])
def test_a_mean_of_products_is_a_layer_with_a_number(mean):
    def run(m, x):
        products = m.a(x).relu()[:, None] * m.w
        return m.o(products.mean(-1) if mean else products.sum(-1))

    parts = {"a": nn.Linear(6, 5), "w": nn.Parameter(torch.randn(4, 5)), "o": nn.Linear(4, 2)}
    model = Model(run, **parts)
    expected = (
        model.w.abs().detach().T * model.o.weight.abs().detach().T.sum(1) / (5 if mean else 1)
    )
    graph = read(model, torch.zeros(2, 6))
    found = weights(graph, "w") * weights(graph, "o").sum(1)
    assert_allclose(found, expected, rtol=1e-6)


def test_queries_added_at_new_positions_are_no_centres():
    # A layer norm by hand over values to which a table of queries was added.
    def run(m, x):
        h = m.a(x)[:, None] + m.c
        h = (h - h.mean(-1, keepdim=True)) / ((h**2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return m.o(h)

    model = Model(
        run, a=nn.Linear(6, 5), c=nn.Parameter(torch.randn(4, 5)), o=nn.Linear(5, 2)
    )  # fmt: skip
    graph = read(model, torch.zeros(2, 6))
    assert sizes(graph) == [6, 5, 2]


# --- choices and positions ----------------------------------------------------------------------


def nearest(m, h):
    return torch.cdist(h, m.book.weight).argmin(1)


def as_scattered_ones(m, h):
    picked = nearest(m, h).unsqueeze(1)
    return torch.zeros(len(h), 7).scatter_(1, picked, 1) @ m.book.weight


@pytest.mark.parametrize(
    "rows",
    [
        lambda m, h: m.book(nearest(m, h)),
        lambda m, h: functional.one_hot(nearest(m, h), 7).float() @ m.book.weight,
        lambda m, h: m.book.weight[nearest(m, h)],
        lambda m, h: m.book.weight.index_select(0, nearest(m, h)),
        lambda m, h: m.book.weight.detach().clone()[nearest(m, h)],  # as a buffer
        lambda m, h: functional.embedding(nearest(m, h), m.book.weight.detach().clone()),
        as_scattered_ones,
    ],
)
def test_a_codebook_is_a_table_of_rows(rows):
    parts = {"a": nn.Linear(6, 4), "book": nn.Embedding(7, 4), "o": nn.Linear(4, 2)}
    model = Model(lambda m, x: m.o(rows(m, m.a(x))), **parts)
    with torch.no_grad():
        model(torch.randn(3, 6))
    graph = read(model, torch.zeros(3, 6))
    assert sizes(graph) == [6, 4, 7, 7, 4, 2]
    assert [item.name for item in graph.left_out] == ["choices of a"]


def ones_at_the_largest(m, h):
    mask = torch.zeros_like(h)
    return h * mask.scatter_(1, h.topk(2).indices, 1)


def largest_in_a_cell(m, h):
    scale = torch.zeros(3)
    scale[1] = h.max()
    return h * scale[1]


@pytest.mark.parametrize("change", [ones_at_the_largest, largest_in_a_cell])
def test_numbers_of_the_data_written_into_zeros_are_no_zeros(change):
    model = Model(
        lambda m, x: m.b(change(m, m.a(x))), a=nn.Linear(6, 5), b=nn.Linear(5, 2)
    )  # fmt: skip
    assert sizes(read(model, torch.zeros(2, 6))) == [6, 5, 2]


def test_neurons_that_move_an_image_are_vertices():
    def flow(m, h):
        return m.f(h).permute(0, 2, 3, 1)

    def affine(m, h):
        return functional.affine_grid(m.g(h.mean((2, 3))).view(2, 2, 3), [*h.shape], False)

    for grid, n in ((flow, 2), (affine, 6)):
        parts = {"a": nn.Conv2d(3, 4, 1), "f": nn.Conv2d(4, 2, 1), "g": nn.Linear(4, 6)}

        def run(m, x, grid=grid):
            h = m.a(x).relu()
            return m.o(functional.grid_sample(h, grid(m, h), align_corners=False))

        graph = read(Model(run, **parts, o=nn.Conv2d(4, 2, 1)), torch.zeros(2, 3, 5, 5))
        ends = [layer.size for layer in graph.layers if layer.name == "positions"]
        assert ends == [n]
        unused = {"f.weight", "g.weight"} - {"f.weight" if grid is flow else "g.weight"}
        assert {item.name for item in graph.left_out} == unused


def test_entries_that_a_mask_of_the_data_chooses_are_refused():
    def run(m, x):
        h = m.a(x)
        h[h[:, 0] > 0] = 0
        return m.b(h[h[:, 1] > 0])

    model = Model(run, a=nn.Linear(6, 5), b=nn.Linear(5, 2))
    with pytest.raises(ModelError, match="a result of a size that depends on the data"):
        read(model, torch.zeros(2, 6))


# --- factors ------------------------------------------------------------------------------------


def test_a_decay_for_each_channel_over_several_steps():
    # A linear recurrence in a loop: factors differ by channel and by step.
    def run(m, x):
        u, h, ys = m.a(x), 0, []
        for t in range(4):
            h = torch.sigmoid(m.decay) * h + u[:, t]
            ys.append(h)
        return m.o(torch.stack(ys, 1))

    parts = {"a": nn.Linear(6, 5), "decay": nn.Parameter(torch.randn(5)), "o": nn.Linear(5, 2)}
    model = Model(run, **parts)
    graph = read(model, torch.zeros(2, 4, 6))
    assert sizes(graph) == [6, 5, 2]
    # A neuron's newest value enters with the factor 1, the largest one.
    assert_allclose(weights(graph, "a"), model.a.weight.abs().detach().T)


def test_choices_are_named_by_their_source():
    model = Model(
        lambda m, x: (m.b(m.a(x)), m.b(m.a(x)).argmax(-1)), a=nn.Linear(6, 5), b=nn.Linear(5, 3)
    )  # fmt: skip
    graph = ncut.graph(model, example_inputs=torch.zeros(2, 6))
    assert any(item.name == "choices of b" for item in graph.left_out)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_an_image_of_single_neurons_is_enlarged(tmp_path, kind):
    # A generator: each neuron of a linear layer is a channel at one position.
    def run(m, x):
        image = m.a(x).relu().view(2, 3, 2, 2)
        return m.o(functional.interpolate(image, scale_factor=2).flatten(1))

    model = Model(run, a=nn.Linear(6, 12), o=nn.Linear(48, 2)).eval()
    x, file = torch.zeros(2, 6), tmp_path / "model.onnx"
    if kind == "onnx":
        pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
        torch.onnx.export(model, (x,), file, dynamo=False, opset_version=17)
    graph = read(model, x) if kind == "torch" else read_graph(file, scope="all")
    assert sizes(graph) == [6, 12, 2]
    # A neuron is read at the four pixels that copy it.
    whole = model.o.weight.detach().abs().view(2, 3, 2, 2, 2, 2).sum((3, 5)).reshape(2, 12)
    assert_allclose(weights(graph, "o"), whole.T, rtol=1e-5)


# --- the same from ONNX -------------------------------------------------------------------------


def fused_scores(m, x):
    q, k, v = m.a(x).split([4, 4, 6], -1)
    return m.b(scores_by_products(q, k).softmax(-1) @ v)


def attentive(m, x):
    h = m.c(x).relu()
    return m.b((h * m.d(h).softmax(1)).sum(1))


def several_pools(m, x):
    h = m.c(x).relu()
    return m.b((m.d(h).softmax(1).transpose(1, 2) @ h)[:, 0])


def input_pooled(m, x):
    return m.b(m.c(pooled_by_product(x, m.e(x).softmax(1))))


def centres(m, x):
    return m.f(torch.exp(-((m.c(x)[:, :, None] - m.p) ** 2).sum(-1)))


def distances(m, x):
    return m.f(torch.cdist(m.c(x)[:, 0], m.p))


def codes(m, x):
    picked = ((m.c(x)[:, :, None] - m.p) ** 2).sum(-1).argmin(-1)
    return m.b(functional.embedding(picked, m.p))


def codes_by_ones(m, x):
    picked = (m.c(x)[:, 0] @ m.p.T).argmin(-1, keepdim=True)
    return m.b(torch.zeros(2, 5).scatter(1, picked, 1.0) @ m.p)


def recurrence(m, x):
    u, h, ys = m.c(x), 0, []
    for t in range(3):
        h = torch.sigmoid(m.decay) * h + u[:, t]
        ys.append(h)
    return m.b(torch.stack(ys, 1))


def messages(m, x):
    h, edges = m.c(x[0]), (x[1, :, 0] > 9).long()
    total = torch.zeros(3, 6).scatter_add(0, edges[:, None].expand(3, 6), h)
    return m.b(total + h)


def half_read(m, x):
    return m.b(m.a(x)[..., :6])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "run",
    [
        fused_scores, attentive, several_pools, input_pooled, centres, distances, codes,
        codes_by_ones, recurrence, messages, half_read,
    ],
)  # fmt: skip
def test_exported_files_have_the_same_graph(tmp_path, run):
    pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
    torch.manual_seed(3)
    parts = {
        "a": nn.Linear(6, 14), "b": nn.Linear(6, 3), "c": nn.Linear(6, 6), "d": nn.Linear(6, 6),
        "e": nn.Linear(6, 1), "f": nn.Linear(5, 2), "p": nn.Parameter(torch.randn(5, 6)),
        "decay": nn.Parameter(torch.randn(6)),
    }  # fmt: skip
    model, file = Model(run, **parts).eval(), tmp_path / "model.onnx"
    x = torch.randn(2, 3, 6)
    torch.onnx.export(model, (x,), file, dynamo=False, opset_version=17)
    for residual in ("readers", "stream"):
        ours = read(model, x, residual=residual)
        theirs = read_graph(file, scope="all", residual=residual)
        assert sizes(ours) == sizes(theirs)
        assert (ours.n_edges, ours.sums) == (theirs.n_edges, theirs.sums)
        degrees = [np.sort(np.ravel(g.adjacency.sum(axis=0))) for g in (ours, theirs)]
        assert_allclose(*degrees, rtol=1e-4)
        # A file has used parameters alone, and their factors are constants.
        apart = ("the forward pass does not use it", "a neuron enters it twice")
        listed = [
            sorted(i.reason for i in g.left_out if not i.reason.startswith(apart))
            for g in (ours, theirs)
        ]
        assert listed[0] == listed[1]
