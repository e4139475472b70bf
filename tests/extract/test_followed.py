"""Forward passes with states, noise, hooks and other arguments."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ncut.errors import ModelError
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch_nets import Model  # noqa: E402


def weights(layer):
    return layer.weight.detach().numpy().T


def block(graph, name, number=0):
    found = [b.weights for b in graph.blocks if b.name == name][number]
    return found if isinstance(found, np.ndarray) else found.toarray()


def placed(graph):
    return {p.name: p.placed for p in graph.parameters}


def sizes(graph):
    return [layer.size for layer in graph.layers]


# --- first states of recurrent layers -----------------------------------------------------------


def gates(weight, n):
    return weight.detach().numpy().reshape(-1, n, weight.shape[1]).transpose(2, 1, 0)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_an_initial_state_enters_through_the_recurrent_weights(kind):
    def run(m, x, y):
        h = torch.tanh(m.start(x)).unsqueeze(0)
        return m.out(m.cell(y, (h, torch.zeros_like(h)) if kind is nn.LSTM else h)[0])

    model = Model(
        run, start=nn.Linear(4, 5), cell=kind(3, 5, batch_first=True), out=nn.Linear(5, 2)
    )
    example = (torch.zeros(2, 4), torch.zeros(2, 6, 3))
    graph = read_graph(model, example_inputs=example, residual="readers")
    read = np.concatenate([gates(model.cell.weight_ih_l0, 5), gates(model.cell.weight_hh_l0, 5)])
    assert_allclose(block(graph, "cell"), np.abs(read).sum(axis=2), rtol=1e-6)
    # A GRU's gate lets the state through to whoever reads the unit of the same number.
    into = [b for b in graph.blocks if b.name == "start"]
    assert len(into) == (2 if kind is nn.GRU else 1)
    assert all(placed(graph)[f"{name}.weight"] for name in ("start", "out"))


def test_a_first_cell_of_an_lstm_reaches_the_readers_of_its_units():
    def run(m, x, y):
        c = m.start(x).unsqueeze(0)
        return m.out(m.cell(y, (torch.zeros_like(c), c))[0])

    model = Model(
        run, start=nn.Linear(4, 5), cell=nn.LSTM(3, 5, batch_first=True), out=nn.Linear(5, 2)
    )
    example = (torch.zeros(2, 4), torch.zeros(2, 6, 3))
    graph = read_graph(model, example_inputs=example, residual="readers")
    assert_allclose(block(graph, "start"), np.abs(weights(model.start)), rtol=1e-6)
    assert graph.n_edges == 20 + 15 + 10 + 10


def test_each_layer_and_direction_starts_with_its_own_state():
    def run(m, x, y):
        h = m.start(x).reshape(-1, 4, 5).transpose(0, 1)
        return m.out(m.cell(y, h)[0])

    cell = nn.RNN(3, 5, num_layers=2, bidirectional=True, batch_first=True)
    model = Model(run, start=nn.Linear(2, 20), cell=cell, out=nn.Linear(10, 2))
    example = (torch.zeros(2, 2), torch.zeros(2, 6, 3))
    graph = read_graph(model, example_inputs=example, residual="stream")
    position = next(at for at, layer in enumerate(graph.layers) if layer.name == "start")
    for at, suffix in enumerate(("l0", "l0_reverse", "l1", "l1_reverse")):
        name = "cell" if suffix == "l0" else f"cell.{suffix}"
        (found,) = (b for b in graph.blocks if b.name == name and b.source == position)
        rows = np.asarray(found.weights).any(axis=1)
        assert np.flatnonzero(rows).tolist() == list(range(5 * at, 5 * at + 5))


def test_cells_read_the_states_that_they_are_given():
    def run(m, image, words):
        h = torch.tanh(m.image(image))
        c = torch.zeros_like(h)
        for step in range(words.shape[1]):
            h, c = m.cell(words[:, step], (h, c))
        return m.out(h)

    model = Model(run, image=nn.Linear(8, 5), cell=nn.LSTMCell(3, 5), out=nn.Linear(5, 7))
    example = (torch.zeros(2, 8), torch.zeros(2, 2, 3))
    graph = read_graph(model, example_inputs=example, residual="readers")
    assert_allclose(block(graph, "image")[:, 3:], np.abs(weights(model.image)), rtol=1e-6)
    # The second step reads the units of the first one, whose cells reach the last layer as well.
    assert len([b for b in graph.blocks if b.name == "cell"]) == 2


def test_packed_sequences_are_their_padded_ones():
    def packed(m, x):
        y, _ = m.cell(pack_padded_sequence(x, torch.tensor([7, 3]), batch_first=True))
        return m.out(pad_packed_sequence(y, batch_first=True)[0])

    parts = {"cell": nn.GRU(4, 5, batch_first=True), "out": nn.Linear(5, 2)}
    graphs = [
        read_graph(Model(run, **parts), example_inputs=torch.zeros(2, 7, 4))
        for run in (packed, lambda m, x: m.out(m.cell(x)[0]))
    ]
    assert (graphs[0].adjacency != graphs[1].adjacency).nnz == 0


def test_recurrent_weights_from_a_hook_are_the_next_runs():
    def made():
        cell = nn.LSTM(4, 5, batch_first=True)
        with pytest.warns(FutureWarning, match="weight_norm"):
            cell = nn.utils.weight_norm(cell, "weight_hh_l0")
        return Model(lambda m, x: m.out(m.cell(x)[0]), cell=cell, out=nn.Linear(5, 2))

    model, trained = made(), made()
    with torch.no_grad():
        trained.cell.weight_hh_l0_g.mul_(3)
    model.load_state_dict(trained.state_dict())
    v, g = trained.cell.weight_hh_l0_v, trained.cell.weight_hh_l0_g
    own = (v * g / v.norm(dim=1, keepdim=True)).abs().reshape(4, 5, 5).sum(0).detach().numpy()
    graph = read_graph(model, example_inputs=torch.zeros(1, 3, 4))
    (within,) = (b.weights.toarray() for b in graph.blocks if b.source == b.target)
    assert_allclose(within, np.triu(own + own.T, 1), rtol=1e-5)


# --- noise --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        torch.randn_like, torch.rand_like, lambda s: torch.randn(s.shape),
        lambda s: torch.randn(s.shape[1]), lambda s: torch.empty(s.shape).normal_(),
        lambda s: s.new_empty(s.shape).uniform_(), lambda s: torch.normal(torch.zeros(3), 1.0),
        lambda s: (torch.rand_like(s) > 0.5).float(), lambda s: torch.poisson(torch.ones(3)),
        lambda s: torch.randint(1, 9, (3,)), lambda s: torch.randperm(3) + 1.0,
        lambda s: torch.empty(3).geometric_(0.3), lambda s: torch.randint_like(s, 1, 9),
        lambda s: torch.distributions.Gamma(torch.ones(3), 1.0).sample(),
        lambda s: torch.binomial(torch.full((3,), 9.0), torch.full((3,), 0.5)),
    ],
)  # fmt: skip
def test_drawn_numbers_are_no_constants(draw):
    def run(m, x):
        h = torch.relu(m.enc(x))
        mean, spread = m.mean(h), torch.exp(0.5 * m.log_variance(h))
        return m.dec(mean + spread * draw(spread))

    model = Model(
        run, enc=nn.Linear(6, 5), mean=nn.Linear(5, 3), log_variance=nn.Linear(5, 3),
        dec=nn.Linear(3, 6),
    )  # fmt: skip
    state = torch.get_rng_state()
    graph = read_graph(model, residual="readers")
    assert (torch.get_rng_state() == state).all()
    assert graph.n_edges == 30 + 30 + 15 + 15 + 18
    half = 0.5 * np.abs(weights(model.log_variance))
    assert_allclose(block(graph, "log_variance"), half, rtol=1e-6)


# --- hooks --------------------------------------------------------------------------------------


def test_a_hooks_result_is_read_by_the_model():
    def run(m, x):
        y = m.b(torch.relu(m.a(x)))
        return m.c(torch.cat([y, m.kept], 1))

    model = Model(run, a=nn.Linear(3, 4), b=nn.Linear(4, 4), c=nn.Linear(8, 5))
    model.a.register_forward_hook(lambda module, args, out: setattr(model, "kept", out))
    model(torch.zeros(2, 3))
    before = model.kept
    graph = read_graph(model, example_inputs=torch.zeros(2, 3))
    assert model.kept is before
    into = [b for b in graph.blocks if graph.layers[b.target].name == "input of c"]
    assert sum(np.count_nonzero(np.asarray(b.weights)) for b in into) == 16 + 12


def test_a_hook_may_change_the_output():
    model = Model(lambda m, x: m.b(m.a(x)), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    model.a.register_forward_hook(lambda module, args, out: 2 * out)
    graph = read_graph(model)
    assert_allclose(block(graph, "a"), 2 * np.abs(weights(model.a)), rtol=1e-6)


def test_hooks_that_read_numbers_are_listed_and_keep_their_state():
    seen, numbers = [], []
    model = Model(lambda m, x: m.b(m.a(x)), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    model.a.register_forward_hook(lambda module, args, out: seen.append(out))
    model.b.register_forward_hook(lambda module, args, out: numbers.append(float(out.mean())))
    graph = read_graph(model)
    assert (seen, numbers) == ([], [])
    assert [x.name for x in graph.left_out] == ["hook of b"]
    assert "fails on tensors without data" in graph.left_out[0].reason


# --- arguments ----------------------------------------------------------------------------------


def test_tensors_inside_mappings_and_lists_are_inputs():
    parts = {"a": nn.Linear(6, 5), "b": nn.Linear(3, 5), "o": nn.Linear(5, 2)}
    x, v = torch.zeros(2, 6), torch.zeros(2, 3)
    of_mapping = Model(lambda m, x, more: m.o(torch.relu(m.a(x) + m.b(more["v"]))), **parts)
    of_list = Model(lambda m, xs: m.o(torch.relu(m.a(xs[0]) + m.b(xs[1]))), **parts)
    graphs = [
        read_graph(of_mapping, example_inputs=(x, {"v": v}), residual="readers"),
        read_graph(of_list, example_inputs=([x, v],), residual="readers"),
    ]
    assert [graph.n_edges for graph in graphs] == [30 + 15 + 10] * 2
    assert graphs[0].layers[1].name == "more.v" or graphs[0].layers[1].name.endswith(".v")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_whole_numbers_that_weights_read_are_values(dtype):
    model = Model(
        lambda m, x: m.b(torch.relu(m.a(x.float() / 255))),
        a=nn.Conv2d(4, 6, 3),
        b=nn.Conv2d(6, 5, 3),
    )
    example = torch.zeros(1, 4, 9, 9, dtype=dtype)
    graph = read_graph(model, example_inputs=example, scope="all")
    assert sizes(graph) == [4, 6, 5]
    assert graph.n_edges == 24 + 30


def test_classes_of_whole_numbers_are_rows_of_a_table():
    def run(m, ids):
        return m.b(torch.relu(m.a(functional.one_hot(ids, 7).float())))

    model = Model(run, a=nn.Linear(7, 5), b=nn.Linear(5, 2))
    graph = read_graph(model, example_inputs=torch.zeros(3, 4, dtype=torch.int64))
    assert sizes(graph) == [7, 5, 2]
    assert_allclose(block(graph, "a"), np.abs(weights(model.a)), rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_quantized_layers_are_read_without_an_example():
    parts = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    model = torch.ao.quantization.quantize_dynamic(parts, {nn.Linear}, dtype=torch.qint8)
    graph = read_graph(model)
    assert sizes(graph) == [6, 5, 4]
    assert graph.placed_share == 1.0


def test_a_part_in_torchscript_is_refused_and_the_model_unchanged():
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        part = torch.jit.script(nn.Linear(5, 4))
    model = Model(lambda m, x: m.n(m.f(m.a(x))), a=nn.Linear(6, 5), f=part, n=nn.BatchNorm1d(4))
    variance = model.train().n.running_var
    with pytest.raises(ModelError, match=r"'f' is TorchScript"):
        read_graph(model, example_inputs=torch.zeros(3, 6))
    assert all(m.training for m in model.modules())
    assert model.n.running_var is variance


# --- factors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (5,)])
def test_a_branch_with_a_trained_factor_of_zero_weighs_nothing(shape):
    def run(m, x):
        h = torch.relu(m.a(x))
        return m.o(h + m.alpha * torch.relu(m.f(h)))

    model = Model(run, a=nn.Linear(6, 5), f=nn.Linear(5, 5), o=nn.Linear(5, 2))
    model.alpha = nn.Parameter(torch.zeros(shape))
    graph = read_graph(model)
    assert sum(b.weights.sum() for b in graph.blocks if b.name == "f") == 0


@pytest.mark.parametrize("residual", ["readers", "stream"])
def test_a_factor_before_a_sum_scales_its_own_writer_only(residual):
    def run(m, x):
        h = m.factor * m.a(x)
        return m.c(m.b(h) + h)

    def made(factor):
        torch.manual_seed(0)
        a, b, c = (nn.Linear(n, k, bias=False) for n, k in ((8, 12), (12, 12), (12, 4)))
        model = Model(run, a=a, b=b, c=c)
        model.factor = factor
        return {
            (b.source, b.target, b.name): float(b.weights.sum())
            for b in read_graph(model, residual=residual).blocks
        }

    one, hundred = made(1.0), made(100.0)
    ratios = {key: hundred[key] / total for key, total in one.items()}
    assert ratios == pytest.approx({key: 100.0 if key[2] == "a" else 1.0 for key in ratios})


def test_a_reader_of_what_enters_a_sum_with_a_factor_reads_it_relative_to_that():
    def run(m, x):
        h = m.a(x)
        return m.c(m.b(torch.relu(h)) + 4 * h), m.d(h)

    widths = {"a": 6, "b": 6, "c": 3, "d": 2}
    parts = {name: nn.Linear(6, n, bias=False) for name, n in widths.items()}
    graph = read_graph(Model(run, **parts), residual="stream")
    sums = {b.name: float(b.weights.sum()) for b in graph.blocks}
    own = {name: float(np.abs(weights(part)).sum()) for name, part in parts.items()}
    assert sums["a"] == pytest.approx(4 * own["a"], rel=1e-5)
    assert sums["d"] == pytest.approx(own["d"] / 4, rel=1e-5)
    assert sums["c"] == pytest.approx(own["c"], rel=1e-5)


def test_a_factor_along_a_stream_is_listed():
    def run(m, x):
        h = 0.5 * (m.a(x) + m.b(x))
        return m.c(h + m.d(torch.relu(h)))

    parts = {name: nn.Linear(6, n) for name, n in (("a", 6), ("b", 6), ("c", 3), ("d", 6))}
    graph = read_graph(Model(run, **parts), residual="stream")
    assert [x.name for x in graph.left_out] == ["a factor of a sum"]
    assert read_graph(Model(run, **parts), residual="readers").left_out == ()


def test_boolean_masks_are_factors_of_zero_and_one():
    mask = torch.tensor([True, False, True, True, False])
    model = Model(lambda m, x: m.o(torch.relu(m.a(x)) * mask), a=nn.Linear(6, 5), o=nn.Linear(5, 2))
    assert read_graph(model).n_edges == 30 + 6


def test_kernels_that_move_over_channels_are_left_out():
    def run(m, x):
        x = torch.relu(m.a(x))
        gate = m.e(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return m.b(x * gate.transpose(1, 2).unsqueeze(-1))

    model = Model(
        run, a=nn.Conv2d(3, 8, 3), e=nn.Conv1d(1, 1, 3, padding=1, bias=False), b=nn.Conv2d(8, 4, 3)
    )
    graph = read_graph(model, scope="all", example_inputs=torch.zeros(2, 3, 9, 9))
    assert sizes(graph) == [3, 8, 4]
    assert [x.name for x in graph.left_out] == ["e.weight"]


def test_a_distance_is_a_reader():
    def run(m, x, y):
        return functional.pairwise_distance(m.a(x), m.b(y))

    model = Model(run, a=nn.Linear(6, 4), b=nn.Linear(7, 4))
    example = (torch.zeros(3, 6), torch.zeros(3, 7))
    graph = read_graph(model, example_inputs=example, residual="readers")
    assert sizes(graph) == [6, 7, 4]
    assert graph.n_edges == 24 + 28


@pytest.mark.parametrize(
    "distance",
    [
        torch.cdist, functional.pairwise_distance, lambda p, q: (p - q).abs().sum(-1),
        lambda p, q: ((p - q) ** 2).sum(-1).sqrt(),
    ],
)  # fmt: skip
def test_operands_of_a_distance_are_placed(distance):
    model = Model(lambda m, x, y: distance(m.a(x), m.b(y)), a=nn.Linear(6, 4), b=nn.Linear(7, 4))
    example = (torch.zeros(3, 6), torch.zeros(3, 7))
    graph = read_graph(model, example_inputs=example, residual="readers")
    assert graph.n_edges == 24 + 28
    assert graph.placed_share == 1.0


def test_samples_of_a_distribution():
    def run(m, x):
        found = torch.distributions.Normal(m.mean(x), functional.softplus(m.spread(x)))
        return m.dec(found.rsample())

    model = Model(run, mean=nn.Linear(6, 3), spread=nn.Linear(6, 3), dec=nn.Linear(3, 4))
    graph = read_graph(model, residual="readers", example_inputs=torch.zeros(2, 6))
    assert graph.n_edges == 18 + 18 + 12


def test_a_state_that_is_not_taken_is_left_out_for_the_true_reason():
    def run(m, x):
        return m.out(m.cell(x)[1][-1])

    cell = nn.GRU(4, 5, 2, batch_first=True, bidirectional=True)
    model = Model(run, cell=cell, out=nn.Linear(5, 2))
    graph = read_graph(model, example_inputs=torch.zeros(2, 7, 4))
    reasons = {x.name: x.reason for x in graph.left_out}
    assert reasons == {"cell.l1": "nothing that is in the graph reads what it writes"}


def test_entries_chosen_by_several_indices():
    rows, columns = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2])

    def run(m, x):
        return m.b(m.a(x).reshape(-1, 2, 3)[:, rows, columns])

    model = Model(run, a=nn.Linear(4, 6), b=nn.Linear(3, 2))
    graph = read_graph(model)
    chosen = np.abs(weights(model.a))[:, [1, 3, 5]]
    assert_allclose(block(graph, "a"), chosen, rtol=1e-6)


# --- values that are returned -------------------------------------------------------------------


def test_states_of_all_layers_and_directions_have_no_copies():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True)
            self.out = nn.Linear(10, 2)

        def forward(self, x):
            y, states = self.cell(x)
            return self.out(y), *states

    graphs = [
        read_graph(Tagger(), residual=residual, example_inputs=torch.zeros(2, 7, 6))
        for residual in ("readers", "stream")
    ]
    assert [graph.n_vertices for graph in graphs] == [6 + 20 + 2] * 2
    assert [graph.n_edges for graph in graphs] == [60 + 20 + 100 + 20 + 20] * 2


def test_features_that_are_returned_have_no_copies():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
            self.c = nn.Conv2d(10, 5, 1)

        def forward(self, x):
            a = torch.relu(self.a(x))
            b = torch.relu(self.b(functional.max_pool2d(a, 2)))
            wide = torch.cat([a, functional.interpolate(b, scale_factor=2)], 1)
            return self.c(wide), a, b, wide

    example = torch.zeros(1, 3, 8, 8)
    graph = read_graph(Net(), residual="readers", scope="all", example_inputs=example)
    assert sizes(graph) == [3, 4, 10, 5]


SEEN_BY_HOOKS: list[object] = []


def test_tensors_that_hooks_write_into_are_unchanged():
    own: list[object] = []
    handed: dict[str, object] = {}
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    model[0].register_forward_hook(lambda *arguments: SEEN_BY_HOOKS.append(arguments))
    model[0].register_forward_pre_hook(lambda module, args: own.append(args))
    keep = functools.partial(lambda kept, *arguments: kept.update(last=arguments), handed)
    model[2].register_forward_hook(keep)
    read_graph(model)
    assert not SEEN_BY_HOOKS
    assert not own
    assert not handed
    model(torch.zeros(1, 4))
    assert len(SEEN_BY_HOOKS) == len(own) == len(handed) == 1


# --- neurons that a sum has twice ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "is_listed"),
    [
        (lambda m, h: h - h * m.mask, False),
        (lambda m, h: h + h * m.mask, False),
        (lambda m, h: 2.0 * h - 0.5 * h, False),
        (lambda m, h: h - h * m.gamma, False),
        (lambda m, h: h * m.gamma + torch.roll(h, 1, 0) * (1 - m.gamma), True),
        (lambda m, h: h * m.mask, False),
        (lambda m, h: h + m.inner(h), False),
        (lambda m, h: h + h, False),
        (lambda m, h: h + functional.layer_norm(h, (5,), m.gamma), False),
        (lambda m, h: 0.5 * h * (1 + torch.tanh(0.8 * (h + 0.04 * h**3))), False),  # a GELU
    ],
)
@pytest.mark.parametrize("residual", ["readers", "stream"])
def test_factors_of_a_neuron_at_two_positions_of_a_sum_are_listed(change, is_listed, residual):
    model = Model(
        lambda m, x: m.last(change(m, torch.relu(m.first(x)))),
        first=nn.Linear(6, 5), inner=nn.Linear(5, 5), last=nn.Linear(5, 2),
        gamma=nn.Parameter(torch.rand(5)), mask=torch.tensor([1.0, 0, 1, 1, 0]),
    )  # fmt: skip
    graph = read_graph(model, residual=residual, example_inputs=torch.zeros(3, 6))
    assert ("factors of a sum" in [item.name for item in graph.left_out]) is is_listed
