"""From locations to a plan: spots placed, scenes found and chosen, everything decided."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import shapely
from odc.geo.geobox import GeoBox

from sits_catalog.locations import Location
from sits_pipeline.config import BuildConfig
from sits_pipeline.folder import Folder
from sits_pipeline.patches.place import Chosen, Spot, chosen_from
from sits_pipeline.patches.plan import PatchPlan
from sits_pipeline.patches.rule import PatchSet
from sits_pipeline.patches.search import Audits, choose_all, find_again, searches
from sits_pipeline.plan.lattice import snap
from sits_pipeline.prepare import Listener
from sits_pipeline.sources import open_source
from sits_pipeline.sources.base import SceneSource, ServiceSource
from sits_pipeline.values import JsonObject, Scene, Verdict

__all__ = ["PreparedPatches", "prepare_locations"]

_MAX_SIMULATED_PX = 40_000_000
"""Of a simulated archive: 4000 km2, minutes of computing."""

Keep = Callable[[Chosen, bool], None]
"""Takes a choice, and whether a service was asked for it."""


@dataclass(frozen=True, kw_only=True)
class PreparedPatches:
    """All that a build of a location set needs."""

    plan: PatchPlan
    source: SceneSource
    unusable: tuple[tuple[str, str], ...]
    """Items that cannot be scenes, by id, each with the reason."""


@dataclass(frozen=True)
class _Ground:
    """Where the patches of one zone lie, as far as a source cares."""

    geobox: GeoBox


def prepare_locations(
    locations: Sequence[Location],
    wanted: PatchSet,
    config: BuildConfig,
    listener: Listener,
    *,
    kept: dict[int, JsonObject],
    keep: Keep,
) -> PreparedPatches:
    """Place every location, find and choose its acquisitions; the journal's lines `kept` of an earlier run stand.

    `keep` is told of every choice that is made now, as soon as it is made. Raises ValueError, OSError or SourceError
    with a sentence where the set cannot be built as it is.
    """
    spots = [Spot.of(patch, location, wanted.rule.side_px) for patch, location in enumerate(locations)]
    if not spots:
        raise ValueError("there is no location to build; the file holds none")
    listener.stage("opening the imagery")
    source = _open(wanted, spots, config, listener)
    audits = Audits(source)
    is_service = isinstance(source, ServiceSource)
    search, unusable = searches(source, spots, wanted.season)
    known: dict[int, Chosen] = {}
    for patch, line in kept.items():
        chosen = chosen_from(line, spots[patch])
        standing = chosen if is_service else find_again(chosen, search)
        if standing is not None:
            known[patch] = _audited_again(standing, audits)
    missing = [spot for spot in spots if spot.patch not in known]
    listener.stage(f"choosing acquisitions of {len(missing)} of {len(spots)} locations")
    listener.progress(len(known), len(spots))
    for chosen in choose_all(missing, search, source, audits, wanted):
        keep(chosen, is_service)
        known[chosen.spot.patch] = chosen
        listener.progress(len(known), len(spots))
    plan = PatchPlan(wanted=wanted, chosen=tuple(known[spot.patch] for spot in spots))
    _check_any(plan)
    return PreparedPatches(plan=plan, source=source, unusable=_listed(plan, ((i.id, i.reason) for i in unusable)))


def _listed(plan: PatchPlan, found: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    every = {**dict(found), **{name: reason for chosen in plan.chosen for name, reason in chosen.unusable}}
    return tuple(sorted(every.items()))


def _open(wanted: PatchSet, spots: Sequence[Spot], config: BuildConfig, listener: Listener) -> SceneSource:
    """The source; a simulated one is written first, by one process at a time."""
    grounds = _grounds(spots)
    region, out = wanted.as_region(), Folder(config.out)
    simulated = wanted.imagery.source == "simulated"
    if simulated:
        _check_simulated(grounds)
    # No set's id begins with an underscore, so that no dataset has this name.
    beside = out.path / "_archives" / wanted.id if out.is_local else None
    archive = beside or (config.cache or Path(tempfile.gettempdir())) / f"sits-archive-{wanted.id}"
    with out.lock(f"_archives-{wanted.id}") if simulated else nullcontext():
        source, _ = open_source(region, grounds, archive, config, listener.progress)
    return source


def _grounds(spots: Sequence[Spot]) -> list[_Ground]:
    """The patches' extent in each zone, by zone."""
    zones: dict[int, list[shapely.Geometry]] = {}
    for spot in spots:
        zones.setdefault(spot.epsg, []).append(shapely.box(*spot.geobox.boundingbox.bbox))
    return [_Ground(snap(shapely.union_all(boxes), epsg)) for epsg, boxes in sorted(zones.items())]


def _check_simulated(grounds: Sequence[_Ground]) -> None:
    height, width = grounds[0].geobox.shape
    if len(grounds) > 1 or height * width > _MAX_SIMULATED_PX:
        raise ValueError(
            f"a simulated archive lies in one UTM zone and has at most {_MAX_SIMULATED_PX / 1e4:.0f} km2; these "
            f"locations lie in {len(grounds)} zones and, in the first, on {height * width / 1e4:.0f} km2: name another "
            "source, or take locations nearer to each other"
        )


def _audited_again(chosen: Chosen, audits: Audits) -> Chosen:
    """The choice with another look at items whose offset is unknown for want of a sample.

    Only the pixels of an item whose rule is not firm decide its offset, and such an item is never refused: the choice
    itself stays.
    """

    def again(scene: Scene, verdict: Verdict) -> Verdict:
        return audits.of(scene) if verdict.applied is None else verdict

    days = tuple(replace(day, verdicts=tuple(map(again, day.scenes, day.verdicts))) for day in chosen.acquisitions)
    return replace(chosen, acquisitions=days)


def _check_any(plan: PatchPlan) -> None:
    """Raises ValueError where not one location has acquisitions: something is asked for that does not exist."""
    if any(chosen.acquisitions for chosen in plan.chosen):
        return
    wanted, reasons = plan.wanted, sorted({chosen.reason for chosen in plan.chosen})
    reasons += sorted({verdict.reason for chosen in plan.chosen for _, verdict in chosen.refused})
    raise ValueError(
        f"none of the {plan.n_patches} locations has acquisitions ({'; '.join(reasons[:3])}); check the season "
        f"{wanted.season.start} to {wanted.season.end}, the source {wanted.imagery.source}, max_cloud and the bands "
        f"{' '.join(wanted.imagery.bands)}"
    )
