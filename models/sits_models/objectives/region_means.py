"""Means of a resized map over rectangles, without resizing it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["region_means"]


def region_means(features: Tensor, regions: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Means over regions (B, n, 4) of a map (B, C, h, w) resized to `size`, height and width: (B, n, C), float32.

    The resize is bilinear with corners on corners. It is linear, and apart in rows and columns, and so is a mean over a
    rectangle: the mean is a product of the map with a weight for each of its rows and one for each of its columns.
    Raises ValueError for a region that is empty or not inside.
    """
    _check_inside(regions, *size)
    by_row = _interval_weights(regions[..., :2], pixels=size[0], cells=features.shape[2])  # (B, n, h)
    by_column = _interval_weights(regions[..., 2:], pixels=size[1], cells=features.shape[3])  # (B, n, w)
    with torch.autocast(features.device.type, enabled=False):
        exact = features.to(torch.promote_types(features.dtype, torch.float32))
        by_row, by_column = by_row.to(exact), by_column.to(exact)
        b, c, h, w = exact.shape
        rows = by_row @ exact.permute(0, 2, 1, 3).reshape(b, h, c * w)  # (B, n, C*w)
        return (rows.reshape(b, rows.shape[1], c, w) * by_column[:, :, None]).sum(dim=3)


def _interval_weights(intervals: Tensor, *, pixels: int, cells: int) -> Tensor:
    """What each of `cells` counts in the mean over the pixels from a first to before a last one, (..., 2) to
    (..., cells), float64; the cells are resized to `pixels`, corners on corners."""
    device = intervals.device
    step = (cells - 1) / (pixels - 1) if pixels > 1 else 0.0
    position = torch.arange(pixels, dtype=torch.float64, device=device) * step
    shares = 1 - (position[:, None] - torch.arange(cells, dtype=torch.float64, device=device)).abs()  # (pixels, cells)
    summed = functional.pad(shares.clamp(min=0).cumsum(dim=0), (0, 0, 1, 0))
    first, last = intervals.long().unbind(dim=-1)
    return (summed[last] - summed[first]) / (last - first)[..., None]


def _check_inside(regions: Tensor, height: int, width: int) -> None:
    """Raises ValueError for a region that is empty or not inside of a view of so many pixels."""
    top, bottom, left, right = regions.unbind(dim=-1)
    inside = (top >= 0) & (top < bottom) & (bottom <= height) & (left >= 0) & (left < right) & (right <= width)
    if not bool(inside.all()):
        wrong = regions[~inside][0].tolist()
        raise ValueError(
            f"a region is top, bottom, left and right inside of a view of {height} x {width} px, and not empty; got "
            f"{wrong}"
        )
