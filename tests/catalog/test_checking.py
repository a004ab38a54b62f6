from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.synthetic import Synthetic

from sits_catalog.cube import ARRAYS, check

JsonObject = dict[str, Any]
_ROOT = "cube.zarr/zarr.json"


@pytest.fixture
def dataset(synthetic: Synthetic, tmp_path: Path) -> Path:
    """A copy that a test may break, without pixels: nothing here reads any."""
    return Path(shutil.copytree(synthetic.folder.path, tmp_path / "tiny", ignore=pixels_of))


def pixels_of(folder: str, names: list[str]) -> list[str]:
    return ["c"] if "c" in names and Path(folder).name in ARRAYS else []


def edit(path: Path, change: Callable[[JsonObject], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_dataset_as_the_writers_make_it_has_no_finding(synthetic: Synthetic) -> None:
    assert check(synthetic.folder.path) == []


def test_it_reads_no_pixel(dataset: Path) -> None:
    assert not list((dataset / "cube.zarr/reflectance").glob("c/**/*"))
    assert check(dataset) == []


def test_no_dataset_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"it has no cube\.zarr/zarr\.json"):
        check(tmp_path)


ATTRIBUTES: list[tuple[str, Callable[[JsonObject], None], str]] = [
    ("version", lambda a: a["sits_cube"].update(version="0.9"), "was written as sits-cube 0.9"),
    ("profile", lambda a: a["sits_cube"].update(profile="patches"), "the grid cannot be understood"),
    ("strange profile", lambda a: a["sits_cube"].update(profile="odd"), "profile 'odd' is none of region, patches"),
    ("no sits_cube", lambda a: a.pop("sits_cube"), "the attribute sits_cube is missing"),
    ("type", lambda a: a["sits_cube"].update(complete="yes"), "complete: should be bool, got 'yes'"),
    ("radiometry", lambda a: a["sits_cube"]["radiometry"].pop("clamp"), "radiometry.clamp: missing"),
    ("season", lambda a: a["sits_cube"]["season"].update(start="2023-01-01"), "after it ends on 2022-09-30"),
    ("hash", lambda a: a["sits_cube"].update(config_sha256="12"), "is no SHA-256"),
    ("crs", lambda a: a.update({"proj:code": "EPSG:2154"}), "should be a WGS 84 / UTM zone, got 'EPSG:2154'"),
    ("bands", lambda a: a.update(band_names=["B10"]), "band_names should list bands"),
    ("x lattice", lambda a: a["spatial:transform"].__setitem__(2, 525010.0), "is not on the lattice"),
    ("y lattice", lambda a: a["spatial:transform"].__setitem__(5, 5394010.0), "is not on the lattice"),
    ("pixel", lambda a: a["spatial:transform"].__setitem__(0, 20.0), "pixels should be 10 m, north up"),
    ("extent", lambda a: a["spatial:shape"].__setitem__(0, 541), "must be a multiple of 60 m"),
    ("bbox", lambda a: a["spatial:bbox"].__setitem__(0, 0.0), "spatial:bbox should be"),
    ("registration", lambda a: a.update({"spatial:registration": "node"}), "spatial:registration should be 'pixel'"),
    ("convention", lambda a: a["zarr_conventions"].pop(), "should list 'spatial:' with uuid 689b58e2"),
    ("cf", lambda a: a.pop("Conventions"), "Conventions should name the CF version"),
    ("transform", lambda a: a.update({"spatial:transform": "no"}), "the grid cannot be understood"),
]


@pytest.mark.parametrize(("change", "sentence"), [c[1:] for c in ATTRIBUTES], ids=[c[0] for c in ATTRIBUTES])
def test_a_broken_root_attribute_is_named(dataset: Path, change: Callable[[JsonObject], None], sentence: str) -> None:
    edit(dataset / _ROOT, lambda node: change(node["attributes"]))
    assert any(sentence in finding for finding in check(dataset)), check(dataset)


def _codecs(node: JsonObject) -> list[JsonObject]:
    return node["codecs"][0]["configuration"]["codecs"]  # type: ignore[no-any-return]


NODES: list[tuple[str, Callable[[JsonObject], None], str]] = [
    ("reflectance", lambda n: n.update(data_type="int16"), "data_type should be 'uint16', got 'int16'"),
    ("reflectance", lambda n: n.update(fill_value=1), "fill_value should be 0, got 1"),
    ("quality", lambda n: n.update(dimension_names=["time", "x", "y"]), "dimension_names should be"),
    ("scl", lambda n: n["shape"].__setitem__(0, 9), "shape should be [4, 540, 576]"),
    ("coverage", lambda n: n["chunk_grid"]["configuration"].update(chunk_shape=[64, 64]), "a shard should be"),
    ("conflict", lambda n: n["codecs"][0]["configuration"].update(chunk_shape=[32, 32]), "an inner chunk should be"),
    ("split", lambda n: n.update(codecs=[{"name": "bytes"}]), "codecs should be sharding_indexed alone"),
    ("parcel_id", lambda n: _codecs(n)[1]["configuration"].update(shuffle="shuffle"), "blosc with zstd and bitshuffle"),
    ("crop_type", lambda n: n["codecs"][0]["configuration"].update(index_codecs=[]), "should end with crc32c"),
    ("quality", lambda n: n["attributes"].update(_FillValue=0), "has _FillValue, which makes xarray"),
    ("quality", lambda n: n["attributes"]["flag_masks"].pop(), "flag_masks should be"),
    ("split", lambda n: n["attributes"].update(flag_meanings="a b"), "flag_meanings should be"),
    ("reflectance", lambda n: n["attributes"].pop("scale_factor"), "scale_factor should be 0.0001, got None"),
    ("reflectance", lambda n: n["attributes"].pop("grid_mapping"), "grid_mapping should be 'spatial_ref'"),
    ("reflectance", lambda n: n["attributes"].update({"proj:code": "EPSG:4326"}), "proj:code should be 'EPSG:32631'"),
    ("crop_type", lambda n: n["attributes"].pop("classes"), "the class table `classes` is missing"),
    ("crop_type", lambda n: n["attributes"]["classes"][0].update(index=65535), "should be distinct and in 1..65534"),
    ("crop_type", lambda n: n["attributes"]["classes"][0].update(colour="red"), "should look like #1a2b3c, got 'red'"),
    ("overview/reflectance", lambda n: n["shape"].__setitem__(2, 67), "shape should be [4, 4, 68, 72]"),
    ("labels_x2/crop_type", lambda n: n["shape"].__setitem__(0, 540), "shape should be [1080, 1152]"),
    ("labels_x2", lambda n: n["attributes"]["spatial:transform"].__setitem__(0, 10.0), "spatial:transform should be"),
    ("time", lambda n: n["attributes"].update(units="days since 2000-01-01"), "should be 'days since 1970"),
    ("x", lambda n: n.update(data_type="float32"), "data_type should be 'float64'"),
    ("spatial_ref", lambda n: n["attributes"].update(GeoTransform="525005 10 0 0 0 -10"), "GeoTransform should be"),
    ("spatial_ref", lambda n: n["attributes"].update(crs_wkt="", spatial_ref=""), "should be that of EPSG:32631"),
    ("band", lambda n: n.update(shape=[3]), "shape should be [4], got [3]"),
    ("quality", lambda n: n.pop("codecs"), "cannot be understood (KeyError"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "change", "sentence"), NODES, ids=[f"{n[0]}: {n[2][:30]}" for n in NODES])
def test_a_broken_node_is_named(dataset: Path, node: str, change: Callable[[JsonObject], None], sentence: str) -> None:
    edit(dataset / "cube.zarr" / node / "zarr.json", change)
    findings = check(dataset)
    assert any(node in finding and sentence in finding for finding in findings), findings


def test_coordinates_are_pixel_centres(dataset: Path) -> None:
    path = dataset / "cube.zarr/x/c/0"
    corners = np.frombuffer(path.read_bytes(), "<f8") - 5
    path.write_bytes(corners.tobytes())
    assert check(dataset) == [
        "cube.zarr/x: should hold pixel centres, ascending by 10 m; value 0 is np.float64(525000.0), "
        "expected np.float64(525005.0)"
    ]


def test_y_descends(dataset: Path) -> None:
    path = dataset / "cube.zarr/y/c/0"
    path.write_bytes(np.frombuffer(path.read_bytes(), "<f8")[::-1].tobytes())
    assert any("cube.zarr/y: should hold pixel centres, descending by 10 m" in finding for finding in check(dataset))


def test_days_ascend_and_lie_in_the_season(dataset: Path) -> None:
    path = dataset / "cube.zarr/time/c/0"
    days = np.frombuffer(path.read_bytes(), "<i4").copy()
    days[1] = days[0]
    path.write_bytes(days.tobytes())
    assert any("cube.zarr/time: the days should ascend" in finding for finding in check(dataset))
    days[1] = 0
    path.write_bytes(days.tobytes())
    assert any("1970-01-01 lie outside of the season" in finding for finding in check(dataset))


def test_sensing_times_lie_on_their_days(dataset: Path) -> None:
    path = dataset / "cube.zarr/sensing_time/c/0"
    path.write_bytes((np.frombuffer(path.read_bytes(), "<i8") + 5 * 86400).tobytes())
    assert any("sensing times should lie on the days" in finding for finding in check(dataset))


def test_a_cut_coordinate_is_named(dataset: Path) -> None:
    (dataset / "cube.zarr/x/c/0").write_bytes(b"1234")
    assert any("cube.zarr/x/zarr.json" in finding and "4 bytes" in finding for finding in check(dataset))


@pytest.mark.parametrize("name", ["scl", "split", "overview", "overview/quality", "labels_x2/coverage", "x", "time"])
def test_a_missing_node_is_named(dataset: Path, name: str) -> None:
    shutil.rmtree(dataset / "cube.zarr" / name)
    assert check(dataset)


def test_an_array_that_nobody_knows_is_named(dataset: Path) -> None:
    shutil.copytree(dataset / "cube.zarr/scl", dataset / "cube.zarr/clouds")
    assert check(dataset) == ["cube.zarr/clouds: the contract knows no such array or group"]


@pytest.mark.parametrize("name", ["chips.parquet", "parcels.parquet", "sources.parquet", "item.json", "config.yaml"])
def test_a_missing_file_is_named(dataset: Path, name: str) -> None:
    (dataset / name).unlink()
    assert f"{name}: missing" in check(dataset)


def test_a_build_that_has_not_finished_is_one_sentence(dataset: Path) -> None:
    (dataset / "journal.jsonl").unlink()
    (dataset / "chips.parquet").unlink()
    assert check(dataset) == [
        "journal.jsonl: missing, the build has not finished; run the same sits-build command to go on"
    ]


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def test_a_column_of_another_type_is_named(dataset: Path) -> None:
    def as_float(table: pa.Table) -> pa.Table:
        position = table.schema.get_field_index("parcel_id")
        return table.set_column(position, "parcel_id", table["parcel_id"].cast(pa.float32()))

    rewrite(dataset / "parcels.parquet", as_float)
    assert "parcels.parquet: the column parcel_id should be of type uint32, got float" in check(dataset)


def test_a_missing_column_is_named(dataset: Path) -> None:
    rewrite(dataset / "chips.parquet", lambda table: table.drop_columns(["clear_share"]))
    assert "chips.parquet: the column clear_share is missing" in check(dataset)


def test_parcel_ids_are_dense(dataset: Path) -> None:
    rewrite(dataset / "parcels.parquet", lambda table: table.slice(1))
    assert "parcels.parquet: parcel_id should run from 1 to 342, it runs from 2 to 343" in check(dataset)


def test_a_zone_of_several_may_have_gaps_in_its_ids(dataset: Path) -> None:
    rewrite(dataset / "parcels.parquet", lambda table: table.slice(1))
    edit(dataset / "item.json", lambda item: item.update(id="tiny-32631"))
    # The item's size of the table is another now; nothing else is wrong.
    assert [finding for finding in check(dataset) if "parcel_id" in finding] == []


def test_missing_chips_are_counted(dataset: Path) -> None:
    rewrite(dataset / "chips.parquet", lambda table: table.slice(3))
    assert "chips.parquet: has 78 chips, the grid alone has 81" in check(dataset)


def test_geoparquet_metadata_are_checked(dataset: Path) -> None:
    rewrite(dataset / "parcels.parquet", lambda table: table.replace_schema_metadata({}))
    assert "parcels.parquet: has no GeoParquet metadata" in check(dataset)


def test_a_damaged_table_is_named(dataset: Path) -> None:
    (dataset / "sources.parquet").write_bytes(b"PAR1")
    assert any(finding.startswith("sources.parquet: cannot be understood") for finding in check(dataset))


ITEMS: list[tuple[Callable[[JsonObject], None], str]] = [
    (lambda i: i.update(stac_version="1.0.0"), "stac_version should be '1.1.0'"),
    (lambda i: i.update(id="other"), "the id 'other' is not that of region 'tiny'"),
    (lambda i: i["properties"].update({"proj:shape": [1, 1]}), "proj:shape is [1, 1], the cube's is [540, 576]"),
    (lambda i: i["properties"]["cube:dimensions"]["band"].update(values=["B02"]), "lists other bands"),
    (lambda i: i["assets"]["report"].update(href="./gone.html"), "points to ./gone.html, which does not exist"),
    (lambda i: i["assets"]["report"].update(href="../../etc/passwd"), "lies outside of the dataset"),
    (lambda i: i["assets"]["config"].update({"file:size": 1}), "./config.yaml has 9 bytes, the item says 1"),
    (lambda i: i["assets"].pop("cube"), "the asset 'cube' is missing"),
    (lambda i: i.pop("properties"), "cannot be understood (KeyError: 'properties')"),
]


@pytest.mark.parametrize(("change", "sentence"), ITEMS, ids=[i[1][:30] for i in ITEMS])
def test_a_broken_item_is_named(dataset: Path, change: Callable[[JsonObject], None], sentence: str) -> None:
    edit(dataset / "item.json", change)
    assert any("item.json" in finding and sentence in finding for finding in check(dataset)), check(dataset)


def test_whatever_a_zarr_json_holds_check_answers_in_sentences(dataset: Path) -> None:
    for text in ("", "[]", "{}", "null", '{"zarr_format": 3, "attributes": {"sits_cube": 1}}', "\x00"):
        (dataset / _ROOT).write_text(text)
        assert len(check(dataset)) == 1
