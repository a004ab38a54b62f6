from __future__ import annotations

import doctest
from typing import Literal

import pytest
import torch
from tests.models.samples import make_sample
from torch import nn

from sits_models.backbones import deeplab
from sits_models.backbones.deeplab import DeepLabResNet18, DeepLabResNet50, Pyramid, from_reference
from sits_models.heads import build_head
from sits_models.objectives import Classification, ContextContrast, Segmentation, build_objective
from sits_models.recipe import (
    BackboneRecipe,
    ClassificationRecipe,
    ContrastRecipe,
    DataRecipe,
    Recipe,
    SegmentationRecipe,
)

BANDS = ("B02", "B03", "B04", "B08", "B11")
SINGLE = ("deeplab_resnet18", "deeplab_resnet50", "resnet18", "resnet50")
NEW = ("biconvgru", "biconvlstm", *SINGLE)


def one_date(batch: int, size: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = torch.randn(batch, 1, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return image, torch.ones(batch, 1, dtype=torch.bool), torch.full((batch, 1), 18_500, dtype=torch.int32)


def small(**changes: object) -> DeepLabResNet18:
    torch.manual_seed(0)
    return DeepLabResNet18(3, dates=1, width=0.125, **changes)  # type: ignore[arg-type]


def test_the_published_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        backbone = DeepLabResNet50(4, dates=1)
        head = build_head("linear", channels=backbone.channels, classes=7, variant="paper")

    def count(*parts: nn.Module) -> int:
        return sum(p.numel() for part in parts for p in part.parameters())

    assert count(backbone, head) == 40_351_719
    assert count(backbone.trunk) == 23_511_168
    assert count(backbone.pyramid) == 15_535_104


def test_the_last_stage_keeps_a_sixteenth_of_the_resolution_with_dilated_convolutions() -> None:
    backbone = small()
    stage = backbone.trunk["layer4"]
    found = {(m.stride, m.dilation) for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}
    assert found == {((1, 1), (2, 2))}
    fine, context = backbone.encode(torch.randn(2, 3, 48, 64))
    assert fine.shape == (2, backbone.fine_channels, 12, 16)
    assert context.shape == (2, backbone.context_channels, 3, 4)
    assert backbone.decoder(fine, context).shape == (2, backbone.channels, 12, 16)


def test_batch_norms_follow_the_last_batch_as_published_and_slowly_when_fixed() -> None:
    variants: tuple[tuple[Literal["paper", "fixed"], float], ...] = (("paper", 0.9), ("fixed", 0.1))
    for variant, momentum in variants:
        backbone = small(variant=variant)
        norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
        assert {norm.momentum for norm in norms} == {momentum}
        image, valid, day = one_date(2, 32)
        with torch.no_grad():
            mean = backbone.trunk["conv1"](image[:, 0]).mean(dim=(0, 2, 3))
            backbone(image, valid, day)
        torch.testing.assert_close(norms[0].running_mean, momentum * mean)


def test_the_pooled_branch_is_the_same_at_every_pixel_and_sees_all_of_them() -> None:
    pyramid = Pyramid(4, 6, momentum=0.1).eval()
    coarse = torch.randn(2, 4, 3, 5)
    with torch.no_grad():
        pooled = pyramid.branches[-1](coarse)
        assert pooled.shape == (2, 6, 3, 5)
        assert (pooled == pooled[:, :, :1, :1]).all()
        alone = pyramid.branches[-1](coarse.mean(dim=(2, 3), keepdim=True))
        torch.testing.assert_close(alone, pooled[:, :, :1, :1])
        branches = torch.cat([branch(coarse) for branch in pyramid.branches], dim=1)
        assert branches.shape == (2, 30, 3, 5)
        torch.testing.assert_close(pyramid(coarse), pyramid.join(branches))


def test_a_single_chip_is_refused_in_training_alone() -> None:
    backbone = small()
    with pytest.raises(ValueError, match=r"statistics over 1 value in training: give data\.batch at least 2 chips"):
        backbone(*one_date(1, 64))
    assert backbone(*one_date(2, 8)).isfinite().all()
    assert backbone.eval()(*one_date(1, 64)).isfinite().all()
    with pytest.raises(ValueError, match="DeepLabResNet18 takes single dates; got 3"):
        DeepLabResNet18(3, dates=3)


def test_logits_are_resized_with_corners_on_corners() -> None:
    objective = build(recipe_of("deeplab_resnet18", "segmentation"))
    assert isinstance(objective, Segmentation)
    objective.eval()
    sample = make_sample(bands=BANDS, dates=1, size=21)
    with torch.no_grad():
        coarse, logits = objective.head(objective.encoder(sample)), objective(sample)
    assert coarse.shape == (2, 5, 6, 6)
    assert logits.shape == (2, 5, 21, 21)
    torch.testing.assert_close(logits[:, :, ::20, ::20], coarse[:, :, ::5, ::5])
    torch.testing.assert_close(logits[:, :, ::4, ::4], coarse)  # 5 steps of 4 px


REFERENCE = {
    "encoder.backbone.trunk.": "backbone.",
    **{f"encoder.backbone.pyramid.branches.{i}.": f"encoder.ASPP._atrous_convolution{i + 1}." for i in range(4)},
    "encoder.backbone.pyramid.branches.4.0.": "encoder.ASPP._image_pool.1.",
    "encoder.backbone.pyramid.branches.4.1.": "encoder.ASPP._image_pool.2.",
    "encoder.backbone.pyramid.join.0.": "encoder.conv1.",
    "encoder.backbone.pyramid.join.1.": "encoder.bn1.",
    "encoder.backbone.decoder.reduce.0.": "decoder_ft.conv1.",
    "encoder.backbone.decoder.reduce.1.": "decoder_ft.bn1.",
    "encoder.backbone.decoder.join.0.": "decoder_ft.conv2.",
    "encoder.backbone.decoder.join.1.": "decoder_ft.bn2.",
    "encoder.backbone.decoder.join.4.": "decoder_ft.conv3.",
    "encoder.backbone.decoder.join.5.": "decoder_ft.bn3.",
    "head.": "decoder_ft.conv4.",
}
"""Our beginnings of names, and those of GLCNet's network for finetuning."""


def test_entries_of_the_original_are_all_known_and_others_are_named() -> None:
    with torch.device("meta"):
        ours = build(recipe_of("deeplab_resnet50", "segmentation")).state_dict()
    names = [name for name in ours if name not in ("encoder.mean", "encoder.std")]
    theirs = {}
    for name in names:
        (start,) = (start for start in REFERENCE if name.startswith(start))
        theirs[f"module.{REFERENCE[start]}{name.removeprefix(start)}"] = ours[name]
    found = from_reference(theirs)
    assert list(found) == names
    assert all(found[name] is ours[name] for name in names)
    assert len(names) == 374
    for name in ("decoder.conv1.weight", "backbone.fc.weight"):
        with pytest.raises(ValueError, match=f"has no entry '{name}'"):
            from_reference({name: torch.zeros(1)})


def test_checkpointing_leaves_values_gradients_and_statistics_as_they_are() -> None:
    results = []
    for checkpointing in (False, True):
        backbone = small()
        backbone.checkpointing = checkpointing
        torch.manual_seed(1)  # of the dropouts
        embedded = backbone(*one_date(2, 33))
        embedded.square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in backbone.named_parameters()}
        results.append([embedded.detach(), gradients, dict(backbone.state_dict())])
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.slow
def test_a_single_date_can_be_exported() -> None:
    backbone = small().eval()
    inputs = one_date(1, 24)
    exported = torch.export.export(backbone, inputs).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(*inputs), backbone(*inputs))


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(deeplab).failed == 0


# --- Recipes of all backbones that came with these ------------------------------------------------------------------


def recipe_of(name: str, objective: str) -> Recipe:
    return Recipe(
        name="test",
        data=DataRecipe(bands=BANDS, size=21),
        backbone=BackboneRecipe(name=name, width=0.0625),
        contrast=ContrastRecipe() if objective == "contrast" else None,
        segmentation=SegmentationRecipe() if objective == "segmentation" else None,
        classification=ClassificationRecipe() if objective == "classification" else None,
    )


def build(recipe: Recipe) -> Classification | ContextContrast | Segmentation:
    torch.manual_seed(0)
    objective = build_objective(
        recipe,
        bands=BANDS,
        dates=1 if recipe.backbone.name in SINGLE else 3,
        classes=5,
        mean=[1000.0] * len(BANDS),
        std=[500.0] * len(BANDS),
    )
    assert isinstance(objective, Classification | ContextContrast | Segmentation)
    return objective


@pytest.mark.parametrize("objective", ["segmentation", "classification"])
@pytest.mark.parametrize("name", NEW)
def test_a_recipe_trains_on_chips_of_an_odd_side_and_an_odd_number_of_bands(name: str, objective: str) -> None:
    model = build(recipe_of(name, objective))
    sample = make_sample(bands=BANDS, dates=1 if name in SINGLE else 3, size=21)
    loss = model.loss(sample)
    assert loss.count > 0
    loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert model.encoder.backbone.tile_size == 21
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize(("name", "pixels"), [("deeplab_resnet18", 4), ("resnet18", 32)])
def test_a_contrast_of_neighbouring_pixels_is_refused_where_there_is_no_embedding_a_pixel(
    name: str, pixels: int
) -> None:
    with pytest.raises(ValueError, match=f"gives one for {pixels} x {pixels} pixels: choose a dense backbone"):
        build(recipe_of(name, "contrast"))
