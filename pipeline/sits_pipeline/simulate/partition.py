"""Cutting convex land into tracts, blocks, fields and lots that share their edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["area_of", "cut_by_size", "cut_into_strips", "inset"]

Ring = NDArray[np.float64]
"""Vertices (n, 2) of a convex polygon in metres, counter-clockwise, the first not repeated."""


def area_of(ring: Ring) -> float:
    """Area in square metres."""
    x, y = ring[:, 0], ring[:, 1]
    open_ = x[:-1] * y[1:] - y[:-1] * x[1:]
    return 0.5 * float(open_.sum() + x[-1] * y[0] - y[-1] * x[0])


def cut_by_size(
    ring: Ring, rng: np.random.Generator, *, angle: float, target: Callable[[], float], tilt: float
) -> Iterator[Ring]:
    """Cut in two, across the longer side, until every piece is no larger than a freshly drawn target area.

    Cuts run along `angle` (radians) or across it, turned by a normal error of deviation `tilt`.
    """
    pending = [ring]
    while pending:
        piece = pending.pop()
        if area_of(piece) <= 1.35 * target():
            yield piece
            continue
        along, across = _sides(piece, angle)
        direction = angle + (math.pi / 2 if along > across else 0.0) + rng.normal(0, tilt)
        pending.extend(_halves(piece, direction, 0.5 + 0.14 * rng.uniform(-1, 1)))


def cut_into_strips(
    ring: Ring, rng: np.random.Generator, *, angle: float, width: Callable[[], float]
) -> Iterator[Ring]:
    """Parallel strips along `angle` whose widths in metres are drawn one by one."""
    rest = ring
    for _ in range(60):
        across = _sides(rest, angle)[1]
        step = width()
        if across < 1.6 * step:
            break
        halves = _halves(rest, angle + rng.normal(0, 0.004), step / across)
        if len(halves) < 2:
            break
        strip, rest = halves
        yield strip
    yield rest


def inset(ring: Ring, distance: float) -> Ring | None:
    """The ring moved inwards by `distance` metres, None where nothing is left."""
    shrunk = shapely.Polygon(ring).buffer(-distance, join_style="mitre")
    if shrunk.is_empty or not isinstance(shrunk, shapely.Polygon):
        return None
    return shapely.get_coordinates(shapely.normalize(shrunk))[:0:-1]


def _sides(ring: Ring, angle: float) -> tuple[float, float]:
    along = ring @ (math.cos(angle), math.sin(angle))
    across = ring @ (-math.sin(angle), math.cos(angle))
    return float(np.ptp(along)), float(np.ptp(across))


def _halves(ring: Ring, direction: float, share: float) -> list[Ring]:
    """The pieces on both sides of a line along `direction`, `share` of the way through the ring."""
    distance = ring @ (-math.sin(direction), math.cos(direction))
    low = distance.min()
    distance = distance - (low + share * (distance.max() - low))
    return [piece for piece in (_keep(ring, -distance), _keep(ring, distance)) if len(piece) > 2]


def _keep(ring: Ring, distance: NDArray[np.float64]) -> Ring:
    """The part of a convex ring where `distance`, one value a vertex, is not negative."""
    kept: list[NDArray[np.float64]] = []
    for i in range(len(ring)):
        j = (i + 1) % len(ring)
        if distance[i] >= 0:
            kept.append(ring[i])
        if distance[i] * distance[j] < 0:
            # The same edge seen from its two sides must give the same vertex, to the last bit.
            a, b = (i, j) if tuple(ring[i]) < tuple(ring[j]) else (j, i)
            kept.append(ring[a] + (ring[b] - ring[a]) * (abs(distance[a]) / (abs(distance[a]) + abs(distance[b]))))
    return np.array(kept).reshape(-1, 2)
