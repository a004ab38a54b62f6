"""A map to look at: what is predicted beside what was declared and how unsure the model is, with a legend."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sits_models.data.classes import CropEntry
from sits_models.maps.store import NO_CLASS, NOTHING, ONE, read_cell
from sits_models.tiling import Cell, Tiling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Thinned", "draw_map", "thin_map"]

_MAX_PX = 740
"""What a panel shows of them."""
_NO_LABEL = "#bcc2c4"
_INK, _SOFT = "#17242d", "#5b6b76"
_COLUMNS, _MAX_NAME = {2: 3, 3: 5}, 30
"""Of the legend, by the number of panels, and letters of a class there."""
_SHARE, _GAP = 0.93, 0.03
"""Of the width for the panels, and between them."""


@dataclass(frozen=True, kw_only=True)
class Thinned:
    """One pixel of every so many of a map, each array (y, x)."""

    predicted: NDArray[np.uint16]
    uncertainty: NDArray[np.uint8]
    declared: NDArray[np.int64] | None
    """Index in the class table, negative where there is no label; None: the cube has none."""
    pixel_m: float
    """Side of a pixel of this picture, metres."""


def thin_map(
    folder: Path,
    tiling: Tiling,
    *,
    magnification: int,
    pixel_m: float,
    declared: Callable[[Cell], NDArray[np.int64]] | None,
) -> Thinned:
    """Read a map a cell at a time and keep so few pixels that no side passes 740.

    `declared` gives the labels of a cell of the cube at its own resolution; `pixel_m` is that of the cube.
    """
    step = max(1, -(-max(tiling.shape) // _MAX_PX))
    shape = tuple(-(-size // step) for size in tiling.shape)
    predicted, uncertainty = np.full(shape, NO_CLASS, np.uint16), np.full(shape, NOTHING, np.uint8)
    labels = np.full(shape, -1, np.int64)
    for cell in tiling.cells():
        skip = (-cell.row % step, -cell.column % step)
        place = _place(cell, step)
        fine = tuple(slice(magnification * first, None, magnification * step) for first in skip)
        predicted[place] = read_cell(folder, "crop_type", cell, magnification)[fine]
        uncertainty[place] = read_cell(folder, "uncertainty", cell, magnification)[fine]
        if declared is not None:
            labels[place] = declared(cell)[skip[0] :: step, skip[1] :: step]
    return Thinned(
        predicted=predicted,
        uncertainty=uncertainty,
        declared=None if declared is None else labels,
        pixel_m=pixel_m * step,
    )


def _place(cell: Cell, step: int) -> tuple[slice, slice]:
    rows = slice(-(-cell.row // step), -(-(cell.row + cell.height) // step))
    return rows, slice(-(-cell.column // step), -(-(cell.column + cell.width) // step))


def draw_map(thinned: Thinned, classes: tuple[CropEntry, ...], title: str) -> bytes:
    """The picture as a PNG: the same map gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = ["predicted", "declared", "uncertainty"] if thinned.declared is not None else ["predicted", "uncertainty"]
    shown = _shown(thinned, len(classes))
    height, width = thinned.predicted.shape
    panel = 4.6
    n = len(panels)
    across = panel * n + 0.7
    picture = _SHARE * across / (n + _GAP * (n - 1)) * min(1.6, max(0.35, height / width))
    # Inches; a row of the legend takes 0.19.
    legend = 0.15 + 0.19 * -(-(len(shown) + 1) // _COLUMNS[n])
    total = picture + legend + 0.85
    figure = Figure(figsize=(across, total), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.015, 1 - 0.2 / total, title, ha="left", va="top", fontsize=13, color=_INK, weight="bold")
    grid = figure.add_gridspec(
        1,
        n,
        left=0.015,
        right=0.015 + _SHARE,
        bottom=(legend + 0.1) / total,
        top=1 - 0.75 / total,
        wspace=_GAP,
    )
    axes = [figure.add_subplot(grid[0, column]) for column in range(len(panels))]
    for axis, name in zip(axes, panels, strict=True):
        _draw_panel(axis, name, thinned, classes)
    _draw_scale(axes[0], thinned)
    _draw_uncertainty_bar(figure, axes[-1])
    _draw_legend(figure, [classes[index] for index in shown], top=legend / total, panels=n)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def _shown(thinned: Thinned, n: int) -> list[int]:
    """Classes that occur, in the order of the table."""
    counts = np.bincount(thinned.predicted[thinned.predicted < n], minlength=n)
    if thinned.declared is not None:
        counts += np.bincount(thinned.declared[thinned.declared >= 0], minlength=n)
    return [index for index in range(n) if counts[index]]


def _draw_panel(axis: Axes, name: str, thinned: Thinned, classes: tuple[CropEntry, ...]) -> None:
    axis.set_title(name, fontsize=10, color=_INK, loc="left", pad=4)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color("#c9d1d6")
    if name == "uncertainty":
        values = np.ma.masked_equal(thinned.uncertainty, NOTHING) / ONE
        axis.imshow(values, cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
        return
    labels: NDArray[Any] = thinned.predicted if name == "predicted" or thinned.declared is None else thinned.declared
    axis.imshow(_painted(labels, classes), interpolation="nearest")


def _painted(labels: NDArray[Any], classes: tuple[CropEntry, ...]) -> NDArray[np.uint8]:
    """(y, x, 3): the colour of each class, and one for what has none."""
    palette = np.array([_bytes_of(colour) for colour in (*(crop.colour for crop in classes), _NO_LABEL)], np.uint8)
    known = (labels >= 0) & (labels < len(classes))
    return palette[np.where(known, labels, len(classes))]


def _bytes_of(colour: str) -> tuple[int, int, int]:
    """`#rrggbb` as three bytes."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _draw_scale(axis: Axes, thinned: Thinned) -> None:
    """A bar of a round length that takes at most a quarter of the width."""
    height, width = thinned.predicted.shape
    lengths = [step * 10**power for power in range(1, 7) for step in (1, 2, 5)]
    metres = max((one for one in lengths if one <= width * thinned.pixel_m / 4), default=lengths[0])
    label = f"{metres // 1000} km" if metres >= 1000 else f"{metres} m"
    left, right, y = 0.04 * width, 0.04 * width + metres / thinned.pixel_m, height * 0.955
    for colour, line in (("white", 6), (_INK, 2.5)):
        axis.plot([left, right], [y, y], color=colour, linewidth=line, solid_capstyle="butt")
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
    axis.text(left, y - 0.025 * height, label, fontsize=8, color=_INK, va="bottom", bbox=box)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)


def _draw_uncertainty_bar(figure: Figure, axis: Axes) -> None:
    from matplotlib.cm import ScalarMappable

    box = axis.get_position()
    bar = figure.add_axes((box.x1 + 0.008, box.y0, 0.009, box.height))
    figure.colorbar(ScalarMappable(cmap="magma_r"), cax=bar, ticks=[0, 0.5, 1])
    bar.tick_params(labelsize=8, colors=_SOFT, length=2)


def _draw_legend(figure: Figure, classes: list[CropEntry], *, top: float, panels: int) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=crop.colour, edgecolor="#c9d1d6", label=_short(crop.name)) for crop in classes]
    nothing = "no label, or nothing observed" if panels == 3 else "nothing observed"
    patches.append(Patch(facecolor=_NO_LABEL, edgecolor="#c9d1d6", label=nothing))
    figure.legend(
        handles=patches,
        loc="upper left",
        bbox_to_anchor=(0.015, top),
        borderaxespad=0,
        borderpad=0,
        ncols=_COLUMNS[panels],
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        handlelength=1.2,
        handleheight=1.0,
        columnspacing=2.2,
    )


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
