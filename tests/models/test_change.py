from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torchvision.models
from tests.models.training import BANDS, Chips, recipe_of, sample_of
from torch import Tensor
from torch.nn import functional

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.backbones.resnet import ResNet18, ResNet50
from sits_models.engine import METRICS, fit
from sits_models.objectives import Change, Objective, build_objective
from sits_models.objectives.change import Decoder
from sits_models.recipe import BackboneRecipe, ChangeRecipe, DataRecipe, DateRule, Recipe
from sits_models.sample import IGNORE_INDEX, Sample

CLASSES = 2


def change_of(*, backbone: str = "resnet18", **training: object) -> Recipe:
    recipe = recipe_of(**training)  # type: ignore[arg-type]
    return replace(
        recipe,
        data=replace(recipe.data, dates=DateRule(pick="even", n=2)),
        backbone=BackboneRecipe(name=backbone, width=0.0625),
        segmentation=None,
        change=ChangeRecipe(),
    )


def objective_of(recipe: Recipe, *, dates: int = 2, classes: int = CLASSES) -> Objective:
    torch.manual_seed(0)
    return build_objective(
        recipe, bands=BANDS, dates=dates, classes=classes, mean=(1500.0,) * 3, std=(900.0,) * 3, class_weights=None
    )


def pair_of(seed: int, *, chips: int = 2) -> Sample:
    """Two dates; a pixel has changed where the second one is brighter by far."""
    sample = sample_of(seed, chips=chips)
    changed = sample.crop == 1
    image = sample.image[:, :1].to(torch.int32).expand(-1, 2, -1, -1, -1).clone()
    image[:, 1] += 3000 * changed[:, None]
    crop = torch.where(sample.crop == IGNORE_INDEX, IGNORE_INDEX, changed.to(torch.int64))
    return sample.replace(
        image=image.to(torch.uint16),
        valid=sample.valid[:, :2],
        day=sample.day[:, :2],
        clear=sample.clear[:, :2],
        crop=crop,
    )


class Pairs(Chips):
    """Batches of pairs of dates."""

    def epoch(self, number: int, *, seed: int, pin: bool = False) -> Iterator[Sample]:
        for batch in range(self.batches_in_epoch):
            yield pair_of(1000 * seed + 10 * number + batch, chips=4)

    def evaluation(self, split: Split, *, size: int | None = None, pin: bool = False) -> Iterator[Sample]:
        assert split is Split.VALIDATION
        for batch in range(self.validated):
            yield pair_of(99_000 + batch)


def swapped(sample: Sample) -> Sample:
    flipped = {name: getattr(sample, name).flip(1) for name in ("valid", "day", "clear")}
    image = sample.image.view(torch.int16).flip(1).view(torch.uint16)
    return sample.replace(image=image, **flipped)


@pytest.mark.parametrize(("name", "kind"), [("resnet18", ResNet18), ("resnet50", ResNet50)])
def test_levels_are_the_maps_of_torchvision_s_stages(name: str, kind: type[ResNet18] | type[ResNet50]) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    ours = kind(3, dates=1).eval()
    ours.load_state_dict({key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")})
    frame = torch.randn(1, 3, 45, 33, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        levels = ours.levels(frame)
        expected = [theirs.conv1(frame)]
        found = theirs.maxpool(theirs.relu(theirs.bn1(expected[0])))
        for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            found = stage(found)
            expected.append(found)
        assert [tuple(level.shape[2:]) for level in levels] == [(23, 17), (12, 9), (6, 5), (3, 3), (2, 2)]
        assert tuple(level.shape[1] for level in levels) == ours.level_channels
        for level, one in zip(levels, expected, strict=True):
            torch.testing.assert_close(level, one)


def test_levels_and_their_gradients_are_the_same_with_checkpointing() -> None:
    torch.manual_seed(0)
    backbone = ResNet18(3, dates=1, width=0.0625)
    start = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    frame = torch.randn(2, 3, 33, 33)
    results = []
    for checkpointing in (False, True):
        backbone.load_state_dict(start)
        backbone.zero_grad()
        backbone.checkpointing = checkpointing
        levels = backbone.levels(frame)
        torch.stack([level.square().mean() for level in levels]).sum().backward()
        gradients = {name: parameter.grad for name, parameter in backbone.named_parameters()}
        results.append([levels, gradients, {name: t.clone() for name, t in backbone.state_dict().items()}])
    torch.testing.assert_close(results[1], results[0])


def decoded_plainly(state: dict[str, Tensor], levels: Sequence[Tensor]) -> Tensor:
    found = levels[-1]
    for n in range(len(levels) - 2, -1, -1):
        found = found.repeat_interleave(2, 2).repeat_interleave(2, 3)
        found = functional.conv2d(found, state[f"shrink.{n}.weight"], state[f"shrink.{n}.bias"], padding=1)
        found = functional.conv2d(torch.cat([found, levels[n]], 1), state[f"join.{n}.0.weight"], padding=1)
        mean, var = found.mean((0, 2, 3), keepdim=True), found.var((0, 2, 3), keepdim=True, correction=0)
        scale, shift = (state[f"join.{n}.1.{key}"][:, None, None] for key in ("weight", "bias"))
        found = ((found - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)
    return functional.conv2d(found, state["last.weight"], state["last.bias"])


def test_the_decoder_joins_each_level_with_what_comes_from_below() -> None:
    torch.manual_seed(2)
    decoder = Decoder((4, 6, 8), CLASSES, dropout=0.0)
    levels = [torch.rand(2, 4, 16, 8), torch.rand(2, 6, 8, 4), torch.rand(2, 8, 4, 2)]
    torch.testing.assert_close(decoder(levels), decoded_plainly(decoder.state_dict(), levels), rtol=1e-4, atol=1e-5)


def test_the_decoder_is_of_the_published_size_but_for_one_logit() -> None:
    with torch.device("meta"):
        decoder = Decoder(ResNet18(3, dates=1).level_channels, CLASSES, dropout=0.3)
    channels = (64, 64, 128, 256, 512)
    expected = 64 * CLASSES + CLASSES
    for fine, coarse in pairwise(channels):
        expected += (9 * coarse * fine + fine) + 9 * 2 * fine * fine + 2 * fine
    assert sum(parameter.numel() for parameter in decoder.parameters()) == expected


@pytest.mark.parametrize("training", [False, True])
def test_the_dates_may_change_places(training: bool) -> None:
    objective, sample = objective_of(change_of()).train(training), pair_of(0)
    sample = sample.replace(day=sample.day + torch.tensor([0, 77], dtype=torch.int32))
    results = []
    for one in (sample, swapped(sample)):
        torch.manual_seed(5)  # dropout
        objective.zero_grad()
        loss = objective.loss(one)
        loss.value.backward()
        results.append([loss.value, [parameter.grad for parameter in objective.parameters()]])
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_chips_that_do_not_change_have_the_same_logits_whatever_they_show() -> None:
    objective = objective_of(change_of()).eval()
    assert isinstance(objective, Change)
    sample = pair_of(0)
    image = sample.image.view(torch.int16)[:, :1].expand(-1, 2, -1, -1, -1).contiguous().view(torch.uint16)
    with torch.no_grad():
        still, moved = objective(sample.replace(image=image)), objective(sample)
    assert torch.equal(still[0], still[1])
    assert not torch.equal(moved[0], moved[1])


def test_two_logits_cost_what_one_does_by_their_difference() -> None:
    objective, sample = objective_of(change_of()).eval(), pair_of(1)
    assert isinstance(objective, Change)
    with torch.no_grad():
        logits, loss = objective(sample), objective.loss(sample)
    assert logits.shape == (2, CLASSES, 8, 8)
    kept = sample.crop != IGNORE_INDEX
    single = (logits[:, 1] - logits[:, 0])[kept]
    published = functional.binary_cross_entropy_with_logits(single, sample.crop[kept].to(torch.float32))
    assert loss.value.item() == pytest.approx(published.item(), rel=1e-5)
    assert loss.count.item() == int(kept.sum())


def test_a_pair_of_which_a_date_is_padding_counts_nowhere() -> None:
    objective, sample = objective_of(change_of()).eval(), pair_of(0, chips=3)
    assert isinstance(objective, Change)
    valid = sample.valid.clone()
    valid[1, 1] = False
    padded, others = sample.replace(valid=valid), sample.take(torch.tensor([0, 2]))
    expected = sample.crop.clone()
    expected[1] = IGNORE_INDEX
    assert torch.equal(objective.target(padded), expected)
    with torch.no_grad():
        ours, theirs = objective.loss(padded), objective.loss(others)
    assert ours.value.item() == pytest.approx(theirs.value.item(), rel=1e-5)
    assert ours.count.item() == theirs.count.item() < objective.loss(sample).count.item()
    assert ours.monitors["accuracy"].item() == pytest.approx(theirs.monitors["accuracy"].item())


def test_every_tensor_gets_a_gradient() -> None:
    objective = objective_of(change_of())
    objective.loss(pair_of(0, chips=4)).value.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_backbones_without_levels_are_refused() -> None:
    for name, kind in (("utae", "UTAE"), ("tsvit", "TSViT"), ("deeplab_resnet18", "DeepLabResNet18")):
        says = f"maps of several levels .* resnet18 and resnet50 give and {kind} does not: set backbone.name=resnet18"
        with pytest.raises(ValueError, match=says):
            objective_of(change_of(backbone=name))


def test_other_than_two_dates_two_classes_and_plain_labels_are_refused() -> None:
    recipe = change_of()
    says = r"compares 2 dates; the chips hold 3: set data\.dates=\{pick: even, n: 2\}"
    for rule in (DateRule(), DateRule(pick="first", n=3)):
        with pytest.raises(ValueError, match=says):
            objective_of(replace(recipe, data=replace(recipe.data, dates=rule)), dates=3)
    with pytest.raises(ValueError, match="has 2 classes, unchanged and changed; the class table has 4"):
        objective_of(recipe, classes=4)
    with pytest.raises(ValueError, match=r"2 times finer are no use to it: set data\.labels=1"):
        objective_of(replace(recipe, data=DataRecipe(size=8, labels=2)))
    with pytest.raises(ValueError, match="compares 2 dates; the chips hold 4"):
        objective_of(recipe)(sample_of(0))
    with pytest.raises(ValueError, match=r"change\.dropout is a probability in \[0, 1\]; got -1"):
        ChangeRecipe(dropout=-1)


def test_other_bands_are_refused() -> None:
    with pytest.raises(ValueError, match="takes the bands B02, B04, B08; got B02, B03, B08"):
        objective_of(change_of())(replace(pair_of(0), bands=("B02", "B03", "B08")))


def test_a_change_is_learnt_and_its_f1_is_in_the_history(tmp_path: Path) -> None:
    recipe = change_of(epochs=2, learning_rate=3e-3)
    objective = objective_of(recipe)
    with Narrator() as narrator:
        fitted = fit(objective, Pairs(batches_in_epoch=4), recipe, folder=tmp_path, narrator=narrator)
    with (tmp_path / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["validation_miou"]) for row in rows]
    assert fitted.best_epoch == scores.index(max(scores)) + 1
    assert fitted.confusion is not None
    (_, false), (missed, hits) = fitted.confusion.tolist()
    assert fitted.metrics["validation_change_f1"] == pytest.approx(2 * hits / (2 * hits + false + missed))
    assert float(rows[-1]["train_loss"]) < math.log(2)
