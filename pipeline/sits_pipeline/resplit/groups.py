"""Patches that lie too near to each other to be in two splits, and the split of each patch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_catalog.cube import PIXEL_M
from sits_catalog.region import SplitRule
from sits_pipeline.splits import CODES, fold_codes, lacking, least_m2
from sits_pipeline.splits.solve import assign

__all__ = ["PatchSplits", "groups_of", "near_pairs", "share_out"]

_METRES_A_DEGREE = 110_574.0
"""The least length of a degree of latitude (on the equator); of longitude it is 111 320 m times the cosine at least."""
_EAST_METRES_A_DEGREE = 111_319.0


@dataclass(frozen=True, kw_only=True)
class PatchSplits:
    """The split of every patch of a set."""

    split: NDArray[np.uint8]
    """Code of `Split`, one a patch."""
    fold: NDArray[np.int32] | None
    """Folds from 1 on, 0 none; None: the folds stay as they are."""
    notes: tuple[str, ...]


def near_pairs(outlines: NDArray[np.object_], distance_m: float) -> list[tuple[int, int]]:
    """Pairs of outlines (lon/lat, None where unknown) that come nearer than `distance_m`, or a little farther.

    Degrees are taken to be as short as they are anywhere, so that no pair is overlooked.
    """
    known = np.flatnonzero(~shapely.is_missing(outlines) & ~shapely.is_empty(outlines))
    west, south, east, north = shapely.bounds(outlines[known]).reshape(-1, 4).T
    up = distance_m / _METRES_A_DEGREE
    across = distance_m / (
        _EAST_METRES_A_DEGREE * np.cos(np.radians(np.minimum(np.maximum(abs(south), abs(north)), 89)))
    )
    boxes = shapely.box(west - across, south - up, east + across, north + up)
    first, second = shapely.STRtree(outlines[known]).query(boxes, predicate="intersects")
    pairs = []
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        if other < one and _distance(outlines[known[one]], outlines[known[other]]) < distance_m:
            pairs.append((int(known[other]), int(known[one])))
        elif one < other and _distance(outlines[known[one]], outlines[known[other]]) < distance_m:
            pairs.append((int(known[one]), int(known[other])))
    return sorted(set(pairs))


def _distance(one: shapely.Geometry, other: shapely.Geometry) -> float:
    """Metres between two outlines in lon/lat, at most what they are."""
    scale = np.array([_EAST_METRES_A_DEGREE * math.cos(math.radians(_far_from_equator(one, other))), _METRES_A_DEGREE])
    return float(shapely.distance(*(shapely.transform(shape, lambda xy: xy * scale) for shape in (one, other))))


def _far_from_equator(one: shapely.Geometry, other: shapely.Geometry) -> float:
    return float(np.abs(shapely.bounds([one, other])[:, [1, 3]]).max())


def groups_of(n_patches: int, pairs: Sequence[tuple[int, int]]) -> NDArray[np.intp]:
    """The group of each patch: pairs, and what they are linked to, share one. Groups are counted by first patch.

    >>> groups_of(4, [(0, 3), (2, 3)]).tolist()
    [0, 1, 0, 0]
    """
    parent = list(range(n_patches))

    def root(patch: int) -> int:
        while parent[patch] != patch:
            parent[patch] = parent[parent[patch]]
            patch = parent[patch]
        return patch

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    roots = [root(patch) for patch in range(n_patches)]
    return np.unique(roots, return_inverse=True)[1].astype(np.intp)


def share_out(
    group: NDArray[np.intp],
    pixels: NDArray[np.float64],
    rule: SplitRule,
    *,
    classes: Sequence[int] = (),
    names: Mapping[int, str] | None = None,
) -> PatchSplits:
    """Groups shared out over splits or folds by the pixels (patch, class) of their patches.

    What cannot be had of the `classes`, one a column, is said in the notes, which call them by their `names`.
    """
    held = np.zeros((int(group.max()) + 1, pixels.shape[1]))
    np.add.at(held, group, np.maximum(pixels, 0.0) * PIXEL_M**2)
    # Every group counts; by so little that, where pixels are asked for, nobody takes patches for a class.
    patches = np.bincount(group)[:, None] * (1e-3 if rule.min_pixels > 1 and held.any() else 1.0)
    area = np.concatenate([held, patches], axis=1)
    area = area[:, area.any(axis=0)]
    if rule.folds:
        codes, shares = fold_codes(rule), np.full(rule.folds, 1 / rule.folds)
    else:
        asked = [(code, rule.shares[name]) for name, code in CODES.items() if rule.shares.get(name, 0) > 0]
        codes = np.array([code for code, _ in asked], np.uint8)
        shares = np.array([share for _, share in asked])
    of_group = assign(area, shares / shares.sum(), seed=rule.seed, least_m2=least_m2(rule))
    part = of_group[group]
    empty = len(shares) - len(np.unique(part))
    groups = "1 group" if len(area) == 1 else f"{len(area)} groups"
    notes: tuple[str, ...] = ()
    if empty:
        notes = (f"the patches make {groups} only: {empty} of {len(shares)} parts have none",)
    if len(classes):
        indices = np.array(classes, np.uint16)
        notes += lacking(held, indices, codes[of_group], codes, names or {}, rule.min_pixels, unit="group")
    fold = (part + 1).astype(np.int32) if rule.folds else None
    return PatchSplits(split=codes[part], fold=fold, notes=notes)
