from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.image import imread
from numpy.typing import NDArray

from sits_pipeline.picture import colour_of, encode_png, limits_of, natural_bands, paint


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4]))))
def test_a_png_decodes_to_its_pixels(pixels: NDArray[np.uint8]) -> None:
    decoded = np.rint(imread(io.BytesIO(encode_png(pixels)), format="png") * 255).astype(np.uint8)
    np.testing.assert_array_equal(decoded, pixels)


def test_true_colour_is_preferred_and_something_is_always_shown() -> None:
    assert natural_bands(("B02", "B03", "B04", "B08")) == ("B04", "B03", "B02")
    assert natural_bands(("B03", "B04", "B08")) == ("B08", "B04", "B03")
    assert natural_bands(("B11",)) == ("B11", "B11", "B11")


def test_one_stretch_serves_all_images_and_ignores_what_is_not_usable() -> None:
    dark, bright = np.full((3, 10, 10), 1000, np.uint16), np.full((3, 10, 10), 3000, np.uint16)
    cloud = np.full((3, 10, 10), 9000, np.uint16)
    yes, no = np.ones((10, 10), bool), np.zeros((10, 10), bool)
    low, high = limits_of([dark, bright, cloud], [yes, yes, no])[0]
    assert low == 800
    assert high == 3200


def test_images_without_a_usable_pixel_still_get_a_stretch() -> None:
    flat = np.zeros((3, 2, 2), np.uint16)
    ((low, high), *_) = limits_of([flat], [np.zeros((2, 2), bool)])
    assert low < high


def test_what_is_not_observed_is_transparent() -> None:
    image = np.array([[[0, 1000, 9000]]] * 3, np.uint16)
    rgba = paint(image, np.array([[False, True, True]]), ((0, 1000),) * 3)
    assert rgba[0, :, 3].tolist() == [0, 255, 255]
    assert rgba[0, 1:, :3].tolist() == [[255, 255, 255], [255, 255, 255]]


@pytest.mark.parametrize(("text", "colour"), [("#000000", (0, 0, 0)), ("#0a10FF", (10, 16, 255))])
def test_a_colour_is_three_bytes(text: str, colour: tuple[int, int, int]) -> None:
    assert colour_of(text) == colour
