"""Average precision: how far up a ranking by score those stand that have the class."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AveragePrecision", "average_precision", "rank_classes"]


@dataclass(frozen=True, kw_only=True)
class AveragePrecision:
    """Of N chips that were given a score for each of K classes; None where it is undefined."""

    micro: float | None
    """Of all N x K pairs of chip and class in one ranking."""
    macro: float | None
    """Mean of `classes` over those that a chip has ("mAP"); None where one of them is undefined, or there is none."""
    classes: tuple[float | None, ...]
    """Of each class alone; None for a class that no chip has, or of which a score is NaN."""
    support: tuple[int, ...]
    """Chips that have each class."""

    def to_json(self) -> dict[str, object]:
        """The fields by name, as JSON knows them: lists for the values a class, None for undefined."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }


def rank_classes(scores: NDArray[np.floating], present: NDArray[np.bool_]) -> AveragePrecision:
    """The average precision of scores (N, K) for the classes that chips have, (N, K).

    All chips of a split at a time: a mean over batches of what each gives is another number.
    """
    if scores.shape != present.shape or scores.ndim != 2:
        raise ValueError(f"scores and classes are (N, K) both; got {scores.shape} and {present.shape}")
    each = tuple(average_precision(column, there) for column, there in zip(scores.T, present.T, strict=True))
    support = tuple(present.sum(axis=0).tolist())
    shown = [value for value, chips in zip(each, support, strict=True) if chips]
    known = [value for value in shown if value is not None]
    return AveragePrecision(
        micro=average_precision(scores.ravel(), present.ravel()),
        macro=sum(known) / len(known) if shown and len(known) == len(shown) else None,
        classes=each,
        support=support,
    )


def average_precision(scores: NDArray[np.floating], present: NDArray[np.bool_]) -> float | None:
    """The sum over thresholds of precision times the recall that each adds, of N scores; equal ones are one threshold.

    scikit-learn's `average_precision_score`, without interpolation. None where none is present, or a score is NaN.

    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))
    0.8333333333333333
    """
    positives = int(present.sum())
    if positives == 0 or np.isnan(scores).any():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(present[order])
    # The last of each run of equal scores: all of them are above the threshold, or none.
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    precision, found = hits[last] / (last + 1), hits[last]
    return float((precision * np.diff(found, prepend=0)).sum() / positives)
