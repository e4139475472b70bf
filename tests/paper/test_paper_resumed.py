"""Trainings that are interrupted and resumed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ncut.errors import InputError

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from paper_runs import PHASES, assert_same_network, data_for, finished, named, recipe_of, trained  # noqa: E402

from ncut.paper import training  # noqa: E402
from ncut.paper.networks import layers_of  # noqa: E402
from ncut.paper.recipes import REGULARIZATIONS  # noqa: E402
from ncut.paper.records import Record  # noqa: E402
from ncut.paper.training import train  # noqa: E402


def without_time(metrics):
    return {name: value for name, value in metrics.items() if name != "seconds"}


class BrokenOff(Exception):  # noqa: N818
    """Stands for the end of a process."""


def train_with_breaks(record, data):
    """Train with an interruption after each epoch; return the number of interruptions."""
    seen = []

    def break_off(phase, epoch):
        if (phase, epoch) not in seen:
            seen.append((phase, epoch))
            raise BrokenOff

    while True:
        try:
            train(record, data, break_off)
        except BrokenOff:
            torch.manual_seed(len(seen))  # the next process has drawn other numbers
        else:
            return seen


def check_resumed(recipe, data, folder, monkeypatch):
    """Broken off everywhere, a training ends where one without a break does."""
    whole, broken = (Record(folder / name, recipe, 4) for name in ("whole", "broken"))
    train(whole, data)
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    breaks = train_with_breaks(broken, data)
    epochs = ((phase, n) for phase, n in zip(PHASES, (recipe.epochs, recipe.pruning_epochs),
                                             strict=True))  # fmt: skip
    assert breaks == [(phase, epoch) for phase, n in epochs for epoch in range(1, n + 1)]
    for phase in PHASES:
        (expected, numbers), (found, same) = finished(whole, phase), finished(broken, phase)
        assert_same_network(expected, found)
        assert without_time(numbers) == without_time(same)
    assert not broken.checkpoint.exists()
    assert not [*broken.folder.glob(".*")]


RESUMED = [
    *(recipe_of(regularization=kind, epochs=3, pruning_epochs=3) for kind in REGULARIZATIONS),
    recipe_of(regularization="clusterability", procedure="text", epochs=3, pruning_epochs=3),
    recipe_of(regularization="dropout", procedure="leaky", epochs=2, pruning_epochs=3),
    recipe_of(precision="bfloat16", epochs=2, pruning_epochs=2),
    recipe_of(reordered=False),
    recipe_of("polynomial-mlp", "l2"),
    recipe_of("mlp", "dropout", 2, 2, data="mnist"),
]


@pytest.mark.parametrize("recipe", RESUMED, ids=named)
def test_a_resumed_mlp_equals_an_uninterrupted_one(recipe, batch, tmp_path, monkeypatch):
    check_resumed(recipe, data_for(recipe), tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("data", "regularization"), [("mnist", "none"), ("mnist-stack-diff", "dropout")]
)
def test_a_resumed_cnn_equals_an_uninterrupted_one(
    data, regularization, batch, tmp_path, monkeypatch
):
    batch(6)
    recipe = recipe_of("small-cnn", regularization, 2, 2, data=data)
    check_resumed(recipe, data_for(recipe, 12, 4), tmp_path, monkeypatch)


@pytest.mark.usefixtures("narrow_vgg")
def test_a_resumed_vgg_equals_an_uninterrupted_one(batch, tmp_path, monkeypatch):
    batch(4)
    recipe = recipe_of("vgg", "dropout+l2", 2, 2)
    check_resumed(recipe, data_for(recipe, 9, 3), tmp_path, monkeypatch)


def test_without_a_checkpoint_a_phase_begins_anew(batch, tmp_path):
    recipe = recipe_of(epochs=3)
    data = data_for(recipe)
    expected, _ = trained(tmp_path / "whole", recipe, data)
    record = Record(tmp_path / "broken", recipe, 0)
    assert len(train_with_breaks(record, data)) == 5
    assert not record.checkpoint.exists()
    assert_same_network(expected, finished(record)[0])


def broken_off(out, recipe, data, at, monkeypatch):
    """The record of a training interrupted at the end of an epoch."""
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    record = Record(out, recipe, 0)

    def break_off(phase, epoch):
        if (phase, epoch) == at:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        train(record, data, break_off)
    return record


def test_the_checkpoint_of_a_finished_phase_is_ignored(batch, tmp_path, monkeypatch):
    recipe = recipe_of()
    data = data_for(recipe)
    expected, _ = trained(tmp_path / "whole", recipe, data)
    record = broken_off(tmp_path / "broken", recipe, data, ("unpruned", 2), monkeypatch)
    stale = record.checkpoint.read_bytes()
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 1e9)

    def ended(phase, epoch):
        if phase == "pruned":
            raise BrokenOff

    with pytest.raises(BrokenOff):
        train(record, data, ended)
    assert record.has("unpruned")
    # Ended between the saving of the phase and the removal of its checkpoint.
    record.checkpoint.write_bytes(stale)
    train(record, data)
    assert_same_network(expected, finished(record)[0])


def test_weights_without_their_settings_are_made_again(batch, tmp_path, monkeypatch):
    recipe = recipe_of(pruning_epochs=0)
    data = data_for(recipe)
    expected, _ = trained(tmp_path / "whole", recipe, data)
    record = broken_off(tmp_path / "broken", recipe, data, ("unpruned", 2), monkeypatch)
    (record.folder / "unpruned.safetensors").write_bytes(b"half of it")
    assert not record.has("unpruned")
    train(record, data)
    assert_same_network(expected, finished(record)[0])


def test_finished_networks_are_not_trained_again(batch, tmp_path):
    recipe = recipe_of()
    data = data_for(recipe)
    record = Record(tmp_path, recipe, 0)
    train(record, data)
    before = {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in record.folder.iterdir()
    }

    def never(phase, epoch):
        raise AssertionError

    train(record, data, never)
    assert before == {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in record.folder.iterdir()
    }


def test_a_seed_repeats_a_training_and_another_one_does_not(batch, tmp_path):
    recipe = recipe_of(regularization="dropout")
    data = data_for(recipe)
    first, again = (trained(tmp_path / name, recipe, data, 1)[0] for name in "ab")
    assert_same_network(first, again)
    other, _ = trained(tmp_path, recipe, data, 2)
    assert not torch.equal(layers_of(first)[0].weight, layers_of(other)[0].weight)


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut"])
@pytest.mark.parametrize("at", [("unpruned", 2), ("pruned", 2)])
def test_a_damaged_checkpoint_is_refused_by_name(damage, at, batch, tmp_path, monkeypatch):
    recipe = recipe_of()
    data = data_for(recipe)
    record = broken_off(tmp_path, recipe, data, at, monkeypatch)
    content = record.checkpoint.read_bytes()
    damaged = {"empty": b"", "garbage": bytes(range(256)) * 4, "cut": content[:-7]}
    record.checkpoint.write_bytes(damaged[damage])
    with pytest.raises(InputError, match=r"out: .*checkpoint\.safetensors: cannot be .*; delete"):
        train(record, data)
    record.checkpoint.unlink()
    train(record, data)


@pytest.mark.parametrize("phase", PHASES)
def test_weights_that_cannot_be_read_are_refused_by_name(phase, batch, tmp_path):
    recipe = recipe_of()
    data = data_for(recipe)
    record = Record(tmp_path, recipe, 0)
    train(record, data)
    path = record.folder / f"{phase}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"out: .*{phase}\.safetensors: cannot be .*delete"):
        train(record, data)


def changed(data, **tensors):
    return replace(data, **{name: change(getattr(data, name)) for name, change in tensors.items()})


OTHERS = {
    "inputs": lambda data: changed(data, inputs=lambda x: x + 0.125),
    "targets": lambda data: changed(data, targets=lambda y: (y + 1) % 10),
    "order": lambda data: changed(data, inputs=lambda x: x.flip(0), targets=lambda y: y.flip(0)),
    "fewer": lambda data: changed(data, inputs=lambda x: x[:99], targets=lambda y: y[:99]),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("at", [("unpruned", 2), ("pruned", 1), ("pruned", 2), None], ids=str)
def test_other_data_are_refused_whenever_training_ended(other, at, batch, tmp_path, monkeypatch):
    recipe = recipe_of()
    data = data_for(recipe)
    if at is None:
        record = Record(tmp_path, recipe, 0)
        train(record, data)
    else:
        record = broken_off(tmp_path, recipe, data, at, monkeypatch)
    with pytest.raises(InputError, match=r"data: .* trained on other data"):
        train(record, OTHERS[other](data))
    train(record, data)
