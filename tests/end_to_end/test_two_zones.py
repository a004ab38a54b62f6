"""A region across the border of two UTM zones: two datasets, and every pixel of ground labelled in one of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from tests.end_to_end.building import Dataset, Silent, build_region
from tests.pipeline.sources.tiny_archive import catalogue, write_file, write_json

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.region import Imagery, LabelRule, Place, Region, Season, SplitRule
from sits_pipeline.build import build
from sits_pipeline.config import BuildConfig
from sits_pipeline.plan import Zone, zones_of_region
from sits_pipeline.prepare import prepare

BORDER = 6.0
"""Longitude between the zones 31 and 32."""
BBOX = (5.99, 43.995, 6.012, 44.005)
WEST, EAST = "EPSG:32631", "EPSG:32632"
BANDS = ("B02", "B04")
IGNORE = 65535


def lonlat(dataset: Dataset, epsg: str) -> NDArray[np.float64]:
    """Longitudes of the pixel centres, (y, x)."""
    x, y = np.meshgrid(dataset.array("x"), dataset.array("y"))
    return np.asarray(Transformer.from_crs(epsg, 4326, always_xy=True).transform(x, y)[0])


def write_scene(folder: Path, zone: Zone, tile: str) -> tuple[str, str]:
    """One scene that covers the cube of a zone; returns the link to its item."""
    name, box = f"S2A_{tile}", zone.geobox.pad(12)
    for band, value in (("B02", 1300), ("B04", 1400), ("SCL", 4)):
        dn = np.full(box.shape, value, np.uint8 if band == "SCL" else np.uint16)
        write_file(
            folder / name / f"{band}.tif", dn, 10, left=box.affine.c, top=box.affine.f, epsg=zone.epsg,
            overview_resampling="nearest",
        )  # fmt: skip
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": shapely.geometry.mapping(zone.extent),
        "bbox": list(zone.extent.bounds),
        "properties": {
            "datetime": "2023-08-13T10:40:21Z",
            "proj:epsg": zone.epsg,
            "grid:code": f"MGRS-{tile}",
            "s2:processing_baseline": "05.09",
        },
        "links": [],
        "assets": {band: {"href": f"./{band}.tif"} for band in (*BANDS, "SCL")},
    }
    write_json(folder / name / "item.json", item)
    return "item", f"./{name}/item.json"


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Region:
    """1.7 x 1.1 km with fields of 90 x 90 m, some of which overlap and some of which lie on both sides."""
    folder = tmp_path_factory.mktemp("two-zones")
    region = Region(
        id="border",
        season=Season(start=date(2023, 8, 1), end=date(2023, 8, 31)),
        place=Place(bbox=BBOX),
        imagery=Imagery(source="stac", path=str(folder / "catalog.json"), bands=BANDS),
        parcels=ParcelSource(path=str(folder / "fields.gpkg"), id="key", code="crop", labelled_area="region"),
        labels=LabelRule(finer=(2,)),
        splits=SplitRule(block_m=640, buffer_m=10),
    )
    area = shapely.box(*BBOX)
    zones = zones_of_region(region, area)
    links = [write_scene(folder, zone, tile) for zone, tile in zip(zones, ("31TGJ", "32TLP"), strict=True)]
    (forced,) = zones_of_region(region.replace(place=Place(bbox=BBOX, crs=WEST)), area)
    links.append(write_scene(folder, forced, "31TGK"))
    write_json(folder / "catalog.json", catalogue(*links))
    left, bottom, right, top = forced.geobox.boundingbox.bbox
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(left - 40, right, 97), np.arange(bottom - 40, top, 83)))
    frame = geopandas.GeoDataFrame(
        {"key": [f"{n:04d}" for n in range(len(x))], "crop": [("wheat", "maize")[n % 2] for n in range(len(x))]},
        geometry=shapely.box(x, y, x + 90, y + 90),
        crs=WEST,
    )
    frame.to_file(folder / "fields.gpkg")
    return region


@pytest.fixture(scope="module")
def both(region: Region, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    config = BuildConfig(out=str(tmp_path_factory.mktemp("out")), chips="parcel")
    west, east = build(prepare(region, config, Silent()), config, Silent())
    return Dataset(Path(west.location), west.complete), Dataset(Path(east.location), east.complete)


@pytest.fixture(scope="module")
def one(region: Region, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same ground as one dataset, in the western zone."""
    return build_region(region.replace(place=Place(bbox=BBOX, crs=WEST)), tmp_path_factory.mktemp("one"))


def each(both: tuple[Dataset, Dataset]) -> Iterator[tuple[Dataset, NDArray[np.bool_]]]:
    """Each dataset, and which of its pixels lie in its strip."""
    for dataset, epsg in zip(both, (WEST, EAST), strict=True):
        west_of_border = lonlat(dataset, epsg) < BORDER
        inside = west_of_border if epsg == WEST else ~west_of_border
        assert 0 < np.count_nonzero(~inside) < inside.size / 2
        yield dataset, inside


def test_nothing_is_observed_or_labelled_outside_of_the_strip(both) -> None:
    for dataset, inside in each(both):
        assert dataset.complete
        assert dataset.findings() == []
        np.testing.assert_array_equal(dataset.array("quality")[0] & 1, inside)
        assert (dataset.array("crop_type")[~inside] == IGNORE).all()
        for name in ("parcel_id", "split"):
            values = dataset.array(name)
            assert not values[~inside].any()
            assert values[inside].any()
        assert (dataset.array("boundary_distance")[~inside] <= 0).all()


def test_finer_pixels_go_with_the_pixel_they_lie_in(both) -> None:
    for dataset, inside in each(both):
        outside = np.repeat(np.repeat(~inside, 2, axis=0), 2, axis=1)
        assert (dataset.array("labels_x2/crop_type")[outside] == IGNORE).all()
        assert not dataset.array("labels_x2/parcel_id")[outside].any()
        assert dataset.array("labels_x2/parcel_id")[~outside].any()


def pixels_by_key(dataset: Dataset) -> dict[str, int]:
    parcels = dataset.table("parcels")
    found = np.bincount(dataset.array("parcel_id").ravel(), minlength=parcels.parcel_id.max() + 1)
    assert found[parcels.parcel_id].tolist() == parcels.n_pixels.tolist()
    return dict(zip(parcels.source_key, parcels.n_pixels.tolist(), strict=True))


def keys_by_side(dataset: Dataset) -> dict[str, list[str]]:
    """Keys of the parcels that lie wholly in the region, by the side of the border they lie on."""
    to_degrees = Transformer.from_crs(WEST, 4326, always_xy=True).transform
    parcels = dataset.table("parcels")
    sides: dict[str, list[str]] = {"west": [], "east": [], "across": []}
    for key, field in zip(parcels.source_key, shapely.from_wkb(parcels.geometry), strict=True):
        ground = shapely.transform(field, to_degrees, interleaved=False)
        if shapely.within(ground, shapely.box(*BBOX)):
            low, _, high, _ = ground.bounds
            sides["west" if high < BORDER else "east" if low >= BORDER else "across"].append(key)
    return sides


def test_each_pixel_of_a_parcel_is_counted_in_one_dataset(both, one) -> None:
    west, east, whole = (pixels_by_key(dataset) for dataset in (*both, one))
    sides = keys_by_side(one)
    assert all(len(keys) >= 10 for keys in sides.values())
    assert all(west[key] == whole[key] and east.get(key, 0) == 0 for key in sides["west"])
    assert all(west.get(key, 0) == 0 and abs(east[key] - whole[key]) <= 18 for key in sides["east"])
    # The two lattices are turned by 4 degrees, so that each field wins or loses some pixels at its edges.
    assert all(abs(west[key] + east[key] - whole[key]) <= 18 for key in sides["across"])
    assert all(west[key] or east[key] for key in sides["across"])
    keys = [key for side in sides.values() for key in side]
    together = sum(west.get(key, 0) + east.get(key, 0) for key in keys)
    assert together == pytest.approx(sum(whole[key] for key in keys), rel=0.01)


def test_a_parcel_has_a_chip_where_it_has_pixels(both) -> None:
    for dataset, _ in each(both):
        chips = dataset.table("chips")
        numbers = {int(name.removeprefix("parcel-")) for name in chips.chip_id[chips.kind == "parcel"]}
        parcels = dataset.table("parcels")
        with_pixels = set(parcels.parcel_id[parcels.n_pixels > 0].tolist())
        assert with_pixels <= numbers
        # The others touch the strip, but win no pixel of it.
        assert len(numbers - with_pixels) < 0.15 * len(numbers)


def test_the_geometry_of_the_parcels_agrees_with_the_dataset_of_one_zone(both, one) -> None:
    west, inside = next(each(both))
    left, top = west.transform.c, west.transform.f
    height, width = inside.shape
    rows, columns = one.slices(left, top - 10 * height, left + 10 * width, top)

    def there(name: str) -> Any:
        return one.array(name)[..., rows, columns]

    for name in ("coverage", "conflict"):
        np.testing.assert_array_equal(west.array(name), there(name))
    np.testing.assert_array_equal(np.abs(west.array("boundary_distance")), np.abs(there("boundary_distance")))
    np.testing.assert_array_equal(west.array("crop_type")[inside], there("crop_type")[inside])
