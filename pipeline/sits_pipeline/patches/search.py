"""Finds the acquisitions of every location: scenes searched, chosen by what metadata say, audited on their pixels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import shapely

from sits_catalog.region import Imagery, Season
from sits_pipeline.patches.choose import choose
from sits_pipeline.patches.place import Chosen, Spot, slim
from sits_pipeline.patches.rule import PatchSet
from sits_pipeline.prepare import audit_of
from sits_pipeline.sources.base import SceneSource, SearchResult, ServiceSource, UnusableItem
from sits_pipeline.sources.charges import audit_cost
from sits_pipeline.steps.group import group_scenes
from sits_pipeline.steps.resample import repeat
from sits_pipeline.values import Acquisition, JsonObject, Scene, Verdict, shape_of

__all__ = ["Audit", "Audits", "Looks", "Search", "choose_all", "choose_one", "fills", "find_again", "searches"]

_THREADS = 8
_AT_ONCE = 4 * _THREADS
"""Locations under way: results wait in order, so that a bound on them is one on memory."""

_ROUNDING_PU = 1e-6

Search = Callable[[Spot], SearchResult]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """A verdict on an item, and what the look at it was like."""

    verdict: Verdict
    unread: bool = False
    """Whether the sample could not be read, so that the verdict is the provider's rule."""
    processing_units: float = 0.0
    """What a service charges for this look; 0 for those who asked later."""


class Audits:
    """Verdicts on items, each looked at once, whichever locations ask for it."""

    def __init__(self, source: SceneSource, *, max_pu: float | None = None, spent: float = 0.0) -> None:
        self._source = source
        self._max_pu = max_pu
        self._spent = spent
        self._lock = threading.Lock()
        self._found: dict[str, Future[Audit]] = {}

    def of(self, scene: Scene) -> Audit:
        """The verdict on a scene; a sample that could not be read gives one too.

        Raises ServiceDown and CredentialsError, since then nothing can be said of any scene, and RuntimeError where the
        look could take more processing units than are left.
        """
        with self._lock:
            known = self._found.get(scene.id)
            future = self._found.setdefault(scene.id, Future())
        if known is not None:
            return replace(known.result(), processing_units=0.0)
        try:
            future.set_result(self._look(scene))
        except BaseException as error:
            future.set_exception(error)
            raise
        return future.result()

    def forget_unread(self) -> None:
        """Look once more at what could not be read, when it is asked for again."""
        with self._lock:
            done = {name: future.result() for name, future in self._found.items() if future.exception() is None}
            for name, audit in done.items():
                if audit.unread:
                    del self._found[name]

    def _look(self, scene: Scene) -> Audit:
        units = self._pay(scene)
        verdict, error = audit_of(self._source, scene)
        return Audit(verdict=verdict, unread=error is not None, processing_units=units)

    def _pay(self, scene: Scene) -> float:
        """Processing units of a look at a scene."""
        units = audit_cost(self._source, [scene]).processing_units
        with self._lock:
            if self._max_pu is not None and self._spent + units > self._max_pu + _ROUNDING_PU:
                raise RuntimeError(
                    f"not all acquisitions are chosen: {self._spent:.2f} processing units are used, and a look at one "
                    f"more item could pass the {self._max_pu:g} of --max-pu; run the same command with a higher "
                    "--max-pu, which goes on where this one stopped"
                )
            self._spent += units
        return units


@dataclass(frozen=True)
class _FoundBefore:
    """Scenes of all spots, found at once, and where they lie."""

    scenes: tuple[Scene, ...]
    tree: shapely.STRtree

    def near(self, spot: Spot) -> SearchResult:
        """The scenes that meet a spot."""
        found = sorted(self.tree.query(spot.outline, predicate="intersects").tolist())
        return SearchResult(scenes=tuple(self.scenes[index] for index in found))


def find_again(chosen: Chosen, search: Search) -> Chosen | None:
    """A choice that was written down without addresses, with those of the same items now; None where one is gone."""
    found = {scene.id: slim(scene) for scene in search(chosen.spot).scenes}
    scenes = [scene for day in chosen.acquisitions for scene in day.scenes]
    if any(scene.id not in found for scene in scenes):
        return None
    days = tuple(replace(day, scenes=tuple(found[scene.id] for scene in day.scenes)) for day in chosen.acquisitions)
    return replace(chosen, acquisitions=days)


def searches(source: SceneSource, spots: Sequence[Spot], season: Season) -> tuple[Search, tuple[UnusableItem, ...]]:
    """How scenes of one spot are found, and what was found unusable on the way.

    A service is asked a spot at a time; files, and tables of items, are read once for all of them.
    """
    if isinstance(source, ServiceSource) and not _is_table(source.query):
        return lambda spot: _search_parts(source, spot.outline, season), ()
    outlines = [spot.outline for spot in spots]
    found = source.search(shapely.union_all(outlines), season) if outlines else SearchResult(scenes=())
    tree = shapely.STRtree([scene.footprint for scene in found.scenes])
    return _FoundBefore(found.scenes, tree).near, found.unusable


def _is_table(query: JsonObject) -> bool:
    """Whether no service is asked, neither a first nor a second one: their items come from a table."""
    second = query.get("fallback")
    return "table" in query and (not isinstance(second, dict) or "table" in second)


def _search_parts(source: ServiceSource, outline: shapely.Geometry, season: Season) -> SearchResult:
    """What a service holds for a patch; each side of the antimeridian is asked for on its own.

    Services are asked for boxes, and that of both sides together is a belt around the globe.
    """
    found = [source.search(part, season) for part in shapely.get_parts(outline)]
    scenes = {scene.id: scene for one in found for scene in one.scenes}
    unusable = {item.id: item for one in found for item in one.unusable}
    return SearchResult(
        scenes=tuple(scenes[name] for name in sorted(scenes)),
        unusable=tuple(unusable[name] for name in sorted(unusable)),
    )


def choose_all(
    spots: Sequence[Spot], search: Search, source: SceneSource, audits: Audits, wanted: PatchSet
) -> Iterator[Chosen]:
    """What is chosen for each spot, in their order, several at a time."""

    def one(spot: Spot) -> Chosen:
        found = search(spot)
        looks = Looks(audits.of, lambda day: fills(source, day, spot, wanted.imagery))
        chosen = choose_one(spot, found.scenes, looks, wanted)
        return replace(chosen, unusable=tuple((item.id, item.reason) for item in found.unusable))

    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: list[Future[Chosen]] = []
        try:
            for spot in spots:
                waiting.append(pool.submit(one, spot))
                if len(waiting) >= _AT_ONCE:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Looks:
    """How pixels are looked at before a choice stands."""

    audit: Callable[[Scene], Audit]
    fills: Callable[[Acquisition], bool | None]
    """Whether an acquisition has data in every pixel of the patch; None: that cannot be read."""


def choose_one(spot: Spot, scenes: Sequence[Scene], looks: Looks, wanted: PatchSet) -> Chosen:
    """What is chosen for a spot out of the scenes near it.

    Only acquisitions that would be taken are looked at: of the hundreds of a season the pixels of a few. Where a scene
    is refused, or a footprint promised more than there is, the choice is made again without it. What another location
    has learned plays no part, so that no choice depends on an order. What could not be looked at counts as good, and
    is named as `unread`: with another look the choice may be another one.
    """
    outline = spot.outline
    known = {scene.id: verdict for scene in scenes if (verdict := _not_to_take(scene, wanted.imagery)) is not None}
    refused: dict[str, tuple[Scene, Verdict]] = {}
    full: dict[tuple[str, ...], bool] = {}
    unread, units = set[str](), 0.0
    while True:
        grouping = group_scenes(
            scenes,
            {scene.id: known.get(scene.id) or _unaudited(scene) for scene in scenes},
            epsg=spot.epsg,
            season=wanted.season,
            max_cloud=wanted.imagery.max_cloud,
            area=outline,
            min_baseline=wanted.imagery.min_baseline,
        )
        left = [day for day in grouping.acquisitions if full.get(_ids(day), True)]
        choice = choose(left, wanted.rule, wanted.season, outline, location=spot.location.id)
        fresh = [scene for day in choice.acquisitions for scene in day.scenes if scene.id not in known]
        unseen = [] if fresh else [day for day in choice.acquisitions if _ids(day) not in full]
        if not (fresh or unseen):
            days = tuple(replace(day, scenes=tuple(map(slim, day.scenes))) for day in choice.acquisitions)
            named = tuple((slim(scene), verdict) for scene, verdict in refused.values())
            return Chosen(
                spot=spot,
                acquisitions=days,
                shift=choice.shift,
                reason=choice.reason,
                refused=named,
                unread=tuple(sorted(unread)),
                processing_units=round(units, 6),
            )
        for scene in fresh:
            audit = looks.audit(scene)
            known[scene.id] = audit.verdict
            units += audit.processing_units
            if audit.unread:
                unread.add(scene.id)
            if audit.verdict.refused:
                refused[scene.id] = (scene, audit.verdict)
        for day in unseen:
            filled = looks.fills(day)
            full[_ids(day)] = filled is not False
            if filled is None:
                unread.update(_ids(day))


def _ids(acquisition: Acquisition) -> tuple[str, ...]:
    return tuple(scene.id for scene in acquisition.scenes)


def fills(source: SceneSource, acquisition: Acquisition, spot: Spot, imagery: Imagery) -> bool | None:
    """Whether every pixel of the patch has data on that day: footprints are drawn loosely, and scenes may be empty.

    Asked of the scene classification alone or, where there is none, of one band. Pixels whose reading a service would
    charge for count as filled: the build will say what they are. None where pixels cannot be read. Raises ServiceDown.
    """
    scenes = acquisition.scenes
    bands = () if all("SCL" in scene.assets for scene in scenes) else imagery.bands[:1]
    if isinstance(source, ServiceSource) and source.cost(scenes, spot.geobox, imagery.bands).processing_units:
        return True
    seen = np.zeros(shape_of(spot.geobox), bool)
    unread = False
    for raster in source.read(scenes, spot.geobox, bands, pad=0):
        if raster.failures or not raster.bands:
            unread = True
            continue
        window = raster.bands.get("SCL") or next(iter(raster.bands.values()))
        part = np.empty_like(seen)
        repeat(window, window.dn > 0, part)
        seen |= part
        if seen.all():
            return True
    return None if unread else False


def _not_to_take(scene: Scene, imagery: Imagery) -> Verdict | None:
    """A refusal of a scene that lacks bands; its pixels need not be looked at."""
    lacking = [name for name in imagery.bands if name not in scene.assets]
    if not lacking:
        return None
    return replace(_unaudited(scene), applied=None, refused=True, reason=f"it has no asset for {', '.join(lacking)}")


def _unaudited(scene: Scene) -> Verdict:
    """What holds until a scene is looked at: the provider's rule."""
    none: Mapping[str, float] = {}
    return Verdict(
        declared=scene.declared_offset,
        audited=None,
        applied=scene.declared_offset,
        medians=none,
        n_pixels=0,
        refused=False,
        reason="",
    )
