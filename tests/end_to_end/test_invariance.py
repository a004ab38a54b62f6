"""What a cube holds does not depend on cells, their order, workers, or where the region's edge lies."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.end_to_end.building import (
    Dataset,
    build_region,
    differing,
    extent,
    item_ids,
    place_of,
    translated,
    with_imagery,
)

from sits_catalog import cube
from sits_catalog.region import LabelRule, Region
from sits_pipeline.plan import ZonePlan

pytestmark = pytest.mark.slow

BANDS = ("B02", "B8A", "B09")
"""Native pixels of 10, 20 and 60 m."""
SHARD = 256
TABLES = ("parcels.parquet", "chips.parquet", "sources.parquet")
IGNORE = 65535


@pytest.fixture(scope="module", autouse=True)
def shards_of_256_px() -> Iterator[None]:
    """Shards, and so the smallest cells, of 256 px. They need more than 762 dates x bands at the limit of 400 MB, half
    a gigabyte a build; a smaller limit gives them to a short series. Nothing else changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cube, "_MAX_SHARD_BYTES", 8 * len(BANDS) * SHARD * SHARD * 2)
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        yield


@pytest.fixture(scope="module")
def region(land: Region) -> Region:
    return with_imagery(land, bands=BANDS).replace(labels=LabelRule(finer=(2,)))


@pytest.fixture(scope="module")
def built(region: Region, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Dataset]:
    """Builds the region in a folder of its own."""

    def build(name: str, **config: Any) -> Dataset:
        return build_region(region, tmp_path_factory.mktemp(name), **config)

    return build


@pytest.fixture(scope="module")
def large_cells(built: Callable[..., Dataset]) -> Dataset:
    return built("large", cell_px=1024, workers=1)


@pytest.fixture(scope="module")
def small_cells(built: Callable[..., Dataset]) -> Dataset:
    return built("small", cell_px=256, workers=2)


def assert_same_dataset(one: Dataset, other: Dataset) -> None:
    """Byte for byte, in all that promise 5 names."""
    left, right = one.files(), other.files()
    names = [name for name in left.keys() | right.keys() if name.startswith("cube.zarr/")] + list(TABLES)
    assert len(names) > 50
    assert differing(names, left, right) == []


def test_a_dataset_holds_what_the_tests_below_compare(small_cells):
    assert small_cells.complete
    assert small_cells.findings() == []
    assert small_cells.group["reflectance"].shape == (8, 3, 600, 1080)
    assert small_cells.group["reflectance"].shards == (8, 3, SHARD, SHARD)
    assert small_cells.group.attrs["sits_cube"]["cells"] == {"side": 256, "rows": 3, "columns": 5, "count": 15}
    assert len(small_cells.table("parcels")) > 300
    # Two tiles, split granules and days of both: several items a date are in use.
    assert {0, 1, 255} <= set(np.unique(small_cells.array("source_index")).tolist())
    for name in ("scl", "quality", "crop_type", "coverage", "boundary_distance", "conflict", "split"):
        assert len(np.unique(small_cells.array(name))) > 2, name


@pytest.mark.parametrize("cell_px", [256, pytest.param(512, marks=pytest.mark.soak)])
def test_cells_of_256_512_and_1024_px_give_the_same_shards(cell_px, large_cells, small_cells, built):
    other = small_cells if cell_px == 256 else built("medium", cell_px=cell_px)
    left, right = large_cells.files("cube.zarr"), other.files("cube.zarr")
    names = (left.keys() | right.keys()) - {"cube.zarr/zarr.json"}
    assert differing(names, left, right) == []
    for table in TABLES:
        assert (large_cells.path / table).read_bytes() == (other.path / table).read_bytes(), table
    # Only what says how the cube was cut into cells differs.
    attributes = [dict(dataset.group.attrs["sits_cube"]) for dataset in (large_cells, other)]
    assert [one.pop("cells")["side"] for one in attributes] == [1024, cell_px]
    assert attributes[0] == attributes[1]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_cells_in_any_order_give_the_same_bytes(seed, small_cells, built, monkeypatch):
    in_order = ZonePlan.cells

    def shuffled(plan: ZonePlan) -> Iterator[Any]:
        windows = list(in_order(plan))
        random.Random(seed).shuffle(windows)
        assert windows != list(in_order(plan))
        return iter(windows)

    monkeypatch.setattr(ZonePlan, "cells", shuffled)
    assert_same_dataset(built(f"order-{seed}", cell_px=256, workers=2), small_cells)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 3, 4])
def test_threads_give_the_same_bytes(workers, small_cells, built):
    assert_same_dataset(built(f"threads-{workers}", cell_px=256, workers=workers), small_cells)


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.soak)])
def test_processes_give_the_same_bytes(workers, small_cells, built):
    dataset = built(f"processes-{workers}", cell_px=256, workers=workers, kind="processes")
    assert_same_dataset(dataset, small_cells)


# Regions that overlap

WEST = extent(left=0, top=0, width=708, height=480)
EAST = extent(left=372, top=120, width=708, height=480)
RIM = 4
"""Pixels at a cube's edge that may lie outside of its region, where nothing is background."""


@pytest.fixture(scope="module")
def west(region: Region, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("west")
    return build_region(region.replace(id="west", place=place_of(WEST, folder)), folder)


@pytest.fixture(scope="module")
def east(region: Region, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The other region begins and ends elsewhere, and its season starts later."""
    folder = tmp_path_factory.mktemp("east")
    season = replace(region.season, start=region.season.start.replace(month=11))
    return build_region(region.replace(id="east", place=place_of(EAST, folder), season=season), folder)


def shared(dataset: Dataset, other: Dataset) -> tuple[list[int], tuple[slice, slice]]:
    """Indices of the dates, and the window, that `dataset` shares with `other`."""
    boxes = []
    for one in (dataset, other):
        height, width = one.group["quality"].shape[-2:]
        left, top = one.transform.c, one.transform.f
        boxes.append((left, top - 10 * height, left + 10 * width, top))
    low, high = np.max(boxes, axis=0), np.min(boxes, axis=0)
    dates = [index for index, day in enumerate(dataset.days) if day in other.days]
    return dates, dataset.slices(low[0], low[1], high[2], high[3])


def on_shared_ground(dataset: Dataset, other: Dataset, name: str) -> Any:
    """An array on the ground and the dates that both cubes have."""
    dates, (rows, columns) = shared(dataset, other)
    if name.startswith("labels_x2/"):
        rows, columns = (slice(2 * part.start, 2 * part.stop) for part in (rows, columns))
    values = dataset.array(name)[..., rows, columns]
    return values if values.ndim == 2 else values[dates]


def source_keys(dataset: Dataset) -> dict[int, str]:
    parcels = dataset.table("parcels")
    return dict(zip(parcels.parcel_id.tolist(), parcels.source_key.tolist(), strict=True))


PAIRS = [("west", "east"), ("west", "small_cells"), ("east", "small_cells")]


@pytest.fixture(params=PAIRS, ids=" and ".join)
def pair(request: pytest.FixtureRequest) -> tuple[Dataset, Dataset]:
    one, other = (request.getfixturevalue(name) for name in request.param)
    return one, other


def test_shared_ground_is_worth_comparing(west, east):
    dates, (rows, columns) = shared(west, east)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (360, 336)
    assert 5 <= len(dates) < len(west.days)
    assert len(np.unique(on_shared_ground(west, east, "parcel_id"))) > 50
    assert west.table("parcels").parcel_id.tolist() != east.table("parcels").parcel_id.tolist()


@pytest.mark.parametrize("name", ["reflectance", "scl", "quality", "coverage", "boundary_distance", "conflict"])
def test_overlapping_regions_agree_on_shared_ground(pair, name):
    one, other = pair
    left, right = on_shared_ground(one, other, name), on_shared_ground(other, one, name)
    if name == "reflectance":
        assert one.bands == other.bands
    np.testing.assert_array_equal(left, right)


def test_overlapping_regions_take_each_pixel_from_the_same_item(pair):
    found = []
    for one, other in (pair, pair[::-1]):
        dates, _ = shared(one, other)
        ids = item_ids(one)
        days = zip(dates, on_shared_ground(one, other, "source_index"), strict=True)
        found.append(
            [translated(values, {n: name for (day, n), name in ids.items() if day == d}) for d, values in days]
        )
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", ["parcel_id", "labels_x2/parcel_id"])
def test_overlapping_regions_give_each_pixel_to_the_same_parcel(pair, name):
    found = [translated(on_shared_ground(one, other, name), source_keys(one)) for one, other in (pair, pair[::-1])]
    np.testing.assert_array_equal(*found)
    assert len(np.unique(found[0])) > 50


def test_overlapping_regions_agree_on_the_class_wherever_both_regions_are(pair):
    left, right = (on_shared_ground(one, other, "crop_type") for one, other in (pair, pair[::-1]))
    np.testing.assert_array_equal(left[RIM:-RIM, RIM:-RIM], right[RIM:-RIM, RIM:-RIM])
    # In the rim a pixel may be background in one region, and lie outside of the other one.
    different = left != right
    assert ((left[different] == IGNORE) | (right[different] == IGNORE)).all()
    assert ((left[different] == 0) | (right[different] == 0)).all()
    assert (left == 0).any()


def test_a_moved_edge_changes_the_files(west, east):
    """The comparison above is no comparison of a dataset with itself."""
    assert west.group.attrs["spatial:transform"] != east.group.attrs["spatial:transform"]
    assert Path(west.path) != Path(east.path)
    assert west.group.attrs["sits_cube"]["config_sha256"] != east.group.attrs["sits_cube"]["config_sha256"]
