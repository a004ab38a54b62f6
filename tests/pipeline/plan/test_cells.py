from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sits_catalog.cube import shard_side
from sits_pipeline.plan.cells import CellMemory, cell_memory, cell_side, cells_of


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


def memory(n_dates: int, n_bands: int, side: int, *, finer: tuple[int, ...] | None) -> CellMemory:
    """Memory of a square cell; `finer` None: without labels."""
    return cell_memory(n_dates, n_bands, side * side, labels=finer is not None, finer=finer or ())


@pytest.mark.parametrize(
    ("n_dates", "n_bands", "side", "finer", "threads", "measured"),
    [
        # Resident memory of a process that built such a cell of noise, with parcels of 80 m, in bytes.
        (1, 1, 1020, None, 1, 150e6),
        (2, 2, 252, (2, 4), 2, 238e6),
        (2, 2, 510, (2, 4), 2, 329e6),
        (2, 2, 1020, (), 1, 267e6),
        (2, 2, 1020, (2,), 2, 379e6),
        (2, 2, 1020, (2, 4), 1, 557e6),
        (6, 4, 2040, None, 2, 614e6),
        (6, 4, 2040, (), 2, 1105e6),
        (16, 10, 1020, (), 8, 1046e6),
        (24, 10, 1020, None, 1, 920e6),
        (24, 10, 1020, (2, 4), 2, 1219e6),
        (73, 10, 510, None, 2, 727e6),
        (73, 10, 510, (2, 4), 2, 911e6),
        (120, 10, 252, (), 2, 428e6),
    ],
)
def test_memory_of_a_cell_bounds_what_was_measured_and_not_by_far(
    n_dates: int, n_bands: int, side: int, finer: tuple[int, ...] | None, threads: int, measured: float
) -> None:
    needed = memory(n_dates, n_bands, side, finer=finer)
    assert measured <= needed.first + (threads - 1) * needed.further <= 1.5 * measured


@given(st.integers(1, 100), st.integers(1, 12), st.sampled_from([128, 256, 512, 1024]))
def test_memory_grows_with_the_arrays_of_a_cell(n_dates: int, n_bands: int, side: int) -> None:
    one = memory(n_dates, n_bands, side, finer=None)
    assert one.first > n_dates * (2 * n_bands + 3) * side**2 + one.further
    for other in (
        memory(n_dates + 1, n_bands, side, finer=None),
        memory(n_dates, n_bands + 1, side, finer=None),
        memory(n_dates, n_bands, side + 64, finer=None),
        memory(n_dates, n_bands, side, finer=()),
    ):
        assert other.first > one.first
        assert other.further >= one.further
    labels = [memory(n_dates, n_bands, side, finer=finer).first for finer in ((), (2,), (4,), (2, 4))]
    assert labels == sorted(labels)
    assert len(set(labels)) == 4
