"""Which labels are kept where few are to be learnt from: parcels of each class, or blocks that show every class."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["few_blocks", "few_parcels", "random_ranks"]


def few_parcels(
    crop: NDArray[np.int64], *, share: float, seed: int, ids: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """(N,): of N parcels of these classes, (N,), a share of each class, rounded up, so that each class keeps one.

    Which ones depends on the seed and on their `ids` (N,), by default their positions; not on their order, nor on other
    parcels than those of their class. Of one seed the parcels of a smaller share are among those of a larger one.
    Classes below 0 are none: their parcels are not kept. ValueError for a share outside (0, 1].
    """
    _check_share(share)
    ranks = random_ranks(len(crop), seed=seed, ids=ids)
    kept = np.zeros(len(crop), np.bool_)
    for one in np.unique(crop[crop >= 0]).tolist():
        mine = np.flatnonzero(crop == one)
        kept[mine[np.argsort(ranks[mine])][: _share_of(len(mine), share)]] = True
    return kept


def few_blocks(
    present: NDArray[np.bool_], *, share: float, seed: int, ids: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """(units,): a share of the units, rounded up, that together show every class which occurs in any of them.

    `present` (units, K) says which classes a unit shows: a split block, or one place of a patch set. Units come in an
    order that depends on the seed and their `ids` (units,), by default their positions, alone: first those that cover
    the classes, each the one that shows most of what is still missing, then the others at random. The share takes the
    first ones of that order, and all of the cover even where that is more. So, of one seed, the units of a smaller
    share are among those of a larger one. ValueError for a share outside (0, 1].
    """
    _check_share(share)
    ranks = random_ranks(len(present), seed=seed, ids=ids)
    cover: list[int] = []
    missing = present.any(axis=0)
    while missing.any():
        gain = present[:, missing].sum(axis=1)
        best = np.flatnonzero(gain == gain.max())
        first = int(best[np.argmin(ranks[best])])
        cover.append(first)
        missing &= ~present[first]
    kept = np.zeros(len(present), np.bool_)
    kept[cover] = True
    others = np.flatnonzero(~kept)
    further = max(0, _share_of(len(present), share) - len(cover))
    kept[others[np.argsort(ranks[others])][:further]] = True
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
