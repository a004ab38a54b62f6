"""The curves of the few-label protocol: score over the share of the labels, a line a start, a panel a mode."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from sits_models.tasks.few_labels.plan import RANDOM
from sits_models.tasks.few_labels.tables import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves_of", "draw_curves"]

_COLOURS = ("#5b6b76", "#0f5f7a", "#d55e00", "#00735c", "#cc79a7", "#e69f00", "#56b4e9", "#5a3d8a")
_INK, _SOFT, _LINE = "#17242d", "#5b6b76", "#e2e7ea"
_TITLE_A_PANEL = 50
"""Letters of the title over the width of a panel."""
_MODES = {"finetune": "fine-tuned", "probe": "probe (frozen encoder)"}


def draw_curves(cells: Sequence[Cell], path: Path, *, title: str, simulated: bool) -> None:
    """Draw the curves of `curves_of` into a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = f"{'Simulated data: ' if simulated else ''}{title}"
    curves_of(cells, title=words).savefig(path, format="png", dpi=130, metadata={"Software": None})


def curves_of(cells: Sequence[Cell], *, title: str) -> Figure:
    """The mIoU, of pixels where there are any, else of parcels, with bars of one standard deviation; a panel a mode.

    A dashed line is the supervised reference: random weights, fine-tuned with all labels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    unit = "pixels" if any(cell.unit == "pixels" for cell in cells) else "parcels"
    shown = [cell for cell in cells if (cell.unit, cell.score) == (unit, "miou")]
    modes = tuple(dict.fromkeys(cell.mode for cell in shown))
    figure = Figure(figsize=(0.8 + 4.2 * len(modes), 4.2), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    # One colour a start in all panels, whichever comes first in one; random weights have the first.
    starts = sorted(dict.fromkeys(cell.start for cell in shown), key=lambda start: start != RANDOM.name)
    for axes, mode in zip(panels, modes, strict=True):
        _draw_panel(axes, starts, [cell for cell in shown if cell.mode == mode], _reference(shown))
        axes.set_title(_MODES[mode], loc="left", fontsize=10, color=_INK)
    panels[0].set_ylabel(f"mIoU of {unit}, per cent", fontsize=9, color=_SOFT)
    whose = "\n".join(line for part in title.splitlines() for line in wrap(part, _TITLE_A_PANEL * len(modes)))
    figure.suptitle(whose, x=0.01, ha="left", fontsize=11, color=_INK, fontweight="bold")
    handles = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower left", ncols=4, fontsize=8, frameon=False)
    return figure


def _reference(cells: Sequence[Cell]) -> float | None:
    found = [cell for cell in cells if (cell.start, cell.mode, cell.share) == (RANDOM.name, "finetune", 1)]
    return 100 * statistics.mean(found[0].values) if found and found[0].values else None


def _draw_panel(axes: Axes, starts: Sequence[str], cells: Sequence[Cell], reference: float | None) -> None:
    shares = sorted({cell.share for cell in cells})
    for number, start in enumerate(starts):
        mine = sorted((cell for cell in cells if cell.start == start and cell.values), key=lambda cell: cell.share)
        # Beside each other, where bars would cover bars; a factor, on an axis of logarithms.
        places = [100 * cell.share * 1.035 ** (number - (len(starts) - 1) / 2) for cell in mine]
        means = [100 * statistics.mean(cell.values) for cell in mine]
        spreads = [100 * statistics.stdev(cell.values) if len(cell.values) > 1 else 0.0 for cell in mine]
        axes.errorbar(
            places, means, spreads, color=_COLOURS[number % len(_COLOURS)], label=start, marker="o", markersize=4,
            linewidth=1.6, capsize=3,
        )  # fmt: skip
    if reference is not None:
        axes.axhline(reference, color=_INK, linewidth=1, linestyle="--", label="supervised, all labels")
    axes.set_xscale("log")
    axes.set_xticks([100 * share for share in shares], [f"{100 * share:g} %" for share in shares])
    axes.minorticks_off()
    axes.set_xlabel("share of the labels", fontsize=9, color=_SOFT)
    axes.grid(color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=_SOFT, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
