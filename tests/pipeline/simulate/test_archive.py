from __future__ import annotations

import hashlib
import json
import re
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.region import Season
from sits_catalog.sentinel2 import Scl, has_boa_offset, parse_product_id
from sits_pipeline.simulate import CLIMATES, Archive, write_archive
from sits_pipeline.sources.stac import StacSource
from sits_pipeline.steps.audit import audit_offset


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def items(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("sentinel-2-l2a/*/*_L2A.json")}


def truth(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((folder / "truth.json").read_text())["items"]
    return found


def odd(folder: Path, oddity: str) -> list[str]:
    return [name for name, entry in truth(folder).items() if oddity in entry["oddities"]]


def pixels(folder: Path, item: str, band: str) -> NDArray[Any]:
    with rasterio.open(folder / "sentinel-2-l2a" / item / f"{band}.tif") as dataset:
        values: NDArray[Any] = dataset.read(1)
    return values


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_number_of_threads(tmp_path: Path, extent: GeoBox, season: Season) -> None:
    for name, threads in (("one", 1), ("three", 3)):
        write_archive(
            tmp_path / name, extent, season, climate="pampas", dates=5, seed=7, bands=("B02", "B04", "B05", "B09"),
            safe=True, threads=threads,
        )  # fmt: skip
    first, second = hashes(tmp_path / "one"), hashes(tmp_path / "three")
    assert len(first) > 100
    assert first == second


def test_another_seed_and_another_climate_make_another_country(tmp_path: Path, extent: GeoBox, season: Season) -> None:
    for name, climate, seed in (("a", "temperate", 0), ("b", "temperate", 1), ("c", "mediterranean", 0)):
        write_archive(tmp_path / name, extent, season, climate=climate, dates=1, seed=seed, bands=("B04",))
    parcels = [(tmp_path / name / "parcels.parquet").read_bytes() for name in "abc"]
    assert len(set(parcels)) == 3


@pytest.mark.slow
def test_a_complete_archive_is_reused(folder: Path, extent: GeoBox, season: Season, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    write_archive(copy, extent, season, climate="temperate", dates=2, seed=0, bands=("B04",))
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    calls: list[tuple[int, int]] = []
    write_archive(
        copy, extent, season, climate="temperate", dates=2, seed=0, bands=("B04",),
        progress=lambda done, of: calls.append((done, of)),
    )  # fmt: skip
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


@pytest.mark.slow
def test_an_interrupted_archive_is_finished_with_the_same_bytes(tmp_path: Path, extent: GeoBox, season: Season) -> None:
    calls: list[tuple[int, int]] = []

    def write() -> Archive:
        return write_archive(
            tmp_path / "a", extent, season, climate="temperate", dates=3, seed=0, bands=("B04",),
            progress=lambda done, of: calls.append((done, of)),
        )  # fmt: skip

    archive = write()
    assert calls == [(1, 3), (2, 3), (3, 3)]
    whole = hashes(tmp_path / "a")
    archive.manifest.unlink()
    archive.parcels.unlink()
    cog = next(tmp_path.glob("a/sentinel-2-l2a/*/B04.tif"))
    cog.rename(cog.with_name("B04.tif.4711.partial"))
    write()
    assert hashes(tmp_path / "a") == whole
    cog.write_bytes(b"cut")
    write()
    assert hashes(tmp_path / "a") == whole


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, extent: GeoBox, season: Season) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files; give an empty folder"):
        write_archive(tmp_path, extent, season, climate="temperate", dates=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_archive_is_not_overwritten(folder: Path, extent: GeoBox, season: Season) -> None:
    with pytest.raises(ValueError, match=r"holds another simulated archive \(other dates, seed, bands, safe\)"):
        write_archive(folder, extent, season, climate="temperate", dates=3, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"climate": "lunar"}, "no climate named 'lunar'; the archive writer knows: mediterranean, pampas, temperate"),
        ({"bands": ("B10",)}, "bands must be distinct names out of B01, .* got B10"),
        ({"bands": ()}, "got none"),
        ({"seed": -1}, "a seed is 0 or more, got -1"),
        ({"dates": 0}, "at least one date, got 0"),
        ({"dates": 200}, "two orbits pass 146 times in the season .* 200 dates were asked for"),
    ],
)
def test_wrong_parameters_are_said(
    change: dict[str, Any], message: str, tmp_path: Path, extent: GeoBox, season: Season
) -> None:
    parameters: dict[str, Any] = {"climate": "temperate", "dates": 3, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        write_archive(tmp_path / "a", extent, season, **parameters)
    assert not (tmp_path / "a").exists()


def test_everything_says_that_it_is_simulated(folder: Path) -> None:
    import geopandas

    assert "Simulated" in (folder / "SIMULATED.txt").read_text()
    for name in ("catalog.json", "sentinel-2-l2a/collection.json"):
        page = json.loads((folder / name).read_text())
        assert page["sits:simulated"] is True
        assert "Simulated" in page["title"]
        assert "Simulated" in page["description"]
    for item in items(folder).values():
        assert item["properties"]["sits:simulated"] is True
        assert item["properties"]["title"].startswith("Simulated")
    for path in folder.rglob("*.tif"):
        with rasterio.open(path) as dataset:
            assert dataset.tags()["SIMULATED"] == "yes"
    assert geopandas.read_parquet(folder / "parcels.parquet").simulated.all()
    for path in folder.rglob("MTD_MSIL2A.xml"):
        assert "Simulated, not observed" in path.read_text()


def test_the_catalogue_is_static_and_every_file_is_where_it_says(folder: Path) -> None:
    catalog = pystac.Catalog.from_file(str(folder / "catalog.json"))
    found = list(catalog.get_items(recursive=True))
    assert {item.id for item in found} == set(truth(folder))
    for item in found:
        item.stac_extensions = []  # their schemas would need a network
        item.validate()
        for asset in item.assets.values():
            with rasterio.open(str(asset.get_absolute_href())) as dataset:
                assert list(dataset.shape) == asset.extra_fields["proj:shape"]
                assert list(dataset.transform)[:6] == asset.extra_fields["proj:transform"]
                assert str(dataset.crs) == item.properties["proj:code"]
                assert dataset.nodata == 0
                assert dataset.transform.c % 60 == 0
                assert dataset.transform.f % 60 == 0
    for path in folder.rglob("*.json"):
        assert '"/' not in path.read_text()


def test_metadata_agree_with_the_classification(folder: Path) -> None:
    for name, item in items(folder).items():
        scl = pixels(folder, name, "SCL")
        data = int(np.count_nonzero(scl)) or 1
        clouds = np.isin(scl, (Scl.CLOUD_MEDIUM, Scl.CLOUD_HIGH, Scl.THIN_CIRRUS)).sum()
        properties = item["properties"]
        assert properties["eo:cloud_cover"] == pytest.approx(100 * clouds / data, abs=1e-5)
        assert properties["s2:vegetation_percentage"] == pytest.approx(100 * (scl == 4).sum() / data, abs=1e-5)
        assert properties["s2:nodata_pixel_percentage"] == pytest.approx(100 * (scl == 0).mean(), abs=1e-5)
        product = parse_product_id(properties["s2:product_uri"])
        assert f"{product.baseline}" == properties["s2:processing_baseline"]
        assert f"MGRS-{product.mgrs_tile}" == properties["grid:code"]
        assert product.orbit == properties["sat:relative_orbit"]


def test_the_truth_tells_which_offset_the_pixels_need(folder: Path) -> None:
    offsets = set()
    for name, entry in truth(folder).items():
        vegetation = np.repeat(np.repeat(pixels(folder, name, "SCL") == Scl.VEGETATION, 2, 0), 2, 1)
        red = pixels(folder, name, "B04")[vegetation]
        if len(red) > 500 and items(folder)[name]["properties"]["eo:cloud_cover"] < 50:
            assert 100 < np.median(red.astype(int)) + entry["offset_to_apply"] < 1000
            offsets.add(entry["offset_to_apply"])
    assert offsets == {0, -1000}


def test_baselines_lie_on_both_sides_of_the_offset(folder: Path) -> None:
    declared = {
        has_boa_offset(item["properties"]["s2:processing_baseline"]): {
            asset["raster:bands"][0]["offset"] for key, asset in item["assets"].items() if key != "scl"
        }
        for item in items(folder).values()
    }
    assert declared == {False: {0}, True: {-0.1}}


def test_two_flags_lie_one_each_way_and_all_others_tell_the_truth(folder: Path) -> None:
    lies = []
    for name, item in items(folder).items():
        properties = item["properties"]
        by_baseline = -1000 if has_boa_offset(properties["s2:processing_baseline"]) else 0
        said = 0 if properties["earthsearch:boa_offset_applied"] else by_baseline
        needed = truth(folder)[name]["offset_to_apply"]
        if said != needed:
            lies.append((name, said, needed))
    assert sorted(name for name, _, _ in lies) == sorted(odd(folder, "lying flag"))
    assert sorted(lie[1:] for lie in lies) == [(-1000, 0), (0, -1000)]


def test_the_audit_of_the_pixels_finds_both_lies(folder: Path, archive: Archive, season: Season) -> None:
    source = StacSource(str(archive.catalog))
    found = source.search(shapely.box(-180, -90, 180, 90), season)
    assert not found.unusable
    verdicts = {scene.id: audit_offset(scene, source.sample(scene)) for scene in found.scenes}
    assert {name: verdict.applied for name, verdict in verdicts.items()} == {
        name: entry["offset_to_apply"] for name, entry in truth(folder).items()
    }
    for name in odd(folder, "lying flag"):
        assert verdicts[name].audited == verdicts[name].applied != verdicts[name].declared


def test_the_reprocessed_twin_shares_the_datastrip_with_its_original(folder: Path) -> None:
    (twin,) = odd(folder, "reprocessed twin")
    new = items(folder)[twin]["properties"]
    old = items(folder)[twin.replace("_1_L2A", "_0_L2A")]["properties"]
    starts = [re.findall(r"_S(\d{8}T\d{6})_", entry["s2:datastrip_id"]) for entry in (old, new)]
    assert starts[0] == starts[1] != []
    assert new["datetime"] == old["datetime"]
    assert new["s2:processing_baseline"] > old["s2:processing_baseline"]
    assert datetime.fromisoformat(new["s2:generation_time"]) > datetime.fromisoformat(old["s2:generation_time"])


def test_the_halves_of_the_split_granule_complement_each_other(folder: Path) -> None:
    upper, lower = sorted(odd(folder, "split granule"))
    properties = [items(folder)[name]["properties"] for name in (upper, lower)]
    assert properties[0]["s2:datatake_id"] == properties[1]["s2:datatake_id"]
    assert properties[0]["s2:datastrip_id"] != properties[1]["s2:datastrip_id"]
    assert properties[0]["grid:code"] == properties[1]["grid:code"]
    data = [pixels(folder, name, "SCL") > 0 for name in (upper, lower)]
    assert np.logical_xor(*data).all()
    assert data[0][0].all()
    assert data[1][-1].all()


def test_one_scene_holds_no_data_at_all(folder: Path) -> None:
    (empty,) = odd(folder, "no data")
    assert items(folder)[empty]["properties"]["s2:nodata_pixel_percentage"] == 100
    assert items(folder)[empty]["properties"]["eo:cloud_cover"] == 0
    for band in ("B01", "B02", "B8A", "SCL"):
        assert not pixels(folder, empty, band).any()


def test_dark_water_is_zero_in_some_bands_and_positive_in_others(folder: Path) -> None:
    clipped = 0
    for name in truth(folder):
        water = pixels(folder, name, "SCL") == Scl.WATER
        nir = pixels(folder, name, "B8A")[water]
        visible = pixels(folder, name, "B03")[np.repeat(np.repeat(water, 2, 0), 2, 1)]
        clipped += int(np.count_nonzero(nir == 0))
        assert (visible > 0).all()
    assert clipped > 20


def test_raw_products_keep_negative_reflectance_of_water(folder: Path) -> None:
    raw = [name for name, entry in truth(folder).items() if entry["offset_to_apply"]]
    low = [pixels(folder, name, "B11")[pixels(folder, name, "SCL") == Scl.WATER] for name in raw]
    values = np.concatenate(low)
    assert (values > 0).all()
    assert np.count_nonzero(values < 1000) > 20


def test_saturated_pixels_are_marked(folder: Path) -> None:
    marked = 0
    for name in odd(folder, "saturated"):
        scl = pixels(folder, name, "SCL")
        assert np.array_equal(pixels(folder, name, "B8A") == 65535, scl == Scl.SATURATED_OR_DEFECTIVE)
        marked += int(np.count_nonzero(scl == Scl.SATURATED_OR_DEFECTIVE))
    assert marked > 4


def test_the_second_orbit_ends_inside_the_region(folder: Path) -> None:
    shares: dict[int, list[float]] = {}
    for name, item in items(folder).items():
        if not {"no data", "split granule"} & set(truth(folder)[name]["oddities"]):
            orbit = item["properties"]["sat:relative_orbit"]
            shares.setdefault(orbit, []).append(item["properties"]["s2:nodata_pixel_percentage"])
    assert sorted(shares) == [8, 108]
    assert set(shares[8]) == {0}
    assert any(5 < share < 95 for share in shares[108])


def test_two_tiles_of_a_pass_show_the_same_ground_where_they_overlap(folder: Path, extent: GeoBox) -> None:
    passes: dict[str, list[str]] = {}
    for name, entry in truth(folder).items():
        if not set(entry["oddities"]) & {"no data", "split granule", "reprocessed twin"}:
            passes.setdefault(entry["solar_day"], []).append(name)
    first, second = next(sorted(names) for names in passes.values() if len(names) == 2)
    windows = []
    for name in (first, second):
        with rasterio.open(folder / "sentinel-2-l2a" / name / "B04.tif") as dataset:
            window = dataset.window(525_600, 5_393_000, 525_600 + 60, 5_394_000)
            dn = dataset.read(1, window=window).astype(float)
            windows.append(np.where(dn > 0, dn + truth(folder)[name]["offset_to_apply"], np.nan))
    ratio = windows[0] / windows[1]
    assert 0.95 < np.nanmedian(ratio) < 1.05
    assert np.nanstd(ratio) < 0.05


@pytest.mark.parametrize("climate", sorted(CLIMATES))
def test_every_climate_writes_on_both_hemispheres(climate: str, tmp_path: Path, season: Season) -> None:
    south = GeoBox((60, 120), Affine(10, 0, 525000, 0, -10, 6494020), "EPSG:32750")
    archive = write_archive(tmp_path / "s", south, season, climate=climate, dates=1, seed=0, bands=("B04", "B09"))
    (item, *_) = items(archive.catalog.parent).values()
    with rasterio.open(tmp_path / "s" / "sentinel-2-l2a" / item["id"] / "B09.tif") as dataset:
        assert dataset.transform.f % 60 == 40
        assert dataset.transform.a == 60
    assert item["properties"]["grid:code"] in ("MGRS-50HNK", "MGRS-50JNL")


def test_a_cog_is_tiled_with_overviews_where_it_is_large(tmp_path: Path, season: Season) -> None:
    wide = GeoBox((60, 1020), Affine(10, 0, 525000, 0, -10, 5394000), "EPSG:32631")
    write_archive(tmp_path / "w", wide, season, climate="temperate", dates=1, seed=0, bands=("B04",))
    with rasterio.open(next(tmp_path.glob("w/sentinel-2-l2a/*/B04.tif"))) as dataset:
        assert dataset.overviews(1) == [2, 4, 8]
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_safe_products_hold_the_dn_of_esa(folder: Path) -> None:
    raw = taken = 0
    for name, item in items(folder).items():
        product = folder / "safe" / item["properties"]["s2:product_uri"]
        for band in ("B01", "B04", "B8A"):
            (image,) = product.glob(f"GRANULE/*/IMG_DATA/R*m/*_{band}_*m.jp2")
            with rasterio.open(image) as dataset:
                dn = dataset.read(1)
            cog = pixels(folder, name, band)
            offset = has_boa_offset(item["properties"]["s2:processing_baseline"])
            if truth(folder)[name]["offset_to_apply"] or not offset:
                assert np.array_equal(dn, cog)
                raw += 1
            else:
                lowered = np.where(dn == 65535, 65535, np.maximum(dn.astype(int) - 1000, 0))
                assert np.array_equal(lowered, cog)
                taken += 1
        assert ("BOA_ADD_OFFSET" in (product / "MTD_MSIL2A.xml").read_text()) == offset
    assert raw > 20
    assert taken > 10


def test_safe_images_are_named_as_their_time_named_them(tmp_path: Path, extent: GeoBox) -> None:
    spring = Season(start=date(2018, 3, 1), end=date(2018, 4, 30))
    write_archive(tmp_path / "a", extent, spring, climate="temperate", dates=4, seed=0, bands=("B04",), safe=True)
    names = {path.name[:5] for path in tmp_path.glob("a/safe/*/GRANULE/*/IMG_DATA/R10m/*.jp2")}
    assert names == {"L2A_T", "T31UE", "T31UF"}
