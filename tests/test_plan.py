"""Settings stand in one place: signatures, options and names follow from it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer

import ncut
from ncut import types
from ncut.axes import NORMALIZATIONS, NULL_MODELS
from ncut.cli import app
from ncut.extract import FILE_OPTIONS, GRAPH_OPTIONS, FileOptions, GraphOptions
from ncut.functional import ablate, correlate
from ncut.nulls.sequential import RULES
from ncut.plan import PRESETS, SETTINGS, Plan
from ncut.scans import scan
from ncut.spectral.solvers import SOLVERS

# Parameters that are other ones than the plan's on purpose: (annotation, default).
COUNT = ("int | None", None)
TESTS = {"tests": ("Sequence[str] | None", None)}
OTHERS: dict[str, dict[str, tuple[str, Any]]] = {
    "analyze": TESTS,
    "scan": TESTS,
    "profile": {
        "k": ("Iterable[int]", range(2, 21)),
        "shuffles": COUNT,
        "n_init": ("int", 2),
    },
    "verdict": {
        "shuffles": ("int", 20),
        "null": ("Null | Sequence[Null] | None", None),
        "normalize": ("Normalization | Sequence[Normalization] | None", None),
    },
    "cluster": {"k": ("int", 12), "n_init": ("int | Literal['auto']", "auto")},
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "analyze": ncut.analyze,
    "scan": scan,
    "profile": ncut.profile,
    "verdict": ncut.verdict,
    "cluster": ncut.cluster,
}


def expected(name: str) -> tuple[str, Any]:
    """A setting's annotation and default in signatures."""
    kind, default = Plan.__annotations__[name], SETTINGS[name].default
    return (f"{kind} | None" if default is None else kind), default


@pytest.mark.parametrize("function", FUNCTIONS)
def test_signatures_match_the_plan(function: str) -> None:
    parameters = inspect.signature(FUNCTIONS[function]).parameters
    shared = parameters.keys() & SETTINGS.keys()
    assert {"seed", "solver", "threads", "device"} <= shared
    for name in shared:
        found = parameters[name].annotation.replace('"', "'"), parameters[name].default
        assert found == OTHERS[function].get(name, expected(name)), name


def test_an_analysis_has_every_setting() -> None:
    assert SETTINGS.keys() < inspect.signature(ncut.analyze).parameters.keys()
    assert SETTINGS.keys() < inspect.signature(scan).parameters.keys()


def test_options_of_graphs_match_read_graph() -> None:
    parameters = inspect.signature(ncut.graph).parameters
    assert set(GRAPH_OPTIONS) == parameters.keys() - {"model"}
    assert set(FILE_OPTIONS) < set(GRAPH_OPTIONS)
    annotations = {**FileOptions.__annotations__, **GraphOptions.__annotations__}
    for name in GRAPH_OPTIONS:
        assert annotations[name].__forward_arg__ == parameters[name].annotation, name


@pytest.mark.parametrize(
    ("literal", "names"),
    [
        (types.Null, tuple(NULL_MODELS)),
        (types.Normalization, tuple(NORMALIZATIONS)),
        (types.Solver, ("auto", *SOLVERS)),
        (types.Sequential, tuple(RULES)),
        (types.PresetName, PRESETS),
    ],
)
def test_closed_sets_of_names_are_literals(literal: Any, names: tuple[str, ...]) -> None:
    assert set(get_args(literal)) == set(names)


def test_presets_supply_missing_settings() -> None:
    paper, torch = Plan.of(), Plan.of(preset="hcai-torch", shuffles=7)
    assert (paper.k, paper.shuffles, paper.null, paper.normalize) == (12, 50, "layer", "none")
    assert (torch.k, torch.shuffles, torch.null, torch.normalize) == (4, 7, "layer", "l2")
    assert all(
        set(one.presets) in ({}, set(PRESETS)) or not one.presets for one in SETTINGS.values()
    )


def test_tests_are_names_or_none() -> None:
    assert Plan.of().tests is None
    for given in ("alignment, residual", ["alignment", "residual"]):
        assert Plan.of(tests=given).tests == ("alignment", "residual")
    assert Plan.of(tests="none").tests == Plan.of(tests=[]).tests == ()
    assert Plan.of(tests="residual").recorded()["tests"] == ["residual"]
    assert "tests" not in Plan.of().recorded()
    for wrong in ("layer", "alignment,", 3):
        with pytest.raises(ncut.InputError, match=r"^tests: must be"):
            Plan.of(tests=wrong)
    with pytest.raises(ncut.InputError, match=r"^tests: .* shuffles=0"):
        Plan.of(tests="alignment", shuffles=0)


def commands() -> dict[str, Any]:
    found = typer.main.get_command(app)
    return {name: {p.name: p for p in one.params} for name, one in found.commands.items()}


def test_options_of_commands_are_settings_with_their_help() -> None:
    options = commands()
    assert SETTINGS.keys() < options["analyze"].keys()
    assert SETTINGS.keys() < options["scan"].keys()
    for command in ("analyze", "profile", "scan"):
        for name in options[command].keys() & SETTINGS.keys():
            if (command, name) not in {("profile", "k"), ("scan", "threads")}:
                assert options[command][name].help == SETTINGS[name].help, (command, name)
                assert options[command][name].default in (None, False), (command, name)


def test_reports_hold_every_setting() -> None:
    report = ncut.analyze([[[1.0, 0.5], [0.2, 1.0]]] * 3, k=2, shuffles=3, seed=4).to_dict()
    recorded = {name for name, one in SETTINGS.items() if one.recorded}
    assert recorded - {"shuffles", "level"} < report.keys()


WEIGHTS = [[[1.0, 0.5], [0.2, 1.0]]] * 3
MISSPELT: list[tuple[Callable[..., Any], str, str]] = [
    (ncut.analyze, "shufles", "shuffles"),
    (ncut.analyze, "scop", "scope"),
    (ncut.profile, "nul", "null"),
    (ncut.verdict, "rescaling", "rescalings"),
    (ncut.graph, "layer", "layers"),
    (ncut.cluster, "solvr", "solver"),
    (ncut.shuffle, "sed", "seed"),
    (ncut.normalized_cut, "label", "labels"),
    (ncut.partition_measures, "label", "labels"),
    (ncut.adjusted_p_values, "p_value", "p_values"),
    (ncut.Report.ablate, "random_set", "random_sets"),
    (ncut.Report.correlate, "input", "inputs"),
    (ncut.Report.to_html, "titel", "title"),
    (ablate, "pair", "pairs"),
    (correlate, "activation", "activations"),
    (scan, "job", "jobs"),
    (scan, "normalise", "normalize"),
]


@pytest.mark.parametrize(("function", "typed", "meant"), MISSPELT)
def test_a_misspelt_argument_gets_a_suggestion(
    function: Callable[..., Any], typed: str, meant: str
) -> None:
    with pytest.raises(ncut.InputError, match=rf"^{typed}: ncut\..*did you mean '{meant}'") as told:
        function(WEIGHTS, **{typed: 1})
    assert isinstance(told.value, TypeError)
    assert "read_graph" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "typed", "meant"),
    [
        ("EigenvalueRegularizer", "wieght", "weight"),
        ("PolynomialPruning", "endstep", "end_step"),
        ("laplacian_eigenvalues", "norms", "norm"),
        ("clusterable_init_", "tag", "tags"),
        ("normalize_", "example_input", "example_inputs"),
        ("SoftCutRegularizer", "lerning_rate", "learning_rate"),
        ("SoftCutRegularizer", "everyy", "every"),
        ("PartitionRegularizer", "labelss", "labels"),
        ("CutDropout", "shar", "share"),
        ("PartitionAnnealing", "endstep", "end_step"),
    ],
)
def test_a_misspelt_argument_of_the_training_side(name: str, typed: str, meant: str) -> None:
    pytest.importorskip("torch", reason="pip install torch")
    with pytest.raises(ncut.UnknownArgumentError, match=f"^{typed}: .*did you mean '{meant}'"):
        getattr(ncut, name)(None, **{typed: 1})


@pytest.mark.parametrize(("typed", "meant"), [("L2", "l2"), ("balance", "balanced")])
def test_a_misspelt_choice_gets_a_suggestion(typed: str, meant: str) -> None:
    with pytest.raises(ncut.InputError, match=f"^normalize: .*got '{typed}'; did you.*'{meant}'"):
        ncut.analyze([np.ones((6, 5)), np.ones((5, 4))], normalize=typed)  # type: ignore[arg-type]


def test_without_a_near_match_all_names_are_listed() -> None:
    with pytest.raises(
        ncut.InputError, match=r"xyz: ncut\.shuffle has no such .*graph, null, numb"
    ):
        ncut.shuffle(WEIGHTS, xyz=1)  # type: ignore[call-arg]


def test_a_misspelt_option_gets_a_suggestion() -> None:
    from typer.testing import CliRunner

    for command in ("analyze", "profile", "scan"):
        told = CliRunner().invoke(app, [command, "model.npz", "--shufles", "3"])
        assert told.exit_code == 2
        assert "--shuffles" in told.output


SNIPPET = """
import ncut

ncut.analyze([], k=4, null="layer", normalize="l2", solver="auto", scope="all")
ncut.analyze([], null="layrs")
ncut.analyze([], kk=4)
ncut.analyze([], scope="al")
ncut.verdict([], normalize=["none", "l3"])
ncut.profile([], solver="krilov")
ncut.cluster([], solver="krilov")
ncut.shuffle([], "layers")
"""


@pytest.mark.slow
def test_type_checkers_see_wrong_names(tmp_path: Path) -> None:
    """A minute without mypy's cache: it reads the whole package, as it does for a user."""
    pytest.importorskip("mypy", reason="pip install mypy")
    snippet = tmp_path / "user.py"
    snippet.write_text(SNIPPET, encoding="utf-8")
    told = subprocess.run(
        [sys.executable, "-m", "mypy", str(snippet)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = {int(line.split(":")[1]) for line in told.stdout.splitlines() if "user.py:" in line}
    assert lines == set(range(5, 12)), told.stdout + told.stderr


def test_every_function_that_clusters_takes_a_device() -> None:
    report = ncut.analyze(WEIGHTS, k=2, shuffles=0)
    activations = [np.random.default_rng(5).normal(size=(9, 2)) for _ in report.layers]
    for measure in (
        lambda **more: ncut.analyze(WEIGHTS, k=2, shuffles=0, **more),
        lambda **more: ncut.profile(WEIGHTS, [2], shuffles=0, **more),
        lambda **more: ncut.verdict(WEIGHTS, k=2, shuffles=19, **more),
        lambda **more: report.correlate(activations=activations, **more),
        lambda **more: scan([], "out", **more),
    ):
        with pytest.raises(ncut.InputError, match=r"^device: must be 'cpu', 'cuda' or"):
            measure(device="tpu")
