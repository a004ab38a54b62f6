"""Recipes: every choice of a training, read from YAML and checked before anything starts."""

from __future__ import annotations

from sits_models.recipe.backbone import BackboneRecipe, HeadKind, TransformerRecipe, Variant
from sits_models.recipe.data import Augmentation, DataRecipe, DateRule, FewLabels, Layout
from sits_models.recipe.objectives import (
    ChangeRecipe,
    ClassificationRecipe,
    ContrastRecipe,
    MultiLabelRecipe,
    SegmentationRecipe,
)
from sits_models.recipe.pretraining import (
    EmbeddingEarthRecipe,
    GLCNetRecipe,
    InpaintingRecipe,
    JigsawRecipe,
    SeCoRecipe,
    SimCLRRecipe,
)
from sits_models.recipe.reading import dump_recipe, list_recipes, load_recipe, recipe_from_plain, recipe_to_plain
from sits_models.recipe.training import TrainingRecipe
from sits_models.recipe.views import Blur, DateSubset, Geometry, Jitter, Photometry, SingleDates
from sits_models.recipe.whole import PRETRAINING, ObjectiveName, Recipe

__all__ = [
    "PRETRAINING",
    "Augmentation",
    "BackboneRecipe",
    "Blur",
    "ChangeRecipe",
    "ClassificationRecipe",
    "ContrastRecipe",
    "DataRecipe",
    "DateRule",
    "DateSubset",
    "EmbeddingEarthRecipe",
    "FewLabels",
    "GLCNetRecipe",
    "Geometry",
    "HeadKind",
    "InpaintingRecipe",
    "JigsawRecipe",
    "Jitter",
    "Layout",
    "MultiLabelRecipe",
    "ObjectiveName",
    "Photometry",
    "Recipe",
    "SeCoRecipe",
    "SegmentationRecipe",
    "SimCLRRecipe",
    "SingleDates",
    "TrainingRecipe",
    "TransformerRecipe",
    "Variant",
    "dump_recipe",
    "list_recipes",
    "load_recipe",
    "recipe_from_plain",
    "recipe_to_plain",
]
