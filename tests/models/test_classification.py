from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models.samples import make_sample
from tests.models.training import CLASSES, SIZE, Chips, objective_of, recipe_of, sample_of

from sits_catalog.console import Narrator
from sits_models.data.transforms import augment
from sits_models.engine import fit
from sits_models.objectives import Classification, build_objective
from sits_models.objectives.classification import middle_class
from sits_models.recipe import Augmentation, BackboneRecipe, ClassificationRecipe, DataRecipe, Recipe
from sits_models.sample import IGNORE_INDEX, Sample


def classification_of(**training: object) -> Recipe:
    return replace(recipe_of(**training), segmentation=None, classification=ClassificationRecipe())  # type: ignore[arg-type]


def with_labels(crop: list[list[int]], counted: list[list[int]] | None = None) -> Sample:
    labels = torch.tensor([crop])
    sample = make_sample(batch=1, size=len(crop))
    seen = torch.ones_like(labels) if counted is None else torch.tensor([counted])
    return sample.replace(crop=labels, counted=seen.to(torch.bool))


def test_a_chip_has_the_class_of_its_middle() -> None:
    assert middle_class(with_labels([[0, 1, 2], [3, 4, 5], [6, 7, 8]])).tolist() == [4]
    # Four pixels meet in the middle of an even side: the one below and right.
    assert middle_class(with_labels([[0, 1], [2, 3]])).tolist() == [3]
    assert middle_class(with_labels([[-1] * 2] * 2)).tolist() == [IGNORE_INDEX]


def test_where_that_label_is_hidden_the_middle_has_one_that_is_not() -> None:
    assert middle_class(with_labels([[-1, -1], [2, -1]], [[0, 0], [1, 0]])).tolist() == [2]
    assert middle_class(with_labels([[-1, -1], [-1, -1]], [[0, 0], [0, 0]])).tolist() == [IGNORE_INDEX]
    # Not hidden, but without a class: it stays without one.
    assert middle_class(with_labels([[0, 1], [2, -1]])).tolist() == [IGNORE_INDEX]


@pytest.mark.parametrize("size", [4, 5])
def test_a_chip_that_shows_one_label_keeps_its_class_when_it_is_turned(size: int) -> None:
    crop = torch.full((64, size, size), IGNORE_INDEX)
    crop[:, size // 2, size // 2] = torch.arange(64)
    sample = make_sample(batch=64, size=size).replace(crop=crop, counted=crop != IGNORE_INDEX)
    turned = augment(sample, Augmentation(rotations=True), generator=torch.Generator().manual_seed(0))
    assert (turned.crop.flatten(1).argmax(1).unique().numel() > 1) == (size == 4)
    assert middle_class(turned).tolist() == list(range(64))


def test_the_loss_is_the_mean_over_chips_whose_middle_has_a_class() -> None:
    objective = objective_of(classification_of())
    assert isinstance(objective, Classification)
    sample = sample_of(0, chips=4)
    crop = sample.crop.clone()
    crop[:, SIZE // 2, SIZE // 2] = torch.tensor([2, IGNORE_INDEX, 0, 1])
    objective.eval()
    loss = objective.loss(sample.replace(crop=crop))
    logits = objective(sample).detach().tolist()
    expected, right = [], 0
    for chip, label in ((0, 2), (2, 0), (3, 1)):
        expected.append(math.log(sum(math.exp(v) for v in logits[chip])) - logits[chip][label])
        right += logits[chip][label] == max(logits[chip])
    assert loss.value.item() == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert loss.count.item() == 3
    assert loss.monitors["accuracy"].item() == pytest.approx(right / 3)


def test_with_class_weights_the_loss_is_the_weighted_mean_and_counts_their_sum() -> None:
    plain = objective_of(classification_of()).eval()
    weights = (0.5, 3.0, 0.0)
    assert isinstance(plain, Classification)
    objective = Classification(plain.encoder, classes=CLASSES, class_weights=weights).eval()
    objective.head.load_state_dict(plain.head.state_dict())
    sample = sample_of(0, chips=4)
    crop = sample.crop.clone()
    crop[:, SIZE // 2, SIZE // 2] = torch.tensor([2, IGNORE_INDEX, 0, 1])
    loss = objective.loss(sample.replace(crop=crop))
    logits = objective(sample).detach().tolist()
    costs = {
        label: math.log(sum(math.exp(v) for v in logits[chip])) - logits[chip][label]
        for chip, label in ((0, 2), (2, 0), (3, 1))
    }
    assert loss.value.item() == pytest.approx((0.5 * costs[0] + 3 * costs[1]) / 3.5, rel=1e-5)
    assert loss.count.item() == 3.5
    assert loss.over["accuracy"].item() == 3
    assert "class_weights" not in objective.state_dict()
    with pytest.raises(ValueError, match="3 classes need as many weights; got 2"):
        Classification(plain.encoder, classes=CLASSES, class_weights=(1.0, 2.0))


def test_a_batch_without_a_class_has_no_loss_and_no_gradient() -> None:
    objective = objective_of(classification_of())
    sample = sample_of(0)
    loss = objective.loss(sample.replace(crop=torch.full_like(sample.crop, IGNORE_INDEX)))
    loss.value.backward()
    assert (loss.value.item(), loss.count.item()) == (0, 0)
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())


def test_finer_labels_are_no_use_to_a_classification() -> None:
    recipe = replace(classification_of(), data=DataRecipe(size=8, labels=2))
    with pytest.raises(ValueError, match=r"one class a chip, so that labels 2 times finer .* set data.labels=1"):
        build_objective(recipe, bands=("B02",), dates=4, classes=3, mean=[0.0], std=[1.0])


def test_other_objectives_do_not_show_the_middle_alone() -> None:
    with pytest.raises(ValueError, match=r"set data\.sampling=parcel for a segmentation"):
        replace(recipe_of(), data=DataRecipe(sampling="middle"))
    Recipe(
        name="fine",
        data=DataRecipe(sampling="middle", background=False),
        backbone=BackboneRecipe(name="unet3df"),
        classification=ClassificationRecipe(),
    )


def test_a_background_that_is_never_in_the_middle_is_no_class() -> None:
    with pytest.raises(ValueError, match=r"the background as a class would never be seen: set data\.background=false"):
        replace(classification_of(), data=DataRecipe(sampling="middle"))


@pytest.mark.slow
def test_the_best_epoch_is_the_one_with_the_best_miou_over_chips(tmp_path: Path) -> None:
    recipe = classification_of(epochs=4, augmentation=Augmentation(flips=False))
    objective = objective_of(recipe)
    fitted = fit(objective, Chips(batches_in_epoch=8), recipe, folder=tmp_path, narrator=Narrator())
    assert isinstance(objective, Classification)
    # The matrix is that of the kept weights over the chips of the validation.
    expected = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    with torch.no_grad():
        for sample in (sample_of(99_000), sample_of(99_001)):
            for truth, guess in zip(middle_class(sample), objective.eval()(sample).argmax(1), strict=True):
                expected[truth, guess] += 1
    assert fitted.confusion is not None
    assert fitted.confusion.tolist() == expected.tolist()
    assert expected.sum() == 4
    assert fitted.metrics["validation_overall_accuracy"] == pytest.approx(expected.trace().item() / 4)
    rows = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    scores = [float(row[rows[0].index("validation_miou")]) for row in rows[1:]]
    assert fitted.best_epoch == 1 + scores.index(max(scores))
