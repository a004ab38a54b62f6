"""`sources.parquet`: every source item that was used or refused, and why, as stac-geoparquet."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import shapely

from sits_catalog.addresses import published
from sits_pipeline.plan import ZonePlan
from sits_pipeline.sources.base import UnusableItem
from sits_pipeline.values import JsonObject, Scene, Verdict

__all__ = ["encode_sources", "source_items"]

_ABSENT = dict.fromkeys(
    (
        *("datetime", "provider", "platform", "orbit", "mgrs_tile", "processing_baseline", "cloud_cover"),
        *("boa_offset_declared", "boa_offset_audited", "boa_offset_applied", "boa_offset_medians"),
        *("date_index", "source_index"),
    )
)


def source_items(
    plan: ZonePlan,
    unusable: Iterable[UnusableItem],
    failures: Sequence[JsonObject],
    notes: Mapping[str, Sequence[str]],
) -> list[JsonObject]:
    """One STAC item an entry, with our columns among its properties: identity, verdict, place in the cube, status.

    Addresses are published without secrets.

    `failures` are the failures of all cells: {day, item, band, error}; `notes` are what services said of how items were
    read, by item.
    """
    unread: dict[str, set[str]] = {}
    for failure in failures:
        unread.setdefault(failure["item"], set()).add(f"{failure['band']}: {failure['error']}")
    items = []
    for date_index, acquisition in enumerate(plan.acquisitions):
        for source_index, (scene, verdict) in enumerate(zip(acquisition.scenes, acquisition.verdicts, strict=True)):
            place = {"date_index": date_index, "source_index": source_index, "status": "used"}
            reason = (
                f"not read in places: {'; '.join(sorted(unread[scene.id]))}" if scene.id in unread else verdict.reason
            )
            reasons = [part for part in (reason, *notes.get(scene.id, ())) if part]
            items.append(_item(scene, {**_facts(scene, verdict), **place, "reason": "; ".join(reasons)}))
    for refusal in plan.refusals:
        facts = {**_ABSENT, **_facts(refusal.scene, refusal.verdict), "status": refusal.status}
        items.append(_item(refusal.scene, {**facts, "reason": refusal.reason}))
    for broken in unusable:
        found = {"item_json": json.dumps(published(broken.item), sort_keys=True)}
        items.append(_item(broken, {**_ABSENT, **found, "status": "failed", "reason": broken.reason}))
    return published(items)  # type: ignore[no-any-return]  # what comes in, cleaned


def _facts(scene: Scene, verdict: Verdict | None) -> JsonObject:
    facts: JsonObject = {
        "datetime": scene.sensed.isoformat().replace("+00:00", "Z"),
        "provider": scene.provider,
        "platform": scene.platform,
        "orbit": scene.orbit,
        "mgrs_tile": scene.mgrs_tile,
        "processing_baseline": scene.baseline,
        "cloud_cover": scene.cloud_cover,
    }
    if verdict is not None:
        facts |= {
            "boa_offset_declared": verdict.declared,
            "boa_offset_audited": verdict.audited,
            "boa_offset_applied": verdict.applied,
            "boa_offset_medians": json.dumps(dict(verdict.medians), sort_keys=True),
        }
    return facts


def _item(source: Scene | UnusableItem, facts: JsonObject) -> JsonObject:
    """The item as found, with our facts; an unusable one keeps its id alone, since anything else of it may be broken.

    Geometry and box are those of the scene, whose footprint was checked. A box has four numbers a row, NaN where there
    is no geometry: the format knows one kind of box.
    """
    found, footprint = (source.item, source.footprint) if isinstance(source, Scene) else ({}, shapely.Polygon())
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "links": [],
        "assets": {},
        "collection": None,
        **found,
        "id": source.id,
        "geometry": json.loads(shapely.to_geojson(footprint)),
        "bbox": [float(value) for value in shapely.bounds(footprint)],
        "properties": {**found.get("properties", {}), **facts},
    }


def encode_sources(items: Sequence[JsonObject]) -> bytes:
    """The items as a stac-geoparquet file; properties that disagree in type among providers are kept as text."""
    import pyarrow as pa
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    try:
        table = parse_stac_items_to_arrow(items)
    except (pa.ArrowException, KeyError, TypeError, ValueError):
        table = parse_stac_items_to_arrow([_plain(item) for item in items])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sources.parquet"
        to_parquet(table, path, compression="zstd")
        return path.read_bytes()


def _plain(item: JsonObject) -> JsonObject:
    """Our facts alone as properties, and the item as it was found as one text."""
    facts = {name: item["properties"].get(name) for name in (*_ABSENT, "status", "reason")}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": item["id"],
        "geometry": item["geometry"],
        "bbox": item["bbox"],
        "links": [],
        "assets": {},
        "collection": item["collection"],
        "properties": {**facts, "item_json": json.dumps(item, sort_keys=True)},
    }
