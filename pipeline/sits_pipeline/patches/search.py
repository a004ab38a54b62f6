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
from sits_pipeline.sources.base import SceneSource, SearchResult, ServiceSource, UnusableItem
from sits_pipeline.steps.audit import audit_offset
from sits_pipeline.steps.group import group_scenes
from sits_pipeline.steps.resample import repeat
from sits_pipeline.values import Acquisition, Scene, Verdict, shape_of

__all__ = ["Audits", "Looks", "Search", "choose_all", "choose_one", "fills", "find_again", "searches"]

_THREADS = 8
_AT_ONCE = 4 * _THREADS
"""Locations under way: results wait in order, so that a bound on them is one on memory."""

Search = Callable[[Spot], SearchResult]


class Audits:
    """Verdicts on items, each looked at once, whichever locations ask for it."""

    def __init__(self, source: SceneSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._verdicts: dict[str, Future[Verdict]] = {}

    def of(self, scene: Scene) -> Verdict:
        """The verdict on a scene; a sample that could not be read is one too."""
        with self._lock:
            known = self._verdicts.get(scene.id)
            future = self._verdicts.setdefault(scene.id, Future())
        if known is None:
            try:
                future.set_result(self._look(scene))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()

    def _look(self, scene: Scene) -> Verdict:
        try:
            return audit_offset(scene, self._source.sample(scene))
        except OSError as error:
            verdict = audit_offset(scene, None)
            return replace(verdict, reason=f"{verdict.reason} ({error})")


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

    A service is asked a spot at a time; files are read once for all of them.
    """
    if isinstance(source, ServiceSource):
        return lambda spot: source.search(spot.outline, season), ()
    outlines = [spot.outline for spot in spots]
    found = source.search(shapely.union_all(outlines), season) if outlines else SearchResult(scenes=())
    tree = shapely.STRtree([scene.footprint for scene in found.scenes])
    return _FoundBefore(found.scenes, tree).near, found.unusable


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

    audit: Callable[[Scene], Verdict]
    fills: Callable[[Acquisition], bool]
    """Whether an acquisition has data in every pixel of the patch."""


def choose_one(spot: Spot, scenes: Sequence[Scene], looks: Looks, wanted: PatchSet) -> Chosen:
    """What is chosen for a spot out of the scenes near it.

    Only acquisitions that would be taken are looked at: of the hundreds of a season the pixels of a few. Where a scene
    is refused, or a footprint promised more than there is, the choice is made again without it. What another location
    has learned plays no part, so that no choice depends on an order.
    """
    outline = spot.outline
    known = {scene.id: verdict for scene in scenes if (verdict := _not_to_take(scene, wanted.imagery)) is not None}
    refused: dict[str, tuple[Scene, Verdict]] = {}
    full: dict[tuple[str, ...], bool] = {}
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
            return Chosen(spot=spot, acquisitions=days, shift=choice.shift, reason=choice.reason, refused=named)
        for scene in fresh:
            known[scene.id] = verdict = looks.audit(scene)
            if verdict.refused:
                refused[scene.id] = (scene, verdict)
        full |= {_ids(day): looks.fills(day) for day in unseen}


def _ids(acquisition: Acquisition) -> tuple[str, ...]:
    return tuple(scene.id for scene in acquisition.scenes)


def fills(source: SceneSource, acquisition: Acquisition, spot: Spot, imagery: Imagery) -> bool:
    """Whether every pixel of the patch has data on that day: footprints are drawn loosely, and scenes may be empty.

    Asked of the scene classification alone or, where there is none, of one band. Pixels that cannot be read, or whose
    reading a service would charge for, count as filled: the build will say what they are.
    """
    scenes = acquisition.scenes
    bands = () if all("SCL" in scene.assets for scene in scenes) else imagery.bands[:1]
    if isinstance(source, ServiceSource) and source.cost(scenes, spot.geobox, imagery.bands).processing_units:
        return True
    seen = np.zeros(shape_of(spot.geobox), bool)
    for raster in source.read(scenes, spot.geobox, bands, pad=0):
        if raster.failures or not raster.bands:
            return True
        window = raster.bands.get("SCL") or next(iter(raster.bands.values()))
        part = np.empty_like(seen)
        repeat(window, window.dn > 0, part)
        seen |= part
        if seen.all():
            return True
    return False


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
