from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sits_catalog.cube import shard_side
from sits_pipeline.plan.cells import cell_bytes, cell_side, cells_of


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([128, 256, 512]))
def test_cells_tile_the_cube_exactly(height: int, width: int, side: int) -> None:
    visits = np.zeros((height * 6, width * 6), np.uint8)
    for window in cells_of(visits.shape, side):
        assert window.row % side == 0
        assert window.column % side == 0
        assert 0 < window.height <= side
        assert 0 < window.width <= side
        visits[window.rows, window.columns] += 1
    assert (visits == 1).all()


def test_cells_come_row_by_row_and_are_cut_at_the_edge() -> None:
    windows = [(w.row, w.column, w.height, w.width) for w in cells_of((300, 520), 256)]
    assert windows == [
        (0, 0, 256, 256),
        (0, 256, 256, 256),
        (0, 512, 256, 8),
        (256, 0, 44, 256),
        (256, 256, 44, 256),
        (256, 512, 44, 8),
    ]


@pytest.mark.parametrize(
    ("n_dates", "n_bands", "side"),
    [
        # 512 MiB of reflectance hold 1024 x 1024 px of 256 dates and bands.
        (24, 10, 1024),
        (256, 1, 1024),
        (257, 1, 512),
        (73, 10, 512),
        # 400 MB hold a shard of 512 x 512 px of 762 dates and bands; beyond, shards are smaller, a cell holds several.
        (77, 10, 512),
        (103, 10, 256),
        (1000, 12, 128),
    ],
)
def test_the_default_side_follows_from_the_arrays(n_dates: int, n_bands: int, side: int) -> None:
    assert cell_side(n_dates, n_bands, 0) == side


@given(st.integers(1, 1000), st.integers(1, 12))
def test_a_cell_is_made_of_whole_shards(n_dates: int, n_bands: int) -> None:
    assert cell_side(n_dates, n_bands, 0) % shard_side(n_dates, n_bands) == 0


def test_the_side_is_a_function_of_arrays_and_wish_alone() -> None:
    assert list(inspect.signature(cell_side).parameters) == ["n_dates", "n_bands", "wanted"]


def test_a_wanted_side_is_taken() -> None:
    assert cell_side(24, 10, 512) == 512
    assert cell_side(24, 10, 2048) == 2048


@pytest.mark.parametrize("wanted", [256, 600, -512])
def test_a_side_that_is_no_multiple_of_the_shard_is_refused(wanted: int) -> None:
    with pytest.raises(ValueError, match=f"whole shards of 512 px; {wanted} px is no multiple of it"):
        cell_side(24, 10, wanted)


def test_memory_of_a_cell_is_more_than_its_arrays_and_grows_with_them() -> None:
    assert cell_bytes(24, 10, 1024) > 24 * 23 * 1024**2
    assert cell_bytes(24, 10, 1024) > cell_bytes(24, 10, 512)
