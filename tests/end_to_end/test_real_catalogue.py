"""Two tiles of Earth Search, as they were served: overlapping, half a pixel out of phase, with metadata that are wrong.

The files hold pixels of 120 m whose edges are edges of the cube's pixels: what a tile says about a pixel of the cube is
what its file holds at that pixel's centre, found with rasterio alone.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from tests.end_to_end.building import Dataset, build_region, item_ids, place_of

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.region import Imagery, Region, Season

BANDS = {"B02": "B02.tif", "B03": "B03.tif", "B04": "B04.tif", "B08": "B08.tif"}
ASSETS = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "SCL": "scl"}
TWL, TWM = "S2B_33TWL_20230813_0_L2A", "S2B_33TWM_20230813_0_L2A"
# TWL begins at y 5100000 and TWM ends at y 5090220; the grid goes on for 480 m on both sides.
GRID = GeoBox((1074, 288), Affine(10, 0, 553980, 0, -10, 5100480), "EPSG:32633")


@pytest.fixture(scope="module")
def dataset(sits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("earthsearch")
    region = Region(
        id="twl-twm",
        season=Season(start=date(2023, 8, 1), end=date(2023, 8, 31)),
        place=place_of(GRID, folder),
        imagery=Imagery(source="stac", path=str(sits_data / "earthsearch" / "catalog.json"), bands=tuple(BANDS)),
        parcels=ParcelSource(
            path=str(sits_data / "earthsearch" / "parcels" / "SI_2021.zip"), id="ID", code="EC_hcat_n"
        ),
        taxonomy="hcat3",
    )
    return build_region(region, folder / "out")


@pytest.fixture(scope="module")
def items(sits_data: Path) -> dict[str, Path]:
    """The item files, by id."""
    found = {path.stem: path for path in (sits_data / "earthsearch").rglob("S2B_33TW*_20230813_0_L2A.json")}
    return {name: found[name] for name in (TWL, TWM)}


def seen_by(item: Path, band: str) -> np.ndarray:
    """What an item's file holds at the centre of each pixel of the grid; 0 outside of the file."""
    href = json.loads(item.read_text())["assets"][ASSETS[band]]["href"]
    with rasterio.open(item.parent / href) as file:
        values = file.read(1)
        rows, columns = np.indices(GRID.shape)
        x, y = GRID.affine @ (columns + 0.5, rows + 0.5)
        to_pixels = ~file.transform
        columns, rows = (np.floor(value).astype(int) for value in to_pixels @ (x, y))
    inside = (rows >= 0) & (rows < values.shape[0]) & (columns >= 0) & (columns < values.shape[1])
    found = np.zeros(GRID.shape, values.dtype)
    found[inside] = values[rows[inside], columns[inside]]
    return found


@pytest.mark.slow
def test_both_tiles_are_mosaicked_and_each_pixel_is_one_items(dataset, items):
    assert dataset.days == [date(2023, 8, 13)]
    ids = item_ids(dataset)
    assert sorted(ids.values()) == [TWL, TWM]
    source_index = dataset.array("source_index")[0]
    assert {0, 1} <= set(np.unique(source_index)) <= {0, 1, 255}
    for position in (0, 1):
        item, here = items[ids[0, position]], source_index == position
        for band, values in zip(dataset.bands, dataset.array("reflectance")[0], strict=True):
            np.testing.assert_array_equal(values[here], np.maximum(seen_by(item, band)[here], 1), err_msg=band)
        np.testing.assert_array_equal(dataset.array("scl")[0][here], seen_by(item, "SCL")[here])


@pytest.mark.slow
def test_a_pixel_comes_from_the_first_item_that_observes_it(dataset, items):
    ids, source_index = item_ids(dataset), dataset.array("source_index")[0]
    observed = [
        (seen_by(items[ids[0, position]], "SCL") > 0)
        & np.logical_or.reduce([seen_by(items[ids[0, position]], band) > 0 for band in BANDS])
        for position in (0, 1)
    ]
    expected = np.select(observed, [0, 1], 255)
    np.testing.assert_array_equal(source_index, expected)
    # The order is by cloud cover, and the overlap belongs to one tile alone.
    clouds = [json.loads(items[ids[0, n]].read_text())["properties"]["eo:cloud_cover"] for n in (0, 1)]
    assert clouds == sorted(clouds)
    assert (observed[0] & observed[1]).sum() > 200_000


@pytest.mark.slow
def test_grids_of_the_tiles_are_half_a_pixel_out_of_phase(dataset):
    source_index, blue = dataset.array("source_index")[0], dataset.array("reflectance")[0, 0]
    starts = {}
    for position, name in ((item_ids(dataset)[0, n], n) for n in (0, 1)):
        column = np.where(source_index[:, 100] == name, blue[:, 100].astype(int), -1)
        rows = np.flatnonzero((np.diff(column) != 0) & (column[1:] >= 0) & (column[:-1] >= 0)) + 1
        starts[position] = {int(row * 10 - 480) % 120 for row in rows}
    # Metres south of TWL's upper edge at which a new source pixel begins.
    assert starts[TWL] == {0}
    assert starts[TWM] == {60}


@pytest.mark.slow
def test_declared_offset_is_not_applied_a_second_time(dataset, items):
    for item in items.values():
        blue = json.loads(item.read_text())["assets"]["blue"]
        assert blue["raster:bands"][0]["offset"] == -0.1
        assert blue["proj:shape"] == [10980, 10980]  # the file has 915 x 915
    sources = dataset.table("sources").set_index("id")
    assert set(sources.boa_offset_declared) == {0}
    assert set(sources.boa_offset_audited) == {0}
    assert set(sources.boa_offset_applied) == {0}
    for text in sources.boa_offset_medians:
        medians = json.loads(text)
        assert medians["B02"] < 1000
        assert medians["B04"] < 1000
    reflectance, observed = dataset.array("reflectance")[0], dataset.array("quality")[0] & 1 > 0
    assert (reflectance[:, observed] >= 1).all()
    assert not reflectance[:, ~observed].any()
    assert np.median(reflectance[0][observed]) < 600


@pytest.mark.slow
def test_lineage_columns_are_filled(dataset):
    sources = dataset.table("sources")
    assert sorted(sources.id) == [TWL, TWM]
    assert set(sources.status) == {"used"}
    assert set(sources.provider) == {"earth-search"}
    assert set(sources.processing_baseline) == {"05.09"}
    assert set(sources.platform) == {"sentinel-2b"}
    assert sorted(sources.mgrs_tile) == ["33TWL", "33TWM"]
    assert sorted(sources.source_index) == [0, 1]
    assert set(sources.date_index) == {0}
    assert sources.cloud_cover.notna().all()


@pytest.mark.slow
def test_slovenian_parcels_are_labelled(dataset, sits_data, expected):
    parcels = dataset.table("parcels")
    # 30 of the 100 parcels lie in both tiles; the others lie north of TWL, one of them near this grid.
    _, bottom, _, top = shapely.bounds(shapely.from_wkb(parcels.geometry.to_numpy())).T
    assert (top < 5_100_000).sum() == expected["earthsearch"]["parcels"]["per_tile"]["TWL"]["within"] == 30
    assert (bottom[top >= 5_100_000] < 5_100_480 + 110).all()
    assert parcels.hcat_code.notna().all()
    numbers, counts = np.unique(dataset.array("parcel_id"), return_counts=True)
    won = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    assert [won.get(number, 0) for number in parcels.parcel_id] == parcels.n_pixels.tolist()
    large = parcels[parcels.area_ha > 0.5]
    np.testing.assert_allclose(large.n_pixels / 100, large.area_ha, rtol=0.1)


@pytest.mark.slow
def test_catalogue_dataset_verifies(dataset):
    assert dataset.complete
    assert dataset.findings() == []
    transform = dataset.group.attrs["spatial:transform"]
    assert transform == list(GRID.affine[:6])
    assert dataset.array("quality").shape == (1, *GRID.shape)
