"""Datasets that lack what others have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

LABELS = ("crop_type", "parcel_id", "coverage", "boundary_distance", "conflict", "split", "labels_x2")


def without_labels(dataset: str | Path, path: Path) -> Path:
    """A copy of a dataset as it is built without parcels."""
    shutil.copytree(dataset, path)
    for name in LABELS:
        shutil.rmtree(path / "cube.zarr" / name)
    (path / "parcels.parquet").unlink()
    root = json.loads((path / "cube.zarr/zarr.json").read_text())
    del root["consolidated_metadata"]
    (path / "cube.zarr/zarr.json").write_text(json.dumps(root))
    return path
