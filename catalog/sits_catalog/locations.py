"""Locations: points of the Earth with an id, in CSV, GeoJSON or GeoParquet, for datasets of many small places."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sits_catalog.parquet_rows import ParquetRows

__all__ = ["NORTHERNMOST", "SOUTHERNMOST", "Location", "is_location_file", "read_locations", "write_locations"]

SOUTHERNMOST, NORTHERNMOST = -80.0, 84.0
"""Latitudes between which UTM, and with it Sentinel-2's tiling grid, is defined."""

_SUFFIXES = (".csv", ".geojson", ".json", ".parquet", ".geoparquet")
_WGS84 = {"OGC:CRS84", "EPSG:4326"}
_LONGEST = 200
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters and halves of surrogates."""
_CRS84 = "urn:ogc:def:crs:OGC:1.3:CRS84"


@dataclass(frozen=True, slots=True)
class Location:
    """A point of the Earth."""

    id: str
    """Unique in its file."""
    lon: float
    """Degrees east, WGS 84, -180 to 180."""
    lat: float
    """Degrees north, WGS 84, 80 S to 84 N."""
    city: str | None = None
    """The city near which it was drawn; None where it was drawn otherwise."""
    country: str | None = None
    """ISO 3166 code of two letters of that city's country."""


def is_location_file(path: str) -> bool:
    """Whether the suffix is one of those that are read and written here."""
    return path.lower().endswith(_SUFFIXES)


def read_locations(path: str | Path) -> tuple[Location, ...]:
    """All locations of a file, in its order.

    A CSV has a header with the columns lon and lat, and id if it likes; GeoJSON and GeoParquet hold points in WGS 84.
    Without ids the points are numbered from 0. Raises FileNotFoundError; ValueError that names the line, feature or row
    for what is no location.
    """
    path = Path(path)
    _check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}" if not path.exists() else f"{path} is a folder, and no file")
    found = _without_repeats(path, _READERS[path.suffix.lower()](path))
    if not found:
        raise ValueError(f"{path} holds no location")
    if any(location.id for location in found):
        return found
    width = len(str(len(found) - 1))
    return tuple(Location(f"{i:0{width}d}", at.lon, at.lat, at.city, at.country) for i, at in enumerate(found))


def write_locations(path: str | Path, locations: Sequence[Location]) -> None:
    """Write locations in the format that the suffix names; the same locations give the same bytes.

    Raises ValueError for a suffix that is not known, FileNotFoundError where the folder is not there.
    """
    path = Path(path)
    _check_suffix(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to; make it first")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, and a file is to be written there")
    data = _WRITERS[path.suffix.lower()](locations)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise type(error)(f"{path} cannot be written: {error.strerror}; write to another file") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _check_suffix(path: Path) -> None:
    if not is_location_file(path.name):
        raise ValueError(f"locations are in .csv, .geojson or .parquet files; got {path}")


@dataclass(frozen=True, slots=True)
class _Row:
    """A location as it stands in a file, before it is believed."""

    where: str
    """Line, feature or row, for people."""
    id: object
    lon: object
    lat: object
    city: object
    country: object


def _without_repeats(path: Path, rows: Iterable[_Row]) -> tuple[Location, ...]:
    """Locations of the rows. Raises ValueError where an id comes twice, or is missing here and there."""
    seen: dict[str, str] = {}
    found: list[Location] = []
    for row in rows:
        location = _location(path, row)
        if found and bool(found[-1].id) != bool(location.id):
            raise ValueError(f"{path}, {row.where}: all locations have an id or none has; give each one an id")
        if location.id and location.id in seen:
            raise ValueError(
                f"{path}, {row.where}: the id {location.id!r} is that of {seen[location.id]} too; ids must be unique"
            )
        seen[location.id] = row.where
        found.append(location)
    return tuple(found)


def _location(path: Path, row: _Row) -> Location:
    """A row as a location whose id may be empty. Raises ValueError for coordinates that are none."""
    lon, lat = (_number(path, row.where, name, value) for name, value in (("lon", row.lon), ("lat", row.lat)))
    if not -180 <= lon <= 180:
        raise ValueError(f"{path}, {row.where}: lon must be from -180 to 180 degrees; got {lon}")
    if not SOUTHERNMOST <= lat <= NORTHERNMOST:
        raise ValueError(
            f"{path}, {row.where}: lat must be from {SOUTHERNMOST:.0f} to {NORTHERNMOST:.0f} degrees, where UTM is "
            f"defined; got {lat}"
        )
    texts = [_text(value) for value in (row.id, row.city, row.country)]
    wrong = next((text for text in texts if text is not None and (len(text) > _LONGEST or _UNSEEN.search(text))), None)
    if wrong is not None:
        raise ValueError(
            f"{path}, {row.where}: ids and names have at most {_LONGEST} characters and none that nobody sees; got "
            f"{wrong[:60]!r}"
        )
    return Location(texts[0] or "", lon, lat, texts[1], texts[2])


def _number(path: Path, where: str, name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path}, {where}: {name} must be a number of degrees; got {repr(value)[:60]}")
    return number


def _text(value: object) -> str | None:
    return None if value is None else str(value).strip() or None


def _read_csv(path: Path) -> Iterator[_Row]:
    try:
        # Spreadsheets put a byte order mark before the header.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            names = reader.fieldnames or []
            if not {"lon", "lat"} <= set(names):
                got = ", ".join(names) or "none"
                raise ValueError(f"{path}, line 1: a CSV of locations has the columns lon and lat; got {got}")
            for row in reader:
                yield _Row(f"line {reader.line_num}", *(row.get(name) for name in _NAMES))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: is no CSV: {error}") from error


def _read_geojson(path: Path) -> Iterator[_Row]:
    try:
        whole = json.loads(path.read_bytes())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text; save it as GeoJSON in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not GeoJSON: {error}") from error
    if not isinstance(whole, dict) or whole.get("type") != "FeatureCollection":
        raise ValueError(f"{path}: locations are a FeatureCollection of points; got {_kind(whole)}")
    properties = _object(path, "crs", "properties", _object(path, "the collection", "crs", whole))
    crs = properties.get("name", _CRS84)
    if crs not in (_CRS84, "urn:ogc:def:crs:EPSG::4326", *sorted(_WGS84)):
        raise ValueError(f"{path}: locations are in degrees, WGS 84; got {crs}; reproject the file")
    features = whole.get("features") or []
    if not isinstance(features, list):
        raise ValueError(f"{path}: features must be a list; got {_shown(features)}")  # noqa: TRY004  # of a file
    for number, feature in enumerate(features, 1):
        yield _row_of_feature(path, f"feature {number}", feature)


def _row_of_feature(path: Path, where: str, feature: object) -> _Row:
    if not isinstance(feature, dict):
        raise ValueError(f"{path}, {where}: must be a Feature; got {_shown(feature)}")  # noqa: TRY004  # of a file
    geometry, properties = (_object(path, where, name, feature) for name in ("geometry", "properties"))
    at = geometry.get("coordinates")
    if geometry.get("type") != "Point" or not isinstance(at, list) or len(at) < 2:
        raise ValueError(f"{path}, {where}: a location is a Point; got {_kind(geometry)}")
    named = feature.get("id", properties.get("id"))
    return _Row(where, named, at[0], at[1], properties.get("city"), properties.get("country"))


def _object(path: Path, where: str, name: str, within: Mapping[str, object]) -> Mapping[str, object]:
    """A member that is an object, or missing. Raises ValueError for anything else."""
    found = within.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{path}, {where}: {name} must be an object; got {_shown(found)}")  # noqa: TRY004  # of a file
    return found


def _kind(value: object) -> str:
    """What a piece of GeoJSON is, for people."""
    return f"a {value['type']}" if isinstance(value, dict) and value.get("type") else "something else"


def _shown(value: object) -> str:
    """A wrong value, for people: not all of a long one."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_geoparquet(path: Path) -> Iterator[_Row]:
    import pyarrow as pa

    try:
        with ParquetRows(str(path), size=path.stat().st_size, name=str(path)) as rows:
            column = _column_of_points(path, rows.file)
            others = [name for name in ("id", "city", "country") if name in rows.file.schema_arrow.names]
            groups = range(rows.file.metadata.num_row_groups)
            batches = (batch for group in groups for batch in rows.batches([column, *others], group))
            for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
                where = f"row {number}"
                lon, lat = _point_of_wkb(path, where, row[column])
                yield _Row(where, row.get("id"), lon, lat, row.get("city"), row.get("country"))
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} is not GeoParquet: {' '.join(str(error).split())[:200]}") from error


def _column_of_points(path: Path, file: Any) -> str:
    """The column of geometries, which are WKB and in degrees. Raises ValueError."""
    try:
        geo = json.loads((file.schema_arrow.metadata or {}).get(b"geo", b"{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not GeoParquet: {error}") from error
    column = geo.get("primary_column") if isinstance(geo, dict) else None
    if not isinstance(column, str) or column not in file.schema_arrow.names:
        raise ValueError(f"{path} is not GeoParquet: it names no column of geometries; write points with GeoPandas")
    described = _object(path, "columns", column, _object(path, "the file's geo", "columns", geo))
    if not _is_wgs84(described.get("crs", _CRS84)):
        raise ValueError(f"{path}: locations are in degrees, WGS 84; got another CRS; reproject the file")
    if described.get("encoding") != "WKB":
        raise ValueError(f"{path}: geometries are read as WKB; got the encoding {described.get('encoding')}")
    return column


def _is_wgs84(crs: object) -> bool:
    """Whether a PROJJSON of GeoParquet, or its absence, means longitude and latitude of WGS 84."""
    identity = crs.get("id") if isinstance(crs, dict) else None
    if isinstance(identity, dict):
        return f"{identity.get('authority')}:{identity.get('code')}" in _WGS84
    return crs == _CRS84


def _point_of_wkb(path: Path, where: str, wkb: object) -> tuple[float, float]:
    """Longitude and latitude; OGC 06-103r4, 8.2: byte order, kind (1 is a point, 1001 one with z), coordinates."""
    if isinstance(wkb, bytes) and len(wkb) >= 21:
        order = "<" if wkb[0] == 1 else ">"
        kind, lon, lat = struct.unpack_from(f"{order}Idd", wkb, 1)
        if kind & 0xFFFF in (1, 1001):
            return lon, lat
    raise ValueError(f"{path}, {where}: a location is a point; got another geometry or none")


def _as_csv(locations: Sequence[Location]) -> bytes:
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_NAMES)
    rows.writerows([at.id, repr(at.lon), repr(at.lat), at.city or "", at.country or ""] for at in locations)
    return text.getvalue().encode()


def _as_geojson(locations: Sequence[Location]) -> bytes:
    features = (
        {
            "type": "Feature",
            "id": at.id,
            "geometry": {"type": "Point", "coordinates": [at.lon, at.lat]},
            "properties": {"id": at.id, "city": at.city, "country": at.country},
        }
        for at in locations
    )
    lines = ",\n".join(json.dumps(feature, ensure_ascii=False) for feature in features)
    return f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'.encode()


def _as_geoparquet(locations: Sequence[Location]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        # No "crs": the default of GeoParquet is longitude and latitude of WGS 84.
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Point"]}},
    }
    texts: Mapping[str, list[str | None]] = {
        name: [getattr(at, name) for at in locations] for name in ("id", "city", "country")
    }
    table = pa.table(
        {
            "id": pa.array(texts["id"], pa.string()),
            "lon": pa.array([at.lon for at in locations], pa.float64()),
            "lat": pa.array([at.lat for at in locations], pa.float64()),
            "city": pa.array(texts["city"], pa.string()),
            "country": pa.array(texts["country"], pa.string()),
            "geometry": pa.array([struct.pack("<BIdd", 1, 1, at.lon, at.lat) for at in locations], pa.binary()),
        },
        metadata={"geo": json.dumps(geo)},
    )
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


_NAMES = tuple(field.name for field in fields(Location))
_READERS = {
    ".csv": _read_csv,
    ".geojson": _read_geojson,
    ".json": _read_geojson,
    ".parquet": _read_geoparquet,
    ".geoparquet": _read_geoparquet,
}
_WRITERS = {
    ".csv": _as_csv,
    ".geojson": _as_geojson,
    ".json": _as_geojson,
    ".parquet": _as_geoparquet,
    ".geoparquet": _as_geoparquet,
}
