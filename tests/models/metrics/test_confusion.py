from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as oracle

from sits_models.metrics import (
    Scores,
    confusion_matrix,
    kappa,
    macro_f1,
    margins_of,
    mean_iou,
    overall_accuracy,
    scores_of,
)
from sits_models.sample import IGNORE_INDEX

settings.register_profile("metrics", deadline=None, max_examples=100)
quick = settings(settings.get_profile("metrics"))


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Classes, targets with ignored ones, predictions; some classes are on one side alone, some on none."""
    classes = draw(st.integers(2, 7))
    in_target = draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True))
    in_predicted = draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True))
    length = draw(st.integers(1, 40))
    target = draw(st.lists(st.sampled_from([*in_target, IGNORE_INDEX]), min_size=length, max_size=length))
    target[draw(st.integers(0, length - 1))] = in_target[0]
    predicted = draw(st.lists(st.sampled_from(in_predicted), min_size=length, max_size=length))
    return classes, np.array(target), np.array(predicted)


def matrix_of(target: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    return confusion_matrix(torch.from_numpy(target), torch.from_numpy(predicted), classes=classes).numpy()


def scores(target: list[int], predicted: list[int], classes: int) -> Scores:
    return scores_of(matrix_of(np.array(target), np.array(predicted), classes))


def test_the_worked_example() -> None:
    found = scores([0, 1, 1, 1, 2, 2, 0, 0], [0, 0, 1, 1, 2, 2, 2, 3], 5)
    assert found.count == 8
    assert found.overall_accuracy == 0.625
    assert found.micro_iou == pytest.approx(5 / 11)
    assert found.iou == (0.25, pytest.approx(2 / 3), pytest.approx(2 / 3), 0.0, None)
    assert found.miou == pytest.approx((0.25 + 4 / 3) / 4)
    assert found.macro_accuracy == pytest.approx(2 / 3)
    assert found.support == (3, 3, 2, 0, 0)
    assert found.predicted == (2, 2, 3, 1, 0)
    assert found.recall == (pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0, None, None)
    assert found.precision == (0.5, 1.0, pytest.approx(2 / 3), 0.0, None)


def test_rows_are_targets() -> None:
    assert matrix_of(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist() == [[1, 1], [0, 1]]


def test_an_ignored_target_counts_nowhere_whatever_is_predicted() -> None:
    target, predicted = torch.tensor([[0, -1], [1, -1]]), torch.tensor([[0, 7], [1, -5]])
    assert confusion_matrix(target, predicted, classes=2).tolist() == [[1, 0], [0, 1]]


def test_only_pixels_of_the_map_are_counted() -> None:
    target = torch.tensor([0, 0, 1])
    assert confusion_matrix(target, target, classes=2, where=torch.tensor([True, False, True])).tolist() == [
        [1, 0],
        [0, 1],
    ]


def test_counts_of_small_types_do_not_overflow() -> None:
    labels = torch.full((300, 300), 11, dtype=torch.uint8)
    found = confusion_matrix(labels, labels, classes=20)
    assert found.dtype == torch.int64
    assert int(found[11, 11]) == 90_000


@pytest.mark.parametrize(
    ("target", "predicted"), [([0, 5], [0, 1]), ([0, 1], [0, 5]), ([-2, 1], [0, 1]), ([0, 1], [-1, 1])]
)
def test_a_class_that_is_none_is_an_error(target: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError, match="is a class 0 to 4"):
        confusion_matrix(torch.tensor(target), torch.tensor(predicted), classes=5)


def test_shapes_that_differ_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"predicted has the target's shape \(3,\); got \(2,\)"):
        confusion_matrix(torch.zeros(3), torch.zeros(2), classes=2)
    with pytest.raises(ValueError, match="square"):
        scores_of(np.zeros((2, 3), np.int64))


@quick
@given(cases())
def test_the_matrix_is_that_of_scikit_learn(case: tuple[int, NDArray[np.int64], NDArray[np.int64]]) -> None:
    classes, target, predicted = case
    kept = target != IGNORE_INDEX
    expected = oracle.confusion_matrix(target[kept], predicted[kept], labels=range(classes))
    np.testing.assert_array_equal(matrix_of(target, predicted, classes), expected)


@quick
@given(cases())
def test_scores_are_those_of_scikit_learn(case: tuple[int, NDArray[np.int64], NDArray[np.int64]]) -> None:
    classes, target, predicted = case
    found = scores_of(matrix_of(target, predicted, classes))
    kept = target != IGNORE_INDEX
    truth, guess = target[kept], predicted[kept]
    labels = list(range(classes))
    present = sorted({*truth.tolist(), *guess.tolist()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes on one side
        precision, recall, f1, support = oracle.precision_recall_fscore_support(
            truth, guess, labels=labels, zero_division=np.nan
        )
        macro = partial(oracle.precision_recall_fscore_support, truth, guess, labels=labels, average="macro")
        mean_precision, mean_recall, mean_f1, _ = macro(zero_division=np.nan)
        chance = oracle.cohen_kappa_score(truth, guess) if len(present) > 1 else np.nan
        iou = oracle.jaccard_score(truth, guess, labels=present, average=None, zero_division=0)
        miou = oracle.jaccard_score(truth, guess, labels=present, average="macro", zero_division=0)
        balanced = oracle.balanced_accuracy_score(truth, guess)
    assert found.count == len(truth)
    assert found.support == tuple(support)
    same(found.precision, precision)
    same(found.recall, recall)
    same(found.f1, f1)
    same([found.iou[label] for label in present], iou)
    assert all(found.iou[label] is None for label in labels if label not in present)
    same([found.overall_accuracy, found.macro_accuracy], [oracle.accuracy_score(truth, guess), balanced])
    same([found.miou, found.macro_f1, found.kappa], [miou, mean_f1, chance])
    same([found.macro_precision, found.macro_accuracy], [mean_precision, mean_recall])


@quick
@given(cases())
def test_a_class_left_out_enters_no_mean_as_in_scikit_learn(
    case: tuple[int, NDArray[np.int64], NDArray[np.int64]],
) -> None:
    classes, target, predicted = case
    left_out = 0
    found = scores_of(matrix_of(target, predicted, classes), left_out=[left_out])
    kept = (target != IGNORE_INDEX) & (target != left_out)
    truth, guess = target[kept], predicted[kept]
    if not len(truth):
        assert found.miou is None
        assert found.overall_accuracy is None
        return
    labels = list(range(1, classes))
    present = sorted({*truth.tolist(), *guess.tolist()} - {left_out})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f1 = oracle.f1_score(truth, guess, labels=labels, average="macro", zero_division=np.nan)
        miou = oracle.jaccard_score(truth, guess, labels=present, average="macro", zero_division=0)
        chance = oracle.cohen_kappa_score(truth, guess) if len({*truth.tolist(), *guess.tolist()}) > 1 else np.nan
    same([found.miou, found.macro_f1, found.kappa], [miou, f1, chance])
    same([found.overall_accuracy], [oracle.accuracy_score(truth, guess)])
    assert found.iou[left_out] is found.f1[left_out] is found.recall[left_out] is None
    assert found.support[left_out] == 0


def test_one_pixel_of_an_ignored_class_does_not_cost_a_twentieth() -> None:
    """torchmetrics 1.9.0, 20 classes, ignore_index=0: macro accuracy and F1 fall from 1.0 to 0.95."""
    matrix = np.diag(np.full(20, 5000))
    matrix[7, 7], matrix[7, 0] = 4999, 1
    found = scores_of(matrix, left_out=[0])
    assert found.macro_accuracy is not None
    assert found.macro_f1 is not None
    assert found.miou is not None
    assert 0.9999 < found.macro_accuracy < 1
    assert 0.9999 < found.macro_f1 < 1
    assert 0.9999 < found.miou < 1


def test_a_prediction_that_is_left_out_is_no_union_of_its_own() -> None:
    found = scores_of(np.array([[0, 0, 0], [2, 6, 0], [0, 1, 3]]), left_out=[0])
    assert found.micro_iou == pytest.approx(9 / (8 + 4 + 7 + 3 - 9))  # targets 8 and 4, predictions 7 and 3
    assert found.iou == (None, 6 / 9, 3 / 4)


@quick
@given(cases())
def test_micro_iou_is_that_of_all_sums(case: tuple[int, NDArray[np.int64], NDArray[np.int64]]) -> None:
    classes, target, predicted = case
    kept = target != IGNORE_INDEX
    expected = oracle.jaccard_score(target[kept], predicted[kept], average="micro", zero_division=0)
    assert scores_of(matrix_of(target, predicted, classes)).micro_iou == pytest.approx(expected)


def test_a_class_in_neither_is_undefined_and_not_zero() -> None:
    """torchmetrics 1.9.0 gives 0.0 for it with average='none'."""
    found = scores([0, 1], [0, 1], 3)
    assert found.iou == found.f1 == found.recall == found.precision == (1.0, 1.0, None)
    assert found.miou == found.macro_f1 == 1.0


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    found = scores([0, 0], [0, 1], 3)
    assert found.iou == (0.5, 0.0, None)
    assert found.miou == 0.25
    assert found.macro_accuracy == 0.5  # over classes of the target alone


def test_without_a_counted_pixel_nothing_is_defined() -> None:
    found = scores([-1, -1], [0, 1], 2)
    assert found.count == 0
    assert (found.miou, found.overall_accuracy, found.macro_f1, found.kappa, found.micro_iou) == (None,) * 5
    assert found.macro_f1_published is None


def test_kappa_is_undefined_for_one_class_and_zero_by_chance() -> None:
    assert scores([1, 1], [1, 1], 2).kappa is None
    assert scores([0, 0, 1, 1], [0, 1, 0, 1], 2).kappa == 0
    assert scores([0, 1], [1, 0], 2).kappa == -1


def test_kappa_stays_exact_where_one_class_has_nearly_everything() -> None:
    matrix = np.array([[10**15, 0], [0, 1]])
    assert scores_of(matrix).kappa == 1


def test_the_published_macro_f1_leaves_out_classes_without_a_hit() -> None:
    found = scores([0, 1, 1], [0, 0, 0], 3)
    assert found.f1 == (0.5, 0.0, None)
    assert found.macro_f1 == 0.25
    assert found.macro_f1_published == 0.5


@quick
@given(st.lists(cases(), min_size=1, max_size=4))
def test_a_stack_of_matrices_has_the_scores_of_each(
    several: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]],
) -> None:
    stack = np.stack([matrix_of(target, predicted, 7) for _, target, predicted in several])
    each = [scores_of(matrix) for matrix in stack]
    same([one.miou for one in each], mean_iou(margins_of(stack)))
    same([one.macro_f1 for one in each], macro_f1(margins_of(stack)))
    same([one.kappa for one in each], kappa(margins_of(stack)))
    same([one.overall_accuracy for one in each], overall_accuracy(margins_of(stack)))


def test_json_has_lists_and_none() -> None:
    document = scores([0, 1], [0, 1], 3).to_json()
    assert document["iou"] == [1.0, 1.0, None]
    assert document["support"] == [1, 1, 0]
    assert document["miou"] == 1.0


def same(ours: object, theirs: object) -> None:
    values = np.array(ours, np.float64)  # None becomes NaN
    np.testing.assert_allclose(values, np.asarray(theirs, np.float64), rtol=0, atol=1e-12, equal_nan=True)
