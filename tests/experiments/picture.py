"""The picture of docs/results.md: what pretraining changed, pair by pair."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.experiments.plan import BACKBONES, LABELS
from tests.experiments.results import PARTS, Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_COLOURS = {"overall": "#0f5f7a", "boundary": "#d55e00", "interior": "#00735c"}
_MARKERS = ("o", "s", "^")
_INK, _SOFT, _LINE = "#17242d", "#5b6b76", "#e2e7ea"


def draw(pairs: Sequence[Pair], path: Path) -> None:
    """A point a pair, and mean and standard deviation over them, for each backbone, part of the pixels and labels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.6), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(LABELS), sharey=True)
    regions = tuple(dict.fromkeys(pair.region for pair in pairs))
    for axes, labels in zip(panels, LABELS, strict=True):
        _draw_panel(axes, [pair for pair in pairs if pair.labels == labels], regions)
        axes.set_title("labels at 10 m" if labels == 1 else "x2: labels at 5 m", loc="left", fontsize=10, color=_INK)
    panels[0].set_ylabel("CSCL minus random, points of mIoU", fontsize=9, color=_SOFT)
    figure.suptitle(
        "Simulated data: what CSCL pretraining changed, with equal steps in all",
        x=0.01,
        ha="left",
        fontsize=12,
        color=_INK,
        fontweight="bold",
    )
    figure.legend(handles=_legend(regions), loc="outside lower left", ncols=7, fontsize=9, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})


def _draw_panel(axes: Axes, pairs: Sequence[Pair], regions: Sequence[str]) -> None:
    for column, learner in enumerate(BACKBONES):
        found = [pair for pair in pairs if pair.backbone == learner.name]
        for number, part in enumerate(PARTS):
            x = column + 0.27 * (number - 1)
            for pair in found:
                marker = _MARKERS[regions.index(pair.region) % len(_MARKERS)]
                axes.plot(
                    x - 0.05, pair.difference(part), marker=marker, color=_COLOURS[part], alpha=0.45, markersize=4
                )
            values = [pair.difference(part) for pair in found]
            if len(values) > 1:
                axes.errorbar(
                    x + 0.05, statistics.mean(values), statistics.stdev(values), fmt="D", color=_COLOURS[part],
                    markersize=5, capsize=4, linewidth=1.6,
                )  # fmt: skip
    axes.axhline(0, color=_INK, linewidth=1)
    axes.set_xticks(range(len(BACKBONES)), [learner.title for learner in BACKBONES])
    axes.set_xlim(-0.55, len(BACKBONES) - 0.45)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=_SOFT, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)


def _legend(regions: Sequence[str]) -> list[object]:
    from matplotlib.lines import Line2D

    parts = [Line2D([], [], color=_COLOURS[part], linewidth=4, label=part) for part in PARTS]
    places = [
        Line2D([], [], color=_SOFT, marker=marker, linestyle="", markersize=5, label=region.removeprefix("claim-"))
        for region, marker in zip(regions, _MARKERS, strict=False)
    ]
    mean = Line2D([], [], color=_SOFT, marker="D", linewidth=1.6, markersize=5, label="mean ± sd")
    return [*parts, *places, mean]
