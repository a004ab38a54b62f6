"""What every source of scenes must do; a source passes by giving the fixtures."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.region import Season
from sits_pipeline.sources.base import SceneSource
from sits_pipeline.values import BandWindow, Raster, Scene


def on_cube(window: BandWindow, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """The pixels of a window repeated on the cube's lattice."""
    rows = (np.arange(shape[0]) + window.row) // window.factor
    columns = (np.arange(shape[1]) + window.column) // window.factor
    return window.dn[np.ix_(rows, columns)].astype(np.uint16)


def by_coordinates(path: str, geobox: GeoBox) -> NDArray[np.uint16]:
    """The same, found another way: the file's pixel under each centre of the geobox, 0 outside."""
    with rasterio.open(path) as dataset:
        dn, inverse = dataset.read(1), ~dataset.transform
    height, width = geobox.shape
    x = geobox.affine.c + (np.arange(width) + 0.5) * geobox.affine.a
    y = geobox.affine.f + (np.arange(height) + 0.5) * geobox.affine.e
    columns = np.floor(inverse.c + inverse.a * x).astype(int)
    rows = np.floor(inverse.f + inverse.e * y).astype(int)
    padded = np.pad(dn, 1)
    rows, columns = np.clip(rows + 1, 0, dn.shape[0] + 1), np.clip(columns + 1, 0, dn.shape[1] + 1)
    return padded[np.ix_(rows, columns)].astype(np.uint16)


def moved(geobox: GeoBox, row: int, column: int, shape: tuple[int, int]) -> GeoBox:
    """A geobox of this shape whose corner lies so many pixels from another's."""
    affine = geobox.affine
    corner = Affine(affine.a, 0, affine.c + column * affine.a, 0, affine.e, affine.f + row * affine.e)
    return GeoBox(shape, corner, geobox.crs)


class SceneSourceTests:
    """Subclasses give `source`, `area`, `season`, `geobox` (it reaches over an edge of the files) and `bands`."""

    @pytest.fixture
    def source(self) -> SceneSource:
        raise NotImplementedError

    @pytest.fixture
    def area(self) -> shapely.Geometry:
        raise NotImplementedError

    @pytest.fixture
    def season(self) -> Season:
        raise NotImplementedError

    @pytest.fixture
    def geobox(self) -> GeoBox:
        raise NotImplementedError

    @pytest.fixture
    def bands(self) -> Sequence[str]:
        raise NotImplementedError

    @pytest.fixture
    def scene(self, source: SceneSource, area: shapely.Geometry, season: Season) -> Scene:
        return source.search(area, season).scenes[0]

    def test_search_finds_complete_scenes_in_order(
        self, source: SceneSource, area: shapely.Geometry, season: Season
    ) -> None:
        scenes = source.search(area, season).scenes
        assert scenes
        assert [scene.id for scene in scenes] == sorted({scene.id for scene in scenes})
        for scene in scenes:
            assert season.start - timedelta(days=1) <= scene.sensed.date() <= season.end + timedelta(days=1)
            assert scene.sensed.utcoffset() == timedelta(0)
            assert shapely.intersects(scene.footprint, area)
            assert scene.declared_offset in (0, -1000)
            assert scene.assets.keys() & {"B02", "SCL"}
            assert len(scene.baseline) == 5
            assert len(scene.mgrs_tile) == 5
            assert scene.item["id"] == scene.id

    def test_search_finds_nothing_elsewhere_or_in_another_season(
        self, source: SceneSource, area: shapely.Geometry, season: Season
    ) -> None:
        assert source.search(shapely.box(-150, -50, -149, -49), season).scenes == ()
        earlier = Season(start=season.start.replace(year=1999), end=season.start.replace(year=2000))
        assert source.search(area, earlier).scenes == ()

    def test_a_source_travels_to_workers(self, source: SceneSource, area: shapely.Geometry, season: Season) -> None:
        twin = pickle.loads(pickle.dumps(source))
        assert twin.search(area, season) == source.search(area, season)

    def test_pixels_lie_where_the_file_says(
        self, source: SceneSource, scene: Scene, geobox: GeoBox, bands: Sequence[str]
    ) -> None:
        raster = next(source.read([scene], geobox, bands, pad=0))
        assert raster.failures == ()
        assert set(raster.bands) == {*bands, "SCL"}
        for band, window in raster.bands.items():
            assert window.dn.dtype == (np.uint8 if band == "SCL" else np.uint16)
            assert 0 <= window.row < window.factor
            assert 0 <= window.column < window.factor
            expected = by_coordinates(scene.assets[band], geobox)
            np.testing.assert_array_equal(on_cube(window, geobox.shape), expected)
            assert (expected == 0).any(), "the geobox should reach over the edge"
            assert (expected > 0).any()

    def test_a_part_of_a_geobox_gives_a_part_of_the_pixels(
        self, source: SceneSource, scene: Scene, geobox: GeoBox, bands: Sequence[str]
    ) -> None:
        whole = next(source.read([scene], geobox, bands, pad=0))
        part = next(source.read([scene], moved(geobox, 7, 13, (24, 27)), bands, pad=0))
        for band in whole.bands:
            np.testing.assert_array_equal(
                on_cube(part.bands[band], (24, 27)), on_cube(whole.bands[band], geobox.shape)[7:31, 13:40]
            )

    def test_padding_adds_source_pixels_around_the_bands_and_none_around_the_classification(
        self, source: SceneSource, scene: Scene, geobox: GeoBox, bands: Sequence[str]
    ) -> None:
        bare, padded = (next(source.read([scene], geobox, bands, pad=pad)) for pad in (0, 2))
        for band in bands:
            one, two = bare.bands[band], padded.bands[band]
            assert two.dn.shape == (one.dn.shape[0] + 4, one.dn.shape[1] + 4)
            assert (two.row, two.column) == (one.row + 2 * one.factor, one.column + 2 * one.factor)
            np.testing.assert_array_equal(two.dn[2:-2, 2:-2], one.dn)
        assert padded.bands["SCL"].dn.shape == bare.bands["SCL"].dn.shape

    def test_ground_beyond_a_file_is_zero(self, source: SceneSource, scene: Scene, geobox: GeoBox) -> None:
        raster = next(source.read([scene], moved(geobox, 0, -30_000, geobox.shape), ["B02"], pad=0))
        assert raster.failures == ()
        assert not raster.bands["B02"].dn.any()
        assert on_cube(raster.bands["B02"], geobox.shape).shape == tuple(geobox.shape)

    def test_a_missing_file_fails_its_band_alone(
        self, source: SceneSource, scene: Scene, geobox: GeoBox, bands: Sequence[str]
    ) -> None:
        gone = str(Path(scene.assets[bands[0]]).parent / "gone.tif")
        raster = next(source.read([replace(scene, assets={**scene.assets, bands[0]: gone})], geobox, bands, pad=0))
        assert_one_failure(raster, scene.id, bands[0])
        assert "gone.tif" in raster.failures[0].error
        assert set(raster.bands) == {*bands[1:], "SCL"}

    def test_a_band_the_scene_has_not_is_a_failure(self, source: SceneSource, scene: Scene, geobox: GeoBox) -> None:
        bare = replace(scene, assets={band: path for band, path in scene.assets.items() if band != "B04"})
        raster = next(source.read([bare], geobox, ["B02", "B04"], pad=0))
        assert_one_failure(raster, scene.id, "B04")
        assert raster.failures[0].error == "the item has no asset for B04"

    def test_another_crs_is_a_failure(self, source: SceneSource, scene: Scene, geobox: GeoBox) -> None:
        elsewhere = GeoBox(geobox.shape, geobox.affine, "EPSG:32701")
        raster = next(source.read([scene], elsewhere, ["B02"], pad=0))
        assert {failure.band for failure in raster.failures} == {"B02", "SCL"}
        assert raster.failures[0].error.endswith(f"its CRS is EPSG:{scene.epsg}, the cube's is EPSG:32701")

    def test_a_sample_is_thin_and_the_same_each_time(self, source: SceneSource, scene: Scene) -> None:
        sample = source.sample(scene)
        assert sample.scl is not None
        assert {"B02", "B04"} <= sample.dn.keys()
        assert all(dn.shape == sample.scl.shape for dn in sample.dn.values())
        assert 0 < sample.scl.size <= 160_000
        np.testing.assert_array_equal(sample.dn["B02"], source.sample(scene).dn["B02"])

    def test_a_sample_of_a_missing_file_is_an_error(self, source: SceneSource, scene: Scene) -> None:
        folder = str(Path(scene.assets["B04"]).parent)
        gone = replace(scene, assets={**scene.assets, "B04": f"{folder}/gone.tif"})
        with pytest.raises(OSError, match=r"no sample for the audit: .*gone\.tif") as caught:
            source.sample(gone)
        assert folder not in str(caught.value)


def assert_one_failure(raster: Raster, item: str, band: str) -> None:
    assert [(failure.item, failure.band) for failure in raster.failures] == [(item, band)]
    error = raster.failures[0].error
    assert error
    assert "\n" not in error
    assert not error.startswith("/")
    assert "/tmp" not in error
