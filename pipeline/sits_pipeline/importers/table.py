"""`patches.parquet` of an import: the index of its patches, one row each."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import shapely

from sits_pipeline.geoparquet import geo_table
from sits_pipeline.importers.dataset import ImportedDataset
from sits_pipeline.importers.original import OriginalPatch
from sits_pipeline.importers.tally import ImportTally, PatchTally
from sits_pipeline.values import JsonObject

__all__ = ["patches_table"]

Table = Any  # pyarrow.Table; pyarrow has no type information and is slow to import


def patches_table(dataset: ImportedDataset, tally: ImportTally) -> Table:
    """One row a patch in their order; geometry is the outline in lon/lat, null where the original has none."""
    import pyarrow as pa

    kinds = {
        "patch": pa.uint32(),
        "id": pa.string(),
        "name": pa.string(),
        "lon": pa.float64(),
        "lat": pa.float64(),
        "epsg": pa.int32(),
        "transform": pa.list_(pa.float64()),
        "height": pa.int32(),
        "width": pa.int32(),
        "n_dates": pa.int32(),
        "days": pa.list_(pa.date32()),
        "order": pa.list_(pa.int32()),
        "observed_share": pa.list_(pa.float64()),
        "clear_share": pa.list_(pa.float64()),
        "clamped": pa.int64(),
        "saturated": pa.int64(),
        "crop_counts": pa.map_(pa.uint16(), pa.int64()),
        "split": pa.string(),
        "fold": pa.int32(),
        "status": pa.string(),
        "reason": pa.string(),
        "original": pa.string(),
    }
    size = dataset.layout.height * dataset.layout.width
    rows = [
        _row(index, patch, found, size)
        for index, (patch, found) in enumerate(zip(dataset.patches, tally.patches, strict=True))
    ]
    shape = {"height": dataset.layout.height, "width": dataset.layout.width, "status": "imported", "reason": ""}
    columns = {}
    for name, kind in kinds.items():
        values = [shape[name]] * len(rows) if name in shape else [row[name] for row in rows]
        # pyarrow makes dates of numbers only where it casts.
        columns[name] = pa.array(values, pa.list_(pa.int32())).cast(kind) if name == "days" else pa.array(values, kind)
    outlines = np.array([patch.outline for patch in dataset.patches], dtype=object)
    return geo_table(columns, geometry=outlines, epsg=4326)


def _row(index: int, patch: OriginalPatch, found: PatchTally, size: int) -> JsonObject:
    place = None if patch.outline is None else shapely.centroid(patch.outline)
    return {
        "patch": index,
        "id": patch.name,
        "name": patch.name,
        "lon": None if place is None else round(float(place.x), 7),
        "lat": None if place is None else round(float(place.y), 7),
        "epsg": patch.epsg,
        "transform": None if patch.transform is None else [float(value) for value in patch.transform],
        "n_dates": len(patch.days),
        "days": patch.days,
        "order": patch.order,
        "observed_share": np.round(found.observed / size, 6),
        "clear_share": np.round(found.clear / size, 6),
        "clamped": found.clamped,
        "saturated": found.saturated,
        "crop_counts": list(found.classes),
        "split": patch.split,
        "fold": patch.fold,
        "original": json.dumps(dict(patch.original), sort_keys=True),
    }
