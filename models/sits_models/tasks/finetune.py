"""`sits-model finetune`: a model learns the crop class of each pixel, from pretrained or from random weights."""

from __future__ import annotations

from collections.abc import Sequence

from sits_catalog.console import Narrator
from sits_models.recipe import Recipe
from sits_models.tasks.training import TrainingOutcome, train

__all__ = ["finetune"]


def finetune(
    recipe: Recipe, *, cubes: Sequence[str] | None, weights: str | None, out: str, narrator: Narrator
) -> TrainingOutcome:
    """Train a recipe of `segmentation` or `classification` on cubes (None: those it names) into the run folder `out`.

    `weights` is a run or a folder of weights to start from: the encoder of a pretraining whose backbone, bands and
    finer labels are the same; None: random weights. A run that was interrupted goes on where it stopped. Raises what
    `tasks.training.train` raises, and ValueError for a recipe of pretraining.
    """
    if recipe.pretrains:
        raise ValueError(f"the recipe {recipe.name} is of pretraining; give it to pretrain, or finetune a segment one")
    return train(recipe, cubes=cubes, weights=weights, out=out, narrator=narrator)
