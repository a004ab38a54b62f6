"""Parcels and areas that somebody drew, or wrote, to do harm: none of them takes for ever, or all memory."""

from __future__ import annotations

import json
import math
import sqlite3
import struct
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.parcels import ParcelTable, read_parcels
from sits_pipeline.parcels.areas import read_area
from sits_pipeline.parcels.columns import code_pattern
from sits_pipeline.parcels.depth import check_depth
from sits_pipeline.parcels.flags import flags_of
from sits_pipeline.parcels.repair import polygons, reproject
from sits_pipeline.parcels.table import Flag
from sits_pipeline.plan.lattice import to_lonlat
from sits_pipeline.steps import tangles
from sits_pipeline.steps.tangles import check_area, too_tangled

EPSG = 32631
EXTENT = GeoBox((1200, 1200), Affine(10, 0, 500_040, 0, -10, 4_900_020), f"EPSG:{EPSG}")
AREA = to_lonlat(shapely.box(*EXTENT.boundingbox.bbox), EPSG)
FIELD = shapely.box(505_000, 4_893_000, 505_100, 4_893_100)
GOOD = shapely.to_wkb(FIELD)
GEO = {"encoding": "WKB", "geometry_types": [], "crs": CRS.from_epsg(EPSG).to_json_dict()}


def objects(*geometry: shapely.Geometry) -> NDArray[np.object_]:
    return np.array(geometry, dtype=object)


def geoparquet(path: Path, wkb: Sequence[bytes | None], *, codes: Sequence[str] | None = None, **geo: Any) -> Path:
    """A file with these geometries, whatever they are."""
    columns = {
        "key": [f"k{number}" for number in range(len(wkb))],
        "crop": list(codes or ["a"] * len(wkb)),
        "geometry": pa.array(wkb, pa.binary()),
    }
    said = json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": {**GEO, **geo}}})
    pq.write_table(pa.table(columns, metadata={"geo": said}), path)
    return path


def read(path: Path | str, **source: Any) -> ParcelTable:
    (table,) = read_parcels(
        ParcelSource(path=str(path), id="key", code="crop", **source), str(path), None, area=AREA, extents=[EXTENT]
    )
    return table


def reasons(path: Path) -> list[str]:
    return [lost.reason for lost in read(path).dropped]


def ring(*points: tuple[float, float]) -> bytes:
    """WKB of a polygon of one ring, as it is."""
    return struct.pack("<BIII", 1, 3, 1, len(points)) + b"".join(struct.pack("<dd", *point) for point in points)


def comb(teeth: int, *, upright: bool) -> shapely.Geometry:
    """A valid polygon whose teeth reach over 5 km."""
    step = 5000 / teeth
    points = [(-10.0, 0.0)]
    for tooth in range(teeth):
        points += [(0, tooth * step), (5000, tooth * step), (5000, (tooth + 0.5) * step), (0, (tooth + 0.5) * step)]
    xy = np.array([*points, (-10, 5000)])
    return shapely.Polygon((xy[:, ::-1] if upright else xy) + [502_000, 4_890_000])


def star(corners: int) -> shapely.Geometry:
    """Corners at random, so that about a quarter of all pairs of edges cross."""
    return shapely.Polygon(np.random.default_rng(1).random((corners, 2)) * 5000 + [502_000, 4_890_000])


# WKB


def test_broken_wkb_is_a_row_that_is_listed(tmp_path: Path) -> None:
    lies = [struct.pack("<BII", 1, kind, 2**31) for kind in (2, 3, 6, 7)]
    path = geoparquet(tmp_path / "a.parquet", [GOOD, *lies, GOOD[:40], GOOD[:1], b"", None])
    assert reasons(path) == ["it has no geometry"] * 8
    assert len(read(path)) == 1


def test_coordinates_that_are_no_numbers_or_beyond_the_earth_are_listed(tmp_path: Path) -> None:
    far = [shapely.to_wkb(shapely.box(-side, -side, side, side)) for side in (1e308, 1e12, 1e9)]
    nan = ring((math.nan, math.nan), (505_100, 4_893_000), (505_100, 4_893_100), (math.nan, math.nan))
    inf = ring((math.inf, 0), (505_100, 4_893_000), (505_100, 4_893_100), (math.inf, 0))
    path = geoparquet(tmp_path / "a.parquet", [GOOD, nan, inf, *far])
    lost = reasons(path)
    assert len(lost) == 5
    assert lost.count("its coordinates lie beyond the Earth") == 3
    assert set(lost[:2]) <= {"its coordinates are not all numbers", "it has no geometry"}
    assert len(read(path)) == 1


def test_collections_in_collections_are_no_geometry_beyond_64(tmp_path: Path) -> None:
    nested = struct.pack("<BII", 1, 7, 1) * 300_000 + GOOD
    assert reasons(geoparquet(tmp_path / "a.parquet", [GOOD, nested])) == ["it has no geometry"]


@settings(max_examples=4)
@given(at=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_changed_bytes_of_a_polygon_are_a_parcel_or_a_reason(at: list[tuple[int, int]]) -> None:
    _any_bytes(bytearray(GOOD), at)


@pytest.mark.soak
@settings(max_examples=400, deadline=60_000)
@given(data=st.data())
def test_many_changed_bytes_of_polygons_are_parcels_or_reasons(data: st.DataObject) -> None:
    shapes = [
        FIELD,
        star(8),
        shapely.MultiPolygon([FIELD, shapely.affinity.translate(FIELD, 50, 50)]),
        comb(9, upright=True),
    ]
    whole = bytearray(shapely.to_wkb(data.draw(st.sampled_from(shapes))))
    places = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))
    _any_bytes(whole, data.draw(st.lists(places, min_size=1, max_size=12)))


def _any_bytes(whole: bytearray, at: list[tuple[int, int]]) -> None:
    from sits_pipeline.parcels.features import geometry_of

    for place, value in at:
        whole[place] = value
    found = polygons(geometry_of(objects(bytes(whole), GOOD)))
    there = reproject(found.geometry[found.reason == None], crs=CRS.from_epsg(EPSG), epsg=32632)  # noqa: E711
    assert (shapely.is_missing(found.geometry) == (found.reason != None)).all()  # noqa: E711
    assert shapely.is_valid(there.geometry[~shapely.is_missing(there.geometry)]).all()
    flags_of(
        there.geometry[~shapely.is_missing(there.geometry)],
        repaired=there.repaired[~shapely.is_missing(there.geometry)],
        content=np.arange(int((~shapely.is_missing(there.geometry)).sum())).astype(str),
        area=shapely.box(0, 0, 1, 1),
    )


# Lines that cross and parcels that lie on one another


def test_what_crosses_itself_too_often_is_not_repaired() -> None:
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    found = polygons(objects(FIELD, bow, star(300), shapely.GeometryCollection([star(300)])))
    often = "its lines cross or touch one another in more than 1000 places"
    assert found.reason.tolist() == [None, None, often, often]
    assert shapely.area(found.geometry[1]) == 50


def test_a_fan_of_lines_through_one_point_and_a_stack_of_parts_are_not_repaired() -> None:
    turns = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    fan = [point for angle in turns for point in ((0.0, 0.0), (math.cos(angle), math.sin(angle)))]
    stack = shapely.MultiPolygon([shapely.box(0, 0, 1, 1)] * 500)
    nested = shapely.GeometryCollection([shapely.GeometryCollection([shapely.MultiPolygon([star(300)])])])
    for tangled in (shapely.Polygon(fan), stack, nested):
        assert "more than 1000 places" in str(too_tangled(tangled))


def test_neighbours_that_share_edges_are_not_tangled() -> None:
    parts = [shapely.box(x, y, x + 1, y + 1) for x in range(20) for y in range(20)]
    assert too_tangled(shapely.MultiPolygon(parts)) is None
    assert shapely.area(polygons(objects(shapely.MultiPolygon(parts))).geometry[0]) == 400


def test_a_valid_polygon_of_a_million_corners_is_read_and_an_invalid_one_listed() -> None:
    turns = np.linspace(0, 2 * np.pi, 1_000_000, endpoint=False)
    circle = np.column_stack([505_000 + 2000 * np.cos(turns), 4_893_000 + 2000 * np.sin(turns)])
    twisted = circle.copy()
    twisted[[5, 9]] = twisted[[9, 5]]
    found = polygons(objects(shapely.Polygon(circle), shapely.Polygon(twisted)))
    assert found.reason[0] is None
    assert found.reason[1] == "it is no valid polygon and has 1000001 vertices, more than the 20000 that are repaired"


def test_combs_across_one_another_are_named() -> None:
    combs = objects(comb(300, upright=False), comb(300, upright=True))
    with pytest.raises(
        ValueError, match=r"two parcels around 501990, 4890000, of 1203 and 1203 vertices, cross one an"
    ):
        flags_of(combs, repaired=np.zeros(2, bool), content=np.array(["a", "b"]), area=combs[0])


def test_overlaps_are_those_of_every_pair() -> None:
    at = np.random.default_rng(2).integers(0, 60, (400, 2)) * 10
    fields = objects(*(shapely.box(x, y, x + 12 + number % 9, y + 11) for number, (x, y) in enumerate(at.tolist())))
    expected = [
        any(other is not one and shapely.area(shapely.intersection(one, other)) > 1 for other in fields)
        for one in fields
    ]
    flags = flags_of(
        fields, repaired=np.zeros(400, bool), content=np.arange(400).astype(str), area=shapely.box(0, 0, 1, 1)
    )
    assert ((flags & Flag.OVERLAPS) > 0).tolist() == expected
    assert 20 < sum(expected) < 400


@pytest.mark.parametrize(("side", "n"), [(3000, 2000), (100, 200)])
def test_parcels_that_lie_too_deep_on_one_another_are_refused_with_the_place(side: int, n: int) -> None:
    corner = np.array([505_000, 4_893_000]) + np.random.default_rng(0).random((n, 1)) * 40
    stack = objects(*(shapely.box(x, y, x + side, y + side) for x, y in corner.tolist()))
    with pytest.raises(
        ValueError, match=r"^a\.gpkg: around 50\d+, 489\d+ \(EPSG:32631\) \d+ parcels lie on one another"
    ):
        check_depth(stack, EXTENT, "a.gpkg")


def test_a_landscape_of_some_layers_is_not_too_deep() -> None:
    squares = [
        shapely.box(x, y, x + 50, y + 50) for x in range(501_000, 504_000, 50) for y in range(4_890_000, 4_892_000, 50)
    ]
    country = shapely.box(0, 4_000_000, 900_000, 5_500_000)
    check_depth(objects(*squares * 4, *[country] * 5), EXTENT, "a.gpkg")
    check_depth(objects(), EXTENT, "a.gpkg")


def test_an_edge_around_the_earth_is_not_cut_into_pieces_of_50_m() -> None:
    boxes = objects(shapely.box(3, 43, 3.1, 43.1), shapely.box(-179, -89, 179, 89), shapely.box(-1e9, -1e9, 1e9, 1e9))
    found = reproject(boxes, crs=CRS.from_epsg(4326), epsg=EPSG)
    assert found.reason.tolist() == [None] + ["its edges are longer than a line around the Earth"] * 2


def test_a_parcel_the_size_of_a_country_is_read() -> None:
    found = reproject(objects(shapely.box(-4, 42, 8, 51)), crs=CRS.from_epsg(4326), epsg=EPSG)
    assert found.reason[0] is None
    assert 8e11 < shapely.area(found.geometry[0]) < 1e12


def test_areas_that_cannot_be_united_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [shapely.box(3 + number * 1e-6, 44, 3.002 + number * 1e-6, 44.002) for number in range(400)]
    geopandas.GeoDataFrame(geometry=many, crs=4326).to_parquet(tmp_path / "area.parquet")
    with pytest.raises(ValueError, match=r"area\.parquet lie on one another too often to be united"):
        read_area(str(tmp_path / "area.parquet"), epsg=EPSG)
    monkeypatch.setattr(tangles, "_AREA_VERTICES", 100)
    with pytest.raises(ValueError, match=r"a\.gpkg have 129 vertices, more than the 100 of an area"):
        check_area(objects(shapely.Point(0, 0).buffer(1, quad_segs=32)), "a.gpkg")


# What else stands in files


@pytest.mark.parametrize("crs", ["EPSG:5773", 'LOCAL_CS["workshop",UNIT["m",1]]', "+proj=longlat +R=3396190 +type=crs"])
def test_a_crs_that_is_not_of_the_ground_is_one_sentence(tmp_path: Path, crs: str) -> None:
    with pytest.raises(ValueError, match=r"a\.parquet has the CRS .*, in which nothing has a longitude and a latitude"):
        read(geoparquet(tmp_path / "a.parquet", [GOOD], crs=crs))


def test_geo_metadata_that_nest_and_columns_that_are_no_wkb_are_one_sentence(tmp_path: Path) -> None:
    table = pa.table({"key": ["a"], "crop": ["b"], "geometry": [1]})
    pq.write_table(table.replace_schema_metadata({"geo": "[" * 100_000}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="RecursionError"):
        read(tmp_path / "a.parquet")
    said = json.dumps({"primary_column": "geometry", "columns": {"geometry": GEO}})
    pq.write_table(table.replace_schema_metadata({"geo": said}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"its column 'geometry' should hold geometry as WKB; it holds int64"):
        read(tmp_path / "b.parquet")


def test_a_crop_code_of_a_page_is_no_code() -> None:
    with pytest.raises(ValueError, match=r"a crop code has 5000 characters \('xxx.*more than 300"):
        Taxonomy.from_codes(["a", "x" * 5000])


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "((a|b))*c", "(a|a){50}", r"(\w+\s?)*$", "(.*)(.*)(.*)(.*)(.*)", "((a?){9}){9}"]
)
def test_a_pattern_that_may_run_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="may take for ever"):
        code_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", [r"^0*(\d+)$", " - (.+)$", "(a|b)", r"([*+]+)\)+", "(ab)+", "(.*?),(.*)", "(?:a(b+))?"]
)
def test_plain_patterns_are_taken(pattern: str) -> None:
    assert code_pattern(pattern).regex is not None


def geopackage(path: Path, *statements: str) -> Path:
    """A file with one layer of one parcel, after some statements of SQL."""
    fields = geopandas.GeoDataFrame({"key": ["a"], "crop": ["b"]}, geometry=[FIELD], crs=EPSG)
    fields.to_file(path, driver="GPKG", layer="fields", engine="pyogrio")
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)
    return path


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["fields", "gpkg_contents"])
def test_a_layer_that_a_query_computes_is_not_read(tmp_path: Path, name: str, packed: bool) -> None:
    view = f"CREATE VIEW {name} AS {ENDLESS} SELECT kept.* FROM kept, n"
    path = geopackage(tmp_path / "a.gpkg", f"ALTER TABLE {name} RENAME TO kept", view)
    if packed:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(path, "a.gpkg")
        path = tmp_path / "a.zip"
    with pytest.raises(ValueError, match=f"holds '{name}' as a view, whose rows a query computes"):
        read(path)


@pytest.mark.parametrize("listed", [True, False])
def test_a_view_of_any_other_database_is_not_read(tmp_path: Path, listed: bool) -> None:
    """GDAL makes a layer of each view of a database that is no GeoPackage."""
    path = tmp_path / "a.sqlite"
    geopandas.GeoDataFrame({"key": ["a"], "crop": ["b"]}, geometry=[FIELD], crs=EPSG).to_file(
        path, driver="SQLite", layer="fields", engine="pyogrio"
    )
    assert len(read(path, layer="fields")) == 1
    with closing(sqlite3.connect(path)) as database, database:
        if listed:
            database.execute("ALTER TABLE fields RENAME TO kept")
            database.execute(f"CREATE VIEW fields AS {ENDLESS} SELECT kept.* FROM kept, n")
        else:
            database.execute(f"CREATE VIEW other AS {ENDLESS} SELECT count(*) AS x FROM n")
    with pytest.raises(ValueError, match=r"holds '(fields|other)' as a view"):
        read(path, layer="fields")


def test_triggers_and_views_of_other_names_do_no_harm(tmp_path: Path) -> None:
    trigger = "CREATE TRIGGER wipe AFTER INSERT ON fields BEGIN DELETE FROM fields; END"
    path = geopackage(tmp_path / "a.gpkg", trigger, f"CREATE VIEW mine AS {ENDLESS} SELECT x FROM n")
    before = path.read_bytes()
    assert len(read(path)) == 1
    assert path.read_bytes() == before


def test_a_damaged_database_is_one_sentence(tmp_path: Path) -> None:
    path = geopackage(tmp_path / "a.gpkg")
    whole = path.read_bytes()
    for seed in range(6):
        random = np.random.default_rng(seed)
        damaged = bytearray(whole)
        for place in random.integers(100, len(whole), 200):
            damaged[place] = int(random.integers(0, 256))
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.gpkg"):
            read(path)


def test_a_zip_of_too_many_files_is_refused_before_they_are_listed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.shp", "")
    whole = bytearray((tmp_path / "a.zip").read_bytes())
    struct.pack_into("<I", whole, whole.rindex(b"PK\x05\x06") + 12, 1 << 30)
    (tmp_path / "a.zip").write_bytes(whole)
    with pytest.raises(ValueError, match=r"a\.zip has a list of names of 1074 MB, more than 17 MB"):
        read(tmp_path / "a.zip")


def test_entities_of_xml_are_neither_fetched_nor_multiplied(tmp_path: Path) -> None:
    path, secret = tmp_path / "a.gml", tmp_path / "secret.txt"
    secret.write_text("a secret")
    geopandas.GeoDataFrame({"key": ["a"], "crop": ["b"]}, geometry=[FIELD], crs=EPSG).to_file(path, engine="pyogrio")
    path.with_suffix(".xsd").unlink()
    head, _, body = path.read_text().partition("?>")
    outside = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret.as_uri()}">]>'
    path.write_text(f"{head}?>{outside}{body.replace('>a<', '>k&e;<')}")
    assert "secret" not in "".join(map(str, read(path).source_key))
    inside = "".join(f'<!ENTITY {name} "{f"&{of};" * 10}">' for of, name in zip("abcdefgh", "bcdefghi", strict=True))
    path.write_text(f'{head}?><!DOCTYPE x [<!ENTITY a "{"x" * 10}">{inside}]>{body.replace(">a<", ">&i;<")}')
    with pytest.raises(ValueError, match=r"a\.gml breaks off or is damaged.*amplification"):
        read(path)
