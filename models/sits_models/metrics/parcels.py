"""Scores of parcels: the majority of a parcel's predicted pixels is its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sits_models.sample import IGNORE_INDEX

__all__ = ["ParcelMajority", "ParcelVotes", "majority_by_parcel", "size_table"]

_CUBE_SHIFT = 32  # parcel ids are uint32


@dataclass(frozen=True, kw_only=True)
class ParcelMajority:
    """The vote of each of N parcels, by cube and parcel id."""

    cube: NDArray[np.int64]
    """(N,): number of the cube."""
    parcel: NDArray[np.int64]
    """(N,): row key in the cube's table."""
    predicted: NDArray[np.int64]
    """(N,): class with most predicted pixels; the smaller index where two have as many."""
    share: NDArray[np.float64]
    """(N,): share of the parcel's counted pixels that voted so."""
    target: NDArray[np.int64]
    """(N,): class with most labelled pixels, by the same rule."""
    pixels: NDArray[np.int64]
    """(N,): counted pixels."""


class ParcelVotes:
    """Counts pixels by parcel and class over any number of batches; memory grows with the parcels seen, not pixels."""

    def __init__(self, *, classes: int) -> None:
        self.classes = classes
        self._predicted = _Tally()
        self._target = _Tally()

    def add(self, predicted: Tensor, *, target: Tensor, parcel: Tensor, cube: Tensor) -> None:
        """Count a batch: three maps (B, H, W) and the number of each chip's cube, (B,).

        Pixels without a parcel (0) and those whose target is IGNORE_INDEX do not vote.
        """
        if not predicted.shape == target.shape == parcel.shape or cube.shape != parcel.shape[:1]:
            raise ValueError(
                f"maps are (B, H, W) and cube (B,); got predicted {tuple(predicted.shape)}, target "
                f"{tuple(target.shape)}, parcel {tuple(parcel.shape)} and cube {tuple(cube.shape)}"
            )
        kept = (parcel > 0) & (target != IGNORE_INDEX)
        key = (cube.to(torch.int64)[:, None, None] << _CUBE_SHIFT) | parcel.to(torch.int64)
        for tally, values in ((self._predicted, predicted), (self._target, target)):
            tally.add(key[kept].cpu().numpy() * self.classes + values.to(torch.int64)[kept].cpu().numpy())

    def majority(self) -> ParcelMajority:
        """The vote of every parcel seen, ordered by cube and id."""
        key, predicted, votes, pixels = _winners(*self._predicted.read(), self.classes)
        _, target, _, _ = _winners(*self._target.read(), self.classes)
        return ParcelMajority(
            cube=key >> _CUBE_SHIFT,
            parcel=key & ((1 << _CUBE_SHIFT) - 1),
            predicted=predicted,
            share=votes / np.maximum(pixels, 1),
            target=target,
            pixels=pixels,
        )

    def confusion(self) -> NDArray[np.int64]:
        """(K, K) counts of parcels, rows = target."""
        vote = self.majority()
        return _matrix(vote.target, vote.predicted, self.classes)

    def confusion_by_size(self, sizes: Sequence[NDArray[np.int64]], *, groups: int) -> NDArray[np.int64]:
        """(groups, K, K) counts of parcels by size class; `sizes` holds a `size_table` for each cube."""
        vote = self.majority()
        group = np.full(len(vote.parcel), -1)
        for number, table in enumerate(sizes):
            here = vote.cube == number
            group[here] = table[vote.parcel[here]]
        parts = [group == size for size in range(groups)]
        return np.array([_matrix(vote.target[part], vote.predicted[part], self.classes) for part in parts])


def majority_by_parcel(
    parcel: NDArray[np.integer], predicted: NDArray[np.integer], *, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Ids of the parcels in a map, ascending, the class most of their pixels have, and the share of those pixels.

    Parcel 0 is none; of classes with equally many pixels the smaller index wins.
    """
    kept = parcel > 0
    key, counts = np.unique(parcel[kept].astype(np.int64) * classes + predicted[kept], return_counts=True)
    ids, winner, votes, pixels = _winners(key, counts, classes)
    return ids, winner, votes / np.maximum(pixels, 1)


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
    """Sorted keys with their counts; new ones wait until they are worth a merge."""

    def __init__(self) -> None:
        self._keys = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)
        self._waiting: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._waiting_length = 0

    def add(self, keys: NDArray[np.int64]) -> None:
        found, counts = np.unique(keys, return_counts=True)
        self._waiting.append((found, counts))
        self._waiting_length += len(found)
        if self._waiting_length > max(len(self._keys), 65536):
            self.read()

    def read(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self._waiting:
            keys = np.concatenate([self._keys, *(keys for keys, _ in self._waiting)])
            counts = np.concatenate([self._counts, *(counts for _, counts in self._waiting)])
            self._keys, place = np.unique(keys, return_inverse=True)
            self._counts = np.zeros(len(self._keys), np.int64)
            np.add.at(self._counts, place, counts)
            self._waiting, self._waiting_length = [], 0
        return self._keys, self._counts


def _winners(
    keys: NDArray[np.int64], counts: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Groups, ascending, each with its winning class, the votes for it and all votes."""
    group, label = np.divmod(keys, classes)
    order = np.lexsort((label, -counts, group))
    groups, first = np.unique(group[order], return_index=True)
    totals = np.add.reduceat(counts[order], first) if len(first) else np.zeros(0, np.int64)
    return groups, label[order][first], counts[order][first], totals


def _matrix(target: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    return np.bincount(target * classes + predicted, minlength=classes**2).astype(np.int64).reshape(classes, classes)
