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
