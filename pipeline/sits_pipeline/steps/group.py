"""From scenes to acquisitions: one a solar day, reprocessed copies dropped, the rest in a fixed order."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import filterfalse, pairwise
from typing import Literal

import shapely

from sits_catalog.cube import MAX_ITEMS_A_DATE, central_meridian
from sits_catalog.region import Season
from sits_catalog.sentinel2 import baseline_key
from sits_pipeline.values import Acquisition, Refusal, Scene, Verdict

__all__ = ["Grouping", "group_scenes", "solar_day", "why_too_old"]

_Status = Literal["superseded", "cloudy", "outside", "failed"]
_STRIP_START = re.compile(r"_S(\d{8}T\d{6})(?:_|$)")


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Which scenes are used on which day, and which are not, and why."""

    acquisitions: tuple[Acquisition, ...]
    """By day."""
    refusals: tuple[Refusal, ...]
    """By id of the scene."""


def group_scenes(
    scenes: Iterable[Scene],
    verdicts: Mapping[str, Verdict],
    *,
    epsg: int,
    season: Season,
    max_cloud: float,
    area: shapely.Geometry,
    min_baseline: str | None,
) -> Grouping:
    """Acquisitions of a cube in zone `epsg`, whatever order the scenes come in.

    Args:
        scenes: scenes with unique ids
        verdicts: of every scene that lies in the zone, the season and the area and is new enough, by id
        epsg: the cube's CRS
        season: solar days, both ends included
        max_cloud: in per cent
        area: lon/lat
        min_baseline: "05.00": scenes of an older one are left out; None: none are

    Raises:
        ValueError: two scenes with one id, a scene without a verdict, more than 250 scenes on a day
    """
    ordered = sorted(scenes, key=lambda scene: scene.id)
    _check(ordered)
    refusals: list[Refusal] = []
    inside: list[Scene] = []
    for scene in ordered:
        reason = _why_outside(scene, epsg, season, area) or why_too_old(scene, min_baseline)
        if reason:
            refusals.append(_refuse(scene, "outside", reason, verdicts))
        elif scene.id not in verdicts:
            raise ValueError(f"{scene.id} has no audit verdict; audit every scene before grouping")
        elif verdicts[scene.id].refused:
            refusals.append(_refuse(scene, "failed", verdicts[scene.id].reason, verdicts))
        else:
            inside.append(scene)
    kept, superseded = _newest_copies(inside)
    refusals += [_refuse(scene, "superseded", reason, verdicts) for scene, reason in superseded]

    def clear_enough(scene: Scene) -> bool:
        return scene.cloud_cover is None or scene.cloud_cover <= max_cloud

    for scene in filterfalse(clear_enough, kept):
        reason = f"{scene.cloud_cover:.4g} % cloud; at most {max_cloud:g} % are asked for"
        refusals.append(_refuse(scene, "cloudy", reason, verdicts))
    return Grouping(
        acquisitions=_by_day(filter(clear_enough, kept), verdicts, epsg),
        refusals=tuple(sorted(refusals, key=lambda refusal: refusal.scene.id)),
    )


def solar_day(sensed: datetime, epsg: int) -> date:
    """Calendar day in local solar time at the central meridian of a UTM zone.

    >>> solar_day(datetime(2024, 5, 31, 23, 50, tzinfo=UTC), 32660)
    datetime.date(2024, 6, 1)
    """
    return (sensed + timedelta(hours=central_meridian(epsg) / 15)).astimezone(UTC).date()


def _check(scenes: Sequence[Scene]) -> None:
    for scene, following in pairwise(scenes):
        if scene.id == following.id:
            raise ValueError(f"two scenes have the id {scene.id}; ids must be unique")


def _refuse(scene: Scene, status: _Status, reason: str, verdicts: Mapping[str, Verdict]) -> Refusal:
    return Refusal(scene=scene, status=status, reason=reason, verdict=verdicts.get(scene.id))


def _why_outside(scene: Scene, epsg: int, season: Season, area: shapely.Geometry) -> str:
    """Why a scene is none of this cube's; empty where it is one."""
    if scene.epsg != epsg:
        return f"in EPSG:{scene.epsg}; only scenes of the cube's own EPSG:{epsg} are read"
    day = solar_day(scene.sensed, epsg)
    if not season.start <= day <= season.end:
        return f"its solar day {day} lies outside of {season.start} to {season.end}"
    return "" if shapely.intersects(scene.footprint, area) else "its footprint does not meet the region"


def why_too_old(scene: Scene, min_baseline: str | None) -> str:
    """Why a scene's processing is older than what is asked for; empty where it is not."""
    if min_baseline is None or baseline_key(scene.baseline) >= baseline_key(min_baseline):
        return ""
    return f"its processing baseline {scene.baseline} is older than {min_baseline}, which is asked for"


def _newest_copies(scenes: Iterable[Scene]) -> tuple[list[Scene], list[tuple[Scene, str]]]:
    """One scene a granule, and the copies that another processing of it replaces, each with the reason.

    Halves of a split granule have different datastrips and so are no copies of each other.
    """
    copies: dict[tuple[str, ...], list[Scene]] = defaultdict(list)
    for scene in scenes:
        copies[_granule(scene)].append(scene)
    kept, superseded = [], []
    for granule in copies.values():
        best = max(sorted(granule, key=lambda scene: scene.id), key=_processed)
        kept.append(best)
        reason = f"another processing of the same granule is used: {best.id}, baseline {best.baseline}"
        superseded += [(scene, reason) for scene in granule if scene is not best]
    return kept, superseded


def _granule(scene: Scene) -> tuple[str, ...]:
    """What all processings of one granule share: tile, satellite, and when its datastrip began.

    A reprocessed datastrip has another name but the same `_S<start>_`; where it is unknown, the sensing time to the
    second stands for it.
    """
    start = _STRIP_START.search(scene.datastrip or "")
    when = start[1] if start else f"{scene.sensed:%Y-%m-%dT%H:%M:%S}"
    return scene.mgrs_tile, scene.platform, when


def _processed(scene: Scene) -> tuple[tuple[int, int], datetime]:
    return baseline_key(scene.baseline), scene.generated or datetime.min.replace(tzinfo=UTC)


def _by_day(scenes: Iterable[Scene], verdicts: Mapping[str, Verdict], epsg: int) -> tuple[Acquisition, ...]:
    days: dict[date, list[Scene]] = defaultdict(list)
    for scene in sorted(scenes, key=_rank):
        days[solar_day(scene.sensed, epsg)].append(scene)
    for day, members in days.items():
        if len(members) > MAX_ITEMS_A_DATE:
            raise ValueError(
                f"{len(members)} scenes on {day}; a date holds at most {MAX_ITEMS_A_DATE}: build a smaller region"
            )
    return tuple(
        Acquisition(day=day, scenes=tuple(members), verdicts=tuple(verdicts[scene.id] for scene in members))
        for day, members in sorted(days.items())
    )


def _rank(scene: Scene) -> tuple[float, tuple[int, int], str]:
    """Order in which a day's scenes fill a pixel: less cloud, higher baseline, id."""
    major, minor = baseline_key(scene.baseline)
    cloud = math.inf if scene.cloud_cover is None else scene.cloud_cover
    return cloud, (-major, -minor), scene.id
