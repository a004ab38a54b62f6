"""Items as they were found, sifted into scenes and what cannot be one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

import shapely

from sits_catalog.addresses import published_text
from sits_catalog.region import Season
from sits_pipeline.sources.base import SearchResult, UnusableItem
from sits_pipeline.sources.footprints import footprint_of
from sits_pipeline.sources.items import sensed_of
from sits_pipeline.values import JsonObject, Scene

__all__ = ["Candidate", "in_season", "season_span", "sift"]


@dataclass(frozen=True)
class Candidate:
    """An item that may be a scene."""

    item: JsonObject
    place: str
    """Where it was found, which decides between items of one id; may be empty."""
    scene: Callable[[], Scene]
    """The scene that it is, or ValueError with one sentence that says why it is none."""


def sift(candidates: Iterable[Candidate], area: shapely.Geometry, season: Season) -> SearchResult:
    """Scenes that meet `area` (lon/lat) in `season` or within a day of it, whatever order their items come in.

    Of items with one id the first is taken. Broken items are listed unless they say that they lie elsewhere.
    """
    scenes: dict[str, Scene] = {}
    unusable: list[UnusableItem] = []
    shapely.prepare(area)
    for candidate in sorted(candidates, key=_rank):
        try:
            scene = candidate.scene()
        except ValueError as error:
            if _may_matter(candidate.item, area, season):
                reason = _plain(published_text(str(error)))
                unusable.append(UnusableItem(id=_id(candidate.item), reason=reason, item=candidate.item))
            continue
        if not (in_season(scene.sensed, season) and shapely.intersects(area, scene.footprint)):
            continue
        if scene.id in scenes:
            reason = "another item of the same id comes before it; ids must be unique"
            unusable.append(UnusableItem(id=scene.id, reason=reason, item=scene.item))
        else:
            scenes[scene.id] = scene
    return SearchResult(scenes=tuple(scenes.values()), unusable=tuple(unusable))


def season_span(season: Season) -> tuple[datetime, datetime]:
    """First instant of a season with a day more on both sides, and the first one after it, UTC."""
    day = timedelta(days=1)
    start, end = (datetime.combine(date, time(0), UTC) for date in (season.start, season.end))
    return start - day, end + 2 * day


def in_season(sensed: datetime, season: Season) -> bool:
    """Whether a sensing time lies in a season or within a day of it."""
    start, end = season_span(season)
    return start <= sensed < end


def _rank(candidate: Candidate) -> tuple[str, str]:
    """By id; an API's answer names no place, and its order may change from one time to the next."""
    return _id(candidate.item), candidate.place or json.dumps(candidate.item, sort_keys=True)


def _id(item: JsonObject) -> str:
    """An id to list an item by, whatever the item holds."""
    text = str(item.get("id"))[:200]
    return text if text.isprintable() else ascii(text)


def _plain(text: str) -> str:
    """A sentence that may quote an item, harmless wherever it is printed."""
    line = " ".join(text.split())[:500]
    return line if line.isprintable() else ascii(line)[1:-1]


def _may_matter(item: JsonObject, area: shapely.Geometry, season: Season) -> bool:
    """Whether a broken item may lie in the area and the season: unless it says otherwise, it may."""
    try:
        return in_season(sensed_of(item), season) and bool(shapely.intersects(area, footprint_of(item)))
    except ValueError:
        return True
