from __future__ import annotations

from typing import Literal

import pytest
import torch
from tests.models.samples import make_sample
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from sits_models.backbones import backbone_class, build_backbone, list_backbones
from sits_models.encoder import Encoder
from sits_models.objectives import ContextContrast, Objective, Segmentation, build_objective
from sits_models.recipe import BackboneRecipe, ContrastRecipe, DataRecipe, Recipe, SegmentationRecipe
from sits_models.sample import IGNORE_INDEX, Sample

BANDS = ("B02", "B03", "B04")


def recipe_of(
    backbone: str, *, contrast: bool = False, labels: Literal[1, 2, 4] = 1, loss: str = "cross_entropy"
) -> Recipe:
    return Recipe(
        name="test",
        data=DataRecipe(labels=labels, size=16),
        backbone=BackboneRecipe(name=backbone, width=0.125),
        contrast=ContrastRecipe() if contrast else None,
        segmentation=None if contrast else SegmentationRecipe(loss="focal" if loss == "focal" else "cross_entropy"),
    )


def build(recipe: Recipe, *, dates: int = 4, classes: int = 5, weights: list[float] | None = None) -> Objective:
    return build_objective(
        recipe,
        bands=BANDS,
        dates=dates,
        classes=classes,
        mean=[1000.0, 2000.0, 3000.0],
        std=[500.0, 1000.0, 2000.0],
        class_weights=weights,
    )


def segmentation(*, loss: str = "cross_entropy", weights: list[float] | None = None, classes: int = 5) -> Segmentation:
    objective = build(recipe_of("unet3df", loss=loss), weights=weights, classes=classes)
    assert isinstance(objective, Segmentation)
    return objective


DENSE = [name for name in list_backbones() if backbone_class(name).stride == 1]


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("labels", [1, 2, 4])
@pytest.mark.parametrize("backbone", DENSE)
def test_every_backbone_trains_on_labels_of_10_and_5_and_2_and_a_half_metres(
    backbone: str, labels: Literal[1, 2, 4], contrast: bool
) -> None:
    objective = build(recipe_of(backbone, contrast=contrast, labels=labels))
    sample = make_sample(bands=BANDS, magnification=labels, padded=1)
    assert objective.encoder(sample).shape == (2, objective.encoder.channels, 16 * labels, 16 * labels)
    loss = objective.loss(sample)
    assert loss.value.shape == ()
    assert all(not value.requires_grad and value.isfinite() for value in loss.monitors.values())
    loss.value.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_unet3d_gives_logits_itself_but_where_they_are_finer_than_its_input() -> None:
    published, finer = build(recipe_of("unet3d")), build(recipe_of("unet3d", labels=2))
    assert [name for name, _ in published.named_parameters() if name.startswith("head.")] == []
    assert published.encoder.channels == 5
    assert [name for name, _ in finer.named_parameters() if name.startswith("head.")] == ["head.weight", "head.bias"]
    assert finer.encoder.channels == 16
    assert build(recipe_of("unet3d", contrast=True)).encoder.channels == 16


def test_the_whole_models_have_the_published_numbers_of_parameters_and_grids() -> None:
    def count(objective: Objective) -> int:
        return sum(parameter.numel() for parameter in objective.parameters())

    bands = tuple(f"B{i:02d}" for i in range(1, 14))

    def published(stage: int, magnification: Literal[1, 2, 4], backbone: str = "unet3df") -> Objective:
        recipe = Recipe(
            name="test",
            data=DataRecipe(labels=magnification),
            backbone=BackboneRecipe(name=backbone),
            contrast=ContrastRecipe() if stage == 0 else None,
            segmentation=SegmentationRecipe() if stage == 2 else None,
        )
        return build_objective(recipe, bands=bands, dates=16, classes=20, mean=[0.0] * 13, std=[1.0] * 13)

    assert count(published(2, 1)) == 7_219_941
    assert count(published(0, 1)) == 7_250_513
    assert count(published(0, 2)) == 7_250_513 + 147_840
    assert count(published(2, 4)) == 7_219_941 + 2 * 147_840
    assert count(published(2, 1, "unet3d")) == 6_183_429

    embedding = torch.randn(1, 128, 24, 24)
    contrast, segmented = published(0, 4).eval(), published(2, 4).eval()
    assert isinstance(contrast, ContextContrast)
    assert isinstance(segmented, Segmentation)
    with torch.no_grad():
        assert contrast.similarity(contrast.encoder.magnify(embedding)).shape == (1, 96, 96, 3, 3)
        assert segmented.head(segmented.encoder.magnify(embedding)).shape == (1, 20, 96, 96)


@pytest.mark.parametrize("backbone", DENSE)
def test_the_head_and_the_magnification_add_to_the_reach(backbone: str) -> None:
    inner = build(recipe_of(backbone)).encoder.backbone.reach
    reaches = [build(recipe_of(backbone, labels=labels)) for labels in (1, 2, 4)]
    for objective, magnified in zip(reaches, (0, 1, 1), strict=True):
        assert isinstance(objective, Segmentation)
        if inner is None:
            assert objective.reach is None
            assert objective.encoder.reach is None
        else:
            assert objective.encoder.reach == inner + magnified
            assert objective.reach == inner + magnified  # the heads of both UNet3D take one pixel


def test_stored_values_are_normalized_and_unobserved_ones_become_0() -> None:
    encoder = segmentation().encoder
    image = torch.tensor([[0, 500, 1500], [0, 4000, 2000], [0, 3000, 7000]], dtype=torch.uint16)[None, None, :, None]
    assert encoder.normalize(image)[0, 0, :, 0].tolist() == [[0.0, -1.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
    assert encoder.normalize(torch.full((1, 1, 3, 1, 1), -500.0)).flatten().tolist() == [-3.0, -2.5, -1.75]


def test_an_encoder_needs_a_mean_and_a_deviation_a_band() -> None:
    backbone = build_backbone(BackboneRecipe(name="unet3df", width=0.125), bands=3, dates=4)
    for mean, std in (([1.0] * 2, [1.0] * 3), ([1.0] * 3, [1.0] * 2), ([1.0] * 3, [1.0, 0.0, 1.0])):
        with pytest.raises(ValueError, match="3 bands need as many means and deviations above 0; got"):
            Encoder(backbone, bands=BANDS, mean=mean, std=std, magnification=1)


def test_other_bands_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="this model takes the bands B02, B03, B04; got B04, B03, B02"):
        segmentation()(make_sample(bands=("B04", "B03", "B02")))


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities 1/4, 1/2 and 3/4 of the right class, and an ignored pixel."""
    right = torch.tensor([[[0.25, 0.5, 0.75, 0.9]]])  # (B, H, W) of class 1
    logits = torch.stack([torch.log(1 - right), torch.log(right)], dim=1)
    return logits, torch.tensor([[[1, 1, 1, IGNORE_INDEX]]])


def test_cross_entropy_is_the_mean_over_labelled_pixels() -> None:
    logits, labels = logits_and_labels()
    mean = -torch.log(torch.tensor([0.25, 0.5, 0.75])).mean()
    torch.testing.assert_close(segmentation(classes=2).loss_of(logits, labels), mean)


def test_weights_of_classes_make_a_weighted_mean() -> None:
    logits, labels = logits_and_labels()
    labels[0, 0, 0] = 0  # whose probability is 3/4
    p = torch.tensor([0.75, 0.5, 0.75])
    expected = -(torch.log(p) * torch.tensor([3.0, 1.0, 1.0])).sum() / 5
    torch.testing.assert_close(segmentation(classes=2, weights=[3.0, 1.0]).loss_of(logits, labels), expected)
    with pytest.raises(ValueError, match="5 classes need as many weights; got 2"):
        segmentation(weights=[1.0, 2.0])


def test_weights_of_classes_are_no_part_of_the_model() -> None:
    assert set(segmentation(weights=[1.0] * 5).state_dict()) == set(segmentation().state_dict())


def test_the_focal_loss_counts_easy_pixels_less() -> None:
    logits, labels = logits_and_labels()
    p = torch.tensor([0.25, 0.5, 0.75])
    expected = -((1 - p) ** 2 * torch.log(p)).mean()
    torch.testing.assert_close(segmentation(classes=2, loss="focal").loss_of(logits, labels), expected)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.0, 1.0, 1.0]])
def test_a_batch_without_a_label_has_the_loss_0_and_gradients_of_0(loss: str, weights: list[float] | None) -> None:
    objective = segmentation(loss=loss, weights=weights)
    sample = make_sample(bands=BANDS)
    found = objective.loss(sample.replace(crop=torch.full_like(sample.crop, IGNORE_INDEX)))
    found.value.backward()
    assert found.value.item() == 0
    assert found.monitors["accuracy"].item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in objective.parameters())


def test_the_loss_of_a_batch_equals_that_of_torch_and_the_accuracy_is_the_share_that_is_right() -> None:
    objective, sample = segmentation(), make_sample(bands=BANDS)
    objective.eval()
    logits, kept = objective(sample), sample.crop != IGNORE_INDEX
    found = objective.loss(sample)
    torch.testing.assert_close(found.value, F.cross_entropy(logits, sample.crop, ignore_index=IGNORE_INDEX))
    right = (logits.argmax(1) == sample.crop)[kept].double().mean().item()
    assert found.monitors["accuracy"].item() == pytest.approx(right)
    assert 0 < right < 1


def brightness_sample(seed: int) -> Sample:
    """Chips whose class is whether a pixel is bright."""
    sample = make_sample(bands=BANDS, batch=4, size=8, classes=2, seed=seed)
    image = torch.where(sample.crop[:, None, None] == 1, 6000, 1000).expand(sample.image.shape).to(torch.uint16)
    return sample.replace(image=image)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_it_learns_what_is_easy_in_a_few_steps(loss: str) -> None:
    objective = segmentation(loss=loss, classes=2)
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    first = objective.loss(brightness_sample(0))
    for step in range(40):
        optimizer.zero_grad()
        objective.loss(brightness_sample(step)).value.backward()
        optimizer.step()
    last = objective.loss(brightness_sample(99))
    assert last.value < 0.5 * first.value
    assert last.monitors["accuracy"] > 0.9
