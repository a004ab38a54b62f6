"""Which acquisitions a location gets: windows counted back from the season's end, the least cloudy one in each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import shapely

from sits_catalog.region import Season
from sits_pipeline.patches.rule import PatchRule
from sits_pipeline.values import Acquisition

__all__ = ["Choice", "centres", "choose", "cloud_over", "shifts"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a location gets: one acquisition a window, or none and the reason."""

    acquisitions: tuple[Acquisition, ...]
    """By day; as many as the rule has dates, or none."""
    shift: int | None
    """Days by which the windows are moved back."""
    reason: str
    """One sentence where there are none, else empty."""


def shifts(rule: PatchRule, season: Season, location: str) -> tuple[int, ...]:
    """The shifts to try for the location of this id, in their order; all windows begin inside of the season.

    A hash of seed, id and shift orders them, so that no generator's version decides what a seed means and no location
    depends on another one.
    """
    spare = min(rule.max_shift, ((season.end - season.start) - rule.reach).days)

    def drawn(shift: int) -> bytes:
        return hashlib.sha256(f"{rule.seed}\n{location}\n{shift}".encode()).digest()

    return tuple(sorted(range(spare + 1), key=drawn)[: rule.tries])


def centres(rule: PatchRule, season: Season, shift: int) -> tuple[date, ...]:
    """Middle of each window, the earliest first."""
    last = season.end - timedelta(days=shift)
    return tuple(last - timedelta(weeks=rule.weeks * back) for back in reversed(range(rule.dates)))


def choose(
    acquisitions: Sequence[Acquisition], rule: PatchRule, season: Season, outline: shapely.Geometry, *, location: str
) -> Choice:
    """The acquisitions of the first shift with one in every window; `outline` is the patch in lon/lat.

    Only those that cover the whole patch count. In a window the least cloudy one is taken, of equals the one nearest to
    the middle, then the earlier.
    """
    clouds = {day.day: (cloud, day) for day in acquisitions if (cloud := cloud_over(day, outline)) is not None}
    if not clouds:
        none = (
            f"of the {len(acquisitions)} acquisitions found none" if acquisitions else "no acquisition was found that"
        )
        return Choice(acquisitions=(), shift=None, reason=f"{none} covers the whole patch")
    tried = shifts(rule, season, location)
    for shift in tried:
        chosen = [_best(clouds, middle, rule) for middle in centres(rule, season, shift)]
        if all(chosen):
            return Choice(acquisitions=tuple(day for day in chosen if day), shift=shift, reason="")
    return Choice(
        acquisitions=(),
        shift=None,
        reason=(
            f"none of {len(tried)} shifts has an acquisition that covers the whole patch in each of {rule.dates} "
            f"windows of {rule.window_days} days; there are {len(clouds)} from {min(clouds)} to {max(clouds)}"
        ),
    )


def _best(clouds: dict[date, tuple[float, Acquisition]], middle: date, rule: PatchRule) -> Acquisition | None:
    half = rule.window_days // 2
    found = [
        (clouds[day][0], abs(offset), day)
        for offset in range(-half, half + 1)
        if (day := middle + timedelta(days=offset)) in clouds
    ]
    return clouds[min(found)[2]][1] if found else None


def cloud_over(acquisition: Acquisition, outline: shapely.Geometry) -> float | None:
    """Cloud over a patch by the metadata, per cent, infinite where an item does not say; None: it is not covered.

    That of the cloudiest of the scenes that fill the patch: in their order, until their footprints cover it.
    """
    covered: shapely.Geometry = shapely.Polygon()
    cloud = 0.0
    for scene in acquisition.scenes:
        covered = shapely.union(covered, scene.footprint)
        cloud = max(cloud, math.inf if scene.cloud_cover is None else scene.cloud_cover)
        if shapely.covers(covered, outline):
            return cloud
    return None
