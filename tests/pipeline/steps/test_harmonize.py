from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sits_catalog.sentinel2 import SATURATED
from sits_pipeline.steps.harmonize import harmonize


def dn(*values: int) -> np.ndarray:
    return np.array(values, np.uint16)


def test_without_an_offset_only_zero_changes() -> None:
    assert harmonize(dn(0, 1, 2, 9999, 65534, 65535), 0).tolist() == [1, 1, 2, 9999, 65534, 65535]


def test_the_offset_is_added_and_dark_values_are_clamped_to_one() -> None:
    assert harmonize(dn(0, 1, 1000, 1001, 1002, 3500), -1000).tolist() == [1, 1, 1, 1, 2, 2500]


def test_saturated_values_carry_no_offset() -> None:
    assert harmonize(dn(65534, 65535), -1000).tolist() == [64534, 65535]


def test_the_input_is_left_alone_and_the_type_kept() -> None:
    values = dn(0, 2000)
    result = harmonize(values, -1000)
    assert values.tolist() == [0, 2000]
    assert result.dtype == np.uint16


def test_any_shape_is_kept() -> None:
    assert harmonize(np.zeros((2, 3, 4), np.uint16), -1000).shape == (2, 3, 4)


@given(st.integers(0, 65535), st.integers(-2000, 0))
def test_every_value_follows_the_rule_of_the_contract(value: int, offset: int) -> None:
    expected = SATURATED if value == SATURATED else max(1, value + offset)
    assert harmonize(dn(value), offset).tolist() == [expected]


def test_a_positive_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="a BOA offset is 0 or negative, got 1000"):
        harmonize(dn(1), 1000)
