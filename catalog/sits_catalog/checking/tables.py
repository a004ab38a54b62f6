"""The tables of a dataset against the contract, by their Parquet footers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sits_catalog.checking.zarr_tree import Grid
from sits_catalog.cube import CHIP, IGNORE, MAX_ITEMS_A_DATE

__all__ = ["check_chips", "check_parcels", "check_patches", "check_sources"]

_PARCELS = {
    "parcel_id": "uint32",
    "source_key": "string",
    "source_code": "string",
    "crop_type": "uint16",
    "crop_name": "string",
    "hcat_code": "string",
    "area_ha": "double",
    "n_pixels": "uint32",
    "split": "string",
    "flags": "list<string>",
    "geometry": "binary",
}
_CHIPS = {
    "chip_id": "string",
    "kind": "string",
    "row": "integer",
    "col": "integer",
    "height": "integer",
    "width": "integer",
    "split": "string",
    "labelled_share": "double",
    "n_parcels": "integer",
    "dominant_crop": "uint16",
    "crop_counts": "map",
    "clear_dates": "integer",
    "clear_share": "double",
    "geometry": "binary",
}
_SOURCES = {
    "id": "string",
    "provider": "string",
    "collection": "any",
    "datetime": "any",
    "platform": "any",
    "orbit": "any",
    "processing_baseline": "any",
    "boa_offset_declared": "any",
    "boa_offset_audited": "any",
    "boa_offset_applied": "any",
    "boa_offset_medians": "any",
    "date_index": "any",
    "source_index": "any",
    "status": "string",
    "reason": "any",
    "geometry": "binary",
}
_PATCHES = {
    "patch": "integer",
    "id": "string",
    "name": "string",
    "n_dates": "integer",
    "days": "any",
    "clear_share": "any",
    "split": "string",
    "fold": "integer",
    "status": "string",
    "reason": "string",
    "geometry": "binary",
}

_IMPORTED_PATCHES = {
    "order": "any",
    "clamped": "integer",
    "saturated": "integer",
    "crop_counts": "map",
    "original": "string",
}


def check_patches(path: Path, n_patches: int, n_dates: int, *, imported: bool) -> Iterator[str]:
    """`patches.parquet` of so many patches with so many dates each at most; an imported one has further columns."""
    footer, name = _footer(path), path.name
    yield from _check_columns(name, footer, {**_PATCHES, **(_IMPORTED_PATCHES if imported else {})})
    yield from _check_geo(name, footer, None)
    if footer.metadata.num_rows != n_patches:
        yield f"{name}: has {footer.metadata.num_rows} rows, the arrays have {n_patches} patches"
    patches = _statistics(footer, "patch")
    if patches and (patches[0][0], patches[-1][1]) != (0, n_patches - 1):
        yield f"{name}: patch should run from 0 to {n_patches - 1}, it runs from {patches[0][0]} to {patches[-1][1]}"
    yield from _check_range(name, footer, "n_dates", 0, n_dates)


def check_parcels(path: Path, grid: Grid, *, dense: bool) -> Iterator[str]:
    """`parcels.parquet`; `dense`: ids are 1..N."""
    footer, name = _footer(path), path.name
    yield from _check_columns(name, footer, _PARCELS)
    yield from _check_geo(name, footer, f"EPSG:{grid.epsg}")
    ids = _statistics(footer, "parcel_id")
    n_rows = footer.metadata.num_rows
    if n_rows and ids is not None:
        yield from _check_ids(name, ids, n_rows, dense=dense)
    if n_rows == 0:
        yield f"{name}: has no parcels; a cube without parcels has no such table"


def _check_ids(name: str, ids: list[tuple[Any, Any]], n_rows: int, *, dense: bool) -> Iterator[str]:
    first, last = ids[0][0], ids[-1][1]
    if any(before[1] >= after[0] for before, after in itertools.pairwise(ids)):
        yield f"{name}: parcel_id should ascend"
    elif dense and (first, last) != (1, n_rows):
        yield f"{name}: parcel_id should run from 1 to {n_rows}, it runs from {first} to {last}"
    elif first < 1 or last - first + 1 < n_rows:
        yield f"{name}: parcel_id should be distinct and start at 1 or later, got {n_rows} from {first} to {last}"


def check_chips(path: Path, grid: Grid) -> Iterator[str]:
    """`chips.parquet`."""
    footer, name = _footer(path), path.name
    yield from _check_columns(name, footer, _CHIPS)
    yield from _check_geo(name, footer, f"EPSG:{grid.epsg}")
    height, width = grid.shape
    grid_chips = -(-height // CHIP) * -(-width // CHIP)
    if footer.metadata.num_rows < grid_chips:
        yield f"{name}: has {footer.metadata.num_rows} chips, the grid alone has {grid_chips}"
    yield from _check_range(name, footer, "clear_dates", 0, grid.n_dates)
    yield from _check_range(name, footer, "dominant_crop", 1, IGNORE - 1)
    for column in ("labelled_share", "clear_share"):
        yield from _check_range(name, footer, column, 0, 1)
    for column, size in (("row", height), ("col", width)):
        yield from _check_range(name, footer, column, 0, size - 1)


def check_sources(path: Path, n_dates: int) -> Iterator[str]:
    """`sources.parquet` of a cube or of patches with so many dates."""
    footer, name = _footer(path), path.name
    yield from _check_columns(name, footer, _SOURCES)
    yield from _check_geo(name, footer, None)
    if footer.metadata.num_rows < n_dates:
        yield f"{name}: lists {footer.metadata.num_rows} items, fewer than the cube's {n_dates} dates"
    yield from _check_range(name, footer, "date_index", 0, n_dates - 1)
    yield from _check_range(name, footer, "source_index", 0, MAX_ITEMS_A_DATE - 1)


# Footers


def _footer(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise ValueError(f"no Parquet file: {error}") from error


def _types() -> Mapping[str, Callable[[Any], bool]]:
    from pyarrow import types

    def is_text(kind: Any) -> bool:
        return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))

    return {
        "any": lambda _: True,
        "uint16": types.is_uint16,
        "uint32": types.is_uint32,
        "integer": types.is_integer,
        "double": types.is_float64,
        "string": is_text,
        "binary": lambda kind: types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind),
        "map": types.is_map,
        "list<string>": lambda kind: types.is_list(kind) and is_text(kind.value_type),
    }


def _check_columns(name: str, footer: Any, wanted: Mapping[str, str]) -> Iterator[str]:
    schema, tests = footer.schema_arrow, _types()
    for column, kind in wanted.items():
        if column not in schema.names:
            yield f"{name}: the column {column} is missing"
        elif not tests[kind](schema.field(column).type):
            yield f"{name}: the column {column} should be of type {kind}, got {schema.field(column).type}"


def _check_geo(name: str, footer: Any, code: str | None) -> Iterator[str]:
    """GeoParquet metadata; `code` None: longitude and latitude."""
    text = (footer.metadata.metadata or {}).get(b"geo")
    if text is None:
        yield f"{name}: has no GeoParquet metadata"
        return
    geo = json.loads(text)
    if not str(geo.get("version")).startswith("1.1"):
        yield f"{name}: should be GeoParquet 1.1, got {geo.get('version')!r}"
    column = geo["columns"][geo["primary_column"]]
    if column.get("encoding") != "WKB":
        yield f"{name}: geometries should be WKB, got {column.get('encoding')!r}"
    crs = column.get("crs") or {}
    authority = crs.get("id", {})
    found = f"{authority.get('authority')}:{authority.get('code')}" if authority else None
    if code is not None and found != code:
        yield f"{name}: geometries should be in {code}, got {found}"
    if code is None and found not in (None, "EPSG:4326", "OGC:CRS84"):
        yield f"{name}: geometries should be in longitude and latitude, got {found}"


def _statistics(footer: Any, column: str) -> list[tuple[Any, Any]] | None:
    """Smallest and largest value a row group; None where the footer does not tell or the column is missing."""
    names = [footer.metadata.schema.column(i).path for i in range(footer.metadata.num_columns)]
    if column not in names:
        return None
    index, found = names.index(column), []
    for group in range(footer.metadata.num_row_groups):
        statistics = footer.metadata.row_group(group).column(index).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        found.append((statistics.min, statistics.max))
    return found


def _check_range(name: str, footer: Any, column: str, low: float, high: float) -> Iterator[str]:
    ranges = _statistics(footer, column)
    if not ranges or isinstance(ranges[0][0], str | bytes):
        return
    smallest, largest = min(pair[0] for pair in ranges), max(pair[1] for pair in ranges)
    if smallest < low or largest > high:
        yield f"{name}: {column} should lie in {low}..{high}, got {smallest}..{largest}"
