"""The commands `analyze`, `info` and `demo`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from cli_runs import SMALL, assert_one_line_error, on_terminal
from typer.testing import CliRunner

from ncut import Report
from ncut.cli import app


def test_a_minute_is_enough_for_a_first_answer(monkeypatch, model, tmp_path):
    monkeypatch.setattr(sys.modules["ncut.cli.analyze"].Minute, "SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    command = ["analyze", str(model), "--k", "3", "--json", "a.json", "--html", "a.html"]
    result = CliRunner().invoke(app, [*command, "--threads", "1"])
    assert result.exit_code == 0
    assert Report.from_json(tmp_path / "a.json").n_shuffles == 1
    rest = r"ncut: 1 of 50 shuffles in a minute; the others take about \d+ s: add --full\n"
    assert re.search(rest, result.stderr)
    assert (tmp_path / "a.html").exists()
    for more in ("--full", "--shuffles=50"):
        result = CliRunner().invoke(app, [*command[:-2], more])
        assert Report.from_json(tmp_path / "a.json").n_shuffles == 50
        assert "--full" not in result.stderr


@pytest.mark.parametrize("name", ["out.txt", "-", "page"])
def test_a_page_must_be_named_so(ncut, model, name):
    assert_one_line_error(ncut("analyze", model, "--html", name), "--html", ".html")


def test_analyze_prints_the_summary(ncut, model, tmp_path):
    result = ncut("analyze", model, *SMALL, "--json", "report.json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == "ncut: wrote report.json\n"
    report = Report.from_json(tmp_path / "report.json")
    assert result.stdout == f"{report}\n"
    assert (report.k, report.n_shuffles, report.model) == (3, 6, "mlp")
    assert report.n_isolated == 1


def test_analyze_is_the_library_call(ncut, model):
    import ncut as package

    options = ("--seed", "3", "--null", "layer-nonzero", "--n-init", "7", "--threads", "1")
    options = (*options, "--refine")
    result = ncut("analyze", model, *SMALL, *options, "--json", "-")
    expected = package.analyze(
        model, k=3, shuffles=6, seed=3, null="layer-nonzero", n_init=7, threads=1, refine=True
    )
    assert Report.from_json(result.stdout) == expected
    assert expected.n_init == 7


def test_json_on_standard_output_is_nothing_but_json(ncut, model):
    result = ncut("analyze", model, "--k", "11", "--shuffles", "0", "--json", "-")
    assert result.returncode == 0
    data = json.loads(result.stdout)
    assert data["shuffled_ncuts"] == []
    # k is close to the number of neurons: the report warns, and not in the JSON's way.
    assert data["warnings"]
    lines = result.stderr.splitlines()
    assert len(lines) == len(data["warnings"])
    assert all(line.startswith("ncut: warning: ") for line in lines)


def test_warnings_are_part_of_the_summary(ncut, model):
    result = ncut("analyze", model, "--k", "11", "--shuffles", "0")
    assert "\nwarning: " in result.stdout
    assert result.stderr == ""


def test_html_and_picture(ncut, model, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'ncut[plot]'")
    pytest.importorskip("jinja2", reason="pip install 'ncut[plot]'")
    result = ncut("analyze", model, *SMALL, "--html", "report.html", "--plot", "null.png")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "from the mean of 20 shuffles" in page
    assert (tmp_path / "null.png").read_bytes().startswith(b"\x89PNG")


def test_html_without_a_profile(ncut, model, tmp_path):
    pytest.importorskip("jinja2", reason="pip install 'ncut[plot]'")
    result = ncut("analyze", model, *SMALL, "--html", "report.html", "--no-profile")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'data-figure="clusters"' in page
    assert 'data-figure="scores"' not in page


def test_html_of_a_network_too_small_for_a_profile_over_many_k(ncut, tmp_path):
    pytest.importorskip("jinja2", reason="pip install 'ncut[plot]'")
    square = np.array([[1.0, 0.2], [0.1, 1.0]])
    np.savez(tmp_path / "tiny.npz", w0=square, w1=square)
    result = ncut("analyze", "tiny.npz", "--k", "2", "--shuffles", "5", "--html", "a.html")
    assert result.returncode == 0, result.stderr
    assert 'data-figure="gaps"' in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_info_shows_the_graph(ncut, model):
    result = ncut("info", model)
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert "36 vertices, 1 of them isolated;" in result.stdout
    assert ["input", "12", "1"] in rows
    first, parameter = (row for row in rows if "12x10" in "".join(row))
    with np.load(model) as arrays:
        share = np.count_nonzero(arrays["w0"]) / 120
    assert f"{share:.1%}" in first
    assert "dense" in first
    assert parameter[0] == "w0"
    assert " ".join(parameter).endswith("placed edges into 'w0'")
    assert "Nothing was left out." in result.stdout


def test_info_predicts_the_cost(ncut, model):
    assert re.search(r"on \d+ threads: about \d+\.\d s and \d+ MiB", ncut("info", model).stdout)


def test_info_says_what_was_left_out_and_why(ncut, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "cnn.npz",
        **{
            "conv0.weight": rng.normal(size=(6, 3, 3, 3)),
            "conv1.weight": rng.normal(size=(5, 6, 3, 3)),
            "conv2.weight": rng.normal(size=(4, 5, 3, 3)),
        },
    )
    paper, whole = ncut("info", "cnn.npz"), ncut("info", "cnn.npz", "--scope", "all")
    assert paper.returncode == whole.returncode == 0, paper.stderr + whole.stderr
    assert "15 vertices" in paper.stdout
    assert re.search(r"\nconv0 +6 x 3 x 3 x 3 +\S", paper.stdout)
    assert "18 vertices" in whole.stdout


def test_norm_reaches_the_library(ncut, model):
    assert_one_line_error(ncut("info", model, "--norm", "l7"), "norm", "l7")
    assert_one_line_error(ncut("analyze", model, "--norm", "l7"), "norm", "l7")


def test_a_missing_model_is_wrong_usage(ncut):
    assert ncut("analyze").returncode == 2


@pytest.mark.parametrize("command", ["analyze", "info"])
def test_a_model_that_is_not_there(ncut, command):
    assert_one_line_error(ncut(command, "none.npz"), "none.npz", "no such file")


@pytest.mark.parametrize("command", ["analyze", "info"])
def test_a_file_that_is_no_model(ncut, command, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"this is no archive")
    assert_one_line_error(ncut(command, "bad.npz"), "bad.npz")


def test_an_error_of_the_library_is_one_line(ncut, model):
    assert_one_line_error(ncut("analyze", model, "--null", "mine"), "null", "mine")
    assert_one_line_error(ncut("analyze", model, "--k", "1000"), "k", "1000")


@pytest.mark.parametrize("option", ["--json", "--html", "--plot"])
@pytest.mark.parametrize(
    ("target", "message"),
    [("none/out.svg", "does not exist"), (".", "is a folder"), ("mlp.npz", "part of the model")],
)
def test_impossible_outputs_stop_before_the_work(ncut, model, tmp_path, option, target, message):
    local = tmp_path / "mlp.npz"
    local.write_bytes(model.read_bytes())
    result = ncut("analyze", local, "--null", "no such null model", option, target)
    # The library would refuse the null model, had it been called.
    assert_one_line_error(result, message)
    assert local.read_bytes() == model.read_bytes()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_to_the_model_is_not_overwritten(ncut, model, tmp_path, link):
    link(model, tmp_path / "link.json")
    result = ncut("analyze", model, *SMALL, "--json", "link.json")
    assert_one_line_error(result, "part of the model")


def test_two_outputs_of_one_name(ncut, model):
    pytest.importorskip("matplotlib", reason="pip install 'ncut[plot]'")
    pytest.importorskip("jinja2", reason="pip install 'ncut[plot]'")
    result = ncut("analyze", model, *SMALL, "--json", "a.svg", "--html", "./a.svg")
    assert_one_line_error(result, "named twice")


def test_an_unknown_picture_format(ncut, model):
    pytest.importorskip("matplotlib", reason="pip install 'ncut[plot]'")
    result = ncut("analyze", model, *SMALL, "--plot", "picture.xyz")
    assert_one_line_error(result, "picture.xyz", ".png")


def test_progress_on_a_terminal(model, tmp_path):
    code, output, shown = on_terminal(("analyze", model, *SMALL), tmp_path)
    assert code == 0
    assert "6/6" in shown
    assert "\x1b" not in output


def test_ctrl_c_keeps_finished_results(model, tmp_path):
    arguments = ("analyze", model, "--k", "3", "--shuffles", "5000", "--json", "part.json")
    code, output, shown = on_terminal(arguments, tmp_path, interrupt_at=r"[1-9]\d*/5000")
    assert code == 130
    assert "ncut: interrupted" in shown
    assert "Traceback" not in shown
    report = Report.from_json(tmp_path / "part.json")
    assert 0 < report.n_shuffles < 5000
    assert output == f"{report}\n"
    assert any("stopped after" in warning for warning in report.warnings)


TOP = (
    "Size of the effect",
    "Modules through layers",
    "Beyond neuron strength",
    "As the paper measures it",
    "Same partition again",
    "Clusters are whole layers",
    "Clusters do different things",
)


def test_demo(ncut, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'ncut[plot]'")
    pytest.importorskip("jinja2", reason="pip install 'ncut[plot]'")
    result = ncut("demo", "--shuffles", "20", "--out", "page.html")
    assert result.returncode == 0, result.stderr
    assert result.stderr == "ncut: wrote page.html\n"
    for name in ("digits-unpruned", "digits-pruned"):
        top = result.stdout.split(f"{name}\nMore clusterable than all 20 shuffled networks")[1]
        places = [top.index(title) for title in TOP]
        assert places == sorted(places)
    assert result.stdout.index("Size of the effect") < result.stdout.index("Z  ")
    assert "wrote page.html" in result.stderr
    assert "\x1b" not in result.stdout
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count('<article id="network-') == 2
    assert html.count('data-figure="scores"') == 2


def test_demo_checks_its_output_first(ncut):
    result = ncut("demo", "--out", "none/page.html")
    assert_one_line_error(result, "does not exist")  # and nothing was printed before


@pytest.mark.parametrize("missing", ["jinja2"])
def test_demo_without_the_extra_names_it_and_continues(missing, tmp_path):
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.modules['torch'] = None;"
        "sys.argv = ['ncut', 'demo', '--shuffles', '20']; from ncut.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "digits-pruned\nMore clusterable" in result.stdout
    assert missing in result.stderr
    assert "ncut[plot]" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "missing"), [("--html=a.html", "jinja2"), ("--plot=a.png", "matplotlib")]
)
def test_analyze_without_the_extra_stops_before_the_work(model, option, missing, tmp_path):
    arguments = ["ncut", "analyze", str(model), "--null", "no such null model", option]
    code = (
        f"import sys; sys.modules[{missing!r}] = None;"
        f"sys.argv = {arguments!r}; from ncut.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert_one_line_error(result, "ncut[plot]")


@pytest.mark.parametrize("rule", ["betting", "besag-clifford"])
def test_auto_shuffles_are_the_library_call(ncut, model, rule):
    import ncut as package

    options = ("--k", "3", "--shuffles", "auto", "--max-shuffles", "60", "--level", "0.1")
    result = ncut("analyze", model, *options, "--sequential", rule, "--json", "-")
    expected = package.analyze(
        model, k=3, shuffles="auto", max_shuffles=60, level=0.1, sequential=rule
    )
    assert Report.from_json(result.stdout) == expected
    assert expected.sequential.startswith(f"{rule} stopped after ")


def test_normalize_and_preset_reach_the_library(ncut, model):
    import ncut as package

    balanced = ncut("analyze", model, *SMALL, "--normalize", "balanced", "--json", "-")
    assert Report.from_json(balanced.stdout) == package.analyze(
        model, k=3, shuffles=6, normalize="balanced"
    )
    preset = ncut("analyze", model, "--preset", "hcai-torch", "--json", "-")
    report = Report.from_json(preset.stdout)
    assert (report.k, report.n_shuffles, report.normalize) == (4, 100, "l2")
    own = ncut(
        "analyze", model, *SMALL, "--preset", "hcai-torch", "--normalize", "none", "--json", "-"
    )
    report = Report.from_json(own.stdout)
    assert (report.k, report.n_shuffles, report.normalize) == (3, 6, "none")
    text = ncut("analyze", model, *SMALL, "--normalize", "balanced").stdout
    assert "\nscale " in text


def test_tests_are_chosen(ncut, model):
    both = ncut("analyze", model, *SMALL, "--tests", "alignment,residual", "--json", "-")
    assert list(json.loads(both.stdout)["tests"]) == ["alignment", "residual"]
    assert json.loads(both.stdout)["tests"]["residual"]["p_value"] is not None
    none = ncut("analyze", model, *SMALL, "--tests", "none", "--json", "-")
    assert json.loads(none.stdout)["tests"] == {}
    assert_one_line_error(ncut("analyze", model, "--tests", "layer"), "tests", "alignment")
    assert_one_line_error(ncut("analyze", model, "--tests", "residual", "--verdict"), "--tests")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--level", "0"), ("level",)),
        (("--level", "1.5"), ("level",)),
        (("--max-shuffles", "10"), ("--max-shuffles", "10")),
        (("--sequential", "never"), ("sequential", "never")),
    ],
)
def test_errors_of_auto_shuffles_are_one_line(ncut, model, options, parts):
    assert_one_line_error(ncut("analyze", model, "--shuffles", "auto", *options), *parts)


@pytest.mark.parametrize(
    "options",
    [("--level", "x"), ("--shuffles", "many"), ("--shuffles", "2.5"), ("--max-shuffles", "0")],
)
def test_wrong_usage_of_auto_shuffles(ncut, model, options):
    result = ncut("analyze", model, *options)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
