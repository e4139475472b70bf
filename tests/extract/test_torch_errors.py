"""PyTorch modules that are refused, and the state that reading leaves them in."""

from __future__ import annotations

import copy
import warnings

import pytest

from ncut.errors import InputError, ModelError
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from module_nets import Body  # noqa: E402
from torch import nn  # noqa: E402


def with_control_flow(self, x):
    return self.b(x) if x.sum() > 0 else self.a(x)


def with_state(self, x):
    self.hidden = self.a(x)
    self.steps += 1
    self.eval()
    return self.b(self.hidden)


def with_state_and_failure(self, x):
    with_state(self, x)
    raise RuntimeError("no more")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Body(with_control_flow),
            "the forward pass of Body chooses what to do by values that depend on the data.*list$",
        ),
        (
            nn.Sequential(nn.Linear(3, 3), Body(with_control_flow)),
            r"module '1' \(Body\) chooses what to do by values that depend on the data",
        ),
        (
            Body(with_state_and_failure),
            "the forward pass of Body fails on guessed inputs: RuntimeError: no more; pass example",
        ),
        (
            nn.Sequential(nn.Linear(3, 3), Body(with_state_and_failure)),
            r"module '1' \(Body\) fails on guessed inputs: RuntimeError: no more",
        ),
        (nn.Sequential(nn.Bilinear(3, 3, 3)), r"module '0' \(Bilinear\) fails.*missing 1 required"),
        (nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), "module '0'.*run the model once"),
        (nn.Sequential(nn.Linear(3, 2, device="meta"), nn.Linear(2, 3)), "module '0'.*'meta'"),
        (nn.Sequential(nn.Flatten(), nn.Conv1d(3, 3, 1)), r"module '1' \(Conv1d\) fails"),
        (nn.Sequential(nn.Linear(4, 4), nn.MaxPool1d(2)), "module '1'.*pools over neurons"),
        (
            nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.BatchNorm1d(5)),
            r"module '2' \(BatchNorm1d\) fails.*4 elements not 5",
        ),
        (
            nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 2)),
            r"'linear' in module '1' \(Linear\): it reads 4 values, but gets 3",
        ),
        (nn.ModuleList([nn.Linear(2, 2)]), "ModuleList"),
    ],
)
def test_model_errors(model, message):
    with pytest.raises(ModelError, match=f"^{type(model).__name__}: .*{message}"):
        read_graph(model)


def test_errors_on_example_inputs_do_not_ask_for_them():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(ModelError, match=r"module '0' \(Linear\): it reads 3.*gets 5$"):
        read_graph(model, example_inputs=torch.zeros(2, 5))


def test_torchscript_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    with pytest.raises(ModelError, match="TorchScript"):
        read_graph(script)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.ReLU()), "no weights found"),
        (nn.ReLU(), "no weights found"),
        (nn.Linear(2, 3), "Linear: a chain needs at least two weight layers"),
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 3)), "scope='all'"),
    ],
)
def test_input_errors(model, message):
    with pytest.raises(InputError, match=message):
        read_graph(model)


def test_unusable_weights_are_named():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[1].running_var[1] = -1.0
    with pytest.raises(InputError, match="layer '0': 2 NaN"):
        read_graph(model)
    with torch.no_grad():
        model[1].running_var[1] = 1.0
        model[3].weight.zero_()
    with pytest.raises(InputError, match="layer '3': all 6 weights are zero"):
        read_graph(model)


def test_arrays_of_a_module_cannot_be_chosen():
    with pytest.raises(InputError, match=r"layers: .*model.state_dict\(\)"):
        read_graph(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), layers=["0", "1"])


def snapshot(model):
    return {
        "training": {name: part.training for name, part in model.named_modules()},
        "attributes": {name: sorted(part.__dict__) for name, part in model.named_modules()},
        "parameters": {name: id(value) for name, value in model.named_parameters()},
        "hooks": {name: dict(part._forward_hooks) for name, part in model.named_modules()},
        "versions": {name: value._version for name, value in model.state_dict().items()},
        "grad": {name: value.requires_grad for name, value in model.named_parameters()},
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_module_is_left_unchanged(training, fails):
    inner = Body(with_state_and_failure if fails else with_state)
    inner.hidden = "before"
    model = nn.Sequential(nn.Linear(3, 3), inner, nn.BatchNorm1d(3), nn.Dropout())
    model.train(training)
    model[3].train(not training)
    calls = []
    for part in model.modules():
        part.register_forward_hook(lambda *arguments: calls.append(arguments))
        part.register_forward_pre_hook(lambda *arguments: calls.append(arguments))
    before, values = snapshot(model), copy.deepcopy(model.state_dict())
    if fails:
        with pytest.raises(ModelError):
            read_graph(model)
    else:
        assert len(read_graph(model).layers) == 4
    assert snapshot(model) == before
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert inner.hidden == "before"
    assert calls == []
    if not fails:
        model(torch.zeros(4, 3))
        assert len(calls) == 2 * len(list(model.modules()))
        assert inner.steps == 1
