"""Roles of layers: rescalable or not, and which modules read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from samples import chain_graph, random_chain

from ncut import reference
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from role_nets import FLAT, KEEP, MAPS, Role, perceptron, roles, ties  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils import parametrizations, prune  # noqa: E402


@pytest.fixture(autouse=True)
def _same_weights_in_every_run() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", FLAT)
def test_each_activation_between_linear_layers(name: str) -> None:
    model = perceptron([FLAT[name](7)], [nn.ReLU()])
    assert roles(read_graph(model)) == [
        ("input", False, ("0",)),
        ("0", name in KEEP, ("2",)),
        ("2", True, ("4",)),
        ("4", False, ()),
    ]


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("scope", ["paper", "all"])
def test_each_operation_between_convolutions(name: str, scope: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 2), MAPS[name](4), nn.Conv2d(4, 3, 2), nn.Tanh())
    expected: list[Role] = [("0", name in KEEP, ("2",)), ("2", False, ())]
    if scope == "all":
        expected = [("input", False, ("0",)), *expected]
    assert roles(read_graph(model, scope=scope)) == expected


def test_without_activations_layers_are_rescalable() -> None:
    assert [role[1] for role in roles(read_graph(perceptron([], [], [])))] == [
        False, True, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "pieces",
    [
        [nn.BatchNorm1d(7), nn.ReLU()],
        [nn.ReLU(), nn.BatchNorm1d(7)],
        [nn.BatchNorm1d(7), nn.ReLU(), nn.BatchNorm1d(7), nn.Dropout(), nn.LeakyReLU()],
    ],
)
def test_batch_norms_on_either_side_of_the_activation(pieces: list[Any]) -> None:
    assert read_graph(perceptron(pieces)).layers[1].rescalable is True


def test_batch_norm_without_running_statistics_undoes_factors() -> None:
    norm = nn.BatchNorm1d(7, track_running_stats=False)
    assert read_graph(perceptron([norm, nn.ReLU()])).layers[1].rescalable is False


@pytest.mark.parametrize("pieces", [[nn.ReLU(), nn.Tanh()], [nn.Tanh(), nn.ReLU()]])
def test_one_operation_that_does_not_commute_is_enough(pieces: list[Any]) -> None:
    assert read_graph(perceptron(pieces)).layers[1].rescalable is False


def test_activations_at_the_ends_do_not_matter() -> None:
    model = nn.Sequential(nn.Tanh(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(dim=1))
    assert roles(read_graph(model)) == [
        ("input", False, ("1",)),
        ("1", True, ("3",)),
        ("3", False, ()),
    ]
    assert roles(read_graph(nn.Sequential(*model[1:4], nn.ReLU())))[-1] == ("2", False, ())


class Between(nn.Module):
    """Two linear layers with a function between them."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.second(self.function(self.first(x)))


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "torch.relu": (torch.relu, True),
    "F.relu": (F.relu, True),
    "x.relu()": (lambda x: x.relu(), True),
    "x.relu_()": (lambda x: x.relu_(), True),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.1), True),
    "torch.abs": (torch.abs, True),
    "clamp(min=0)": (lambda x: x.clamp(min=0), True),
    "clamp(0)": (lambda x: torch.clamp(x, 0), True),
    "clamp_min(0)": (lambda x: x.clamp_min(0.0), True),
    "clip(min=0)": (lambda x: torch.clip(x, min=0), True),
    "clamp(0, 6)": (lambda x: x.clamp(0, 6), False),
    "clamp(min=0, max=6)": (lambda x: torch.clamp(x, min=0, max=6), False),
    "clamp(min=-1)": (lambda x: x.clamp(min=-1), False),
    "clamp(max=1)": (lambda x: x.clamp(max=1), False),
    "clamp_max(1)": (lambda x: x.clamp_max(1), False),
    "clamp_min(1)": (lambda x: torch.clamp_min(x, 1), False),
    "threshold(0, 0)": (lambda x: F.threshold(x, 0, 0), True),
    "threshold=0": (lambda x: F.threshold(x, threshold=0, value=0), True),
    "threshold(1, 0)": (lambda x: F.threshold(x, 1, 0), False),
    "threshold(0, 1)": (lambda x: F.threshold(x, 0, 1), False),
    "F.gelu": (F.gelu, False),
    "F.logsigmoid": (F.logsigmoid, False),
    "torch.threshold(0, 0)": (lambda x: torch.threshold(x, 0, 0), True),
    "torch.tanh": (torch.tanh, False),
    "x.sigmoid()": (lambda x: x.sigmoid(), False),
    "relu6": (F.relu6, False),
    "square": (torch.square, False),
    "softmax": (lambda x: F.softmax(x, dim=1), False),
    "dropout": (lambda x: F.dropout(x, 0.5), True),
    "nothing": (lambda x: x, True),
    "relu, then tanh": (lambda x: torch.tanh(F.relu(x)), False),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    function, rescalable = FUNCTIONS[name]
    assert roles(read_graph(Between(function))) == [
        ("input", False, ("first",)),
        ("first", rescalable, ("second",)),
        ("second", False, ()),
    ]


def convolutional() -> Any:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 2, groups=2), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(24, 5), nn.Tanh(), nn.Linear(5, 2),
    )  # fmt: skip


def test_in_scope_paper_the_last_channels_are_hidden_and_read_from_outside() -> None:
    assert roles(read_graph(convolutional())) == [("0", True, ("2",)), ("2", True, ("5",))]
    model = convolutional()
    model[3] = nn.Sequential(nn.MaxPool2d(2), nn.Sigmoid())
    assert roles(read_graph(model)) == [("0", True, ("2",)), ("2", False, ("5",))]
    assert roles(read_graph(model[:3])) == [("0", True, ("2",)), ("2", False, ())]


def test_in_scope_all_the_rest_is_there_too() -> None:
    assert roles(read_graph(convolutional(), scope="all")) == [
        ("input", False, ("0",)),
        ("0", True, ("2",)),
        ("2", True, ("5",)),
        ("5", False, ("7",)),
        ("7", False, ()),
    ]


@pytest.mark.parametrize("change", [prune.identity, parametrizations.weight_norm])
def test_readers_are_modules_with_any_parametrization(change: Any) -> None:
    model = perceptron([nn.ReLU()])
    change(model[2], "weight")
    assert roles(read_graph(model))[1] == ("0", True, ("2",))


class OwnLinear(nn.Linear):
    """A layer that computes as its base class does."""


class OwnReLU(nn.ReLU):
    """An activation that does."""


class Doubled(nn.Linear):
    def forward(self, x: Any) -> Any:
        return 2 * super().forward(x)


def test_subclasses_with_an_inherited_forward_pass_are_read_as_their_base() -> None:
    model = nn.Sequential(OwnLinear(5, 4), OwnReLU(), OwnLinear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    graph = read_graph(model)
    assert roles(graph) == [
        ("input", False, ("0",)),
        ("0", True, ("2",)),
        ("2", False, ("4",)),
        ("4", False, ()),
    ]
    assert_array_equal(
        reference.dense(graph.blocks[0].weights), model[0].weight.detach().abs().numpy().T
    )


def test_subclasses_with_their_own_forward_pass_are_traced() -> None:
    one = OwnLinear(5, 4)
    one.forward = lambda x: 2 * nn.Linear.forward(one, x)
    for layer in (Doubled(5, 4), one):
        graph = read_graph(nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 3)))
        assert roles(graph) == [
            ("input", False, ("0",)),
            ("0", True, ("2",)),
            ("2", False, ()),
        ]
        expected = 2 * layer.weight.detach().abs().numpy().T
        assert_array_equal(reference.dense(graph.blocks[0].weights), expected)


def test_roles_stay_when_isolated_neurons_go() -> None:
    model = perceptron([nn.ReLU()], [nn.Tanh()])
    with torch.no_grad():
        model[0].weight[2] = 0
        model[2].weight[:, 2] = 0
    graph = read_graph(model)
    connected, _ = graph.without_isolated()
    assert connected.n_vertices == graph.n_vertices - 1
    assert roles(connected) == roles(graph)


# Arrays and files: roles unknown.


def test_lists_have_unknown_activations() -> None:
    graph = read_graph(random_chain(3, (5, 4, 3, 2)))
    assert roles(graph) == [
        ("input", False, ("w0",)),
        ("w0", None, ("w1",)),
        ("w1", None, ("w2",)),
        ("w2", False, ()),
    ]
    assert all(tie == ("w" + str(at), "", False) for at, tie in enumerate(ties(graph)))


def test_lists_of_kernels() -> None:
    arrays = [np.ones((4, 2, 3)), np.ones((5, 4, 2)), np.ones((10, 3))]
    assert roles(read_graph(arrays)) == [("w0", None, ("w1",)), ("w1", None, ("w2",))]
    assert roles(read_graph(arrays, scope="all")) == [
        ("input", False, ("w0",)),
        ("w0", None, ("w1",)),
        ("w1", None, ("w2",)),
        ("w2", False, ()),
    ]


@pytest.mark.parametrize("suffix", ["", ".pt", ".npz"])
def test_state_dicts_and_files_have_unknown_activations(suffix: str, tmp_path: Path) -> None:
    model = perceptron([nn.BatchNorm1d(7), nn.ReLU()], [nn.ReLU()])
    state: Any = model.state_dict()
    if suffix == ".pt":
        torch.save(state, tmp_path / "model.pt")
    if suffix == ".npz":
        np.savez(tmp_path / "model.npz", **{name: value.numpy() for name, value in state.items()})
    assert roles(read_graph(tmp_path / f"model{suffix}" if suffix else state)) == [
        ("input", False, ("0",)),
        ("0", None, ("3",)),
        ("3", None, ("5",)),
        ("5", False, ()),
    ]


def test_files_of_single_arrays(tmp_path: Path) -> None:
    for at, weights in enumerate(random_chain(3, (5, 4, 3))):
        np.save(tmp_path / f"{at}.npy", weights)
    graph = read_graph([tmp_path / "0.npy", str(tmp_path / "1.npy")])
    assert roles(graph) == [("input", False, ("w0",)), ("w0", None, ("w1",)), ("w1", False, ())]


def test_an_adjacency_has_no_roles() -> None:
    graph = read_graph(chain_graph(random_chain(3, (5, 4, 3))).adjacency)
    assert [(layer.rescalable, layer.read_by) for layer in graph.layers] == [(None, ())]
