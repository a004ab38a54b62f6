"""What the page of an evaluation is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sits_models.metrics import Scores

__all__ = ["ClassName", "EvaluationFacts", "Group", "ParcelGroup", "UnknownClass"]

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassName:
    """A class of the model, as people know it."""

    code: str
    name: str
    colour: str
    """Such as "#4f9d3a"."""


@dataclass(frozen=True)
class UnknownClass:
    """A class of the cubes that the model does not know; its pixels, or parcels, count nowhere."""

    code: str
    name: str
    count: int
    """Labelled pixels, or parcels, of the split."""


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
    """The parcels of a size class: each with the one class that it is given, and their pixels."""

    name: str
    parcels: Group
    pixels: Group | None
    """None where the model gives a class to parcels alone."""


@dataclass(frozen=True, kw_only=True)
class EvaluationFacts:
    """All that a page tells; nothing is read for it."""

    title: str
    """Name of the recipe."""
    model: Mapping[str, str]
    """Rows of the section about the model: what, and which."""
    regions: tuple[str, ...]
    cubes: tuple[str, ...] = ()
    """SHA-256 of the configuration of each cube, by which it is known whether they are those of a card."""
    split: str
    simulated: bool
    classes: tuple[ClassName, ...]
    overall: Group | None
    """All pixels; None, as `boundary` and `interior`, where the model gives a class to parcels alone."""
    boundary: Group | None
    interior: Group | None
    class_intervals: tuple[Interval | None, ...]
    """Bootstrap interval of each class's IoU, of the pixels, or of the parcels where the model knows them alone."""
    distances: tuple[Group, ...]
    """By distance to the nearest parcel edge; empty where the cubes do not know it."""
    parcels: Group | None
    """By majority vote, or as the model classifies them; None where no labelled pixel lies in a parcel."""
    sizes: tuple[ParcelGroup, ...]
    unknown: tuple[UnknownClass, ...]
    """Classes with labels in the split that the model does not know, those with most of them first."""
    unobserved: int = 0
    """Parcels of known classes that were never observed, and so are given no class, of a model of parcels alone."""
    blocks: int
    """Blocks that the bootstrap draws from."""
    block_m: int
    """Their side."""
    resamples: int
    level: float
    """Of the intervals, such as 0.95."""
    halo: int
    """Pixels that a window of the evaluation sees around those that it counts, 0 for a model of whole chips."""
    window: int
    """Side of these windows."""
    credits: tuple[str, ...]
    software: str

    @property
    def main(self) -> Group:
        """What the model was measured on: all pixels, or the parcels where it gives a class to them alone."""
        found = self.overall or self.parcels
        assert found is not None
        return found

    @property
    def unit(self) -> Literal["pixel", "parcel"]:
        """What the model gives a class to."""
        return "parcel" if self.overall is None else "pixel"

    @property
    def not_counted(self) -> int:
        """Labelled pixels, or parcels, of classes that the model does not know."""
        return sum(crop.count for crop in self.unknown)

    @property
    def not_counted_share(self) -> float:
        """Their share of the labelled ones of the split."""
        return self.not_counted / max(1, self.not_counted + self.main.n)
