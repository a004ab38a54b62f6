from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sits_models.metrics import bootstrap_interval, bootstrap_scores, overall_accuracy, scores_of


def blocks(seed: int = 0, *, n: int = 40, k: int = 3) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 30, (n, k, k)) + 40 * np.eye(k, dtype=np.int64)


def test_the_interval_is_that_of_a_plain_loop() -> None:
    """Percentiles over the same draws, made one by one: by numbers of blocks, not by weights."""
    found = bootstrap_interval(blocks(), lambda matrix: scores_of(matrix).miou, resamples=50, seed=3)
    weights = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40), size=50)
    drawn = [np.repeat(blocks(), weight, axis=0) for weight in weights]
    assert all(len(one) == 40 for one in drawn)
    values = [scores_of(one.sum(0)).miou for one in drawn]
    assert found == pytest.approx(tuple(np.percentile(np.array(values, np.float64), [2.5, 97.5])))


def test_an_interval_holds_the_score_and_shrinks_with_blocks() -> None:
    whole = blocks(n=400)
    low, high = bootstrap_interval(whole, overall_accuracy, resamples=500, seed=0)
    assert low < float(overall_accuracy(whole.sum(0))) < high
    few_low, few_high = bootstrap_interval(whole[:20], overall_accuracy, resamples=500, seed=0)
    assert 2 < (few_high - few_low) / (high - low) < 9  # about the square root of 20


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Blocks whose accuracies are known to scatter around 0.7: about 19 of 20 intervals of 95 % hold it."""
    generator, hits = np.random.default_rng(5), 0
    for trial in range(200):
        right = generator.binomial(100, np.clip(generator.normal(0.7, 0.1, 40), 0, 1))
        matrices = np.zeros((40, 2, 2), np.int64)
        matrices[:, 0, 0], matrices[:, 0, 1] = right, 100 - right
        low, high = bootstrap_scores(matrices, resamples=200, seed=trial)["overall_accuracy"]
        hits += low <= 0.7 <= high
    assert 175 <= hits <= 199


def test_all_headline_scores_come_from_the_same_draws() -> None:
    together = bootstrap_scores(blocks(), resamples=80, seed=1, level=0.9)
    for name in ("miou", "overall_accuracy", "macro_f1", "kappa"):
        alone = bootstrap_interval(
            blocks(), lambda matrix, name=name: getattr(scores_of(matrix), name), resamples=80, seed=1, level=0.9
        )
        assert together[name] == pytest.approx(alone)


def test_a_seed_gives_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    first = bootstrap_scores(blocks(), resamples=100, seed=4)
    assert bootstrap_scores(blocks(), resamples=100, seed=4) == first
    assert bootstrap_scores(blocks(), resamples=100, seed=5) != first
    monkeypatch.setattr("sits_models.metrics.bootstrap._VALUES_AT_ONCE", 200)
    assert bootstrap_scores(blocks(), resamples=100, seed=4) == first


def test_one_block_has_no_spread() -> None:
    low, high = bootstrap_interval(blocks(n=1), overall_accuracy, resamples=10, seed=0)
    assert low == high


def test_blocks_without_a_pixel_are_not_drawn() -> None:
    empty = np.zeros((10, 3, 3), np.int64)
    assert bootstrap_scores(np.concatenate([blocks(), empty]), resamples=20, seed=0) == bootstrap_scores(
        blocks(), resamples=20, seed=0
    )
    with pytest.raises(ValueError, match="no block has a counted pixel"):
        bootstrap_scores(empty, resamples=20, seed=0)


def test_a_score_that_is_never_defined_has_no_interval() -> None:
    matrices = np.zeros((5, 2, 2), np.int64)
    matrices[:, 0, 0] = 3
    found = bootstrap_scores(matrices, resamples=20, seed=0)
    assert np.isnan(found["kappa"]).all()
    assert found["miou"] == (1.0, 1.0)


def test_wrong_options_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"block matrices are \(N, K, K\)"):
        bootstrap_scores(np.zeros((3, 3), np.int64), resamples=1, seed=0)
    with pytest.raises(ValueError, match="at least 1 resample"):
        bootstrap_scores(blocks(), resamples=0, seed=0)
    with pytest.raises(ValueError, match="level in"):
        bootstrap_scores(blocks(), resamples=10, seed=0, level=95)
