"""Which pixels lie at a boundary: by the 3 x 3 rule of the CSCL paper, or by distance to the edge of a parcel."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["boundary_map", "boundary_window", "distance_bands", "name_bands"]

UNKNOWN_DISTANCE = -32768
"""What a cube stores in `boundary_distance` where nothing is known."""
FARTHEST_DM = 1000
"""Distances saturate here, in decimetres."""


def boundary_map(labels: Tensor, *, radius: int = 1) -> Tensor:
    """Where the window of 2 radius + 1 pixels around a pixel holds more than one value: bool (..., H, W), any H and W.

    The rule of Tarasiou et al. 2022 (context-self contrastive pretraining) at radius 1: background and the ignored
    label are values like any other, parcels do not matter, and a straight border is two pixels wide. What lies beyond
    the edge of `labels` is not seen: the published reflect padding repeats pixels that the window holds anyway. On a
    chip that misses borders which run along its edge, and a label that was set to "ignore" for this chip alone makes
    false ones; `boundary_window` computes the map of a window from the whole label map.
    """
    if labels.ndim < 2:
        raise ValueError(f"a label map is (..., H, W); got the shape {tuple(labels.shape)}")
    found = torch.zeros_like(labels, dtype=torch.bool)
    height, width = labels.shape[-2:]
    for down in range(min(radius + 1, height)):
        for right in range(-min(radius, width - 1), min(radius, width - 1) + 1):
            if (down, right) <= (0, 0):
                continue
            here = (..., slice(0, height - down), slice(max(-right, 0), width - max(right, 0)))
            there = (..., slice(down, height), slice(max(right, 0), width - max(-right, 0)))
            differs = labels[here] != labels[there]
            found[here] |= differs
            found[there] |= differs
    return found


def boundary_window(
    read: Callable[[slice, slice], NDArray[np.integer]], rows: slice, columns: slice, *, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """The part of the whole label map's `boundary_map` in a window, from the window's labels and one pixel around.

    `read(rows, columns)` gives the labels of a window inside the map, whose `shape` is (H, W). A window may pass
    the map's edge: no boundary there.
    """
    found = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.bool_)
    inner = [slice(max(part.start, 0), min(part.stop, side)) for part, side in zip((rows, columns), shape, strict=True)]
    if any(part.start >= part.stop for part in inner):
        return found
    ring = [slice(max(part.start - 1, 0), min(part.stop + 1, side)) for part, side in zip(inner, shape, strict=True)]
    # int64: torch compares no uint16.
    whole = boundary_map(torch.from_numpy(np.asarray(read(*ring), np.int64))).numpy()
    target = tuple(
        slice(part.start - window.start, part.stop - window.start)
        for part, window in zip(inner, (rows, columns), strict=True)
    )
    source = tuple(
        slice(part.start - edge.start, part.stop - edge.start) for part, edge in zip(inner, ring, strict=True)
    )
    found[target] = whole[source]
    return found


def distance_bands(boundary: Tensor, distances_dm: Sequence[int]) -> Tensor:
    """Band of each pixel by its distance to the nearest edge of a parcel, on either side of it: int64, same shape.

    `boundary` is in decimetres, `Sample.boundary`. Band i holds |boundary| <= distances_dm[i] that no band before
    holds, the last one, of number len(distances_dm), all beyond; -1 where the distance is unknown. The sum of the
    first bands is all that lies within a distance. Raises ValueError for distances that do not rise, or reach
    1000 dm, where a cube's distances saturate.
    """
    limits = [-1, *distances_dm, FARTHEST_DM]
    if any(low >= high for low, high in itertools.pairwise(limits)):
        raise ValueError(f"distances rise from 0 and stay below {FARTHEST_DM} dm; got {tuple(distances_dm)}")
    distance = boundary.to(torch.int32).abs()
    # right=False: a distance equal to a limit belongs to the band that the limit closes.
    bands = torch.bucketize(distance, torch.tensor(distances_dm, dtype=torch.int32, device=boundary.device))
    return bands.masked_fill(boundary == UNKNOWN_DISTANCE, -1)


def name_bands(limits: Sequence[float], unit: str) -> tuple[str, ...]:
    """Names of the bands that `limits` part, the last one open.

    >>> name_bands((10, 20), "m")
    ('<= 10 m', '10-20 m', '> 20 m')
    """
    if not limits:
        return ("all",)
    between = [f"{low:g}-{high:g} {unit}" for low, high in itertools.pairwise(limits)]
    return (f"<= {limits[0]:g} {unit}", *between, f"> {limits[-1]:g} {unit}")
