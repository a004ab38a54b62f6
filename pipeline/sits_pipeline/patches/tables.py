"""The tables of a location set: one row a patch, and one a source item, date and patch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from sits_pipeline.geoparquet import geo_table
from sits_pipeline.lineage import source_items
from sits_pipeline.patches.choose import cloud_over
from sits_pipeline.patches.place import Chosen
from sits_pipeline.patches.plan import PatchPlan
from sits_pipeline.plan import Zone, ZonePlan
from sits_pipeline.sources.base import UnusableItem
from sits_pipeline.values import Acquisition, JsonObject, Refusal, Scene, Verdict

__all__ = ["BUILT", "NO_ACQUISITION", "UNREAD", "PatchNotes", "patch_sources", "patches_table", "status_of"]

BUILT, NO_ACQUISITION, UNREAD = "built", "no acquisition", "unread"
"""What `status` says of a patch; `unread`: sources of it could not be read, another run may fill it."""

Table = Any  # pyarrow.Table; pyarrow has no type information and is slow to import


@dataclass(frozen=True, kw_only=True)
class PatchNotes:
    """What the journal says of one patch."""

    observed: tuple[int, ...]
    """Pixels a date."""
    clear: tuple[int, ...]
    failures: tuple[JsonObject, ...]
    """{day, item, band, error}"""


def status_of(chosen: Chosen, notes: PatchNotes) -> tuple[str, str]:
    """Status and reason of a patch."""
    if not chosen.acquisitions:
        return NO_ACQUISITION, chosen.reason
    if notes.failures:
        said = sorted({f"{one['item']} {one['band']}: {one['error']}" for one in notes.failures})
        return UNREAD, f"not read in places: {'; '.join(said)}"
    return BUILT, ""


def patches_table(plan: PatchPlan, notes: Mapping[int, PatchNotes]) -> Table:
    """`patches.parquet`: the index of the patches, in their order; geometry is the outline in lon/lat."""
    import pyarrow as pa

    rows = [_row(chosen, notes[chosen.spot.patch]) for chosen in plan.chosen]
    kinds = {
        "patch": pa.uint32(),
        "id": pa.string(),
        "name": pa.string(),
        "country": pa.string(),
        "lon": pa.float64(),
        "lat": pa.float64(),
        "epsg": pa.int32(),
        "transform": pa.list_(pa.float64()),
        "height": pa.int32(),
        "width": pa.int32(),
        "n_dates": pa.int32(),
        "days": pa.list_(pa.date32()),
        "items": pa.list_(pa.list_(pa.string())),
        "cloud_cover": pa.list_(pa.float64()),
        "observed_share": pa.list_(pa.float64()),
        "clear_share": pa.list_(pa.float64()),
        "shift": pa.int32(),
        "split": pa.string(),
        "fold": pa.int32(),
        "status": pa.string(),
        "reason": pa.string(),
    }
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in kinds.items()}
    outlines = np.array([chosen.spot.outline for chosen in plan.chosen], dtype=object)
    return geo_table(columns, geometry=outlines, epsg=4326)


def _row(chosen: Chosen, notes: PatchNotes) -> JsonObject:
    spot, at, days = chosen.spot, chosen.spot.location, chosen.acquisitions
    height, width = (int(size) for size in spot.geobox.shape)
    status, reason = status_of(chosen, notes)
    return {
        "patch": spot.patch,
        "id": at.id,
        "name": at.city,
        "country": at.country,
        "lon": at.lon,
        "lat": at.lat,
        "epsg": spot.epsg,
        "transform": [float(value) for value in spot.geobox.affine[:6]],
        "height": height,
        "width": width,
        "n_dates": len(days),
        "days": [day.day for day in days],
        "items": [[scene.id for scene in day.scenes] for day in days],
        "cloud_cover": [_cloud(day, spot.outline) for day in days],
        "observed_share": [round(pixels / (height * width), 6) for pixels in notes.observed],
        "clear_share": [round(pixels / (height * width), 6) for pixels in notes.clear],
        "shift": chosen.shift,
        "status": status,
        "reason": reason,
    }


def _cloud(acquisition: Acquisition, outline: shapely.Geometry) -> float | None:
    """Per cent, as the metadata of the scenes over the patch say; None where they do not."""
    cloud = cloud_over(acquisition, outline)
    return None if cloud is None or math.isinf(cloud) else cloud


def patch_sources(
    plan: PatchPlan,
    unusable: Iterable[tuple[str, str]],
    failures: Sequence[JsonObject],
    notes: Mapping[str, Sequence[str]],
) -> list[JsonObject]:
    """STAC items of `sources.parquet`: one for each patch, date and item; then each refused and unusable item once.

    Scenes that another one was preferred to are not listed: a choice is no refusal.
    """
    items, refused = [], dict[str, tuple[Scene, Verdict]]()
    by_patch: dict[int, list[JsonObject]] = {}
    for failure in failures:
        by_patch.setdefault(failure["patch"], []).append(failure)
    for chosen in plan.chosen:
        refused |= {scene.id: (scene, verdict) for scene, verdict in chosen.refused}
        place = _plan_of(plan, chosen.acquisitions, ())
        items += _of_patch(chosen.spot.patch, source_items(place, (), by_patch.get(chosen.spot.patch, ()), notes))
    refusals = tuple(
        Refusal(scene=scene, status="failed", reason=verdict.reason, verdict=verdict)
        for _, (scene, verdict) in sorted(refused.items())
    )
    broken = [UnusableItem(id=name, reason=reason, item={}) for name, reason in unusable]
    return items + _of_patch(None, source_items(_plan_of(plan, (), refusals), broken, (), notes))


def _of_patch(patch: int | None, items: Iterable[JsonObject]) -> list[JsonObject]:
    return [{**item, "properties": {**item["properties"], "patch": patch}} for item in items]


def _plan_of(plan: PatchPlan, acquisitions: tuple[Acquisition, ...], refusals: tuple[Refusal, ...]) -> ZonePlan:
    """One place as a plan of its own, which is what lineage is told by."""
    spot = plan.chosen[0].spot
    zone = Zone(name=plan.wanted.id, geobox=spot.geobox, area=shapely.Polygon(), clip_to_strip=False)
    return ZonePlan(
        zone=zone,
        bands=plan.wanted.imagery.bands,
        acquisitions=acquisitions,
        refusals=refusals,
        splits=None,
        cell_px=plan.wanted.rule.side_px,
        config_sha256=plan.config_sha256,
    )
