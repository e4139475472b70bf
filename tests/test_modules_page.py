"""The tables of docs/modules.md and docs/training.md are those of the measured CSV."""

from __future__ import annotations

import csv
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"modules.md": 1, "training.md": 7}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "modules_page.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_match_the_csv(script: ModuleType, page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert text.count("<!-- table: scripts/modules_page.py") == PAGES[page]
    assert script.written(text, script.tables()) == text


def test_a_changed_number_is_noticed(script: ModuleType, tmp_path: Path) -> None:
    content = (ROOT / "docs" / "training" / "modules.csv").read_text(encoding="utf-8")
    first = content.splitlines()[1]
    changed = tmp_path / "modules.csv"
    changed.write_text(content.replace(first, re.sub(r"0\.\d{4}", "0.1234", first, count=1)))
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert script.written(text, script.tables(changed)) != text


def test_numbers_follow_their_definitions(script: ModuleType, tmp_path: Path) -> None:
    accuracies = {"none": (0.95, 0.97, 0.96), "cut-dropout": (0.94, 0.97, 0.96)}
    path = tmp_path / "modules.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        header = "data,training,graph,seed,k,accuracy,ncut,shuffled_ncut,cut_accuracy,kept"
        writer.writerow([*header.split(","), "random_kept", "p_value", "worst_layer"])
        for training, values in accuracies.items():
            for seed, accuracy in enumerate(values):
                row = ["digits", training, "whole", seed, 4, accuracy, 1.0, 3.0, 0.9]
                writer.writerow([*row, 0.96, 0.1, 0.05, 3.9])
    (table,) = script.tables(path).values()
    none, cut = (line.strip("| ").split(" | ") for line in table.splitlines()[2:])
    assert none[:2] == ["none", "3"]
    # 4.303 is Student's t of 2 degrees of freedom at 0.975.
    width = 4.303 * np.std(accuracies["none"], ddof=1) / 3**0.5
    assert none[2] == f"0.960 ± {width:.3f}"
    lost = 4.303 * np.std([1, 0, 0], ddof=1) / 3**0.5
    assert cut[3] == f"0.3 ± {lost:.1f}"
    assert cut[-1] == "nothing"


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [("ncut", "1.6", "n-cut"), ("kept", "0.94", "kept"), ("accuracy", "0.9", "accuracy")],
)
def test_short_of_the_goal(
    script: ModuleType, tmp_path: Path, column: str, value: str, named: str
) -> None:
    row = {
        **{"data": "mnist-cnn", "training": "none", "graph": "whole", "seed": "0", "k": "4"},
        **{"accuracy": "0.95", "ncut": "1.0", "shuffled_ncut": "3.0", "cut_accuracy": "0.9"},
        **{"kept": "0.96", "random_kept": "0.1", "p_value": "0.05", "worst_layer": "4.0"},
    }
    path = tmp_path / "modules.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
        writer.writerow(row | {"training": "annealing", column: value})
    (table,) = script.tables(path).values()
    assert table.splitlines()[-1].endswith(f"| {named} |")
