"""How sure a score is: intervals from drawing spatial blocks with replacement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sits_models.metrics.confusion import Margins, kappa, mean_of, overall_accuracy

__all__ = ["Intervals", "bootstrap_scores"]

_VALUES_AT_ONCE = 2_000_000

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Ends of the intervals of scores, all from the same draws; (NaN, NaN) where a score is undefined in every draw."""

    headline: Mapping[str, Interval]
    """Of miou, overall_accuracy, macro_f1 and kappa."""
    iou: tuple[Interval, ...]
    """Of each class, over the draws with a labelled pixel of it."""


def bootstrap_scores(blocks: Margins, *, resamples: int, seed: int, level: float = 0.95) -> Intervals:
    """Percentile intervals (Efron 1979) of the scores of the sum of N blocks, from blocks drawn with replacement.

    `blocks` are the margins (N, K) of the blocks. Neighbouring pixels are alike, so blocks and not pixels are drawn;
    blocks without a counted pixel are left out. Raises ValueError where no block counts.

    Means over classes are of the classes of the sum, in every draw. A draw without a labelled pixel of a class says
    nothing of how well that class is found (its IoU there is 0/0, or 0 for a single pixel that was mistaken for it), so
    it takes the class's score from a draw that has some: one after the other, in the order of the draws. A class that
    was left out instead would lift the means of the draws that lack it, and one that counted as 0 would lower them;
    either way these draws would be of another statistic. (What no draw can tell is how another block with the class
    would do: with few blocks, and with classes that few blocks hold, intervals are too narrow.)
    """
    whole = Margins(blocks.hits.sum(0), blocks.truth.sum(0), blocks.guess.sum(0))
    parts: dict[str, list[NDArray[np.float64]]] = {}
    seen = []
    for drawn in _draws(blocks, resamples=resamples, seed=seed, level=level):
        seen.append(drawn.truth > 0)
        for name, values in (
            ("overall_accuracy", overall_accuracy(drawn)),
            ("kappa", kappa(drawn)),
            ("iou", drawn.iou()),
            ("f1", drawn.f1()),
        ):
            parts.setdefault(name, []).append(values)
    found = {name: np.concatenate(values) for name, values in parts.items()}
    iou = _filled(found["iou"], np.concatenate(seen), whole.iou())
    f1 = _filled(found["f1"], np.concatenate(seen), whole.f1())
    scores = {
        "miou": mean_of(iou),
        "overall_accuracy": found["overall_accuracy"],
        "macro_f1": mean_of(f1),
        "kappa": found["kappa"],
    }
    return Intervals(
        headline={name: _interval(values, level) for name, values in scores.items()},
        iou=tuple(_interval(values, level) for values in iou.T),
    )


def _filled(values: NDArray[np.float64], seen: NDArray[np.bool_], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores (R, K) of the classes that a draw has seen, the others in its stead from draws that have, or `whole`."""
    filled = values.copy()
    for k in np.flatnonzero(~seen.all(axis=0)):
        known, unseen = values[seen[:, k], k], ~seen[:, k]
        filled[unseen, k] = np.resize(known, int(unseen.sum())) if len(known) else whole[k]
    return filled


def _draws(blocks: Margins, *, resamples: int, seed: int, level: float) -> Iterator[Margins]:
    """Margins of the sums of the draws, (R, K) at a time; the same for the same seed, however many at a time."""
    counts = np.stack([blocks.hits, blocks.truth, blocks.guess], axis=1) if blocks.hits.ndim == 2 else np.zeros(0)
    if counts.ndim != 3:
        raise ValueError(f"the margins of blocks are (N, K); got the shape {blocks.hits.shape}")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"a bootstrap takes at least 1 resample and a level in (0, 1); got {resamples} and {level}")
    k = counts.shape[2]
    flat = counts.reshape(len(counts), 3 * k)  # (N, 3*K)
    flat = flat[flat.any(axis=1)].astype(np.float64)  # whole numbers below 2**53: sums are exact, and BLAS is quick
    n = len(flat)
    if not n:
        raise ValueError("no block has a counted pixel: there is nothing to draw from")
    generator = np.random.default_rng(seed)
    at_once = max(1, _VALUES_AT_ONCE // max(n, 3 * k))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        weights = generator.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)
        drawn = (weights @ flat).astype(np.int64).reshape(count, 3, k)
        yield Margins(drawn[:, 0], drawn[:, 1], drawn[:, 2])


def _interval(values: NDArray[np.float64], level: float) -> Interval:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
