"""What is seen to before a training begins: that chips, and views of them, can be made of its data."""

from __future__ import annotations

import torch

from sits_models.data.draws import Draws
from sits_models.device import Rank
from sits_models.objectives.base import Objective
from sits_models.recipe import Recipe
from sits_models.sample import IGNORE_INDEX, Sample
from sits_models.tasks.training_data import Learnt

__all__ = ["check_chips", "check_views"]


def check_chips(recipe: Recipe, objective: Objective, data: Learnt, rank: Rank) -> None:
    """Raises ValueError where no batch can be drawn, or the backbone cannot take one, or a process's part of it."""
    size, backbone, dates = min(recipe.sides), objective.encoder.backbone, recipe.dates_of(data.dates)
    for side in recipe.sides:
        try:
            backbone.check(torch.empty(1, dates, len(data.bands), side, side, device="meta"))
        except ValueError as error:
            where = f"data.size is {side} and a chip" if side == recipe.data.size else f"a view of {side} px"
            raise ValueError(f"{where} holds {dates} dates: {error}") from error
    least, batch = backbone.least_chips(size), recipe.data.batch
    # Batch norms of several GPUs take their statistics over the whole batch.
    apart = 1 if torch.cuda.is_available() else rank.of
    if batch // apart < least:
        shared = "" if apart == 1 else f" that {apart} processes share, at least {batch // apart} each"
        fewer = "" if apart == 1 else ", or start fewer"
        raise ValueError(
            f"the batch norms of {type(backbone).__name__} need {least} chips of {size} px for their statistics; got a "
            f"batch of {batch}{shared}: set data.batch={least * apart} or more{fewer}"
        )
    data.plan(0, seed=recipe.training.seed)


def check_views(recipe: Recipe, objective: Objective, data: Learnt) -> None:
    """Raises ValueError where no views can be made of chips of these bands; those of two empty ones are drawn."""
    if not recipe.label_free:
        return
    draws = Draws.of(torch.Generator().manual_seed(0), chips=2)
    try:
        objective.views(_empty(2, data, side=recipe.data.size), recipe.augmentation, draws)
    except ValueError as error:
        raise ValueError(
            f"{recipe.objective} cannot make its views of chips of {', '.join(data.bands)}: {error}; change "
            f"data.bands, or the keys of {recipe.objective}"
        ) from error


def _empty(chips: int, data: Learnt, *, side: int) -> Sample:
    """Chips in which nothing is observed, and nothing labelled."""
    plane = torch.zeros(chips, side, side, dtype=torch.int64)
    return Sample(
        image=torch.zeros(chips, data.dates, len(data.bands), side, side, dtype=torch.uint16),
        valid=torch.ones(chips, data.dates, dtype=torch.bool),
        day=torch.arange(data.dates, dtype=torch.int32).expand(chips, -1),
        clear=torch.zeros(chips, data.dates, side, side, dtype=torch.bool),
        crop=plane + IGNORE_INDEX,
        counted=plane.bool(),
        parcel=plane,
        boundary=plane.to(torch.int16),
        place=torch.zeros(chips, 3, dtype=torch.int64),
        bands=data.bands,
    )
