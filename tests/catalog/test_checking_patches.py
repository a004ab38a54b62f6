from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sits_catalog.cube import NO_DAY, check
from sits_pipeline.folder import Folder
from sits_pipeline.store.patches import PatchLayout, create_patches

JsonObject = dict[str, Any]
UNFINISHED = "journal.jsonl: missing, the build has not finished; run the same sits-build command to go on"
DAYS = [[18990, 19080, 19170], [18991, 19081, NO_DAY], [NO_DAY] * 3]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A set of three patches that is being built."""
    attributes = {
        "version": "1.0",
        "profile": "patches",
        "region": "set",
        "season": {"start": "2021-01-01", "end": "2022-12-31"},
        "radiometry": {"level": "L2A", "scale": 0.0001, "offset_removed": True, "clamp": 1, "baselines": ["05.00"]},
        "created": "2024-01-01T00:00:00Z",
        "software": "sits-cubes 0.1.0",
        "complete": False,
        "config_sha256": "0" * 64,
        "cells": {"patches": 55, "count": 1},
    }
    layout = PatchLayout(
        days=np.array(DAYS, np.int32), bands=("B02", "B04"), height=276, width=276, attributes=attributes
    )
    create_patches(Folder(str(tmp_path)), layout)
    return tmp_path


def edit(path: Path, change: Callable[[JsonObject], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_set_that_is_being_built_has_one_finding(dataset: Path) -> None:
    assert check(dataset) == [UNFINISHED]


BROKEN: list[tuple[str, Callable[[JsonObject], None], str]] = [
    ("", lambda n: n["attributes"]["sits_cube"].pop("season"), "sits_cube.season: missing"),
    ("", lambda n: n["attributes"]["sits_cube"].update(complete=True), "statistics: missing, although the cube is"),
    ("", lambda n: n["attributes"].update(band_names=["B10"]), "band_names should list bands"),
    ("", lambda n: n["attributes"].pop("Conventions"), "Conventions should name the CF version"),
    ("reflectance", lambda n: n.update(shape=[3, 3]), "the grid cannot be understood"),
    ("reflectance", lambda n: n.update(data_type="int16"), "data_type should be 'uint16', got 'int16'"),
    ("reflectance", lambda n: n["attributes"].pop("_FillValue"), "_FillValue should be 0, got None"),
    ("quality", lambda n: n["attributes"].update(_FillValue=0), "has _FillValue, which makes xarray"),
    ("quality", lambda n: n.update(dimension_names=["time", "patch", "y", "x"]), "dimension_names should be"),
    ("scl", lambda n: n["chunk_grid"]["configuration"].update(chunk_shape=[1, 3, 276, 276]), "a shard should be [70,"),
    ("scl", lambda n: n["codecs"][0]["configuration"].update(chunk_shape=[3, 3, 276, 276]), "an inner chunk should"),
    ("source_index", lambda n: n.update(fill_value=0), "fill_value should be 255, got 0"),
    ("day", lambda n: n.update(data_type="int64"), "data_type should be 'int32', got 'int64'"),
    ("day", lambda n: n.update(fill_value=0), f"fill_value should be {NO_DAY}, got 0"),
    ("band", lambda n: n.update(shape=[3]), "shape should be [2], got [3]"),
]


@pytest.mark.parametrize(("node", "change", "sentence"), BROKEN, ids=[f"{n[0]}: {n[2][:30]}" for n in BROKEN])
def test_a_broken_node_is_named(dataset: Path, node: str, change: Callable[[JsonObject], None], sentence: str) -> None:
    edit(dataset / "cube.zarr" / node / "zarr.json", change)
    findings = check(dataset)
    assert any(node in finding and sentence in finding for finding in findings), findings


@pytest.mark.parametrize(
    ("days", "sentence"),
    [
        ([[18990, 19080, 19170], [19081, 18991, NO_DAY], [NO_DAY] * 3], "those of patch 1 are [19081, 18991,"),
        ([[18990, 18990, 19170], [18991, 19081, NO_DAY], [NO_DAY] * 3], "those of patch 0 are [18990, 18990, 19170]"),
        ([[18990, 19080, 19170], [18991, NO_DAY, 19081], [NO_DAY] * 3], "padding last; those of patch 1"),
        ([[18990, 19080, 20000], [18991, 19081, NO_DAY], [NO_DAY] * 3], "2024-10-04 lie outside of the season 2021"),
    ],
)
def test_days_that_do_not_ascend_or_leave_the_season_are_named(
    dataset: Path, days: list[list[int]], sentence: str
) -> None:
    data = struct.pack("<9i", *(day for row in days for day in row))
    (dataset / "cube.zarr" / "day" / "c" / "0" / "0").write_bytes(data)
    assert any(sentence in finding for finding in check(dataset)), check(dataset)


def test_a_missing_and_a_foreign_array_are_named(dataset: Path) -> None:
    (dataset / "cube.zarr" / "scl" / "zarr.json").unlink()
    (dataset / "cube.zarr" / "overview").mkdir()
    findings = check(dataset)
    assert any(finding.startswith("cube.zarr/scl/zarr.json: cannot be understood") for finding in findings)
    assert "cube.zarr/overview: the contract knows no such array or group" in findings


def test_a_finished_set_needs_its_tables(dataset: Path) -> None:
    (dataset / "journal.jsonl").write_bytes(b"")
    assert check(dataset) == [
        f"{name}: missing" for name in ("patches.parquet", "sources.parquet", "item.json", "config.yaml", "report.html")
    ]


# Imported sets


@pytest.fixture
def imported(dataset: Path) -> Path:
    """The same set, as if it had been imported with labels."""
    edit(
        dataset / "cube.zarr" / "zarr.json",
        lambda n: n["attributes"]["sits_cube"].update(
            imported={"format": "pastis", "chronology": "kept", "licence": "etalab-2.0", "attribution": "nobody"}
        ),
    )
    return dataset


def set_days(dataset: Path, days: list[list[int]]) -> None:
    data = struct.pack("<9i", *(day for row in days for day in row))
    (dataset / "cube.zarr" / "day" / "c" / "0" / "0").write_bytes(data)


def test_an_imported_set_may_have_two_frames_of_one_day(imported: Path) -> None:
    assert check(imported) == [UNFINISHED]
    set_days(imported, [[18990, 18990, 19170], [18991, 19081, NO_DAY], [NO_DAY] * 3])
    assert check(imported) == [UNFINISHED]
    set_days(imported, [[18990, 18989, 19170], [18991, 19081, NO_DAY], [NO_DAY] * 3])
    assert any("should ascend, padding last; those of patch 0" in finding for finding in check(imported))


def test_b10_is_a_band_of_imported_sets_of_level_1c_alone(imported: Path) -> None:
    def change(node: JsonObject) -> None:
        node["attributes"]["band_names"] = ["B02", "B10"]

    edit(imported / "cube.zarr" / "reflectance" / "zarr.json", change)
    edit(imported / "cube.zarr" / "zarr.json", change)
    assert any("band_names should list bands out of" in finding for finding in check(imported))
    edit(
        imported / "cube.zarr" / "zarr.json",
        lambda n: n["attributes"]["sits_cube"]["radiometry"].update(level="L1C"),
    )
    assert check(imported) == [UNFINISHED]
    edit(imported / "cube.zarr" / "zarr.json", lambda n: n["attributes"]["sits_cube"].pop("imported"))
    assert any("band_names should list bands out of" in finding for finding in check(imported))


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("chronology", "lost", "imported.chronology should be one of kept, restored, day-of-year, got 'lost'"),
        ("licence", None, "sits_cube.imported.licence: should be str, got None"),
    ],
)
def test_what_an_imported_set_does_not_say_of_its_original_is_named(
    imported: Path, key: str, value: object, sentence: str
) -> None:
    edit(imported / "cube.zarr" / "zarr.json", lambda n: n["attributes"]["sits_cube"]["imported"].update({key: value}))
    assert any(sentence in finding for finding in check(imported)), check(imported)


def test_a_finished_imported_set_has_no_source_items(imported: Path) -> None:
    (imported / "journal.jsonl").write_bytes(b"")
    assert check(imported) == [
        f"{name}: missing" for name in ("patches.parquet", "item.json", "config.yaml", "report.html")
    ]


def test_the_table_of_an_imported_set_has_the_order_of_frames(imported: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (imported / "journal.jsonl").write_bytes(b"")
    pq.write_table(pa.table({"patch": pa.array([0, 1, 2], pa.uint32())}), imported / "patches.parquet")
    findings = check(imported)
    for name in ("days", "order", "clamped", "crop_counts", "original"):
        assert f"patches.parquet: the column {name} is missing" in findings


def test_label_arrays_are_looked_at_where_they_are(tmp_path: Path) -> None:
    attributes = {
        "version": "1.0",
        "profile": "patches",
        "region": "set",
        "season": {"start": "2021-01-01", "end": "2022-12-31"},
        "radiometry": {"level": "L2A", "scale": 0.0001, "offset_removed": True, "clamp": 1, "baselines": []},
        "created": "2024-01-01T00:00:00Z",
        "software": "sits-cubes 0.1.0",
        "complete": False,
        "config_sha256": "0" * 64,
        "cells": {"patches": 55, "count": 1},
    }
    classes = ({"index": 1, "code": "a", "name": "a", "hcat": None, "colour": "#112233"},)
    layout = PatchLayout(
        days=np.array(DAYS, np.int32),
        bands=("B02", "B04"),
        height=276,
        width=276,
        attributes=attributes,
        labels=("crop_type", "parcel_id", "coverage", "boundary_distance", "conflict", "split"),
        classes=classes,
    )
    create_patches(Folder(str(tmp_path)), layout)
    assert check(tmp_path) == [UNFINISHED]
    edit(tmp_path / "cube.zarr" / "split" / "zarr.json", lambda n: n["attributes"].pop("flag_values"))
    edit(tmp_path / "cube.zarr" / "conflict" / "zarr.json", lambda n: n.update(data_type="uint16"))
    edit(tmp_path / "cube.zarr" / "crop_type" / "zarr.json", lambda n: n["attributes"]["classes"][0].update(index=0))
    findings = " ".join(check(tmp_path))
    for text in ("split/zarr.json: flag_values should be", "conflict/zarr.json: data_type should be 'uint8'"):
        assert text in findings
    assert "the indices of the classes should be distinct and in 1..65534" in findings
