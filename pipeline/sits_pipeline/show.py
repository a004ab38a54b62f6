"""Plans and outcomes in words and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

import shapely

from sits_catalog.region import Imagery
from sits_pipeline.budget import estimate
from sits_pipeline.finish import Outcome
from sits_pipeline.folder import Folder
from sits_pipeline.journal import segments
from sits_pipeline.plan import ZonePlan
from sits_pipeline.plan.lattice import to_lonlat
from sits_pipeline.plan.zones import Estimate
from sits_pipeline.prepare import Prepared, Zoned, read_begun
from sits_pipeline.sources.access import Limit
from sits_pipeline.sources.base import ServiceSource
from sits_pipeline.store import read_attributes, read_layout
from sits_pipeline.values import JsonObject

__all__ = [
    "dataset_as_json",
    "dataset_in_words",
    "outcome_as_json",
    "outcome_in_words",
    "plan_as_json",
    "plan_in_words",
]


_FREE_MONTH = 10_000
"""Requests, and as many processing units, that a free account of Sentinel Hub at Copernicus Data Space has a month."""


def plan_as_json(prepared: Prepared) -> JsonObject:
    """Dates, cells and costs of each dataset, and what is not used."""
    datasets = [_zone_as_json(prepared, zoned, estimate(prepared.source, zoned.plan)) for zoned in prepared.zones]
    return {"region": prepared.region.id, "datasets": datasets}


def _zone_as_json(prepared: Prepared, zoned: Zoned, cost: Estimate) -> JsonObject:
    plan, box = zoned.plan, zoned.plan.zone.geobox
    standing = Standing.read(prepared, zoned)
    return {
        "name": plan.zone.name,
        "crs": f"EPSG:{plan.zone.epsg}",
        "shape": list(box.shape),
        "corner": [box.affine.c, box.affine.f],
        "bounds": [round(value, 6) for value in _lonlat_bounds(plan)],
        "dates": [acquisition.day.isoformat() for acquisition in plan.acquisitions],
        "scenes": [scene.id for acquisition in plan.acquisitions for scene in acquisition.scenes],
        "refused": [{"id": name, "status": status, "reason": reason} for name, status, reason in _refused(zoned)],
        "bands": list(plan.bands),
        "cell_px": plan.cell_px,
        "shard_px": plan.shard,
        "config_sha256": plan.config_sha256,
        "estimate": asdict(cost),
        "standing": asdict(standing),
    }


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is where a dataset of a plan is to be."""

    location: str
    free_bytes: int | None
    """Room that is left there; None where nobody tells."""
    state: Literal["nothing", "begun", "complete", "other"]
    difference: str
    """How what stands there differs from the plan, as the end of a sentence that begins with its place."""

    @classmethod
    def read(cls, prepared: Prepared, zoned: Zoned) -> Self:
        """From the folder; nothing is written."""
        folder = prepared.out.sub(zoned.plan.zone.name)
        attributes = read_attributes(folder)
        difference = "" if attributes is None else read_begun(folder, attributes).difference(zoned.plan)
        state: Literal["nothing", "begun", "complete", "other"] = "other" if difference else "nothing"
        if attributes is not None and not difference:
            state = "complete" if attributes.get("complete") and not segments(folder) else "begun"
        return cls(location=folder.location, free_bytes=folder.free_bytes(), state=state, difference=difference)

    def in_words(self) -> list[str]:
        """A line where something is there."""
        said = {
            "begun": "this dataset is begun there: a build goes on with it",
            "complete": "this dataset is complete there: a build computes nothing",
            "other": f"{self.location} {self.difference}",
        }
        return [f"  there      {said[self.state]}"] if self.state in said else []


def _room(cost: Estimate, standing: Standing) -> str:
    """What is written and, where that may not fit, what room there is."""
    text = f"{cost.write_gb:.2f} GB"
    if standing.free_bytes is None or standing.state != "nothing" or standing.free_bytes >= cost.write_gb * 1e9:
        return text
    return f"{text}, and {standing.location} has room for {standing.free_bytes / 1e9:.2f} GB"


def _refused(zoned: Zoned) -> list[tuple[str, str, str]]:
    """Id, status and reason of what was found and is not used."""
    refused = [(refusal.scene.id, str(refusal.status), refusal.reason) for refusal in zoned.plan.refusals]
    return sorted(refused + [(item.id, "failed", item.reason) for item in zoned.found.unusable])


def _lonlat_bounds(plan: ZonePlan) -> tuple[float, float, float, float]:
    west, south, east, north = shapely.bounds(
        to_lonlat(shapely.box(*plan.zone.geobox.boundingbox.bbox), plan.zone.epsg)
    )
    return float(west), float(south), float(east), float(north)


def plan_in_words(prepared: Prepared) -> str:
    """What a build of this plan would read and write."""
    costs = [estimate(prepared.source, zoned.plan) for zoned in prepared.zones]
    return "\n\n".join(_zone_in_words(prepared, *pair) for pair in zip(prepared.zones, costs, strict=True))


def _zone_in_words(prepared: Prepared, zoned: Zoned, cost: Estimate) -> str:
    plan, standing = zoned.plan, Standing.read(prepared, zoned)
    height, width = plan.zone.geobox.shape
    days = [acquisition.day for acquisition in plan.acquisitions]
    found = _refused(zoned)
    refused = Counter(status for _, status, _ in found)
    lines = [
        f"{plan.zone.name}: EPSG:{plan.zone.epsg}, {width} x {height} px of 10 m, {width * height / 1e4:.1f} km2",
        f"  dates      {cost.dates} from {days[0]} to {days[-1]}, {cost.scenes} scenes"
        + (f"; not used: {', '.join(f'{n} {status}' for status, n in sorted(refused.items()))}" if refused else ""),
        f"  bands      {' '.join(plan.bands)}",
        f"  cells      {cost.cells} of {plan.cell_px} px, shards of {plan.shard} px",
        f"  to read    {cost.read_gb:.2f} GB of pixels in {cost.requests} {_asked(prepared)}",
        f"  to write   {_room(cost, standing)}",
        f"  time       {_time(prepared, cost)}",
        *_charge(prepared.region.imagery, cost),
        f"  plan       {plan.config_sha256[:16]}",
        *standing.in_words(),
    ]
    lines += [f"  not used   {name}: {reason}" for name, status, reason in found if status == "failed"]
    return "\n".join(lines)


def _asked(prepared: Prepared) -> str:
    return "requests" if isinstance(prepared.source, ServiceSource) else "source blocks"


def _time(prepared: Prepared, cost: Estimate) -> str:
    """How long two cores take, and how long the service's limit makes it."""
    source = prepared.source
    limits: tuple[Limit, ...] = source.limits if isinstance(source, ServiceSource) else ()
    rates = [limit.a_minute for limit in limits if limit.a_minute]
    if rates:
        least = _duration(cost.requests / min(rates) / 60)
        return f"about {_duration(cost.hours)} on two cores, and no less than {least} at {min(rates)} requests a minute"
    return f"about {_duration(cost.hours)} on two cores with local files"


def _charge(imagery: Imagery, cost: Estimate) -> list[str]:
    """What Sentinel Hub will charge; nothing for other sources."""
    if imagery.source != "sentinel-hub":
        return []
    charge = f"  charged    {cost.processing_units:.1f} processing units (PU) of Sentinel Hub"
    audit = (
        f"  audit      up to {cost.audit_processing_units:.2f} PU in {cost.audit_requests} requests more, now and with "
        "each command"
    )
    if imagery.deployment != "cdse":
        return [f"{charge}, from what your account there has a month", audit]
    units, requests = cost.processing_units + cost.audit_processing_units, cost.requests + cost.audit_requests
    share = max(units, requests) / _FREE_MONTH
    return [
        f"{charge}; with its audit {share:.1%} of a free month at CDSE, {_FREE_MONTH} PU and as many requests",
        audit,
    ]


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"


def outcome_as_json(outcome: Outcome) -> JsonObject:
    """What has become of a dataset."""
    return asdict(outcome)


def outcome_in_words(outcome: Outcome) -> str:
    """Where the dataset is and what is missing."""
    state = "complete" if outcome.complete else "INCOMPLETE"
    where = _from_here(outcome.location)
    lines = [
        f"{outcome.name}: {state}, {outcome.cells} {outcome.unit}, {outcome.built} of them computed now",
        f"  cube    {where}/cube.zarr",
        f"  report  {where}/report.html",
    ]
    if outcome.processing_units:
        lines.append(f"  charged {outcome.processing_units:.1f} processing units of Sentinel Hub")
    if outcome.unknown_codes:
        lines.append(
            f"  crop codes that the taxonomy does not know, labelled as ignore: {_some(outcome.unknown_codes)}"
        )
    lines += [f"  not used  {line}" for line in outcome.refused]
    if outcome.failures:
        lines.append(f"  sources that could not be read; the same command reads those {outcome.unit} again:")
        lines += [f"    {line}" for line in _failures(outcome)]
    return "\n".join(lines)


def _failures(outcome: Outcome) -> list[str]:
    cells: dict[tuple[str, str, str], int] = {}
    for failure in outcome.failures:
        key = failure["item"], failure["band"], failure["error"]
        cells[key] = cells.get(key, 0) + 1
    return [f"{item} {band} in {n} {outcome.unit}: {error}" for (item, band, error), n in cells.items()]


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def dataset_as_json(folder: Folder) -> JsonObject:
    """What a dataset holds. Raises FileNotFoundError where there is none."""
    layout = read_layout(folder)
    height, width = layout.geobox.shape
    return {
        "location": folder.location,
        "crs": f"EPSG:{layout.epsg}",
        "corner": [layout.geobox.affine.c, layout.geobox.affine.f],
        "width": width,
        "height": height,
        "bands": list(layout.bands),
        "days": [day.isoformat() for day in layout.days],
        "shard_px": layout.shard,
        "labels": layout.has_labels,
        "finer": list(layout.finer),
        "classes": list(layout.classes),
        "sits_cube": layout.attributes,
    }


def dataset_in_words(facts: JsonObject) -> str:
    """The same for people."""
    cube, days = facts["sits_cube"], facts["days"]
    season, cells = cube["season"], cube["cells"]
    lines = [
        f"{cube['region']}: sits-cube {cube['version']}, {'complete' if cube['complete'] else 'INCOMPLETE'}"
        + (", simulated" if cube.get("simulated") else ""),
        f"  season   {season['start']} to {season['end']}, {len(days)} dates from {days[0]} to {days[-1]}",
        f"  grid     {facts['crs']}, {facts['width']} x {facts['height']} px of 10 m from {facts['corner']}",
        f"  bands    {' '.join(facts['bands'])}",
        f"  stored   shards of {facts['shard_px']} px, {cells['count']} cells of {cells['side']} px",
        f"  baseline {', '.join(cube['radiometry']['baselines'])}; the BOA offset is removed",
        f"  labels   {_classes(facts)}",
        f"  made     {cube['created']} by {cube['software']}, configuration {cube['config_sha256'][:16]}",
    ]
    return "\n".join(lines)


def _classes(facts: JsonObject) -> str:
    if not facts["labels"]:
        return "none"
    finer = "".join(f", and at {10 / factor:g} m" for factor in facts["finer"])
    return f"{len(facts['classes'])} classes{finer}"


def _from_here(location: str) -> str:
    """A local folder below the working folder as a relative path; others as they are."""
    here = Path.cwd()
    return str(Path(location).relative_to(here)) if Path(location).is_relative_to(here) else location
