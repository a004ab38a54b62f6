from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from tests.pipeline.sources.range_server import RangeServer
from tests.pipeline.sources.scene_source_contract import SceneSourceTests, assert_one_failure, on_cube
from tests.pipeline.sources.tiny_archive import EPSG, LEFT, TOP, item, pixels, write_archive, write_file, write_json

from sits_catalog.region import Imagery, Place, Region, Season
from sits_pipeline.config import BuildConfig
from sits_pipeline.sources import open_source
from sits_pipeline.sources.base import SceneSource
from sits_pipeline.sources.stac import StacSource
from sits_pipeline.values import Scene

SEASON = Season(start=date(2023, 8, 1), end=date(2023, 8, 31))
AREA = shapely.box(4.2, 44.2, 4.3, 44.3)
EVERYWHERE = shapely.box(-180, -90, 180, 90)


def geobox(left: float = LEFT - 120, top: float = TOP + 60, height: int = 120, width: int = 180) -> GeoBox:
    return GeoBox((height, width), Affine(10, 0, left, 0, -10, top), f"EPSG:{EPSG}")


class TestTinyArchive(SceneSourceTests):
    @pytest.fixture
    def source(self, tmp_path: Path) -> SceneSource:
        return StacSource(str(write_archive(tmp_path)))

    @pytest.fixture
    def area(self) -> shapely.Geometry:
        return AREA

    @pytest.fixture
    def season(self) -> Season:
        return SEASON

    @pytest.fixture
    def geobox(self) -> GeoBox:
        return geobox()

    @pytest.fixture
    def bands(self) -> Sequence[str]:
        return ("B02", "B05", "B09")


class TestRealEarthSearch(SceneSourceTests):
    """Files of 120 m whose items speak of 10 m."""

    @pytest.fixture
    def source(self, sits_data: Path) -> SceneSource:
        return StacSource(str(sits_data / "earthsearch" / "catalog.json"))

    @pytest.fixture
    def area(self) -> shapely.Geometry:
        return shapely.box(15.0, 45.0, 16.5, 47.0)

    @pytest.fixture
    def season(self) -> Season:
        return SEASON

    @pytest.fixture
    def geobox(self) -> GeoBox:
        return GeoBox((240, 300), Affine(10, 0, 499_980 - 60, 0, -10, 5_100_000 + 60), "EPSG:32633")

    @pytest.fixture
    def bands(self) -> Sequence[str]:
        return ("B02", "B08")


def one_scene(folder: Path) -> tuple[StacSource, Scene]:
    source = StacSource(str(write_archive(folder)))
    return source, source.search(AREA, SEASON).scenes[0]


def test_bands_of_10_20_and_60_m_nest_by_their_factor(tmp_path: Path) -> None:
    source, scene = one_scene(tmp_path)
    windows = next(source.read([scene], geobox(), ["B02", "B05", "B09"], pad=0)).bands
    assert {band: window.factor for band, window in windows.items()} == {"B02": 1, "B05": 2, "B09": 6, "SCL": 2}
    # 120 m to the left and 60 m above of the file: 2 columns and 1 row of 60 m are empty.
    np.testing.assert_array_equal(windows["B09"].dn[1:, 2:], pixels("B09", 60)[:19, :28])
    assert not windows["B09"].dn[0].any()
    assert not windows["B09"].dn[:, :2].any()


def test_a_coarse_file_half_a_pixel_off_the_60_m_lattice_still_nests(tmp_path: Path) -> None:
    source, scene = one_scene(tmp_path)
    path = tmp_path / "s2/one/B02.tif"
    write_file(path, np.arange(1, 101, dtype=np.uint16).reshape(10, 10), 120, top=TOP + 60)
    window = next(source.read([scene], geobox(LEFT, TOP, 60, 60), ["B02"], pad=0)).bands["B02"]
    assert (window.factor, window.row, window.column) == (12, 6, 0)
    cube = on_cube(window, (60, 60))
    assert cube[0, 0] == cube[5, 11] == 1
    assert cube[6, 0] == 11
    assert cube[59, 59] == 55


@pytest.mark.parametrize(
    ("left", "resolution", "transform"),
    [
        (LEFT + 5, 10, None),  # half a pixel off
        (LEFT, 15, None),  # no multiple of 10 m
        (LEFT, 5, None),  # finer than the cube
        (LEFT, 10, Affine(10, 1, LEFT, 1, -10, TOP)),  # rotated
        (LEFT, 10, Affine(10, 0, LEFT, 0, -20, TOP)),  # not square
    ],
)
def test_a_grid_that_does_not_nest_is_a_failure(
    tmp_path: Path, left: float, resolution: float, transform: Affine | None
) -> None:
    source, scene = one_scene(tmp_path)
    dn = np.ones((40, 40), np.uint16)
    write_file(
        tmp_path / "s2/one/B02.tif", dn, resolution, left=left, transform=transform, driver="GTiff", blocksize=None
    )
    raster = next(source.read([scene], geobox(), ["B02"], pad=0))
    assert_one_failure(raster, scene.id, "B02")
    assert "does not nest in the cube's lattice of 10 m" in raster.failures[0].error


def test_a_truncated_file_is_a_failure_and_never_zeros(tmp_path: Path) -> None:
    source, scene = one_scene(tmp_path)
    path = tmp_path / "s2/one/B02.tif"
    path.write_bytes(path.read_bytes()[:-2000])
    raster = next(source.read([scene], geobox(LEFT, TOP, 360, 360), ["B02", "B05"], pad=0))
    assert_one_failure(raster, scene.id, "B02")
    assert set(raster.bands) == {"B05", "SCL"}


def test_a_file_of_another_kind_is_a_failure(tmp_path: Path) -> None:
    source, scene = one_scene(tmp_path)
    path = tmp_path / "s2/one/B02.tif"
    write_file(path, np.ones((360, 360), np.float32), 10)
    assert "one layer of uint16 or uint8" in next(source.read([scene], geobox(), ["B02"], pad=0)).failures[0].error
    write_file(path, np.ones((360, 360), np.uint16), 10, nodata=7)
    assert (
        "nodata of Sentinel-2 is 0; the file declares 7"
        in next(source.read([scene], geobox(), ["B02"], pad=0)).failures[0].error
    )


def test_a_file_that_is_a_vrt_in_disguise_is_not_followed(tmp_path: Path) -> None:
    source, scene = one_scene(tmp_path / "catalogue")
    write_file(tmp_path / "secret.tif", np.full((360, 360), 7, np.uint16), 10)
    (tmp_path / "catalogue/s2/one/B02.tif").write_text(
        f'<VRTDataset rasterXSize="360" rasterYSize="360"><SRS>EPSG:{EPSG}</SRS>'
        f"<GeoTransform>{LEFT}, 10, 0, {TOP}, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename>{tmp_path}/secret.tif'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    assert_one_failure(next(source.read([scene], geobox(), ["B02"], pad=0)), scene.id, "B02")


def test_a_classification_of_16_bits_is_read_as_8(tmp_path: Path) -> None:
    source, scene = one_scene(tmp_path)
    write_file(tmp_path / "s2/one/SCL.tif", pixels("SCL", 20), 20)
    assert next(source.read([scene], geobox(), ["B02"], pad=0)).bands["SCL"].dn.dtype == np.uint8
    write_file(tmp_path / "s2/one/SCL.tif", pixels("SCL", 20) + 300, 20)
    assert "codes up to 11" in next(source.read([scene], geobox(LEFT, TOP), ["B02"], pad=0)).failures[0].error


def test_a_scene_without_classification_has_none(tmp_path: Path) -> None:
    source, scene = one_scene(tmp_path)
    bare = replace(scene, assets={"B02": scene.assets["B02"], "B04": scene.assets["B04"]})
    assert set(next(source.read([bare], geobox(), ["B02"], pad=0)).bands) == {"B02"}
    assert source.sample(bare).scl is None


def test_samples_of_10_and_20_m_lie_at_the_same_places(tmp_path: Path) -> None:
    source, scene = one_scene(tmp_path)
    rows, columns = np.mgrid[:180, :180]
    code = (4 + (rows // 20 + columns // 20) % 3).astype(np.uint8)
    write_file(tmp_path / "s2/one/SCL.tif", code, 20, driver="GTiff", blocksize=None)
    for band in ("B02", "B04"):
        dn = np.repeat(np.repeat(code, 2, 0), 2, 1).astype(np.uint16) * 100
        write_file(tmp_path / f"s2/one/{band}.tif", dn, 10, driver="GTiff", blocksize=None)
    sample = source.sample(scene)
    assert sample.scl is not None
    np.testing.assert_array_equal(sample.dn["B02"], sample.scl.astype(np.uint16) * 100)


def test_a_large_file_without_overviews_is_sampled_in_nine_blocks(tmp_path: Path) -> None:
    source, scene = one_scene(tmp_path)
    rows, columns = np.mgrid[:1100, :1100]
    code = (4 + (rows // 3 + columns // 3) % 3).astype(np.uint8)
    tiled = {"driver": "GTiff", "blocksize": None, "tiled": True, "blockxsize": 256, "blockysize": 256}
    write_file(tmp_path / "s2/one/SCL.tif", code, 20, **tiled)
    for band in ("B02", "B04"):
        write_file(
            tmp_path / f"s2/one/{band}.tif", np.repeat(np.repeat(code, 2, 0), 2, 1).astype(np.uint16), 10, **tiled
        )
    sample = source.sample(scene)
    assert sample.scl is not None
    assert sample.scl.size == 9 * 128 * 128
    np.testing.assert_array_equal(sample.dn["B04"], sample.scl)


def test_water_bands_are_sampled_where_vegetation_is_small(tmp_path: Path) -> None:
    source, scene = one_scene(tmp_path)
    write_file(tmp_path / "s2/one/SCL.tif", np.full((180, 180), 6, np.uint8), 20)
    assert set(source.sample(scene).dn) == {"B02", "B04"}
    extra = dict.fromkeys(("B8A", "B11"), scene.assets["B05"])
    assert set(source.sample(replace(scene, assets={**scene.assets, **extra})).dn) == {"B02", "B04", "B8A", "B11"}


def test_one_more_day_on_both_sides_of_the_season_is_found(tmp_path: Path) -> None:
    source = StacSource(str(write_archive(tmp_path)))
    for season, found in [
        (Season(start=date(2023, 8, 14), end=date(2023, 8, 20)), 1),
        (Season(start=date(2023, 8, 15), end=date(2023, 8, 20)), 0),
        (Season(start=date(2023, 8, 1), end=date(2023, 8, 12)), 1),
        (Season(start=date(2023, 8, 1), end=date(2023, 8, 11)), 0),
    ]:
        assert len(source.search(AREA, season).scenes) == found


def test_an_item_collection_and_a_single_item_are_sources_too(tmp_path: Path) -> None:
    write_archive(tmp_path)
    assert [scene.id for scene in StacSource(str(tmp_path / "s2/one/item.json")).search(AREA, SEASON).scenes] == [
        "S2A_31TEJ_20230813"
    ]
    both = {"type": "FeatureCollection", "features": [item("b"), item("a")]}
    path = write_json(tmp_path / "s2/one/items.json", both)
    scenes = StacSource(str(path)).search(AREA, SEASON).scenes
    assert [scene.id for scene in scenes] == ["a", "b"]
    assert scenes[0].assets["B02"] == str(tmp_path / "s2/one/B02.tif")


def test_a_folder_stands_for_its_catalogue(tmp_path: Path) -> None:
    write_archive(tmp_path)
    assert len(StacSource(str(tmp_path)).search(AREA, SEASON).scenes) == 1


def test_a_broken_item_is_listed_and_not_passed_over(tmp_path: Path) -> None:
    broken = item("no-baseline")
    del broken["properties"]["s2:processing_baseline"]
    elsewhere = item("elsewhere")
    del elsewhere["properties"]["proj:epsg"]
    elsewhere["geometry"] = {"type": "Point", "coordinates": [100, 10]}
    items = {"type": "FeatureCollection", "features": [broken, item("good"), elsewhere, item("twice"), item("twice")]}
    found = StacSource(str(write_json(tmp_path / "items.json", items))).search(AREA, SEASON)
    assert [scene.id for scene in found.scenes] == ["good", "twice"]
    assert {(one.id, one.reason) for one in found.unusable} == {
        ("no-baseline", "no processing baseline (s2:processing_baseline or processing:version)"),
        ("twice", "another item of the same id comes before it; ids must be unique"),
    }


def test_a_remote_catalogue_is_searched_and_read(tmp_path: Path, serve: Callable[..., RangeServer]) -> None:
    local = StacSource(str(write_archive(tmp_path)))
    server = serve(tmp_path)
    remote = StacSource(f"{server.url}/catalog.json")
    scene = remote.search(AREA, SEASON).scenes[0]
    assert scene.assets["B02"] == f"{server.url}/s2/one/B02.tif"
    here = next(local.read([local.search(AREA, SEASON).scenes[0]], geobox(), ["B02", "B05"], pad=1))
    there = next(remote.read([scene], geobox(), ["B02", "B05"], pad=1))
    assert there.failures == ()
    for band, window in here.bands.items():
        np.testing.assert_array_equal(there.bands[band].dn, window.dn)
    assert remote.sample(scene).dn["B02"].size == 180 * 180


def test_a_missing_remote_file_is_a_failure_that_hides_its_signature(
    tmp_path: Path, serve: Callable[..., RangeServer]
) -> None:
    write_archive(tmp_path)
    server = serve(tmp_path)
    source = StacSource(f"{server.url}/catalog.json")
    scene = source.search(AREA, SEASON).scenes[0]
    gone = replace(scene, assets={**scene.assets, "B02": f"{server.url}/gone.tif?sig=SECRET"})
    raster = next(source.read([gone], geobox(), ["B02"], pad=0))
    assert_one_failure(raster, scene.id, "B02")
    assert "SECRET" not in raster.failures[0].error
    assert "gone.tif" in raster.failures[0].error


def test_without_a_cache_a_temporary_one_is_named_and_a_given_one_has_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagery = Imagery(source="stac", path=str(write_archive(tmp_path)))
    region = Region(id="tiny", season=SEASON, place=Place(bbox=AREA.bounds), imagery=imagery)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("atexit.register", lambda *_arguments, **_options: None)
    source, _ = open_source(region, (), tmp_path, BuildConfig())
    assert isinstance(source, StacSource)
    assert source.cache is not None
    assert (tmp_path / source.cache).is_dir()
    assert len(source.cache.parts) == 1
    monkeypatch.chdir(tmp_path)
    source, _ = open_source(region, (), tmp_path, BuildConfig(cache=Path("kept"), cache_gb=1.5))
    assert source == StacSource(str(tmp_path / "catalog.json"), tmp_path / "kept", 1_500_000_000)
