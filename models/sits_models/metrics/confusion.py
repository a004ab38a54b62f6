"""One integer confusion matrix, and every score that follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sits_models.sample import IGNORE_INDEX

__all__ = [
    "Counted",
    "Margins",
    "Scores",
    "confusion_matrix",
    "kappa",
    "macro_f1",
    "margins_of",
    "mean_iou",
    "overall_accuracy",
    "scores_of",
]


def confusion_matrix(
    target: Tensor, predicted: Tensor, *, classes: int, ignore_index: int = IGNORE_INDEX, where: Tensor | None = None
) -> Tensor:
    """Counts (K, K) int64 on the tensors' device: rows are the target's classes, columns the predicted ones.

    Pixels whose target is `ignore_index`, or where the bool map `where` is False, are not counted, whatever is
    predicted there. Raises ValueError for shapes that differ and for a class outside 0 to K - 1 in a counted pixel.
    """
    truth, guess = counted_pairs(target, predicted, classes=classes, ignore_index=ignore_index, where=where)
    return torch.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)


def counted_pairs(
    target: Tensor, predicted: Tensor, *, classes: int, ignore_index: int, where: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Target and prediction, int64 (N,), of the pixels that count; raises as `confusion_matrix` does."""
    for name, other in (("predicted", predicted), ("where", where)):
        if other is not None and other.shape != target.shape:
            raise ValueError(f"{name} has the target's shape {tuple(target.shape)}; got {tuple(other.shape)}")
    truth, guess = target.to(torch.int64), predicted.to(torch.int64)
    kept = truth != ignore_index
    if where is not None:
        kept = kept & where
    truth, guess = truth[kept], guess[kept]
    for name, values in (("target", truth), ("prediction", guess)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < classes:
            raise ValueError(
                f"a {name} is a class 0 to {classes - 1}, or has the target {ignore_index} to be ignored; "
                f"got {int(values.min())} to {int(values.max())}"
            )
    return truth, guess


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores in [0, 1] (kappa: at most 1) of a confusion matrix; None where a score is 0/0, never 0 and never 1.

    Means over classes leave out the classes for which the score is 0/0, and no other; that is scikit-learn with
    `labels=range(K)` and `zero_division=np.nan`.
    """

    count: int
    """Pixels (or parcels) counted."""
    miou: float | None
    """Mean of `iou` over the classes that occur in the target or in the prediction ("macro IoU")."""
    overall_accuracy: float | None
    """Share of the counted that is right ("micro accuracy"; micro precision, recall and F1 are the same number)."""
    macro_f1: float | None
    """Mean of `f1` over the classes that occur in the target or in the prediction."""
    kappa: float | None
    """Cohen's kappa; None where target and prediction are one and the same class throughout."""
    macro_accuracy: float | None
    """Mean of `recall` over the classes that occur in the target ("balanced accuracy")."""
    macro_precision: float | None
    """Mean of `precision` over the classes that occur in the prediction."""
    micro_iou: float | None
    """Sum of the true positives over the sum of the unions."""
    iou: tuple[float | None, ...]
    """Intersection over union a class; None for a class in neither target nor prediction."""
    f1: tuple[float | None, ...]
    """2 TP / (2 TP + FP + FN) a class; 0 for a class that occurs on one side only."""
    precision: tuple[float | None, ...]
    """User's accuracy a class; None for a class that is never predicted."""
    recall: tuple[float | None, ...]
    """Producer's accuracy a class; None for a class that is not in the target."""
    support: tuple[int, ...]
    """Counted targets a class."""
    predicted: tuple[int, ...]
    """Counted predictions a class."""

    @property
    def macro_f1_published(self) -> float | None:
        """Mean of `f1` over the classes with a true positive alone, as the code published with CSCL counts.

        It takes F1 for 0/0 wherever precision and recall are both 0, and so never lies below `macro_f1`.
        """
        found = [value for value in self.f1 if value]
        return sum(found) / len(found) if found else None

    def to_json(self) -> dict[str, object]:
        """The fields by name, as JSON knows them: lists for the values a class, None for undefined."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }


def scores_of(matrix: NDArray[np.int64], *, left_out: Sequence[int] = ()) -> Scores:
    """All scores of a matrix (K, K) of counts, rows = target.

    `left_out` names classes that a model may predict but that are no target, such as an "unknown" among its outputs:
    such a prediction is an error of the target's class, and the class itself enters no mean. (Libraries that let it
    enter drop a perfect score of 20 classes to 0.95 over a single such pixel.)
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a confusion matrix is square, (K, K); got the shape {matrix.shape}")
    margins = margins_of(matrix, left_out=left_out)
    hits, truth, guess = margins.hits, margins.truth, margins.guess
    iou, f1, precision, recall = margins.iou(), margins.f1(), ratio(hits, guess), ratio(hits, truth)
    return Scores(
        count=int(truth.sum()),
        miou=_optional(mean_of(iou)),
        overall_accuracy=_optional(overall_accuracy(margins)),
        macro_f1=_optional(mean_of(f1)),
        kappa=_optional(kappa(margins)),
        macro_accuracy=_optional(mean_of(recall)),
        macro_precision=_optional(mean_of(precision)),
        micro_iou=_optional(ratio(hits.sum(), (truth + guess - hits).sum())),
        iou=tuple(map(_optional, iou)),
        f1=tuple(map(_optional, f1)),
        precision=tuple(map(_optional, precision)),
        recall=tuple(map(_optional, recall)),
        support=tuple(map(int, truth)),
        predicted=tuple(map(int, guess)),
    )


@dataclass(frozen=True)
class Margins:
    """What the headline scores need of confusion matrices (..., K, K): counts a class that add up as they do."""

    hits: NDArray[np.int64]
    """(..., K): true positives."""
    truth: NDArray[np.int64]
    """(..., K): targets."""
    guess: NDArray[np.int64]
    """(..., K): predictions."""

    def iou(self) -> NDArray[np.float64]:
        """(..., K): intersection over union; NaN for a class in neither target nor prediction."""
        return ratio(self.hits, self.truth + self.guess - self.hits)

    def f1(self) -> NDArray[np.float64]:
        """(..., K); NaN for a class in neither target nor prediction."""
        return ratio(2 * self.hits, self.truth + self.guess)


def margins_of(matrices: NDArray[np.int64], *, left_out: Sequence[int] = ()) -> Margins:
    """The margins of matrices (..., K, K); `left_out` as in `scores_of`."""
    counts = np.array(matrices, np.int64)
    counts[..., list(left_out), :] = 0
    guess = counts.sum(-2)
    guess[..., list(left_out)] = 0
    return Margins(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), guess)


@dataclass(frozen=True)
class Counted:
    """Pixels, or parcels, that were counted: all together, and block by block."""

    matrix: NDArray[np.int64]
    """(K, K), rows = target."""
    blocks: Margins
    """(N, K) of N blocks of ground: what a bootstrap draws from."""


def count_by_block(
    target: NDArray[np.int64], predicted: NDArray[np.int64], block: NDArray[np.int64], *, classes: int
) -> Counted:
    """Counts of targets and predictions (N,) that lie in the blocks with these keys (N,); blocks ascend by key."""
    keys, row = np.unique(block, return_inverse=True)
    right = target == predicted

    def tally(rows: NDArray[np.int64], values: NDArray[np.int64], height: int) -> NDArray[np.int64]:
        return np.bincount(rows * classes + values, minlength=height * classes).astype(np.int64).reshape(-1, classes)

    n = len(keys)
    margins = Margins(tally(row[right], target[right], n), tally(row, target, n), tally(row, predicted, n))
    return Counted(tally(target, predicted, classes), margins)


def mean_iou(margins: Margins) -> NDArray[np.float64]:
    """`Scores.miou` (...,); NaN where it is undefined."""
    return mean_of(margins.iou())


def macro_f1(margins: Margins) -> NDArray[np.float64]:
    """`Scores.macro_f1` (...,); NaN where it is undefined."""
    return mean_of(margins.f1())


def overall_accuracy(margins: Margins) -> NDArray[np.float64]:
    """`Scores.overall_accuracy` (...,); NaN where it is undefined."""
    return ratio(margins.hits.sum(-1), margins.truth.sum(-1))


def kappa(margins: Margins) -> NDArray[np.float64]:
    """`Scores.kappa` (...,); NaN where it is undefined."""
    hits, truth, guess = margins.hits, margins.truth, margins.guess
    n = truth.sum(-1)
    # Disagreements, observed and by chance: 1 - p_e would cancel where one class has nearly all pixels.
    by_chance = ratio((truth * (n[..., None] - guess).astype(np.float64)).sum(-1), n)
    return 1 - ratio(n - hits.sum(-1), by_chance)


def ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """part / whole, NaN for a whole of 0."""
    divisor = np.asarray(whole)
    out = np.full(divisor.shape, np.nan)
    np.divide(part, divisor, out=out, where=divisor != 0)
    return out


def mean_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of what is not NaN."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1))


def _optional(value: NDArray[np.float64]) -> float | None:
    return None if np.isnan(value) else float(value)
