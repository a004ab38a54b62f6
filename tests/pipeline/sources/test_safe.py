from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from tests.pipeline.sources.scene_source_contract import SceneSourceTests, assert_one_failure

from sits_catalog.region import Season
from sits_pipeline.sources.base import SceneSource, SourceError
from sits_pipeline.sources.items import scene_from_item
from sits_pipeline.sources.safe import SafeSource
from sits_pipeline.values import Scene

AREA = shapely.box(3.29, 43.61, 3.32, 43.65)
SEASON = Season(start=date(2018, 1, 1), end=date(2018, 12, 31))
OLD = "S2A_MSIL2A_20180128T104311_N0206_R008_T31TEJ_20180128T141558"
GEOBOX = GeoBox((240, 180), Affine(10, 0, 523_500, 0, -10, 4_832_820), "EPSG:32631")


class TestRealProducts(SceneSourceTests):
    @pytest.fixture
    def source(self, sits_data: Path) -> SceneSource:
        return SafeSource(sits_data / "t31tej")

    @pytest.fixture
    def area(self) -> shapely.Geometry:
        return AREA

    @pytest.fixture
    def season(self) -> Season:
        return SEASON

    @pytest.fixture
    def geobox(self) -> GeoBox:
        return GEOBOX

    @pytest.fixture
    def bands(self) -> Sequence[str]:
        return ("B02", "B8A", "B11")


def test_seven_real_products_of_both_namings_are_found_with_their_metadata(sits_data: Path) -> None:
    found = SafeSource(sits_data / "t31tej").search(AREA, SEASON)
    assert found.unusable == ()
    assert [scene.sensed.date().isoformat() for scene in found.scenes] == [
        "2018-01-28", "2018-04-18", "2018-06-27", "2018-08-06", "2018-08-26", "2018-10-05", "2018-09-20",
    ]  # fmt: skip
    assert [scene.baseline for scene in found.scenes] == ["02.06", "02.07"] + ["02.08"] * 5
    first = found.scenes[0]
    assert (first.id, first.platform, first.orbit, first.mgrs_tile, first.epsg) == (
        OLD, "sentinel-2a", 8, "31TEJ", 32631,
    )  # fmt: skip
    assert first.sensed == datetime(2018, 1, 28, 10, 43, 11, 26_000, tzinfo=UTC)
    assert first.generated == datetime(2018, 2, 2, 10, 33, 47, tzinfo=UTC)
    assert first.cloud_cover == 2.491
    assert first.datastrip == "S2A_USER_MSI_L2A_DS_SGS__20180128T141558_S20180128T104602_N02.06"
    assert first.datatake == "GS2A_20180128T104311_013590_N02.06"
    assert (first.declared_offset, first.offset_is_firm) == (0, True)
    assert first.assets["B02"].endswith("IMG_DATA/R10m/L2A_T31TEJ_20180128T104311_B02_10m.jp2")
    assert found.scenes[1].assets["B8A"].endswith("IMG_DATA/R20m/T31TEJ_20180418T104021_B8A_20m.jp2")


def test_a_classification_of_16_bits_comes_as_8(sits_data: Path) -> None:
    source = SafeSource(sits_data / "t31tej")
    scene = source.search(AREA, SEASON).scenes[2]
    with rasterio.open(scene.assets["SCL"]) as dataset:
        assert dataset.dtypes[0] == "uint16"
    assert next(source.read([scene], GEOBOX, ["B02"], pad=0)).bands["SCL"].dn.dtype == np.uint8


def test_a_band_of_which_no_product_has_a_file_is_none_of_the_sources(sits_data: Path) -> None:
    source = SafeSource(sits_data / "t31tej")
    scenes = source.search(AREA, SEASON).scenes
    assert not any(
        {"B01", "B09"} & scene.assets.keys() or {"B01", "B09"} & scene.item["assets"].keys() for scene in scenes
    )
    raster = next(source.read([scenes[0]], GEOBOX, ["B01"], pad=0))
    assert_one_failure(raster, OLD, "B01")
    assert raster.failures[0].error == "the item has no asset for B01"


def test_a_band_that_other_products_have_fails_with_the_name_of_the_missing_file(
    sits_data: Path, tmp_path: Path
) -> None:
    for name in (OLD, "S2A_MSIL2A_20180418T104021_N0207_R008_T31TEJ_20180418T125356"):
        shutil.copytree(sits_data / "t31tej" / f"{name}.SAFE", tmp_path / f"{name}.SAFE", copy_function=shutil.copyfile)
    granule = next(tmp_path.glob(f"{OLD}.SAFE/GRANULE/*"))
    for path in granule.rglob("*"):
        path.chmod(0o755)
    next(granule.rglob("*_B05_20m.jp2")).unlink()
    source = SafeSource(tmp_path)
    raster = next(source.read([source.search(AREA, SEASON).scenes[0]], GEOBOX, ["B05"], pad=0))
    assert_one_failure(raster, OLD, "B05")
    assert raster.failures[0].error == "L2A_T31TEJ_20180128T104311_B05_20m.jp2: No such file or directory"


def test_the_item_written_for_a_product_is_valid_and_says_the_same(sits_data: Path) -> None:
    folder = sits_data / "t31tej"
    for scene in SafeSource(folder).search(AREA, SEASON).scenes:
        item = pystac.Item.from_dict(scene.item, migrate=False)
        assert item.get_self_href() is None
        assert not any(asset.href.startswith("/") for asset in item.assets.values())
        again = scene_from_item(scene.item, lambda href: str((folder / str(href)).resolve()))
        fields = ("id", "sensed", "platform", "orbit", "mgrs_tile", "epsg", "baseline", "cloud_cover", "datastrip")
        assert [getattr(again, name) for name in fields] == [getattr(scene, name) for name in fields]
        assert (again.generated, again.declared_offset) == (scene.generated, scene.declared_offset)
        assert again.assets == {band: str(Path(path).resolve()) for band, path in scene.assets.items()}


@pytest.fixture
def product(sits_data: Path, tmp_path: Path) -> Path:
    """A copy of the oldest product that a test may change."""
    shutil.copytree(sits_data / "t31tej" / f"{OLD}.SAFE", tmp_path / f"{OLD}.SAFE", copy_function=shutil.copyfile)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755)
    return tmp_path / f"{OLD}.SAFE"


def edit(product: Path, old: str, new: str) -> None:
    path = product / "MTD_MSIL2A.xml"
    text = path.read_text()
    assert re.search(old, text)
    path.write_text(re.sub(old, new, text))


def only(product: Path) -> Scene:
    found = SafeSource(product.parent).search(AREA, SEASON)
    assert found.unusable == ()
    return found.scenes[0]


def why_unusable(product: Path) -> str:
    found = SafeSource(product.parent).search(AREA, SEASON)
    assert found.scenes == ()
    return found.unusable[0].reason


def test_one_product_is_a_source_too(product: Path) -> None:
    assert [scene.id for scene in SafeSource(product).search(AREA, SEASON).scenes] == [OLD]


def with_offsets(product: Path, *values: int) -> None:
    listed = "".join(f'<BOA_ADD_OFFSET band_id="{band}">{value}</BOA_ADD_OFFSET>' for band, value in enumerate(values))
    edit(product, "</L2A_Product_Image_Characteristics>", f"<List>{listed}</List></L2A_Product_Image_Characteristics>")


def test_the_offset_is_the_one_that_the_product_states(product: Path) -> None:
    with_offsets(product, *[-1000] * 13)
    assert only(product).declared_offset == -1000


def test_without_a_stated_offset_the_baseline_decides(product: Path) -> None:
    edit(product, "<PROCESSING_BASELINE>02.06", "<PROCESSING_BASELINE>04.00")
    assert (only(product).declared_offset, only(product).offset_is_firm) == (-1000, True)


def test_a_product_of_a_users_own_sen2cor_leaves_it_to_the_pixels(product: Path) -> None:
    edit(product, "<PROCESSING_BASELINE>02.06", "<PROCESSING_BASELINE>99.99")
    assert (only(product).declared_offset, only(product).offset_is_firm) == (0, False)


@pytest.mark.parametrize("values", [(-1000, -1000, 0), (-500, -500)])
def test_offsets_that_differ_or_are_unheard_of_make_a_product_unusable(product: Path, values: tuple[int, ...]) -> None:
    with_offsets(product, *values)
    assert "BOA_ADD_OFFSET differs by band or is neither 0 nor -1000" in why_unusable(product)


def test_another_quantification_makes_a_product_unusable(product: Path) -> None:
    edit(product, r'(<L2A_BOA_QUANTIFICATION_VALUE unit="none">)10000', r"\g<1>1000")
    assert why_unusable(product) == "its quantification value is 1000; 10000 was expected"


def test_namespaces_do_not_matter(product: Path) -> None:
    edit(product, "psd-14.sentinel2.eo.esa.int", "psd-15.sentinel2.eo.esa.int")
    assert only(product).baseline == "02.06"


def test_tile_metadata_tell_the_zone_and_the_tiles_own_sensing_time(product: Path) -> None:
    granule = next(product.glob("GRANULE/*"))
    (granule / "MTD_TL.xml").write_text(
        '<n1:Tile xmlns:n1="https://psd-15"><n1:General_Info><SENSING_TIME metadataLevel="Standard">'
        "2018-01-28T10:46:02.460Z</SENSING_TIME></n1:General_Info><n1:Geometric_Info><Tile_Geocoding>"
        "<HORIZONTAL_CS_CODE>EPSG:32632</HORIZONTAL_CS_CODE></Tile_Geocoding></n1:Geometric_Info></n1:Tile>"
    )
    scene = only(product)
    assert scene.epsg == 32632
    assert scene.sensed == datetime(2018, 1, 28, 10, 46, 2, 460_000, tzinfo=UTC)


def test_without_a_stated_footprint_the_pixels_give_one(product: Path) -> None:
    edit(product, "<EXT_POS_LIST>[^<]*<", "<EXT_POS_LIST><")
    west, south, east, north = shapely.bounds(only(product).footprint)
    assert (west, north) == (pytest.approx(3.2916, abs=1e-3), pytest.approx(43.6467, abs=2e-3))
    assert east - west < 0.04
    assert north - south < 0.04


def test_a_footprint_of_random_corners_makes_a_product_unusable(product: Path) -> None:
    corners = " ".join(f"{value:.6f}" for value in np.random.default_rng(0).random(500) + 43)
    edit(product, "<EXT_POS_LIST>[^<]*<", f"<EXT_POS_LIST>{corners}<")
    assert why_unusable(product) == "no footprint: its lines cross or touch one another in more than 100 places"
    edit(product, "<EXT_POS_LIST>[^<]*<", "<EXT_POS_LIST>43 3 43 nan 44 4 44 3<")
    assert why_unusable(product) == "no footprint: its coordinates are not all finite numbers"


def test_a_product_whose_images_are_all_gone_is_found_and_fails_to_read(product: Path) -> None:
    for path in product.rglob("*.jp2"):
        path.unlink()
    scene = only(product)
    assert scene.epsg == 32631
    raster = next(SafeSource(product.parent).read([scene], GEOBOX, ["B02", "B05"], pad=0))
    assert [failure.band for failure in raster.failures] == ["B02", "B05", "SCL"]


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_truncated_image_is_a_failure_and_never_zeros(product: Path, share: float) -> None:
    scene = only(product)
    path = Path(scene.assets["B02"])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    raster = next(SafeSource(product.parent).read([scene], GEOBOX, ["B02", "B05"], pad=0))
    assert_one_failure(raster, OLD, "B02")
    assert set(raster.bands) == {"B05", "SCL"}


def test_xml_that_would_expand_entities_is_not_read(product: Path) -> None:
    (product / "MTD_MSIL2A.xml").write_text('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>')
    assert only(product).item["properties"]["description"].startswith("its MTD_MSIL2A.xml cannot be read: ")


@pytest.mark.parametrize("trouble", ["missing", "cut", "empty"])
def test_without_its_metadata_a_product_is_known_by_its_name_and_its_images(product: Path, trouble: str) -> None:
    told = only(product)
    path = product / "MTD_MSIL2A.xml"
    if trouble == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 1000 if trouble == "cut" else 0])
    scene = only(product)
    same = ("id", "platform", "orbit", "mgrs_tile", "epsg", "baseline", "declared_offset", "offset_is_firm", "assets")
    assert [getattr(scene, name) for name in same] == [getattr(told, name) for name in same]
    assert scene.sensed == datetime(2018, 1, 28, 10, 43, 11, tzinfo=UTC)
    assert (scene.cloud_cover, scene.generated, scene.datatake) == (None, None, None)
    assert shapely.intersects(scene.footprint, AREA)
    assert shapely.area(scene.footprint) < 0.04**2
    said = "is missing" if trouble == "missing" else "cannot be read: "
    description = scene.item["properties"]["description"]
    assert description.startswith(f"its MTD_MSIL2A.xml {said}")
    assert description.endswith("; its name and its images stand for that")
    assert "/" not in description
    pystac.Item.from_dict(scene.item, migrate=False)
    # What tells copies and halves of a granule apart is the same, too.
    assert "_S20180128T104602" in str(told.datastrip)
    assert str(scene.datastrip).endswith("_S20180128T104602")


def test_the_offset_of_a_product_without_metadata_follows_the_baseline_in_its_name(product: Path) -> None:
    (product / "MTD_MSIL2A.xml").unlink()
    newer = product.with_name(product.name.replace("N0206", "N0400"))
    product.rename(newer)
    assert (only(newer).declared_offset, only(newer).offset_is_firm) == (-1000, True)


def test_a_hole_in_the_metadata_is_filled_and_said(product: Path) -> None:
    edit(product, "PROCESSING_BASELINE", "NO_BASELINE")
    scene = only(product)
    assert (scene.baseline, scene.cloud_cover) == ("02.06", 2.491)
    assert scene.item["properties"]["description"] == (
        "its metadata hold no PROCESSING_BASELINE; its name and its images stand for that"
    )


def test_a_product_without_metadata_and_images_lies_nowhere(product: Path) -> None:
    (product / "MTD_MSIL2A.xml").unlink()
    for path in product.rglob("*.jp2"):
        path.unlink()
    assert why_unusable(product) == (
        "where it lies is unknown: its metadata do not tell, and none of its images can be read"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "S2A_MSIL1C_20180418T104021_N0206_R008_T31TEJ_20180418T125356",
            "a L1C product; cubes are built from Level-2A",
        ),
        ("S2A_OPER_PRD_MSIL2A_PDMC_20160310T041843_R008_V20160309T105908_20160309T105908", "before December 2016"),
        ("holiday", "a product is named S2x_MSIL2A_"),
    ],
)
def test_other_products_in_the_folder_are_listed(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / f"{name}.SAFE").mkdir()
    found = SafeSource(tmp_path).search(AREA, SEASON)
    assert found.scenes == ()
    assert [one.id for one in found.unusable] == [name]
    assert reason in found.unusable[0].reason


def test_a_folder_without_products_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "S2A.zip").touch()
    with pytest.raises(SourceError, match=r"holds no \.SAFE product; unpack its 1 \.zip files first"):
        SafeSource(tmp_path).search(AREA, SEASON)
    with pytest.raises(SourceError, match=r"no folder of \.SAFE products at"):
        SafeSource(tmp_path / "nowhere").search(AREA, SEASON)
