"""`ncut.graph(model, check=True)`: single neurons of a copy are changed, and the graph compared."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ncut
from ncut.errors import InputError

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn.utils.prune import l1_unstructured  # noqa: E402
from torch_nets import Model  # noqa: E402

from ncut.extract.readers.traced.rules import OPERATIONS  # noqa: E402


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.c(h + torch.tanh(self.b(self.norm(h))))


def test_a_graph_that_is_right_agrees():
    model = Residual()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    graph = ncut.graph(model, check=True)
    assert graph.check.agrees
    assert graph.check.n_vertices == 40
    assert "neighbours in the graph" in str(graph.check)
    assert all((model.state_dict()[key] == value).all() for key, value in before.items())
    assert ncut.graph(model).check is None


def test_a_wrong_graph_is_warned_of(monkeypatch):
    # A rule that forgets a part of each sum.
    monkeypatch.setitem(OPERATIONS, "add", lambda call: call.signals()[0])
    with pytest.warns(UserWarning, match="the graph differs from the model; changed, no edge"):
        graph = ncut.graph(Residual(), check=True, residual="readers")
    assert graph.check.missing
    assert not graph.check.surplus


def test_only_the_generator_of_the_cpu_is_seeded_and_it_is_restored(monkeypatch):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2))
    seeded = []
    monkeypatch.setattr(torch, "manual_seed", seeded.append)
    before = torch.get_rng_state()
    assert ncut.graph(model, check=True).check.agrees
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded == []


def test_only_what_can_be_run_is_checked():
    with pytest.raises(InputError, match="check: only a torch module or an ONNX file can be run"):
        ncut.graph([[[1.0, 2.0]], [[1.0], [2.0]]], check=True)
    with pytest.raises(InputError, match="check: only a torch module or an ONNX file can be run"):
        ncut.graph("hf:someone/something", check=True)


def hidden(change, **parts):
    return Model(
        lambda m, x: m.o(change(m, torch.relu(m.a(x)))),
        a=nn.Linear(6, 5),
        o=nn.Linear(5, 2),
        **parts,
    )


MASK = torch.tensor([1.0, 0, 1, 1, 0])


@pytest.mark.parametrize(
    "change",
    [
        lambda m, h: h * torch.softmax(h, -1),  # shares that are gates
        lambda m, h: torch.softmax(h, -1),
        lambda m, h: torch.maximum(h, m.b(h)),  # of which one hides the other
        lambda m, h: h * (h > 0.5),
        lambda m, h: h.sign(),
        lambda m, h: h * MASK.to(h.dtype),
        lambda m, h: torch.bernoulli(torch.sigmoid(m.b(h))) * h,
        lambda m, h: torch.distributions.Normal(h, m.b(h).exp()).rsample(),
        lambda m, h: torch.stack([m.b(h), m.c(h)], 1)[:, 1],  # which read the same neurons
        lambda m, h: h @ torch.eye(5),  # runs in single precision alone
        lambda m, h: torch.nn.functional.dropout(h, 0.5, training=True),
        lambda m, h: m.b(torch.nn.functional.dropout(m.c(h), 0.8, training=True)),
        lambda m, h: h * torch.bernoulli(torch.full_like(h, 0.5)),
        lambda m, h: h * torch.empty_like(h).bernoulli_(0.3) / 0.3,
        lambda m, h: h * (torch.rand_like(h) > 0.6),
        lambda m, h: h * torch.rand(5, dtype=h.dtype).lt(0.5) + 0.1 * torch.randn_like(h),
        lambda m, h: h * torch.distributions.Bernoulli(0.4).sample(h.shape).to(h),
        lambda m, h: h + torch.randint(0, 3, h.shape).to(h) * h,
        lambda m, h: h * torch.zeros_like(h).scatter(-1, h.topk(2).indices, 1.0),
        lambda m, h: h * (h > h.kthvalue(4, -1, keepdim=True).values),
    ],
)
def test_no_false_alarms(change, recwarn):
    model = hidden(change, b=nn.Linear(5, 5), c=nn.Linear(5, 5))
    assert ncut.graph(model, check=True, example_inputs=torch.zeros(3, 6)).check.agrees
    assert not [w for w in recwarn if "differs from the model" in str(w.message)]


def attending_recurrently(m, x):
    y, _ = m.g(x)
    last = y[:, -1]
    shares = m.v(torch.tanh(m.q(last)[:, None] + m.k(y))).squeeze(-1).softmax(1)
    return m.o(torch.cat([(shares[:, None] @ y)[:, 0], last], 1))


def without_softmax(m, x):
    return m.o(m.q(x) @ (m.k(x).transpose(1, 2) @ m.v(x)))


def coupling(m, x):
    kept = torch.tensor([1.0, 0, 1, 0, 1, 0], dtype=x.dtype)
    return m.b(kept * x + (1 - kept) * m.a(kept * x))


@pytest.mark.parametrize(
    ("run", "parts", "shape"),
    [
        (
            attending_recurrently,
            {
                "g": lambda: nn.GRU(6, 5, batch_first=True), "q": lambda: nn.Linear(5, 4),
                "k": lambda: nn.Linear(5, 4), "v": lambda: nn.Linear(4, 1),
                "o": lambda: nn.Linear(10, 2),
            },
            (3, 4, 6),
        ),
        (
            without_softmax,
            {name: lambda: nn.Linear(6, 4) for name in "qkv"} | {"o": lambda: nn.Linear(4, 2)},
            (3, 4, 6),
        ),
        (coupling, {"a": lambda: nn.Linear(6, 6), "b": lambda: nn.Linear(6, 2)}, (3, 6)),
    ],
)  # fmt: skip
def test_no_false_alarms_of_whole_models(run, parts, shape):
    torch.manual_seed(0)
    model = Model(run, **{name: make() for name, make in parts.items()})
    result = ncut.graph(model, check=True, example_inputs=torch.zeros(shape)).check
    assert result.agrees, (result.missing, result.surplus)


def test_places_of_an_unpooling_are_chosen_by_the_data():
    class Unpooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            h, places = nn.functional.max_pool2d(self.a(x), 2, return_indices=True)
            return self.c(nn.functional.max_unpool2d(self.b(h), places, 2))

    model = Unpooled()
    assert ncut.graph(model, check=True, example_inputs=torch.zeros(2, 3, 6, 6)).check.agrees


def test_neurons_that_a_parameter_reads_beside_a_layer():
    model = hidden(
        lambda m, h: m.b(h) + h @ m.w, b=nn.Linear(5, 5), w=nn.Parameter(torch.rand(5, 5))
    )
    assert ncut.graph(model, check=True).check.agrees


class Products(nn.Module):
    """An autoencoder whose parameters are multiplied in its forward pass."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Parameter(torch.randn(6, 9))
        self.decoder = nn.Parameter(torch.randn(6, 9))

    def forward(self, x):
        return torch.relu(x @ self.encoder) @ self.decoder.T


def test_neurons_that_parameters_read(monkeypatch):
    result = ncut.graph(Products(), check=True, example_inputs=torch.zeros(3, 6)).check
    assert result.agrees
    assert (result.n_vertices, result.n_watched, result.n_layers) == (40, 2, 3)
    monkeypatch.setitem(
        OPERATIONS,
        "relu",
        lambda call: call.program.scaled(call.signals()[0], np.arange(9) // 5),
    )
    with pytest.warns(UserWarning, match="changed, no edge"):
        graph = ncut.graph(Products(), check=True, example_inputs=torch.zeros(3, 6))
    assert graph.check.missing


def test_a_graph_without_watched_neurons_does_not_agree():
    model = Model(
        lambda m, x: torch.tanh((x[:, None] * m.w).sum(-1)) @ m.v.exp(),
        w=nn.Parameter(torch.rand(5, 6)),
        v=nn.Parameter(torch.rand(5, 2)),
    )
    with pytest.warns(UserWarning, match="nothing was checked"):
        graph = ncut.graph(model, check=True, example_inputs=torch.zeros(3, 6))
    assert not graph.check.agrees


def test_weights_that_a_hook_has_computed_are_copied():
    model = hidden(lambda m, h: m.b(h), b=l1_unstructured(nn.Linear(5, 5), "weight", 0.4))
    model(torch.zeros(3, 6))
    assert ncut.graph(model, check=True).check.agrees


# --- ONNX files ---------------------------------------------------------------------------------


def exported(tmp_path, model, example):
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), example, str(path), dynamo=False)
    return path


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.o = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.q, self.k, self.v, self.p = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        h = self.a(x)
        n = self.norm(h)
        shares = torch.softmax(self.q(n) @ self.k(n).transpose(1, 2) / 8**0.5, -1)
        h = h + self.p(shares @ self.v(n))
        return self.o(torch.nn.functional.gelu(h))


@pytest.mark.parametrize(
    ("make", "example"),
    [
        (Residual, torch.zeros(3, 6)),
        (Attending, torch.zeros(2, 5, 6)),
        (
            lambda: nn.Sequential(
                nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2),
                nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
            ),
            torch.zeros(2, 3, 9, 9),
        ),
    ],
)  # fmt: skip
def test_onnx_files_are_run(tmp_path, make, example):
    pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
    pytest.importorskip("onnxruntime", reason="pip install 'ncut[check]'")
    torch.manual_seed(2)
    graph = ncut.graph(exported(tmp_path, make(), example), check=True)
    assert graph.check.agrees
    assert graph.check.n_watched >= 3


def test_a_wrong_graph_of_an_onnx_file_is_warned_of(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
    pytest.importorskip("onnxruntime", reason="pip install 'ncut[check]'")
    from ncut.extract.readers.onnx_graph.operators import RULES, keep

    monkeypatch.setitem(RULES, "Add", keep)
    path = exported(tmp_path, Residual(), torch.zeros(3, 6))
    with pytest.warns(UserWarning, match="the graph differs from the model"):
        assert ncut.graph(path, check=True, residual="readers").check.missing


class Squares(nn.Module):
    """Products of products, which norms alone keep from growing."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(12))
        self.first = nn.ModuleList(nn.Linear(6, 6) for _ in range(12))
        self.second = nn.ModuleList(nn.Linear(6, 6) for _ in range(12))

    def forward(self, x):
        for norm, first, second in zip(self.norms, self.first, self.second, strict=True):
            x = 100 * norm(x)
            x = first(x) * second(x)
        return x


def test_norms_that_are_held_constant_keep_numbers_finite():
    graph = ncut.graph(Squares(), example_inputs=torch.zeros(1, 6), check=True)
    assert graph.check.agrees
