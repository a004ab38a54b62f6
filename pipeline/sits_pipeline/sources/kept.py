"""Searches that are kept as stac-geoparquet, so that a plan can be built again without asking, and from the same items.

Every row holds the item exactly as it was sent, addresses without secrets, in the column `item_json`; where the items
allow it the rest of the table is the items as any reader of stac-geoparquet knows them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import shapely

from sits_catalog.addresses import published, without_secrets
from sits_catalog.parquet_rows import ParquetRows
from sits_catalog.region import Season
from sits_pipeline.folder import Folder
from sits_pipeline.sources.base import SearchResult, ServiceSource, SourceError
from sits_pipeline.sources.catalogue import MAX_ITEMS
from sits_pipeline.sources.documents import check_item
from sits_pipeline.sources.footprints import footprint_of
from sits_pipeline.sources.web import fetch, is_web
from sits_pipeline.values import JsonObject

__all__ = ["fallback_of_table", "kept_search", "provider_of_table", "read_item_table"]

_NOTE = b"sits:search"
"""Key of the file's metadata that holds what was asked, and when."""
_MAX_BYTES = 500 * 2**20
_GRID = 1e-7
"""Degrees to which an area is told apart: a centimetre."""

Table = Any  # pyarrow.Table; pyarrow has no type information and is slow to import


def kept_search(
    source: ServiceSource, area: shapely.Geometry, season: Season, *, folder: Folder, name: str, again: bool
) -> tuple[SearchResult, str]:
    """Scenes of an area (lon/lat) and a season, and a sentence that says when the service was asked.

    The answer is kept in `folder`, under a name that all of the question decides. Where it is there the service is not
    asked, unless `again`. Raises SourceError where it cannot be searched or the file is damaged.
    """
    if "table" in source.query:
        return source.search(area, season), "the items come from a table; no service is searched"
    file = f"{name}-{_digest(source.query, area, season)}.parquet"
    kept = None if again or not folder.exists(file) else _read_kept(folder, file)
    if kept is not None:
        items, note = kept
        if not note.get("shortened"):
            day = str(note.get("searched"))[:10]
            sentence = f"the search of {day} is kept in {folder.location}/{file}; --search-again asks anew"
            return source.scenes_from(items, area, season), sentence
    found = source.find(area, season)
    clean: list[JsonObject] = published(found)
    shortened = [item.get("assets") for item in found] != [item.get("assets") for item in clean]
    if clean:
        note = {"query": source.query, "season": _days(season), "searched": _now(), "shortened": shortened}
        folder.write(file, _encode(clean, note))
    if shortened:
        # What is left of such an address leads nowhere; the items are listed, but each build asks anew.
        why = "the addresses of its assets hold queries, which may be secrets and are not kept"
        return source.scenes_from(
            found, area, season
        ), f"searched now: {len(found)} items, and so each time, since {why}"
    where = f" and kept in {folder.location}/{file}" if clean else ""
    return source.scenes_from(clean, area, season), f"searched now: {len(clean)} items{where}"


def read_item_table(location: str) -> list[JsonObject]:
    """Items of a stac-geoparquet file: a kept search, the `sources.parquet` of a dataset, or another's.

    `location` is a local path or an fsspec URL. Raises SourceError.
    """
    return _items(_read_table(_bytes_of(location), without_secrets(location)), without_secrets(location))


def provider_of_table(location: str) -> str | None:
    """Whose items a table holds, by its own words; None where there are several or it does not say.

    Raises SourceError.
    """
    table = _read_table(_bytes_of(location), without_secrets(location))
    note = _note(table)
    if "query" in note:
        query = note["query"]
        return str(query["provider"]) if isinstance(query, dict) and "provider" in query else None
    if "provider" not in table.column_names:
        return None
    names = {name for name in table["provider"].to_pylist() if name}
    return str(names.pop()) if len(names) == 1 else None


def fallback_of_table(location: str) -> str | None:
    """The second provider whose items a kept search holds beside the first's; None where there is none.

    Raises SourceError.
    """
    query = _note(_read_table(_bytes_of(location), without_secrets(location))).get("query")
    second = query.get("fallback") if isinstance(query, dict) else None
    return str(second["provider"]) if isinstance(second, dict) and "provider" in second else None


def _digest(query: JsonObject, area: shapely.Geometry, season: Season) -> str:
    """12 digits of the SHA-256 over all that decides the answer."""
    exact = shapely.normalize(shapely.set_precision(area, _GRID))
    asked = json.dumps([query, shapely.to_wkt(exact, rounding_precision=7), _days(season)], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:12]


def _days(season: Season) -> list[str]:
    return [season.start.isoformat(), season.end.isoformat()]


def _now() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


# Writing


def _encode(items: Sequence[JsonObject], note: JsonObject) -> bytes:
    """A stac-geoparquet file; of items that disagree in types only what all have, beside their JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    try:
        rows = parse_stac_items_to_arrow([_row(item) for item in items])
    except (pa.ArrowException, LookupError, TypeError, ValueError, AttributeError):
        rows = parse_stac_items_to_arrow([_bare_row(item) for item in items])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        to_parquet(rows, path)
        table = pq.ParquetFile(path).read()
    metadata = {**(table.schema.metadata or {}), _NOTE: json.dumps(note, sort_keys=True).encode()}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    return buffer.getvalue()


def _row(item: JsonObject) -> JsonObject:
    """The item with its own JSON among its properties, and the box that its footprint has."""
    return {**item, **_place(item), "properties": {**item["properties"], "item_json": json.dumps(item)}}


def _bare_row(item: JsonObject) -> JsonObject:
    """Id, place and time alone, whatever the item holds."""
    properties = item.get("properties")
    sensed = properties.get("datetime") if isinstance(properties, dict) else None
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": str(item.get("id")),
        **_place(item),
        "links": [],
        "assets": {},
        "collection": str(item.get("collection")),
        "properties": {"datetime": _time(sensed), "item_json": json.dumps(item)},
    }


def _place(item: JsonObject) -> JsonObject:
    """Geometry and box; empty and NaN where the item has none, since the format knows one kind of each."""
    try:
        footprint = footprint_of(item)
    except ValueError:
        footprint = shapely.Polygon()
    return {
        "geometry": json.loads(shapely.to_geojson(footprint)),
        "bbox": [float(value) for value in shapely.bounds(footprint)],
    }


def _time(text: object) -> str | None:
    try:
        return datetime.fromisoformat(str(text)).isoformat()
    except ValueError:
        return None


# Reading


def _read_kept(folder: Folder, file: str) -> tuple[list[JsonObject], JsonObject]:
    """Items of a kept search and what is noted of it."""
    place = f"{folder.location}/{file}"
    advice = "remove it, or add --search-again"
    table = _read_table(folder.read(file), place, advice=advice)
    if "item_json" not in table.column_names or not _note(table):
        raise SourceError(f"the kept search {place} is none: it holds no items as they were found; {advice}")
    return _items(table, place), _note(table)


def _bytes_of(location: str) -> bytes:
    parent, _, name = location.rpartition("/")
    shown = without_secrets(location)
    try:
        return fetch(location, max_bytes=_MAX_BYTES).body if is_web(location) else Folder(parent or ".").read(name)
    except FileNotFoundError:
        raise SourceError(f"no table of items at {shown}; give a stac-geoparquet file") from None
    except OSError as error:
        raise SourceError(f"the table of items {shown} cannot be read: {error.strerror or error}") from error


def _read_table(data: bytes, location: str, *, advice: str = "give a stac-geoparquet file") -> Table:
    import pyarrow as pa

    try:
        with ParquetRows(io.BytesIO(data), size=len(data), name=f"the table of items {location}") as rows:
            metadata, schema = rows.file.metadata, rows.file.schema_arrow
            if metadata.num_rows > MAX_ITEMS:
                raise SourceError(f"the table {location} holds more than {MAX_ITEMS} items; give a part of it")
            groups = range(metadata.num_row_groups)
            batches = (batch for group in groups for batch in rows.batches(schema.names, group))
            return pa.Table.from_batches(batches, schema)
    except (pa.ArrowException, OSError) as error:
        what = " ".join(str(error).split())[:150]
        raise SourceError(f"the table of items {location} is damaged or no Parquet file ({what}); {advice}") from error
    except ValueError as error:  # too many rows, or bytes
        raise SourceError(str(error)) from None


def _note(table: Table) -> JsonObject:
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    try:
        note = json.loads(metadata.get(_NOTE, b"{}"))
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _items(table: Table, location: str) -> list[JsonObject]:
    """The items of a table; those that are there as JSON exactly as they were."""
    import pyarrow as pa
    from stac_geoparquet.arrow import stac_table_to_items

    whole = table["item_json"].to_pylist() if "item_json" in table.column_names else [None] * table.num_rows
    try:
        missing = [row for row, text in enumerate(whole) if text is None]
        columns = [name for name in table.column_names if name != "item_json"]
        rows = table.select(columns).take(pa.array(missing, pa.int64()))
        rebuilt = dict(zip(missing, stac_table_to_items(rows) if missing else (), strict=True))
        items = [rebuilt[row] if text is None else json.loads(text) for row, text in enumerate(whole)]
    except (pa.ArrowException, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        what = " ".join(str(error).split())[:150]
        raise SourceError(f"the table {location} is no stac-geoparquet file ({what})") from error
    if not all(isinstance(item, dict) for item in items):
        raise SourceError(f"the table {location} holds something that is no item")
    for item in items:
        check_item(item, f"the table {location}")
    return items
