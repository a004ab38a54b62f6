"""What the page of an evaluation is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sits_models.metrics import Scores

__all__ = ["ClassName", "EvaluationFacts", "Group", "ParcelGroup"]

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassName:
    """A class of the model, as people know it."""

    code: str
    name: str
    colour: str
    """Such as "#4f9d3a"."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some of the pixels, or the parcels, and how well they were told apart."""

    name: str
    matrix: NDArray[np.int64]
    """(K, K), rows = truth."""
    scores: Scores
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """Bootstrap interval of a score, by the score's name; scores that have none are missing."""

    @property
    def n(self) -> int:
        """Pixels, or parcels."""
        return int(self.matrix.sum())

    @property
    def right(self) -> int:
        """Those whose class is right."""
        return int(np.trace(self.matrix))


@dataclass(frozen=True, kw_only=True)
class ParcelGroup:
    """The parcels of a size class: by the majority of their pixels, and their pixels."""

    name: str
    parcels: Group
    pixels: Group


@dataclass(frozen=True, kw_only=True)
class EvaluationFacts:
    """All that a page tells; nothing is read for it."""

    title: str
    """Name of the recipe."""
    model: Mapping[str, str]
    """Rows of the section about the model: what, and which."""
    regions: tuple[str, ...]
    split: str
    simulated: bool
    classes: tuple[ClassName, ...]
    overall: Group
    boundary: Group
    interior: Group
    class_intervals: tuple[Interval | None, ...]
    """Bootstrap interval of each class's IoU."""
    distances: tuple[Group, ...]
    """By distance to the nearest parcel edge; empty where the cubes do not know it."""
    parcels: Group | None
    """By majority vote; None where no labelled pixel lies in a parcel."""
    sizes: tuple[ParcelGroup, ...]
    blocks: int
    """Blocks that the bootstrap draws from."""
    block_m: int
    """Their side."""
    resamples: int
    level: float
    """Of the intervals, such as 0.95."""
    credits: tuple[str, ...]
    software: str
