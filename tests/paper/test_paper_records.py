"""Records of a network: files that are complete or absent, and errors with a remedy."""

from __future__ import annotations

import itertools
import json
import os
import re
from dataclasses import fields, replace

import numpy as np
import pytest

import ncut
from ncut.errors import InputError

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402

from ncut.paper import records  # noqa: E402
from ncut.paper.networks import build  # noqa: E402
from ncut.paper.recipes import PROCEDURES, REGULARIZATIONS, Recipe  # noqa: E402
from ncut.paper.records import (  # noqa: E402
    INITIAL,
    PRUNED,
    UNPRUNED,
    Analysis,
    Record,
    read_tensors,
    write_json,
    write_tensors,
)

RECIPE = Recipe("small-mlp", "mnist-7x7")
ANALYSIS = Analysis(k=2, shuffles=5)


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path, RECIPE, 3)


@pytest.fixture(scope="module")
def report():
    random = np.random.default_rng(0)
    weights = [random.normal(size=shape) for shape in ((6, 5), (5, 4))]
    return ncut.analyze(weights, k=2, shuffles=5, seed=0)


def model_of(seed=0):
    torch.manual_seed(seed)
    return build("small-mlp")


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if path.name.startswith(".")]


# --- files that are whole -----------------------------------------------------------------------


def test_json_that_cannot_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1.5, "b": None})
    assert json.loads(path.read_text()) == {"a": 1.5, "b": None}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1.5, "b": None}
    assert not leftovers(tmp_path)


def test_tensors_come_back_with_their_metadata(tmp_path):
    tensors = {
        "plain": torch.arange(6.0).reshape(2, 3),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "number": torch.tensor(7.0),
        "double": torch.tensor([0.1], dtype=torch.float64),
        "whole": torch.tensor([2**40]),
    }
    write_tensors(tmp_path / "file.safetensors", tensors, {"epoch": "3"})
    found, metadata = read_tensors(tmp_path / "file.safetensors")
    assert metadata == {"epoch": "3"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


# --- phases -------------------------------------------------------------------------------------


def test_a_network_comes_back_with_its_metrics(record):
    model = model_of()
    record.save(UNPRUNED, model, {"test_accuracy": 0.5, "train_accuracy": None})
    assert record.has(UNPRUNED)
    assert not record.has(PRUNED)
    other = model_of(1)
    record.load(UNPRUNED, other)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert record.metrics(UNPRUNED) == {
        "recipe": RECIPE.settings(), "seed": 3, "phase": UNPRUNED,
        "test_accuracy": 0.5, "train_accuracy": None,
    }  # fmt: skip
    assert not leftovers(record.out)


def test_statistics_of_batch_norm_and_any_memory_format_come_back(record):
    def made(seed):
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        model(torch.randn(2, 3, 5, 5))
        return model

    model, other = made(0), made(1)
    record.save(PRUNED, model, {})
    record.load(PRUNED, other)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_an_untrained_network_is_always_there(record):
    assert record.has(INITIAL)
    assert record.metrics(INITIAL) == {}
    assert not record.folder.exists()


@pytest.mark.parametrize("broken", ["save_file", "write_json"])
def test_a_phase_is_there_once_its_settings_are(broken, record, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(records, broken, fail)
        with pytest.raises(KeyboardInterrupt):
            record.save(UNPRUNED, model_of(), {})
    assert not record.has(UNPRUNED)
    assert not leftovers(record.out)
    record.save(UNPRUNED, model_of(), {})
    assert record.has(UNPRUNED)


def test_half_written_files_of_a_process_that_was_killed_are_ignored(record, report):
    record.folder.mkdir(parents=True)
    for name in ("unpruned.json", "unpruned.safetensors", f"unpruned-{ANALYSIS.name}.json",
                 "checkpoint.safetensors"):  # fmt: skip
        for pid in (1, os.getpid()):
            (record.folder / f".{name}.{pid}.part").write_bytes(b'{"half')
    assert not record.has(UNPRUNED)
    assert not record.has_report(UNPRUNED, ANALYSIS)
    assert not record.checkpoint.is_file()
    model = model_of()
    record.save(UNPRUNED, model, {"images": 5})
    record.save_report(UNPRUNED, ANALYSIS, report)
    record.load(UNPRUNED, model)
    assert record.metrics(UNPRUNED)["images"] == 5
    assert record.report(UNPRUNED, ANALYSIS) == report


# --- damage -------------------------------------------------------------------------------------

DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "garbage": lambda content: b"\xff\xfe" + bytes(range(256)),
    "missing": None,
}


def damage(path, how):
    content = path.read_bytes()
    if DAMAGE[how] is None:
        path.unlink()
    else:
        path.write_bytes(DAMAGE[how](content))


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_weights_are_refused_with_what_to_delete(how, record):
    record.save(UNPRUNED, model_of(), {})
    path = record.folder / "unpruned.safetensors"
    damage(path, how)
    message = f"^out: {re.escape(str(path))}: .*; delete the folder "
    with pytest.raises(InputError, match=message + re.escape(str(record.folder))):
        record.load(UNPRUNED, model_of())


def test_weights_of_another_network_are_refused(record):
    record.save(UNPRUNED, nn.Sequential(nn.Linear(3, 2)), {})
    with pytest.raises(
        InputError, match=r"(?s)unpruned\.safetensors: cannot be read .*delete the f"
    ):
        record.load(UNPRUNED, model_of())


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_settings_are_refused_with_what_to_delete(how, record):
    record.save(PRUNED, model_of(), {"test_loss": 0.25})
    path = record.folder / "pruned.json"
    damage(path, how)
    message = f"^out: {re.escape(str(path))}: .*; delete it to train"
    with pytest.raises(InputError, match=message):
        record.metrics(PRUNED)


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_report_is_refused_with_what_to_delete(how, record, report):
    record.save_report(PRUNED, ANALYSIS, report)
    path = record.folder / f"pruned-{ANALYSIS.name}.json"
    damage(path, how)
    message = f"^out: .*; delete {re.escape(str(path))} to measure again"
    with pytest.raises(InputError, match=message):
        record.report(PRUNED, ANALYSIS)


# --- reports ------------------------------------------------------------------------------------


def test_a_report_round_trips(record, report):
    assert not record.has_report(PRUNED, ANALYSIS)
    record.save_report(PRUNED, ANALYSIS, report)
    assert record.has_report(PRUNED, ANALYSIS)
    assert record.report(PRUNED, ANALYSIS) == report
    assert not leftovers(record.out)


OTHER = {"k": 4, "shuffles": 6, "null": "layer-nonzero", "normalize": "neuron"}


@pytest.mark.parametrize("name", OTHER)
def test_every_analysis_and_phase_has_a_report_of_its_own(name, record, report):
    assert OTHER.keys() == {field.name for field in fields(Analysis)}
    record.save_report(PRUNED, ANALYSIS, report)
    assert not record.has_report(PRUNED, replace(ANALYSIS, **{name: OTHER[name]}))
    assert not record.has_report(UNPRUNED, ANALYSIS)
    assert not record.has_report(INITIAL, ANALYSIS)


def test_no_report_is_taken_for_a_phases_settings(record, report):
    record.save_report(PRUNED, ANALYSIS, report)
    assert not record.has(PRUNED)


# --- recipes and their names --------------------------------------------------------------------

CHANGES = {
    "network": ["mlp", "small-cnn"],
    "data": ["mnist", "random"],
    "regularization": ["dropout", "l1", "l2", "dropout+l2", "clusterable-init", "clusterability"],
    "epochs": [1, 0, 200],
    "pruning_epochs": [1, 0, 200],
    "reordered": [False],
    "images": [1, 20, 60_000],
    "procedure": ["text", "leaky"],
    "precision": ["bfloat16"],
}


def changed():
    return [replace(RECIPE, **{name: value}) for name, values in CHANGES.items()
            for value in values]  # fmt: skip


def test_recipes_that_differ_anywhere_have_folders_of_their_own(tmp_path):
    assert CHANGES.keys() == {field.name for field in fields(Recipe)}
    found = [RECIPE, *changed(), *(replace(each, images=7) for each in changed())]
    found = list(dict.fromkeys(found))
    assert len({recipe.slug() for recipe in found}) == len(found)
    folders = {Record(tmp_path, recipe, seed).folder for recipe in found for seed in (0, 1, 11)}
    assert len(folders) == 3 * len(found)


def test_epochs_before_and_during_pruning_are_not_confused():
    a, b = (replace(RECIPE, epochs=e, pruning_epochs=p) for e, p in ((1, 2), (2, 1)))
    assert a.slug() != b.slug()


def test_a_name_is_fit_for_a_file_and_says_what_it_is():
    for each in [RECIPE, *changed()]:
        assert re.fullmatch(r"[a-z0-9+-]+", each.slug())
        assert each.slug().startswith(f"{each.network}-{each.data}-{each.regularization}-")


def test_settings_make_the_recipe_again_after_json():
    for recipe in [RECIPE, *changed()]:
        assert Recipe(**json.loads(json.dumps(recipe.settings()))) == recipe


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network", "MLP"),
        ("data", "imagenet"),
        ("regularization", "l3"),
        ("procedure", "author"),
        ("precision", "float16"),
    ],
)
def test_recipes_with_unknown_names_are_refused(name, value):
    with pytest.raises(InputError, match=f"^{name}: must be one of .*{getattr(RECIPE, name)}.*"
                                         f"got '{value}'"):  # fmt: skip
        replace(RECIPE, **{name: value})


def test_dropout_is_where_its_name_is():
    found = {kind for kind in REGULARIZATIONS if replace(RECIPE, regularization=kind).has_dropout}
    assert found == {"dropout", "dropout+l2"}


def test_a_text_follows_the_paper_and_all_else_the_authors():
    found = [replace(RECIPE, procedure=name).follows_authors for name in PROCEDURES]
    assert dict(zip(PROCEDURES, found, strict=True)) == {
        "authors": True, "text": False, "leaky": True,
    }  # fmt: skip


def test_penalties_match_the_regularization():
    networks = ("mlp", "small-mlp", "polynomial-mlp", "small-cnn", "vgg")
    for network, procedure in itertools.product(networks, PROCEDURES):
        base = replace(RECIPE, network=network, procedure=procedure)
        l2 = 5e-4 if network == "vgg" else 5e-5
        swapped = network not in ("small-cnn", "vgg") and procedure != "text"
        first = (l2, 0.0) if swapped else (0.0, l2)
        with_l2 = [first, (0.0, l2), (0.0, l2)]
        expected = {"l1": [(5e-5, 0.0)] * 3, "l2": with_l2, "dropout+l2": with_l2}
        for kind in REGULARIZATIONS:
            found = replace(base, regularization=kind).penalties(3)
            assert found == expected.get(kind, [(0.0, 0.0)] * 3)
