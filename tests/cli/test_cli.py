"""The command line as a user has it: processes in a folder of their own."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ncut import Report
from ncut.cli import app

SIZES = (12, 10, 8, 6)
SMALL = ("--k", "3", "--shuffles", "6")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A file with a sparse network, where neuron 0 of the input has no edges."""
    rng = np.random.default_rng(0)
    weights = {}
    for number, shape in enumerate(pairwise(SIZES)):
        weights[f"w{number}"] = rng.normal(size=shape) * (rng.random(shape) < 0.7)
    weights["w0"][0] = 0.0
    path = tmp_path_factory.mktemp("model") / "mlp.npz"
    np.savez(path, **weights)
    return path


def assert_one_line_error(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"ncut: error: [^\n]+\n", result.stderr), result.stderr
    for part in parts:
        assert part in result.stderr


def test_version_is_the_package_metadata(ncut):
    from importlib.metadata import version

    assert ncut("--version").stdout == f"ncut {version('ncut')}\n"


def test_help_loads_no_rooms(tmp_path):
    code = (
        "import sys; from typer.testing import CliRunner; from ncut.cli import app;"
        "result = CliRunner().invoke(app, ['--help']);"
        "assert result.exit_code == 0 and 'analyze' in result.stdout, result.output;"
        "heavy = {'numpy', 'scipy', 'torch', 'matplotlib', 'pandas', 'ncut.analysis'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_help_begins_with_what_is_used_first(ncut):
    text = ncut("--help").stdout
    assert ncut("-h").stdout == text
    places = [text.index(f" {name} ") for name in ("demo", "info", "analyze", "compare", "scan")]
    assert places == sorted(places)
    assert "Start here: ncut demo" in text


def test_help_has_options_in_groups_and_flags_without_a_type(ncut):
    text = ncut("analyze", "--help").stdout
    groups = ("Options", "Measurement", "Computing", "Reading the model")
    places = [text.index(f"─ {group} ─") for group in groups]
    assert places == sorted(places)
    assert places[1] < text.index("--null") < places[2] < text.index("--threads") < places[3]
    assert "<bool>" not in text + ncut("--help").stdout


@pytest.mark.parametrize(
    ("option", "begun", "names"),
    [
        ("--null", "layer-nonzero", ["layer-nonzero", "layer-nonzero-kde"]),
        ("--residual", "", ["readers", "stream"]),
        ("--solver", "ar", ["arpack"]),
    ],
)
def test_a_shell_completes_the_names_that_an_option_takes(option, begun, names):
    words = {"COMP_WORDS": f"ncut analyze model.pt {option} {begun}", "COMP_CWORD": "4"}
    asked = words | {"_NCUT_COMPLETE": "complete_bash"}
    assert CliRunner().invoke(app, [], env=asked, prog_name="ncut").stdout.split() == names


def test_a_minute_is_enough_for_a_first_answer(monkeypatch, model, tmp_path):
    monkeypatch.setattr(sys.modules["ncut.cli.app"].Minute, "SECONDS", 0.0)
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


def test_quiet_and_verbose_anywhere(ncut, model):
    options = ("--k", "11", "--shuffles", "0", "--json", "a.json")
    assert ncut("analyze", model, *options, "-q").stderr == ""
    assert ncut("-q", "analyze", model, *options).stderr == ""
    assert ncut("analyze", model, *options).stderr == "ncut: wrote a.json\n"
    told = ncut("analyze", model, "-v", *options).stderr
    assert re.fullmatch(r"ncut: wrote a.json\nncut: done in [\d.]+ s\n", told)


def test_wrong_usage_is_told_in_one_line(ncut, model):
    for command, part in (
        (("analyze", model, "--nul", "layer"), "--null"),
        (("analyze",), "model"),
        (("analyze", model, "--k", "1"), "2"),
        (("nosuch",), "nosuch"),
        (("profile", model, "--k", "6-2"), "from the smaller number"),
    ):
        result = ncut(*command)
        assert result.returncode == 2
        assert re.fullmatch(r"ncut: error: [^\n]+\n", result.stderr), result.stderr
        assert part in result.stderr


@pytest.mark.parametrize("command", [(), ("paper",)])
def test_a_command_without_arguments_is_its_help_and_no_error(ncut, command):
    result = ncut(*command)
    assert result.returncode == 2
    assert result.stdout.rstrip() == ncut(*command, "--help").stdout.rstrip()
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("analyze", "--k", "99"), 1, "--k: "),
        (("analyze", "--null", "layr"), 1, "--null: must be one of"),
        (("analyze", "--max-shuffles", "1", "--shuffles", "auto"), 1, "--max-shuffles: "),
        (("analyze", "--shuffles", "-1"), 2, "Invalid value for --shuffles: "),
        (("profile", "--k", "5-2"), 2, "Invalid value for --k: "),
        (("profile", "--k", "a-b"), 2, "Invalid value for --k: "),
    ],
)
def test_an_error_names_the_option_as_it_is_typed(ncut, model, arguments, code, message):
    result = ncut(arguments[0], model, *arguments[1:])
    assert result.returncode == code
    assert result.stderr.startswith(f"ncut: error: {message}")


def test_a_home_folder_is_expanded_where_no_shell_does(ncut, model, tmp_path):
    (tmp_path / "net.npz").write_bytes(model.read_bytes())
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    assert ncut("info", "~/net.npz", "--dot=~/net.dot", **home).returncode == 0
    assert ncut("scan", "~/net.npz", "--out=~/res", *SMALL, **home).returncode == 0
    assert {entry.name for entry in tmp_path.iterdir()} >= {"net.dot", "res"}
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("-", "name a file"),
        ("https://example.org/net.pt", "download the file first"),
        ("s3://bucket/net.safetensors", "download the file first"),
    ],
)
def test_what_is_no_path_is_said(ncut, name, hint):
    assert_one_line_error(ncut("analyze", name), hint)


def test_tables_for_pipes(ncut, model, tmp_path):
    dot = ncut("info", model, "--dot", "-").stdout
    assert dot.startswith("digraph")
    ncut("info", model, "--dot", "net.dot")
    assert (tmp_path / "net.dot").read_text() == dot
    ncut("scan", model, "--out", "res", *SMALL)
    csv = ncut("report", "res", "--csv", "-").stdout
    ncut("report", "res", "--csv", "res.csv")
    assert (tmp_path / "res.csv").read_text() == csv
    assert not (tmp_path / "-").exists()


def test_standard_output_that_is_closed_or_full(model, tmp_path):
    command = f"{sys.executable} -m ncut analyze {model} --k 3 --shuffles 2 --json net.json"
    closed = subprocess.run(
        f"{command} >&-", shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (closed.returncode, closed.stderr) == (0, "ncut: wrote net.json\n")
    assert Report.from_json(tmp_path / "net.json").n_shuffles == 2
    full = subprocess.run(
        f"{command} >/dev/full", shell=True, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert full.returncode == 1
    assert full.stderr.endswith("ncut: error: standard output: No space left on device\n")


def test_a_near_miss_is_suggested(ncut, model):
    result = ncut("analyze", model, "--null", "strenth")
    assert "did you mean 'strength'?" in result.stderr
    assert "did you mean" not in ncut("analyze", model, "--null", "xyzzy").stderr


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


@pytest.mark.parametrize(
    "arguments",
    [
        ("--k", "1"),
        ("--shuffles", "-1"),
        ("--threads", "0"),
        ("--n-init", "many"),
        ("--seed", "x"),
        ("--nonsense",),
    ],
)
def test_wrong_usage(ncut, model, arguments):
    result = ncut("analyze", model, *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


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


def test_a_pipe_gets_no_escape_sequences(ncut, model):
    for arguments in (("analyze", model, *SMALL), ("info", model), ("analyze", "none.npz")):
        result = ncut(*arguments, TERM="xterm-256color")
        assert "\x1b" not in result.stdout + result.stderr


def on_terminal(arguments, folder, *, interrupt_at: str | None = None) -> tuple[int, str, str]:
    """Run with standard error on a terminal: exit code, standard output, what it showed."""
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ncut", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=side,
        encoding="utf-8",
    )
    os.close(side)
    shown = ""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not data:
            break
        shown += data.decode(errors="replace")
        if interrupt_at and re.search(interrupt_at, shown):
            process.send_signal(signal.SIGINT)
            interrupt_at = None
    output, _ = process.communicate()
    os.close(terminal)
    return process.returncode, output, shown


def test_progress_on_a_terminal(model, tmp_path):
    code, output, shown = on_terminal(("analyze", model, *SMALL), tmp_path)
    assert code == 0
    assert "6/6" in shown
    assert "\x1b" not in output


def test_ctrl_c_keeps_what_was_computed(model, tmp_path):
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
def test_demo_without_the_extra_says_which_and_goes_on(missing, tmp_path):
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


def test_verdict(ncut, model, tmp_path):
    path = tmp_path / "verdict.json"
    result = ncut("analyze", model, "--k", "3", "--verdict", "--shuffles", "19", "--json", path)
    assert result.returncode == 0, result.stderr
    assert "null model strength" in result.stdout
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["conclusion"].split(":")[0] in result.stdout
    assert {cell["normalize"] for cell in data["cells"]} == {"none", "l2", "l1", "balanced"}
    assert_one_line_error(ncut("analyze", model, "--verdict", "--html", "x.html"), "--html")
    assert_one_line_error(ncut("analyze", model, "--verdict", "--shuffles", "3"), "shuffles: 3")


def test_profile(ncut, model):
    result = ncut("profile", model, "--k", "2-4,6", "--shuffles", "5", "--json", "-")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["ks"] == [2, 3, 4, 6]
    assert "gap after k" in ncut("profile", model, "--k", "2-4", "--shuffles", "5").stdout
    assert ncut("profile", model, "--k", "two").returncode == 2


def test_as_many_shuffles_as_it_takes(ncut, model):
    result = ncut("analyze", model, "--k", "3", "--shuffles", "auto", "--max-shuffles", "60")
    assert result.returncode == 0, result.stderr
    assert "betting stopped after" in result.stdout
    assert_one_line_error(ncut("analyze", model, "--normalize", "l7"), "normalize", "l7")
    assert_one_line_error(ncut("analyze", model, "--preset", "mine"), "preset", "mine")


def test_verdict_is_the_library_call(ncut, model, tmp_path):
    import ncut as package

    options = ("--k", "3", "--verdict", "--shuffles", "19", "--null", "layer", "--normalize", "l2")
    options = (*options, "--seed", "3", "--n-init", "2", "--level", "0.1", "--threads", "1")
    result = ncut("analyze", model, *options, "--json", "-")
    assert result.returncode == 0, result.stderr
    expected = package.verdict(
        model, k=3, shuffles=19, null="layer", normalize="l2", seed=3, n_init=2, level=0.1
    )
    assert package.Verdict.from_json(result.stdout) == expected
    shown = ncut("analyze", model, *options, "--json", "verdict.json")
    assert shown.stdout == f"{expected}\n"
    assert shown.stderr == "ncut: wrote verdict.json\n"
    assert package.Verdict.from_json(tmp_path / "verdict.json") == expected
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_verdict_takes_20_shuffles_and_the_preset(ncut, model):
    options = ("--verdict", "--null", "layer", "--normalize", "none", "--n-init", "2")
    result = ncut("analyze", model, *options, "--preset", "hcai-torch", "--json", "-")
    assert result.returncode == 0, result.stderr
    (report,) = json.loads(result.stdout)["reports"]
    assert (report["k"], len(report["shuffled_ncuts"])) == (4, 20)
    assert (report["preset"], report["normalize"]) == ("hcai-torch", "none")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--html", "a.html"), ("--html", "--verdict")),
        (("--plot", "a.png"), ("--plot", "--verdict")),
        (("--refine",), ("--refine", "--verdict")),
        (("--shuffles", "auto"), ("shuffles", "auto")),
        (("--shuffles", "18"), ("shuffles", "19")),
        (("--level", "0"), ("level",)),
        (("--level", "nan"), ("level",)),
        (("--null", "init"), ("init",)),
        (("--null", "mine"), ("null", "mine")),
        (("--normalize", "l7"), ("normalize", "l7")),
        (("--preset", "mine"), ("preset", "mine")),
        (("--k", "1000"), ("k", "1000")),
        (("--json", "none/a.json"), ("does not exist",)),
    ],
)
def test_errors_of_the_verdict_are_one_line(ncut, model, options, parts, tmp_path):
    assert_one_line_error(ncut("analyze", model, "--verdict", *options), *parts)
    assert not list(tmp_path.iterdir())


def test_profile_is_the_library_call(ncut, model, tmp_path):
    import ncut as package

    options = ("--k", "2-6", "--shuffles", "5", "--null", "layer-nonzero", "--normalize", "l2")
    options = (*options, "--seed", "3", "--threads", "1")
    result = ncut("profile", model, *options, "--json", "profile.json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == "ncut: wrote profile.json\n"
    expected = package.profile(
        model, range(2, 7), shuffles=5, null="layer-nonzero", normalize="l2", seed=3
    )
    assert result.stdout == f"{expected}\n"
    text = (tmp_path / "profile.json").read_text(encoding="utf-8")
    assert json.loads(text) == expected.to_dict()
    printed = ncut("profile", model, *options, "--json", "-")
    assert json.loads(printed.stdout) == expected.to_dict()


@pytest.mark.parametrize(
    ("text", "ks"), [("2,4", [2, 4]), ("2-6", [2, 3, 4, 5, 6]), ("5,2-3,3", [2, 3, 5]), ("4", [4])]
)
def test_numbers_of_clusters(ncut, model, text, ks):
    result = ncut("profile", model, "--k", text, "--shuffles", "0", "--json", "-")
    assert json.loads(result.stdout)["ks"] == ks


@pytest.mark.parametrize(("preset", "shuffles"), [("filan2021", 50), ("hcai-torch", 100)])
def test_profile_takes_the_shuffles_of_the_preset(ncut, model, preset, shuffles):
    result = ncut("profile", model, "--k", "2", "--preset", preset, "--json", "-")
    data = json.loads(result.stdout)
    assert len(data["gaps"][0]["shuffled"]) == shuffles
    assert data["preset"] == preset


def test_profile_draws_a_picture(ncut, model, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install 'ncut[plot]'")
    result = ncut("profile", model, "--k", "2-4", "--shuffles", "5", "--plot", "k.svg")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "k.svg").read_bytes().startswith(b"<?xml")
    none = ncut("profile", model, "--k", "2-4", "--plot", "k.xyz")
    assert_one_line_error(none, "k.xyz", ".png")


@pytest.mark.parametrize("text", ["two", "2-", "-5", "2..6", "2,,4", "", "2-3-4", "2.5"])
def test_numbers_of_clusters_that_are_none_are_wrong_usage(ncut, model, text):
    result = ncut("profile", model, f"--k={text}")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--k", "1-3"), ("k", "at least 2")),
        (("--k", "2,1000"), ("k", "1000")),
        (("--null", "mine"), ("null", "mine")),
        (("--normalize", "l7"), ("normalize", "l7")),
        (("--preset", "mine"), ("preset", "mine")),
        (("--solver", "svd"), ("solver", "svd")),
        (("--json", "none/a.json"), ("does not exist",)),
        (("--json", "a.svg", "--plot", "./a.svg"), ("named twice",)),
    ],
)
def test_errors_of_the_profile_are_one_line(ncut, model, options, parts, tmp_path):
    assert_one_line_error(ncut("profile", model, *options), *parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [("profile",), ("analyze", "--verdict")])
def test_the_other_commands_need_a_model_too(ncut, command, tmp_path):
    assert_one_line_error(ncut(*command, "none.npz"), "none.npz", "no such file")
    (tmp_path / "bad.npz").write_bytes(b"this is no archive")
    assert_one_line_error(ncut(*command, "bad.npz"), "bad.npz")
    assert ncut(*command).returncode == 2


def test_profile_checks_its_usage(ncut, model):
    for options in (("--shuffles", "-1"), ("--shuffles", "auto"), ("--threads", "0")):
        result = ncut("profile", model, *options)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr


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


@pytest.mark.parametrize(
    "command",
    [
        ("profile", "--k", "2-3", "--shuffles", "5000"),
        ("analyze", "--verdict", "--shuffles", "800"),
    ],
)
def test_ctrl_c_keeps_verdict_and_profile(model, tmp_path, command):
    name, *options = command
    arguments = (name, model, "--null", "layer", *options, "--json", "part.json")
    code, output, shown = on_terminal(arguments, tmp_path, interrupt_at=r"[1-9]\d+/\d{4}")
    assert code == 130
    assert "ncut: interrupted" in shown
    assert "Traceback" not in shown
    data = json.loads((tmp_path / "part.json").read_text(encoding="utf-8"))
    assert data["format"] == ("ncut-profile" if name == "profile" else "ncut-verdict")
    assert output
    assert "\x1b" not in output


@pytest.mark.parametrize("option", [("--max-shuffles", "30"), ("--sequential", "betting")])
def test_what_a_verdict_would_ignore_is_refused(ncut, model, option):
    assert_one_line_error(ncut("analyze", model, "--verdict", *option), option[0], "no effect")


def test_a_profile_of_billions_of_clusters_is_refused_at_once(ncut, model):
    assert_one_line_error(ncut("profile", model, "--k", "2-2000000000"), "k: ")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_characters_that_the_output_lacks_lose_no_result(
    model: Path, tmp_path: Path, encoding: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ncut", "analyze", str(model), *SMALL, "--json", "report.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert ("+/-" in result.stdout.decode(encoding)) == (encoding == "ascii")
    assert (f"encoding ({encoding})" in result.stderr.decode()) == (encoding == "ascii")
    assert Report.from_json((tmp_path / "report.json").read_text(encoding="utf-8")).k == 3
