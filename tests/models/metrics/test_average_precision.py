from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from sits_models.metrics import average_precision, rank_classes


def test_a_ranking_of_four_worked_by_hand() -> None:
    # Ranks of those that are there: 1, 3 and 4, with precisions 1, 2/3 and 3/4.
    scores, present = np.array([0.1, 3.0, -2.0, 0.5]), np.array([True, True, True, False])
    found = average_precision(scores, present)
    assert found == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert average_precision(-scores, ~present) == pytest.approx(1 / 3)


def test_equal_scores_are_one_threshold_in_whatever_order_they_stand() -> None:
    scores = np.array([1.0, 0.0, 0.0, 0.0])
    for place in (1, 2, 3):
        present = np.array([True, False, False, False])
        present[place] = True
        assert average_precision(scores, present) == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)
    assert average_precision(np.zeros(4), np.array([True, False, False, True])) == 0.5
    # Rank by rank an infinite score is one like any other.
    assert average_precision(np.array([-np.inf, -np.inf, 0.0]), np.array([True, False, True])) == pytest.approx(5 / 6)


def test_where_nothing_is_present_or_a_score_is_no_number_it_is_undefined() -> None:
    assert average_precision(np.array([1.0, 2.0]), np.array([False, False])) is None
    assert average_precision(np.array([]), np.array([], np.bool_)) is None
    assert average_precision(np.array([1.0, np.nan]), np.array([True, False])) is None


def test_the_mean_over_classes_leaves_out_those_that_no_chip_has() -> None:
    scores = np.array([[2.0, 0.0, 1.0], [1.0, 5.0, 2.0]])
    present = np.array([[True, False, True], [False, False, False]])
    found = rank_classes(scores, present)
    assert found.classes == (1.0, None, 0.5)
    assert found.macro == 0.75
    assert found.support == (1, 0, 1)
    # 5, 2, 2, 1, 1, 0: of the two twos one is there, of the two ones one.
    assert found.micro == pytest.approx(0.5 * 1 / 3 + 0.5 * 2 / 5)
    assert rank_classes(scores, np.zeros_like(present)).macro is None
    with pytest.raises(ValueError, match=r"scores and classes are \(N, K\) both; got \(2, 3\) and \(2, 2\)"):
        rank_classes(scores, present[:, :2])


def test_there_is_no_mean_over_classes_where_one_that_a_chip_has_is_undefined() -> None:
    scores = np.array([[2.0, np.nan, np.nan], [1.0, 5.0, 2.0]])
    present = np.array([[True, True, False], [False, False, False]])
    found = rank_classes(scores, present)
    assert (found.classes, found.macro, found.micro) == ((1.0, None, None), None, None)
    # What no chip has is left out, whatever its scores.
    assert rank_classes(scores[:, ::2], present[:, ::2]).macro == 1.0


def test_a_mean_over_batches_is_another_number() -> None:
    scores = np.array([[4.0], [3.0], [2.0], [1.0]])
    present = np.array([[False], [True], [True], [False]])
    whole = rank_classes(scores, present).micro
    halves = [rank_classes(scores[part], present[part]).micro for part in (slice(2), slice(2, 4))]
    assert whole == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert halves == [0.5, 1.0]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), chips=st.integers(1, 40), steps=st.sampled_from([2, 5, 1000]))
def test_values_are_those_of_scikit_learn(seed: int, chips: int, steps: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, steps, (chips, 4)).astype(np.float32)
    present = draw.random((chips, 4)) < 0.4
    present[0] = True  # it warns where nothing is
    found = rank_classes(scores, present)
    assert found.micro == pytest.approx(average_precision_score(present, scores, average="micro"))
    assert found.macro == pytest.approx(average_precision_score(present, scores, average="macro"))
    assert found.classes == pytest.approx(average_precision_score(present, scores, average=None))
