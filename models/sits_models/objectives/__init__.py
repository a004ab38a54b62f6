"""What a backbone is trained for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sits_models.backbones import backbone_class, build_backbone
from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss, Objective
from sits_models.objectives.change import Change, check_change
from sits_models.objectives.classification import Classification
from sits_models.objectives.cscl import ContextContrast
from sits_models.objectives.embedding_earth import EmbeddingEarth
from sits_models.objectives.glcnet import GlobalLocalContrast
from sits_models.objectives.inpainting import Inpainting
from sits_models.objectives.jigsaw import Jigsaw
from sits_models.objectives.multilabel import MultiLabel
from sits_models.objectives.seco import SeasonalContrast
from sits_models.objectives.segmentation import Segmentation
from sits_models.objectives.simclr import ChipContrast
from sits_models.recipe import Recipe

__all__ = [
    "Change",
    "Classification",
    "ContextContrast",
    "Loss",
    "MultiLabel",
    "Objective",
    "Segmentation",
    "build_objective",
    "gives_logits",
]


def build_objective(
    recipe: Recipe,
    *,
    bands: tuple[str, ...],
    dates: int,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    class_weights: Sequence[float] | None = None,
) -> Objective[Any]:
    """The whole model of a recipe, its weights drawn anew.

    `dates` is the T of chips as they are read, `classes` the number of classes, `mean` and `std` are of stored
    reflectance, a value a band; `class_weights` go into the loss of a segmentation, a classification or a change. A
    backbone that sees the whole chip is applied at the side that the recipe trains it at.
    """
    if recipe.change is not None:
        # A card says 1, what the backbone sees at a time.
        shown = recipe.data.dates.n or (2 if dates == 1 else dates)
        check_change(backbone_class(recipe.backbone.name), dates=shown, classes=classes)
    backbone = build_backbone(
        recipe.backbone,
        bands=len(bands),
        dates=recipe.dates_of(dates),
        size=max(recipe.sides),
        outputs=classes if gives_logits(recipe) else None,
    )
    backbone.checkpointing = recipe.training.checkpointing
    encoder = Encoder(backbone, bands=bands, mean=mean, std=std, magnification=recipe.data.labels)
    if recipe.contrast is not None:
        return ContextContrast(encoder, recipe=recipe.contrast, background=recipe.data.background)
    if (label_free := _label_free(recipe, encoder)) is not None:
        return label_free
    if recipe.classification is not None:
        return Classification(encoder, classes=classes, class_weights=class_weights)
    if recipe.multilabel is not None:
        return MultiLabel(encoder, classes=classes, recipe=recipe.multilabel)
    if recipe.change is not None:
        return Change(encoder, classes=classes, recipe=recipe.change, class_weights=class_weights)
    assert recipe.segmentation is not None  # a recipe has one section
    return Segmentation(encoder, classes=classes, recipe=recipe.segmentation, class_weights=class_weights)


def _label_free(recipe: Recipe, encoder: Encoder) -> Objective[Any] | None:
    """The objective of a section that reads no labels."""
    if recipe.embedding_earth is not None:
        return EmbeddingEarth(encoder, options=recipe.embedding_earth)
    if recipe.glcnet is not None:
        return GlobalLocalContrast(encoder, options=recipe.glcnet)
    if recipe.simclr is not None:
        return ChipContrast(encoder, options=recipe.simclr)
    if recipe.inpainting is not None:
        return Inpainting(encoder, options=recipe.inpainting)
    if recipe.jigsaw is not None:
        return Jigsaw(encoder, options=recipe.jigsaw)
    return None if recipe.seco is None else SeasonalContrast(encoder, recipe.seco)


def gives_logits(recipe: Recipe) -> bool:
    """Whether the backbone of a recipe itself ends in the logits of its classes.

    Where the published one does, it can only do so at the resolution of its input.
    """
    return not recipe.pretrains and recipe.data.labels == 1 and backbone_class(recipe.backbone.name).head == "none"
