"""Which labels are kept where few are to be learnt from: parcels of each class, or blocks that show every class."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["few_blocks", "few_parcels", "random_ranks"]


def few_parcels(
    crop: NDArray[np.int64],
    *,
    share: float,
    seed: int,
    ids: NDArray[np.int64] | None = None,
    reached: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """(N,): of N parcels of these classes, (N,), a share of each class, rounded up, so that each class keeps one.

    The parcels of a class come in an order that depends on the seed and on their `ids` (N,), by default their
    positions, alone; not on their own order, nor on other parcels. The share is the first ones of that order. Those
    of them that are not `reached`, (N,), by default all are, are not kept, and no others take their place, but for the
    first one that is reached where none of the share is. So two callers who reach other parcels keep the same ones of
    those that both reach, but for such a first one. Of one seed the parcels of a smaller share are among those of a
    larger one. Classes below 0 are none: their parcels are not kept. ValueError for a share outside (0, 1].
    """
    _check_share(share)
    ranks = random_ranks(len(crop), seed=seed, ids=ids)
    reached = np.ones(len(crop), np.bool_) if reached is None else reached
    kept = np.zeros(len(crop), np.bool_)
    for one in np.unique(crop[crop >= 0]).tolist():
        mine = np.flatnonzero(crop == one)
        mine = mine[np.argsort(ranks[mine])]
        first = mine[: _share_of(len(mine), share)]
        can_be = reached[first]
        kept[first[can_be] if can_be.any() else mine[reached[mine]][:1]] = True
    return kept


def few_blocks(
    present: NDArray[np.bool_], *, share: float, seed: int, ids: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """(units,): a share of the units, rounded up, that together show every class which occurs in any of them.

    `present` (units, K) says which classes a unit shows: a split block, or one place of a patch set. Units come in an
    random order that depends on the seed and their `ids` (units,), by default their positions, alone. Those that show a
    class which none before them shows cover the classes: they are kept, one a class at most, and then the first others
    in that order up to the share. So, of one seed, the units of a smaller share are among those of a larger one.
    ValueError for a share outside (0, 1].
    """
    _check_share(share)
    order = np.argsort(random_ranks(len(present), seed=seed, ids=ids))
    shown = present[order]
    before = np.cumsum(shown, axis=0, dtype=np.int64) - shown
    covers = (shown & (before == 0)).any(axis=1)
    kept = np.zeros(len(present), np.bool_)
    kept[order[covers]] = True
    kept[order[~covers][: max(0, _share_of(len(present), share) - int(covers.sum()))]] = True
    return kept


def random_ranks(n: int, *, seed: int, ids: NDArray[np.int64] | None = None) -> NDArray[np.uint64]:
    """(n,): a number for each id, by default 0..n-1, by which they come in a random order; different where ids are.

    It depends on the seed and the id alone: the finalizer of SplitMix64 (Steele, Lea and Flood 2014), a bijection of 64
    bits, of the id xor a number drawn from the seed.
    """
    keys = (np.arange(n, dtype=np.int64) if ids is None else np.asarray(ids, np.int64)).astype(np.uint64)
    if keys.shape != (n,):
        raise ValueError(f"there is an id for each of {n}; got {len(keys)}")
    z = keys ^ np.random.default_rng(seed).integers(0, 2**64, dtype=np.uint64)
    # In 64 bits, where products that pass them wrap around.
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def _share_of(n: int, share: float) -> int:
    """That share of n, rounded up; a product such as 0.07 * 100, which floats make 7.000000000000001, stays 7."""
    return min(n, math.ceil(round(share * n, 9)))


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"a share of labels is above 0 and up to 1; got {share}")
