"""Whether all contestants wrote the same pixels: the peers those of the floor, sits-build the same harmonized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import zarr
from tests.benchmarks.contestants.sits_build import NAME

from sits_pipeline.steps.harmonize import harmonize

__all__ = ["compare"]


def compare(floor: str, peers: dict[str, str], ours: str) -> dict[str, int]:
    """Pixels compared a contestant: every band of every date. Raises AssertionError where two differ."""
    expected, scl = _arrays(Path(floor))
    counts = {}
    for name, path in peers.items():
        reflectance, classes = _arrays(Path(path))
        assert np.array_equal(reflectance, expected), f"{name} gives other reflectance than the floor"
        assert np.array_equal(classes, scl), f"{name} gives another scl than the floor"
        counts[name] = int(expected.size)
    dataset = Path(ours) / NAME
    reflectance, classes = _arrays(dataset / "cube.zarr")
    offsets = _offsets(dataset)
    assert len(offsets) == len(expected), "sits-build left out a date"
    for t, offset in enumerate(offsets):
        observed = (scl[t] > 0) & expected[t].any(axis=0)
        harmonized = np.where(observed, harmonize(expected[t], offset), 0)
        assert np.array_equal(reflectance[t], harmonized), f"sits-build gives other reflectance on date {t}"
        assert np.array_equal(classes[t], np.where(observed, scl[t], 0)), f"sits-build gives another scl on date {t}"
    counts["sits-build"] = int(expected.size)
    return counts


def _arrays(folder: Path) -> tuple[Any, Any]:
    """Reflectance and scl."""
    reflectance, scl = (np.asarray(zarr.open_array(folder / name, mode="r")[...]) for name in ("reflectance", "scl"))
    return reflectance, scl


def _offsets(dataset: Path) -> list[int]:
    """The BOA offset that was applied, a date."""
    table = pyarrow.parquet.read_table(dataset / "sources.parquet").to_pylist()
    used = [row for row in table if row["status"] == "used"]
    return [row["boa_offset_applied"] for row in sorted(used, key=lambda row: row["date_index"])]
