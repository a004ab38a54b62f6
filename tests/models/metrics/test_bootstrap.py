from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sits_models.metrics import Margins, bootstrap_scores, margins_of, scores_of


def blocks(seed: int = 0, *, n: int = 40, k: int = 3) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 30, (n, k, k)) + 40 * np.eye(k, dtype=np.int64)


@pytest.mark.parametrize("name", ["miou", "overall_accuracy", "macro_f1", "kappa"])
def test_the_interval_is_that_of_a_plain_loop(name: str) -> None:
    """Percentiles over the same draws, made one by one: by numbers of blocks, not by weights."""
    found = bootstrap_scores(margins_of(blocks()), resamples=50, seed=3).headline[name]
    weights = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40), size=50)
    drawn = [np.repeat(blocks(), weight, axis=0) for weight in weights]
    assert all(len(one) == 40 for one in drawn)
    values = [getattr(scores_of(one.sum(0)), name) for one in drawn]
    assert found == pytest.approx(tuple(np.percentile(np.array(values, np.float64), [2.5, 97.5])))


def test_the_interval_of_a_class_is_over_the_draws_that_have_it() -> None:
    some = blocks(n=4)
    some[1:, 2] = 0  # class 2 is labelled in one block of four: it is in no draw of the other three
    found = bootstrap_scores(margins_of(some), resamples=200, seed=1)
    weights = np.random.default_rng(1).multinomial(4, np.full(4, 1 / 4), size=200)
    values = [scores_of(np.repeat(some, weight, axis=0).sum(0)).iou for weight in weights]
    assert 20 < sum(weights[:, 0] == 0) < 100
    with_it = [iou[2] for iou, weight in zip(values, weights, strict=True) if weight[0]]
    low, high = np.percentile(np.array(with_it, np.float64), [2.5, 97.5])
    assert found.iou[2] == pytest.approx((low, high), abs=0.02)  # the draws that take its place shift it a little
    assert found.iou[0] == pytest.approx(tuple(np.percentile([iou[0] or 0.0 for iou in values], [2.5, 97.5])))


def test_a_class_that_a_draw_lacks_does_not_lift_the_mean() -> None:
    """Nine blocks that are all right but for a class of one of them, which is never found."""
    matrices = np.zeros((9, 2, 2), np.int64)
    matrices[:, 0, 0] = 90
    matrices[4] = [[80, 0], [10, 0]]
    low, high = bootstrap_scores(margins_of(matrices), resamples=500, seed=0).headline["miou"]
    assert scores_of(matrices.sum(0)).miou == pytest.approx(800 / 810 / 2)
    assert low <= 800 / 810 / 2 <= high <= 0.5  # with the class left out, every third draw would have 1.0


def test_a_pixel_that_is_mistaken_for_a_class_does_not_lower_the_mean_of_draws_without_it() -> None:
    matrices = np.zeros((9, 2, 2), np.int64)
    matrices[:, 0, 0], matrices[:, 0, 1] = 89, 1  # a false alarm in each block
    matrices[4, 1, 1] = 500
    low, high = bootstrap_scores(margins_of(matrices), resamples=500, seed=0).headline["miou"]
    whole = scores_of(matrices.sum(0)).miou
    assert whole is not None
    assert whole - 0.02 < low <= whole <= high  # with an IoU of 0 there, a third of the draws would have 0.49


def test_a_class_that_is_only_predicted_is_zero_in_every_draw() -> None:
    matrices = np.zeros((9, 2, 2), np.int64)
    matrices[:, 0, 0] = 90
    matrices[4, 0, 1] = 10
    found = bootstrap_scores(margins_of(matrices), resamples=100, seed=0)
    assert found.iou[1] == (0.0, 0.0)
    assert found.headline["miou"][1] <= 0.5


def test_an_interval_holds_the_score_and_shrinks_with_blocks() -> None:
    whole = blocks(n=400)
    low, high = bootstrap_scores(margins_of(whole), resamples=500, seed=0).headline["overall_accuracy"]
    accuracy = scores_of(whole.sum(0)).overall_accuracy
    assert accuracy is not None
    assert low < accuracy < high
    few_low, few_high = bootstrap_scores(margins_of(whole[:20]), resamples=500, seed=0).headline["overall_accuracy"]
    assert 2 < (few_high - few_low) / (high - low) < 9  # about the square root of 20


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Blocks whose accuracies are known to scatter around 0.7: about 19 of 20 intervals of 95 % hold it."""
    generator, hits = np.random.default_rng(5), 0
    for trial in range(200):
        right = generator.binomial(100, np.clip(generator.normal(0.7, 0.1, 40), 0, 1))
        matrices = np.zeros((40, 2, 2), np.int64)
        matrices[:, 0, 0], matrices[:, 0, 1] = right, 100 - right
        low, high = bootstrap_scores(margins_of(matrices), resamples=200, seed=trial).headline["overall_accuracy"]
        hits += low <= 0.7 <= high
    assert 175 <= hits <= 199


def draw_landscape(generator: np.random.Generator, n: int) -> Margins:
    """Blocks with two common classes and two that a fifth of the blocks hold; a tenth of mistakes are of those."""
    size = np.where(generator.random((n, 4)) < [1, 1, 0.2, 0.2], 200, 0)
    hits = generator.binomial(size, np.clip(generator.normal([0.9, 0.8, 0.6, 0.4], 0.12, (n, 4)), 0, 1))
    wrong = generator.multinomial((size - hits).sum(1), [0.45, 0.45, 0.05, 0.05])
    return Margins(hits, size, hits + wrong)


def test_the_interval_of_a_mean_with_rare_classes_is_about_its_score_and_covers_the_truth() -> None:
    generator = np.random.default_rng(2)
    many = draw_landscape(generator, 200_000)
    truth = Margins(many.hits.sum(0), many.truth.sum(0), many.guess.sum(0)).iou().mean()
    covered, shifts, widths = 0, [], []
    for trial in range(150):
        seen = draw_landscape(generator, 40)
        score = Margins(seen.hits.sum(0), seen.truth.sum(0), seen.guess.sum(0)).iou().mean()
        low, high = bootstrap_scores(seen, resamples=150, seed=trial).headline["miou"]
        covered += low <= truth <= high
        shifts.append((low + high) / 2 - score)
        widths.append(high - low)
    assert covered >= 0.84 * 150
    assert abs(np.mean(shifts)) < 0.1 * np.mean(widths)


def test_a_seed_gives_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    margins = margins_of(blocks())
    first = bootstrap_scores(margins, resamples=100, seed=4)
    assert bootstrap_scores(margins, resamples=100, seed=4) == first
    assert bootstrap_scores(margins, resamples=100, seed=5) != first
    monkeypatch.setattr("sits_models.metrics.bootstrap._VALUES_AT_ONCE", 200)
    assert bootstrap_scores(margins, resamples=100, seed=4) == first


def test_one_block_has_no_spread() -> None:
    low, high = bootstrap_scores(margins_of(blocks(n=1)), resamples=10, seed=0).headline["miou"]
    assert low == high


def test_blocks_without_a_pixel_are_not_drawn() -> None:
    empty = np.zeros((10, 3, 3), np.int64)
    together = margins_of(np.concatenate([blocks(), empty]))
    assert bootstrap_scores(together, resamples=20, seed=0) == bootstrap_scores(
        margins_of(blocks()), resamples=20, seed=0
    )
    with pytest.raises(ValueError, match="no block has a counted pixel"):
        bootstrap_scores(margins_of(empty), resamples=20, seed=0)


def test_a_score_that_is_never_defined_has_no_interval() -> None:
    matrices = np.zeros((5, 2, 2), np.int64)
    matrices[:, 0, 0] = 3
    found = bootstrap_scores(margins_of(matrices), resamples=20, seed=0)
    assert np.isnan(found.headline["kappa"]).all()
    assert found.headline["miou"] == (1.0, 1.0)
    assert np.isnan(found.iou[1]).all()


def test_wrong_options_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"margins of blocks are \(N, K\)"):
        bootstrap_scores(margins_of(np.zeros((3, 3), np.int64)), resamples=1, seed=0)
    with pytest.raises(ValueError, match="at least 1 resample"):
        bootstrap_scores(margins_of(blocks()), resamples=0, seed=0)
    with pytest.raises(ValueError, match="level in"):
        bootstrap_scores(margins_of(blocks()), resamples=10, seed=0, level=95)
