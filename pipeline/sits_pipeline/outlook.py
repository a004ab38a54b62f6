"""`--plan --offline`: what a region's build would be like, from geometry and orbits alone.

No network, no parcels and no archive are needed, so every figure is an estimate and is marked as one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date, timedelta
from itertools import pairwise

import shapely

from sits_catalog.addresses import without_secrets
from sits_catalog.providers import holding_of, why_not_held
from sits_catalog.region import Region
from sits_pipeline.area import region_area
from sits_pipeline.plan import zones_of_region
from sits_pipeline.plan.lattice import to_lonlat
from sits_pipeline.plan.passes import Prospect, SeenFrom, prospect_of
from sits_pipeline.values import JsonObject

__all__ = ["UNKNOWN", "Outlook", "look_out", "outlook_as_json", "outlook_in_words"]

UNKNOWN = (
    "clouds",
    "passes without acquisition, scenes that are missing, twice there or in halves",
    "processing baselines",
    "number, classes and pixels of parcels, and splits",
)
"""What nothing but a search, or a file of parcels, can tell."""


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What to expect of a region's build."""

    region: Region
    prospects: tuple[Prospect, ...]
    """One a dataset."""
    remarks: tuple[str, ...]
    """What stands against it."""


def look_out(region: Region, *, cell_px: int) -> Outlook:
    """The outlook of a region, from its place, season, bands and source.

    Raises ValueError for a simulated region, whose archive is not flown over, and for one whose place only a network
    or a file of parcels could tell.
    """
    if region.imagery.source == "simulated":
        raise ValueError(
            f"region {region.id} is simulated: its {region.imagery.dates} dates are no passes of a satellite; --plan "
            "without --offline needs no network for it"
        )
    file = region.place.file
    if file is not None and "://" in region.resolve(file):
        raise ValueError(f"--offline reads no address, and the place of {region.id} is one; name a local file")
    zones = zones_of_region(region, region_area(region))
    bands = region.imagery.bands
    merged = region.imagery.mosaicking == "orbit"
    prospects = tuple(prospect_of(zone, region.season, bands, cell_px=cell_px, merged=merged) for zone in zones)
    return Outlook(region=region, prospects=prospects, remarks=tuple(_remarks(region, prospects)))


def _remarks(region: Region, prospects: tuple[Prospect, ...]) -> list[str]:
    imagery = region.imagery
    holding = holding_of(imagery.source, imagery.collection)
    if holding is None:
        remarks = [f"what {imagery.source} holds is not known here: the dates are those of all passes"]
    else:
        why = [why_not_held(holding, region.season, _bounds(prospect)) for prospect in prospects]
        remarks = sorted({sentence for sentence in why if sentence is not None})
    parcels = region.parcels
    if parcels is not None and parcels.path is None:
        name = f"{parcels.source}" + ("" if parcels.year is None else f" --year {parcels.year}")
        remarks.append(f"its parcels are not here yet: sits-catalog parcels fetch {name}")
    return remarks


def _bounds(prospect: Prospect) -> tuple[float, float, float, float]:
    west, south, east, north = shapely.bounds(to_lonlat(prospect.zone.ground, prospect.zone.epsg))
    return float(west), float(south), float(east), float(north)


def outlook_as_json(outlook: Outlook) -> JsonObject:
    """The outlook, marked as an estimate."""
    region = outlook.region
    holding = holding_of(region.imagery.source, region.imagery.collection)
    return {
        "region": region.id,
        "estimated": True,
        "made_from": "orbits and tiles, without network",
        "season": [region.season.start.isoformat(), region.season.end.isoformat()],
        "source": region.imagery.source,
        "processing": None if holding is None else holding.processing,
        "parcels": _parcels_of(region),
        "remarks": list(outlook.remarks),
        "unknown": list(UNKNOWN),
        "datasets": [_dataset(prospect) for prospect in outlook.prospects],
    }


def _parcels_of(region: Region) -> str | None:
    if region.parcels is None:
        return None
    return region.parcels.source or without_secrets(region.parcels.path or "")


def _dataset(prospect: Prospect) -> JsonObject:
    zone, box = prospect.zone, prospect.zone.geobox
    return {
        "name": zone.name,
        "crs": f"EPSG:{zone.epsg}",
        "shape": list(box.shape),
        "corner": [box.affine.c, box.affine.f],
        "bounds": [round(value, 6) for value in _bounds(prospect)],
        "mgrs_tiles": list(prospect.mgrs_tiles),
        "orbits": [
            {
                "relative_orbit": orbit.relative_orbit,
                "share": round(orbit.share, 4),
                "passes": len(orbit.days),
                "mgrs_tiles": list(orbit.tiles),
            }
            for orbit in prospect.orbits
        ],
        "revisit_days": round(prospect.revisit_days, 2),
        "dates": [day.isoformat() for day in prospect.days],
        "cell_px": prospect.cell_px,
        "shard_px": prospect.shard_px,
        "estimate": asdict(prospect.estimate),
    }


def outlook_in_words(outlook: Outlook) -> str:
    """The same for people."""
    lines = ["estimated from orbits and tiles, without network; --plan without --offline searches"]
    lines += [line for prospect in outlook.prospects for line in _in_words(prospect)]
    lines += [f"  but        {remark}" for remark in outlook.remarks]
    return "\n".join([*lines, f"  not known  {'; '.join(UNKNOWN)}"])


def _in_words(prospect: Prospect) -> list[str]:
    zone, cost, days = prospect.zone, prospect.estimate, prospect.days
    height, width = zone.geobox.shape
    wait = f"; longest wait for any pass {_longest(days)} days" if len(days) > 1 else ""
    return [
        f"{zone.name}: EPSG:{zone.epsg}, {width} x {height} px of 10 m, {width * height / 1e4:.1f} km2",
        f"  tiles      {' '.join(prospect.mgrs_tiles)}",
        f"  orbits     {', '.join(map(_orbit, prospect.orbits))}",
        f"  revisit    a place is passed every {prospect.revisit_days:.1f} days{wait}",
        f"  dates      about {cost.dates} from {days[0]} to {days[-1]}, about {cost.scenes} scenes",
        f"  cells      {cost.cells} of {prospect.cell_px} px, shards of {prospect.shard_px} px",
        f"  to read    about {_gb(cost.read_gb)} of pixels",
        f"  to write   about {_gb(cost.write_gb)}",
        f"  time       about {_duration(cost.hours)} on two cores, had they all scenes as local files",
        f"  charged    about {cost.processing_units:.0f} processing units, were it built from Sentinel Hub",
    ]


def _orbit(orbit: SeenFrom) -> str:
    return f"R{orbit.relative_orbit:03d} ({orbit.share:.0%}, {len(orbit.days)} passes)"


def _longest(days: tuple[date, ...]) -> int:
    waits = [later - earlier for earlier, later in pairwise(days)]
    return max(waits, default=timedelta()).days


def _gb(gigabytes: float) -> str:
    return f"{gigabytes / 1000:.1f} TB" if gigabytes >= 1000 else f"{gigabytes:.1f} GB"


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"
