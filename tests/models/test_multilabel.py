from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models.training import BANDS, CLASSES, DATES, Chips, objective_of, recipe_of, sample_of

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.engine import METRICS, fit
from sits_models.metrics import rank_classes
from sits_models.objectives import MultiLabel, build_objective
from sits_models.objectives.multilabel import soft_margin
from sits_models.recipe import BackboneRecipe, DataRecipe, MultiLabelRecipe, Recipe, TransformerRecipe
from sits_models.sample import Sample


def multilabel_of(**training: object) -> Recipe:
    return replace(recipe_of(**training), segmentation=None, multilabel=MultiLabelRecipe())  # type: ignore[arg-type]


def labelled(sample: Sample) -> Sample:
    """Each chip has the classes of its pixels."""
    there = [[bool((crop == k).any()) for k in range(CLASSES)] for crop in sample.crop]
    return sample.replace(present=torch.tensor(there))


class LabelledChips(Chips):
    """Chips that are labelled as such."""

    def epoch(self, number: int, *, seed: int, pin: bool = False) -> Iterator[Sample]:
        yield from map(labelled, super().epoch(number, seed=seed, pin=pin))

    def parcels(self, split: Split, *, size: int, pin: bool = False) -> Iterator[Sample]:
        yield from map(labelled, super().parcels(split, size=size, pin=pin))


def test_the_loss_is_that_of_a_loop_over_chips_and_classes_with_its_gradients() -> None:
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    present = torch.rand(5, 4, generator=draw) < 0.4
    loss = soft_margin(logits, present)
    loss.backward()
    total = 0.0
    for chip, row in enumerate(logits.tolist()):
        for k, x in enumerate(row):
            there = bool(present[chip, k])
            total += math.log(1 + math.exp(-x if there else x))
            slope = 1 / (1 + math.exp(-x)) - there
            assert logits.grad is not None
            assert logits.grad[chip, k].item() == pytest.approx(slope / 20, rel=1e-9)
    assert loss.item() == pytest.approx(total / 20, rel=1e-12)


def test_without_knowledge_each_class_costs_the_logarithm_of_two() -> None:
    assert soft_margin(torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.bool)).item() == pytest.approx(math.log(2))


def test_a_chip_has_a_logit_for_each_class_from_the_mean_of_its_map() -> None:
    objective = objective_of(multilabel_of()).eval()
    assert isinstance(objective, MultiLabel)
    sample = labelled(sample_of(0, chips=3))
    with torch.no_grad():
        logits = objective(sample)
        by_hand = objective.encoder(sample).flatten(2).mean(2) @ objective.head.weight.T + objective.head.bias
        loss = objective.loss(sample)
    torch.testing.assert_close(logits, by_hand)
    assert loss.count.item() == 3
    assert sample.present is not None
    assert loss.monitors["accuracy"].item() == pytest.approx(((logits > 0) == sample.present).float().mean().item())


def test_dropout_is_drawn_in_training_alone() -> None:
    objective, sample = objective_of(multilabel_of()), labelled(sample_of(0))
    assert not torch.equal(objective(sample), objective(sample))
    objective.eval()
    assert torch.equal(objective(sample), objective(sample))
    with pytest.raises(ValueError, match=r"multilabel\.dropout is a probability in \[0, 1\]; got 2"):
        MultiLabelRecipe(dropout=2)


def test_a_backbone_that_ends_in_logits_has_no_further_layer() -> None:
    small = TransformerRecipe(temporal_depth=1, spatial_depth=1, heads=2, head_channels=8)
    recipe = replace(multilabel_of(), backbone=BackboneRecipe(name="tsvit_parcel", width=0.25, transformer=small))
    objective = objective_of(recipe)
    assert isinstance(objective, MultiLabel)
    assert not list(objective.head.parameters())
    assert objective(sample_of(0)).shape == (2, CLASSES)


def test_chips_without_labels_of_their_own_are_refused() -> None:
    objective = objective_of(multilabel_of())
    with pytest.raises(ValueError, match=r"labelled as such, and these have labels of pixels or none: .*bigearthnet"):
        objective.loss(sample_of(0))
    with pytest.raises(ValueError, match="knows 3 classes; the chips are labelled with 2"):
        objective.loss(sample_of(0).replace(present=torch.ones(2, 2, dtype=torch.bool)))


def test_finer_labels_and_no_classes_are_refused() -> None:
    finer = replace(multilabel_of(), data=DataRecipe(size=8, labels=2))
    with pytest.raises(ValueError, match=r"labels 2 times finer are no use to it: set data\.labels=1"):
        build_objective(finer, bands=("B02",), dates=4, classes=3, mean=[0.0], std=[1.0])
    with pytest.raises(ValueError, match="got none: give it chips with labels"):
        build_objective(multilabel_of(), bands=BANDS, dates=DATES, classes=0, mean=[0.0] * 3, std=[1.0] * 3)


def test_the_best_epoch_has_the_highest_mean_average_precision_over_all_chips(tmp_path: Path) -> None:
    recipe, chips = multilabel_of(epochs=3), LabelledChips(batches_in_epoch=4, validated=3)
    objective = objective_of(recipe)
    with Narrator() as narrator:
        fitted = fit(objective, chips, recipe, folder=tmp_path, narrator=narrator)
    assert isinstance(objective, MultiLabel)
    with (tmp_path / METRICS).open(newline="") as file:
        scores = [float(row["validation_map"]) for row in csv.DictReader(file)]
    assert fitted.best_epoch == scores.index(max(scores)) + 1
    assert fitted.confusion is None
    samples = list(chips.parcels(Split.VALIDATION, size=8))
    with torch.no_grad():
        logits = np.concatenate([objective.eval()(sample).numpy() for sample in samples])
    present = np.concatenate([sample.present.numpy() for sample in samples if sample.present is not None])
    found = rank_classes(logits, present)
    assert fitted.metrics["validation_map"] == pytest.approx(found.macro)
    assert fitted.metrics["validation_micro_ap"] == pytest.approx(found.micro)
