"""The models that a scan finds, their order, and the detection of changed ones."""

from __future__ import annotations

import os

import pytest

from ncut.errors import InputError
from ncut.scans.sources import find_sources, source_of, step_of


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Checkpoints of two runs, a transformer's folder, and what lies beside them."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *("a/epoch-2.pt", "a/epoch-10.pt", "a/optimizer.pt", "a/rng_state_0.pth", "a/notes.md"),
        *("b/model.onnx", "b/.hidden.npz", "b/.cache/w.npz"),
        *("c/checkpoint-500/config.json", "c/checkpoint-500/model.safetensors"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def paths(*given):
    return [source.path for source in find_sources(given)]


def test_a_folder_is_searched_through_and_checkpoints_are_in_order(tree):
    assert paths(".") == ["a/epoch-2.pt", "a/epoch-10.pt", "b/model.onnx", "c/checkpoint-500"]


def test_a_folder_with_a_configuration_is_one_model(tree):
    assert paths("c") == paths("c/checkpoint-500") == ["c/checkpoint-500"]


@pytest.mark.parametrize("pattern", ["a/*.pt", "**/epoch*", "a/epoch-*.pt"])
def test_patterns(tree, pattern):
    assert [p for p in paths(pattern) if "epoch" in p] == ["a/epoch-2.pt", "a/epoch-10.pt"]


def test_a_pattern_skips_files_that_are_not_models(tree):
    assert "a/notes.md" not in paths("a/*")


def test_a_list_is_relative_to_its_folder_and_may_name_missing_files(tree):
    (tree / "c" / "list.txt").write_text(
        "# comment\n\n../a/epoch-2.pt  # the first\nmissing.npz\n../b\n"
    )
    found = find_sources(["c/list.txt"])
    assert [s.path for s in found] == ["c/../a/epoch-2.pt", "c/missing.npz", "c/../b/model.onnx"]
    assert [bool(source.fingerprint) for source in found] == [True, False, True]


def test_a_model_that_is_named_twice_is_one(tree):
    assert paths("a/epoch-2.pt", "a", tree / "a") == ["a/epoch-2.pt", "a/epoch-10.pt"]


def test_any_file_may_be_named_itself(tree):
    assert paths("a/notes.md", "a/optimizer.pt") == ["a/notes.md", "a/optimizer.pt"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nothing.pt", "nothing.pt: no such file"),
        ("*.pt", "no model matches '\\*.pt'"),
        ("empty", "the folder empty holds no models"),
    ],
)
def test_missing_files_are_errors(tree, path, words):
    (tree / "empty").mkdir()
    with pytest.raises(InputError, match=words):
        find_sources([path])


def test_no_paths_are_an_error():
    with pytest.raises(InputError, match="no models given"):
        find_sources([])


def test_a_list_of_nothing_is_named(tree):
    (tree / "models.txt").write_text("\n")
    with pytest.raises(InputError, match=r"models\.txt"):
        find_sources([tree / "models.txt"])


@pytest.mark.parametrize(
    ("name", "step"),
    [("epoch-07.pt", 7), ("checkpoint-500", 500), ("model.pt", None), ("v2-step_30.npz", 30)],
)
def test_the_step_is_the_last_number(tmp_path, name, step):
    assert source_of(tmp_path / name).step == step


def test_the_key_is_of_the_path_and_the_fingerprint_of_the_files(tree):
    before = source_of("a/epoch-2.pt")
    assert source_of(tree / "a" / "epoch-2.pt").key == before.key
    assert source_of("a/epoch-2.pt").fingerprint == before.fingerprint
    os.utime("a/epoch-2.pt", ns=(0, 123))
    assert source_of("a/epoch-2.pt").fingerprint != before.fingerprint
    folder = source_of("c/checkpoint-500")
    (tree / "c/checkpoint-500/model.safetensors").write_text("x" * 99)
    changed = source_of("c/checkpoint-500")
    assert changed.key == folder.key
    assert changed.fingerprint != folder.fingerprint
    assert changed.n_bytes > folder.n_bytes


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-500", 500),
        ("epoch_07.pt", 7),
        ("step-3-seed-1.npz", 3),
        ("epoch=4-loss=0.25.ckpt", 4),
        ("model_000120.safetensors", 120),
        ("12.npz", 12),
        ("fashion-none-0-init.npz", None),
        ("resnet50.pth", None),
        ("llama-3.2", None),
    ],
)
def test_steps_are_recognized_by_name(name, step):
    assert step_of(f"runs-7/{name}") == step


def test_a_step_pattern_is_checked():
    assert step_of("runs/it12/w.npz", "it([0-9]+)") == 12
    assert step_of("runs/w.npz", "it([0-9]+)") is None
    for pattern, message in (("it(", "not a regular"), ("it[0-9]+", "no group"), ("(i.)", "'it'")):
        with pytest.raises(InputError, match=message):
            step_of("runs/it12/w.npz", pattern)
