"""Scores of parcels: the majority of a parcel's predicted pixels is its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sits_models.metrics.confusion import Counted, count_by_block
from sits_models.sample import IGNORE_INDEX

__all__ = ["ParcelMajority", "ParcelVotes", "decide", "size_table"]

_CUBE_SHIFT = 32  # parcel ids are uint32
_AT_ONCE = 50_000
"""Parcels that are decided at a time."""


def decide(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """The class (N,) with the most votes of each row of counts (N, K): the smaller index where two have as many."""
    return counts.argmax(axis=1).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class ParcelMajority:
    """The vote of each of N parcels, by cube and parcel id."""

    cube: NDArray[np.int64]
    """(N,): number of the cube."""
    parcel: NDArray[np.int64]
    """(N,): row key in the cube's table."""
    predicted: NDArray[np.int64]
    """(N,): class with most predicted pixels, as `decide` has it."""
    share: NDArray[np.float64]
    """(N,): share of the parcel's counted pixels that voted so."""
    target: NDArray[np.int64]
    """(N,): class with most labelled pixels, by the same rule."""
    pixels: NDArray[np.int64]
    """(N,): counted pixels."""
    block: NDArray[np.int64]
    """(N,): key of the first block, row by row, with a counted pixel of the parcel."""


class ParcelVotes:
    """Counts pixels by parcel and class over any number of batches; memory grows with the parcels seen, not pixels."""

    def __init__(self, *, classes: int) -> None:
        self.classes = classes
        self._predicted = _Tally(np.add, 0)
        self._target = _Tally(np.add, 0)
        self._block = _Tally(np.minimum, np.iinfo(np.int64).max)

    def add(self, predicted: Tensor, *, target: Tensor, parcel: Tensor, cube: Tensor, block: Tensor) -> None:
        """Count a batch: four maps (B, H, W), the last from `block_keys`, and the number of each chip's cube, (B,).

        Pixels without a parcel (0) and those whose target is IGNORE_INDEX do not vote.
        """
        if not predicted.shape == target.shape == parcel.shape == block.shape or cube.shape != parcel.shape[:1]:
            raise ValueError(
                f"maps are (B, H, W) and cube (B,); got predicted {tuple(predicted.shape)}, target "
                f"{tuple(target.shape)}, parcel {tuple(parcel.shape)}, block {tuple(block.shape)} and cube "
                f"{tuple(cube.shape)}"
            )
        kept = (parcel > 0) & (target != IGNORE_INDEX)
        key = ((cube.to(torch.int64)[:, None, None] << _CUBE_SHIFT) | parcel.to(torch.int64))[kept].cpu().numpy()
        for tally, values in ((self._predicted, predicted), (self._target, target)):
            tally.add(key * self.classes + values.to(torch.int64)[kept].cpu().numpy(), np.ones_like(key))
        self._block.add(key, block[kept].cpu().numpy())

    def majority(self) -> ParcelMajority:
        """The vote of every parcel seen, ordered by cube and id."""
        key, predicted, votes, pixels = _winners(*self._predicted.read(), self.classes)
        _, target, _, _ = _winners(*self._target.read(), self.classes)
        _, block = self._block.read()
        return ParcelMajority(
            cube=key >> _CUBE_SHIFT,
            parcel=key & ((1 << _CUBE_SHIFT) - 1),
            predicted=predicted,
            share=votes / np.maximum(pixels, 1),
            target=target,
            pixels=pixels,
            block=block,
        )

    def counted(self) -> Counted:
        """Each parcel once, in the block that `ParcelMajority` gives it."""
        vote = self.majority()
        return count_by_block(vote.target, vote.predicted, vote.block, classes=self.classes)

    def counted_by_size(self, sizes: Sequence[NDArray[np.int64]], *, groups: int) -> tuple[Counted, ...]:
        """Each parcel once, by size class; `sizes` holds a `size_table` for each cube."""
        vote = self.majority()
        group = np.full(len(vote.parcel), -1)
        for number, table in enumerate(sizes):
            here = vote.cube == number
            group[here] = table[vote.parcel[here]]
        parts = [group == size for size in range(groups)]
        return tuple(
            count_by_block(vote.target[part], vote.predicted[part], vote.block[part], classes=self.classes)
            for part in parts
        )


def size_table(
    parcel: NDArray[np.integer], area_ha: NDArray[np.floating], limits_ha: Sequence[float]
) -> NDArray[np.int64]:
    """Size class by parcel id, (largest id + 1,): class i is an area <= limits_ha[i] that no class before holds.

    -1 for id 0 and for ids the table lacks.
    """
    if list(limits_ha) != sorted(set(limits_ha)):
        raise ValueError(f"limits of size classes rise; got {tuple(limits_ha)} ha")
    table = np.full(int(parcel.max(initial=0)) + 1, -1, np.int64)
    table[parcel] = np.searchsorted(np.asarray(limits_ha, np.float64), area_ha, side="left")
    table[0] = -1
    return table


class _Tally:
    """Sorted keys, each with what its values join to; new ones wait until they are worth a merge."""

    def __init__(self, join: np.ufunc, start: int) -> None:
        self._join, self._start = join, start
        self._keys = np.zeros(0, np.int64)
        self._values = np.zeros(0, np.int64)
        self._waiting: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._waiting_length = 0

    def add(self, keys: NDArray[np.int64], values: NDArray[np.int64]) -> None:
        joined = self._joined(keys, values)
        self._waiting.append(joined)
        self._waiting_length += len(joined[0])
        if self._waiting_length > max(len(self._keys), 65536):
            self.read()

    def read(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self._waiting:
            keys = np.concatenate([self._keys, *(keys for keys, _ in self._waiting)])
            values = np.concatenate([self._values, *(values for _, values in self._waiting)])
            self._keys, self._values = self._joined(keys, values)
            self._waiting, self._waiting_length = [], 0
        return self._keys, self._values

    def _joined(
        self, keys: NDArray[np.int64], values: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        found, place = np.unique(keys, return_inverse=True)
        joined = np.full(len(found), self._start, np.int64)
        self._join.at(joined, place, values)
        return found, joined


def _winners(
    keys: NDArray[np.int64], counts: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Groups, ascending, each with its winning class, the votes for it and all votes; `keys` ascend."""
    group, label = np.divmod(keys, classes)
    groups, row = np.unique(group, return_inverse=True)
    winner, votes, totals = (np.zeros(len(groups), np.int64) for _ in range(3))
    for first in range(0, len(groups), _AT_ONCE):
        rows = slice(first, min(first + _AT_ONCE, len(groups)))
        part = slice(*np.searchsorted(row, [rows.start, rows.stop]))
        dense = np.zeros((rows.stop - rows.start, classes), np.int64)
        dense[row[part] - first, label[part]] = counts[part]
        winner[rows] = decide(dense)
        votes[rows], totals[rows] = dense.max(axis=1), dense.sum(axis=1)
    return groups, winner, votes, totals
