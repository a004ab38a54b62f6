"""Location sets in words and as JSON: what would be built, and what a dataset holds."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

from sits_catalog.sentinel2 import BANDS
from sits_pipeline.folder import Folder
from sits_pipeline.patches.plan import cost_of
from sits_pipeline.patches.prepare import PreparedPatches
from sits_pipeline.sources.base import ServiceSource
from sits_pipeline.store import read_attributes
from sits_pipeline.values import JsonObject

__all__ = ["dataset_as_json", "dataset_in_words", "plan_as_json", "plan_in_words"]


def plan_as_json(prepared: PreparedPatches) -> JsonObject:
    """Locations with the days and items that were chosen, and what it takes to read and write them."""
    plan = prepared.plan
    rule, bands = plan.wanted.rule, plan.wanted.imagery.bands
    pixels = rule.side_px**2
    scenes = sum(1 for _ in plan.scenes())
    scene_bytes = sum(2 * (10 / BANDS[name].resolution_m) ** 2 for name in bands) + 0.25
    cost = cost_of(prepared.source, plan.wanted, plan.chosen)
    return {
        "set": plan.wanted.id,
        "patches": plan.n_patches,
        "side_px": rule.side_px,
        "dates": rule.dates,
        "bands": list(bands),
        "shards": plan.n_cells,
        "patches_a_shard": plan.shard,
        "config_sha256": plan.config_sha256,
        "scenes": scenes,
        "read_gb": scenes * pixels * scene_bytes / 1e9,
        "raw_gb": plan.n_patches * rule.dates * pixels * (2 * len(bands) + 3) / 1e9,
        "requests": cost.requests,
        "processing_units": round(cost.processing_units, 6),
        "audit_processing_units": prepared.audit_units,
        "refused": [{"id": name, "reason": reason} for name, reason in _refused(prepared)],
        "locations": [
            {
                "id": chosen.spot.location.id,
                "crs": f"EPSG:{chosen.spot.epsg}",
                "corner": [chosen.spot.geobox.affine.c, chosen.spot.geobox.affine.f],
                "days": [day.day.isoformat() for day in chosen.acquisitions],
                "items": [[scene.id for scene in day.scenes] for day in chosen.acquisitions],
                "reason": chosen.reason,
            }
            for chosen in plan.chosen
        ],
    }


def _refused(prepared: PreparedPatches) -> list[tuple[str, str]]:
    """Id and reason of items that would have been taken but for their pixels, and of those that cannot be scenes."""
    found = {scene.id: verdict.reason for chosen in prepared.plan.chosen for scene, verdict in chosen.refused}
    return sorted({**found, **dict(prepared.unusable)}.items())


def plan_in_words(prepared: PreparedPatches) -> str:
    """The same for people."""
    facts = plan_as_json(prepared)
    without = [f"{place['id']}: {place['reason']}" for place in facts["locations"] if not place["days"]]
    zones = Counter(place["crs"] for place in facts["locations"])
    asked = f" in {facts['requests']} requests" if isinstance(prepared.source, ServiceSource) else ""
    lines = [
        f"{facts['set']}: {facts['patches']} patches of {facts['side_px']} x {facts['side_px']} px of 10 m in "
        f"{len(zones)} UTM zone{'s' if len(zones) > 1 else ''}",
        f"  dates      {facts['dates']} a patch, {facts['scenes']} scenes to read",
        f"  bands      {' '.join(facts['bands'])}",
        f"  shards     {facts['shards']} of {facts['patches_a_shard']} patches",
        f"  to read    {facts['read_gb']:.2f} GB of pixels{asked}",
        f"  to write   at most {facts['raw_gb']:.2f} GB",
        *_charge(facts),
        f"  plan       {facts['config_sha256'][:16]}",
    ]
    lines += _first("not used", [f"{one['id']}: {one['reason']}" for one in facts["refused"]], "items")
    lines += _first("not found", without, "locations")
    return "\n".join(lines)


def _charge(facts: JsonObject) -> list[str]:
    """What Sentinel Hub will charge, and what it has charged; nothing for other sources."""
    units, audits = facts["processing_units"], facts["audit_processing_units"]
    if not units and not audits:
        return []
    looks = f", beside {audits:.2f} for looks at items while choosing" if audits else ""
    return [f"  charged    {units:.1f} processing units (PU) of Sentinel Hub{looks}"]


def _first(name: str, found: Sequence[str], what: str) -> list[str]:
    """A line for each of the first five, and one that counts the others."""
    lines = [f"  {name:<10} {line}" for line in found[:5]]
    return lines + ([f"  {name:<10} {len(found) - 5} more {what}"] if len(found) > 5 else [])


def dataset_as_json(folder: Folder) -> JsonObject:
    """What a dataset holds. Raises FileNotFoundError where there is none, ValueError for one of another profile."""
    attributes = read_attributes(folder)
    if attributes is None:
        raise FileNotFoundError(f"no dataset in {folder.location}: it has no cube.zarr; give the folder that holds it")
    if attributes.get("profile") != "patches":
        raise ValueError(
            f"{folder.location} is of the profile {attributes.get('profile')!r}; this tells of the profile 'patches'"
        )
    return {"location": folder.location, "patches": _patches(folder), "sits_cube": attributes}


def _patches(folder: Folder) -> list[JsonObject]:
    """A row a patch; none while the build has not ended."""
    import pyarrow.parquet as pq

    if not folder.exists("patches.parquet"):
        return []
    columns = ["patch", "id", "lon", "lat", "epsg", "n_dates", "days", "clear_share", "status", "reason"]
    rows = pq.read_table(io.BytesIO(folder.read("patches.parquet")), columns=columns).to_pylist()
    return [{**row, "days": [day.isoformat() for day in row["days"]]} for row in rows]


def dataset_in_words(facts: JsonObject) -> str:
    """The same for people."""
    cube, rows = facts["sits_cube"], facts["patches"]
    states = Counter(row["status"] for row in rows)
    days = [day for row in rows for day in row["days"]]
    zones = {row["epsg"] for row in rows}
    held = ", ".join(f"{count} {status}" for status, count in sorted(states.items())) or "not finished"
    lines = [
        f"{cube['region']}: sits-cube {cube['version']}, profile patches, "
        f"{'complete' if cube['complete'] else 'INCOMPLETE'}" + (", simulated" if cube.get("simulated") else ""),
        f"  season   {cube['season']['start']} to {cube['season']['end']}"
        + (f", dates from {min(days)} to {max(days)}" if days else ""),
        f"  patches  {cube['patches']['count']} ({held}), {cube['patches']['dates']} dates, "
        f"{cube['patches']['side']} px of 10 m, {len(zones)} UTM zones",
        f"  stored   {cube['cells']['count']} shards of {cube['cells']['patches']} patches",
        f"  baseline {', '.join(cube['radiometry']['baselines'])}; the BOA offset is removed",
        f"  made     {cube['created']} by {cube['software']}, configuration {cube['config_sha256'][:16]}",
    ]
    return "\n".join(lines)
