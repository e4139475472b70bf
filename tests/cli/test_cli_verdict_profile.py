"""`ncut analyze --verdict` and `ncut profile`."""

from __future__ import annotations

import json

import pytest
from cli_runs import assert_one_line_error, on_terminal


def test_verdict(ncut, model, tmp_path):
    path = tmp_path / "verdict.json"
    result = ncut("analyze", model, "--k", "3", "--verdict", "--shuffles", "19", "--json", path)
    assert result.returncode == 0, result.stderr
    assert "null model strength" in result.stdout
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["conclusion"].split(":")[0] in result.stdout
    assert {cell["normalize"] for cell in data["cells"]} == {"none", "l2", "l1", "balanced"}
    assert_one_line_error(ncut("analyze", model, "--verdict", "--html", "x.html"), "--html")
    assert_one_line_error(
        ncut("analyze", model, "--verdict", "--shuffles", "3"), "shuffles: must be at least 19"
    )


def test_profile(ncut, model):
    result = ncut("profile", model, "--k", "2-4,6", "--shuffles", "5", "--json", "-")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["ks"] == [2, 3, 4, 6]
    assert "gap after k" in ncut("profile", model, "--k", "2-4", "--shuffles", "5").stdout
    assert ncut("profile", model, "--k", "two").returncode == 2


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
def test_invalid_numbers_of_clusters_are_wrong_usage(ncut, model, text):
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
def test_options_without_effect_on_a_verdict_are_refused(ncut, model, option):
    assert_one_line_error(ncut("analyze", model, "--verdict", *option), option[0], "no effect")


def test_a_profile_of_billions_of_clusters_is_refused_at_once(ncut, model):
    assert_one_line_error(ncut("profile", model, "--k", "2-2000000000"), "k: ")
