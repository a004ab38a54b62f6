from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from sits_catalog.cube import IGNORE
from sits_catalog.parcel_source import ParcelSource
from sits_catalog.taxonomy import CropClass, Taxonomy
from sits_pipeline.geoparquet import write_geo_table
from sits_pipeline.parcels import (
    Flag,
    ParcelTable,
    content_sha256,
    known_area,
    parcel_bounds,
    parcels_table,
    read_area,
    read_parcels,
    select_near,
)
from sits_pipeline.parcels.files import open_vector
from sits_pipeline.parcels.keys import content_keys, source_keys
from sits_pipeline.parcels.repair import polygons, reproject
from sits_pipeline.plan.lattice import part_in_zone, project, snap, to_lonlat, zones_of

LEFT, TOP = 600_000, 4_900_020
EXTENT = GeoBox((120, 120), Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631")
AREA = to_lonlat(shapely.box(LEFT, TOP - 1200, LEFT + 1200, TOP), 32631)
CROPS = Taxonomy(
    id="test",
    classes=(
        CropClass(index=1, code="w", name="wheat", hcat="3301010100"),
        CropClass(index=2, code="v", name="vines", hcat="3303060000"),
    ),
    codes={"w": 1, "v": 2, "101": 1},
    ignore=frozenset({"x"}),
)

real = pytest.mark.skipif("SITS_DATA" not in os.environ, reason="SITS_DATA does not name the folder of real data")


def square(x: float, y: float, side: float = 100) -> shapely.Polygon:
    """A square whose upper-left corner is x metres right of and y metres below the cube's."""
    return shapely.box(LEFT + x, TOP - y - side, LEFT + x + side, TOP - y)


def write(path: Path, geometry: list[shapely.Geometry | None], crs: str = "EPSG:32631", **columns: object) -> str:
    frame = geopandas.GeoDataFrame(columns, geometry=geometry, crs=crs)
    if path.suffix == ".parquet":
        frame.to_parquet(path, write_covering_bbox=True, schema_version="1.1.0", row_group_size=2)
    else:
        frame.to_file(path, engine="pyogrio")
    return str(path)


def read(path: str, taxonomy: Taxonomy | None = CROPS, **source: str) -> ParcelTable:
    (table,) = read_parcels(ParcelSource(path=path, **source), path, taxonomy, area=AREA, extents=[EXTENT])  # type: ignore[arg-type]
    return table


def real_path(relative: str) -> str:
    return str(Path(os.environ["SITS_DATA"]) / relative)


# Formats, layers, columns


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb", "a.geojson", "a.parquet"])
def test_every_format_gives_the_same_parcels(tmp_path: Path, name: str) -> None:
    crs = "EPSG:4326" if name == "a.geojson" else "EPSG:32631"
    fields = [square(100, 100), square(300, 100), square(5000, 100)]
    if crs == "EPSG:4326":
        fields = [
            shapely.transform(f, Transformer.from_crs(32631, 4326, always_xy=True).transform, interleaved=False)
            for f in fields
        ]
    table = read(write(tmp_path / name, fields, crs, key=[7, 8, 9], crop=["w", "v", "w"]), id="key", code="crop")
    assert table.source_key.tolist() == ["7", "8"]
    assert table.parcels.parcel_id.tolist() == [1, 2]
    assert table.parcels.parcel_id.dtype == np.uint32
    assert table.parcels.crop_type.tolist() == [1, 2]
    assert table.crop_name.tolist() == ["wheat", "vines"]
    assert table.hcat_code.tolist() == ["3301010100", "3303060000"]
    assert table.area_ha == pytest.approx([1, 1], abs=1e-4)
    assert table.flags.tolist() == [0, 0]
    assert table.dropped == ()


def test_a_zipped_shapefile_in_a_folder_is_found(tmp_path: Path) -> None:
    write(tmp_path / "a.shp", [square(100, 100)], crop=["w"])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for part in tmp_path.glob("a.*"):
            if part.suffix != ".zip":
                archive.write(part, f"FR_2018/{part.name}")
    assert len(read(str(tmp_path / "a.zip"), code="crop")) == 1


def test_a_zip_of_two_files_asks_which(tmp_path: Path) -> None:
    write(tmp_path / "a.geojson", [square(100, 100)])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.geojson", "one.geojson")
        archive.write(tmp_path / "a.geojson", "two.geojson")
    with pytest.raises(
        ValueError, match=r"holds several vector files: one\.geojson, two\.geojson; name one under parcels: member"
    ):
        read(str(tmp_path / "a.zip"))


def test_several_layers_ask_for_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", [square(100, 100)])
    geopandas.GeoDataFrame(geometry=[square(300, 100)] * 2, crs=32631).to_file(path, layer="other", engine="pyogrio")
    with pytest.raises(ValueError, match=r"holds 2 layers with geometry \(a, other\); name the one .* parcels: layer"):
        read(path)
    assert len(read(path, layer="a")) == 1
    with pytest.raises(ValueError, match=r"has no layer 'b' with geometry; its layers are a, other"):
        read(path, layer="b")


@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet"])
def test_an_unknown_column_names_those_there_are(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [square(100, 100)], crop=["w"], ha=[1.0])
    with pytest.raises(ValueError, match=r"has no column 'culture' \(parcels: code\); it has crop, ha"):
        read(path, code="culture")


def test_a_missing_and_an_unreadable_file_are_one_sentence_each(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no parcels at .*nothing\.shp: there is no such file"):
        read(str(tmp_path / "nothing.shp"))
    for name in ("broken.gpkg", "broken.zip", "broken.parquet"):
        (tmp_path / name).write_bytes(b"this is no vector file")
        with pytest.raises(ValueError, match=rf"{name} cannot be read as"):
            read(str(tmp_path / name))


def test_plain_parquet_is_refused(tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="without the `geo` metadata"):
        read(str(tmp_path / "a.parquet"))


# CRS and place


def test_a_file_without_a_crs_needs_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.shp", [square(100, 100)])
    (tmp_path / "a.prj").unlink()
    with pytest.raises(ValueError, match=r"states no CRS.*name it in the region file under parcels: crs"):
        read(path)
    assert read(path, crs="EPSG:32631").notes == ()


def test_a_given_crs_never_overrides_a_stated_one(tmp_path: Path) -> None:
    table = read(write(tmp_path / "a.gpkg", [square(100, 100)]), crs="EPSG:2154")
    assert len(table) == 1
    assert "the EPSG:2154 of the region file was not used" in table.notes[0]


@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet"])
def test_parcels_elsewhere_say_where(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [square(50_000, 100)])
    with pytest.raises(
        ValueError, match=r"no parcel of .* within 110 m of the region: the parcels lie at longitude 4\.8"
    ):
        read(path)


def test_swapped_axes_are_recognised(tmp_path: Path) -> None:
    degrees = shapely.transform(
        square(100, 100), Transformer.from_crs(32631, 4326, always_xy=True).transform, interleaved=False
    )
    swapped = shapely.transform(degrees, lambda xy: xy[:, ::-1])
    with pytest.raises(ValueError, match="with x and y swapped they would meet"):
        read(write(tmp_path / "a.gpkg", [swapped], "EPSG:4326"))
    metres = shapely.transform(square(100, 100), lambda xy: xy[:, ::-1])
    with pytest.raises(ValueError, match="with x and y swapped they would meet"):
        read(write(tmp_path / "b.parquet", [metres]))


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no parcels at all"):
        read(write(tmp_path / "a.parquet", []))


def test_parcels_count_up_to_110_m_from_the_cube(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.gpkg", [square(-210, 0), square(-211, 0), square(1309, 0), square(0, 1311)], key=list("abcd")
    )
    table = read(path, id="key")
    assert table.source_key.tolist() == ["a", "c"]
    assert table.flags.tolist() == [Flag.OUTSIDE, Flag.OUTSIDE]


def test_straight_edges_stay_straight_on_the_ground() -> None:
    """A 20 km edge of Lambert-93 bends in UTM: its middle is where it would be on a map of the source."""
    field = shapely.box(700_000, 6_300_000, 720_000, 6_300_100)
    there = reproject(np.array([field], dtype=object), crs=CRS.from_epsg(2154), epsg=32631).geometry[0]
    middle = Transformer.from_crs(2154, 32631, always_xy=True).transform(710_010, 6_300_000)
    assert shapely.distance(there.boundary, shapely.Point(middle)) < 1e-3
    corners = shapely.transform(field, Transformer.from_crs(2154, 32631, always_xy=True).transform, interleaved=False)
    assert shapely.distance(corners.boundary, shapely.Point(middle)) > 0.3


def test_vertices_stay_as_they_are_without_a_change_of_crs(tmp_path: Path) -> None:
    field = square(100.123456, 100.654321, 500)
    table = read(write(tmp_path / "a.parquet", [field]))
    assert shapely.equals_identical(table.parcels.geometry[0], field)


def test_two_zones_share_numbers(tmp_path: Path) -> None:
    area = shapely.box(5.99, 45.0, 6.01, 45.01)
    extents = [snap(project(part_in_zone(area, epsg), epsg), epsg) for epsg in zones_of(area)]
    fields = [shapely.box(x, 45.004, x + 0.0005, 45.005) for x in (6.0095, 5.9905, 5.9998, 6.004)]
    path = write(tmp_path / "a.geojson", fields, "EPSG:4326", key=["c", "a", "b", "d"])
    west, east = read_parcels(ParcelSource(path=path, id="key"), path, CROPS, area=area, extents=extents)
    assert (west.parcels.epsg, east.parcels.epsg) == (32631, 32632)
    assert dict(zip(west.source_key, west.parcels.parcel_id, strict=True)) == {"a": 1, "b": 2}
    assert dict(zip(east.source_key, east.parcels.parcel_id, strict=True)) == {"b": 2, "c": 3, "d": 4}


# Geometry


def test_a_bow_tie_keeps_both_lobes() -> None:
    tie = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    result = polygons(np.array([tie], dtype=object))
    assert shapely.area(result.geometry[0]) == pytest.approx(5000)
    assert shapely.get_num_geometries(result.geometry[0]) == 2
    assert result.repaired.tolist() == [True]


def test_parts_that_overlap_keep_the_ground_they_share() -> None:
    pair = shapely.MultiPolygon([shapely.box(0, 0, 100, 100), shapely.box(50, 0, 150, 100)])
    assert shapely.area(polygons(np.array([pair], dtype=object)).geometry[0]) == pytest.approx(15_000)


def test_a_hole_that_sticks_out_stays_a_hole() -> None:
    shell, hole = shapely.box(0, 0, 100, 100), shapely.box(50, 50, 150, 60)
    field = shapely.Polygon(shell.exterior, [hole.exterior])
    assert shapely.area(polygons(np.array([field], dtype=object)).geometry[0]) == pytest.approx(9500)


def test_ground_that_a_ring_goes_around_twice_is_ground() -> None:
    twice = shapely.Polygon([(0, 0), (100, 0), (100, 100), (0, 100), (0, 0), (60, 0), (60, 60), (0, 60)])
    assert shapely.area(polygons(np.array([twice], dtype=object)).geometry[0]) == pytest.approx(10_000)


def test_height_and_collections_are_reduced_to_polygons() -> None:
    collection = shapely.GeometryCollection([shapely.box(0, 0, 10, 10), shapely.LineString([(0, 0), (50, 50)])])
    high = shapely.force_3d(shapely.box(0, 0, 10, 10), 7.0)
    result = polygons(np.array([collection, high], dtype=object))
    assert shapely.get_coordinate_dimension(result.geometry).tolist() == [2, 2]
    assert shapely.area(result.geometry).tolist() == [100, 100]
    assert result.reason.tolist() == [None, None]


def test_what_is_no_polygon_is_listed_with_a_reason(tmp_path: Path) -> None:
    bad = [
        square(100, 100),
        None,
        shapely.Point(LEFT + 50, TOP - 50),
        shapely.Polygon([(LEFT, TOP), (LEFT + 50, TOP), (LEFT + 100, TOP)]),
        shapely.Polygon(),
        shapely.transform(square(0, 0), lambda xy: np.where(xy == TOP, np.inf, xy)),
    ]
    table = read(write(tmp_path / "a.parquet", bad))
    assert len(table) == 1
    reasons = {lost.row: lost.reason for lost in table.dropped}
    assert reasons[1] == "it has no geometry"
    assert reasons[2] == "it is a Point, not a polygon"
    assert reasons[3] == "it has no area"
    assert reasons[4] == "its geometry is empty"
    assert reasons[5] == "its coordinates are not all numbers"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=9))
@settings(max_examples=100, deadline=None)
def test_whatever_is_drawn_comes_back_valid_and_covers_every_lobe(points: list[tuple[int, int]]) -> None:
    ring = shapely.Polygon(points)
    result = polygons(np.array([ring], dtype=object))
    if result.reason[0] is None:
        assert shapely.is_valid(result.geometry[0])
        assert result.geometry[0].geom_type in ("Polygon", "MultiPolygon")
        # Even-odd ground is a part of what is kept: nothing inside of a lobe is lost.
        lobes = shapely.make_valid(ring, method="linework")
        assert shapely.area(shapely.difference(lobes, result.geometry[0])) < 1e-9
        assert shapely.area(result.geometry[0]) <= shapely.area(shapely.convex_hull(ring)) + 1e-9
    else:
        assert shapely.area(shapely.make_valid(ring)) == 0


# Keys, codes, flags


def test_keys_are_ids_where_they_are_unique_and_content_where_not(tmp_path: Path) -> None:
    fields = [square(100, 100), square(300, 100), square(500, 100), square(700, 100), square(700, 100), square(9000, 0)]
    path = write(tmp_path / "a.gpkg", fields, key=[10.0, 20.0, 30.0, None, None, 20.0], crop=list("wvwwww"))
    table = read(path, id="key", code="crop")
    keys = dict(zip(table.parcels.source_row, table.source_key, strict=True))
    assert keys[1] == "10"
    assert keys[3] == "30"
    assert len(keys[2]) == 16  # 20 stands twice in the file, though only once near the cube
    assert keys[5] == f"{keys[4]}-2"
    assert table.source_key.tolist() == sorted(table.source_key)
    by_row = dict(zip(table.parcels.source_row, table.flags, strict=True))
    assert by_row[4] == Flag.OVERLAPS
    assert by_row[5] == Flag.OVERLAPS | Flag.DUPLICATE


def test_the_content_key_is_what_the_contract_says() -> None:
    field = shapely.Polygon([(10.0004, 0.0), (0, 0), (0, 10), (10.0004, 10)])
    (key,) = content_keys(np.array([field], dtype=object), np.array(["w"], dtype=object), crs=CRS.from_epsg(2154))
    rounded = shapely.Polygon([(10.0, 0.0), (0, 0), (0, 10), (10.0, 10)])
    assert key == hashlib.sha256(shapely.to_wkb(shapely.normalize(rounded), byte_order=1) + b"w").hexdigest()[:16]


@given(st.integers(0, 20), st.booleans())
def test_a_content_key_does_not_depend_on_where_a_ring_starts(turn: int, backwards: bool) -> None:
    ring = [(0.0, 0.0), (50.0, 0.0), (50.0, 20.0), (20.0, 40.0)]
    other = ring[turn % 4 :] + ring[: turn % 4]
    fields = np.array([shapely.Polygon(ring), shapely.Polygon(other[::-1] if backwards else other)], dtype=object)
    first, second = content_keys(fields, np.array([None, None]), crs=CRS.from_epsg(32631))
    assert first == second


def test_repeats_are_numbered_in_the_order_of_the_file() -> None:
    content = np.array(["h", "h", "g", "h"], dtype=object)
    assert source_keys(None, content, repeats=frozenset()).tolist() == ["h", "h-2", "g", "h-3"]


def test_numbers_and_keys_do_not_depend_on_the_part_that_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fields = [square(x, y, 80) for x, y in rng.uniform(0, 3000, (60, 2))]
    path = write(tmp_path / "a.gpkg", fields, key=rng.integers(0, 50, 60), crop=rng.choice(["w", "v"], 60))
    wide = GeoBox((300, 300), EXTENT.affine, "EPSG:32631")
    source = ParcelSource(path=path, id="key", code="crop")
    (small,) = read_parcels(source, path, None, area=AREA, extents=[EXTENT])
    (large,) = read_parcels(source, path, None, area=AREA, extents=[wide])
    of_row = dict(zip(large.parcels.source_row, large.source_key, strict=True))
    assert len(small) < len(large)
    assert [of_row[row] for row in small.parcels.source_row] == small.source_key.tolist()
    assert small.taxonomy == large.taxonomy


def test_codes_are_classified_and_unknown_ones_listed(tmp_path: Path) -> None:
    fields = [square(200 * i, 0) for i in range(6)]
    path = write(tmp_path / "a.gpkg", fields, key=list("abcdef"), crop=["w", "x", "zz", None, "zz", " v "])
    table = read(path, id="key", code="crop")
    assert table.parcels.crop_type.tolist() == [1, IGNORE, IGNORE, IGNORE, IGNORE, 2]
    assert table.unknown_codes == {"zz": 2}
    assert table.source_code.tolist() == ["w", "x", "zz", None, "zz", "v"]


def test_integral_floats_are_codes_without_a_point(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [square(0, 0), square(200, 0)], crop=[101.0, np.nan])
    assert read(path, code="crop").parcels.crop_type.tolist().count(1) == 1


def test_without_a_taxonomy_the_codes_of_the_whole_file_are_classes(tmp_path: Path) -> None:
    fields = [square(0, 0), square(200, 0), square(90_000, 0)]
    path = write(tmp_path / "a.gpkg", fields, key=list("abc"), crop=["m", "b", "c"])
    table = read(path, None, id="key", code="crop")
    assert table.parcels.crop_type.tolist() == [3, 1]


def test_a_column_of_names_goes_before_the_classes_names(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.gpkg", [square(0, 0), square(200, 0)], key=["a", "b"], crop=["w", "v"], label=["blé", None]
    )
    assert read(path, id="key", code="crop", name="label").crop_name.tolist() == ["blé", "vines"]


def test_flags_tell_multipart_overlap_repair_and_outside(tmp_path: Path) -> None:
    fields = [
        shapely.MultiPolygon([square(0, 0, 50), square(100, 0, 50)]),
        square(300, 0),
        square(399, 0),  # 1 m x 100 m shared with the one before
        square(600, 0),
        square(699.995, 0),  # half a square metre: no overlap worth a word
        shapely.Polygon([(LEFT + 900, TOP), (LEFT + 950, TOP - 50), (LEFT + 950, TOP), (LEFT + 900, TOP - 50)]),
        square(-105, 0),
    ]
    table = read(write(tmp_path / "a.gpkg", fields, key=list("abcdefg")), id="key")
    assert [Flag(int(bits)) for bits in table.flags] == [
        Flag.MULTIPART,
        Flag.OVERLAPS,
        Flag.OVERLAPS,
        Flag(0),
        Flag(0),
        Flag.INVALID_REPAIRED | Flag.MULTIPART,
        Flag.OUTSIDE,
    ]


# What is written


def test_the_table_is_geoparquet_with_the_contracts_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", [square(0, 0), square(50, 0)], key=["a", "b"], crop=["w", "zz"])
    table = read(path, id="key", code="crop")
    with (tmp_path / "parcels.parquet").open("wb") as file:
        write_geo_table(file, parcels_table(table, n_pixels=np.array([100, 0]), split=np.array([1, 4], np.uint8)))
    back = geopandas.read_parquet(tmp_path / "parcels.parquet")
    assert list(back.columns) == [
        "parcel_id", "source_key", "source_code", "crop_type", "crop_name", "hcat_code", "area_ha", "n_pixels", "split",
        "flags", "geometry",
    ]  # fmt: skip
    assert back.crs.to_epsg() == 32631
    assert back.parcel_id.dtype == np.uint32
    assert back.crop_type.tolist() == [1, IGNORE]
    assert back.crop_name.fillna("").tolist() == ["wheat", ""]
    assert back.split.tolist() == ["train", "buffer"]
    assert [list(words) for words in back["flags"]] == [["overlaps"], ["overlaps"]]
    assert back.n_pixels.tolist() == [100, 0]
    assert back.geometry.iloc[0].equals(square(0, 0))
    bounds = LEFT - 10, TOP - 100, LEFT + 20, TOP
    assert len(geopandas.read_parquet(tmp_path / "parcels.parquet", bbox=bounds)) == 1


def test_the_same_parcels_give_the_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", [square(0, 0), square(200, 0)], crop=["w", "v"])
    files = []
    for _ in range(2):
        file = io.BytesIO()
        table = read(path, code="crop")
        write_geo_table(file, parcels_table(table, n_pixels=np.zeros(2, int), split=np.ones(2, np.uint8)))
        files.append(file.getvalue())
    assert files[0] == files[1]
    assert set(pq.read_schema(io.BytesIO(files[0])).metadata) == {b"geo"}


def test_the_content_hash_follows_geometry_and_codes_but_not_the_path(tmp_path: Path) -> None:
    first = read(write(tmp_path / "a.gpkg", [square(0, 0), square(200, 0)], crop=["w", "v"]), code="crop")
    same = read(write(tmp_path / "b.parquet", [square(0, 0), square(200, 0)], crop=["w", "v"]), code="crop")
    moved = read(write(tmp_path / "c.gpkg", [square(0, 0), square(201, 0)], crop=["w", "v"]), code="crop")
    recoded = read(write(tmp_path / "d.gpkg", [square(0, 0), square(200, 0)], crop=["w", "w"]), code="crop")
    assert content_sha256([first]) == content_sha256([same])
    assert len({content_sha256([table]) for table in (first, moved, recoded)}) == 3


def test_a_cell_gets_the_parcels_within_110_m_in_the_order_of_ids(tmp_path: Path) -> None:
    fields = [square(600, 0), square(0, 0), square(209, 0), square(211, 0)]
    parcels = read(write(tmp_path / "a.gpkg", fields, key=list("abcd")), id="key").parcels
    cell = GeoBox((10, 10), EXTENT.affine, "EPSG:32631")
    assert select_near(parcels, shapely.STRtree(parcels.geometry), cell).parcel_id.tolist() == [2, 3]


# Areas


def test_the_known_area_is_the_region_nothing_or_a_file_cut_to_the_region(tmp_path: Path) -> None:
    region = square(0, 0, 1200)
    path = write(tmp_path / "known.gpkg", [square(-100, 0, 200), square(50, 0, 100)])
    assert known_area("region", path=None, region=region, epsg=32631) is region
    assert known_area("parcels", path=None, region=region, epsg=32631) is None
    known = known_area("known.gpkg", path=path, region=region, epsg=32631)
    assert known is not None
    # 0..100 x 0..200 and 100..150 x 0..100
    assert shapely.area(known) == pytest.approx(25_000)
    with pytest.raises(ValueError, match="holds no polygon"):
        read_area(write(tmp_path / "points.gpkg", [shapely.Point(LEFT, TOP)]), epsg=32631)


# Real files


def tables_of(relative: str, **source: str) -> list[ParcelTable]:
    """All parcels of a real file, as a region around them."""
    path = real_path(relative)
    parcels = ParcelSource(path=path, **source)  # type: ignore[arg-type]
    area = shapely.box(*parcel_bounds(parcels, path))
    extents = [snap(project(part_in_zone(area, epsg), epsg), epsg) for epsg in zones_of(area)]
    return list(read_parcels(parcels, path, None, area=area, extents=extents))


@real
def test_the_lambert_93_parcels_of_the_herault(tmp_path: Path) -> None:
    (table,) = tables_of("t31tej/parcels/france_data_2018.shp", code="EC_hcat_n")
    assert len(table) == 120
    assert table.parcels.epsg == 32631
    assert table.area_ha.sum() == pytest.approx(160.7, abs=0.1)
    assert len(table.taxonomy.classes) == 8
    assert np.bincount(table.parcels.crop_type)[1:].tolist() == [12, 6, 9, 10, 1, 62, 6, 14]
    assert all(len(key) == 16 for key in table.source_key)
    assert not (table.flags & ~np.uint8(Flag.MULTIPART)).any()


@pytest.mark.slow
@real
@pytest.mark.parametrize(
    ("relative", "n", "source"),
    [
        ("parcels/national/be_wal/LU_ExistingLandUse_SIGEC2022.gml.zip", 10, {"layer": "ExistingLandUseObject"}),
        ("parcels/national/de_sh/Feldbloecke_2026_GPKG.zip", 100, {"id": "FLIK", "code": "HBN"}),
        ("parcels/national/ec_lv/LV_2021.zip", 100, {"code": "EC_hcat_c"}),
        ("parcels/national/es_cat/Cultius_DUN2023_GPKG.zip", 100, {"code": "cultiu"}),
        ("parcels/national/nl/brpgewaspercelen_definitief_2023.gpkg", 100, {"id": "id", "code": "gewascode"}),
        ("parcels/national/pt/Continente.gpkg", 100, {"layer": "Culturas_Aveiro", "code": "CUL_CODIGO"}),
        ("parcels/national/us_ca_scm/i15_crop_mapping_2023_provisional_20241127.gdb.zip", 100, {"code": "MAIN_CROP"}),
        ("parcels/national/us_usda_cropland/NationalCSB_2017-2024_rev23.zip", 100, {"code": "CDL2024"}),
        ("parcels/national/jp/jp_field_polygons_2024.parquet", 100, {"id": "polygon_uuid", "code": "land_type"}),
        ("parcels/fiboa/dk_2024_fiboa_0_2.parquet", 100, {"id": "id", "code": "crop:code", "name": "crop:name"}),
        ("parcels/national/cz/GEOPROSTOR_ZADOSTI23_2024-08-01.zip", 100, {"code": "PLODINA_ID", "name": "PLOD_NAZE"}),
        ("parcels/national/nz/irrigated-land-area-raw-2020-update.zip", 100, {"code": "type"}),
        ("parcels/malawi_extraction_polygons.gpkg", 287, {"code": "croptype"}),
    ],
)
def test_national_files_are_read_whole(relative: str, n: int, source: dict[str, str]) -> None:
    tables = tables_of(relative, **source)
    ids = {int(number) for table in tables for number in table.parcels.parcel_id}
    assert ids == set(range(1, n + 1))
    for table in tables:
        assert table.dropped == ()
        assert shapely.is_valid(table.parcels.geometry).all()
        assert (shapely.get_coordinate_dimension(table.parcels.geometry) == 2).all()
        assert "code" not in source or (table.parcels.crop_type != IGNORE).any()


@real
def test_a_gml_file_is_read_without_leaving_a_file_beside_it(tmp_path: Path) -> None:
    shutil.copyfile(real_path("parcels/national/lv/1_100.xml"), tmp_path / "lv.xml")
    layer = open_vector(str(tmp_path / "lv.xml"), layer=None, crs=None, encoding=None)
    assert layer.n_rows == 100
    assert [path.name for path in tmp_path.iterdir()] == ["lv.xml"]


@pytest.mark.slow
@real
def test_the_four_invalid_american_fields_are_repaired() -> None:
    tables = tables_of("parcels/national/us_usda_cropland/NationalCSB_2017-2024_rev23.zip")
    assert sum(int((table.flags & Flag.INVALID_REPAIRED > 0).sum()) for table in tables) == 4
