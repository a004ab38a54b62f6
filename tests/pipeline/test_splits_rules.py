"""Folds, whole regions, drawn areas and least pixels: worked by hand, and as properties over random parcels."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.pipeline.resplit.labelled_cube import LEFT, TOP, geobox_of, random_parcels

from sits_catalog.cube import Split
from sits_catalog.region import SplitRule
from sits_pipeline.parcels.split_areas import read_split_areas
from sits_pipeline.splits import (
    SplitAreas,
    SplitPlan,
    areas_sha256,
    block_raster,
    plan_splits,
    split_of_window,
    split_raster,
)
from sits_pipeline.values import Parcels, Window

USED = (Split.TRAIN, Split.VALIDATION, Split.TEST)


def squares(corners: list[tuple[float, float]], crops: list[int], side: float = 100.0) -> Parcels:
    """Squares whose upper-left corners lie so many metres right of and below the cube's."""
    shapes = [shapely.box(LEFT + x, TOP - y - side, LEFT + x + side, TOP - y) for x, y in corners]
    return Parcels(
        epsg=32631,
        parcel_id=np.arange(1, len(shapes) + 1, dtype=np.uint32),
        source_row=np.arange(len(shapes)),
        crop_type=np.array(crops, np.uint16),
        geometry=np.array(shapes, dtype=object),
    )


def centres(height: int, width: int) -> NDArray[np.object_]:
    x, y = np.meshgrid(LEFT + 10 * np.arange(width) + 5, TOP - 10 * np.arange(height) - 5)
    return np.asarray(shapely.points(x, y))


def area(where: Split, west: float, north: float, east: float, south: float) -> tuple[Split, shapely.Geometry]:
    return where, shapely.box(LEFT + west, TOP - south, LEFT + east, TOP - north)


def areas_of(*drawn: tuple[Split, shapely.Geometry]) -> SplitAreas:
    return SplitAreas(
        epsg=32631,
        geometry=np.array([shape for _, shape in drawn], dtype=object),
        split=np.array([code for code, _ in drawn], np.uint8),
    )


# Properties


@st.composite
def rules(draw: st.DrawFn) -> SplitRule:
    block_m, buffer_m = draw(st.sampled_from([640, 1280])), draw(st.sampled_from([0.0, 10.0, 55.0, 100.0]))
    seed, least = draw(st.integers(0, 50)), draw(st.sampled_from([1, 1, 40, 400]))
    if draw(st.booleans()):
        folds = draw(st.integers(2, 7))
        fold = draw(st.integers(1, folds))
        return SplitRule(block_m=block_m, buffer_m=buffer_m, seed=seed, folds=folds, fold=fold, min_pixels=least)
    train = draw(st.integers(1, 18))
    test = draw(st.integers(0, 20 - train))
    shares = {"train": train / 20, "validation": (20 - train - test) / 20, "test": test / 20}
    return SplitRule(block_m=block_m, buffer_m=buffer_m, seed=seed, shares=shares, min_pixels=least)


def assert_no_leak(plan: SplitPlan, parcels: Parcels, shape: tuple[int, int]) -> None:
    """No pixel of a split is nearer than the buffer to another split's parcels, by shapely's distances."""
    raster, points = split_raster(plan, parcels, geobox_of(*shape)), centres(*shape)
    own = plan.splits_of(parcels.parcel_id)
    for code in USED:
        others = parcels.geometry[(own != code) & (own > 0)]
        here = points[raster == code]
        if len(others) and len(here):
            assert shapely.distance(here, shapely.union_all(others)).min() >= plan.buffer_m
            assert not shapely.intersects(here, shapely.union_all(others)).any()


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), rule=rules())
@settings(max_examples=30)
def test_no_parcel_is_in_two_splits_the_buffer_is_kept_and_what_lacks_is_said(
    seed: int, count: int, rule: SplitRule
) -> None:
    shape = (132, 198)
    parcels = random_parcels(seed, count, *shape)
    plan = plan_splits([parcels], [geobox_of(*shape)], rule)
    assert plan.parcel_id.tolist() == list(range(1, count + 1))
    assert_no_leak(plan, parcels, shape)
    inside = shapely.area(shapely.intersection(parcels.geometry, shapely.box(*geobox_of(*shape).boundingbox.bbox)))
    wanted = {Split(int(code)) for code in np.unique(plan.grids[0].split)}
    for crop in np.unique(parcels.crop_type[inside > 1]).tolist():
        held = {code: inside[(parcels.crop_type == crop) & (plan.parcel_split == code)].sum() for code in wanted}
        least = 0.0 if rule.min_pixels == 1 else rule.min_pixels * 100.0 - 2 * count
        said = any(note.startswith(f"class {crop} ") for note in plan.notes)
        assert said or all(area > least for area in held.values()), (crop, held, plan.notes)


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), folds=st.integers(2, 6))
@settings(max_examples=8)
def test_folds_partition_the_ground_and_are_the_same_for_each_fold(seed: int, folds: int) -> None:
    shape = (300, 300)
    parcels = random_parcels(seed, 60, *shape)
    plans = [
        plan_splits([parcels], [geobox_of(*shape)], SplitRule(block_m=640, folds=folds, fold=fold, seed=seed))
        for fold in range(1, folds + 1)
    ]
    tests = np.array([plan.grids[0].split == Split.TEST for plan in plans])
    assert (tests.sum(axis=0) == 1).all()
    for number, plan in enumerate(plans):
        blocks = plan.grids[0].split
        following = tests[(number + 1) % folds]
        np.testing.assert_array_equal(blocks == Split.VALIDATION, following if folds > 2 else np.zeros_like(following))
        assert ((blocks == Split.TRAIN) == ~(tests[number] | (blocks == Split.VALIDATION))).all()
    # Of equal size: 25 blocks of which the last row and column are cut.
    ground = np.outer([640, 640, 640, 640, 440], [640, 640, 640, 640, 440])
    sizes = [ground[test].sum() for test in tests]
    assert max(sizes) - min(sizes) < 0.5 * ground.sum()


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), buffer_m=st.sampled_from([0.0, 35.0, 100.0]))
@settings(max_examples=15)
def test_drawn_areas_decide_pixels_and_parcels_and_the_buffer_is_kept(seed: int, buffer_m: float) -> None:
    shape = (132, 198)
    rng = np.random.default_rng(seed)
    parcels, box = random_parcels(seed, 30, *shape), geobox_of(*shape)
    x, y = LEFT + rng.uniform(500, 1500), TOP - rng.uniform(300, 1000)
    corners = [(LEFT + 100, TOP - 50), (x, TOP - 80), (x, y), (LEFT + 60, y - 100)]
    drawn = areas_of(
        (Split.TRAIN, shapely.Polygon(corners)),
        (Split.TEST, shapely.Polygon([(x, TOP - 80), (LEFT + 2100, TOP + 30), (LEFT + 1900, TOP - 1200), (x, y)])),
        (Split.VALIDATION, shapely.Polygon([(x, y), (LEFT + 60, y - 100), (LEFT + 900, TOP - 1400)])),
    )
    plan = plan_splits([parcels], [box], SplitRule(file="areas.gpkg", buffer_m=buffer_m), areas=[drawn])
    ground, points = block_raster(plan, box), centres(*shape)
    for code in USED:
        polygon = drawn.geometry[drawn.split == code][0]
        assert (shapely.contains_properly(polygon, points) <= (ground == code)).all()
        assert ((ground == code) <= shapely.intersects(polygon, points)).all()
    shared = np.array([shapely.area(shapely.intersection(parcels.geometry, shape)) for shape in drawn.geometry])
    for parcel, code in enumerate(plan.parcel_split.tolist()):
        held = {int(split): value for split, value in zip(drawn.split, shared[:, parcel], strict=True)}
        assert held[code] >= max(held.values()) - 1e-3 if code else max(held.values()) < 1e-3
    assert_no_leak(plan, parcels, shape)
    raster = split_raster(plan, parcels, box)
    assert (raster[ground == 0] == 0).all()


# By hand


def test_of_two_folds_the_other_one_is_train() -> None:
    fields = squares([(100 + 640 * i, 100) for i in range(4)], [1] * 4)
    plan = plan_splits([fields], [geobox_of(64, 256)], SplitRule(block_m=640, folds=2, fold=2))
    assert np.bincount(plan.grids[0].split.ravel(), minlength=4).tolist() == [0, 2, 0, 2]


def test_more_folds_than_blocks_with_parcels_is_said() -> None:
    fields = squares([(100, 100), (740, 100)], [1, 1])
    plan = plan_splits([fields], [geobox_of(64, 640)], SplitRule(block_m=640, folds=4))
    assert plan.notes[0] == (
        "parcels lie in 2 blocks of 640 m only: 2 of the 4 folds have none of them; "
        "a smaller splits: block_m gives more blocks"
    )


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_whole_region_is_in_one_split(split: str) -> None:
    parcels = random_parcels(3, 40, 132, 198)
    plan = plan_splits([parcels], [geobox_of(132, 198)], SplitRule(block_m=640, whole=split))  # type: ignore[arg-type]
    assert (split_raster(plan, parcels, geobox_of(132, 198)) == Split[split.upper()]).all()
    assert plan.notes == ()


def test_min_pixels_are_kept_where_blocks_allow_it() -> None:
    """Class 2 lies in six blocks: one of 400 pixels, five of 80. In threes 80 can be had of 160 for each, not more."""
    corners = [(100 + 640 * i, 100.0) for i in range(6)]
    shapes = [
        shapely.box(LEFT + x, TOP - y - 200, LEFT + x + (200 if i == 0 else 40), TOP - y)
        for i, (x, y) in enumerate(corners)
    ]
    common = squares([(100 + 640 * i, 400) for i in range(6)], [1] * 6)
    parcels = Parcels(
        epsg=32631,
        parcel_id=np.arange(1, 13, dtype=np.uint32),
        source_row=np.arange(12),
        crop_type=np.array([2] * 6 + [1] * 6, np.uint16),
        geometry=np.concatenate([np.array(shapes, dtype=object), common.geometry]),
    )
    for seed in range(8):
        plan = plan_splits([parcels], [geobox_of(64, 384)], SplitRule(block_m=640, min_pixels=160, seed=seed))
        pixels = [shapely.area(parcels.geometry[:6][plan.parcel_split[:6] == code]).sum() / 100 for code in USED]
        assert min(pixels) >= 160
        assert not any(note.startswith("class 2") for note in plan.notes)
    impossible = plan_splits([parcels], [geobox_of(64, 384)], SplitRule(block_m=640, min_pixels=500), names={2: "rye"})
    (note,) = [note for note in impossible.notes if note.startswith("class rye")]
    assert note.endswith("where 500 pixels were asked for: it covers 800 pixels in 6 blocks")


def test_ground_between_drawn_areas_is_in_no_split_and_chips_across_two_are_buffer() -> None:
    drawn = areas_of(area(Split.TRAIN, 0, 0, 400, 640), area(Split.TEST, 400, 0, 700, 640))
    fields = squares([(340, 300), (1000, 100)], [1, 1])  # 60 m of 100 m in train, the rest in test; far outside
    box = geobox_of(64, 192)
    plan = plan_splits([fields], [box], SplitRule(file="x", buffer_m=0), areas=[drawn])
    assert plan.parcel_split.tolist() == [1, 0]
    raster = split_raster(plan, fields, box)
    assert raster[0, [0, 39, 40, 69, 70, 191]].tolist() == [1, 1, 3, 3, 0, 0]
    assert raster[35, 38:46].tolist() == [1, 1, 4, 4, 4, 4, 3, 3]
    split_of = split_of_window(plan, box)
    assert split_of(Window(row=0, column=0, height=64, width=40)) is Split.TRAIN
    assert split_of(Window(row=0, column=0, height=64, width=64)) is Split.BUFFER
    assert split_of(Window(row=0, column=42, height=64, width=28)) is Split.TEST
    # Partly in no split: a chip of another split may look at that ground too.
    assert split_of(Window(row=0, column=64, height=64, width=64)) is Split.BUFFER
    assert split_of(Window(row=0, column=128, height=64, width=64)) is Split.NONE


def test_a_cell_draws_areas_as_the_whole_cube_does() -> None:
    drawn = areas_of(area(Split.TRAIN, 3, 7, 801, 1000), area(Split.TEST, 801, -50, 3000, 555))
    parcels, whole = random_parcels(8, 30, 132, 198), geobox_of(132, 198)
    plan = plan_splits([parcels], [whole], SplitRule(file="x"), areas=[drawn])
    expected = split_raster(plan, parcels, whole)
    for row, column in ((0, 0), (64, 0), (0, 64), (64, 128)):
        cell = whole[row : row + 64, column : column + 64]
        found = split_raster(plan.only(parcels, cell), parcels, cell)
        np.testing.assert_array_equal(found, expected[row : row + 64, column : column + 64])


def test_a_class_that_no_drawn_area_of_a_split_holds_is_said() -> None:
    drawn = areas_of(area(Split.TRAIN, 0, 0, 640, 640), area(Split.TEST, 640, 0, 1280, 640))
    fields = squares([(100, 100), (300, 100), (800, 100)], [1, 2, 1])
    plan = plan_splits([fields], [geobox_of(64, 128)], SplitRule(file="x"), areas=[drawn], names={2: "rye"})
    assert plan.notes == (
        "no polygon is validation: there is no validation split",
        "class rye has no parcel in test",
    )


# The file of areas


def write_areas(
    path: Path, drawn: list[tuple[str | None, shapely.Geometry]], *, epsg: int = 4326, column: str = "split"
) -> Path:
    table = geopandas.GeoDataFrame({column: [word for word, _ in drawn]}, geometry=[s for _, s in drawn], crs=32631)
    table.to_crs(epsg).to_file(path)
    return path


@pytest.mark.parametrize(("name", "epsg"), [("a.gpkg", 4326), ("a.geojson", 4326), ("a.shp", 2154), ("a.fgb", 3035)])
def test_areas_are_read_from_any_file_and_crs(tmp_path: Path, name: str, epsg: int) -> None:
    shapes = [area(Split.TRAIN, 0, 0, 400, 640)[1], area(Split.TEST, 400, 0, 800, 640)[1]]
    path = write_areas(tmp_path / name, [("Train ", shapes[0]), ("test", shapes[1])], epsg=epsg)
    (found,) = read_split_areas(str(path), [geobox_of(64, 128)])
    assert sorted(found.split.tolist()) == [1, 3]  # FlatGeobuf has an order of its own
    for shape, code in zip(found.geometry, found.split, strict=True):
        # Straight lines of another CRS: off by millimetres over 640 m.
        assert shapely.area(shapely.symmetric_difference(shape, shapes[0 if code == 1 else 1])) < 5.0


@pytest.mark.parametrize(
    ("drawn", "sentence"),
    [
        (
            [("train", (0, 0, 400, 640)), ("test", (390, 0, 800, 640))],
            r"row 1 \(train\) and row 2 \(test\) overlap by 6\d\d\d m2",
        ),
        ([("train", (0, 0, 400, 640)), (None, (500, 0, 800, 640))], "says train, validation or test; row 2 says None"),
        ([("valid", (0, 0, 400, 640))], "row 1 says 'valid'"),
        ([("train", (9000, 9000, 9400, 9640))], "none of the 1 polygons of .* touches the cube"),
    ],
)
def test_areas_that_cannot_be_used_are_refused(
    tmp_path: Path, drawn: list[tuple[str | None, tuple[float, float, float, float]]], sentence: str
) -> None:
    path = write_areas(tmp_path / "a.gpkg", [(word, area(Split.TRAIN, *box)[1]) for word, box in drawn])
    with pytest.raises(ValueError, match=sentence):
        read_split_areas(str(path), [geobox_of(64, 128)])


def test_a_file_without_the_column_or_no_file_is_refused(tmp_path: Path) -> None:
    path = write_areas(tmp_path / "a.gpkg", [("train", area(Split.TRAIN, 0, 0, 9, 9)[1])], column="part")
    with pytest.raises(ValueError, match="has no column 'split', which says train, validation or test; it has part"):
        read_split_areas(str(path), [geobox_of(64, 128)])
    with pytest.raises(FileNotFoundError, match="no polygons of splits at"):
        read_split_areas(str(tmp_path / "none.gpkg"), [geobox_of(64, 128)])


def test_the_hash_of_areas_is_of_their_ground_and_splits() -> None:
    one = areas_of(area(Split.TRAIN, 0, 0, 400, 640))
    twice = areas_of(area(Split.TRAIN, 0, 0, 400, 640), area(Split.TRAIN, 0, 0, 400, 640))
    for other in (areas_of(area(Split.TEST, 0, 0, 400, 640)), areas_of(area(Split.TRAIN, 0, 0, 400, 640.002))):
        assert areas_sha256([one]) != areas_sha256([other])
    assert areas_sha256([one]) == areas_sha256([twice])


# The rule


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"folds": 1}, "folds are 2 to 100"),
        ({"folds": 3, "fold": 4}, "fold is the one to test with, 1 to folds; got folds 3, fold 4"),
        ({"fold": 2}, "fold 2 is one of some folds; say how many folds there are"),
        ({"folds": 3, "whole": "train"}, "splits come from one of folds, whole and file; got folds and whole"),
        ({"min_pixels": 0}, "min_pixels of a split is 1 or more, got 0"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(given_: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SplitRule(**given_)  # type: ignore[arg-type]
