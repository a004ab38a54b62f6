"""Location sets in words and as JSON: what would be built, and what a dataset holds."""

from __future__ import annotations

import io
from collections import Counter

from sits_catalog.sentinel2 import BANDS
from sits_pipeline.folder import Folder
from sits_pipeline.patches.plan import PatchPlan
from sits_pipeline.store import read_attributes
from sits_pipeline.values import JsonObject

__all__ = ["dataset_as_json", "dataset_in_words", "plan_as_json", "plan_in_words"]


def plan_as_json(plan: PatchPlan) -> JsonObject:
    """Locations with the days and items that were chosen, and what it takes to read and write them."""
    rule, bands = plan.wanted.rule, plan.wanted.imagery.bands
    pixels = rule.side_px**2
    scenes = sum(1 for _ in plan.scenes())
    scene_bytes = sum(2 * (10 / BANDS[name].resolution_m) ** 2 for name in bands) + 0.25
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


def plan_in_words(plan: PatchPlan) -> str:
    """The same for people."""
    facts = plan_as_json(plan)
    without = [place for place in facts["locations"] if not place["days"]]
    zones = Counter(place["crs"] for place in facts["locations"])
    lines = [
        f"{facts['set']}: {facts['patches']} patches of {facts['side_px']} x {facts['side_px']} px of 10 m in "
        f"{len(zones)} UTM zone{'s' if len(zones) > 1 else ''}",
        f"  dates      {facts['dates']} a patch, {facts['scenes']} scenes to read",
        f"  bands      {' '.join(facts['bands'])}",
        f"  shards     {facts['shards']} of {facts['patches_a_shard']} patches",
        f"  to read    {facts['read_gb']:.2f} GB of pixels",
        f"  to write   at most {facts['raw_gb']:.2f} GB",
        f"  plan       {facts['config_sha256'][:16]}",
    ]
    lines += [f"  not found  {place['id']}: {place['reason']}" for place in without[:5]]
    if len(without) > 5:
        lines.append(f"  not found  {len(without) - 5} more locations")
    return "\n".join(lines)


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
