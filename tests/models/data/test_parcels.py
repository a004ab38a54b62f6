"""The pixel in the middle of a parcel, and which chips around it a training and an evaluation are given."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.synthetic import BANDS, Synthetic

from sits_catalog.cube import Split
from sits_models.data.chunks import ChunkCache, Chunks, Rectangle
from sits_models.data.classes import join_classes
from sits_models.data.cubes import open_cube
from sits_models.data.grid import Grid, read_grid
from sits_models.data.loader import EvaluationData, TrainingData
from sits_models.data.parcels import RECORD, find_middles, measure_parcels
from sits_models.data.sampling import chips_in_epoch, parcels_in_epoch, plan_epoch, rectangle_px
from sits_models.recipe import DataRecipe, DateRule
from sits_models.sample import IGNORE_INDEX

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")

CRESCENT = np.array([[1, 0, 1], [1, 0, 1], [1, 1, 1]], bool)


def copy_of(synthetic: Synthetic, path: Path, **arrays: NDArray[np.generic]) -> Path:
    """The dataset with other label arrays."""
    shutil.copytree(synthetic.folder.location, path)
    group = zarr.open_group(f"{path}/cube.zarr", mode="r+")
    for name, values in arrays.items():
        group[name][...] = values
    return path


def nearest(pixels: NDArray[np.int64]) -> list[int]:
    """Of pixels (n, 2), row by row, the first that is as near to their mean as any."""
    away = ((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1)
    return [int(place) for place in pixels[np.argmin(away)]]


def test_the_middle_of_a_crescent_lies_in_it_though_its_centroid_does_not(synthetic: Synthetic, tmp_path: Path) -> None:
    parcel = np.zeros((540, 576), np.uint32)
    # Over the border of the squares that are read at a time, two pixels side by side, and a single one.
    parcel[510:513, 511:514][CRESCENT] = 7
    parcel[20, 40:42] = 8
    parcel[539, 575] = 9
    cube = open_cube(str(copy_of(synthetic, tmp_path / "cube", parcel_id=parcel)))
    table = np.zeros(12, RECORD)
    measure_parcels(cube, table, cells=None, split=None)
    assert table["pixels"].tolist() == [0] * 7 + [7, 2, 1, 0, 0]
    # The mean is (511 + 1/7, 512), a pixel of no parcel; the one below is 6/7 away, those beside it more than 1.
    assert (table["row_sum"][7] / 7, table["column_sum"][7] / 7) == (pytest.approx(511 + 1 / 7), 512)
    assert parcel[511, 512] == 0
    assert [(int(table["row"][i]), int(table["column"][i])) for i in (7, 8, 9)] == [(512, 512), (20, 40), (539, 575)]


def test_a_parcel_that_the_table_lacks_is_an_error(synthetic: Synthetic, tmp_path: Path) -> None:
    cube = open_cube(str(copy_of(synthetic, tmp_path / "cube", parcel_id=np.full((540, 576), 5, np.uint32))))
    with pytest.raises(ValueError, match=r"is of parcel 5, and parcels.parquet ends with 3; build the cube again"):
        measure_parcels(cube, np.zeros(4, RECORD), cells=None, split=None)


def test_labelled_parcels_of_a_split_are_found_once_whatever_shape_they_have(
    synthetic: Synthetic, tmp_path: Path
) -> None:
    rng, shape = np.random.default_rng(3), (540, 576)
    parcel = rng.integers(0, 200, shape).astype(np.uint32)
    crop = np.array([0, 1, 2, 3, 65535], np.uint16)[rng.integers(0, 5, shape)]
    path = copy_of(synthetic, tmp_path / "cube", parcel_id=parcel, crop_type=crop)
    split = np.asarray(zarr.open_group(f"{path}/cube.zarr", mode="r")["split"][...])
    cube = open_cube(str(path))
    for which in (Split.TRAIN, Split.TEST):
        found = find_middles(cube, read_grid(cube, None, parcels=False), split=which)
        kept = (split == which) & (crop != 65535) & (parcel > 0)
        assert found.parcel.tolist() == np.unique(parcel[kept]).tolist()
        assert len(found) == 199
        for number, row, column, label in zip(found.parcel, found.row, found.column, found.crop, strict=True):
            assert [row, column] == nearest(np.argwhere(kept & (parcel == number)))
            assert label == crop[row, column]


# Which of them an epoch draws


def grid_of(split: NDArray[np.uint8], parcels: list[tuple[int, int, int]]) -> Grid:
    height, width = (64 * side for side in split.shape)
    crops = np.zeros((0, *split.shape), np.int64)
    return Grid(
        height=height, width=width, split=split, crops=crops, parcels=np.array(parcels, np.int64).reshape(-1, 3)
    )


def test_a_parcel_at_the_border_of_its_split_is_left_out_and_one_at_the_edge_of_the_cube_is_not() -> None:
    # Train in the left cell: a window of 9 px around column 59 ends with 63, its last column.
    grid = grid_of(np.array([[1, 2]], np.uint8), [(32, 59, 1), (32, 60, 1), (0, 0, 1), (63, 4, 1), (32, 100, 2)])
    recipe = DataRecipe(size=9, batch=1, sampling="middle")
    assert parcels_in_epoch([grid], recipe) == (3, 1)
    assert chips_in_epoch([grid], recipe) == 3
    plan = plan_epoch([grid], recipe, seed=0, epoch=0)
    assert sorted(plan.places.tolist()) == [[0, -4, -4], [0, 28, 55], [0, 59, 0]]
    assert plan.keep is not None
    assert plan.keep.tolist() == [[4, 5, 4, 5]] * 3


def test_where_every_parcel_lies_too_near_to_another_split_that_is_said() -> None:
    grid = grid_of(np.array([[1, 2]], np.uint8), [(32, 60, 1), (32, 63, 1)])
    message = r"no window of 24 px around a parcel .* lies in train cells alone \(2 are too near to another split\)"
    with pytest.raises(ValueError, match=message):
        plan_epoch([grid], DataRecipe(size=24, sampling="middle"), seed=0, epoch=0)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    split = np.array(draw(st.lists(st.sampled_from([0, 1, 1, 1, 2, 4]), min_size=12, max_size=12)), np.uint8)
    split = split.reshape(3, 4)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    points = np.stack([rng.integers(0, 192, 40), rng.integers(0, 256, 40)], axis=1)
    # As in a cube, no pixel twice.
    points = np.unique(points, axis=0)
    return grid_of(split, [(y, x, int(split[y // 64, x // 64])) for y, x in points.tolist()])


@settings(max_examples=60)
@given(grids(), st.sampled_from([1, 9, 24, 64, 65]), st.integers(0, 20))
def test_each_parcel_whose_window_lies_in_train_cells_is_drawn_as_often_as_any_other(
    grid: Grid, size: int, seed: int
) -> None:
    mine = [(row, column) for row, column, split in grid.parcels.tolist() if split == Split.TRAIN]
    half, padded = size // 2, np.pad((grid.split == Split.TRAIN).repeat(64, 0).repeat(64, 1), 64, constant_values=True)
    windows = [(y - half, x - half) for y, x in mine]
    good = [(y, x) for y, x in windows if padded[64 + y : 64 + y + size, 64 + x : 64 + x + size].all()]
    recipe = DataRecipe(size=size, batch=4, chips=52, sampling="middle")
    assert parcels_in_epoch([grid, grid], recipe) == (2 * len(good), 2 * (len(mine) - len(good)))
    if not good:
        return
    drawn = plan_epoch([grid, grid], recipe, seed=seed, epoch=1).places
    found, times = np.unique(drawn, axis=0, return_counts=True)
    possible = [[number, y, x] for number in (0, 1) for y, x in sorted(good)]
    assert all(place in possible for place in found.tolist())
    assert times.max() - (times.min() if len(found) == len(possible) else 0) <= 1
    assert times.sum() == 52


# What a model is shown


def settings_of(synthetic: Synthetic, **changes: object) -> DataRecipe:
    return DataRecipe(**{"size": 8, "batch": 4, "sampling": "middle", "background": False, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [8, 9])
def test_a_training_sees_each_parcel_in_the_middle_of_a_chip_and_its_label_alone(
    synthetic: Synthetic, size: int
) -> None:
    path = str(synthetic.folder.path)
    with TrainingData.open(settings_of(synthetic, size=size), cubes=[path]) as data:
        drawn, left_out = data.parcels_in_epoch
        known = np.isin(synthetic.table.parcels.crop_type, (1, 2, 3)) & (synthetic.n_pixels > 0)
        assert drawn + left_out == (known & (synthetic.split == Split.TRAIN)).sum() > 20
        seen = []
        for sample in data.epoch(0, seed=1):
            middle = (slice(None), size // 2, size // 2)
            assert (sample.crop != IGNORE_INDEX).sum() == sample.counted.sum() == len(sample.crop)
            seen += sample.parcel[middle].tolist()
            labels = synthetic.table.parcels.crop_type[sample.parcel[middle].numpy() - 1]
            # Classes by code without the background: c1, c2, c3.
            assert (sample.crop[middle].numpy() == labels - 1).all()
        assert len(set(seen)) == drawn
        assert len(seen) == -(-drawn // 4) * 4
        kinds = synthetic.table.parcels.crop_type[np.unique(seen) - 1]
        assert data.train_parcels().tolist() == np.bincount(kinds, minlength=4)[1:].tolist()


def test_parcels_of_each_class_are_counted_as_often_as_they_are_drawn_whatever_their_size(
    synthetic: Synthetic, tmp_path: Path
) -> None:
    parcel, crop = np.zeros((540, 576), np.uint32), np.zeros((540, 576), np.uint16)
    split = np.asarray(zarr.open_group(synthetic.folder.location + "/cube.zarr", mode="r")["split"][...])
    cells = read_grid(open_cube(synthetic.folder.location), None, parcels=False).split == Split.TRAIN
    inner = [(y, x) for y, x in np.argwhere(cells).tolist() if (split[64 * y :, 64 * x :][:64, :64] == 1).all()]
    # Of c1 one large parcel, of c2 three of a pixel.
    (y, x), *others = inner
    parcel[64 * y :, 64 * x :][:40, :40], crop[64 * y :, 64 * x :][:40, :40] = 1, 1
    for number, (y, x) in enumerate(others[:3], 2):
        parcel[64 * y + 32, 64 * x + 32], crop[64 * y + 32, 64 * x + 32] = number, 2
    path = str(copy_of(synthetic, tmp_path / "cube", parcel_id=parcel, crop_type=crop))
    with TrainingData.open(settings_of(synthetic, classes=("c1", "c2")), cubes=[path]) as data:
        assert data.train_pixels().tolist() == [1600, 3]
        assert data.train_parcels().tolist() == [1, 3]
    with (
        TrainingData.open(settings_of(synthetic, sampling="uniform", chips=8), cubes=[path]) as data,
        pytest.raises(ValueError, match=r"one by one with data\.sampling=middle; got uniform"),
    ):
        data.train_parcels()


def decoded_in_an_epoch(grid: Grid, *, mixed: int, room: int) -> tuple[int, int]:
    """Chunks that an epoch of one reader decodes with room for so many, and those that its superblocks see together."""
    plan = plan_epoch([grid], DataRecipe(size=24, sampling="middle", readers=1), seed=0, epoch=0, mixed=mixed)
    assert plan.around is not None
    assert plan.last is not None
    cache = ChunkCache(room)

    def read(where: Rectangle) -> Chunks:
        empty, byte_a_chunk = np.zeros((1, 1, 1, 0), np.uint16), np.zeros(len(where.chunks()), bool)
        return Chunks(where=where, image=empty, clear=byte_a_chunk, crop=None, parcel=None, boundary=None, split=None)

    for place, around, last in zip(plan.places, plan.around, plan.last, strict=True):
        first, end = np.maximum(place[1:], 0) // 64, -(-np.minimum(place[1:] + 24, grid.height) // 64)
        rectangle = Rectangle(0, *around.tolist())
        cache.fetch(Rectangle(0, first[0], end[0], first[1], end[1]).chunks(), rectangle, read)
        if last:
            cache.release(rectangle)
    each = np.unique(plan.around, axis=0)
    return cache.decoded, int(((each[:, 1] - each[:, 0]) * (each[:, 3] - each[:, 2])).sum())


def test_as_many_superblocks_are_mixed_as_the_cache_has_room_for_where_the_lattice_cuts_their_chips() -> None:
    points = np.random.default_rng(0).integers(0, 16 * 64, (1600, 2)).tolist()
    grid = grid_of(np.ones((16, 16), np.uint8), [(row, column, 1) for row, column in points])
    room = 36
    seen = {}
    for cut in (False, True):
        seen[cut] = decoded_in_an_epoch(grid, mixed=room // (rectangle_px(24, cut=cut) // 64) ** 2, room=room)
    decoded, together = seen[True]
    assert 256 <= decoded <= 1.05 * together
    # As if none were cut: chunks are forgotten while their superblock is drawn from, and decoded again and again.
    assert seen[False][0] > 2 * seen[False][1]


def test_a_chunk_is_decoded_once_for_each_superblock_that_sees_it_though_the_lattice_cuts_its_chips(
    synthetic: Synthetic,
) -> None:
    rectangle = 192 * 192 * (4 * (2 * 4 + 1) + 9)  # 3 x 3 chunks
    settings = settings_of(synthetic, size=24, readers=1, chips=400, cache_mb=2.5 * rectangle / 1e6 / (7 / 8))
    with TrainingData.open(settings, cubes=[str(synthetic.folder.path)]) as data:
        assert data._mixed() == 2
        for _ in data.epoch(0, seed=0):
            pass
        around = np.unique(data.plan(0, seed=0).around, axis=0)
        assert (around[:, 1] - around[:, 0]).max() == (around[:, 3] - around[:, 2]).max() == 3
        assert data._reader is not None
        seen = ((around[:, 1] - around[:, 0]) * (around[:, 3] - around[:, 2])).sum()
        assert 0 < data._reader.cache.decoded <= seen


def test_an_evaluation_sees_each_labelled_parcel_once_and_no_ground_of_another_split(synthetic: Synthetic) -> None:
    cube = open_cube(str(synthetic.folder.path))
    table, size = join_classes([cube], codes=("c1", "c2"), background=False), 40
    with EvaluationData.open(
        [cube, cube], table=table, bands=BANDS, dates=DateRule(), labels=1, batch=5, pad_to=4
    ) as data:
        shown = (data.grids[0].split == Split.TEST).repeat(64, 0).repeat(64, 1)[:540, :576]
        image = np.pad(np.where(shown, synthetic.reflectance, 0), [(0, 0), (0, 0), (40, 40), (40, 40)])
        seen, hidden = [], 0
        for sample in data.parcels(Split.TEST, size=size):
            for b, (number, row, column) in enumerate(sample.place.tolist()):
                seen.append((number, int(sample.parcel[b, 20, 20])))
                expected = image[..., 40 + row : 80 + row, 40 + column : 80 + column]
                assert np.array_equal(sample.image[b].numpy(), expected)
                hidden += int((expected == 0).all(axis=(0, 1)).sum())
    # c3 is no class of this table.
    known = np.isin(synthetic.table.parcels.crop_type, (1, 2)) & (synthetic.split == Split.TEST)
    expected_ids = synthetic.table.parcels.parcel_id[known & (synthetic.n_pixels > 0)].tolist()
    assert sorted(seen) == [(number, parcel) for number in (0, 1) for parcel in expected_ids]
    assert hidden > 1000
