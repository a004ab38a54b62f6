"""`sits-model pretrain`: an encoder learns what others can start from."""

from __future__ import annotations

from collections.abc import Sequence

from sits_catalog.console import Narrator
from sits_models.recipe import Recipe
from sits_models.tasks.training import TrainingOutcome, train

__all__ = ["pretrain"]


def pretrain(
    recipe: Recipe, *, cubes: Sequence[str] | None, out: str, narrator: Narrator, weights: str | None = None
) -> TrainingOutcome:
    """Pretrain a recipe, with labels or without, on cubes (None: those it names) into the run folder `out`.

    `weights` is a run, a folder of weights or a name of the zoo whose encoder it starts from, and with it at once the
    second network that embeds the keys; None: random weights.

    Without labels it learns from the train split and from cubes without splits, or, where the recipe says
    `data.transductive`, from the ground of all splits. A run that was interrupted goes on where it stopped; one that is
    finished stays as it is. Raises what `tasks.training.train` raises, and ValueError for a recipe that gives classes.
    """
    if not recipe.pretrains:
        raise ValueError(
            f"the recipe {recipe.name} is of {recipe.objective}; give it to finetune, or pretrain one such as "
            "cscl-demo or embedding-earth-laptop"
        )
    return train(recipe, cubes=cubes, weights=weights, out=out, narrator=narrator)
