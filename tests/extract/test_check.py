"""`ncut.graph(model, check=True)`: single neurons of a copy are changed, and the graph compared."""

from __future__ import annotations

import pytest

import ncut
from ncut.errors import InputError
from ncut.extract.traced.operations import pointwise

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402


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
    monkeypatch.setitem(
        __import__("ncut.extract.traced.aten", fromlist=["OPERATIONS"]).OPERATIONS,
        "add", lambda call: pointwise._keep(call),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="the graph differs from the model; changed, no edge"):
        graph = ncut.graph(Residual(), check=True, residual="readers")
    assert graph.check.missing
    assert not graph.check.surplus


def test_only_modules_are_checked():
    with pytest.raises(InputError, match="check: only a torch module can be run, got list"):
        ncut.graph([[[1.0, 2.0]], [[1.0], [2.0]]], check=True)
