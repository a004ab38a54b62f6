"""Opening a vector file of parcels, whatever its format, and reading the rows near a place."""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

__all__ = ["Box", "Features", "OgrFile", "ParquetFile", "VectorFile", "as_text", "open_vector"]

Box = tuple[float, float, float, float]
"""West, south, east, north in a file's own CRS."""

_LOG = logging.getLogger(__name__)
_PARQUET = (".parquet", ".geoparquet", ".pq")
_MEMBERS = (".shp", ".gpkg", ".geojson", ".json", ".fgb", ".gml", ".gdb")
_BATCH_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class Features:
    """Rows of a vector file, as they are."""

    row: NDArray[np.int64]
    """Position in the file, ascending; the feature's own number where the format has one."""
    geometry: NDArray[np.object_]
    """shapely geometries in the file's CRS; None where the row has none."""
    columns: Mapping[str, NDArray[np.object_]]
    """str or None a row."""


class VectorFile(Protocol):
    """One layer of a file: what it says about itself, and its rows."""

    path: str
    crs: CRS | None
    names: tuple[str, ...]
    n_rows: int

    def bounds(self) -> Box:
        """Bounds of all rows; not numbers where there are none."""
        ...

    def read(self, columns: Sequence[str], box: Box | None) -> Features:
        """Rows whose bounds meet `box` (None: all), in the order of `row`."""
        ...

    def read_columns(self, names: Sequence[str]) -> dict[str, NDArray[np.object_]]:
        """Columns of all rows as text, without geometry, in one common order."""
        ...


def open_vector(path: str, *, layer: str | None, crs: str | None, encoding: str | None) -> VectorFile:
    """The layer of a vector file; `crs` counts only where the file states none.

    Raises FileNotFoundError for a path that is not there, ValueError for a file that GDAL cannot read, for several
    layers of which none is named, and for a CRS that is neither stated nor given.
    """
    if "://" not in path and not path.startswith("/vsi") and not Path(path.split("!")[0]).exists():
        raise FileNotFoundError(f"no parcels at {path}: there is no such file")
    given = None if crs is None else _given_crs(crs)
    file: VectorFile = _open_parquet(path) if path.lower().endswith(_PARQUET) else _open_ogr(path, layer, encoding)
    if file.crs is None:
        if given is None:
            raise ValueError(
                f"{path} states no CRS, so nobody knows where its parcels lie; name it in the region file "
                "under parcels: crs (EPSG:2154, say)"
            )
        file.crs = given
    return file


def _given_crs(crs: str) -> CRS:
    try:
        return CRS.from_user_input(crs)
    except CRSError as error:
        raise ValueError(
            f"parcels: crs names a coordinate reference system, as EPSG:2154 does; nobody knows {crs!r}"
        ) from error


def as_text(values: NDArray[Any]) -> NDArray[np.object_]:
    """Each value as the text a person would write: integral floats as integers, blanks and missing values as None."""
    text = np.empty(len(values), dtype=object)
    text[:] = [_text(value) for value in values.tolist()]
    return text


def _text(value: object) -> str | None:
    if value is None or value != value:  # NaN and NaT differ from themselves
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip() or None


@dataclass(kw_only=True)
class OgrFile:
    """A layer that GDAL opens."""

    path: str
    target: str
    """What GDAL is told to open."""
    layer: str
    crs: CRS | None
    names: tuple[str, ...]
    n_rows: int
    options: dict[str, str]
    fid: str
    """Name of the column that holds the feature's own number; empty where the format has none."""

    def bounds(self) -> Box:
        """Bounds of all rows; not numbers where there are none."""
        import pyogrio

        with _gdal_says(self.path):
            info = pyogrio.read_info(self.target, layer=self.layer, force_total_bounds=True, **self.options)
        west, south, east, north = info["total_bounds"] or (np.nan,) * 4
        return float(west), float(south), float(east), float(north)

    def read(self, columns: Sequence[str], box: Box | None) -> Features:
        """Rows whose bounds meet `box` (None: all), in the order of `row`."""
        from pyogrio.raw import read

        stored = [name for name in dict.fromkeys(columns) if name != self.fid]
        with _gdal_says(self.path):
            meta, fids, wkb, fields = read(
                self.target, layer=self.layer, columns=stored, bbox=box, return_fids=True, **self.options
            )
        order = np.argsort(fids, kind="stable")
        values = dict(zip(meta["fields"], fields, strict=True))
        text = {name: as_text(values[name])[order] for name in stored}
        if self.fid in columns:
            text[self.fid] = as_text(fids[order])
        return Features(row=fids[order].astype(np.int64), geometry=_geometry(wkb[order]), columns=text)

    def read_columns(self, names: Sequence[str]) -> dict[str, NDArray[np.object_]]:
        """Columns of all rows as text, without geometry, in one common order."""
        from pyogrio.raw import read

        stored = [name for name in dict.fromkeys(names) if name != self.fid]
        with _gdal_says(self.path):
            meta, fids, _, fields = read(
                self.target, layer=self.layer, columns=stored, read_geometry=False, return_fids=True, **self.options
            )
        values = {name: as_text(column) for name, column in zip(meta["fields"], fields, strict=True)}
        if self.fid in names:
            values[self.fid] = as_text(fids)
        return values


def _geometry(wkb: NDArray[np.object_]) -> NDArray[np.object_]:
    """Geometries of WKB; a ring that does not close is closed, and what is no geometry at all is None."""
    geometry = np.empty(len(wkb), dtype=object)
    geometry[:] = shapely.from_wkb(wkb, on_invalid="fix")
    return geometry


def _open_ogr(path: str, layer: str | None, encoding: str | None) -> OgrFile:
    import pyogrio

    target, layers = _layers(path)
    chosen = _choose_layer(path, layer, layers)
    options = {} if encoding is None else {"encoding": encoding}
    if any(part in path.lower() for part in (".gml", ".xml")):
        options["WRITE_GFS"] = "NO"  # the GML driver would write a file beside the parcels
    with _gdal_says(path):
        info = pyogrio.read_info(target, layer=chosen, force_feature_count=True, **options)
    fid = str(info["fid_column"] or "")
    return OgrFile(
        path=path,
        target=target,
        layer=chosen,
        crs=None if info["crs"] is None else CRS.from_user_input(info["crs"]),
        names=tuple(str(name) for name in info["fields"]) + ((fid,) if fid else ()),
        n_rows=int(info["features"]),
        options=options,
        fid=fid,
    )


def _layers(path: str) -> tuple[str, list[tuple[str, str | None]]]:
    """What GDAL should open for `path`, and the layers in it."""
    import pyogrio

    target = path
    with _gdal_says(path):
        if path.lower().endswith(".zip") and (inner := _inside_zip(path)):
            target = f"/vsizip/{path}/{inner}"
        with _no_new(Path(path).with_suffix(".gfs")):
            return target, [(str(name), kind) for name, kind in pyogrio.list_layers(target)]


@contextmanager
def _no_new(file: Path) -> Iterator[None]:
    """Takes away a file that was not there before: listing the layers of a GML file writes its schema beside it."""
    there = file.exists()
    try:
        yield
    finally:
        if not there:
            file.unlink(missing_ok=True)


@contextmanager
def _gdal_says(path: str) -> Iterator[None]:
    """Turns the errors of GDAL and zipfile into one sentence, and GDAL's warnings into lines of the log."""
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield
        for warning in said:
            _LOG.info("%s: %s", path, warning.message)
    except (DataSourceError, DataLayerError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read as a vector file (expected shp, gpkg, geojson, fgb, gml, gdb, one of them "
            f"in a zip, or GeoParquet): {error}"
        ) from error


def _inside_zip(path: str) -> str | None:
    """The one vector file in a zip that keeps it in a folder; None where GDAL finds it by itself."""
    if "://" in path or path.startswith("/vsi"):
        return None
    with zipfile.ZipFile(path) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]
    found = {str(part) for name in names for part in (name, *name.parents) if part.suffix.lower() in _MEMBERS}
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(
            f"{path} holds several vector files: {', '.join(sorted(found))}; name one as {path}!{min(found)}"
        )
    return found.pop()


def _choose_layer(path: str, layer: str | None, layers: Sequence[tuple[str, str | None]]) -> str:
    spatial = [name for name, kind in layers if kind is not None]
    if layer is not None:
        if layer not in spatial:
            raise ValueError(f"{path} has no layer {layer!r} with geometry; its layers are {', '.join(spatial)}")
        return layer
    if len(spatial) != 1:
        raise ValueError(
            f"{path} holds {len(spatial)} layers with geometry ({', '.join(spatial) or 'none at all'}); "
            "name the one with the parcels under parcels: layer"
        )
    return spatial[0]


@dataclass(kw_only=True)
class ParquetFile:
    """A GeoParquet file, read a row group at a time and pruned by its `bbox` covering where it has one."""

    path: str
    crs: CRS | None
    names: tuple[str, ...]
    n_rows: int
    geometry_column: str
    stated_bounds: Box | None
    covering: tuple[str, str, str, str] | None = field(default=None)
    """Parquet paths of the columns xmin, ymin, xmax, ymax."""

    def bounds(self) -> Box:
        """Bounds of all rows; not numbers where there are none."""
        if self.stated_bounds is not None:
            return self.stated_bounds
        boxes = np.full((1, 4), np.nan)
        for _, geometry, _ in self._batches((), None):
            boxes = np.vstack([boxes, shapely.total_bounds(geometry)])
        low, high = np.fmin.reduce(boxes[:, :2]), np.fmax.reduce(boxes[:, 2:])
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def read(self, columns: Sequence[str], box: Box | None) -> Features:
        """Rows whose bounds meet `box` (None: all), in the order of `row`."""
        rows: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        geometries: list[NDArray[np.object_]] = [np.zeros(0, object)]
        texts: dict[str, list[NDArray[np.object_]]] = {name: [np.zeros(0, object)] for name in columns}
        for first, geometry, batch in self._batches(columns, box):
            keep = np.flatnonzero(np.ones(len(geometry), bool) if box is None else _meet(geometry, box))
            rows.append(first + keep.astype(np.int64))
            geometries.append(geometry[keep])
            for name, parts in texts.items():
                parts.append(as_text(_values(batch[name].take(keep))))
        return Features(
            row=np.concatenate(rows),
            geometry=np.concatenate(geometries),
            columns={name: np.concatenate(parts) for name, parts in texts.items()},
        )

    def read_columns(self, names: Sequence[str]) -> dict[str, NDArray[np.object_]]:
        """Columns of all rows as text, without geometry, in one common order."""
        with self._open() as file:
            table = file.read(columns=list(names))
        return {name: as_text(_values(table[name].combine_chunks())) for name in names}

    def _batches(self, columns: Sequence[str], box: Box | None) -> Iterator[tuple[int, NDArray[np.object_], Any]]:
        """First row, geometries and the batch itself, of the row groups that may meet `box`."""
        with self._open() as file:
            first = 0
            for group in range(file.metadata.num_row_groups):
                n_rows = file.metadata.row_group(group).num_rows
                if box is None or self._may_meet(file.metadata.row_group(group), box):
                    wanted = list(dict.fromkeys((*columns, self.geometry_column)))
                    done = first
                    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted):
                        yield done, _geometry(_values(batch[self.geometry_column])), batch
                        done += len(batch)
                first += n_rows

    def _may_meet(self, group: Any, box: Box) -> bool:
        """Whether the statistics of a row group allow for a row that meets `box`."""
        if self.covering is None:
            return True
        found = {}
        for index in range(group.num_columns):
            column = group.column(index)
            if column.path_in_schema in self.covering:
                if column.statistics is None or not column.statistics.has_min_max:
                    return True
                found[column.path_in_schema] = column.statistics
        if len(found) < 4:
            return True
        xmin, ymin, xmax, ymax = (found[path] for path in self.covering)
        # Coverings are often float32: grown by its rounding, as bounds are rounded to the nearest there.
        slack = 1e-6 * max(abs(value) for value in box)
        west, south, east, north = box
        return bool(
            xmin.min - slack <= east
            and ymin.min - slack <= north
            and xmax.max + slack >= west
            and ymax.max + slack >= south
        )

    def _open(self) -> Any:
        return _parquet(self.path)


def _parquet(path: str) -> Any:
    import fsspec
    import pyarrow.parquet as pq

    if "://" in path:
        return pq.ParquetFile(fsspec.open(path, "rb").open())
    return pq.ParquetFile(path)


def _values(column: Any) -> NDArray[np.object_]:
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values


def _meet(geometry: NDArray[np.object_], box: Box) -> NDArray[np.bool_]:
    """Whose bounds meet `box`; rows without bounds are kept, so that they are listed."""
    west, south, east, north = shapely.bounds(geometry).T
    return np.asarray(~((west > box[2]) | (south > box[3]) | (east < box[0]) | (north < box[1])))


def _open_parquet(path: str) -> ParquetFile:
    try:
        with _parquet(path) as file:
            metadata, names, n_rows = (
                file.metadata.metadata or {},
                tuple(file.schema_arrow.names),
                file.metadata.num_rows,
            )
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
    if b"geo" not in metadata:
        raise ValueError(f"{path} is Parquet without the `geo` metadata of GeoParquet: it states no geometry column")
    geo = json.loads(metadata[b"geo"])
    primary = geo["primary_column"]
    column = geo["columns"][primary]
    if column["encoding"] != "WKB":
        raise ValueError(f"{path} stores geometry as {column['encoding']}; write it as WKB (geopandas does by default)")
    covering = column.get("covering", {}).get("bbox")
    corners = None
    if covering is not None:
        xmin, ymin, xmax, ymax = (".".join(covering[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
        corners = (xmin, ymin, xmax, ymax)
    return ParquetFile(
        path=path,
        crs=_parquet_crs(column),
        names=tuple(name for name in names if name != primary),
        n_rows=n_rows,
        geometry_column=primary,
        stated_bounds=_flat(column["bbox"]) if column.get("bbox") else None,
        covering=corners,
    )


def _parquet_crs(column: Mapping[str, Any]) -> CRS | None:
    """The column's CRS: no `crs` key means OGC:CRS84, an explicit null that nobody knows (GeoParquet 1.1)."""
    stated = column.get("crs", "OGC:CRS84")
    return None if stated is None else CRS.from_user_input(stated)


def _flat(bbox: Sequence[float]) -> Box:
    """The horizontal part of a bounding box of 4 or 6 numbers."""
    half = len(bbox) // 2
    return float(bbox[0]), float(bbox[1]), float(bbox[half]), float(bbox[half + 1])
