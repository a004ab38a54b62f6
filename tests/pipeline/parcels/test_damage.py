"""Damaged, ambiguous and pointing files are refused in one sentence, and no parcel of them becomes background."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from sits_catalog.parcel_source import ParcelSource
from sits_pipeline.parcels import ParcelTable, read_parcels
from sits_pipeline.plan.lattice import to_lonlat

LEFT, TOP = 600_000, 4_900_020
EXTENT = GeoBox((120, 120), Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631")
AREA = to_lonlat(shapely.box(LEFT, TOP - 1200, LEFT + 1200, TOP), 32631)
FIELDS = [shapely.box(LEFT + x, TOP - 200, LEFT + x + 100, TOP - 100) for x in (100, 300, 500)]


def open_parcels(path: Path | str, **source: str) -> ParcelTable:
    parcels = ParcelSource(path=str(path), **source)  # type: ignore[arg-type]
    (table,) = read_parcels(parcels, str(path), None, area=AREA, extents=[EXTENT])
    return table


def write(path: Path, **columns: Any) -> Path:
    frame = geopandas.GeoDataFrame(columns or {"key": ["a", "b", "c"]}, geometry=FIELDS, crs=32631)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path, engine="pyogrio")
    return path


def zipped_shapefile(folder: Path, compression: int) -> Path:
    write(folder / "a.shp")
    with zipfile.ZipFile(folder / "a.zip", "w", compression) as archive:
        for suffix in ("shp", "shx", "dbf", "prj"):
            archive.write(folder / f"a.{suffix}", f"a.{suffix}")
    return folder / "a.zip"


@pytest.mark.parametrize("name", ["a.shp", "a.dbf"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_one_flipped_bit_in_a_zip_is_noticed(tmp_path: Path, name: str, compression: int) -> None:
    path = zipped_shapefile(tmp_path, compression)
    assert len(open_parcels(path, id="key")) == 3
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    content = bytearray(path.read_bytes())
    # In the last fifth of the data, which follow 30 bytes of header and the name.
    content[info.header_offset + 30 + len(name) + info.compress_size * 4 // 5] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.zip cannot be read as an archive \(.*\); download it again"):
        open_parcels(path, id="key")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_name_that_is_in_a_zip_twice_is_refused(tmp_path: Path) -> None:
    path = zipped_shapefile(tmp_path, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(tmp_path / "a.dbf", "a.dbf")
    with pytest.raises(ValueError, match=r"holds 1 names more than once \(a\.dbf\), and which file is meant nobody"):
        open_parcels(path, id="key")


@pytest.mark.parametrize("name", ["parcels.gpkg", "parcels.json", "parcels.gml"])
def test_a_file_that_points_to_another_is_not_followed(tmp_path: Path, name: str) -> None:
    other = write(tmp_path / "private.gpkg")
    layer = f'<OGRVRTLayer name="private"><SrcDataSource>{other}</SrcDataSource></OGRVRTLayer>'
    text = f"<!-- {'x' * 500} -->\n<OGRVRTDataSource>{layer}</OGRVRTDataSource>"
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"points to another file or address \(OGRVRTDataSource\)"):
        open_parcels(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, text)
    with pytest.raises(ValueError, match=rf"a\.zip!{name} holds no parcels but points to another file"):
        open_parcels(tmp_path / "a.zip")
    # Nor by a name that GDAL alone knows how to ask for.
    with pytest.raises(ValueError, match=r"is GDAL's name for a file elsewhere, which is not asked for; name"):
        open_parcels(f"/vsizip/{tmp_path}/a.zip/{name}")


def test_a_pipeline_of_gdal_is_not_run(tmp_path: Path) -> None:
    command = f"gdal vector pipeline ! read {write(tmp_path / 'private.gpkg')}"
    (tmp_path / "a.json").write_text(json.dumps({"type": "gdal_streamed_alg", "command_line": command}))
    with pytest.raises(ValueError, match=r"points to another file or address \(gdal_streamed_alg\)"):
        open_parcels(tmp_path / "a.json")


def test_a_gml_that_breaks_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.gml"
    geopandas.GeoDataFrame({"key": ["a", "b", "c"]}, geometry=FIELDS, crs=32631).to_file(path, engine="pyogrio")
    path.with_suffix(".xsd").unlink()
    assert len(open_parcels(path, id="key")) == 3
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"<ogr:featureMember>") + 30])
    with pytest.raises(ValueError, match=r"a\.gml breaks off or is damaged, as XML is not \(.*line \d+"):
        open_parcels(path, id="key")


# Parquet


def with_geo(path: Path, change: Any) -> Path:
    """The file with its `geo` metadata changed."""
    table = pq.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    change(geo)
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda geo: geo.pop("primary_column"), r"not as GeoParquet says \(KeyError: 'primary_column'\)"),
        (lambda geo: geo.update(primary_column="shape"), r"not as GeoParquet says \(KeyError: 'shape'\)"),
        (lambda geo: geo["columns"]["geometry"].pop("encoding"), r"not as GeoParquet says \(KeyError: 'encoding'\)"),
        (lambda geo: geo["columns"]["geometry"].update(bbox=[]) or geo.update(columns=[]), "not as GeoParquet says"),
        (
            lambda geo: geo["columns"]["geometry"].update(
                covering={"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}}
            ),
            r"names columns in its `geo` metadata that it does not have \(bbox\.xmin, bbox\.ymin",
        ),
    ],
)
def test_geo_metadata_that_are_wrong_are_one_sentence(tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.parquet .*{said}.*write it anew"):
        open_parcels(with_geo(write(tmp_path / "a.parquet"), change))


def test_bytes_that_are_not_utf_8_are_not_merged_into_one_code(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", crop=[b"bl\xe9", b"bl\xe8", b"z"])
    with pytest.raises(ValueError, match=r"a\.parquet holds text that is not UTF-8 .*; write the column as text"):
        open_parcels(path, code="crop")
    write(path, crop=["blé".encode(), b"w", b"z"])
    assert sorted(open_parcels(path, code="crop").source_code) == ["blé", "w", "z"]


def test_a_damaged_page_of_parquet_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet: [^\n]+$"):
        open_parcels(path, id="key")


def test_what_does_not_hold_for_parquet_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    layer, encoding = open_parcels(path, id="key", layer="parcels", encoding="cp1252").notes
    assert "is Parquet, which has no layers, so parcels: layer (parcels) was not used" in layer
    assert "is Parquet, whose text is UTF-8, so parcels: encoding (cp1252) was not used" in encoding


# Whole numbers


@pytest.mark.parametrize("name", ["a.gpkg", "a.fgb", "a.geojson", "a.shp"])
def test_long_whole_numbers_keep_their_digits_beside_missing_ones(tmp_path: Path, name: str) -> None:
    """As float64 the first two would be one number; the fourth row is outside, the third has none."""
    import pyogrio

    numbers = [123456789012345671, 123456789012345672, None, 123456789012345673]
    fields = [*FIELDS, shapely.box(LEFT + 9000, TOP, LEFT + 9100, TOP + 100)]
    epsg = 32631 if name != "a.geojson" else 4326
    shapes = geopandas.GeoSeries(fields, crs=32631).to_crs(epsg)
    table = pa.table(
        {"number": pa.array(numbers, pa.int64()), "shape": pa.array(shapely.to_wkb(shapes.to_numpy()), pa.binary())}
    )
    pyogrio.write_arrow(table, tmp_path / name, geometry_name="shape", geometry_type="Polygon", crs=f"EPSG:{epsg}")
    read = open_parcels(tmp_path / name, id="number", code="number")
    assert sorted(text for text in read.source_code if text) == ["123456789012345671", "123456789012345672"]
    assert [crop.code for crop in read.taxonomy.classes] == [str(number) for number in numbers if number]
    keys = read.source_key.tolist()
    assert {"123456789012345671", "123456789012345672"} < set(keys)
    assert [len(key) for key in sorted(keys, key=len)] == [16, 18, 18]
    assert read.source_code[keys.index("123456789012345671")] == "123456789012345671"
