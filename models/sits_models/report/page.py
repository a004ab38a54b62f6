"""The page of an evaluation: one HTML file without scripts, fonts or pictures from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from sits_catalog.templates import compile_template
from sits_models.report.confusion import confusion_png
from sits_models.report.facts import EvaluationFacts, Group, Interval

__all__ = ["ClassRow", "Mark", "class_rows", "render_evaluation"]


def render_evaluation(facts: EvaluationFacts) -> str:
    """The page as one HTML document; the same facts give the same text.

    Names out of cubes and cards are escaped: they are hostile until then.
    """
    text = files(__package__).joinpath("template.html").read_text("utf-8")
    template = compile_template(text, count=_count, percent=_percent, printed=_printed)
    style = files(__package__).joinpath("style.css").read_text("utf-8")
    names = [crop.name for crop in facts.classes]
    matrix = facts.main.matrix
    picture = base64.b64encode(confusion_png(matrix, names, unit=facts.unit)).decode("ascii")
    return template.render(
        style=style,
        facts=facts,
        classes=class_rows(facts),
        absent=[crop.name for crop, n in zip(facts.classes, matrix.sum(axis=1), strict=True) if n == 0],
        grounds=[_place(group) for group in (facts.overall, facts.boundary, facts.interior) if group],
        distances=[_place(group) for group in facts.distances],
        sizes=[
            SizeRow(parcels=_place(row.parcels), pixels=None if row.pixels is None else _place(row.pixels))
            for row in facts.sizes
        ],
        confusion=f"data:image/png;base64,{picture}",
        blocks=_blocks(facts),
    )


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A value on a scale of 0 to 100, with its interval."""

    value: float | None
    interval: Interval | None

    @property
    def left(self) -> float | None:
        """Begin of the interval, per cent of the scale."""
        return None if self.interval is None else round(100 * self.interval[0], 2)

    @property
    def width(self) -> float | None:
        """Length of the interval, per cent of the scale."""
        return None if self.interval is None else round(max(0.3, 100 * (self.interval[1] - self.interval[0])), 2)

    @property
    def at(self) -> float:
        """Length of the bar, per cent of the scale."""
        return round(100 * (self.value or 0.0), 2)


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A class and how well it was found."""

    name: str
    colour: str
    support: int
    share: float
    """Of all that were counted."""
    iou: Mark
    f1: float | None
    precision: float | None
    recall: float | None
    confused: str
    """The class that it was most often taken for, where that is not itself."""
    confused_share: float


@dataclass(frozen=True, kw_only=True)
class PlaceRow:
    """Some of the ground and its scores."""

    name: str
    n: int
    miou: Mark
    accuracy: Mark
    f1: float | None
    kappa: float | None


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """The parcels of a size class, and their pixels."""

    parcels: PlaceRow
    pixels: PlaceRow | None


def class_rows(facts: EvaluationFacts) -> list[ClassRow]:
    """The classes that occur or were predicted, those with most pixels, or parcels, first."""
    matrix, scores = facts.main.matrix, facts.main.scores
    total = max(1, facts.main.n)
    rows = []
    for k, crop in enumerate(facts.classes):
        support = int(matrix[k].sum())
        if not support and not matrix[:, k].any():
            continue
        wrong = matrix[k].copy()
        wrong[k] = 0
        other = int(wrong.argmax())
        rows.append(
            ClassRow(
                name=crop.name,
                colour=crop.colour,
                support=support,
                share=support / total,
                iou=Mark(value=scores.iou[k], interval=facts.class_intervals[k]),
                f1=scores.f1[k],
                precision=scores.precision[k],
                recall=scores.recall[k],
                confused=facts.classes[other].name if wrong[other] else "",
                confused_share=wrong[other] / max(1, support),
            )
        )
    return sorted(rows, key=lambda row: -row.support)


def _place(group: Group) -> PlaceRow:
    scores, intervals = group.scores, group.intervals
    return PlaceRow(
        name=group.name,
        n=group.n,
        miou=Mark(value=scores.miou, interval=intervals.get("miou")),
        accuracy=Mark(value=scores.overall_accuracy, interval=intervals.get("overall_accuracy")),
        f1=scores.macro_f1,
        kappa=scores.kappa,
    )


def _blocks(facts: EvaluationFacts) -> str:
    return f"{_count(facts.blocks)} {'block' if facts.blocks == 1 else 'blocks'} of {facts.block_m / 1000:g} km"


# Filters


def _count(value: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", "\u202f")


def _percent(value: float | Sequence[float] | None, digits: int = 1) -> str:
    """A share of 0 to 1, or an interval, in per cent without the sign; a dash for None and for nan."""
    if value is None:
        return "—"
    if isinstance(value, Sequence):
        return "–".join(_percent(end, digits) for end in value)
    return "—" if np.isnan(value) else f"{100 * value:.{digits}f}"


def _printed(name: str) -> str:
    """A name such as "<= 0.5 ha" as it is set in print."""
    return name.replace("<=", "≤").replace("-", "–")
