"""Tells nodata that an EOPF product leaves out from chunks that were lost: its bands and its classification agree."""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
from numpy.typing import NDArray

from sits_pipeline.steps.resample import repeat
from sits_pipeline.values import BandWindow

__all__ = ["lost_chunks"]

_SHARE = 1 / 8
"""Of a window: at the edge of a swath the bands reach less far than that beyond each other and the classification."""


def lost_chunks(windows: Mapping[str, BandWindow], absent: Set[str], shape: tuple[int, int]) -> dict[str, str]:
    """Bands of those with `absent` chunks that hold nothing where the rest of the product holds data, and why.

    `shape` is the height and width of the geobox that the windows were read for.
    """
    if not absent or "SCL" not in windows:
        return {}
    classified = _holds(windows["SCL"], shape)
    lost = {}
    for name in sorted(absent & windows.keys()):
        if name == "SCL":
            others = [_holds(window, shape) for band, window in windows.items() if band != "SCL"]
            missing = ~classified & (np.logical_or.reduce(others) if others else False)
            where = "bands hold"
        else:
            missing = classified & ~_holds(windows[name], shape)
            where = "classification holds"
        if np.count_nonzero(missing) > missing.size * _SHARE:
            lost[name] = f"chunks are missing where the product's {where} data; take another provider for this item"
    return lost


def _holds(window: BandWindow, shape: tuple[int, int]) -> NDArray[np.bool_]:
    out = np.empty(shape, bool)
    repeat(window, window.dn > 0, out)
    return out
