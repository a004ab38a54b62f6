"""Merge the scenes of one solar day: one scene a pixel, all bands from it, and a record of which."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import Quality
from sits_pipeline.values import Frame

__all__ = ["Layer", "mosaic"]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One scene on the cube's grid, harmonized; arrays are (y, x) or (band, y, x)."""

    source_index: int
    """Position of the scene among the day's items."""
    render: Callable[[NDArray[np.uint16]], None] | None
    """Writes reflectance, 1..65535 where observed, into an array (band, y, x); None where the scene was not read."""
    scl: NDArray[np.uint8]
    bits: NDArray[np.uint8]
    """Quality bits without OBSERVED."""
    observed: NDArray[np.bool_]
    unread: NDArray[np.bool_] | None
    """Where the scene covers a pixel but could not be read; None: nowhere."""


def mosaic(layers: Iterable[Layer], frame: Frame, inside: NDArray[np.bool_] | None) -> tuple[int, ...]:
    """Fill an empty `frame` from the day's layers in their order; returns which scenes left pixels unread.

    The first layer that observes a pixel gives all its bands. A pixel that an unread scene covers is not given to a
    later one: which of them it belongs to is unknown until the scene is read. `inside` (y, x) is where pixels may be
    observed at all (the zone's strip); None: everywhere. Layers may be lazy: no more are taken once every pixel is
    decided.
    """
    open_ = np.ones(frame.scl.shape, bool) if inside is None else inside.copy()
    missed, waiting = [], iter(layers)
    while open_.any() and (layer := next(waiting, None)) is not None:
        if layer.unread is not None:
            unread = open_ & layer.unread
            if unread.any():
                missed.append(layer.source_index)
            frame.quality[unread] = Quality.UNREAD
            open_ &= ~layer.unread
        if layer.render is not None:
            _fill(frame, layer, layer.render, open_ & layer.observed)
            open_ &= ~layer.observed
    return tuple(missed)


def _fill(frame: Frame, layer: Layer, render: Callable[[NDArray[np.uint16]], None], where: NDArray[np.bool_]) -> None:
    """Take the pixels `where` from one layer."""
    if where.all():
        render(frame.reflectance)
        frame.scl[...] = layer.scl
        np.bitwise_or(layer.bits, np.uint8(Quality.OBSERVED), out=frame.quality)
        frame.source_index[...] = layer.source_index
        return
    rows = np.flatnonzero(where.any(axis=1))
    if not len(rows):
        return
    reflectance = np.empty_like(frame.reflectance)
    render(reflectance)
    part = slice(rows[0], rows[-1] + 1)
    for target, band in zip(frame.reflectance, reflectance, strict=True):
        np.copyto(target[part], band[part], where=where[part])
    np.copyto(frame.scl, layer.scl, where=where)
    np.copyto(frame.quality, layer.bits | np.uint8(Quality.OBSERVED), where=where)
    frame.source_index[where] = layer.source_index
