from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from tests.pipeline.sources.range_server import RangeServer
from tests.services.eopf_product import EVER, EVERYWHERE, array_path, create, write_products

from sits_catalog.region import Season
from sits_pipeline.plan.lattice import to_lonlat
from sits_pipeline.simulate import write_archive
from sits_pipeline.sources import SafeSource, cache
from sits_pipeline.sources.api import ApiSource
from sits_pipeline.sources.base import ServiceDown
from sits_pipeline.sources.cache import open_cached
from sits_pipeline.sources.eopf import read_product, sample_product
from sits_pipeline.sources.eopf_grid import check_offset, grid_of_coordinates
from sits_pipeline.sources.eopf_holes import Hole, holes_amid_data, meets_footprint
from sits_pipeline.sources.items import scene_from_item
from sits_pipeline.sources.providers import PROVIDERS
from sits_pipeline.sources.rasters import sample_scene
from sits_pipeline.sources.remote import Opener, RemoteFile
from sits_pipeline.sources.web import Web
from sits_pipeline.values import BandWindow, Raster, Scene

BANDS = ("B01", "B02", "B04", "B8A")
GRID = GeoBox((120, 180), Affine(10, 0, 525_000, 0, -10, 5_394_000), "EPSG:32631")


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of simulated .SAFE products before and after baseline 04.00."""
    season = Season(start=date(2021, 10, 1), end=date(2022, 9, 30))
    folder = tmp_path_factory.mktemp("archive") / "archive"
    archive = write_archive(folder, GRID, season, climate="temperate", dates=4, seed=2, bands=BANDS, safe=True)
    assert archive.safe is not None
    return archive.safe


@pytest.fixture(scope="module", params=[2, 3], ids=["zarr2", "zarr3"])
def catalogue(request: pytest.FixtureRequest, products: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their ItemCollection in the manner of EOPF, in both formats."""
    return write_products(products, tmp_path_factory.mktemp("eopf"), zarr_format=request.param, chunk=7)


def scenes_of(catalogue: Path, root: str = "") -> list[Scene]:
    """Scenes whose arrays lie beside the catalogue, or below an address."""
    items = json.loads(catalogue.read_text())["features"]
    base = root or str(catalogue.parent)

    def resolve(href: object) -> str:
        assert isinstance(href, str)
        return f"{base}/{href.removeprefix('./')}"

    return [scene_from_item(item, resolve, provider=PROVIDERS["eopf"]) for item in items]


def safe_scenes(products: Path) -> dict[str, Scene]:
    return {scene.id: scene for scene in SafeSource(products).search(EVERYWHERE, EVER).scenes}


def windows(grid: GeoBox) -> list[GeoBox]:
    """One inside, three that reach out of the files on either side, one that does not meet them."""
    moves = [(20, 20, 60, 80), (-50, -70, 90, 100), (80, 130, 130, 150), (11, 7, 31, 43), (0, -40_000, 24, 24)]
    return [
        GeoBox((height, width), grid.affine @ Affine.translation(column, row), grid.crs)
        for row, column, height, width in moves
    ]


def opener_in(folder: Path) -> Opener:
    return partial(open_cached, folder=folder, max_bytes=10**9, web=Web())


def assert_same(one: Raster, other: Raster) -> None:
    assert one.failures == other.failures == ()
    assert one.bands.keys() == other.bands.keys()
    for band, window in one.bands.items():
        twin = other.bands[band]
        assert (window.factor, window.row, window.column) == (twin.factor, twin.row, twin.column)
        assert window.dn.dtype == twin.dn.dtype
        np.testing.assert_array_equal(window.dn, twin.dn)


def first_of(products: Path, folder: Path, **options: Any) -> tuple[Scene, Path]:
    """A scene with the offset in its DN, and its product, which a test may break."""
    catalogue = write_products(products, folder, **options)
    scene = next(scene for scene in scenes_of(catalogue) if scene.declared_offset)
    return scene, folder / f"{scene.id}.zarr"


def read_failing(scene: Scene, bands: Sequence[str] = ("B02",), opener: Opener | None = None) -> dict[str, str]:
    raster = read_product(scene, GRID, bands, pad=0, opener=opener)
    assert {failure.item for failure in raster.failures} <= {scene.id}
    return {failure.band: failure.error for failure in raster.failures}


@pytest.mark.slow
def test_every_window_of_every_scene_is_that_of_the_safe_product(catalogue: Path, products: Path) -> None:
    originals = safe_scenes(products)
    scenes = scenes_of(catalogue)
    assert {scene.declared_offset for scene in scenes} == {0, -1000}
    assert len(scenes) == len(originals) >= 4
    source = SafeSource(products)
    for scene in scenes:
        assert (scene.provider, set(scene.assets)) == ("eopf", {*BANDS, "SCL"})
        for grid, pad in zip(windows(GRID), (1, 0, 1, 0, 2), strict=True):
            (expected,) = source.read([originals[scene.id]], grid, BANDS, pad=pad)
            assert_same(read_product(scene, grid, BANDS, pad=pad, opener=None), expected)


@pytest.mark.slow
def test_pixels_over_http_are_those_on_disk(catalogue: Path, tmp_path: Path, serve: Callable[..., RangeServer]) -> None:
    server = serve(catalogue.parent)
    opener = opener_in(tmp_path)
    pairs = list(zip(scenes_of(catalogue), scenes_of(catalogue, server.url), strict=True))
    for near, far in (pairs[0], pairs[-1]):
        for grid in windows(GRID)[:3]:
            here = read_product(near, grid, BANDS, pad=1, opener=None)
            assert_same(read_product(far, grid, BANDS, pad=1, opener=opener), here)
    scene = scenes_of(catalogue, server.url)[0]
    here, there = sample_product(scenes_of(catalogue)[0], opener=None), sample_product(scene, opener=opener)
    np.testing.assert_array_equal(here.dn["B02"], there.dn["B02"])


@pytest.mark.slow
def test_only_the_chunks_of_the_window_are_fetched_and_metadata_once(
    products: Path, tmp_path: Path, serve: Callable[..., RangeServer]
) -> None:
    catalogue = write_products(products, tmp_path / "eopf", chunk=7)  # 42 pixels of 10 m
    server = serve(catalogue.parent)
    scene = scenes_of(catalogue, server.url)[0]
    grid = GeoBox((40, 40), GRID.affine @ Affine.translation(24, 24), GRID.crs)
    opener = opener_in(tmp_path / "cache")
    raster = read_product(scene, grid, ["B02"], pad=0, opener=opener)
    assert raster.failures == ()
    asked = [path.rpartition("/r10m/")[2] for path, _ in server.requests if "/r10m/" in path]
    chunks = {path for path in asked if path.startswith("b02/") and not path.startswith("b02/.z")}
    # The tile begins 24 pixels before the region: pixels 48 to 87 lie in the chunks 1 and 2 of 42.
    assert chunks == {"b02/1.1", "b02/1.2", "b02/2.1", "b02/2.2"}
    before = len(server.requests)
    read_product(scene, grid, ["B02"], pad=0, opener=opener)
    assert len(server.requests) == before


@pytest.mark.slow
def test_an_unreadable_chunk_is_a_failure(products: Path, tmp_path: Path) -> None:
    scene, product = first_of(products, tmp_path, chunk=1000)
    chunk = product / array_path("B02") / "0.0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    (error,) = read_failing(scene, ("B02", "B04")).values()
    assert error.startswith("b02: ")
    assert str(tmp_path) not in error
    chunk.write_bytes(b"no blosc")
    assert set(read_failing(scene, ("B02", "B04"))) == {"B02"}


@pytest.mark.slow
def test_chunks_that_no_band_holds_are_nodata_whatever_the_process_has_set_for_cubes(
    products: Path, tmp_path: Path
) -> None:
    scene, product = first_of(products, tmp_path, chunk=1000)
    for band in ("B02", "B04", "SCL"):
        (product / array_path(band) / "0.0").unlink()
    elsewhere = replace(scene, footprint=shapely.box(2.0, 48.0, 2.1, 48.1))  # the swath did not reach this ground
    with zarr.config.set({"array.read_missing_chunks": False}):
        raster = read_product(elsewhere, GRID, ["B02", "B04"], pad=0, opener=None)
    assert raster.failures == ()
    assert not any(window.dn.any() for window in raster.bands.values())


@pytest.mark.slow
@pytest.mark.parametrize(("band", "where"), [("B02", "classification holds"), ("SCL", "bands hold")])
def test_a_chunk_that_is_missing_amid_data_is_a_failure(products: Path, tmp_path: Path, band: str, where: str) -> None:
    scene, product = first_of(products, tmp_path, chunk=1000)
    (product / array_path(band) / "0.0").unlink()
    raster = read_product(scene, GRID, ["B02", "B04"], pad=1, opener=None)
    assert [(failure.band, failure.error) for failure in raster.failures] == [
        (band, f"{band.lower()}: chunks are missing where the product's {where} data; take another provider for "
               "this item")
    ]  # fmt: skip
    assert band not in raster.bands


def test_each_hole_is_judged_by_its_own_part_of_the_window() -> None:
    def window(values: object) -> BandWindow:
        return BandWindow(dn=np.array(values, np.uint16), factor=1, row=0, column=0)

    windows = {"B02": window([[0, 0, 9, 9]] * 2), "B04": window([[0, 0, 0, 9]] * 2), "SCL": window([[0, 4, 4, 0]] * 2)}
    left, right = Hole(range(-2, 2), range(-9, 1)), Hole(range(-2, 9), range(3, 9))
    middle = Hole(range(1, 2), range(2, 3))  # one pixel
    classified = windows["SCL"].dn > 0

    def lost(**holes: Sequence[Hole]) -> set[str]:
        return set(holes_amid_data(windows, holes, (2, 4), classified=classified, margin=0))

    assert lost() == lost(B02=(), SCL=()) == set()
    assert lost(B02=(left,), B04=(left, right), SCL=(left,)) == set()
    assert lost(B02=(left,), B04=(left, middle)) == {"B04"}
    assert lost(SCL=(right,)) == {"SCL"}
    # Without a classification the other bands say what is there.
    found = holes_amid_data(windows, {"B04": (left,), "B02": (right,)}, (2, 4), classified=None, margin=0)
    assert set(found) == {"B02"}
    # Beside the window lies what bands are interpolated from.
    around = np.zeros((4, 6), bool)
    around[1:3, 5] = True
    beside = Hole(range(0, 2), range(4, 9))
    assert set(holes_amid_data(windows, {"B04": (beside,)}, (2, 4), classified=around, margin=1)) == {"B04"}
    assert holes_amid_data(windows, {"B04": (left,)}, (2, 4), classified=around, margin=1) == {}


@pytest.mark.slow
def test_a_strip_of_a_lost_chunk_is_a_failure_in_cells_of_any_size(products: Path, tmp_path: Path) -> None:
    scene, product = first_of(products, tmp_path, chunk=7)  # 42 pixels of 10 m
    # The tile begins 24 pixels before the region: its second column of chunks holds the region's pixels 18 to 59.
    for chunk in (product / array_path("B02")).glob("?.1"):
        chunk.unlink()
    for first, width in ((0, 180), (12, 8), (58, 40), (59, 120)):
        cell = GeoBox((60, width), GRID.affine @ Affine.translation(first, 30), GRID.crs)
        raster = read_product(scene, cell, ["B02", "B04"], pad=0, opener=None)
        assert [failure.band for failure in raster.failures] == ["B02"], (first, width)
    for first, width in ((0, 18), (60, 120)):
        cell = GeoBox((60, width), GRID.affine @ Affine.translation(first, 30), GRID.crs)
        assert read_product(scene, cell, ["B02", "B04"], pad=0, opener=None).failures == ()
    cell = GeoBox((60, 120), GRID.affine @ Affine.translation(60, 30), GRID.crs)
    raster = read_product(scene, cell, ["B02", "B04"], pad=1, opener=None)
    assert [failure.band for failure in raster.failures] == ["B02"]


@pytest.mark.slow
def test_a_chunk_that_all_arrays_lost_is_a_failure_where_the_footprint_says_that_there_are_data(
    products: Path, tmp_path: Path
) -> None:
    scene, product = first_of(products, tmp_path, chunk=7)
    for band in ("B02", "B04", "SCL"):
        for chunk in (product / array_path(band)).glob("1.1"):
            chunk.unlink()
    small = GeoBox((20, 20), GRID.affine @ Affine.translation(24, 24), GRID.crs)
    for cell in (small, GRID):
        raster = read_product(scene, cell, ["B02", "B04"], pad=0, opener=None)
        assert {failure.band for failure in raster.failures} == {"B02", "B04", "SCL"}
        assert raster.failures[0].error == (
            "b02: chunks are missing where its footprint says that it holds data; search again, or take another "
            "provider for this item"
        )
        assert raster.bands == {}


@pytest.mark.slow
def test_a_product_that_vanished_after_its_metadata_were_read_is_a_failure(
    products: Path, tmp_path: Path, serve: Callable[..., RangeServer]
) -> None:
    catalogue = write_products(products, tmp_path / "eopf", chunk=7)
    server = serve(catalogue.parent)
    scene = next(scene for scene in scenes_of(catalogue, server.url) if scene.declared_offset)
    opener = opener_in(tmp_path / "cache")
    cell = GeoBox((40, 40), GRID.affine @ Affine.translation(24, 24), GRID.crs)
    other = GeoBox((40, 40), GRID.affine @ Affine.translation(110, 60), GRID.crs)
    assert read_product(scene, cell, ["B02", "B04"], pad=0, opener=opener).failures == ()
    shutil.rmtree(tmp_path / "eopf" / f"{scene.id}.zarr")
    raster = read_product(scene, other, ["B02", "B04"], pad=0, opener=opener)
    assert {failure.band: failure.error for failure in raster.failures} == {
        band: f"{band.lower()}: the product has gone from the server; search again, or take another provider for "
        "this item"
        for band in ("B02", "B04", "SCL")
    }
    raster = read_product(scene, other, ["B02", "B04"], pad=0, opener=opener)
    assert {failure.error for failure in raster.failures} >= {"there is no Zarr array scl"}


@pytest.mark.slow
def test_a_footprint_that_nicks_an_empty_chunk_says_nothing_of_it(products: Path, tmp_path: Path) -> None:
    scene, _ = first_of(products, tmp_path)
    hole = Hole(range(0, 100), range(100, 200))  # a side of 1000 m, a twentieth of which is 50 m
    for reaches_m, claims in ((-100, False), (15, False), (45, False), (55, True), (900, True)):
        ground = shapely.box(520_000, 5_380_000, 526_000 + reaches_m, 5_400_000)
        footprint = to_lonlat(ground, 32631)
        assert meets_footprint(replace(scene, footprint=footprint), GRID, [hole]) is claims
    away = GeoBox((20, 20), GRID.affine, GRID.crs)
    assert not meets_footprint(scene, away, [Hole(range(0, 100), range(20, 120))])


@pytest.mark.slow
def test_a_chunk_larger_than_a_block_of_the_cache_is_one_request(
    products: Path, tmp_path: Path, serve: Callable[..., RangeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "BLOCK", 4096)
    catalogue = write_products(products, tmp_path / "eopf", chunk=1000)
    scene = scenes_of(catalogue)[0]
    array = zarr.open_array(tmp_path / "eopf" / f"{scene.id}.zarr" / array_path("B02"), mode="r+")
    array[...] = np.random.default_rng(1).integers(1, 10_000, array.shape, np.uint16)
    chunk = tmp_path / "eopf" / f"{scene.id}.zarr" / array_path("B02") / "0.0"
    assert chunk.stat().st_size > 4 * cache.BLOCK
    server = serve(catalogue.parent)
    provider = PROVIDERS["eopf"]
    source = ApiSource(provider=provider, url=server.url, collection="sentinel-2-l2a", cache=tmp_path / "cache")
    far = next(one for one in scenes_of(catalogue, server.url) if one.id == scene.id)
    (raster,) = source.read([far], GRID, ["B02"], pad=0)
    assert raster.failures == ()
    asked = [path for path, _ in server.requests if path.endswith("b02/0.0")]
    assert len(asked) == 1


class _Broken:
    """An opener of files that a server will not give, or of a server that is down."""

    def __init__(self, error: OSError, keys: str) -> None:
        self.error, self.keys = error, keys

    def __call__(self, url: str) -> RemoteFile:
        if self.keys in url:
            raise self.error
        raise FileNotFoundError(url)


@pytest.mark.slow
def test_a_server_that_refuses_is_a_failure_and_one_that_is_down_is_not(products: Path, tmp_path: Path) -> None:
    scene, _ = first_of(products, tmp_path)
    far = replace(scene, assets={"B02": "https://example.org/p.zarr/r10m/b02?sig=SECRET"})
    refused = _Broken(PermissionError("https://example.org/p.zarr/r10m/b02/.zarray: HTTP 403"), ".zarray")
    errors = read_failing(far, opener=refused)
    assert errors == {"B02": "b02/.zarray: HTTP 403"}
    with pytest.raises(ServiceDown, match="did not answer"):
        read_product(far, GRID, ["B02"], pad=0, opener=_Broken(ServiceDown("example.org did not answer"), ".z"))
    gone = read_failing(far, opener=_Broken(OSError(), "nothing"))
    assert gone == {"B02": "there is no Zarr array b02"}


@pytest.mark.slow
def test_a_failed_chunk_is_asked_for_anew(products: Path, tmp_path: Path, serve: Callable[..., RangeServer]) -> None:
    scene, product = first_of(products, tmp_path / "eopf", chunk=1000)
    server = serve(tmp_path / "eopf")
    far = replace(scene, assets={"B02": f"{server.url}/{product.name}/{array_path('B02')}"})
    chunk, opener = product / array_path("B02") / "0.0", opener_in(tmp_path / "cache")
    whole = chunk.read_bytes()
    chunk.write_bytes(b"no blosc")
    assert set(read_failing(far, opener=opener)) == {"B02"}
    chunk.write_bytes(whole)
    assert read_failing(far, opener=opener) == {}


def change(product: Path, band: str, **attributes: Any) -> None:
    """Other attributes of an array; None takes one away."""
    path = product / array_path(band) / ".zattrs"
    document = {**json.loads(path.read_text()), **attributes}
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


@pytest.mark.slow
def test_an_offset_that_contradicts_the_baseline_fails_the_band(products: Path, tmp_path: Path) -> None:
    scene, product = first_of(products, tmp_path)
    change(product, "B02", add_offset=0.0)
    assert read_failing(scene, ("B02", "B04")) == {
        "B02": f"b02: its add_offset is 0.0 at a scale of 0.0001, while the baseline of its item, {scene.baseline}, "
        "asks for -1000 DN; take another provider, or leave the item out"
    }
    change(product, "B02", add_offset=-0.1, scale_factor=0.001)
    assert read_failing(scene) == {"B02": "b02: a scale_factor of 0.0001 was expected, the array declares 0.001"}


@pytest.mark.parametrize(
    ("attributes", "declared", "fits"),
    [
        ({"scale_factor": 0.0001, "add_offset": -0.1}, -1000, True),
        ({"scale_factor": 0.0001, "add_offset": -0.1}, 0, False),
        ({"scale_factor": 0.0001}, 0, True),
        ({"scale_factor": 0.0001}, -1000, False),
        ({"scale_factor": 0.0001, "add_offset": "-0.1"}, -1000, False),
        ({"_eopf_attrs": {"scale_factor": 0.0001, "add_offset": -0.1}}, 0, False),
        ({}, -1000, True),
    ],
)
def test_cf_attributes_are_held_against_the_rule(attributes: dict[str, Any], declared: int, fits: bool) -> None:
    if fits:
        check_offset(attributes, declared, "05.09")
    else:
        with pytest.raises(ValueError, match=r"add_offset .* asks for"):
            check_offset(attributes, declared, "05.09")


@pytest.mark.slow
def test_coordinates_and_attributes_must_lie_at_the_same_place(products: Path, tmp_path: Path) -> None:
    scene, product = first_of(products, tmp_path)
    first = json.loads((product / array_path("B02") / ".zattrs").read_text())["proj:transform"]
    moved = [*first[:2], first[2] + 5, *first[3:]]
    change(product, "B02", **{"proj:transform": moved})
    error = read_failing(scene)["B02"]
    assert f"by its coordinates it lies at ({first[2]:.12g}, {first[5]:.12g})" in error
    assert f"attributes at ({moved[2]:.12g}, {first[5]:.12g})" in error
    change(product, "B02", **{"proj:transform": None, "proj:epsg": 32632})
    assert read_failing(scene)["B02"] == "b02: its CRS is EPSG:32632, its item's is EPSG:32631"


def test_without_coordinates_the_attributes_say_where_pixels_lie(products: Path, tmp_path: Path) -> None:
    scene, product = first_of(products, tmp_path)
    expected = read_product(scene, GRID, ["B02"], pad=0, opener=None)
    group = (product / array_path("B02")).parent
    for axis in ("x", "y"):
        shutil.rmtree(group / axis)
    assert_same(read_product(scene, GRID, ["B02"], pad=0, opener=None), expected)
    change(product, "B02", **{"proj:transform": None})
    assert "neither coordinates x and y" in read_failing(scene)["B02"]


@pytest.mark.slow
def test_a_grid_off_the_lattice_does_not_nest(products: Path, tmp_path: Path) -> None:
    scene, product = first_of(products, tmp_path)
    change(product, "B02", **{"proj:transform": None})
    group = (product / array_path("B02")).parent
    x = np.asarray(zarr.open_array(group / "x", mode="r")[...]) + 3
    shutil.rmtree(group / "x")
    create(group / "x", x, {}, x.shape, ("x",), 2)
    assert "does not nest in the cube's lattice of 10 m" in read_failing(scene)["B02"]


@pytest.mark.parametrize(("dtype", "fill"), [("float32", 0), ("uint8", 0), ("uint16", 65535)])
def test_an_array_of_another_kind_is_a_failure(products: Path, tmp_path: Path, dtype: str, fill: int) -> None:
    scene, product = first_of(products, tmp_path)
    path = product / array_path("B02")
    attributes = json.loads((path / ".zattrs").read_text())
    shape = zarr.open_array(path, mode="r").shape
    shutil.rmtree(path)
    zarr.create_array(
        path, shape=shape, dtype=dtype, chunks=shape, fill_value=fill, attributes=attributes, zarr_format=2
    )
    error = read_failing(scene)["B02"]
    assert ("nodata of Sentinel-2 is 0" if fill else "of uint16 was expected") in error


@pytest.mark.parametrize("text", ["{", "{}", '{"zarr_format": 2, "shape": "x"}', "[]"])
def test_broken_metadata_are_a_failure(products: Path, tmp_path: Path, text: str) -> None:
    scene, product = first_of(products, tmp_path)
    (product / array_path("B02") / ".zarray").write_text(text)
    assert set(read_failing(scene, ("B02", "B04"))) == {"B02"}


def test_centres_of_pixels_make_a_grid() -> None:
    assert grid_of_coordinates(np.array([95.0, 85, 75]), np.array([5.0, 15])) == (10, 0, 0, 0, -10, 100)
    with pytest.raises(ValueError, match="not evenly spaced"):
        grid_of_coordinates(np.array([95.0, 85, 70]), np.array([5.0, 15]))
    with pytest.raises(ValueError, match="1 and 2 values"):
        grid_of_coordinates(np.array([95.0]), np.array([5.0, 15]))


@pytest.mark.slow
def test_samples_lie_at_the_same_places_in_all_bands(products: Path, tmp_path: Path) -> None:
    scene, product = first_of(products, tmp_path)
    rows, columns = np.mgrid[:90, :120]
    scl = (4 + (rows // 7 + columns // 7) % 3).astype(np.uint8)
    for band, values in {"SCL": scl, "B02": scl, "B04": scl}.items():
        path = product / array_path(band)
        array = zarr.open_array(path, mode="r+")
        step = 20 // {"SCL": 20, "B02": 10, "B04": 10}[band]
        array[...] = 0
        array[: 90 * step, : 120 * step] = values.repeat(step, 0).repeat(step, 1).astype(array.dtype) * (
            1 if band == "SCL" else 100
        )
    sample = sample_product(scene, opener=None)
    assert sample.scl is not None
    assert 0 < sample.scl.size <= 160_000
    for dn in sample.dn.values():
        np.testing.assert_array_equal(dn, sample.scl.astype(np.uint16) * 100)


@pytest.mark.slow
def test_medians_of_a_sample_are_those_of_the_safe_product(products: Path, tmp_path: Path) -> None:
    originals = safe_scenes(products)
    compared = 0
    for scene in scenes_of(write_products(products, tmp_path)):
        one, other = sample_product(scene, opener=None), sample_scene(originals[scene.id], opener=None)
        assert one.scl is not None
        assert other.scl is not None
        green, also = one.scl == 4, other.scl == 4
        if min(green.sum(), also.sum()) < 500:
            continue
        compared += 1
        for band in ("B02", "B04"):
            assert abs(np.median(one.dn[band][green]) - np.median(other.dn[band][also])) < 25
    assert compared


@pytest.mark.slow
def test_water_bands_are_sampled_where_vegetation_is_rare(products: Path, tmp_path: Path) -> None:
    scene, product = first_of(products, tmp_path)
    array = zarr.open_array(product / array_path("SCL"), mode="r+")
    array[...] = 6
    with_water = replace(scene, assets={**scene.assets, "B11": scene.assets["B8A"]})
    assert set(sample_product(scene, opener=None).dn) == {"B02", "B04"}
    assert set(sample_product(with_water, opener=None).dn) == {"B02", "B04", "B8A", "B11"}


@pytest.mark.slow
def test_vegetation_in_the_middle_saves_the_other_chunks(
    products: Path, tmp_path: Path, serve: Callable[..., RangeServer]
) -> None:
    scene, product = first_of(products, tmp_path / "eopf", chunk=20)
    classes = zarr.open_array(product / array_path("SCL"), mode="r+")
    classes[...] = 4
    server = serve(tmp_path / "eopf")
    far = next(one for one in scenes_of(tmp_path / "eopf/items.json", server.url) if one.id == scene.id)
    sample = sample_product(far, opener=opener_in(tmp_path / "cache"))
    assert sample.scl is not None
    assert sample.scl.size == 60 * 60
    asked = {path.rpartition("/")[2] for path, _ in server.requests if "/scl/" in path} - {".zarray", ".zattrs"}
    assert len(asked) == 1


def test_a_sample_of_a_missing_array_is_an_error(products: Path, tmp_path: Path) -> None:
    scene, product = first_of(products, tmp_path)
    shutil.rmtree(product / array_path("B04"))
    with pytest.raises(OSError, match=r"no sample for the audit: .*b04") as caught:
        sample_product(scene, opener=None)
    assert str(tmp_path) not in str(caught.value)


def test_a_band_without_an_asset_is_a_failure_and_a_raster_travels(products: Path, tmp_path: Path) -> None:
    scene, _ = first_of(products, tmp_path)
    raster = read_product(scene, GRID, ["B02", "B12"], pad=0, opener=None)
    assert [(failure.band, failure.error) for failure in raster.failures] == [("B12", "the item has no asset for B12")]
    assert pickle.loads(pickle.dumps(raster)).failures == raster.failures
    elsewhere = GeoBox(GRID.shape, GRID.affine, "EPSG:32701")
    (failure,) = [f for f in read_product(scene, elsewhere, ["B02"], pad=0, opener=None).failures if f.band == "B02"]
    assert failure.error == "b02: its CRS is EPSG:32631, the cube's is EPSG:32701"
