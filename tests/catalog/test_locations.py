from __future__ import annotations

import json
import struct
from pathlib import Path

import geopandas
import pytest
import shapely

from sits_catalog.locations import Location, is_location_file, read_locations, write_locations

TWO = (Location("a", 3.25, 43.5, "Béziers, sud", "FR"), Location("b", -179.999999, -33.1))
SUFFIXES = ("csv", "geojson", "json", "parquet", "geoparquet")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_back_and_the_same_bytes_each_time(tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
    write_locations(first, TWO)
    write_locations(second, TWO)
    assert read_locations(first) == read_locations(str(first)) == TWO
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [first.name, second.name]


def test_a_csv_is_lines_that_a_person_reads(tmp_path: Path) -> None:
    write_locations(tmp_path / "two.csv", TWO)
    assert (tmp_path / "two.csv").read_text() == (
        'id,lon,lat,city,country\na,3.25,43.5,"Béziers, sud",FR\nb,-179.999999,-33.1,,\n'
    )


@pytest.mark.parametrize("suffix", ["geojson", "parquet"])
def test_other_programs_read_the_same_points(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"two.{suffix}"
    write_locations(path, TWO)
    table = geopandas.read_parquet(path) if suffix == "parquet" else geopandas.read_file(path)
    assert table.crs.to_authority() in (("OGC", "CRS84"), ("EPSG", "4326"))
    assert list(table.geometry.x) == [at.lon for at in TWO]
    assert list(table.geometry.y) == [at.lat for at in TWO]
    assert list(table["id"]) == ["a", "b"]


@pytest.mark.parametrize("suffix", ["geojson", "parquet"])
def test_points_of_other_programs_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"farms.{suffix}"
    table = geopandas.GeoDataFrame(geometry=[shapely.Point(3.25, 43.5), shapely.Point(4, 44, 12.5)], crs="EPSG:4326")
    table.to_parquet(path) if suffix == "parquet" else table.to_file(path, driver="GeoJSON")
    found = read_locations(path)
    assert [(at.lon, at.lat) for at in found] == [(3.25, 43.5), (4, 44)]


def test_big_endian_points_are_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    geo = {"version": "1.1.0", "primary_column": "g", "columns": {"g": {"encoding": "WKB", "geometry_types": []}}}
    table = pa.table({"g": [struct.pack(">BIdd", 0, 1, 3.25, 43.5)]}, metadata={"geo": json.dumps(geo)})
    parquet.write_table(table, tmp_path / "one.parquet")
    assert read_locations(tmp_path / "one.parquet") == (Location("0", 3.25, 43.5),)


def test_without_ids_points_are_numbered_with_as_many_digits_as_they_need(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    path.write_text("lat,lon\n" + "".join(f"{lat},7\n" for lat in range(11)))
    assert [at.id for at in read_locations(path)] == [f"{i:02d}" for i in range(11)]
    assert read_locations(path)[3] == Location("03", 7.0, 3.0)


def test_a_csv_of_a_spreadsheet_with_more_columns_is_read(tmp_path: Path) -> None:
    path = tmp_path / "farm.csv"
    path.write_bytes(b"\xef\xbb\xbfid, lon, lat, crop\r\n0007, 3.25, 43.5, wheat\r\n")
    assert read_locations(path) == (Location("0007", 3.25, 43.5),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,x,y\n1,2,3\n", "line 1: a CSV of locations has the columns lon and lat; got id, x, y"),
        ("", "line 1: a CSV of locations has the columns lon and lat; got none"),
        ("lon,lat\n", "holds no location"),
        ("lon,lat\n1,2\n3,north\n", "line 3: lat must be a number of degrees; got 'north'"),
        ("lon,lat\n1,\n", "line 2: lat must be a number of degrees; got ''"),
        ("lon,lat\n1\n", "line 2: lat must be a number of degrees; got None"),
        ("lon,lat\nnan,2\n", "line 2: lon must be a number of degrees; got 'nan'"),
        ("lon,lat\n181,2\n", "line 2: lon must be from -180 to 180 degrees; got 181.0"),
        ("lon,lat\n2,84.5\n", "line 2: lat must be from -80 to 84 degrees, where UTM is defined; got 84.5"),
        ("id,lon,lat\na,1,2\nb,1,2\na,3,4\n", "line 4: the id 'a' is that of line 2 too; ids must be unique"),
        ("id,lon,lat\na,1,2\n,1,2\n", "line 3: all locations have an id or none has; give each one an id"),
    ],
)
def test_a_wrong_csv_is_one_sentence_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"wrong\.csv") as raised:
        read_locations(path)
    assert str(raised.value).removeprefix(str(path)).lstrip(", ") == said


POINT = {"type": "Point", "coordinates": [1, 2]}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "is not GeoJSON"),
        ([], "locations are a FeatureCollection of points; got something else"),
        (POINT, "locations are a FeatureCollection of points; got a Point"),
        ({"type": "FeatureCollection"}, "holds no location"),
        (
            {"type": "FeatureCollection", "features": [{"geometry": POINT}, {"geometry": {"type": "Polygon"}}]},
            "feature 2: a location is a Point; got a Polygon",
        ),
        (
            {"type": "FeatureCollection", "features": [{"geometry": {"type": "Point", "coordinates": ["1", "x"]}}]},
            "feature 1: lat must be a number of degrees; got 'x'",
        ),
        (
            {"type": "FeatureCollection", "crs": {"properties": {"name": "urn:ogc:def:crs:EPSG::2154"}}},
            "locations are in degrees, WGS 84; got urn:ogc:def:crs:EPSG::2154; reproject the file",
        ),
        ({"type": "FeatureCollection", "features": [1]}, "feature 1: must be a Feature; got 1"),
        ({"type": "FeatureCollection", "features": {"a": 1}}, 'features must be a list; got {"a": 1}'),
        ({"type": "FeatureCollection", "crs": "x"}, 'the collection: crs must be an object; got "x"'),
        ({"type": "FeatureCollection", "crs": {"properties": [5]}}, "crs: properties must be an object; got [5]"),
        (
            {"type": "FeatureCollection", "crs": {"properties": {"name": ["x"]}}},
            "locations are in degrees, WGS 84; got ['x']; reproject the file",
        ),
        (
            {"type": "FeatureCollection", "features": [{"geometry": POINT}, {"geometry": 5}]},
            "feature 2: geometry must be an object; got 5",
        ),
        (
            {"type": "FeatureCollection", "features": [{"geometry": POINT, "properties": "x" * 80}]},
            f'feature 1: properties must be an object; got "{"x" * 56}...',
        ),
    ],
)
def test_a_wrong_geojson_is_one_sentence_with_its_feature(tmp_path: Path, document: object, said: str) -> None:
    path = tmp_path / "wrong.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(ValueError, match=r"wrong\.geojson") as raised:
        read_locations(path)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("geometry", "crs", "said"),
    [
        (shapely.box(1, 2, 3, 4), "EPSG:4326", "row 1: a location is a point; got another geometry or none"),
        (None, "EPSG:4326", "row 1: a location is a point; got another geometry or none"),
        (shapely.Point(7e5, 6e6), "EPSG:2154", "locations are in degrees, WGS 84; got another CRS; reproject the file"),
    ],
)
def test_a_wrong_geoparquet_is_one_sentence(
    tmp_path: Path, geometry: shapely.Geometry | None, crs: str, said: str
) -> None:
    path = tmp_path / "wrong.parquet"
    geopandas.GeoDataFrame(geometry=[geometry], crs=crs).to_parquet(path)
    with pytest.raises(ValueError, match=r"wrong\.parquet") as raised:
        read_locations(path)
    assert said in str(raised.value)


def test_parquet_without_geometries_is_named(tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"lon": [1.0], "lat": [2.0]}).to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(ValueError, match="is not GeoParquet: it names no column of geometries"):
        read_locations(tmp_path / "plain.parquet")
    (tmp_path / "text.parquet").write_text("lon,lat")
    with pytest.raises(ValueError, match=r"text\.parquet is not GeoParquet"):
        read_locations(tmp_path / "text.parquet")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_not_there_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"none.{suffix}"
    with pytest.raises(FileNotFoundError) as raised:
        read_locations(path)
    assert str(raised.value) == f"no file {path}"


@pytest.mark.parametrize("suffix", ["csv", "geojson"])
def test_what_is_not_utf_8_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"latin.{suffix}"
    path.write_bytes("id,lon,lat\nK\xf6ln,6.96,50.94\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"is not UTF-8 text; save it as ") as raised:
        read_locations(path)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_to_write_to_that_is_not_there_is_named_and_no_partial_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "nodir" / f"b.{suffix}"
    with pytest.raises(FileNotFoundError) as raised:
        write_locations(path, TWO)
    assert str(raised.value) == f"there is no folder {path.parent} to write b.{suffix} to; make it first"
    (tmp_path / f"folder.{suffix}").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder, and a file is to be written there"):
        write_locations(tmp_path / f"folder.{suffix}", TWO)
    assert list(tmp_path.rglob("*.partial")) == []


def test_a_place_that_cannot_be_written_is_named_without_the_partial_file(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 251}.csv"  # with the suffix of a partial file too long a name for any file system
    with pytest.raises(OSError, match=r"\.csv cannot be written: File name too long; write to another file") as raised:
        write_locations(path, TWO)
    assert "partial" not in str(raised.value)


def test_only_known_suffixes_are_locations(tmp_path: Path) -> None:
    assert is_location_file("a/b.CSV")
    assert not is_location_file("a/b.shp")
    for act in (lambda: read_locations("a.shp"), lambda: write_locations("a.shp", TWO)):
        with pytest.raises(ValueError, match=r"locations are in \.csv, \.geojson or \.parquet files; got a\.shp"):
            act()


def test_a_geoparquet_that_unpacks_without_end_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "farms.parquet"
    points = geopandas.GeoDataFrame({"id": ["x" * 10_000] * 1000}, geometry=[shapely.Point(3, 43)] * 1000, crs=4326)
    points.to_parquet(path)
    monkeypatch.setattr("sits_catalog.parquet_rows._LEAST", 2**22)
    with pytest.raises(ValueError, match=r"farms\.parquet unpacks to more than 100 times its size"):
        read_locations(path)
