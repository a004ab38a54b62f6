from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from sits_models.metrics import boundary_map, boundary_window, distance_bands, name_bands

quick = settings(deadline=None, max_examples=60)
maps = arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-1, 2))


def by_loop(labels: NDArray[np.int64], radius: int) -> NDArray[np.bool_]:
    """The rule word for word, on a map whose edges are mirrored without the edge itself."""
    padded = np.pad(labels, radius, mode="reflect")
    side = 2 * radius + 1
    found = np.zeros(labels.shape, bool)
    for row, column in np.ndindex(labels.shape):
        found[row, column] = len(np.unique(padded[row : row + side, column : column + side])) > 1
    return found


def test_a_straight_border_is_two_pixels_wide() -> None:
    labels = torch.zeros(6, 6, dtype=torch.int64)
    labels[:, 3:] = 1
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[:, 2:4] = True
    assert torch.equal(boundary_map(labels), expected)


def test_a_corner_that_touches_is_a_boundary() -> None:
    labels = torch.tensor([[0, 0, 0], [0, 0, 0], [0, 0, 1]])
    assert boundary_map(labels).int().tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_the_ignored_label_is_a_value_like_any_other() -> None:
    assert boundary_map(torch.tensor([[0, -1, -1, -1]])).tolist() == [[True, True, False, False]]


@quick
@given(maps, st.sampled_from([1, 2]))
def test_any_map_follows_the_rule(labels: NDArray[np.int64], radius: int) -> None:
    if min(labels.shape) > radius:  # numpy mirrors smaller ones over and over
        np.testing.assert_array_equal(boundary_map(torch.from_numpy(labels), radius=radius), by_loop(labels, radius))


@quick
@given(maps)
def test_a_map_turned_has_its_boundary_turned(labels: NDArray[np.int64]) -> None:
    turned = boundary_map(torch.from_numpy(labels.T.copy()))
    assert torch.equal(turned.T, boundary_map(torch.from_numpy(labels)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2), (8, 12)])
def test_a_batch_is_its_maps_whatever_their_shape(shape: tuple[int, int]) -> None:
    labels = torch.randint(0, 2, (3, *shape), generator=torch.Generator().manual_seed(0))
    together = boundary_map(labels)
    assert together.shape == labels.shape
    assert all(torch.equal(together[i], boundary_map(labels[i])) for i in range(3))


def test_a_vector_is_no_map() -> None:
    with pytest.raises(ValueError, match=r"a label map is \(\.\.\., H, W\)"):
        boundary_map(torch.zeros(3))


@quick
@given(maps, st.data())
def test_a_window_has_the_boundary_of_the_whole(labels: NDArray[np.int64], data: st.DataObject) -> None:
    height, width = labels.shape
    row, column = data.draw(st.integers(-4, height + 2)), data.draw(st.integers(-4, width + 2))
    rows, columns = slice(row, row + 5), slice(column, column + 4)

    def read(rows: slice, columns: slice) -> NDArray[np.int64]:
        assert 0 <= rows.start < rows.stop <= height
        assert 0 <= columns.start < columns.stop <= width
        return labels[rows, columns]

    around = np.pad(boundary_map(torch.from_numpy(labels)).numpy(), 8)
    expected = around[row + 8 : row + 13, column + 8 : column + 12]
    np.testing.assert_array_equal(boundary_window(read, rows, columns, shape=(height, width)), expected)


def test_a_window_of_stored_labels_is_read_as_it_is() -> None:
    labels = np.array([[0, 65535], [0, 0]], np.uint16)
    found = boundary_window(lambda rows, columns: labels[rows, columns], slice(0, 2), slice(0, 2), shape=(2, 2))
    assert found.all()


def test_bands_hold_both_sides_of_an_edge_and_their_upper_limit() -> None:
    boundary = torch.tensor([0, 100, -100, 101, -200, 201, 1000, -1000, -32768], dtype=torch.int16)
    assert distance_bands(boundary, (100, 200)).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, -1]


@pytest.mark.parametrize("limits", [(200, 100), (100, 100), (-5,), (1000,)])
def test_limits_rise_and_stay_below_saturation(limits: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="distances rise from 0 and stay below 1000 dm"):
        distance_bands(torch.zeros(1, dtype=torch.int16), limits)


def test_bands_are_named_by_their_limits() -> None:
    assert name_bands((0.5, 1), "ha") == ("<= 0.5 ha", "0.5-1 ha", "> 1 ha")
    assert name_bands((), "m") == ("all",)
