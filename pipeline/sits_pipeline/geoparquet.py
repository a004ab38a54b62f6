"""GeoParquet 1.1 with an explicit schema: the same rows give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["concat_geo_tables", "geo_table", "write_geo_table"]

Table = Any  # pyarrow.Table; pyarrow has no type information and is slow to import

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def geo_table(columns: Mapping[str, Any], *, geometry: NDArray[np.object_], epsg: int) -> Table:
    """A pyarrow Table of `columns` (name to pyarrow Array) with `geometry` (WKB) and its `bbox` covering at the end.

    Polygons, or None where a row has no place; the result carries the GeoParquet 1.1.0 metadata and no other.
    """
    import pyarrow as pa

    bounds = shapely.bounds(geometry).reshape(-1, 4)
    corners = [pa.array(bounds[:, corner], pa.float64()) for corner in range(4)]
    missing = shapely.is_missing(geometry)
    mask = pa.array(missing) if missing.any() else None
    bbox = pa.StructArray.from_arrays(corners, names=list(_CORNERS), mask=mask)
    wkb = pa.array(shapely.to_wkb(geometry, byte_order=1, output_dimension=2), pa.binary())
    table = pa.table({**columns, "bbox": bbox, "geometry": wkb})
    return table.replace_schema_metadata({"geo": json.dumps(_metadata(geometry, epsg), sort_keys=True)})


def _metadata(geometry: NDArray[np.object_], epsg: int) -> dict[str, object]:
    import pyproj

    geometry = geometry[~shapely.is_missing(geometry)]
    kinds = {3: "Polygon", 6: "MultiPolygon"}
    column: dict[str, object] = {
        "encoding": "WKB",
        "geometry_types": sorted(kinds[int(kind)] for kind in np.unique(shapely.get_type_id(geometry))),
        "crs": pyproj.CRS.from_epsg(epsg).to_json_dict(),
        "covering": {"bbox": {corner: ["bbox", corner] for corner in _CORNERS}},
    }
    if len(geometry):
        column["bbox"] = [float(value) for value in shapely.total_bounds(geometry)]
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def concat_geo_tables(tables: Sequence[Table]) -> Table:
    """The rows of tables of `geo_table` with equal columns and CRS, one after another, as if they were made as one."""
    import pyarrow as pa

    found = [json.loads(table.schema.metadata[b"geo"]) for table in tables]
    parts = [one["columns"]["geometry"] for one in found]
    column = {**parts[0], "geometry_types": sorted({kind for part in parts for kind in part["geometry_types"]})}
    boxes = np.array([part["bbox"] for part in parts if "bbox" in part])
    column.pop("bbox", None)
    if len(boxes):
        column["bbox"] = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
    rows = pa.concat_tables([table.replace_schema_metadata(None) for table in tables]).combine_chunks()
    geo = {**found[0], "columns": {"geometry": column}}
    return rows.replace_schema_metadata({"geo": json.dumps(geo, sort_keys=True)})


def write_geo_table(file: BinaryIO, table: Table) -> None:
    """Write `table` into an open binary file: zstd, row groups of 50 000, statistics on every column."""
    import pyarrow.parquet as pq

    pq.write_table(table, file, compression="zstd", row_group_size=50_000, write_page_index=True, store_schema=True)
