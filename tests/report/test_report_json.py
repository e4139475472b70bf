"""JSON: there and back without loss, and malformed text refused with a reason."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncut.errors import InputError
from ncut.report import Report
from ncut.report.serialize import LATER
from ncut.types import Comparison, Layer, LeftOut

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)


@st.composite
def comparisons(draw: st.DrawFn, n_shuffles: int) -> Comparison:
    shuffled = draw(st.lists(FINITE, min_size=n_shuffles, max_size=n_shuffles))
    statistic = FINITE if shuffled else st.none()
    return Comparison(
        value=draw(FINITE),
        shuffled=np.array(shuffled, dtype=np.float64),
        mean=draw(statistic),
        std=draw(statistic),
        p_value=draw(statistic),
        z_score=draw(st.none() | statistic),
    )


@st.composite
def reports(draw: st.DrawFn) -> Report:
    sizes = draw(st.lists(st.integers(0, 5), max_size=4))
    k = draw(st.integers(1, 6))
    n, starts = sum(sizes), np.cumsum([0, *sizes]).tolist()
    n_shuffles = draw(st.integers(0, 5))
    names = {"spectral_ncut", "refined_ncut", *draw(st.sets(TEXT, max_size=3))}
    return Report(
        model=draw(TEXT),
        k=k,
        labels=np.array(
            draw(st.lists(st.integers(-1, k - 1), min_size=n, max_size=n)), dtype=np.int32
        ),
        eigenvalues=np.array(draw(st.lists(FINITE, min_size=k, max_size=k))),
        statistics={name: draw(comparisons(n_shuffles)) for name in sorted(names)},
        repeated_ncuts=np.array(draw(st.lists(FINITE, max_size=3)), dtype=np.float64),
        shuffled_repeats=np.array(
            draw(st.lists(FINITE, max_size=min(3, n_shuffles))), dtype=np.float64
        ),
        null=draw(TEXT),
        normalize=draw(TEXT),
        preset=draw(TEXT),
        sequential=draw(TEXT),
        seed=draw(st.integers()),
        n_init=draw(st.integers(1, 1000)),
        refine=draw(st.booleans()),
        solver=draw(TEXT),
        residual=draw(FINITE),
        layers=tuple(
            Layer(
                draw(TEXT),
                start,
                size,
                draw(st.sampled_from([True, False, None])),
                tuple(draw(st.lists(TEXT, max_size=2))),
            )
            for start, size in zip(starts, sizes, strict=False)
        ),
        degrees=np.array(draw(st.lists(FINITE, min_size=n, max_size=n)), dtype=np.float64),
        n_edges=draw(st.integers(0, 2**40)),
        left_out=tuple(
            draw(
                st.lists(
                    st.builds(LeftOut, TEXT, st.lists(st.integers(0, 9)).map(tuple), TEXT),
                    max_size=3,
                )
            )
        ),
        warnings=tuple(draw(st.lists(TEXT, max_size=3))),
        version=draw(TEXT),
        sums=draw(TEXT),
    )


@given(reports())
@settings(deadline=None)
def test_json_round_trips(report):
    again = Report.from_json(report.to_json())
    assert again == report
    for name, before in report.statistics.items():
        assert again.statistics[name].shuffled.tobytes() == before.shuffled.tobytes()
    for field in fields(Report):
        if field.name == "statistics":
            continue
        before, after = getattr(report, field.name), getattr(again, field.name)
        assert type(after) is type(before), field.name
        if isinstance(before, np.ndarray):
            assert after.dtype == before.dtype, field.name
            assert after.tobytes() == before.tobytes(), field.name
        else:
            assert after == before, field.name


def test_json_file_there_and_back(report, tmp_path):
    path = tmp_path / "report.json"
    text = report.to_json(path, indent=2)
    assert path.read_text(encoding="utf-8") == text + "\n"
    assert Report.from_json(path) == report
    assert Report.from_json(str(path)) == report


def test_numpy_scalars_become_plain_numbers(make):
    report = make(k=np.int64(3), ncut=np.float32(1.5), seed=np.int64(2**40), p_value=np.float64(1))
    assert Report.from_json(report.to_json()).seed == 2**40
    assert type(report.to_dict()["ncut"]) is float


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["ncut", "residual", "z_score"])
def test_not_a_number_is_refused_when_writing(make, name, bad, tmp_path):
    path = tmp_path / "report.json"
    with pytest.raises(InputError, match="NaN or infinite"):
        make(**{name: bad}).to_json(path)
    assert not path.exists()


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_not_a_number_is_refused_when_reading(report, literal):
    text = report.to_json().replace('"value": 1.5', f'"value": {literal}')
    assert literal in text
    with pytest.raises(InputError):
        Report.from_json(text)


NOT_ENTRIES = ("graph", "source", "kept", "kept_heads")
ENTRIES = [field.name for field in fields(Report) if field.name not in NOT_ENTRIES]


@pytest.mark.parametrize("name", sorted(set(ENTRIES) - LATER.keys()))
def test_each_missing_entry_is_named(report, name):
    data = report.to_dict()
    del data[name]
    with pytest.raises(InputError, match=f"'{name}' is missing"):
        Report.from_json(json.dumps(data))


def test_reports_from_before_the_convention_of_sums_still_load(report: Report) -> None:
    data = report.to_dict()
    del data["sums"]
    assert Report.from_json(json.dumps(data)).sums == ""


def test_reports_from_before_there_were_devices_still_load(report: Report) -> None:
    data = report.to_dict()
    del data["device"]
    assert Report.from_json(json.dumps(data)).device == "cpu"


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("bad", [{"a": 1}, True, [[1], "x"]])
def test_each_malformed_entry_is_named(report, name, bad):
    if name == "refine" and bad is True:
        bad = 1
    data = report.to_dict() | {name: bad}
    with pytest.raises(InputError, match=f"'{name}'"):
        Report.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1]}, "'labels' has 2 entries for 13"),
        ({"degrees": [1.0]}, "'degrees' has 1 entries for 13"),
        ({"labels": [3] * 13}, "between -1 and 2"),
        ({"labels": [-2] * 13}, "between -1 and 2"),
        ({"labels": [2**40] * 13}, "'labels' is malformed"),
        ({"eigenvalues": [0.0]}, "1 eigenvalues for k = 3"),
        ({"statistics": {}}, "'statistics' is malformed"),
        ({"k": -1}, "expected a count"),
        (
            {"layers": [{"name": "a", "start": 1, "size": 13, "rescalable": None, "read_by": []}]},
            "starts at vertex 1, expected 0",
        ),
        ({"layers": [{"name": "a", "size": 13}]}, "'layers' is malformed"),
        ({"format": "other"}, "not a report of ncut"),
        ({"format_version": 2}, "format version 2"),
    ],
)
def test_contradictions_are_refused(report, change, message):
    with pytest.raises(InputError, match=message):
        Report.from_json(json.dumps(report.to_dict() | change))


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"format": "ncut-report"}', "{}", "[" * 100_000])
def test_other_json_is_refused(text):
    with pytest.raises(InputError):
        Report.from_json(text)


@pytest.mark.parametrize("path", ["", "no such file.json", "a\0b", "x" * 5000])
def test_an_unreadable_path_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="neither a report nor a readable file"):
        Report.from_json(path)


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(InputError, match=r"weights\.npz"):
        Report.from_json(path)


def test_unknown_entries_are_ignored(report):
    assert Report.from_json(json.dumps(report.to_dict() | {"note": "mine"})) == report


def test_writing_into_a_missing_folder_says_so(report, tmp_path):
    with pytest.raises(InputError, match="cannot be written: No such file"):
        report.to_json(tmp_path / "none" / "report.json")


def test_shuffles_without_a_mean_are_refused(report):
    data = report.to_dict()
    data["statistics"]["refined_ncut"]["mean"] = None
    with pytest.raises(InputError, match="has shuffles but no"):
        Report.from_json(json.dumps(data))


def test_different_numbers_of_shuffles_are_refused(report):
    data = report.to_dict()
    data["statistics"]["refined_ncut"]["shuffled"].pop()
    with pytest.raises(InputError, match="different numbers of shuffles"):
        Report.from_json(json.dumps(data))
