from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sits_pipeline.steps.resample import bilinear, repeat
from sits_pipeline.values import BandWindow

FACTORS = [1, 2, 6, 12]


def window(dn: NDArray[np.uint16], factor: int, row: int, column: int) -> BandWindow:
    return BandWindow(dn=dn, factor=factor, row=row, column=column)


def cut(source: NDArray[np.uint16], factor: int, row: int, column: int, shape: tuple[int, int]) -> BandWindow:
    """The source pixels around cube pixels row..row+height, column..column+width, one more on each side."""
    height, width = shape
    top, left = row // factor - 1, column // factor - 1
    bottom, right = (row + height - 1) // factor + 2, (column + width - 1) // factor + 2
    padded = np.pad(source, 1)
    part = padded[top + 1 : bottom + 1, left + 1 : right + 1]
    return window(part, factor, row - top * factor, column - left * factor)


def smooth(source: NDArray[np.uint16], factor: int) -> NDArray[np.uint16]:
    """All of `source` at 10 m."""
    height, width = source.shape
    shape = (height * factor, width * factor)
    return bilinear(cut(source, factor, 0, 0, shape), shape)


# repeat


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 0), (0, 5), (7, 13), (12, 12)])
@pytest.mark.parametrize("shape", [(12, 12), (5, 7), (1, 1), (12, 13)])
def test_repeat_is_a_cut_of_the_kronecker_product(factor: int, row: int, column: int, shape: tuple[int, int]) -> None:
    dn = np.arange(26 * 27, dtype=np.uint16).reshape(26, 27)
    out = np.zeros(shape, np.uint16)
    repeat(window(dn, factor, row, column), dn, out)
    whole = np.kron(dn, np.ones((factor, factor), np.uint16))
    np.testing.assert_array_equal(out, whole[row : row + shape[0], column : column + shape[1]])


def test_repeat_writes_into_a_part_of_a_larger_array() -> None:
    dn = np.array([[1, 2], [3, 4]], np.uint16)
    cube = np.zeros((2, 6, 6), np.uint16)
    repeat(window(dn, 2, 0, 0), dn, cube[1, 1:5, 1:5])
    assert cube[1, 1:5, 1:5].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert cube.sum() == 4 * (1 + 2 + 3 + 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_])
def test_repeat_takes_classes_and_masks(dtype: type[np.generic]) -> None:
    values: NDArray[np.generic] = np.array([[0, 1]], dtype)
    out: NDArray[np.generic] = np.empty((2, 4), dtype)
    repeat(window(np.zeros((1, 2), np.uint16), 2, 0, 0), values, out)
    assert out.astype(int).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


# bilinear


def test_bilinear_between_two_pixels_worked_by_hand() -> None:
    source = np.array([[100, 200]], np.uint16)
    # Centres of the four 10 m pixels lie at -1/4, 1/4, 3/4 and 5/4 source pixels from the first centre; beyond the
    # outer centres the neighbour is nodata and has no weight.
    assert smooth(source, 2).tolist() == [[100, 125, 175, 200]] * 2


def test_bilinear_of_four_pixels_worked_by_hand() -> None:
    source = np.array([[100, 200], [300, 500]], np.uint16)
    result = smooth(source, 2)
    # (9 * 100 + 3 * 200 + 3 * 300 + 1 * 500) / 16 = 181.25
    assert result[1, 1] == 181
    # (1 * 100 + 3 * 200 + 3 * 300 + 9 * 500) / 16 = 381.25
    assert result[2, 2] == 381


def test_bilinear_with_factor_one_changes_nothing() -> None:
    source = np.array([[0, 7, 65535], [1, 2, 3]], np.uint16)
    np.testing.assert_array_equal(smooth(source, 1), source)


@given(
    value=st.integers(1, 65534),
    factor=st.sampled_from([2, 6, 12]),
    row=st.integers(0, 20),
    column=st.integers(0, 20),
)
def test_bilinear_of_a_constant_is_the_constant(value: int, factor: int, row: int, column: int) -> None:
    source = np.full((12, 12), value, np.uint16)
    assert (bilinear(cut(source, factor, row, column, (3, 3)), (3, 3)) == value).all()


def random_source(seed: int, shape: tuple[int, int], holes: float) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    source = rng.integers(1, 65535, shape).astype(np.uint16)
    source[rng.random(shape) < holes] = 0
    source[rng.random(shape) < holes / 2] = 65535
    return source


@given(
    seed=st.integers(0, 2**32 - 1),
    factor=st.sampled_from([2, 6, 12]),
    holes=st.sampled_from([0.0, 0.1, 0.5]),
    data=st.data(),
)
def test_any_window_with_one_source_pixel_around_gives_the_same_pixels(
    seed: int, factor: int, holes: float, data: st.DataObject
) -> None:
    source = random_source(seed, (7, 9), holes)
    height, width = (size * factor for size in source.shape)
    row = data.draw(st.integers(0, height - 1))
    column = data.draw(st.integers(0, width - 1))
    shape = data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - column))
    part = bilinear(cut(source, factor, row, column, shape), shape)
    whole = smooth(source, factor)
    np.testing.assert_array_equal(part, whole[row : row + shape[0], column : column + shape[1]])


@given(seed=st.integers(0, 2**32 - 1), factor=st.sampled_from([2, 6, 12]), holes=st.sampled_from([0.1, 0.5]))
def test_nodata_and_saturation_stay_where_they_are_and_change_no_neighbour_beyond_the_usable_range(
    seed: int, factor: int, holes: float
) -> None:
    source = random_source(seed, (5, 6), holes)
    nearest = np.kron(source, np.ones((factor, factor), np.uint16))
    result = smooth(source, factor)
    np.testing.assert_array_equal(result == 0, nearest == 0)
    np.testing.assert_array_equal(result == 65535, nearest == 65535)
    usable = source[(source != 0) & (source != 65535)]
    inner = result[(result != 0) & (result != 65535)]
    if len(inner):
        assert inner.min() >= usable.min()
        assert inner.max() <= usable.max()


@pytest.mark.parametrize("factor", [2, 6])
@pytest.mark.parametrize("hole", [0, 65535])
def test_a_hole_in_a_constant_leaves_the_constant_around_it(factor: int, hole: int) -> None:
    source = np.full((5, 5), 321, np.uint16)
    source[2, 2] = hole
    expected = np.kron(source, np.ones((factor, factor), np.uint16))
    np.testing.assert_array_equal(smooth(source, factor), expected)


@given(seed=st.integers(0, 2**32 - 1), factor=st.sampled_from([2, 6]))
def test_without_holes_bilinear_agrees_with_an_interpolation_in_double_precision(seed: int, factor: int) -> None:
    source = random_source(seed, (5, 6), 0.0)
    shape = tuple(size * factor for size in source.shape)
    rows, columns = [(np.arange(size) + 0.5) / factor - 0.5 for size in shape]
    by_row = np.stack([np.interp(columns, np.arange(6), line) for line in source.astype(float)])
    expected = np.stack([np.interp(rows, np.arange(5), line) for line in by_row.T]).T
    inner = np.s_[factor:-factor, factor:-factor]
    assert np.abs(smooth(source, factor).astype(float) - expected)[inner].max() <= 0.52
