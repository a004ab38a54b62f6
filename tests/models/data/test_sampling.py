from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sits_catalog.cube import Split
from sits_models.data.grid import Grid
from sits_models.data.sampling import EpochPlan, chips_in_epoch, plan_epoch, plan_evaluation, rectangle_px
from sits_models.recipe import DataRecipe

SAMPLINGS = ("uniform", "class", "parcel")


def grid_of(
    split: NDArray[np.uint8], *, height: int | None = None, width: int | None = None, seed: int = 0, classes: int = 3
) -> Grid:
    """A grid with random crops and parcels on cells of these splits."""
    rng = np.random.default_rng(seed)
    rows, columns = split.shape
    height, width = height or 64 * rows, width or 64 * columns
    points = np.stack([rng.integers(0, height, 300), rng.integers(0, width, 300)], axis=1)
    parcels = np.concatenate([points, split[points[:, 0] // 64, points[:, 1] // 64][:, None]], axis=1)
    crops = rng.integers(0, 500, (classes, rows, columns)) * (rng.random((classes, rows, columns)) < 0.5)
    return Grid(height=height, width=width, split=split, crops=crops, parcels=parcels.astype(np.int64))


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    rows, columns = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    cells = draw(st.lists(st.sampled_from([0, 1, 1, 1, 2, 3, 4]), min_size=rows * columns, max_size=rows * columns))
    split = np.array(cells, np.uint8).reshape(rows, columns)
    height = 64 * rows - draw(st.sampled_from([0, 4, 50]))
    width = 64 * columns - draw(st.sampled_from([0, 4, 50]))
    return grid_of(split, height=height, width=width, seed=draw(st.integers(0, 9)))


def cells_of(grid: Grid, row: int, column: int, size: int) -> NDArray[np.uint8]:
    """Splits of every cell that a window touches."""
    bottom, right = min(row + size, grid.height), min(column + size, grid.width)
    return grid.split[row // 64 : -(-bottom // 64), column // 64 : -(-right // 64)]


def blocks_of(plan: EpochPlan, chip: int, grid: Grid) -> set[tuple[int, int, int]]:
    number, row, column = plan.places[chip].tolist()
    bottom, right = min(row + plan.size, grid.height), min(column + plan.size, grid.width)
    return {(number, y, x) for y in range(row // 64, -(-bottom // 64)) for x in range(column // 64, -(-right // 64))}


# Splits


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.lists(grids(), min_size=1, max_size=3),
    st.sampled_from([8, 24, 48, 64, 96, 130]),
    st.sampled_from(SAMPLINGS),
    st.integers(0, 50),
)
def test_no_window_of_a_training_touches_a_cell_of_another_split(
    several: list[Grid], size: int, sampling: str, seed: int
) -> None:
    recipe = DataRecipe(size=size, sampling=sampling, chips=40, batch=8)  # type: ignore[arg-type]
    try:
        plan = plan_epoch(several, recipe, seed=seed, epoch=3)
    except ValueError:
        assume(False)  # nothing to draw from, which has tests of its own
    for number, row, column in plan.places.tolist():
        grid = several[number]
        assert 0 <= row <= max(0, grid.height - size)
        assert 0 <= column <= max(0, grid.width - size)
        assert (cells_of(grid, row, column, size) == Split.TRAIN).all()


@pytest.mark.slow
@given(grids(), st.integers(1, 64), st.sampled_from([Split.TRAIN, Split.VALIDATION, Split.TEST]))
def test_an_evaluation_owns_every_pixel_of_its_cells_once_and_sees_no_other(
    grid: Grid, size: int, split: Split
) -> None:
    size = max(size, 7)
    plan = plan_evaluation([grid, grid], split=split, size=size, batch=5)
    assert plan.keep is not None
    owned = np.zeros((2, 64 * grid.split.shape[0], 64 * grid.split.shape[1]), int)
    for (number, row, column), (top, bottom, left, right) in zip(plan.places.tolist(), plan.keep.tolist(), strict=True):
        assert 0 <= top < bottom <= size
        assert 0 <= left < right <= size
        assert (cells_of(grid, row, column, size) == split).all()
        owned[number, row + top : row + bottom, column + left : column + right] += 1
    expected = (grid.split == split).repeat(64, 0).repeat(64, 1)
    expected[grid.height :] = expected[:, grid.width :] = False
    assert np.array_equal(owned, np.stack([expected, expected]))


def test_windows_of_an_evaluation_share_a_cell_at_half_overlaps() -> None:
    grid = grid_of(np.array([[2]], np.uint8))
    plan = plan_evaluation([grid], split=Split.VALIDATION, size=48, batch=4)
    assert plan.keep is not None
    assert plan.places[:, 1:].tolist() == [[0, 0], [0, 16], [16, 0], [16, 16]]
    assert plan.keep.tolist() == [[0, 32, 0, 32], [0, 32, 16, 48], [16, 48, 0, 32], [16, 48, 16, 48]]


def test_windows_beyond_a_cell_lie_around_it_and_say_which_cells_may_be_seen() -> None:
    grid = grid_of(np.array([[2, 2], [1, 2]], np.uint8), height=100)
    plan = plan_evaluation([grid], split=Split.VALIDATION, size=64, halo=10, batch=4)
    assert plan.size == 84
    assert plan.places[:, 1:].tolist() == [[-10, -10], [-10, 54], [54, 54]]
    assert plan.keep is not None
    assert plan.keep.tolist() == [[10, 74, 10, 74], [10, 74, 10, 74], [10, 46, 10, 74]]
    shown = plan[0].shown
    assert shown is not None
    # From the cell of the first pixel on, which may lie outside of the cube, where there is nothing to see.
    assert shown[0].tolist() == [[False, False, False], [False, True, True], [False, False, True]]
    assert shown[2].tolist() == [[True, True, False], [False, True, False], [False, False, False]]
    assert plan_evaluation([grid], split=Split.TEST, size=64, halo=10, batch=4).places.shape == (0, 3)


def test_a_split_too_small_for_the_chips_is_refused() -> None:
    grid = grid_of(np.array([[1, 2], [2, 1]], np.uint8))
    with pytest.raises(ValueError, match="no window of 96 px lies in train cells alone"):
        plan_epoch([grid], DataRecipe(size=96), seed=0, epoch=0)


def test_a_cube_smaller_than_a_chip_gives_its_corner() -> None:
    plan = plan_epoch([grid_of(np.array([[1]], np.uint8), height=20, width=30)], DataRecipe(chips=16), seed=0, epoch=0)
    assert np.array_equal(plan.places, np.zeros((16, 3)))


# Chances


@pytest.mark.slow
def test_over_all_shifts_every_window_is_drawn_alike_often() -> None:
    split = np.ones((4, 5), np.uint8)
    split[1, 2] = 2
    grid, size = grid_of(split), 40
    recipe = DataRecipe(size=size, chips=400, batch=16)
    drawn = np.concatenate([plan_epoch([grid], recipe, seed=1, epoch=epoch).places for epoch in range(600)])
    rows, columns = np.mgrid[: 256 - size + 1, : 320 - size + 1]
    fits = np.vectorize(lambda r, c: (cells_of(grid, r, c, size) == 1).all())(rows, columns)
    counts = np.zeros(fits.shape, int)
    np.add.at(counts, (drawn[:, 1], drawn[:, 2]), 1)
    assert not counts[~fits].any()
    # By the cell in which a window starts and by whether it passes its edges.
    kind = (rows // 64 * 5 + columns // 64) * 4 + ((rows % 64 > 24) * 2 + (columns % 64 > 24))
    expected = np.bincount(kind[fits], minlength=80) * len(drawn) / fits.sum()
    found = np.bincount(kind[fits], weights=counts[fits], minlength=80)
    assert (abs(found - expected) <= 0.2 * expected + 60).all()


def test_a_rare_class_is_in_as_many_chips_as_a_common_one() -> None:
    split = np.ones((6, 6), np.uint8)
    grid = grid_of(split, classes=3)
    crops = np.zeros((3, 6, 6), np.int64)
    crops[1], crops[2, 4, 4] = 3000, 200
    grid = replace(grid, crops=crops)
    recipe = DataRecipe(chips=2000, sampling="class", size=32)
    places = plan_epoch([grid], recipe, seed=0, epoch=0).places
    near = ((places[:, 1:] + 32 > 4 * 64) & (places[:, 1:] < 5 * 64)).all(axis=1)
    # Half of the chips, those drawn for the rare class, and a few of the others.
    assert 0.5 < near.mean() < 0.6
    with pytest.raises(ValueError, match="no class of the table grows in the train split"):
        plan_epoch([replace(grid, crops=np.zeros_like(crops))], recipe, seed=0, epoch=0)


def test_every_parcel_is_the_reason_of_as_many_chips() -> None:
    split = np.ones((6, 6), np.uint8)
    parcels = np.array([[5, 5, 1], [100, 200, 1], [383, 383, 1], [300, 20, 2]], np.int64)
    grid = replace(grid_of(split), parcels=parcels)
    recipe = DataRecipe(chips=3000, sampling="parcel", size=24)
    places = plan_epoch([grid], recipe, seed=0, epoch=0).places[:, None, 1:]
    holds = ((places <= parcels[None, :, :2]) & (parcels[None, :, :2] < places + 24)).all(axis=2)
    assert (holds[:, :3].sum(axis=1) == 1).all()
    assert abs(holds[:, :3].mean(axis=0) - 1 / 3).max() < 0.03
    assert not holds[:, 3].any()
    with pytest.raises(ValueError, match="no parcel lies in the train split"):
        plan_epoch([replace(grid, parcels=parcels[3:])], recipe, seed=0, epoch=0)


def test_a_parcel_that_no_window_can_hold_is_passed_over() -> None:
    split = np.array([[1, 1, 2], [1, 1, 2], [2, 2, 1]], np.uint8)
    parcels = np.array([[150, 150, 1]], np.int64)
    grid = replace(grid_of(split), parcels=parcels)
    plan = plan_epoch([grid], DataRecipe(chips=64, sampling="parcel", size=70), seed=0, epoch=0)
    assert (plan.places[:, 1:] <= 128 - 70).all()


# Order


@given(grids(), st.integers(1, 4), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=50)
def test_an_epoch_is_whole_batches_and_the_same_each_time(grid: Grid, readers: int, batch: int, seed: int) -> None:
    if not (grid.split[: grid.height // 64, : grid.width // 64] == 1).any():
        return  # no whole cell
    recipe = DataRecipe(size=24, batch=batch, readers=readers)
    plan, again, other = (plan_epoch([grid], recipe, seed=seed, epoch=epoch) for epoch in (0, 0, 1))
    assert len(plan) * batch == len(plan.places) == chips_in_epoch([grid], recipe)
    assert np.array_equal(plan.places, again.places)
    assert np.array_equal(plan.seeds, again.seeds)
    assert not np.array_equal(plan.seeds, other.seeds)
    together = np.concatenate([plan[k].places for k in range(len(plan))])
    assert np.array_equal(together, plan.places)


def test_an_epoch_covers_the_split_once_in_area() -> None:
    split = np.ones((10, 10), np.uint8)
    split[5:] = 2
    grid = grid_of(split, width=630)
    assert chips_in_epoch([grid], DataRecipe(batch=1)) == -(-5 * 64 * 630 // 48**2)
    assert chips_in_epoch([grid], DataRecipe(batch=100)) == 100
    assert chips_in_epoch([grid], DataRecipe(chips=33, batch=16)) == 48


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("readers", [1, 2])
def test_a_block_is_decoded_once_and_its_chips_are_mixed_with_those_of_63_others(sampling: str, readers: int) -> None:
    grid = grid_of(np.ones((40, 40), np.uint8))
    grid = replace(grid, parcels=np.insert(np.random.default_rng(0).integers(0, 2560, (4000, 2)), 2, 1, axis=1))
    recipe = DataRecipe(chips=12_000, sampling=sampling, readers=readers, batch=16)  # type: ignore[arg-type]
    plan = plan_epoch([grid], recipe, seed=0, epoch=0)
    assert plan.around is not None
    for stream in range(readers):
        chips = np.concatenate([np.arange(k * 16, k * 16 + 16) for k in range(stream, len(plan), readers)])
        around = plan.around[chips]
        _, first = np.unique(around, axis=0, return_index=True)
        _, last = np.unique(around[::-1], axis=0, return_index=True)
        last = len(chips) - 1 - last
        is_open = np.zeros(len(chips) + 1, int)
        np.add.at(is_open, first, 1)
        np.add.at(is_open, last + 1, -1)
        is_open = np.cumsum(is_open)[:-1]
        assert is_open.max() <= 16
        # At any time but the beginning and the end chips of 16 superblocks are mixed.
        middle = is_open[500 // readers : -1500 // readers]
        assert middle.mean() > 15
        # And a batch holds chips of most of them.
        batches = around.reshape(-1, 16, 4)[20:-90]
        assert np.mean([len(np.unique(batch, axis=0)) for batch in batches]) > 7
    assert plan.last is not None
    assert len(np.unique(plan.around, axis=0)) <= plan.last.sum() < len(np.unique(plan.around, axis=0)) + readers
    blocks = {tuple(rectangle) for rectangle in plan.around.tolist()}
    decoded = sum((bottom - top) * (right - left) for top, bottom, left, right in blocks)
    assert decoded <= 1.15 * 1600
    assert len(plan.places) / decoded <= 8


def test_a_chip_lies_in_the_blocks_that_are_decoded_for_it() -> None:
    grid = grid_of(np.ones((9, 9), np.uint8), height=560, width=570)
    for size in (24, 64, 100):
        plan = plan_epoch([grid], DataRecipe(size=size, chips=300), seed=0, epoch=1)
        assert plan.around is not None
        side = rectangle_px(size, cut=False) // 64
        for chip, (top, bottom, left, right) in enumerate(plan.around.tolist()):
            held = {(0, y, x) for y in range(top, bottom) for x in range(left, right)}
            assert blocks_of(plan, chip, grid) <= held
            assert bottom - top <= side
            assert right - left <= side


def test_the_order_depends_on_the_number_of_readers_and_the_chips_do_not() -> None:
    grid = grid_of(np.ones((9, 9), np.uint8))
    plans = [plan_epoch([grid], DataRecipe(chips=320, readers=readers), seed=0, epoch=0) for readers in (1, 2, 3)]
    chips = [sorted(map(tuple, plan.places.tolist())) for plan in plans]
    assert chips[0] == chips[1] == chips[2]
    assert not np.array_equal(plans[0].places, plans[1].places)
    with pytest.raises(ValueError, match="readers is at least 1; got 0"):
        plan_epoch([grid], DataRecipe(readers=0), seed=0, epoch=0)
