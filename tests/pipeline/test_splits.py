from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import IGNORE, Split
from sits_catalog.region import SplitRule
from sits_pipeline.splits import BlockGrid, SplitPlan, block_raster, plan_splits, split_raster
from sits_pipeline.values import Parcels, Window

LEFT, TOP = 600_000, 4_900_020


def geobox(height: int, width: int, *, row: int = 0, column: int = 0, epsg: int = 32631) -> GeoBox:
    return GeoBox((height, width), Affine(10, 0, LEFT + 10 * column, 0, -10, TOP - 10 * row), f"EPSG:{epsg}")


def parcels_of(geometry: list[shapely.Geometry], crop_type: list[int] | None = None, *, epsg: int = 32631) -> Parcels:
    count = len(geometry)
    return Parcels(
        epsg=epsg,
        parcel_id=np.arange(1, count + 1, dtype=np.uint32),
        source_row=np.arange(count),
        crop_type=np.array(crop_type or [1] * count, dtype=np.uint16),
        geometry=np.array(geometry, dtype=object),
    )


def square(x: float, y: float, side: float) -> shapely.Geometry:
    """A square whose upper-left corner is x metres right of and y metres below the cube's."""
    return shapely.box(LEFT + x, TOP - y - side, LEFT + x + side, TOP - y)


def two_blocks(buffer_m: float, geometry: list[shapely.Geometry], splits: list[int]) -> tuple[SplitPlan, Parcels]:
    """A cube of 64 x 128 pixels: a train block beside a test block."""
    grid = BlockGrid(epsg=32631, left=LEFT, top=TOP, block_m=640, split=np.array([[1, 3]], dtype=np.uint8))
    parcels = parcels_of(geometry)
    plan = SplitPlan(
        grids=(grid,), parcel_id=parcels.parcel_id, parcel_split=np.array(splits, np.uint8), buffer_m=buffer_m
    )
    return plan, parcels


def random_parcels(seed: int, count: int, extent: float) -> list[shapely.Geometry]:
    """Ragged stars, rings and pairs of parts, some of them across blocks and over the edge."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        n = int(rng.integers(3, 12))
        angle = np.sort(rng.uniform(0, 2 * np.pi, n))
        radius = rng.uniform(20, 200, n)
        x, y = rng.uniform(-50, extent + 50, 2)
        star = shapely.Polygon(np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)]))
        shape = shapely.make_valid(star, method="structure", keep_collapsed=False)
        if rng.random() < 0.3:
            shape = shapely.difference(shape, shapely.centroid(shape).buffer(15))
        shapes.append(shapely.transform(shape, lambda xy: xy + np.array([LEFT, TOP - extent])))
    return [shape for shape in shapes if shape.geom_type in ("Polygon", "MultiPolygon") and shape.area > 0]


def centres(box: GeoBox) -> NDArray[np.object_]:
    west, _, _, north = box.boundingbox.bbox
    height, width = box.shape
    x, y = np.meshgrid(west + 10 * np.arange(width) + 5, north - 10 * np.arange(height) - 5)
    return np.asarray(shapely.points(x, y))


def test_a_pixel_nearer_than_the_buffer_to_another_splits_parcel_is_buffer() -> None:
    plan, parcels = two_blocks(100, [square(700, 300, 40)], [3])  # 60 m right of the border, in the test block
    raster = split_raster(plan, parcels, geobox(64, 128))
    # Row 32 (y = 325) meets the parcel's side: centres at x < 600 are 100 m away or more, 605 .. 635 are nearer.
    assert raster[32, 58:66].tolist() == [1, 1, 4, 4, 4, 4, 3, 3]
    assert (raster[:, 64:] == 3).all()
    assert raster[0, 63] == 1


def test_the_part_of_a_train_parcel_in_a_test_block_is_buffer() -> None:
    plan, parcels = two_blocks(0, [square(500, 300, 200)], [1])
    raster = split_raster(plan, parcels, geobox(64, 128))
    assert (raster[30:50, 64:70] == 4).all()
    assert np.count_nonzero(raster == 4) == 20 * 6
    assert (raster[:, :64] == 1).all()


def test_a_hole_deeper_than_the_buffer_stays_usable() -> None:
    ring = shapely.difference(square(600, 100, 500), square(680, 180, 340))
    plan, parcels = two_blocks(50, [ring], [1])
    raster = split_raster(plan, parcels, geobox(64, 128))
    assert raster[35, 85] == 3  # 170 m from the inner side
    assert raster[35, 69] == 4  # in the hole, 15 m from its side


def test_parcels_of_no_split_keep_nobody_away() -> None:
    plan, parcels = two_blocks(100, [square(-150, 300, 60), square(560, 300, 60)], [0, 1])
    assert (split_raster(plan, parcels, geobox(64, 128))[:, :64] == 1).all()


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), buffer_m=st.sampled_from([0.0, 7.0, 35.0, 100.0]))
@settings(max_examples=25, deadline=None)
def test_the_buffer_is_exact_against_shapely(seed: int, buffer_m: float) -> None:
    box = geobox(132, 138)
    parcels = parcels_of(random_parcels(seed, 12, 1350))
    plan = plan_splits([parcels], [box], SplitRule(block_m=640, buffer_m=buffer_m, seed=seed))
    raster, block = split_raster(plan, parcels, box), block_raster(plan, box)
    points, home = centres(box), plan.splits_of(parcels.parcel_id)
    for split in (1, 2, 3):
        others = parcels.geometry[(home != split) & (home > 0)]
        here = np.nonzero(block == split)
        if not len(others):
            assert (raster[here] == split).all()
            continue
        distance = shapely.distance(points[here], shapely.union_all(others))
        buffered = raster[here] == Split.BUFFER
        assert (raster[here][~buffered] == split).all()
        assert buffered[distance < buffer_m].all()
        # Nothing else is lost, but for centres within 2 micrometres of the line.
        assert not buffered[(distance > buffer_m + 2e-6)].any()


@pytest.mark.slow
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_cells_of_any_size_agree_with_only_their_own_parcels(seed: int) -> None:
    whole = geobox(132, 138)
    parcels = parcels_of(random_parcels(seed, 15, 1350))
    plan = plan_splits([parcels], [whole], SplitRule(block_m=640, seed=seed))
    expected = split_raster(plan, parcels, whole)
    tree = shapely.STRtree(parcels.geometry)
    for row in range(0, 132, 64):
        for column in range(0, 138, 32):
            cell = geobox(min(64, 132 - row), min(32, 138 - column), row=row, column=column)
            west, south, east, north = cell.boundingbox.bbox
            near = parcels.take(np.sort(tree.query(shapely.box(west - 110, south - 110, east + 110, north + 110))))
            found = split_raster(plan.only(near, cell), near, cell)
            np.testing.assert_array_equal(found, expected[row : row + 64, column : column + 32])


def test_a_parcel_belongs_to_the_block_with_most_of_its_area() -> None:
    box = geobox(64, 192)
    straddling = square(560, 100, 200)  # 80 m left and 120 m right of the border between blocks 0 and 1
    tied = square(1180, 100, 200)  # half in block 1, half in block 2
    fields = [straddling, tied, square(100, 100, 300), square(1500, 100, 200)]
    plan = plan_splits([parcels_of(fields)], [box], SplitRule(block_m=640))
    blocks = plan.grids[0].split[0]
    assert plan.parcel_split.tolist() == [blocks[1], blocks[1], blocks[0], blocks[2]]
    assert sorted(blocks.tolist()) == [1, 2, 3]


def test_a_parcel_outside_of_the_cube_has_no_split() -> None:
    plan = plan_splits([parcels_of([square(-80, 100, 50), square(10, 10, 50)])], [geobox(64, 64)], SplitRule())
    assert plan.parcel_split.tolist() == [0, 1]


def test_too_few_blocks_for_three_splits_is_said() -> None:
    plan = plan_splits([parcels_of([square(10, 10, 50)])], [geobox(64, 64)], SplitRule(block_m=640))
    assert plan.grids[0].split.tolist() == [[1]]
    assert plan.notes[0] == (
        "parcels lie in 1 block of 640 m only: there is no validation and no test split; "
        "a smaller splits: block_m gives more blocks"
    )


def test_a_class_in_too_few_blocks_is_said() -> None:
    fields = [square(100 + 640 * i, 100, 200) for i in range(4)]
    plan = plan_splits([parcels_of(fields, [1, 1, 1, 2])], [geobox(64, 256)], SplitRule(block_m=640))
    assert any("class 2 lies in 1 block and is not in" in note for note in plan.notes)
    assert not any("class 1" in note for note in plan.notes)
    named = plan_splits([parcels_of(fields, [1, 1, 1, 2])], [geobox(64, 256)], SplitRule(block_m=640), names={2: "rye"})
    assert any("class rye lies in 1 block and is not in" in note for note in named.notes)


@pytest.mark.slow
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_every_class_in_enough_blocks_is_in_every_split_and_shares_are_near(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fields = [square(x, y, 150) for x, y in rng.uniform(0, 5800, (300, 2))]
    crops = [*rng.choice([1, 2, 3, 4], 288, p=[0.5, 0.3, 0.15, 0.05]), *([5] * 12)]
    parcels = parcels_of(fields, crops)
    plan = plan_splits([parcels], [geobox(600, 600)], SplitRule(block_m=640, seed=seed))
    area = shapely.area(parcels.geometry)
    for split, target in ((1, 0.6), (2, 0.2), (3, 0.2)):
        mine = plan.parcel_split == split
        assert abs(area[mine].sum() / area.sum() - target) < 0.05
        assert set(parcels.crop_type[mine]) == {1, 2, 3, 4, 5}
    assert plan.notes == ()


def test_a_share_of_zero_makes_no_split() -> None:
    rng = np.random.default_rng(3)
    fields = [square(x, y, 100) for x, y in rng.uniform(0, 3000, (60, 2))]
    rule = SplitRule(block_m=640, shares={"train": 0.75, "validation": 0.25, "test": 0.0})
    plan = plan_splits([parcels_of(fields)], [geobox(320, 320)], rule)
    assert set(plan.grids[0].split.ravel()) == {1, 2}


def test_blocks_without_parcels_are_shared_out_by_ground() -> None:
    fields = [square(100 + 640 * i, 100, 200) for i in range(3)]
    plan = plan_splits([parcels_of(fields)], [geobox(640, 640)], SplitRule(block_m=640))
    counts = np.bincount(plan.grids[0].split.ravel(), minlength=4)
    assert counts.tolist() == [0, 60, 20, 20]


@pytest.mark.parametrize("crop", [None, IGNORE])
def test_parcels_without_classes_and_no_parcels_at_all_still_give_splits(crop: int | None) -> None:
    fields = [] if crop is None else [square(100 + 640 * i, 100, 200) for i in range(5)]
    plan = plan_splits([parcels_of(fields, [IGNORE] * len(fields))], [geobox(320, 320)], SplitRule(block_m=640))
    assert set(plan.grids[0].split.ravel()) == {1, 2, 3}
    assert plan.notes == ()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    parcels = parcels_of(random_parcels(5, 80, 5000), None)
    plans = [plan_splits([parcels], [geobox(500, 500)], SplitRule(block_m=640, seed=seed)) for seed in (1, 1, 2)]
    first, same, other = (plan.grids[0].split for plan in plans)
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    np.testing.assert_array_equal(plans[0].parcel_split, plans[1].parcel_split)


def test_a_cell_s_plan_holds_its_own_parcels_and_blocks_alone() -> None:
    parcels = parcels_of(random_parcels(6, 30, 2500))
    plan = plan_splits([parcels], [geobox(250, 250)], SplitRule(block_m=640))
    few = plan.only(parcels.take(np.array([3, 7])), geobox(50, 60, row=70, column=130))
    # Pixels 70 to 119 lie in the second row of blocks of 64, 130 to 189 in the third column.
    np.testing.assert_array_equal(few.grids[0].split, plan.grids[0].split[1:2, 2:3])
    assert few.parcel_id.tolist() == [4, 8]
    assert few.parcel_split.tolist() == plan.parcel_split[[3, 7]].tolist()


def test_a_region_of_two_zones_is_split_once() -> None:
    # The same ground seen from two zones: parcel 2 is in both tables and nearer to the first zone's meridian.
    west = parcels_of([square(100, 100, 200), square(800, 100, 200)])
    east = Parcels(
        epsg=32632,
        parcel_id=np.array([2, 3], dtype=np.uint32),
        source_row=np.array([1, 2]),
        crop_type=np.array([1, 1], dtype=np.uint16),
        geometry=shapely.transform(
            np.array([square(0, 100, 200), square(900, 100, 200)]), lambda xy: xy - np.array([300_000, 0])
        ),
    )
    second = GeoBox((64, 128), Affine(10, 0, LEFT - 300_000, 0, -10, TOP), "EPSG:32632")
    plan = plan_splits([west, east], [geobox(64, 128), second], SplitRule(block_m=640))
    assert plan.parcel_id.tolist() == [1, 2, 3]
    first, other = plan.grid(32631), plan.grid(32632)
    assert plan.parcel_split.tolist() == [first.split[0, 0], first.split[0, 1], other.split[0, 1]]


def test_a_window_across_two_splits_is_buffer() -> None:
    grid = BlockGrid(epsg=32631, left=LEFT, top=TOP, block_m=640, split=np.array([[1, 1, 3]], dtype=np.uint8))
    assert grid.split_of(Window(row=0, column=60, height=64, width=64)) is Split.TRAIN
    assert grid.split_of(Window(row=0, column=64, height=64, width=64)) is Split.TRAIN
    assert grid.split_of(Window(row=0, column=65, height=64, width=64)) is Split.BUFFER
    assert grid.split_of(Window(row=0, column=128, height=64, width=64)) is Split.TEST
