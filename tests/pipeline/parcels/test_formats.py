"""The same parcels in every format, plain and packed, and files with odd contents."""

from __future__ import annotations

import zipfile
from pathlib import Path

import geopandas
import numpy as np
import py7zr
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.parcels import ParcelTable, parcel_bounds, read, read_parcels
from sits_pipeline.parcels.files import open_vector
from sits_pipeline.plan.lattice import to_lonlat

LEFT, TOP = 600_000, 4_900_020
EXTENT = GeoBox((120, 120), Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631")
AREA = to_lonlat(shapely.box(LEFT, TOP - 1200, LEFT + 1200, TOP), 32631)
FIELDS = [shapely.box(LEFT + x, TOP - 200, LEFT + x + 100, TOP - 100) for x in (100, 300, 5000)]


def open_parcels(path: Path | str, taxonomy: Taxonomy | None = None, **source: str) -> ParcelTable:
    (table,) = read_parcels(
        ParcelSource(path=str(path), **source),  # type: ignore[arg-type]
        str(path),
        taxonomy,
        area=AREA,
        extents=[EXTENT],
    )
    return table


def write(path: Path, fields: list[shapely.Geometry] = FIELDS, **columns: object) -> Path:
    """Three fields, of which two are near, with the columns `key` and `crop`; the third one's crop is alone."""
    frame = geopandas.GeoDataFrame(
        columns or {"key": ["a", "b", "c"], "crop": ["w", "v", "z"]}, geometry=fields, crs=32631
    )
    if path.suffix == ".csv":
        text = frame.drop(columns="geometry").assign(WKT=frame.geometry.to_wkt())
        text.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, write_covering_bbox=True)
    else:
        driver = {".gml": "GML", ".gdb": "OpenFileGDB"}.get(path.suffix)
        frame.to_file(path, engine="pyogrio", driver=driver, layer=None if path.suffix != ".gdb" else "parcels")
    return path


def parts(path: Path) -> list[Path]:
    """All files that belong to the one at `path`."""
    if path.is_dir():
        return sorted(path.rglob("*"))
    return sorted(part for part in path.parent.iterdir() if part.stem == path.stem and part.is_file())


def pack(archive: Path, path: Path, folder: str = "") -> Path:
    """The file at `path`, and what belongs to it, in a zip or 7z."""
    names = {part: f"{folder}{part.relative_to(path.parent)}" for part in parts(path)}
    if archive.suffix == ".7z":
        with py7zr.SevenZipFile(archive, "w") as packed:
            for part, name in names.items():
                packed.write(part, name)
    else:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for part, name in names.items():
                zipped.write(part, name)
    return archive


def check(table: ParcelTable) -> None:
    assert table.source_key.tolist() == ["a", "b"]
    assert table.source_code.tolist() == ["w", "v"]
    assert [crop.code for crop in table.taxonomy.classes] == ["v", "w", "z"]
    assert table.area_ha == pytest.approx([1, 1], abs=1e-3)


FORMATS = ["a.shp", "a.gpkg", "a.fgb", "a.gml", "a.gdb", "a.csv", "a.geojson", "a.parquet"]
COLUMNS = {"id": "key", "code": "crop", "crs": "EPSG:32631"}


def in_degrees() -> list[shapely.Geometry]:
    return list(geopandas.GeoSeries(FIELDS, crs=32631).to_crs(4326))


def original(path: Path) -> Path:
    if path.suffix == ".geojson":
        frame = geopandas.GeoDataFrame(
            {"key": ["a", "b", "c"], "crop": ["w", "v", "z"]}, geometry=in_degrees(), crs=4326
        )
        frame.to_file(path, engine="pyogrio")
        return path
    return write(path)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_read_plain_in_a_zip_and_in_a_7z(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    (tmp_path / "in").mkdir()
    path = original(tmp_path / "in" / name)
    check(open_parcels(path, **COLUMNS))
    check(open_parcels(pack(tmp_path / "flat.zip", path), **COLUMNS))
    check(open_parcels(pack(tmp_path / "nested", path, "FR_2018/data/"), **COLUMNS))  # a zip without a suffix
    check(open_parcels(pack(tmp_path / "a.7z", path, "one/"), **COLUMNS))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["a.shp", "a.gpkg", "a.fgb", "a.parquet"])
def test_a_file_too_large_to_be_searched_whole_gives_the_same_and_says_so(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / name)
    whole = open_parcels(path, id="key", code="crop")
    monkeypatch.setattr(read, "_WHOLE_ROWS", 2)
    near = open_parcels(path, id="key", code="crop")
    check(near)
    assert whole.notes == ()
    assert "only the rows near the region were searched for ids" in near.notes[0]
    assert "name a taxonomy, and only the rows near the region are read" in near.notes[1]
    taxonomy = Taxonomy.from_codes(["w", "v"])
    assert len(open_parcels(path, taxonomy, id="key", code="crop").notes) == 1


@pytest.mark.parametrize("name", ["a.shp", "a.gpkg", "a.fgb", "a.gml", "a.csv", "a.parquet"])
def test_the_classes_of_a_file_are_its_different_codes_as_its_rows_have_them(tmp_path: Path, name: str) -> None:
    """GDAL's DISTINCT tells letters of two cases apart, and texts of codes are those of rows."""
    fields = [shapely.box(LEFT + x, TOP - 90, LEFT + x + 90, TOP) for x in range(0, 600, 100)]
    crops = ["w", "W", "wé", None, "w", " x "]
    path = write(tmp_path / name, fields, crop=crops, number=[1.0, 2.5, 10.0, np.nan, 1.0, -3.0])
    letters = open_parcels(path, code="crop", crs="EPSG:32631")
    assert sorted(text for text in letters.source_code if text) == ["W", "w", "w", "wé", "x"]
    assert [crop.code for crop in letters.taxonomy.classes] == ["W", "w", "wé", "x"]
    numbers = open_parcels(path, code="number", crs="EPSG:32631")
    assert {crop.code for crop in numbers.taxonomy.classes} == {text for text in numbers.source_code if text}


def test_a_zip_is_found_from_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    pack(tmp_path / "in" / "a.zip", write(tmp_path / "in" / "a.shp"))
    write(tmp_path / "in" / "b.gml")
    monkeypatch.chdir(tmp_path)
    check(open_parcels("in/a.zip", id="key", code="crop"))
    check(open_parcels("in/b.gml", id="key", code="crop"))


def test_ids_that_repeat_far_away_are_found_in_small_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.gpkg", key=["a", "b", "a"], crop=["w", "v", "z"])
    small = open_parcels(path, id="key")
    assert "b" in small.source_key
    assert "a" not in small.source_key
    monkeypatch.setattr(read, "_WHOLE_ROWS", 2)
    assert open_parcels(path, id="key").source_key.tolist() == ["a", "b"]


def test_the_parts_of_a_divided_7z_are_read_as_one(tmp_path: Path) -> None:
    content = pack(tmp_path / "a.7z", write(tmp_path / "a.gpkg"), "deep/").read_bytes()
    third = len(content) // 3
    for number, part in enumerate((content[:third], content[third : 2 * third], content[2 * third :]), start=1):
        (tmp_path / f"p.7z.{number:03d}").write_bytes(part)
    (tmp_path / "p.7z.001.sha256").write_text("of no concern")
    check(open_parcels(tmp_path / "p.7z.001", id="key", code="crop"))
    (tmp_path / "p.7z.002").unlink()
    with pytest.raises(ValueError, match=r"is the first of 3 parts, and part 2 \(p\.7z\.002\) is not beside it"):
        open_parcels(tmp_path / "p.7z.001")


def test_member_chooses_among_the_files_of_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, fields in (("near", FIELDS), ("far", [FIELDS[2]] * 3)):
            archive.write(write(tmp_path / f"{name}.gpkg", fields), f"2020/{name}.gpkg")
        archive.writestr("__MACOSX/2020/._near.gpkg", b"nothing")
    path = tmp_path / "a.zip"
    for member in ("2020/near.gpkg", "near.*", "*/NEAR*"):
        check(open_parcels(path, member=member, id="key", code="crop"))
    check(open_parcels(f"{path}!2020/near.gpkg", id="key", code="crop"))
    with pytest.raises(
        ValueError, match=r"several vector files: 2020/far.gpkg, 2020/near.gpkg; name one under parcels: m"
    ):
        open_parcels(path, id="key")
    with pytest.raises(ValueError, match=r"holds no file 'x\*' \(parcels: member\); it holds 2020/far.gpkg, 2020/near"):
        open_parcels(path, member="x*")
    with pytest.raises(ValueError, match=r"near\.gpkg is no zip or 7z archive, so there is no member 'a'"):
        open_parcels(tmp_path / "near.gpkg", member="a")


def test_code_lists_beside_the_parcels_are_not_taken_for_parcels(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", write(tmp_path / "parcels.shp"))
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("codes.csv", "code,name\n1,wheat\n")
        archive.writestr("parcels.shp.xml", "<metadata/>")
    check(open_parcels(tmp_path / "a.zip", id="key", code="crop"))


def test_a_table_without_geometry_says_which_column_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("key,shape\na,POINT (0 0)\n")
    with pytest.raises(
        ValueError, match=r"no column of geometry; expected WKT in a column named wkt,.* it has key, shape"
    ):
        open_parcels(tmp_path / "a.csv", crs="EPSG:32631")
    write(tmp_path / "b.csv")
    with pytest.raises(ValueError, match=r"b\.csv states no CRS"):
        open_parcels(tmp_path / "b.csv")


def test_leading_zeros_of_a_csv_stay(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", key=["007", "008", "009"], crop=["01", "02", "03"])
    table = open_parcels(tmp_path / "a.csv", **COLUMNS)
    assert table.source_key.tolist() == ["007", "008"]
    assert table.source_code.tolist() == ["01", "02"]


def test_the_bounds_of_packed_parcels_are_known(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.7z", write(tmp_path / "a.parquet"))
    bounds = geopandas.GeoSeries(FIELDS, crs=32631).to_crs(4326).total_bounds
    assert parcel_bounds(ParcelSource(path=str(archive)), str(archive)) == pytest.approx(tuple(bounds), abs=1e-5)


def test_parquet_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet").rename(tmp_path / "download")
    check(open_parcels(tmp_path / "download", id="key", code="crop"))


def test_parquets_own_geometry_type_is_read_and_its_statistics_spare_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    storage = pa.array(shapely.to_wkb(FIELDS))

    class Wkb(pa.ExtensionType):  # what geoarrow calls its WKB; Parquet then stores its type GEOMETRY
        def __init__(self) -> None:
            super().__init__(pa.binary(), "geoarrow.wkb")

        def __arrow_ext_serialize__(self) -> bytes:
            return b'{"crs": "EPSG:32631"}'

    table = pa.table(
        {"key": ["a", "b", "c"], "crop": ["w", "v", "z"], "shape": pa.ExtensionArray.from_storage(Wkb(), storage)}
    )
    pq.write_table(table, path, row_group_size=1, store_schema=False)
    check(open_parcels(path, id="key", code="crop"))
    file = open_vector(str(path), layer=None, crs=None, encoding=None)
    assert file.bounds() == (LEFT + 100, TOP - 200, LEFT + 5100, TOP - 100)
    # The third row group is broken from its pages on: whoever reads it fails.
    with pq.ParquetFile(path) as written:
        column = written.metadata.row_group(2).column(2)
        start, length = column.dictionary_page_offset or column.data_page_offset, column.total_compressed_size
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    assert file.read(["key"], (LEFT, TOP - 1200, LEFT + 1200, TOP)).columns["key"].tolist() == ["a", "b"]
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet: .*page header"):
        file.read(["key"], None)


@pytest.mark.parametrize("start", [b"Rar!\x1a\x07\x01\x00", b"\x1f\x8b\x08\x00"])
def test_other_archives_say_how_to_unpack_them(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(start + bytes(100))
    with pytest.raises(
        ValueError, match=r"is a RAR archive, which is not read here; unpack it|packed by gzip; unpack it"
    ):
        open_parcels(tmp_path / "a.zip")


# Odd contents


def test_curves_are_made_of_straight_pieces(tmp_path: Path) -> None:
    """A half circle of 100 m radius, drawn by an arc of three points."""
    x, y = LEFT + 500, TOP - 500
    arc = f"{x - 100} {y} {x} {y + 100} {x + 100} {y}"
    (tmp_path / "a.gml").write_text(
        f"""<?xml version="1.0"?><gml:FeatureCollection xmlns:gml="http://www.opengis.net/gml/3.2"><gml:featureMember>
        <field gml:id="f1"><crop>w</crop><geometry><gml:Surface srsName="EPSG:32631"><gml:patches><gml:PolygonPatch>
        <gml:exterior><gml:Ring><gml:curveMember><gml:Curve><gml:segments><gml:Arc><gml:posList>{arc}</gml:posList>
        </gml:Arc><gml:LineStringSegment><gml:posList>{x + 100} {y} {x - 100} {y}</gml:posList></gml:LineStringSegment>
        </gml:segments></gml:Curve></gml:curveMember></gml:Ring></gml:exterior></gml:PolygonPatch></gml:patches>
        </gml:Surface></geometry></field></gml:featureMember></gml:FeatureCollection>"""
    )
    table = open_parcels(tmp_path / "a.gml", code="crop")
    assert table.area_ha == pytest.approx([np.pi / 2], rel=2e-3)
    assert table.parcels.geometry[0].geom_type == "Polygon"


def test_measures_heights_and_empty_shapes_do_no_harm(tmp_path: Path) -> None:
    odd = [shapely.force_3d(FIELDS[0], 12.0), shapely.Polygon(), shapely.MultiPolygon([FIELDS[1]])]
    table = open_parcels(write(tmp_path / "a.parquet", odd), id="key", code="crop")
    assert table.source_key.tolist() == ["a", "c"]
    assert [lost.reason for lost in table.dropped] == ["its geometry is empty"]
    assert not shapely.has_z(table.parcels.geometry).any()


@pytest.mark.parametrize("name", ["a.shp", "a.csv"])
def test_a_field_may_be_called_geometry(tmp_path: Path, name: str) -> None:
    """As the shapefile of a table does whose column of that name is text."""
    import pyogrio

    table = pa.table({"geometry": ["w", "v", "z"], "shape": pa.array(shapely.to_wkb(FIELDS), pa.binary())})
    options = {"layer_options": {"GEOMETRY": "AS_WKT", "GEOMETRY_NAME": "WKT"}} if name == "a.csv" else {}
    pyogrio.write_arrow(
        table, tmp_path / name, geometry_name="shape", geometry_type="Polygon", crs="EPSG:32631", **options
    )
    read = open_parcels(tmp_path / name, code="geometry", crs="EPSG:32631")
    assert sorted(read.source_code) == ["v", "w"]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    table = pq.read_table(path)
    names = ["crop" if name == "key" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names).replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(
        ValueError, match=r"has 2 columns 'crop' \(parcels: code\), and which one is meant nobody can say"
    ):
        open_parcels(path, code="crop")


def test_a_crs_that_nobody_knows_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    table = pq.read_table(path)
    geo = table.schema.metadata[b"geo"].decode()
    start = geo.index('"crs": {')
    end = geo.index('"geometry_types"')
    pq.write_table(table.replace_schema_metadata({"geo": geo[:start] + '"crs": "EPSG:0", ' + geo[end:]}), path)
    with pytest.raises(ValueError, match=r"states a CRS that nobody knows \(EPSG:0\); write it anew"):
        open_parcels(path)
    with pytest.raises(ValueError, match=r"nobody knows 'EPSG:99'"):
        open_parcels(path, crs="EPSG:99")


def test_text_of_another_encoding_is_read_when_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.shp", key=["a", "b", "c"], crop=["bl\u00e9", "ma\u00efs", "z"])
    dbf = (
        path.with_suffix(".dbf")
        .read_bytes()
        .replace("bl\u00e9".encode(), b"bl\xe9 ")
        .replace("ma\u00efs".encode(), b"ma\xefs ")
    )
    path.with_suffix(".dbf").write_bytes(dbf)
    with pytest.raises(ValueError, match=r"holds text that cannot be decoded .* parcels: encoding"):
        open_parcels(path, code="crop")
    assert set(open_parcels(path, code="crop", encoding="cp1252").source_code) == {"bl\u00e9", "ma\u00efs"}
    with pytest.raises(
        ValueError, match=r"parcels: encoding names one as cp1252 or utf-8 does; nobody knows 'klingon'"
    ):
        open_parcels(path, code="crop", encoding="klingon")


def test_a_file_that_breaks_off_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fgb")
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"a\.fgb cannot be read as a vector file"):
        open_parcels(path, id="key")
