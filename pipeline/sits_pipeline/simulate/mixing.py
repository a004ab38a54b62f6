"""Sub-pixel mixing: how much of every pixel belongs to which piece of land, seen through the point spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio import features

__all__ = ["Shares", "share_pixels"]

Floats = NDArray[np.float32]

_REACH = 2.0
"""Width of the window that a pixel looks through, in pixels."""
_SIGMA = 0.38
"""Deviation of the point spread in pixels: with the square pixel, an MTF at Nyquist of 0.31 (ESA asks 0.15 to 0.3)."""
_STRIP_ROWS = 240
_MOST = 9
"""Pieces of land a pixel mixes at most; what is left over is far below the noise."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Which pieces of land a pixel sees: one for most pixels, several shares that sum to 1 for the mixed ones."""

    main: NDArray[np.int32]
    """(y, x) piece of land with the largest share."""
    mixed: NDArray[np.intp]
    """(n,) flat positions of the pixels that see several pieces."""
    start: NDArray[np.intp]
    """(n,) where the shares of a mixed pixel begin in `piece` and `share`."""
    piece: NDArray[np.int32]
    share: Floats

    def spread(self, value: Floats) -> Floats:
        """Image (y, x) of a quantity that has one value a piece of land; mixing is linear."""
        image = np.take(value, self.main)
        if len(self.mixed):
            image.ravel()[self.mixed] = np.add.reduceat(np.take(value, self.piece) * self.share, self.start)
        return image


def share_pixels(geometry: NDArray[np.object_], geobox: GeoBox, samples: int) -> Shares:
    """Shares of the pieces of land (later ones paint over earlier ones) in every pixel of a geobox.

    `samples` points a pixel and direction, an even number; the first piece must cover everything.
    """
    tree = shapely.STRtree(geometry)
    height, width = geobox.shape
    parts = [
        _share_strip(geometry, tree, geobox, row, min(_STRIP_ROWS, height - row), samples)
        for row in range(0, height, _STRIP_ROWS)
    ]
    mixed = [part.mixed + i * _STRIP_ROWS * width for i, part in enumerate(parts)]
    before = np.cumsum([0, *(len(part.piece) for part in parts)])
    return Shares(
        main=np.concatenate([part.main for part in parts]),
        mixed=np.concatenate(mixed),
        start=np.concatenate([part.start + n for part, n in zip(parts, before, strict=False)]),
        piece=np.concatenate([part.piece for part in parts]),
        share=np.concatenate([part.share for part in parts]),
    )


def _share_strip(
    geometry: NDArray[np.object_], tree: shapely.STRtree, geobox: GeoBox, row: int, rows: int, samples: int
) -> Shares:
    width = geobox.shape[1]
    border = int(samples * (_REACH - 1) / 2)
    fine = _paint(geometry, tree, geobox, row, rows, samples, border)
    side = samples + 2 * border
    windows = np.lib.stride_tricks.sliding_window_view(fine, (side, side))[::samples, ::samples]
    assert windows.shape[:2] == (rows, width)
    low, high = _extremes(fine, samples, border)
    flat = np.flatnonzero(low != high)
    main = np.ascontiguousarray(low)
    seen = windows[flat // width, flat % width].reshape(len(flat), side * side)
    pieces, shares = _collect(seen, _weights(samples, side))
    main.ravel()[flat] = pieces[np.arange(len(flat)), np.argmax(shares, axis=1)] if len(flat) else 0
    kept = shares > 0
    counts = kept.sum(axis=1)
    return Shares(
        main=main,
        mixed=flat,
        start=np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp) if len(flat) else np.zeros(0, np.intp),
        piece=pieces[kept],
        share=shares[kept],
    )


def _paint(
    geometry: NDArray[np.object_], tree: shapely.STRtree, geobox: GeoBox, row: int, rows: int, samples: int, border: int
) -> NDArray[np.int32]:
    """Number of the uppermost piece of land at `samples` points a pixel, on a strip with a border around it."""
    step = abs(geobox.affine.a) / samples
    west = geobox.affine.c - border * step
    north = geobox.affine.f + geobox.affine.e * row + border * step
    shape = (rows * samples + 2 * border, geobox.shape[1] * samples + 2 * border)
    box = shapely.box(west, north - shape[0] * step, west + shape[1] * step, north)
    found = np.sort(tree.query(box))
    transform = geobox.affine.__class__(step, 0.0, west, 0.0, -step, north)
    painted = features.rasterize(
        zip(geometry[found], found.tolist(), strict=True), out_shape=shape, transform=transform, dtype="int32"
    )
    return np.asarray(painted, np.int32)


def _extremes(fine: NDArray[np.int32], samples: int, border: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Lowest and highest number in the window of every pixel, (y, x)."""
    found = []
    for pick in (np.minimum, np.maximum):
        blocks = fine
        for axis in (0, 1):
            blocks = _windowed(pick, blocks, samples, border, axis)
        found.append(blocks)
    return found[0], found[1]


def _windowed(pick: np.ufunc, values: NDArray[np.int32], samples: int, border: int, axis: int) -> NDArray[np.int32]:
    values = np.moveaxis(values, axis, 0)
    n = (len(values) - 2 * border) // samples
    result = values[0 : n * samples : samples].copy()
    for k in range(1, samples + 2 * border):
        pick(result, values[k : k + (n - 1) * samples + 1 : samples], out=result)
    return np.moveaxis(result, 0, axis)


def _weights(samples: int, side: int) -> Floats:
    """Weight (side * side,) of the points of a window: a square pixel blurred by a Gaussian, cut at the window."""
    offset = (np.arange(side) - (side - 1) / 2) / samples
    pixel = (np.arange(samples) - (samples - 1) / 2) / samples
    line = np.exp(-0.5 * ((offset[:, None] - pixel[None, :]) / _SIGMA) ** 2).sum(axis=1)
    line /= line.sum()
    return np.outer(line, line).ravel().astype(np.float32)


def _collect(seen: NDArray[np.int32], weights: Floats) -> tuple[NDArray[np.int32], Floats]:
    """Distinct numbers (n, k) in every row of `seen` and the sum of their weights, 0 where a row has fewer."""
    rest = seen.copy()
    gone = np.iinfo(np.int32).max
    pieces: list[NDArray[np.int32]] = []
    shares: list[Floats] = []
    for _ in range(_MOST):
        lowest = rest.min(axis=1) if len(rest) else np.zeros(0, np.int32)
        if not np.any(lowest != gone):
            break
        same = rest == lowest[:, None]
        share = np.einsum("ij,j->i", same, weights)  # no BLAS: its threads may sum in another order
        share[lowest == gone] = 0
        pieces.append(np.where(lowest == gone, 0, lowest).astype(np.int32))
        shares.append(share)
        rest[same] = gone
    if not pieces:
        return np.zeros((len(seen), 1), np.int32), np.zeros((len(seen), 1), np.float32)
    stacked = np.stack(shares, axis=1)
    return np.stack(pieces, axis=1), stacked / stacked.sum(axis=1, keepdims=True)
