"""Comparison of models: differences, partners, moved neurons, and refusals."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

import ncut
from ncut import networks
from ncut.comparing import Pair


@pytest.fixture(scope="module")
def reports():
    return [
        ncut.analyze(networks.load(f"digits-{name}"), name=name, k=6, shuffles=12, n_init=5)
        for name in ("unpruned", "pruned")
    ]


@pytest.fixture(scope="module")
def pair(reports):
    return Pair(*reports)


def test_the_change_is_beyond_that_of_the_shuffles(pair):
    for one in pair.differences:
        a, b = (report.statistics[one.statistic] for report in (pair.a, pair.b))
        assert one.values == (a.value, b.value)
        assert one.change == b.value - a.value
        assert one.excess == pytest.approx((b.value - b.mean) - (a.value - a.mean))
    bound = next(one for one in pair.differences if one.statistic == "lower_bound")
    a, b = (report.statistics["lower_bound"].shuffled for report in (pair.a, pair.b))
    spread = np.hypot(a.std(ddof=1), b.std(ddof=1)) / np.sqrt(12)
    assert not bound.paired  # pruning isolated neurons: other shuffles
    assert bound.error == pytest.approx(spread)


def test_shuffles_of_one_shape_are_paired(reports):
    weights = networks.load("digits-unpruned")
    other = ncut.analyze([w * 1.5 for w in weights], k=6, shuffles=12, n_init=5)
    change = Pair(reports[0], replace(other, layers=reports[0].layers)).headline
    assert change.paired
    # Scaling all weights changes neither the n-cut nor its shuffles.
    assert change.change == pytest.approx(0, abs=1e-9)
    assert change.excess == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [1.1, 0.7, 1e-5])
def test_rounding_errors_are_no_change(factor, dtype):
    """Weights times a constant: the same graph up to rounding."""
    rng = np.random.default_rng(5)
    weights = [rng.normal(size=shape).astype(dtype) for shape in ((8, 10), (10, 6), (6, 4))]
    scaled = [w * factor for w in weights]
    found = ncut.compare(weights, scaled, k=3, shuffles=3, tests="none")
    assert [one.excess for one in found.pairs[0].differences] == [0] * 6
    assert "No clear change" in str(found)
    assert "-0.000" not in str(found)


def test_neurons_of_partners_stay(pair):
    a, b = pair.a.labels, pair.b.labels
    both = (a >= 0) & (b >= 0)
    assert pair.n_neurons == both.sum()
    assert pair.rand_index == pytest.approx(adjusted_rand_score(a[both], b[both]))
    for one in range(6):
        for other in range(6):
            assert pair.flow[one, other] == np.sum(both & (a == one) & (b == other))
    stayed = sum(pair.flow[one, other] for one, other in pair.partners.items())
    assert len(pair.moved) == both.sum() - stayed
    starts = {layer.name: layer.start for layer in pair.b.layers}
    for one in pair.moved:
        at = starts[one.layer] + one.index
        assert (a[at], b[at]) == (one.before, one.after)
        assert pair.partners.get(one.before) != one.after


def test_renumbered_clusters_are_the_same_partition(reports):
    report = reports[0]
    order = np.array([3, 1, 0, 5, 4, 2], dtype=np.int32)
    pair = Pair(
        report, replace(report, labels=np.where(report.labels < 0, -1, order[report.labels]))
    )
    assert pair.rand_index == 1
    assert pair.moved == []
    assert pair.partners == dict(enumerate(order.tolist()))


def test_layers_match_by_name_and_size(reports):
    a, b = reports
    cut = replace(
        b,
        layers=b.layers[:-1],
        labels=b.labels[: b.layers[-1].start],
        degrees=b.degrees[: b.layers[-1].start],
    )
    assert Pair(a, cut).layers == [(at, at) for at in range(len(b.layers) - 1)]
    other = ncut.analyze(
        [np.random.default_rng(0).random((9, 9)) for _ in range(2)], k=6, shuffles=0
    )
    nothing = Pair(a, other)
    assert (nothing.layers, nothing.rand_index, nothing.moved) == ([], None, [])
    assert "clusters cannot be compared" in str(ncut.compare(a, other))


def test_reports_measured_differently_are_refused(reports):
    with pytest.raises(ncut.InputError, match="k: 'unpruned' was measured with 6 and 'pruned'"):
        ncut.compare(reports[0], replace(reports[1], k=7))
    with pytest.raises(ncut.InputError, match=r"null: .*measure both alike"):
        ncut.compare(*reports, replace(reports[1], null="strength"))


def test_settings_need_a_model_to_measure(commands, reports, tmp_path):
    with pytest.raises(ncut.InputError, match="k: has no effect on reports"):
        ncut.compare(*reports, k=5)
    for at, report in enumerate(reports):
        report.to_json(tmp_path / f"{at}.json")
    result = commands.run("compare", "0.json", "1.json", "--k", "5", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("ncut: error: --k: has no effect on reports")


def test_a_json_file_is_a_model_or_a_report_by_its_content(reports, tmp_path):
    saved, model, damaged = (tmp_path / name for name in ("model.json", "b/model.json", "c.json"))
    model.parent.mkdir()
    reports[0].to_json(saved)
    model.write_text('{"modelTopology": {"node": []}, "format": "graph-model"}')
    damaged.write_text('{"format": "ncut-rep')
    assert ncut.compare(saved, str(saved)).reports == (reports[0], reports[0])
    with pytest.raises(ncut.ModelError, match=r"graph models of TensorFlow\.js are not read"):
        ncut.compare(saved, model, k=6)
    with pytest.raises(ncut.InputError, match="not valid JSON"):
        ncut.compare(saved, damaged)
    with pytest.raises(ncut.InputError, match="no such file"):
        ncut.compare(saved, tmp_path / "none.json")


def test_text_json_and_page(reports, tmp_path):
    pytest.importorskip("jinja2", reason="pip install 'ncut[plot]'")
    found = ncut.compare(*reports, replace(reports[0], model="again"))
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "pruned is" in text
    data = json.loads(found.to_json(tmp_path / "c.json"))
    assert [one["a"] for one in data["pairs"]] == ["unpruned", "pruned"]
    assert data["pairs"][0]["flow"] == found.pairs[0].flow.tolist()
    page = found.to_html(tmp_path / "c.html", title="Three")
    assert (tmp_path / "c.html").read_text(encoding="utf-8") == page
    assert "<title>Three: compared by ncut</title>" in page
    assert "connect-src &#39;none&#39;" in page or "connect-src 'none'" in page
    assert page.count('class="node"') <= 18
    assert re.findall(r"<h(\d)", page) == ["1", "2", "2"]
    assert repr(found) == "ModelComparison('unpruned', 'pruned', 'again')"


def test_the_command(commands, tmp_path, reports):
    reports[0].to_json(tmp_path / "a.json")
    reports[1].to_json(tmp_path / "b.json")
    run = commands.run("compare", "a.json", "b.json", "--html", "c.html", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{ncut.compare(*reports)}\n"
    assert run.stderr == "ncut: wrote c.html\n"
    for wrong, code in ((["a.json"], 2), (["a.json", "b.json", "--html", "c.txt"], 1)):
        run = commands.run("compare", *wrong, cwd=tmp_path)
        assert run.returncode == code
        assert run.stderr.startswith("ncut: error: ")
        assert run.stderr.count("\n") == 1


def test_a_misspelt_setting_is_refused_even_if_all_models_are_reports() -> None:
    report = ncut.analyze([np.ones((6, 5)), np.ones((5, 4))], k=2, shuffles=0)
    for models in ((report, report), (report, [np.ones((3, 3))])):
        with pytest.raises(ncut.InputError, match=r"shufles: ncut\.compare .*mean 'shuffles'"):
            ncut.compare(*models, shufles=3)
