"""Which block goes to which split: shares near their targets, every class in every split, the same for a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["assign"]

_MISSING = 10.0
"""Cost of one class that is absent from one split although it lies in enough blocks."""
_EMPTY = 1000.0
_CLASS_SHARES = 0.25
"""Weight of the mean deviation of the classes' shares beside that of the whole area's."""
_GAIN = 1e-9
"""Less than this is rounding, not an improvement: the result must not depend on the machine."""
_SWEEPS = 20
_SWAPS_UP_TO = 512
"""Swapping two blocks is tried for up to so many blocks of three splits; beyond, moves alone come close enough."""


def assign(
    area: NDArray[np.float64], shares: NDArray[np.float64], *, seed: int, least_m2: float = 0.0
) -> NDArray[np.intp]:
    """Index of the split of each block, for `area` (block, class) in m2 and the positive `shares` of the splits.

    The cost to make small: the summed deviation of the splits' shares of all area from their targets, a quarter of
    the same averaged over the classes, 10 for each class that a split lacks (of those in at least as many blocks
    as there are splits), 1000 for an empty split. From several greedy starts, blocks are moved and swapped as long
    as that helps; the best end wins.

    With `least_m2`, a split lacks a class of which it has less than so much, by the part that it is short of, of the
    classes with so much for every split; without, one that none of its blocks holds.
    """
    rng = np.random.default_rng(seed)
    size = _size(area, shares)
    starts = 16 if size <= 64 else 4 if size <= _SWAPS_UP_TO else 1
    best: tuple[float, NDArray[np.intp]] | None = None
    for start in range(starts):
        state = _greedy(area, shares, _order(area, rng, weighted=start == 0), least_m2)
        _improve(state, rng, with_swaps=size <= _SWAPS_UP_TO)
        cost = float(state.cost())
        if best is None or cost < best[0] - _GAIN:
            best = (cost, state.split.copy())
    assert best is not None
    return best[1]


def _size(area: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """How much work there is, in blocks of three splits: many folds make many choices."""
    return len(area) * max(len(shares), 3) / 3


@dataclass(kw_only=True)
class _State:
    """An assignment and its sums."""

    relative: NDArray[np.float64]
    """(block, class) share of the class's area."""
    weight: NDArray[np.float64]
    """(block,) share of all area."""
    present: NDArray[np.float64]
    """(block, class) what the block adds to what a split must hold: 1 where it holds the class, or its area of it in
    m2; 0 for a class that not every split can have."""
    needed: NDArray[np.bool_]
    """(class,): whether any block adds to it; kept, since the cost is asked for several times a block."""
    least: float
    """So much of that a split must hold."""
    shares: NDArray[np.float64]
    split: NDArray[np.intp]
    """(block,); -1 not assigned."""
    by_class: NDArray[np.float64]
    """(split, class)"""
    total: NDArray[np.float64]
    """(split,)"""
    holds: NDArray[np.float64]
    """(split, class): sums of `present`."""
    blocks: NDArray[np.float64]
    """(split,)"""

    def move(self, block: int, target: int) -> None:
        """Take a block out of its split and put it into another."""
        for split, sign in ((self.split[block], -1.0), (target, 1.0)):
            if split >= 0:
                self.by_class[split] += sign * self.relative[block]
                self.total[split] += sign * self.weight[block]
                self.holds[split] += sign * self.present[block]
                self.blocks[split] += sign
        self.split[block] = target

    def cost(self) -> np.float64:
        """What `assign` makes small."""
        missing = self.missing(self.holds).sum()
        shares = np.abs(self.total - self.shares).sum()
        classes = np.abs(self.by_class - self.shares[:, None]).sum() / self.by_class.shape[1]
        empty = np.count_nonzero(self.blocks < 0.5)
        return np.float64(shares + _CLASS_SHARES * classes + _MISSING * missing + _EMPTY * empty)

    def missing(self, holds: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each split lacks of each class, 0..1, when the splits hold so much, (..., split, class)."""
        short = np.maximum(1.0 - holds / self.least, 0.0)
        return np.asarray(np.where(self.needed, short, 0.0))


def _order(area: NDArray[np.float64], rng: np.random.Generator, *, weighted: bool) -> NDArray[np.intp]:
    """Blocks in the order of a greedy start: those that matter most to a class first, or any order."""
    shuffled = rng.permutation(len(area))
    if not weighted:
        return shuffled
    weight = (area / area.sum(axis=0)).sum(axis=1)
    return shuffled[np.argsort(-weight[shuffled], kind="stable")]


def _greedy(area: NDArray[np.float64], shares: NDArray[np.float64], order: NDArray[np.intp], least_m2: float) -> _State:
    """Each block, in order, to the split that lacks most of what the block holds."""
    n_blocks, n_classes = area.shape
    enough = (np.count_nonzero(area, axis=0) >= len(shares)) & (area.sum(axis=0) >= least_m2 * len(shares))
    present = np.where(enough, area if least_m2 > 0 else area > 0, 0.0).astype(np.float64)
    state = _State(
        relative=area / area.sum(axis=0),
        weight=area.sum(axis=1) / area.sum(),
        present=present,
        needed=present.any(axis=0),
        # Whole blocks are counted, so that one is all that is needed.
        least=least_m2 if least_m2 > 0 else 1.0,
        shares=shares,
        split=np.full(n_blocks, -1, dtype=np.intp),
        by_class=np.zeros((len(shares), n_classes)),
        total=np.zeros(len(shares)),
        holds=np.zeros((len(shares), n_classes)),
        blocks=np.zeros(len(shares)),
    )
    for block in order:
        lack = 1 - state.by_class / shares[:, None]
        state.move(block, int(np.argmax(lack @ state.relative[block] + 1 - state.total / shares)))
    return state


def _improve(state: _State, rng: np.random.Generator, *, with_swaps: bool) -> None:
    """Move single blocks and, if wanted, swap pairs until neither helps."""
    for _ in range(_SWEEPS):
        moved = _sweep_moves(state, rng.permutation(len(state.split)))
        swapped = with_swaps and _sweep_swaps(state)
        if not moved and not swapped:
            return


def _sweep_moves(state: _State, order: NDArray[np.intp]) -> bool:
    changed = False
    for block in order:
        home, before = int(state.split[block]), state.cost()
        costs = np.full(len(state.shares), before)
        for target in range(len(state.shares)):
            if target != home:
                state.move(block, target)
                costs[target] = state.cost()
                state.move(block, home)
        best = int(np.argmin(costs))
        if costs[best] < before - _GAIN:
            state.move(block, best)
            changed = True
    return changed


def _sweep_swaps(state: _State) -> bool:
    """For each block, swap it with the block of another split that helps most."""
    changed = False
    for block in range(len(state.split)):
        others = np.flatnonzero(state.split != state.split[block])
        if not len(others):
            return changed
        costs = _swap_costs(state, block, others)
        best = int(np.argmin(costs))
        if costs[best] < state.cost() - _GAIN:
            home, away = int(state.split[block]), int(state.split[others[best]])
            state.move(block, away)
            state.move(int(others[best]), home)
            changed = True
    return changed


def _swap_costs(state: _State, block: int, others: NDArray[np.intp]) -> NDArray[np.float64]:
    """Cost after swapping `block` with each of `others`."""
    home, away = state.split[block], state.split[others]
    each = np.arange(len(others))
    total = np.repeat(state.total[None], len(others), axis=0)  # (other, split)
    step = state.weight[others] - state.weight[block]
    total[:, home] += step
    total[each, away] -= step
    by_class = np.repeat(state.by_class[None], len(others), axis=0)  # (other, split, class)
    change = state.relative[others] - state.relative[block]
    by_class[:, home] += change
    by_class[each, away] -= change
    holds = np.repeat(state.holds[None], len(others), axis=0)
    gain = state.present[others] - state.present[block]
    holds[:, home] += gain
    holds[each, away] -= gain
    shares = np.abs(total - state.shares).sum(axis=1)
    classes = np.abs(by_class - state.shares[:, None]).sum(axis=(1, 2)) / by_class.shape[2]
    missing = state.missing(holds).sum(axis=(1, 2))
    empty = np.count_nonzero(state.blocks < 0.5)
    return np.asarray(shares + _CLASS_SHARES * classes + _MISSING * missing + _EMPTY * empty)
