"""What a location set asks for: which places' imagery, in which season, and how its dates are chosen."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

from sits_catalog.cube import LATTICE_M, PIXEL_M
from sits_catalog.region import Imagery, Place, Region, Season

__all__ = ["PatchRule", "PatchSet"]

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_EVERYWHERE = (-180.0, -80.0, 180.0, 84.0)
"""Where UTM is defined: west, south, east, north in degrees."""
_MAX_SIDE_PX = 1536


@dataclass(frozen=True, kw_only=True)
class PatchRule:
    """How large a patch is and which dates it has.

    The defaults follow the data set of SeCo (Manas et al., ICCV 2021, arXiv:2103.16607, section 3.1, and its
    seco_downloader.py): five dates 12 weeks apart, all moved back by one random shift of 0 to 364 days a location, each
    with an image within a window of 15 days. Deliberately different: the least cloudy acquisition of a window is taken
    and not the most recent one with less than 10 % cloud; patches are 276 px, snapped to 60 m so that all bands nest,
    where SeCo cuts 264 px out of 2.65 km; and a location without an image keeps its place and gets another shift, while
    SeCo draws another location.
    """

    side_px: int = 276
    """Side of a patch in pixels of 10 m; a multiple of 6, so that source pixels of 60 m nest."""
    dates: int = 5
    weeks: int = 12
    """Between two dates."""
    window_days: int = 15
    """Width of the window, centred on its date, in which an acquisition is looked for; odd. The date of the last window
    is the season's end less the shift: at shift 0 the window is cut there, to 8 of its 15 days."""
    max_shift: int = 364
    """Days by which all dates of a location are moved back at most."""
    tries: int = 365
    """Shifts that are tried for a location before it is listed as one without acquisitions."""
    seed: int = 0
    """Of the shifts."""

    def __post_init__(self) -> None:
        if not 0 < self.side_px <= _MAX_SIDE_PX or self.side_px * PIXEL_M % LATTICE_M:
            raise ValueError(
                f"side_px must be a multiple of {LATTICE_M // PIXEL_M} px and at most {_MAX_SIDE_PX} px, "
                f"got {self.side_px}"
            )
        if self.dates < 1 or self.weeks < 1 or self.tries < 1 or self.max_shift < 0:
            raise ValueError(
                "dates, weeks and tries must be 1 or more and max_shift 0 or more, "
                f"got {self.dates}, {self.weeks}, {self.tries} and {self.max_shift}"
            )
        if self.window_days < 1 or self.window_days % 2 == 0:
            raise ValueError(f"window_days must be odd, so that a window has a middle; got {self.window_days}")
        if self.window_days > 7 * self.weeks:
            raise ValueError(
                f"windows of {self.window_days} days every {7 * self.weeks} days overlap, so that two dates could be "
                "the same; take fewer window_days or more weeks"
            )

    @property
    def reach(self) -> timedelta:
        """From the end of a season back to the first day that is needed with a shift of 0."""
        return timedelta(days=7 * self.weeks * (self.dates - 1) + self.window_days // 2)


@dataclass(frozen=True, kw_only=True)
class PatchSet:
    """A location set: all that decides it but the locations themselves."""

    id: str
    """Name of the dataset's folder."""
    season: Season
    """Its end is the date from which windows are counted back; no acquisition outside of it is taken."""
    title: str = ""
    imagery: Imagery = field(default_factory=Imagery)
    rule: PatchRule = field(default_factory=PatchRule)
    folder: Path = field(default_factory=Path)
    """Folder that a relative imagery path starts from."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(
                f"a location set's id names its folder: lower-case letters, digits, '.', '_' and '-' only; "
                f"got {self.id!r}"
            )
        if self.season.end - self.season.start < self.rule.reach:
            days, needed = (self.season.end - self.season.start).days + 1, self.rule.reach.days + 1
            raise ValueError(
                f"{self.rule.dates} dates {self.rule.weeks} weeks apart with windows of {self.rule.window_days} days "
                f"need a season of {needed} days, and of {needed + self.rule.max_shift} for shifts of up to "
                f"{self.rule.max_shift} days; {self.season.start} to {self.season.end} has {days}: begin it earlier"
            )

    @classmethod
    def of(cls, region: Region, *, rule: PatchRule) -> Self:
        """The set with a region's id, title, season and imagery; its place, parcels and rules are of no account."""
        return cls(
            id=region.id,
            title=region.title,
            season=region.season,
            imagery=region.imagery,
            rule=rule,
            folder=region.folder,
        )

    def as_region(self) -> Region:
        """The same as a region that may lie anywhere, as sources of scenes take it."""
        return Region(
            id=self.id,
            title=self.title,
            season=self.season,
            place=Place(bbox=_EVERYWHERE),
            imagery=self.imagery,
            folder=self.folder,
        )
