"""GeoParquet 1.1 with an explicit schema: the same rows give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["GeoTableWriter", "geo_table", "write_geo_table"]

Table = Any  # pyarrow.Table; pyarrow has no type information and is slow to import

_ROWS = 50_000
"""Of a row group."""
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


class GeoTableWriter:
    """Writes tables of `geo_table` with equal columns and CRS into one file, one after another, as if they were one.

    Parquet with zstd, row groups of 50 000, statistics on every column. What waits for its row group is in memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer: Any = None
        self._waiting: list[Table] = []
        self._found: list[dict[str, Any]] = []
        """The metadata of the tables folded into one; nothing before the first."""

    def write(self, table: Table) -> None:
        """Append the rows of a table."""
        self._found = [_folded([*self._found, json.loads(table.schema.metadata[b"geo"])])]
        self._waiting.append(table.replace_schema_metadata(None))
        if sum(map(len, self._waiting)) >= _ROWS:
            self._write_groups(all_of_it=False)

    def close(self) -> None:
        """Write what is left, and the metadata. Nothing is written where there was no table at all."""
        if self._found:
            self._write_groups(all_of_it=True)
            # In the footer alone: a schema of Arrow's beside it would have to hold the extent before any row is known.
            self._writer.add_key_value_metadata({"geo": json.dumps(self._found[0], sort_keys=True)})
            self._writer.close()

    def _write_groups(self, *, all_of_it: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = pa.concat_tables(self._waiting)
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._file, rows.schema, compression="zstd", write_page_index=True, store_schema=False
            )
        end = len(rows) if all_of_it else len(rows) // _ROWS * _ROWS
        for start in range(0, end, _ROWS):
            self._writer.write_table(rows.slice(start, min(_ROWS, end - start)).combine_chunks())
        self._waiting = [rows.slice(end)]


def _folded(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The metadata of several tables as if they were one."""
    parts = [one["columns"]["geometry"] for one in found]
    column = {**parts[0], "geometry_types": sorted({kind for part in parts for kind in part["geometry_types"]})}
    boxes = np.array([part["bbox"] for part in parts if "bbox" in part])
    if len(boxes):
        column["bbox"] = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
    return {**found[0], "columns": {"geometry": column}}


def write_geo_table(file: BinaryIO, table: Table) -> None:
    """Write one table into an open binary file; see `GeoTableWriter`."""
    writer = GeoTableWriter(file)
    writer.write(table)
    writer.close()
