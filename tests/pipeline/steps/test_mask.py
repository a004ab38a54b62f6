from __future__ import annotations

import numpy as np
import pytest

from sits_pipeline.steps.mask import clear_of, quality_of


@pytest.mark.parametrize(
    ("code", "bits"),
    [(0, 0), (1, 16), (2, 0), (3, 4), (4, 0), (5, 0), (6, 64), (7, 0), (8, 2), (9, 2), (10, 32), (11, 8)],
)
def test_each_scene_class_gives_the_bits_of_the_contract(code: int, bits: int) -> None:
    assert quality_of(np.array([code], np.uint8)).tolist() == [bits]


def test_codes_that_are_not_defined_give_no_bit() -> None:
    assert not quality_of(np.arange(12, 256).astype(np.uint8)).any()


def test_quality_has_the_shape_of_the_classes_and_never_says_observed_or_unread() -> None:
    quality = quality_of(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert quality.shape == (16, 16)
    assert quality.dtype == np.uint8
    assert not (quality & (1 | 128)).any()


def test_clear_is_observed_and_none_of_the_six_other_bits() -> None:
    quality = np.arange(256, dtype=np.uint8)
    expected = [bool(q & 1) and not q & (2 | 4 | 8 | 16 | 32 | 128) for q in range(256)]
    assert clear_of(quality).tolist() == expected


def test_observed_water_is_clear() -> None:
    assert clear_of(np.array([[1 | 64, 64]], np.uint8)).tolist() == [[True, False]]
