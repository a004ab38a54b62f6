"""From locations to a plan: spots placed, scenes found and chosen, everything decided."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import shapely
from odc.geo.geobox import GeoBox

from sits_catalog.locations import Location
from sits_pipeline.config import BuildConfig
from sits_pipeline.folder import Folder
from sits_pipeline.patches.earlier import Choices, Earlier
from sits_pipeline.patches.place import Chosen, Spot, chosen_from
from sits_pipeline.patches.plan import PatchPlan, request_sha256
from sits_pipeline.patches.rule import PatchSet
from sits_pipeline.patches.search import Audit, Audits, Search, choose_all, find_again, searches
from sits_pipeline.plan.lattice import snap
from sits_pipeline.prepare import Listener
from sits_pipeline.sources import open_source
from sits_pipeline.sources.base import CredentialsError, SceneSource, ServiceSource, SourceError
from sits_pipeline.sources.gate import LocalGate
from sits_pipeline.values import Scene, Verdict

__all__ = ["Opened", "PreparedPatches", "open_locations", "prepare_locations"]

_MAX_SIMULATED_PX = 40_000_000
"""Of a simulated archive: 4000 km2, minutes of computing."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Locations on their grids and the source that is asked for their imagery; nothing is searched yet."""

    wanted: PatchSet
    spots: tuple[Spot, ...]
    source: SceneSource
    request_sha256: str
    """Over all that decides which acquisitions are chosen, but what the source answers."""

    @property
    def is_service(self) -> bool:
        """Whether a service is asked, so that its addresses are kept with what was chosen."""
        return isinstance(self.source, ServiceSource)


@dataclass(frozen=True, kw_only=True)
class PreparedPatches:
    """All that a build of a location set needs."""

    plan: PatchPlan
    source: SceneSource
    unusable: tuple[tuple[str, str], ...]
    """Items that cannot be scenes, by id, each with the reason."""

    @property
    def audit_units(self) -> float:
        """Processing units that were charged while choosing, in earlier runs as well."""
        return round(sum(chosen.processing_units for chosen in self.plan.chosen), 6)


@dataclass(frozen=True)
class _Ground:
    """Where the patches of one zone lie, as far as a source cares."""

    geobox: GeoBox


def open_locations(locations: Sequence[Location], wanted: PatchSet, config: BuildConfig, listener: Listener) -> Opened:
    """Place every location and open the source; nothing is asked of a service.

    Raises ValueError, OSError or SourceError with a sentence where the set cannot be built as it is.
    """
    spots = tuple(Spot.of(patch, location, wanted.rule.side_px) for patch, location in enumerate(locations))
    if not spots:
        raise ValueError("there is no location to build; the file holds none")
    listener.stage("opening the imagery")
    source = _open(wanted, spots, config, listener)
    query = None
    if isinstance(source, ServiceSource):
        query = source.query
        source = source.through({limit.name: LocalGate(limit) for limit in source.limits})
    return Opened(wanted=wanted, spots=spots, source=source, request_sha256=request_sha256(wanted, locations, query))


def prepare_locations(
    opened: Opened, config: BuildConfig, listener: Listener, *, earlier: Earlier, choices: Choices | None
) -> PreparedPatches:
    """Find and choose the acquisitions of every location; what an earlier run has chosen stands.

    `choices` is told of every choice that is made now, as soon as it is made; None: nothing is written down. Raises
    ValueError, OSError or SourceError with a sentence where the set cannot be built as it is, and RuntimeError where
    the processing units do not suffice or items could not be looked at.
    """
    wanted, spots, source = opened.wanted, opened.spots, opened.source
    search, unusable = searches(source, spots, wanted.season)
    spent = sum(float(line.get("processing_units", 0.0)) for line in earlier.choices.values())
    audits = Audits(source, max_pu=config.max_pu, spent=spent)
    try:
        known = _standing(opened, earlier, search, audits)
        missing = [spot for spot in spots if spot.patch not in known]
        listener.stage(f"choosing acquisitions of {len(missing)} of {len(spots)} locations")
        listener.progress(len(known), len(spots))
        for chosen in _settled(opened, missing, search, audits, earlier=earlier, choices=choices):
            if choices is not None:
                choices.add(chosen, assets=opened.is_service)
            known[chosen.spot.patch] = chosen
            listener.progress(len(known), len(spots))
    except CredentialsError as error:
        raise SourceError(str(error)) from error
    plan = PatchPlan(wanted=wanted, chosen=tuple(known[spot.patch] for spot in spots))
    _check_any(plan)
    return PreparedPatches(plan=plan, source=source, unusable=_listed(plan, ((i.id, i.reason) for i in unusable)))


def _listed(plan: PatchPlan, found: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    every = {**dict(found), **{name: reason for chosen in plan.chosen for name, reason in chosen.unusable}}
    return tuple(sorted(every.items()))


# Choices


def _settled(
    opened: Opened,
    missing: Sequence[Spot],
    search: Search,
    audits: Audits,
    *,
    earlier: Earlier,
    choices: Choices | None,
) -> Iterator[Chosen]:
    """The choices for these spots, as far as no further look could change them.

    What cannot be looked at is looked at once more in this run and once more in the next, so that a passing fault ends
    in the same choices as none. Where the next run cannot look either, the fault is lasting: the choice stands, and
    the build says what is unread. Raises RuntimeError at the end where there are any for the next run.
    """
    waiting = missing
    for attempt in range(2):
        unsettled: list[Chosen] = []
        for chosen in choose_all(waiting, search, opened.source, audits, opened.wanted):
            if chosen.unread and chosen.spot.patch not in earlier.unsettled:
                unsettled.append(chosen)
            else:
                yield chosen
        if not unsettled:
            return
        if attempt == 0:
            audits.forget_unread()
            waiting = [chosen.spot for chosen in unsettled]
    for chosen in unsettled:
        if choices is not None:
            choices.unsettle(chosen)
    raise RuntimeError(_not_settled(opened, unsettled))


def _not_settled(opened: Opened, unsettled: Sequence[Chosen]) -> str:
    items = sorted({name for chosen in unsettled for name in chosen.unread})
    days = (day for chosen in unsettled for day in chosen.acquisitions)
    looks = (pair for day in days for pair in zip(day.scenes, day.verdicts, strict=True))
    why = {scene.id: verdict.reason for scene, verdict in looks if verdict.reason}
    first = f"{items[0]}: {why[items[0]]}" if items[0] in why else items[0]
    more = f" and {len(items) - 1} more" if len(items) > 1 else ""
    return (
        f"acquisitions of {len(unsettled)} of {len(opened.spots)} locations are not chosen yet, since items could not "
        f"be read ({first}{more}); run the same command again, which asks for them alone: what cannot be read then "
        "either is built as unread"
    )


def _standing(opened: Opened, earlier: Earlier, search: Search, audits: Audits) -> dict[int, Chosen]:
    """The choices of an earlier run that hold, by patch.

    One that another look could change holds where shards are built, else it is made anew. Raises ValueError where
    shards rest on one that does not hold.
    """
    known: dict[int, Chosen] = {}
    for patch, line in earlier.choices.items():
        chosen = chosen_from(line, opened.spots[patch])
        standing = chosen if opened.is_service else find_again(chosen, search)
        if standing is None and earlier.is_built:
            named = ", ".join(scene.id for day in chosen.acquisitions for scene in day.scenes)
            raise ValueError(
                f"items of location {chosen.spot.location.id} are gone from the source, and shards are built on its "
                f"choice ({named}); put them back, or choose another --out"
            )
        if standing is not None and earlier.is_built:
            known[patch] = _audited_again(standing, audits)
        elif standing is not None and not _is_open(standing):
            known[patch] = standing
    return known


def _is_open(chosen: Chosen) -> bool:
    """Whether another look could change the choice."""
    verdicts = [verdict for day in chosen.acquisitions for verdict in day.verdicts]
    return bool(chosen.unread) or any(verdict.applied is None for verdict in verdicts)


def _audited_again(chosen: Chosen, audits: Audits) -> Chosen:
    """The choice that shards are built on, with another look at items that could not be looked at.

    Raises ValueError where their pixels contradict the rule that the shards are built by.
    """
    looks: dict[str, Audit] = {}
    for day in chosen.acquisitions:
        for scene, verdict in zip(day.scenes, day.verdicts, strict=True):
            if verdict.applied is None or scene.id in chosen.unread:
                looks[scene.id] = audit = audits.of(scene)
                if audit.verdict.refused:
                    raise ValueError(_built_on(chosen, scene, audit.verdict))

    def again(scene: Scene, verdict: Verdict) -> Verdict:
        return looks[scene.id].verdict if scene.id in looks else verdict

    days = tuple(replace(day, verdicts=tuple(map(again, day.scenes, day.verdicts))) for day in chosen.acquisitions)
    unread = tuple(name for name in chosen.unread if name not in looks or looks[name].unread)
    units = chosen.processing_units + sum(audit.processing_units for audit in looks.values())
    return replace(chosen, acquisitions=days, unread=unread, processing_units=round(units, 6))


def _built_on(chosen: Chosen, scene: Scene, verdict: Verdict) -> str:
    return (
        f"{scene.id} of location {chosen.spot.location.id} could not be looked at before shards were built on it, and "
        f"now its pixels contradict its metadata ({verdict.reason}); remove the dataset's folder, or choose another "
        "--out, to build without it"
    )


# The source


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


def _check_any(plan: PatchPlan) -> None:
    """Raises ValueError where not one location has acquisitions: something is asked for that does not exist."""
    if any(chosen.acquisitions for chosen in plan.chosen):
        return
    wanted, reasons = plan.wanted, sorted({chosen.reason for chosen in plan.chosen})
    reasons += sorted({verdict.reason for chosen in plan.chosen for _, verdict in chosen.refused})
    advice = (
        f"check the season {wanted.season.start} to {wanted.season.end}, the source {wanted.imagery.source}, max_cloud "
        f"and the bands {' '.join(wanted.imagery.bands)}"
    )
    if wanted.imagery.source == "simulated":
        days = (wanted.season.end - wanted.season.start).days + 1
        advice = (
            f"the archive is simulated with imagery.dates {wanted.imagery.dates} in {days} days, and a patch needs one "
            f"in each window of {wanted.rule.window_days} days: set imagery.dates to {days // 5} or so"
        )
    raise ValueError(f"none of the {plan.n_patches} locations has acquisitions ({'; '.join(reasons[:3])}); {advice}")
