"""The rows of a report that speak of imagery: dates, items, offsets, failures, bands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from sits_catalog.sentinel2 import BANDS
from sits_pipeline.report.facts import ReportFacts
from sits_pipeline.values import Acquisition, JsonObject, Scene, Verdict

__all__ = [
    "BandRow",
    "DateRow",
    "FailureRow",
    "ItemRow",
    "Radiometry",
    "Timeline",
    "band_rows",
    "date_rows",
    "failure_rows",
    "radiometry",
    "timeline",
]

_MAX_CELLS = 6


# Dates


@dataclass(frozen=True, kw_only=True)
class DateRow:
    """One date of the cube."""

    day: date
    platforms: str
    orbits: str
    tiles: str
    baselines: str
    offsets: str
    """Offsets added to the items' DN."""
    n_items: int
    n_used: int
    """Items that gave at least one pixel."""
    cloud_cover: float | None
    """What the metadata say, mean over the items, per cent."""
    observed: float
    """Share of the built pixels, 0..1."""
    clear: float


def date_rows(facts: ReportFacts) -> list[DateRow]:
    """All dates."""
    observed, clear = facts.date_pixels("observed"), facts.date_pixels("clear")
    total = max(1, facts.n_built_pixels)
    used: list[set[int]] = [set() for _ in facts.plan.acquisitions]
    for entry in facts.cells:
        for index, found in enumerate(entry["used"]):
            used[index].update(found)
    return [
        _date_row(acquisition, len(used[index]), observed[index] / total, clear[index] / total)
        for index, acquisition in enumerate(facts.plan.acquisitions)
    ]


def _date_row(acquisition: Acquisition, n_used: int, observed: float, clear: float) -> DateRow:
    scenes = acquisition.scenes
    clouds = [scene.cloud_cover for scene in scenes if scene.cloud_cover is not None]
    return DateRow(
        day=acquisition.day,
        platforms=_joined(_short_platform(scene.platform) for scene in scenes),
        orbits=_joined(f"{scene.orbit:03d}" for scene in scenes if scene.orbit is not None),
        tiles=_joined(scene.mgrs_tile for scene in scenes),
        baselines=_joined(scene.baseline for scene in scenes),
        offsets=_joined(_signed(verdict.applied) for verdict in acquisition.verdicts),
        n_items=len(scenes),
        n_used=n_used,
        cloud_cover=sum(clouds) / len(clouds) if clouds else None,
        observed=observed,
        clear=clear,
    )


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(sorted(set(texts)))


def _short_platform(platform: str) -> str:
    return platform.lower().replace("sentinel-2", "S2").upper() if platform else "?"


def _signed(offset: int | None) -> str:
    return "unknown" if offset is None else f"{offset:+d}".replace("-", "−") if offset else "0"


# Timeline


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A date in the timeline; all lengths in units of the drawing."""

    x: float
    observed: float
    clear: float
    title: str


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The season as a drawing: a bar a date, a tick a month."""

    width: float
    height: float
    bar: float
    """Width of a bar."""
    bars: tuple[Bar, ...]
    months: tuple[tuple[float, str], ...]


def timeline(facts: ReportFacts, rows: Sequence[DateRow]) -> Timeline:
    """Bars of observed and clear shares over the season."""
    width, height = 1000.0, 130.0
    start, end = facts.region.season.start, facts.region.season.end
    start, end = min(start, rows[0].day), max(end, rows[-1].day)
    days = (end - start).days + 1
    bar = max(2.0, min(14.0, 0.8 * width / max(days / 4, len(rows))))
    bars = tuple(
        Bar(
            x=round(((row.day - start).days + 0.5) / days * width - bar / 2, 2),
            observed=round(row.observed * height, 2),
            clear=round(row.clear * height, 2),
            title=f"{row.day}: {row.clear:.0%} clear, {row.observed:.0%} observed",
        )
        for row in rows
    )
    return Timeline(width=width, height=height, bar=round(bar, 2), bars=bars, months=tuple(_months(start, end, width)))


def _months(start: date, end: date, width: float) -> list[tuple[float, str]]:
    days = (end - start).days + 1
    ticks: list[tuple[float, str]] = []
    month = start.replace(day=1)
    if month < start:
        month = (month + timedelta(days=32)).replace(day=1)
    while month <= end:
        label = f"{month:%b %Y}" if month.month == 1 or not ticks else f"{month:%b}"
        ticks.append((round((month - start).days / days * width, 2), label))
        month = (month + timedelta(days=32)).replace(day=1)
    return ticks


# Radiometry


@dataclass(frozen=True, kw_only=True)
class ItemRow:
    """An item and what became of its offset."""

    id: str
    day: str
    baseline: str
    declared: str
    audited: str
    applied: str
    medians: str
    n_pixels: int
    reason: str
    verdict: str
    """agrees, lied, undecided or unread."""


@dataclass(frozen=True, kw_only=True)
class Radiometry:
    """What the audit of the BOA offset found."""

    items: tuple[ItemRow, ...]
    refused: tuple[tuple[str, str, str, str], ...]
    """Day, id, status and reason of items that are not used."""

    def of(self, verdict: str) -> tuple[ItemRow, ...]:
        """The items with one verdict."""
        return tuple(item for item in self.items if item.verdict == verdict)


def radiometry(facts: ReportFacts) -> Radiometry:
    """Verdicts of all used items, and the items that are not used."""
    items = tuple(
        _item_row(scene, verdict, acquisition.day)
        for acquisition in facts.plan.acquisitions
        for scene, verdict in zip(acquisition.scenes, acquisition.verdicts, strict=True)
    )
    order = {"failed": 0, "superseded": 1, "cloudy": 2, "outside": 3}
    refused = [
        (refusal.scene.sensed.date().isoformat(), refusal.scene.id, str(refusal.status), refusal.reason)
        for refusal in facts.plan.refusals
    ]
    refused += [("", item.id, "failed", item.reason) for item in facts.unusable]
    return Radiometry(items=items, refused=tuple(sorted(refused, key=lambda row: (order[row[2]], row[0], row[1]))))


def _item_row(scene: Scene, verdict: Verdict, day: date) -> ItemRow:
    if verdict.applied is None:
        kind = "unread"
    elif verdict.audited is None:
        kind = "undecided"
    else:
        kind = "agrees" if verdict.audited == verdict.declared else "lied"
    return ItemRow(
        id=scene.id,
        day=day.isoformat(),
        baseline=scene.baseline,
        declared=_signed(verdict.declared),
        audited="undecided" if verdict.audited is None else _signed(verdict.audited),
        applied=_signed(verdict.applied),
        medians=", ".join(f"{band} {value:.0f}" for band, value in verdict.medians.items()),
        n_pixels=verdict.n_pixels,
        reason=verdict.reason,
        verdict=kind,
    )


# Failures


@dataclass(frozen=True, kw_only=True)
class FailureRow:
    """A source that could not be read, and where."""

    item: str
    band: str
    day: str
    error: str
    n_cells: int
    cells: str
    """The first cells, as row and column of their corner in pixels."""


def failure_rows(facts: ReportFacts) -> list[FailureRow]:
    """Failures of all cells, those of one item, band and error together."""
    cells: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for entry in facts.cells:
        for failure in entry["failures"]:
            key = (failure["day"], failure["item"], failure["band"], failure["error"])
            cells[key].append(f"({entry['cell'][0]}, {entry['cell'][1]})")
    return [
        FailureRow(
            day=day,
            item=item,
            band="all bands" if band == "*" else band,
            error=error,
            n_cells=len(found),
            cells=", ".join(found[:_MAX_CELLS]) + (", …" if len(found) > _MAX_CELLS else ""),
        )
        for (day, item, band, error), found in sorted(cells.items())
    ]


# Bands


@dataclass(frozen=True, kw_only=True)
class BandRow:
    """Statistics of a band, in reflectance; None where no pixel was clear."""

    name: str
    meaning: str
    resolution_m: int
    values: JsonObject
    left: float
    """Drawing of the range from p2 to p98 on a scale of 0..100, and of the median."""
    width: float
    median: float


def band_rows(facts: ReportFacts) -> list[BandRow]:
    """Statistics of all bands; empty where there are none."""
    statistics: JsonObject = facts.attributes.get("statistics") or {}
    top = max((values["p98"] or 0 for values in statistics.values()), default=0) or 1.0
    rows = []
    for name, values in statistics.items():
        low, middle, high = (100 * (values[key] or 0) / top for key in ("p2", "p50", "p98"))
        rows.append(
            BandRow(
                name=name,
                meaning=BANDS[name].common_name,
                resolution_m=BANDS[name].resolution_m,
                values=values,
                left=round(low, 2),
                width=round(high - low, 2),
                median=round(middle, 2),
            )
        )
    return rows
