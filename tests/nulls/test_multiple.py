"""Adjusted p-values: by hand, from reports, and refusals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncut.errors import InputError
from ncut.nulls.multiple import adjusted_p_values


@dataclass
class Measured:
    p_value: float | None


def test_by_hand() -> None:
    # Ascending 0.01, 0.02, 0.03, 0.5 times 4/1, 4/2, 4/3, 4/4; the smallest from there upwards.
    found = adjusted_p_values([0.5, 0.01, 0.03, 0.02])
    np.testing.assert_allclose(found, [0.5, 0.04, 0.04, 0.04])
    np.testing.assert_allclose(adjusted_p_values([0.01, 0.04, 0.9]), [0.03, 0.06, 0.9])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_definition(values: list[float]) -> None:
    n = len(values)
    found = adjusted_p_values(values)
    ascending = sorted(values)
    scaled = [p * n / (rank + 1) for rank, p in enumerate(ascending)]
    for value, adjusted in zip(values, found, strict=True):
        first = ascending.index(value)
        assert adjusted == pytest.approx(min(1.0, *scaled[first:]))


def test_takes_any_object_with_a_p_value() -> None:
    mixed = [Measured(0.01), 0.04, Measured(0.9), np.float64(1.0), 0]
    found = adjusted_p_values(mixed)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, adjusted_p_values([0.01, 0.04, 0.9, 1.0, 0.0]))


def test_none_and_one() -> None:
    assert adjusted_p_values([]).shape == (0,)
    np.testing.assert_array_equal(adjusted_p_values([0.3]), [0.3])


@pytest.mark.parametrize("missing", [None, Measured(None)])
def test_a_missing_one_is_named(missing: Any) -> None:
    with pytest.raises(InputError, match=r"^p_values\[1\]: has no p-value"):
        adjusted_p_values([0.1, missing])


@pytest.mark.parametrize("wrong", [-0.1, 1.5, math.nan, math.inf, "0.1", True, [0.1]])
def test_invalid_p_values_are_named(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"^p_values\[2\]: must lie between 0 and 1"):
        adjusted_p_values([0.1, 0.2, wrong])
