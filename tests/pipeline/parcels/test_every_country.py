"""Every real file of parcels goes to labels, and agrees with an independent read by geopandas.

A file's parcels are counted, measured and classified in one UTM zone, where the oracle reprojects the vertices that
geopandas read; labels are drawn on a small grid where most of the parcels lie close together.
"""

from __future__ import annotations

import re
import shutil
import warnings
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from defusedxml import ElementTree
from odc.geo.geobox import GeoBox

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.region import LabelRule
from sits_pipeline.parcels import NEAR_M, Flag, ParcelTable, read_parcels
from sits_pipeline.plan.lattice import snap, to_lonlat
from sits_pipeline.steps.rasterize import rasterize

GRID_M = 6000
"""Side of the grid of labels."""


@dataclass(frozen=True)
class Case:
    """A file, where it comes from, its rows, and the columns of the table in the README of the data."""

    file: str
    country: str
    n: int
    crs: str
    columns: dict[str, str]
    inner: str = ""
    """Path inside of the zip for the oracle; the pipeline finds it by itself, or by `member` and `layer`."""


def case(file: str, country: str, crs: int, n: int = 100, inner: str = "", **columns: str) -> Case:
    return Case(file=file, country=country, n=n, crs=f"EPSG:{crs}", columns=columns, inner=inner)


_BE = "Landbouwgebruikspercelen_2023_-_Definitief_(extractie_28-03-2024)"
CASES = [
    case("national/ai4sf/1_vietnam_areas.gpkg", "Vietnam", 32648),
    case("national/ai4sf/4_cambodia_areas.gpkg", "Cambodia", 32648),
    case(
        "national/at/inspire_schlaege_2025-1_polygon.gpkg.zip", "Austria", 31287, code="SNAR_CODE",
        name="SNAR_BEZEICHNUNG", inner="INSPIRE_SCHLAEGE_2025-1_POLYGON.gpkg",
    ),
    case(
        "national/at_block/inspire_referenzen_2021_polygon.gpkg.zip", "Austria", 31287, id="RFL_ID", code="REF_ART",
        inner="INSPIRE_REFERENZEN_2021_POLYGON.gpkg",
    ),
    case(f"national/be_vlg/{_BE}_GPKG.zip", "Belgium", 31370, code="GWSCOD_H", name="GWSNAM_H", inner=f"{_BE}.gpkg"),
    case(
        "national/be_wal/LU_ExistingLandUse_SIGEC2022.gml.zip", "Belgium", 3035, 10, layer="ExistingLandUseObject",
        id="localId", code="description", code_pattern="- (.+)$", inner="LU_ExistingLandUse_SIGEC2022.gml",
    ),
    case("national/bg/bg_arable_land_2024.zip", "Bulgaria", 32635, code="USAGEENG", inner="Arable_Land_2024.shp"),
    case("national/br_ba_lem/LEM_dataset.zip", "Brazil", 4326, code="Feb_2020", inner="LEM_dataset.shp"),
    case("national/ch/lwb_nutzungsflaechen_v2_0_lv95.gpkg", "Switzerland", 2056, code="lnf_code", name="nutzung"),
    case(
        "national/cz/GEOPROSTOR_ZADOSTI23_2024-08-01.zip", "Czechia", 4258, code="PLODINA_ID", name="PLOD_NAZE",
        member="*.shp", inner="GEOPROSTOR_ZADOSTI23_2024-08-01_epsg4258.shp",
    ),
    case("national/de_bb/antrag.zip", "Germany", 25833, code="code", name="code_bez", inner="antrag_land_gem.shp"),
    case("national/de_sh/Feldbloecke_2026_GPKG.zip", "Germany", 4647, id="FLIK", code="HBN", inner="de_sh.gpkg"),
    case("national/dk/Marker_2026.zip", "Denmark", 25832, code="Afgkode", name="Afgroede", inner="Marker_2026.shp"),
    case("national/ec_lv/LV_2021.zip", "Latvia", 3059, code="EC_hcat_c", inner="LV_2021/LV_2021_EC21.shp"),
    case("national/ec_ro/RO_ny.zip", "Romania", 32635, code="EC_hcat_c", inner="RO/RO_ny_EC21.shp"),
    case(
        "national/es_cat/Cultius_DUN2023_GPKG.zip", "Spain", 25831, layer="CULTIUS_DUN2023", code="cultiu",
        inner="Cultius_DUN2023_GPKG/CULTIUS_DUN2023.gpkg",
    ),
    case("national/fi/LandUse.ExistingLandUse.GSAAAgriculturalParcel.gpkg", "Finland", 3067, code="KASVIKOODI"),
    case("national/ie/GSAA_2024.zip", "Ireland", 4258, id="localId", code="specificLandUse_title",
         inner="GSAA_2024.gml"),
    case("national/india_10k/india_10k.zip", "India", 4326, inner="india_10k.shp"),
    case("national/it_1/iti1_2023.parquet", "Italy", 3035, code="original_code", name="cropfield"),
    case("national/jecam/BD_JECAM_CIRAD_2023_feb.shp", "Burkina Faso", 4326, id="Id", code="CropType1"),
    case("national/jp/jp_field_polygons_2024.parquet", "Japan", 6668, id="polygon_uuid", code="land_type_en"),
    case("national/lv/1_100.xml", "Latvia", 3059, id="PARCEL_ID", code="PRODUCT_CODE"),
    case("national/nl/brpgewaspercelen_definitief_2023.gpkg", "Netherlands", 28992, id="id", code="gewascode"),
    case("national/nl_block/referentiepercelen.gpkg", "Netherlands", 28992, code="type"),
    case("national/nz/irrigated-land-area-raw-2020-update.zip", "New Zealand", 2193, code="type",
         inner="irrigated-land-area-raw-2020-update.shp"),
    case("national/pt/Continente.gpkg", "Portugal", 3763, layer="Culturas_Aveiro", id="CUL_ID", code="CUL_CODIGO",
         name="CT_português"),
    case("national/se/se2023.zip", "Sweden", 3006, 10, code="grdkod_mar", inner="arslager_skiftePolygon.shp"),
    case(
        "national/us_ca_scm/i15_crop_mapping_2023_provisional_20241127.gdb.zip", "USA", 4269, code="MAIN_CROP",
        inner="i15_Crop_Mapping_2023_Provisional_20241127.gdb",
    ),
    case(
        "national/us_usda_cropland/NationalCSB_2017-2024_rev23.zip", "USA", 5070, id="CSBID", code="CDL2024",
        inner="NationalCSB_2017-2024_rev23/CSB1724.gdb",
    ),
    case("fiboa/be_vlg_2024_fiboa_0_2.parquet", "Belgium", 31370, id="id", code="crop:code", name="crop:name"),
    case("fiboa/dk_2024_fiboa_0_2.parquet", "Denmark", 25832, id="id", code="crop:code", name="crop:name"),
    case("fiboa/crop_extension_example.parquet", "example", 4326, 1, id="id", code="crop:code"),
    case("fiboa/hcat_extension_example.parquet", "example", 4326, 1, id="id", code="hcat:code", name="hcat:name"),
    case("france_rpg.gpkg", "France", 2154, 193, id="id_parcel", code="code_cultu"),
    case("malawi_extraction_polygons.gpkg", "Malawi", 4326, 287, code="croptype"),
    case("puglia_extraction_polygons.gpkg", "Italy", 4326, 6),
]  # fmt: skip


# The oracle: geopandas, pyogrio's GDAL and an XML parser; nothing of the pipeline


def oracle(case: Case, folder: Path, tmp_path: Path) -> geopandas.GeoDataFrame:
    """The file by geopandas with `code` as text."""
    path = folder / case.file
    frame = geopandas.read_parquet(path) if path.suffix == ".parquet" else _by_gdal(case, path, tmp_path)
    column = case.columns.get("code")
    if case.country == "Ireland":
        frame["code"] = _titles(path, case.inner)
    elif column is None:
        frame["code"] = None
    else:
        frame["code"] = [_code(value, case) for value in frame[column]]
    return frame


def _by_gdal(case: Case, path: Path, tmp_path: Path) -> geopandas.GeoDataFrame:
    target: str | Path = path
    if case.inner:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path)
        target = tmp_path / case.inner
    elif path.suffix == ".xml":  # GDAL writes beside it
        target = Path(shutil.copy(path, tmp_path / "copy.xml"))
    # The number of a feature is the id where the README names that column (the Dutch file).
    with warnings.catch_warnings():  # GDAL has something to say about some of these files
        warnings.simplefilter("ignore")
        frame = geopandas.read_file(target, layer=case.columns.get("layer"), fid_as_index=True)
    return frame.reset_index(drop=False)


def _code(value: Any, case: Case) -> str | None:
    if value is None or pd.isna(value):
        return None
    text = str(int(value)) if isinstance(value, float) and value == int(value) else str(value).strip()
    if "code_pattern" in case.columns:
        text = text.split("- ", 1)[1]
    return text or None


def _titles(path: Path, inner: str) -> list[str]:
    """Crops of the Irish file, from the attribute that vector readers drop."""
    with zipfile.ZipFile(path) as archive:
        root = ElementTree.fromstring(archive.read(inner))
    named = [one for one in root.iter() if re.sub("{.*}", "", one.tag) == "specificLandUse"]
    return [one.attrib["{http://www.w3.org/1999/xlink}title"] for one in named]


def zone_of(frame: geopandas.GeoDataFrame) -> int:
    """The UTM zone in which most of the parcels lie."""
    points = frame.geometry.representative_point().to_crs(4326)
    zones = np.where(points.y >= 0, 32600, 32700) + np.clip((points.x + 180) // 6 + 1, 1, 60).astype(int)
    return Counter(zones.tolist()).most_common(1)[0][0]


# The pipeline


def tables(case: Case, folder: Path, extent: GeoBox) -> ParcelTable:
    """The parcels of the file within 110 m of `extent`; `member`, `layer` and columns as a region file names them."""
    path = str(folder / case.file)
    area = to_lonlat(shapely.box(*extent.boundingbox.bbox), int(extent.crs.epsg))
    (table,) = read_parcels(ParcelSource(path=path, **case.columns), path, None, area=area, extents=[extent])  # type: ignore[arg-type]
    return table


def around(shapes: geopandas.GeoSeries, epsg: int) -> GeoBox:
    """A grid, never drawn, around all parcels that lie less than 400 km from the middle one of their zone."""
    x, y = shapes.centroid.x.to_numpy(), shapes.centroid.y.to_numpy()
    near = np.hypot(x - np.median(x), y - np.median(y)) < 400_000
    return snap(shapely.box(*shapes[near].total_bounds), epsg)


def densest(table: ParcelTable) -> GeoBox:
    """The grid of 6 km around the parcel with most neighbours."""
    centres = shapely.get_coordinates(shapely.centroid(table.parcels.geometry))
    neighbours = (np.abs(centres[:, None] - centres).max(axis=2) < GRID_M / 2).sum(axis=1)
    x, y = np.round((centres[np.argmax(neighbours)] - GRID_M / 2) / 10) * 10
    pixels = GRID_M // 10
    return GeoBox((pixels, pixels), Affine(10, 0, x, 0, -10, y + GRID_M), f"EPSG:{table.parcels.epsg}")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file.removeprefix("national/").split("/")[0])
def test_a_real_file_goes_to_labels(case: Case, sits_data: Path, tmp_path: Path) -> None:
    folder = sits_data / "parcels"
    frame = oracle(case, folder, tmp_path)
    assert len(frame) == case.n
    assert frame.crs.equals(case.crs, ignore_axis_order=True) or frame.crs.to_epsg() == int(case.crs[5:])
    epsg = zone_of(frame)
    shapes = frame.geometry.to_crs(epsg)
    extent = around(shapes, epsg)
    west, south, east, north = extent.boundingbox.bbox
    bounds = shapes.bounds
    near = (
        (bounds.minx <= east + NEAR_M) & (bounds.maxx >= west - NEAR_M)
        & (bounds.miny <= north + NEAR_M) & (bounds.maxy >= south - NEAR_M)
    )  # fmt: skip
    table = tables(case, folder, extent)
    assert table.dropped == ()
    assert len(table) == near.sum() >= min(case.n, 10)
    assert table.area_ha.sum() == pytest.approx(shapes[near].make_valid().area.sum() / 1e4, rel=0.005)
    expected = Counter(frame["code"][near])
    assert Counter(table.source_code) == expected
    names = {crop.index: crop.code for crop in table.taxonomy.classes}
    classes = Counter(names.get(int(index)) for index in table.parcels.crop_type)
    assert classes == expected
    check_labels(table)


def check_labels(table: ParcelTable) -> None:
    """Pixels of each parcel against its own area, on the grid where most parcels are."""
    geobox = densest(table)
    labels = rasterize(table.parcels, geobox, rule=LabelRule(), known=None)
    grid = shapely.box(*geobox.boundingbox.bbox)
    inside = shapely.within(table.parcels.geometry, grid) & (table.flags & (Flag.OVERLAPS | Flag.DUPLICATE) == 0)
    area = shapely.area(table.parcels.geometry)
    pixels = np.bincount(labels.parcel_id.ravel(), minlength=int(table.parcels.parcel_id.max()) + 1)
    own = pixels[table.parcels.parcel_id] * 100.0
    assert (labels.parcel_id > 0).any()
    for index in np.flatnonzero(inside):
        parcel = table.parcels.geometry[index]
        # A pixel that the parcel holds whole is its own; one that it does not reach is not. The diagonal is 14.15 m.
        assert shapely.area(shapely.buffer(parcel, -14.15)) <= own[index] <= shapely.area(shapely.buffer(parcel, 14.15))
    large = inside & (area >= 20_000) & (shapely.length(table.parcels.geometry) ** 2 < 40 * area)
    if large.any():
        # Each of the P / 10 m pixels on a border is off by up to half of its 100 m2, evenly: 29 m2 rms a pixel. Five
        # times that for the sum of all large parcels, and 0.5 % for edges that run along the rows of the grid.
        spread = 29 * np.sqrt(shapely.length(table.parcels.geometry)[large].sum() / 10)
        assert abs(own[large].sum() - area[large].sum()) <= 5 * spread + 0.005 * area[large].sum()
    drawn = labels.parcel_id > 0
    of_parcel = np.zeros(len(pixels), np.uint16)
    of_parcel[table.parcels.parcel_id] = table.parcels.crop_type
    np.testing.assert_array_equal(labels.crop_type[drawn], of_parcel[labels.parcel_id[drawn]])


def test_every_file_of_the_folder_is_a_case(sits_data: Path) -> None:
    folder = sits_data / "parcels"
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".dbf", ".prj", ".shx")
    }
    assert {case.file for case in CASES} == found
    assert len(CASES) == 37
    assert len({case.country for case in CASES} - {"example"}) == 26
    assert len({case.crs for case in CASES}) == 22
