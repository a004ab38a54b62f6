"""The order in which the windows of an epoch are read: mixed among superblocks, so that a chunk is decoded once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import CHIP
from sits_models.data.grid import Grid
from sits_models.data.windows import Places

__all__ = ["around_superblocks", "last_of_superblock", "mixed_order", "superblocks_of"]


def superblocks_of(places: Places, side: int, shift: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the superblock in which each chip starts."""
    keys = places.copy()
    keys[:, 1:] = (places[:, 1:] // CHIP + shift) // side
    return np.asarray(np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1), np.int64)


def around_superblocks(
    places: Places, groups: NDArray[np.int64], grids: Sequence[Grid], size: int
) -> NDArray[np.int64]:
    """(chips, 4): top, bottom, left and right of the chunks that the chips of a superblock touch."""
    limits = np.array([(grid.height, grid.width) for grid in grids], np.int64)[places[:, 0]]
    first = np.maximum(places[:, 1:], 0) // CHIP
    last = -(-np.minimum(places[:, 1:] + size, limits) // CHIP)
    n = int(groups.max()) + 1
    low, high = np.full((n, 2), np.iinfo(np.int64).max), np.zeros((n, 2), np.int64)
    np.minimum.at(low, groups, first)
    np.maximum.at(high, groups, last)
    return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)[groups]


def mixed_order(
    groups: NDArray[np.int64], *, batch: int, streams: int, mixed: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The order of the chips: streams of superblocks, whose batches take turns."""
    if streams < 1:
        raise ValueError(f"data.readers is at least 1; got {streams}")
    n = int(groups.max()) + 1
    by_group = np.argsort(rng.permutation(n)[groups], kind="stable")
    batches = len(groups) // batch
    shares = [len(range(stream, batches, streams)) * batch for stream in range(streams)]
    order = np.empty((batches, batch), np.int64)
    for stream, chips in enumerate(np.split(by_group, np.cumsum(shares)[:-1])):
        mixing = _mix(groups[chips], mixed=mixed, rng=rng)
        order[stream::streams] = chips[mixing].reshape(-1, batch)
    return order.reshape(-1)


def last_of_superblock(groups: NDArray[np.int64], *, batch: int, streams: int) -> NDArray[np.bool_]:
    """Whether a chip, in the order of batches, is the last of its superblock in its stream."""
    stream = np.arange(len(groups)) // batch % streams
    _, from_end = np.unique((groups * streams + stream)[::-1], return_index=True)
    last = np.zeros(len(groups), np.bool_)
    last[len(groups) - 1 - from_end] = True
    return last


def _mix(groups: NDArray[np.int64], *, mixed: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions in random order among those of `mixed` groups at a time; the positions of a group are neighbours."""
    cuts = np.flatnonzero(np.diff(groups)) + 1
    waiting = iter(np.split(np.arange(len(groups)), cuts))
    remaining: dict[int, int] = {}
    pool: list[int] = []
    order = np.empty(len(groups), np.int64)
    owner = groups.tolist()
    for position, chance in enumerate(rng.random(len(groups)).tolist()):
        while len(remaining) < mixed and (opened := next(waiting, None)) is not None:
            remaining[owner[opened[0]]] = len(opened)
            pool.extend(opened.tolist())
        index = int(chance * len(pool))
        chosen, pool[index] = pool[index], pool[-1]
        pool.pop()
        order[position] = chosen
        remaining[owner[chosen]] -= 1
        if not remaining[owner[chosen]]:
            del remaining[owner[chosen]]
    return order
