"""The command line as a whole: help, usage errors, output streams."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import SMALL, assert_one_line_error
from typer.testing import CliRunner

from ncut import Report
from ncut.cli import app


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


def test_quiet_and_verbose_anywhere(ncut, model):
    options = ("--k", "11", "--shuffles", "0", "--json", "a.json")
    assert ncut("analyze", model, *options, "-q").stderr == ""
    assert ncut("-q", "analyze", model, *options).stderr == ""
    assert ncut("analyze", model, *options).stderr == "ncut: wrote a.json\n"
    told = ncut("analyze", model, "-v", *options).stderr
    assert re.fullmatch(r"ncut: wrote a.json\nncut: done in [\d.]+ s\n", told)


def test_wrong_usage_is_reported_in_one_line(ncut, model):
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
def test_paths_that_are_not_expanded_get_a_hint(ncut, name, hint):
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


def test_a_pipe_gets_no_escape_sequences(ncut, model):
    for arguments in (("analyze", model, *SMALL), ("info", model), ("analyze", "none.npz")):
        result = ncut(*arguments, TERM="xterm-256color")
        assert "\x1b" not in result.stdout + result.stderr


def test_shuffles_auto_stops_by_the_rule(ncut, model):
    result = ncut("analyze", model, "--k", "3", "--shuffles", "auto", "--max-shuffles", "60")
    assert result.returncode == 0, result.stderr
    assert "betting stopped after" in result.stdout
    assert_one_line_error(ncut("analyze", model, "--normalize", "l7"), "normalize", "l7")
    assert_one_line_error(ncut("analyze", model, "--preset", "mine"), "preset", "mine")


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
