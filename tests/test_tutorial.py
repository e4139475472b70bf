"""The tutorial runs from top to bottom, and says what its text promises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "tutorial.ipynb"
HOW = "is not installed; make test installs it, or pip install '.[dev]'"


@pytest.fixture(scope="module")
def notebook() -> Any:
    nbformat = pytest.importorskip("nbformat", reason=f"nbformat {HOW}")
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def printed(notebook: Any, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The text output of each code cell, by the cell's name.

    Twenty seconds, as the notebook trains networks and measures each for itself.
    """
    nbclient = pytest.importorskip("nbclient", reason=f"nbclient {HOW}")
    pytest.importorskip("ipykernel", reason=f"ipykernel {HOW}")
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment
        client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
        client.execute(cwd=str(folder))
    texts = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [output for output in cell.outputs if output.output_type != "stream"]
            streams = [output for output in cell.outputs if output.output_type == "stream"]
            assert not [output.text for output in streams if output.name == "stderr"], cell.id
            texts[cell.id] = "".join(output.text for output in streams) + "".join(
                output.data["text/plain"] for output in shown
            )
    return texts


def test_is_committed_without_outputs(notebook: Any) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.slow
def test_measures_a_network(printed: Mapping[str, str]) -> None:
    assert "More clusterable than all 50 shuffled networks" in printed["analyze"]
    assert "3 Axes" in printed["pictures"]
    assert printed["verdict-code"].startswith("Clusterable, whatever the scale of neurons")


@pytest.mark.slow
def test_trains_a_clusterable_network(printed: Mapping[str, str]) -> None:
    numbers = printed["compare"].replace(",", "").split()
    cuts = [float(numbers[at + 1]) for at, word in enumerate(numbers) if word == "n-cut"]
    accuracies = [float(numbers[at + 1]) for at, word in enumerate(numbers) if word == "accuracy"]
    plain, penalized = cuts
    assert penalized < plain / 2
    assert abs(accuracies[1] - accuracies[0]) < 0.03
    assert "more important than 20 random sets" in printed["ablate"]
    assert "adjusted Rand index" in printed["correlate"]


@pytest.mark.slow
def test_reads_a_model_of_ones_own(printed: Mapping[str, str]) -> None:
    assert "'mylib::bump'" in printed["own-model"]
    assert "0 calls" in printed["own-graph"]
    assert "stream: 154 vertices" in printed["own-stream"]
    assert printed["save-code"] == "True"
