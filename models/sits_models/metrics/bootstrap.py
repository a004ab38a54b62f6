"""How sure a score is: intervals from drawing spatial blocks with replacement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from sits_models.metrics.confusion import kappa, macro_f1, mean_iou, overall_accuracy

__all__ = ["bootstrap_interval", "bootstrap_scores"]

_HEADLINES: Mapping[str, Callable[[NDArray[np.int64]], NDArray[np.float64]]] = {
    "miou": mean_iou,
    "overall_accuracy": overall_accuracy,
    "macro_f1": macro_f1,
    "kappa": kappa,
}
_VALUES_AT_ONCE = 4_000_000


def bootstrap_interval(
    block_matrices: NDArray[np.int64],
    statistic: Callable[[NDArray[np.int64]], float | NDArray[np.float64] | None],
    *,
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval (Efron 1979) of a statistic of the summed matrix, from blocks drawn with replacement.

    `block_matrices` (N, K, K) are the confusion matrices of N blocks. Neighbouring pixels are alike, so blocks and not
    pixels are drawn; blocks without a counted pixel are left out. `statistic` takes one (K, K) matrix. Draws in which
    it is undefined (None or NaN) are left out; (NaN, NaN) where it always is. Raises ValueError where no block counts.
    """
    values = [
        np.nan if (value := statistic(matrix)) is None else float(value)
        for drawn in _draws(block_matrices, resamples=resamples, seed=seed, level=level)
        for matrix in drawn
    ]
    return _interval(np.array(values, np.float64), level)


def bootstrap_scores(
    block_matrices: NDArray[np.int64], *, resamples: int, seed: int, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """`bootstrap_interval` of miou, overall_accuracy, macro_f1 and kappa at once, over the same draws."""
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _HEADLINES}
    for drawn in _draws(block_matrices, resamples=resamples, seed=seed, level=level):
        for name, statistic in _HEADLINES.items():
            parts[name].append(statistic(drawn))
    return {name: _interval(np.concatenate(values), level) for name, values in parts.items()}


def _draws(
    block_matrices: NDArray[np.int64], *, resamples: int, seed: int, level: float
) -> Iterator[NDArray[np.int64]]:
    """Summed matrices of the draws, (R, K, K) at a time; the same draws for the same seed, however many at a time."""
    if block_matrices.ndim != 3 or block_matrices.shape[1] != block_matrices.shape[2]:
        raise ValueError(f"block matrices are (N, K, K); got the shape {block_matrices.shape}")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"a bootstrap takes at least 1 resample and a level in (0, 1); got {resamples} and {level}")
    flat = block_matrices.reshape(len(block_matrices), -1)
    flat = flat[flat.any(axis=1)].astype(np.float64)  # whole numbers below 2**53: sums are exact, and BLAS is quick
    if not len(flat):
        raise ValueError("no block has a counted pixel: there is nothing to draw from")
    n, k = len(flat), block_matrices.shape[1]
    generator = np.random.default_rng(seed)
    at_once = max(1, _VALUES_AT_ONCE // max(n, k * k))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        weights = generator.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)
        yield (weights @ flat).astype(np.int64).reshape(count, k, k)


def _interval(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
