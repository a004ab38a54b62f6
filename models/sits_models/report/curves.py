"""The curves of a training as a picture: losses above, scores below, and of a contrast whether embeddings collapse."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curve", "read_curves", "write_curves"]

_COLOURS = ("#0f5f7a", "#d55e00", "#00735c", "#cc79a7", "#e69f00", "#56b4e9", "#5a3d8a", "#8b99a3")
_PANELS = (
    ("loss", ("loss",)),
    ("scores", ("miou", "accuracy", "f1", "kappa", "_map", "_ap")),
    ("similarity of pairs", ("similarity",)),
    ("effective rank of embeddings", ("rank",)),
    ("deviation of embeddings, 0 = collapsed", ("deviation",)),
)
"""Title of a panel, and the words one of which a column of it contains."""
_INK, _SOFT, _LINE = "#17242d", "#5b6b76", "#e2e7ea"


@dataclass(frozen=True)
class Curve:
    """One column of the file, without its empty cells."""

    name: str
    epochs: tuple[float, ...]
    values: tuple[float, ...]


def read_curves(csv_path: str | Path) -> tuple[Curve, ...]:
    """The columns of a CSV whose rows have an `epoch`; cells may be empty, and an epoch may have several rows.

    The epochs are numbered from 0 in the file and from 1 in the curves. Columns of values a step (`..._step`) and
    those that are not numbers are left out.
    """
    with Path(csv_path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if name not in ("epoch", "step") and not name.endswith("_step")]
    curves = (_curve(name, rows) for name in names)
    return tuple(curve for curve in curves if curve is not None)


def write_curves(csv_path: str | Path, png_path: str | Path, *, simulated: bool = False) -> None:
    """Draw the losses and the validation scores of a training; one epoch is drawn as points.

    `simulated` data are called so.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = read_curves(csv_path)
    panels = [(title, found) for title, words in _PANELS if (found := _with_words(curves, words))]
    figure = Figure(figsize=(7.2, 0.4 + 2.5 * max(1, len(panels))), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    if not panels:
        figure.text(0.5, 0.5, "no epoch has ended yet", ha="center", va="center", color=_SOFT)
    axes = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, found) in zip(axes, panels, strict=False):
        _draw(axis, title, found)
    if not panels:
        axes[0].set_axis_off()
    axes[-1].set_xlabel("epoch; simulated data" if simulated else "epoch", fontsize=9, color=_SOFT)
    figure.savefig(png_path, format="png", dpi=140, metadata={"Software": None})


def _curve(name: str, rows: Sequence[dict[str, str]]) -> Curve | None:
    points = []
    for number, row in enumerate(rows):
        if row.get(name):
            try:
                points.append((float(row.get("epoch") or number) + 1, float(row[name])))
            except ValueError:
                return None
    if not points:
        return None
    return Curve(name, tuple(epoch for epoch, _ in points), tuple(value for _, value in points))


def _with_words(curves: Sequence[Curve], words: Sequence[str]) -> list[Curve]:
    return [curve for curve in curves if any(word in curve.name.lower() for word in words)]


def _draw(axes: Axes, title: str, curves: Sequence[Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    few = max(len(curve.epochs) for curve in curves) <= 12
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        marker = "o" if few else None
        axes.plot(
            curve.epochs,
            curve.values,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.6,
            label=_label(curve.name),
        )
    axes.set_title(title, loc="left", fontsize=10, color=_INK, fontweight="bold")
    axes.grid(color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=_SOFT, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    last = max(curve.epochs[-1] for curve in curves)
    axes.set_xlim(1 - 0.04 * last, last + 0.04 * last)
    axes.margins(y=0.12)
    if title == "scores" or "rank" in title or "deviation" in title:
        axes.set_ylim(bottom=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.legend(fontsize=9, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=_INK)


def _label(name: str) -> str:
    return name.replace("/", " ").replace("_", " ").replace("miou", "mIoU")
