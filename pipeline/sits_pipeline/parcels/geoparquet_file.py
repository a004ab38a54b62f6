"""A GeoParquet file of parcels, of which only the row groups near a place are read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from sits_catalog.parquet_rows import ParquetRows
from sits_pipeline.parcels.addressed import is_address, open_address
from sits_pipeline.parcels.archives import Place
from sits_pipeline.parcels.features import Box, Features, as_text, geometry_of
from sits_pipeline.parcels.shown import cause, cleaned

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

__all__ = ["GeoParquetFile", "open_geoparquet"]

_Boxes = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Geometry:
    """The column of geometry and what the file says about it."""

    name: str
    crs: CRS | None
    bounds: Box | None = None
    covering: tuple[str, str, str, str] | None = None
    """Parquet paths of the columns xmin, ymin, xmax, ymax."""


@dataclass(kw_only=True)
class GeoParquetFile:
    """A GeoParquet file, read a row group at a time and pruned by what it says of each row group's place."""

    path: str
    place: Place
    crs: CRS | None
    names: tuple[str, ...]
    n_rows: int | None
    geometry: _Geometry

    def bounds(self) -> Box:
        """Bounds of all rows; not numbers where there are none."""
        if self.geometry.bounds is not None:
            return self.geometry.bounds
        boxes = np.full((1, 4), np.nan)
        with _parquet(self.path, self.place.target) as rows:
            for group in range(rows.file.metadata.num_row_groups):
                known = self._stated_box(rows.file.metadata.row_group(group))
                found = [known] if known else [shapely.total_bounds(shape) for shape in self._shapes(rows, group)]
                boxes = np.vstack([boxes, *found])
                boxes = np.hstack([np.fmin.reduce(boxes[:, :2]), np.fmax.reduce(boxes[:, 2:])])[None]
        west, south, east, north = boxes[0].tolist()
        return west, south, east, north

    def read(self, columns: Sequence[str], box: Box | None) -> Features:
        """Rows whose bounds meet `box` (None: all), in the order of `row`."""
        rows: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        geometries: list[NDArray[np.object_]] = [np.zeros(0, object)]
        texts: dict[str, list[NDArray[np.object_]]] = {name: [np.zeros(0, object)] for name in columns}
        for row, batch in self._batches(columns, box):
            geometry = geometry_of(_values(batch[self.geometry.name]))
            keep = np.flatnonzero(np.ones(len(geometry), bool) if box is None else _meet(geometry, box))
            rows.append(row[keep])
            geometries.append(geometry[keep])
            for name, parts in texts.items():
                parts.append(_text(self.path, batch[name].take(keep)))
        return Features(
            row=np.concatenate(rows),
            geometry=np.concatenate(geometries),
            columns={name: np.concatenate(parts) for name, parts in texts.items()},
        )

    def texts(self, name: str) -> NDArray[np.object_]:
        """A column of all rows as text, without geometry."""
        return np.concatenate([np.zeros(0, object), *self._texts(name)])

    def distinct(self, name: str) -> frozenset[str]:
        """The different texts of a column of all rows; a batch of rows is in memory at a time."""
        found: set[str | None] = set()
        for texts in self._texts(name):
            found.update(texts)
        return frozenset(text for text in found if text is not None)

    def _texts(self, name: str) -> Iterator[NDArray[np.object_]]:
        with _parquet(self.path, self.place.target) as rows:
            for group in range(rows.file.metadata.num_row_groups):
                for batch in rows.batches([name], group):
                    yield _text(self.path, batch[name])

    def close(self) -> None:
        """Remove what was unpacked."""
        self.place.close()

    def _batches(self, columns: Sequence[str], box: Box | None) -> Iterator[tuple[NDArray[np.int64], RecordBatch]]:
        """Numbers of rows that may meet `box`, ascending, and the rows themselves."""
        wanted = list(dict.fromkeys((*columns, self.geometry.name)))
        with _parquet(self.path, self.place.target) as rows:
            first = 0
            for group in range(rows.file.metadata.num_row_groups):
                n_rows, near = rows.file.metadata.row_group(group).num_rows, self._near(rows, group, box)
                done = first
                if near is None or near.any():
                    for batch in rows.batches(wanted, group):
                        inside = np.arange(len(batch))
                        if near is not None:
                            inside = np.flatnonzero(near[done - first : done - first + len(batch)])
                        yield done + inside, batch.take(inside) if len(inside) < len(batch) else batch
                        done += len(batch)
                first += n_rows

    def _near(self, rows: ParquetRows, group: int, box: Box | None) -> NDArray[np.bool_] | None:
        """Which rows of a row group may meet `box`; None: any of them, as far as the file tells without geometry."""
        if box is None:
            return None
        metadata = rows.file.metadata.row_group(group)
        stated = self._stated_box(metadata)
        if stated is not None and not _touch(np.array([stated]), box).any():
            return np.zeros(metadata.num_rows, np.bool_)
        if self.geometry.covering is None:
            return None
        corners = [np.full(metadata.num_rows, np.nan) for _ in self.geometry.covering]
        done = 0
        for batch in rows.batches(self.geometry.covering, group):
            for corner, path in zip(corners, self.geometry.covering, strict=True):
                corner[done : done + len(batch)] = _numbers(batch, path)
            done += len(batch)
        return _touch(np.column_stack(corners), box)

    def _stated_box(self, group: Any) -> Box | None:
        """Bounds of a row group by the statistics of its covering or of its geometry; None where there are none."""
        columns = {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}
        if self.geometry.covering is not None:
            found = [columns[path].statistics for path in self.geometry.covering if path in columns]
            known = [one for one in found if one is not None and one.has_min_max]
            if len(known) < 4:
                return None
            xmin, ymin, xmax, ymax = known
            return float(xmin.min), float(ymin.min), float(xmax.max), float(ymax.max)
        column = columns.get(self.geometry.name)
        # Parquet's own statistics of a geometry column (2025), in releases of pyarrow that read them.
        if column is None or not getattr(column, "is_geo_stats_set", False):
            return None
        stated = column.geo_statistics
        if stated is None or stated.xmin is None or stated.ymin is None or stated.xmin > stated.xmax:
            return None
        return float(stated.xmin), float(stated.ymin), float(stated.xmax), float(stated.ymax)

    def _shapes(self, rows: ParquetRows, group: int) -> Iterator[NDArray[np.object_]]:
        for batch in rows.batches([self.geometry.name], group):
            yield geometry_of(_values(batch[self.geometry.name]))


def open_geoparquet(path: str, place: Place) -> GeoParquetFile:
    """The file at `place`, which `path` names for the user."""
    with _parquet(path, place.target) as rows:
        names, n_rows = tuple(rows.file.schema_arrow.names), rows.file.metadata.num_rows
        geometry = _geometry(path, rows.file)
    return GeoParquetFile(
        path=path,
        place=place,
        crs=geometry.crs,
        names=tuple(name for name in names if name != geometry.name),
        n_rows=n_rows,
        geometry=geometry,
    )


@contextmanager
def _parquet(path: str, target: str) -> Iterator[ParquetRows]:
    """The file at `target`, closed in the end; errors while it is open are one sentence about `path`."""
    import pyarrow as pa

    try:
        with ExitStack() as stack:
            if is_address(target):
                source = stack.enter_context(open_address(target))
                rows = ParquetRows(source, size=source.seek(0, os.SEEK_END), name=path)
            else:
                rows = ParquetRows(target, size=Path(target).stat().st_size, name=path)
            yield stack.enter_context(rows)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {cleaned(error, target)}") from cause(error, target)


def _geometry(path: str, file: ParquetFile) -> _Geometry:
    """The geometry column by the `geo` metadata, or the one that Parquet itself calls geometry."""
    metadata = file.metadata.metadata or {}
    if b"geo" not in metadata:
        return _native(path, file)
    try:
        geo = json.loads(metadata[b"geo"])
        name = geo["primary_column"]
        column = geo["columns"][name]
        encoding = column["encoding"]
        covering = column.get("covering", {}).get("bbox")
        corners = None if covering is None else _corners(covering)
        bounds = _flat(column["bbox"]) if column.get("bbox") else None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(
            f"{path} has `geo` metadata that is not as GeoParquet says ({type(error).__name__}: {error}); write it "
            "anew (geopandas does)"
        ) from error
    if encoding != "WKB":
        raise ValueError(f"{path} stores geometry as {encoding}; write it as WKB (geopandas does by default)")
    stored = {file.schema.column(index).path for index in range(len(file.schema))}
    absent = [one for one in (name, *(corners or ())) if one not in stored]
    if absent:
        raise ValueError(
            f"{path} names columns in its `geo` metadata that it does not have ({', '.join(absent)}); write it anew "
            "(geopandas does)"
        )
    kind = str(file.schema_arrow.field(name).type)
    if kind not in ("binary", "large_binary", "binary_view"):
        raise ValueError(f"{path}: its column {name!r} should hold geometry as WKB; it holds {kind[:80]}")
    # No `crs` key means OGC:CRS84, an explicit null that nobody knows (GeoParquet 1.1).
    return _Geometry(name=name, crs=_crs(path, column.get("crs", "OGC:CRS84")), bounds=bounds, covering=corners)


def _corners(covering: Mapping[str, Sequence[str]]) -> tuple[str, str, str, str]:
    """Parquet paths of the columns of a covering."""
    xmin, ymin, xmax, ymax = (".".join(covering[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
    return xmin, ymin, xmax, ymax


def _native(path: str, file: ParquetFile) -> _Geometry:
    """The column of the logical type GEOMETRY (Parquet format 2.11, 2025), which is WKB."""
    columns = [file.schema.column(index) for index in range(len(file.schema))]
    found = [(one.path, json.loads(one.logical_type.to_json())) for one in columns if one.logical_type is not None]
    shapes = [(name, kind) for name, kind in found if str(kind.get("Type", "")).lower() == "geometry"]
    if len(shapes) != 1:
        raise ValueError(
            f"{path} is Parquet without the `geo` metadata of GeoParquet: it states no geometry column "
            f"({len(shapes)} columns are of Parquet's own type geometry); write it as GeoParquet"
        )
    name, kind = shapes[0]
    return _Geometry(name=name, crs=_crs(path, kind.get("crs") or "OGC:CRS84"))


def _crs(path: str, stated: str | Mapping[str, Any] | None) -> CRS | None:
    if stated is None:
        return None
    try:
        return CRS.from_user_input(stated)
    except CRSError as error:
        raise ValueError(
            f"{path} states a CRS that nobody knows ({str(stated)[:80]}); write it anew with one"
        ) from error


def _flat(bbox: Sequence[float]) -> Box:
    """The horizontal part of a bounding box of 4 or 6 numbers."""
    half = len(bbox) // 2
    return float(bbox[0]), float(bbox[1]), float(bbox[half]), float(bbox[half + 1])


def _values(column: Any) -> NDArray[np.object_]:
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values


def _text(path: str, column: Any) -> NDArray[np.object_]:
    try:
        return as_text(_values(column))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} holds text that is not UTF-8 ({error}); write the column as text, in UTF-8"
        ) from error


def _numbers(batch: RecordBatch, path: str) -> NDArray[np.float64]:
    """A column inside of structs; NaN where it is missing."""
    import pyarrow.compute as pc

    outer, *inner = path.split(".")
    column = batch[outer]
    if inner:
        column = pc.struct_field(column, inner)
    return np.asarray(column.cast("float64").to_numpy(zero_copy_only=False), np.float64)


def _touch(boxes: _Boxes, box: Box) -> NDArray[np.bool_]:
    """Which boxes (n, 4), as a file states them, may meet `box`; those with missing numbers may."""
    # They are often float32: grown by its rounding, as bounds are rounded to the nearest there.
    slack = 1e-6 * max(abs(value) for value in box)
    west, south, east, north = boxes.T
    away = (west - slack > box[2]) | (south - slack > box[3]) | (east + slack < box[0]) | (north + slack < box[1])
    return np.asarray(~away)


def _meet(geometry: NDArray[np.object_], box: Box) -> NDArray[np.bool_]:
    """Whose bounds meet `box`; rows without bounds are kept, so that they are listed."""
    west, south, east, north = shapely.bounds(geometry).T
    return np.asarray(~((west > box[2]) | (south > box[3]) | (east < box[0]) | (north < box[1])))
