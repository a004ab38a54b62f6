"""Pixels of classes by planned split, and tables with small classes folded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import IGNORE, Split
from sits_catalog.taxonomy import CropClass, Taxonomy
from sits_pipeline.parcels import ParcelTable
from sits_pipeline.parcels.folding import fold_small_classes, pixels_by_split
from sits_pipeline.splits import BlockGrid, SplitPlan
from sits_pipeline.values import Parcels

LEFT, TOP = 600_000, 4_900_020
BOX = GeoBox((64, 128), Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631")
CROPS = Taxonomy(
    id="test",
    classes=(
        CropClass(index=1, code="w", name="wheat", hcat="3301010100"),
        CropClass(index=2, code="v", name="vines", hcat="3303060000"),
    ),
    codes={"w": 1, "v": 2},
)


def square(x: float, y: float, side: float) -> shapely.Geometry:
    """A square whose upper-left corner is x metres right of and y metres below the cube's."""
    return shapely.box(LEFT + x, TOP - y - side, LEFT + x + side, TOP - y)


def objects(values: list[Any]) -> NDArray[np.object_]:
    found = np.empty(len(values), object)
    found[:] = values
    return found


def table(
    geometry: list[shapely.Geometry], crops: list[int], ids: list[int] | None = None, epsg: int = 32631
) -> ParcelTable:
    classes = {crop.index: crop for crop in CROPS.classes}
    return ParcelTable(
        parcels=Parcels(
            epsg=epsg,
            parcel_id=np.array(ids or range(1, len(crops) + 1), np.uint32),
            source_row=np.arange(len(crops)),
            crop_type=np.array(crops, np.uint16),
            geometry=objects(geometry),
        ),
        source_key=objects([str(row) for row in range(len(crops))]),
        source_code=objects([classes[crop].code if crop in classes else None for crop in crops]),
        crop_name=objects([classes[crop].name if crop in classes else None for crop in crops]),
        hcat_code=objects([classes[crop].hcat if crop in classes else None for crop in crops]),
        flags=np.zeros(len(crops), np.uint8),
        taxonomy=CROPS,
        unknown_codes={},
        dropped=(),
        notes=(),
    )


def plan(splits: list[Split]) -> SplitPlan:
    """Parcels 1, 2, ... in these splits."""
    grid = BlockGrid(epsg=32631, left=LEFT, top=TOP, block_m=640, split=np.array([[1, 3]], np.uint8))
    return SplitPlan(
        grids=(grid,),
        parcel_id=np.arange(1, len(splits) + 1, dtype=np.uint32),
        parcel_split=np.array(splits, np.uint8),
        buffer_m=0,
    )


def test_pixels_of_a_class_are_the_area_of_its_parcels_in_a_split() -> None:
    # 100 m x 100 m is 100 pixels; 25 m x 25 m is 6.25, so that two of them are 12.5.
    parcels = [square(0, 0, 100), square(200, 0, 100), square(700, 0, 25), square(800, 0, 25), square(0, 300, 50)]
    splits = plan([Split.TRAIN, Split.TRAIN, Split.TEST, Split.TEST, Split.TEST])
    assert pixels_by_split([table(parcels, [1, 1, 1, 1, 2])], [BOX], splits) == {
        1: {"train": 200, "validation": 0, "test": 12},
        2: {"train": 0, "validation": 0, "test": 25},
    }


def test_only_what_lies_in_the_cube_and_in_a_split_and_has_a_class_counts() -> None:
    parcels = [square(-50, 0, 100), square(200, 0, 100), square(400, 0, 100)]
    splits = plan([Split.TRAIN, Split.NONE, Split.TRAIN])
    assert pixels_by_split([table(parcels, [1, 1, IGNORE])], [BOX], splits) == {
        1: {"train": 50, "validation": 0, "test": 0}
    }


def test_a_parcel_that_two_zones_share_counts_once_with_its_larger_part() -> None:
    # The second cube begins 40 m into the parcel.
    right = GeoBox((64, 64), Affine(10, 0, LEFT + 40, 0, -10, TOP), "EPSG:32631")
    left = GeoBox((64, 9), Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631")
    zones = [table([square(0, 0, 100)], [1], [1]), table([square(0, 0, 100), square(300, 0, 10)], [1, 2], [1, 2])]
    counts = pixels_by_split(zones, [left, right], plan([Split.TRAIN, Split.TEST]))
    assert counts == {1: {"train": 90, "validation": 0, "test": 0}, 2: {"train": 0, "validation": 0, "test": 1}}


def test_a_folded_table_has_the_new_class_everywhere() -> None:
    one = table([square(0, 0, 100), square(200, 0, 90), square(400, 0, 10)], [1, 2, IGNORE])
    (folded,), folding = fold_small_classes([one], [BOX], plan([Split.TRAIN] * 3), {"train": 82}, has_names=False)
    assert folding is not None
    assert [item.crop.code for item in folding.classes] == ["v"]
    assert folded.parcels.crop_type.tolist() == [1, 3, IGNORE]
    assert folded.parcels.crop_type.dtype == np.uint16
    assert folded.crop_name.tolist() == ["wheat", "other crops", None]
    assert folded.hcat_code.tolist() == ["3301010100", None, None]
    assert folded.source_code.tolist() == ["w", "v", None]
    assert folded.taxonomy is folding.taxonomy
    assert one.parcels.crop_type.tolist() == [1, 2, IGNORE]


def test_names_of_the_source_stay() -> None:
    one = replace(table([square(0, 0, 100), square(200, 0, 10)], [1, 2]), crop_name=objects(["Weizen", "Reben"]))
    (folded,), _ = fold_small_classes([one], [BOX], plan([Split.TRAIN] * 2), {"train": 50}, has_names=True)
    assert folded.crop_name.tolist() == ["Weizen", "Reben"]


def test_nothing_changes_where_nothing_is_asked_for_or_every_class_has_enough() -> None:
    one, splits = table([square(0, 0, 100), square(200, 0, 90)], [1, 2]), plan([Split.TRAIN] * 2)
    assert fold_small_classes([one], [BOX], splits, {}, has_names=False) == ((one,), None)
    (same,), folding = fold_small_classes([one], [BOX], splits, {"train": 81}, has_names=False)
    assert same is one
    assert folding is None


def test_a_rule_for_a_split_without_parcels_is_refused() -> None:
    one = table([square(0, 0, 100), square(200, 0, 90)], [1, 2])
    with pytest.raises(ValueError, match=r"none of the 2 classes has the min_pixels asked for \(1 in test\)"):
        fold_small_classes([one], [BOX], plan([Split.TRAIN] * 2), {"test": 1}, has_names=False)
