"""Measuring during training, and a regularizer's gradient in frameworks that own the loop."""

from __future__ import annotations

import copy
import gc
import random
import runpy
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ncut
from ncut.errors import InputError, MissingExtraError
from ncut.training.monitor import Monitor, Penalty

EXAMPLES = Path(__file__).parents[2] / "examples"
RATE = 0.1

# Lightning uses a name that torch has deprecated, and remarks on the machine where a loader has
# no worker processes or a GPU is left unused.
third_party = [
    pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\):FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))


def task_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return (model(inputs) - targets).square().mean()


class Ridge:
    """A regularizer whose gradient is known: `strength` times each weight, biases left out."""

    numbers = (2, 5)
    eigenvalues = (0.25, 0.5)

    def __init__(self, model: nn.Module, strength: float = 0.7) -> None:
        self.model = model
        self.strength = strength
        self.n_calls = 0
        self.n_normalized = 0

    def __call__(self) -> Tensor:
        self.n_calls += 1
        weights = [p for p in self.model.parameters() if p.ndim == 2]
        return self.strength * torch.stack([w.square().sum() / 2 for w in weights]).sum()

    def normalize_(self) -> None:
        self.n_normalized += 1
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.mul_(0.9)


def batches(n: int, size: int = 4) -> tuple[Tensor, Tensor]:
    """Inputs and targets; of more batches the first are the same."""
    numbers = torch.randn(16, size, 11, generator=torch.Generator().manual_seed(1))[:n]
    return numbers[..., :6], numbers[..., 6:]


def by_hand(
    n_steps: int,
    accumulate: int = 1,
    *,
    clip: float = 0,
    clip_all: bool = False,
    normal: bool = False,
) -> nn.Module:
    """Plain SGD with the ridge: what every framework has to come to."""
    model = network()
    ridge = Ridge(model)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    inputs, targets = batches(n_steps * accumulate)
    for step in range(n_steps):
        if normal:
            ridge.normalize_()
        optimizer.zero_grad()
        for number in range(step * accumulate, (step + 1) * accumulate):
            (task_loss(model, inputs[number], targets[number]) / accumulate).backward()
        if clip and not clip_all:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        ridge().backward()
        if clip_all:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return model


def check_same_parameters(ours: nn.Module, expected: nn.Module) -> None:
    for mine, theirs in zip(ours.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


# --- measuring


def test_a_measurement_is_an_analysis() -> None:
    model = network()
    values = Monitor(k=3, shuffles=5, seed=4, norm="l1").measure(model)
    report = ncut.analyze(model, k=3, shuffles=5, seed=4)
    assert values == {
        "ncut/ncut": report.ncut,
        "ncut/shuffled_mean": report.shuffled_mean,
        "ncut/z_score": report.z_score,
        "ncut/p_value": report.p_value,
        "ncut/lower_bound": report.lower_bound,
        "ncut/alignment_shuffled_mean": report.tests["alignment"].mean,
        "ncut/alignment_z_score": report.tests["alignment"].z_score,
        "ncut/alignment_p_value": report.tests["alignment"].p_value,
        "ncut/lambda_2": report.eigenvalues[1],
        "ncut/lambda_3": report.eigenvalues[2],
    }
    assert all(type(value) is float for value in values.values())


def test_without_shuffles_there_are_no_statistics() -> None:
    values = Monitor(k=4, shuffles=0, eigenvalues=[4, 2]).measure(network())
    assert list(values) == ["ncut/ncut", "ncut/lower_bound", "ncut/lambda_4", "ncut/lambda_2"]


class Changeable(nn.Module):
    """A network with much that a careless measurement would change."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5)
        self.norm, self.dropout = nn.BatchNorm1d(8), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(torch.relu(self.norm(self.first(x)))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("training", [True, False])
def test_measuring_changes_nothing(training: bool) -> None:
    model = Changeable().train(training)
    model.dropout.train(not training)
    model(torch.randn(4, 6)).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    expected = torch.rand(3), np.random.random(3), random.random()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)

    assert Monitor(k=3, shuffles=2).measure(model)

    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.random(3), expected[1])  # noqa: NPY002
    assert random.random() == expected[2]
    assert [module.training for module in model.modules()] == modes
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.requires_grad
        assert torch.equal(parameter.grad, gradient)  # type: ignore[arg-type]
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def test_a_failure_is_one_warning() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    monitor = Monitor(k=3, shuffles=2)
    with pytest.warns(UserWarning, match="nothing was logged: .*finite") as caught:
        assert monitor.measure(model) == {}
    assert len(caught) == 1
    with warnings.catch_warnings(action="error"):
        assert monitor.measure(model) == {}
        assert monitor.measure(network())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 1}, "k: must be at least 2"),
        ({"shuffles": -1}, "shuffles: "),
        ({"seed": "a"}, "seed: "),
        ({"null": "nonsense"}, "null: "),
        ({"tests": ["layer"]}, "tests: must be some of"),
        ({"shufles": 3}, "shufles: Monitor has no such argument; did you mean .shuffles"),
        ({"progress": print}, "progress: Monitor has no such argument"),
        ({"k": 3, "eigenvalues": [2, 4]}, "eigenvalues: must be a whole number from 1 to 3"),
        ({"eigenvalues": [0]}, "eigenvalues: "),
        ({"eigenvalues": [2.0]}, "eigenvalues: "),
    ],
)
def test_bad_settings_are_refused_before_the_training(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Monitor(**options)


# --- the gradient


def stepped(scale: float = 1.0, model: nn.Module | None = None) -> nn.Module:
    """A network with the task's gradient, times `scale`."""
    model = network() if model is None else model
    inputs, targets = batches(1)
    (task_loss(model, inputs[0], targets[0]) * scale).backward()
    return model


def check_gradient(model: nn.Module) -> None:
    """Check that the gradient is the task's plus the ridge's, once."""
    expected = stepped(model=copy.deepcopy(model).requires_grad_())
    for mine, theirs in zip(model.parameters(), network().parameters(), strict=True):
        assert torch.equal(mine, theirs)
    expected.zero_grad()
    stepped(model=expected)
    Ridge(expected)().backward()
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "make", [Ridge, lambda model: Ridge(model), lambda model: Ridge(model).__call__]
)
def test_a_gradient_is_added_once(make: Callable[[nn.Module], Any]) -> None:
    for given in (make, make(model := stepped())):
        model.zero_grad()
        stepped(model=model)
        penalty = Penalty(given, normalize=False)
        penalty.start(model)
        penalty.add_gradient(torch.optim.SGD(model.parameters(), RATE))
        check_gradient(model)


def test_a_soft_partition_is_learned_and_kept() -> None:
    model = stepped()
    make = partial(ncut.SoftCutRegularizer, k=3, weight=0.5)
    penalty = Penalty(make, normalize=False)
    penalty.start(model)
    before = penalty.regularizer.learned[0].detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    for _ in range(5):
        model.zero_grad()
        stepped(model=model)
        penalty.add_gradient(optimizer)
        optimizer.step()
    found = penalty.regularizer.learned[0].detach()
    assert float((found - before).abs().min()) > 0
    again = Penalty(make, normalize=False)
    again.load_state_dict(penalty.state_dict())  # before there is a regularizer
    again.start(model)
    assert torch.equal(again.regularizer.learned[0].detach(), found)
    assert again.regularizer.n_steps == 5


def test_optimizers_get_the_gradients_of_their_own_parameters() -> None:
    model = stepped()
    ridge = Ridge(model)
    penalty = Penalty(ridge, normalize=False)
    penalty.start(model)
    other = stepped(model=network(1))
    untouched = [parameter.grad.clone() for parameter in other.parameters()]  # type: ignore[union-attr]
    foreign = torch.optim.SGD(other.parameters(), RATE)
    for parameters in (model[0].parameters(), model[2].parameters()):  # type: ignore[index]
        penalty.add_gradient(torch.optim.SGD(parameters, RATE), is_only=False)
        penalty.add_gradient(foreign, is_only=False)
    check_gradient(model)
    for parameter, before in zip(other.parameters(), untouched, strict=True):
        assert torch.equal(parameter.grad, before)  # type: ignore[arg-type]
    assert ridge.n_calls == 3  # the foreign optimizer is known after its first step


def test_hooks_on_the_accumulation_of_gradients_are_passed_by() -> None:
    model = stepped()
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda parameter: 1 / 0)
    penalty = Penalty(Ridge(model), normalize=False)
    penalty.start(model)
    penalty.add_gradient(torch.optim.SGD(model.parameters(), RATE))
    for mine, theirs in zip(model.parameters(), stepped(model=network()).parameters(), strict=True):
        ridge = 0.7 * mine.detach() if mine.ndim == 2 else torch.zeros_like(mine)
        torch.testing.assert_close(mine.grad, theirs.grad + ridge)  # type: ignore[operator]


@pytest.mark.parametrize("unscaled", [True, False])
def test_scaled_gradients_are_unscaled_once(unscaled: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    inputs, targets = batches(1)
    scaler.scale(task_loss(model, inputs[0], targets[0])).backward()
    if unscaled:
        scaler.unscale_(optimizer)
    penalty = Penalty(Ridge(model), normalize=False)
    penalty.start(model)
    penalty.add_gradient(optimizer, scaler=scaler)
    check_gradient(model)
    scaler.step(optimizer)
    check_same_parameters(model, by_hand(1))


def test_skipped_steps_add_nothing() -> None:
    model = network()
    ridge = Ridge(model)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    penalty = Penalty(ridge, normalize=False)
    penalty.start(model)
    penalty.add_gradient(optimizer)  # no gradient of a task
    assert ridge.n_calls == 0
    stepped(model=model)
    penalty.add_gradient(optimizer)
    values = penalty.values()
    assert values["ncut/regularizer"] == pytest.approx(Ridge(model)().item())
    assert values["ncut/regularizer_lambda_2"] == 0.25
    assert values["ncut/regularizer_lambda_5"] == 0.5
    before = [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]
    penalty.regularizer = lambda: torch.zeros(())  # one that is computed every other step
    penalty.add_gradient(optimizer)
    assert penalty.values() == {"ncut/regularizer": values["ncut/regularizer"]}
    for parameter, gradient in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter.grad, gradient)  # type: ignore[arg-type]


def test_a_regularizer_of_another_model_is_refused() -> None:
    model = stepped()
    penalty = Penalty(Ridge(network()), normalize=False)
    penalty.start(model)
    with pytest.raises(InputError, match=r"regularizer: .*made for another model"):
        penalty.add_gradient(torch.optim.SGD(model.parameters(), RATE))


def test_bad_regularizers_are_refused() -> None:
    with pytest.raises(InputError, match="normalize: needs a regularizer"):
        Penalty(None, normalize=True)
    with pytest.raises(InputError, match=r"regularizer: must be callable, got .* float"):
        Penalty(0.1, normalize=False)  # type: ignore[arg-type]
    penalty = Penalty(lambda: torch.zeros(()), normalize=True)
    with pytest.raises(InputError, match="normalize: the regularizer has no method"):
        penalty.start(network())


# --- loggers


def events(folder: Path) -> dict[str, dict[int, float]]:
    """The scalars of TensorBoard's event files below a folder: name, step, value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        accumulator = EventAccumulator(str(path))
        accumulator.Reload()
        for name in accumulator.Tags()["scalars"]:
            entries = {event.step: event.value for event in accumulator.Scalars(name)}
            found.setdefault(name, {}).update(entries)
    return found


class Recorder(Monitor):
    """A monitor that notes the weights that it measured, and measures next to nothing."""

    def __init__(self) -> None:
        super().__init__(k=2)
        self.measured: list[Tensor] = []

    def measure(self, model: Any) -> dict[str, float]:
        self.measured.append(next(model.parameters()).detach().clone())
        return {"ncut/ncut": float(len(self.measured))}


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def library(request: pytest.FixtureRequest) -> Any:
    """Each of the two packages of PyTorch Lightning."""
    return pytest.importorskip(request.param, reason="pip install lightning pytorch-lightning")


def lightning_module(library: Any, *, n_optimizers: int = 1, fused: bool = False) -> Any:
    class Module(library.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = network()
            self.automatic_optimization = n_optimizers == 1

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = task_loss(self.net, batch[0][0], batch[1][0])
            self.log("loss", loss)
            if n_optimizers > 1:
                for optimizer in self.optimizers():
                    optimizer.zero_grad()
                self.manual_backward(loss)
                for optimizer in self.optimizers():
                    optimizer.step()
            return loss

        def configure_optimizers(self) -> Any:
            if n_optimizers == 1:
                return torch.optim.SGD(self.parameters(), RATE, fused=fused)
            return [torch.optim.SGD(self.net[i].parameters(), RATE) for i in (0, 2)]

    return Module()


def fitted(library: Any, callback: Any, n_batches: int, module: Any = None, **options: Any) -> Any:
    """A Lightning module after one epoch with this callback."""
    from torch.utils.data import DataLoader, TensorDataset

    module = lightning_module(library) if module is None else module
    trainer = library.Trainer(
        max_epochs=1,
        callbacks=[callback, *options.pop("callbacks", [])],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        **{"logger": False, "log_every_n_steps": 1} | options,
    )
    trainer.fit(module, DataLoader(TensorDataset(*batches(n_batches))))
    return module


@pytest.fixture
def lightning_callback() -> Any:
    from ncut.training.lightning import ClusterabilityCallback

    return ClusterabilityCallback


class TestLightning:
    pytestmark = third_party

    @pytest.mark.parametrize("accumulate", [1, 3])
    def test_gradients_arrive(self, library: Any, lightning_callback: Any, accumulate: int) -> None:
        callback = lightning_callback(every=0, regularizer=Ridge, submodule="net")
        module = fitted(library, callback, 4 * accumulate, accumulate_grad_batches=accumulate)
        check_same_parameters(module.net, by_hand(4, accumulate))
        assert callback.regularizer.n_calls == 4

    def test_weights_are_normalized_once_a_step(
        self, library: Any, lightning_callback: Any
    ) -> None:
        callback = lightning_callback(every=0, regularizer=Ridge, normalize=True, submodule="net")
        module = fitted(library, callback, 6, accumulate_grad_batches=2)
        check_same_parameters(module.net, by_hand(3, 2, normal=True))

    def test_clipping_includes_it(self, library: Any, lightning_callback: Any) -> None:
        callback = lightning_callback(every=0, regularizer=Ridge, submodule="net")
        module = fitted(library, callback, 4, gradient_clip_val=0.1)
        check_same_parameters(module.net, by_hand(4, clip=0.1, clip_all=True))

    # Fused optimizers unscale by themselves, after the hook.
    @pytest.mark.parametrize("fused", [True, False])
    def test_scaled_losses(self, library: Any, lightning_callback: Any, fused: bool) -> None:
        mixed = sys.modules[f"{library.__name__}.plugins"].MixedPrecision

        class Scaled(mixed):  # type: ignore[misc, valid-type]
            """The scaling of half precision, and its order of hooks, without its rounding."""

            def autocast_context_manager(self) -> Any:
                return torch.autocast("cpu", enabled=False)

        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        callback = lightning_callback(every=0, regularizer=Ridge, submodule="net")
        plugin = Scaled("16-mixed", "cpu", scaler=scaler)
        module = lightning_module(library, fused=fused)
        fitted(library, callback, 4, module, plugins=[plugin])
        check_same_parameters(module.net, by_hand(4))

    def test_several_optimizers(self, library: Any, lightning_callback: Any) -> None:
        module = lightning_module(library, n_optimizers=2)
        callback = lightning_callback(Recorder(), every=3, regularizer=Ridge, submodule="net")
        fitted(library, callback, 4, module)
        # Both gradients of a step are taken before the other half moves: the ridge has no mixed
        # terms, so that the order of the two makes no difference.
        check_same_parameters(module.net, by_hand(4))
        assert len(callback.monitor.measured) == 3  # after 4, 6 and 8 of the trainer's steps

    def test_measurements_land(self, library: Any, lightning_callback: Any, tmp_path: Path) -> None:
        loggers = sys.modules[f"{library.__name__}.loggers"]
        seen = []

        class Watcher(library.Callback):  # type: ignore[misc]
            def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
                seen.append(float(trainer.callback_metrics.get("ncut/ncut", 0)))

        recorder = Recorder()
        fitted(
            library,
            lightning_callback(recorder, every=3, regularizer=Ridge, submodule="net"),
            14,
            accumulate_grad_batches=2,
            logger=[loggers.TensorBoardLogger(tmp_path), loggers.CSVLogger(tmp_path)],
            log_every_n_steps=2,
            callbacks=[Watcher()],
        )
        found = events(tmp_path)
        assert found["ncut/ncut"] == {3: 1.0, 6: 2.0, 7: 3.0}
        assert seen == [0] * 5 + [1] * 6 + [2] * 3
        for weights, steps in zip(recorder.measured, (3, 6, 7), strict=True):
            torch.testing.assert_close(weights, by_hand(steps, 2)[0].weight)  # type: ignore[index]
        assert set(found["ncut/regularizer"]) == set(found["loss"]) == {1, 3, 5}
        ridge = Ridge(by_hand(1, 2))  # the second step begins with these weights
        assert found["ncut/regularizer"][1] == pytest.approx(ridge().item(), rel=1e-5)
        assert set(found["ncut/regularizer_lambda_5"].values()) == {0.5}
        (table,) = tmp_path.rglob("metrics.csv")
        assert "ncut/ncut" in table.read_text().splitlines()[0]

    def test_early_stopping_sees_it(self, library: Any, lightning_callback: Any) -> None:
        stopping = sys.modules[f"{library.__name__}.callbacks"].EarlyStopping(
            "ncut/ncut", check_on_train_epoch_end=True
        )
        fitted(library, lightning_callback(Recorder(), every=2), 4, callbacks=[stopping])
        assert float(stopping.best_score) == 2.0

    def test_the_package_in_use_is_the_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from ncut.training.lightning import _library

        for name in ("lightning.pytorch", "pytorch_lightning"):
            pytest.importorskip(name, reason="pip install lightning pytorch-lightning")
        assert _library().__name__ == "lightning.pytorch"
        monkeypatch.setitem(sys.modules, "lightning.pytorch", None)  # as if not installed
        assert _library().__name__ == "pytorch_lightning"
        monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
        with pytest.raises(MissingExtraError, match=r"'lightning', .* 'ncut\[lightning\]'"):
            _library()

    def test_sharded_weights_are_refused(self, lightning_callback: Any) -> None:
        class FSDPStrategy:
            pass

        trainer = type("Trainer", (), {"strategy": FSDPStrategy()})()
        callback = lightning_callback(regularizer=Ridge)
        with pytest.raises(InputError, match=r"regularizer: .*FSDPStrategy shards"):
            callback.on_fit_start(trainer, network())
        lightning_callback().on_fit_start(trainer, network())


@pytest.mark.parametrize("every", [-1, 1.5, True])
def test_a_number_of_steps_that_makes_no_sense_is_refused(
    lightning_callback: Any, every: Any
) -> None:
    with pytest.raises(InputError, match="every: must be a whole number"):
        lightning_callback(every=every)


class Wrapped(nn.Module):
    """A network as the Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss": task_loss(self.net, inputs, targets)}


@pytest.fixture
def transformers() -> Any:
    import transformers

    return transformers


def trained(
    transformers: Any,
    tmp_path: Path,
    n_batches: int,
    callback: dict[str, Any],
    resume: str | None = None,
    **options: Any,
) -> Any:
    """A Trainer after one epoch with a callback of these arguments."""
    from ncut.training.hugging_face import ClusterabilityCallback

    model = Wrapped()
    inputs, targets = batches(n_batches)
    examples = [
        {"inputs": i, "targets": t}
        for i, t in zip(inputs.flatten(0, 1), targets.flatten(0, 1), strict=True)
    ]
    arguments: dict[str, Any] = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "logging_steps": 2,
        "train_sampling_strategy": "sequential",
    }
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(str(tmp_path), **arguments | options),
        train_dataset=examples,
        optimizers=(torch.optim.SGD(model.parameters(), RATE), None),
    )
    trainer.add_callback(ClusterabilityCallback(trainer, submodule="net", **callback))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


class TestHuggingFace:
    @pytest.mark.parametrize("accumulate", [1, 3])
    def test_gradients_arrive(self, transformers: Any, tmp_path: Path, accumulate: int) -> None:
        trainer = trained(
            transformers,
            tmp_path,
            4 * accumulate,
            {"every": 0, "regularizer": Ridge, "normalize": True},
            gradient_accumulation_steps=accumulate,
        )
        check_same_parameters(trainer.model.net, by_hand(4, accumulate, normal=True))

    def test_a_resumed_training_equals_an_uninterrupted_one(
        self, transformers: Any, tmp_path: Path
    ) -> None:
        make = partial(ncut.SoftCutRegularizer, k=3, weight=0.5, every=3)
        given = (transformers, tmp_path, 8, {"every": 0, "regularizer": make})
        whole = trained(*given, save_strategy="steps", save_steps=4)
        assert (tmp_path / "checkpoint-4" / "ncut_regularizer.pt").exists()
        again = trained(*given, resume=str(tmp_path / "checkpoint-4"))
        check_same_parameters(again.model.net, whole.model.net)

    def test_clipping_leaves_it_out(self, transformers: Any, tmp_path: Path) -> None:
        callback = {"every": 0, "regularizer": Ridge}
        trainer = trained(transformers, tmp_path, 4, callback, max_grad_norm=0.1)
        check_same_parameters(trainer.model.net, by_hand(4, clip=0.1))

    def test_measurements_land(self, transformers: Any, tmp_path: Path) -> None:
        recorder = Recorder()
        trainer = trained(
            transformers,
            tmp_path,
            14,
            {"monitor": recorder, "every": 2, "regularizer": Ridge},
            gradient_accumulation_steps=2,
            report_to="tensorboard",
        )
        history = trainer.state.log_history
        measured = {entry["step"]: entry["ncut/ncut"] for entry in history if "ncut/ncut" in entry}
        assert measured == {2: 1.0, 4: 2.0, 6: 3.0, 7: 4.0}
        for weights, steps in zip(recorder.measured, measured, strict=True):
            torch.testing.assert_close(weights, by_hand(steps, 2)[0].weight)  # type: ignore[index]
        # The Trainer's own entries are all there.
        assert [entry["step"] for entry in history if "loss" in entry] == [2, 4, 6]
        known = [entry["step"] for entry in history if "ncut/regularizer_lambda_2" in entry]
        assert known == [2, 4, 6]
        ridge = Ridge(by_hand(1, 2))
        assert history[0]["ncut/regularizer"] == pytest.approx(ridge().item(), rel=1e-5)
        found = events(tmp_path)
        assert found["train/ncut/ncut"] == measured
        assert set(found["train/loss"]) == {2, 4, 6}

    def test_an_unexpected_end_is_measured(self, transformers: Any, tmp_path: Path) -> None:
        from ncut.training.hugging_face import ClusterabilityCallback

        class Stop(transformers.TrainerCallback):  # type: ignore[misc]
            def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                control.should_training_stop = True

        trainer = transformers.Trainer(
            Wrapped(),
            transformers.TrainingArguments(
                str(tmp_path),
                num_train_epochs=2,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
                dataloader_pin_memory=False,
                remove_unused_columns=False,
            ),
            train_dataset=[{"inputs": torch.ones(6), "targets": torch.ones(5)}] * 8,
            callbacks=[Stop],
        )
        trainer.add_callback(ClusterabilityCallback(trainer, Recorder(), every=5))
        trainer.train()
        last = trainer.state.log_history[-1]
        assert (last["step"], last["ncut/ncut"]) == (1, 1.0)

    def test_sharded_weights_are_refused(self, transformers: Any, tmp_path: Path) -> None:
        trainer = trained(transformers, tmp_path, 2, {"every": 0, "regularizer": Ridge})
        trainer.is_fsdp_enabled = True
        with pytest.raises(InputError, match=r"regularizer: .*FSDP"):
            trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)


# --- the examples


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_examples_run(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name.startswith("jax"):
        pytest.importorskip("jax", reason="pip install jax")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "--steps", "6"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the frameworks, about a run this short
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        gc.collect()
    shown = capsys.readouterr().out
    assert "ncut" in shown.replace("-", "")
    assert "nan" not in shown


def test_there_are_examples_to_run() -> None:
    assert len(list(EXAMPLES.glob("*.py"))) >= 3
