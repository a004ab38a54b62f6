"""A confusion matrix as a picture: what each class was taken for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Unit", "confusion_png", "shares_of", "write_confusion"]

Unit = Literal["pixel", "parcel", "chip"]
"""What a model gives a class to, and a matrix counts."""

_INK, _SOFT = "#17242d", "#5b6b76"
_CELL_IN = 0.44
_MAX_NAME = 28


def write_confusion(
    matrix: NDArray[np.int64],
    names: Sequence[str],
    png_path: str | Path,
    *,
    simulated: bool = False,
    unit: Unit = "pixel",
) -> None:
    """Draw a confusion matrix (K, K), rows = truth, of K named classes; `simulated` data are called so.

    `unit` is what was counted.
    """
    Path(png_path).write_bytes(confusion_png(matrix, names, simulated=simulated, unit=unit))


def confusion_png(
    matrix: NDArray[np.int64],
    names: Sequence[str],
    *,
    simulated: bool = False,
    unit: Unit = "pixel",
) -> bytes:
    """The picture as a PNG: the same matrix gives the same bytes."""
    if matrix.shape != (len(names), len(names)):
        raise ValueError(f"a confusion matrix of {len(names)} names is square with as many rows; got {matrix.shape}")
    figure = _figure(matrix, [_short(name) for name in names], unit)
    if simulated:
        figure.axes[0].set_xlabel(f"{figure.axes[0].get_xlabel()}; simulated data")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def shares_of(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row as shares of its sum, 0 to 1; nan in the rows of classes that do not occur.

    >>> shares_of(np.array([[3, 1], [0, 0]])).tolist()
    [[0.75, 0.25], [nan, nan]]
    """
    support = matrix.sum(axis=1, keepdims=True).astype(np.float64)
    shares: NDArray[np.float64] = np.full(matrix.shape, np.nan)
    np.divide(matrix, support, out=shares, where=support > 0)
    return shares


def _figure(matrix: NDArray[np.int64], names: Sequence[str], unit: str) -> Figure:
    # Figures made without pyplot are no global state: nothing to close, and no window system is asked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    k = len(names)
    margin = 0.25 + 0.075 * max(map(len, names))
    side = k * _CELL_IN
    width, height = side + margin + 1.0, side + margin + 0.55
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((margin / width, 0.45 / height, side / width, side / height))
    _draw(axes, matrix, names, unit)
    return figure


def _draw(axes: Axes, matrix: NDArray[np.int64], names: Sequence[str], unit: str) -> None:
    k, shares = len(names), shares_of(matrix)
    axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=1, aspect="equal")
    axes.set_facecolor("#f1f3f5")
    axes.set_xticks(range(k), names, rotation=90, fontsize=9, color=_INK)
    axes.set_yticks(range(k), names, fontsize=9, color=_INK)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=4)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("rows: the label; columns: what the model says; per cent of the row", fontsize=9, color=_SOFT)
    for row in range(k):
        for column in range(k):
            _write_share(axes, row, column, float(shares[row, column]))
        axes.text(k - 0.4, row, _support(int(matrix[row].sum())), fontsize=8.5, color=_SOFT, va="center")
    axes.text(k - 0.4, -0.75, f"{unit}s", fontsize=8.5, color=_SOFT, va="center")


def _write_share(axes: Axes, row: int, column: int, share: float) -> None:
    if not share >= 0.005:  # nan as well
        return
    axes.text(
        column,
        row,
        f"{100 * share:.0f}",
        ha="center",
        va="center",
        fontsize=9 if row == column else 8.5,
        fontweight="bold" if row == column else "normal",
        color="white" if share > 0.55 else _INK,
    )


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def _support(count: int) -> str:
    """
    >>> [_support(n) for n in (0, 950, 12_345, 3_456_789)]
    ['–', '950', '12 k', '3.5 M']
    """
    if count == 0:
        return "–"
    if count < 1_000:
        return str(count)
    if count < 999_500:
        return f"{count / 1e3:.0f} k" if count >= 9_950 else f"{count / 1e3:.1f} k"
    return f"{count / 1e6:.1f} M"
