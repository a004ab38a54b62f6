"""All that a training needs, opened and checked before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sits_models.checkpoints import Card, LoadReport, read_card, transfer
from sits_models.device import Rank
from sits_models.engine import check_devices, check_precision, derived_seed
from sits_models.objectives import build_objective
from sits_models.objectives.base import Objective
from sits_models.objectives.chip_embeddings import leaves_decoder_out
from sits_models.recipe import Recipe
from sits_models.tasks.training_checks import check_chips, check_views
from sits_models.tasks.training_data import (
    Learnt,
    describe_data,
    labels_drawn,
    open_data,
    parcels_in_words,
    radiometry_of,
)
from sits_models.zoo import find_weights

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that a training needs, checked."""

    recipe: Recipe
    """With everything that it leaves to the cubes and to the weights."""
    data: Learnt
    objective: Objective
    described: Mapping[str, object]
    """data.json"""
    loaded: LoadReport | None
    notes: tuple[str, ...]


def prepare(
    recipe: Recipe,
    cubes: Sequence[str] | None,
    weights: str | None,
    *,
    rank: Rank,
    say: Callable[[str], None],
    held: ExitStack,
) -> Prepared:
    """Open and check everything, in each process for itself; what is opened is `held`."""
    check_precision(recipe.training)
    check_devices(recipe, rank)
    paths = _paths(recipe, cubes)
    say(f"reading {', '.join(paths)}")
    start = None if weights is None else find_weights(weights)
    card = None if start is None else read_card(start)
    if card is not None and recipe.training.probe and leaves_decoder_out(card.recipe):
        raise ValueError(
            f"the decoder of a DeepLabV3+ is not among the weights of a {card.recipe.objective}, and a probe would "
            "leave it as it was drawn: finetune them with training.probe=false"
        )
    data = open_data(recipe, paths, card=card, rank=rank)
    held.callback(data.close)
    resolved, notes = _resolved(recipe, paths, data, card)
    for note in notes:
        say(note)
    objective = _objective(resolved, data)
    check_chips(resolved, objective, data, rank)
    check_views(resolved, objective, data)
    if (parcels := parcels_in_words(data)) is not None:
        say(parcels)
    return Prepared(
        recipe=resolved,
        data=data,
        objective=objective,
        loaded=None if start is None else _started(objective, start, other_values=bool(_differences(data, card))),
        described=describe_data(data, objective, parent=None if card is None else card.sha256),
        notes=notes,
    )


def _paths(recipe: Recipe, cubes: Sequence[str] | None) -> tuple[str, ...]:
    paths = tuple(cubes) if cubes else recipe.data.cubes
    if not paths:
        raise ValueError(f"the recipe {recipe.name} names no cube; give --cube with the folder of a dataset")
    return paths


def _resolved(
    recipe: Recipe, paths: tuple[str, ...], data: Learnt, card: Card | None
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with everything it leaves to the cubes and to the weights, and what there is to say of these."""
    choices = dataclasses.replace(recipe.data, cubes=paths, bands=data.bands)
    notes: list[str] = []
    if card is not None and card.recipe.data.normalize != choices.normalize:
        theirs = card.recipe.data.normalize
        ours = choices.normalize
        notes.append(f"normalizing by {theirs}, as the weights it starts from, not by {ours} as the recipe")
        choices = dataclasses.replace(choices, normalize=theirs)
    if differing := _differences(data, card):
        notes.append(
            f"the radiometry of {', '.join(paths)} is not that of the weights ({'; '.join(differing)}): mean and "
            "deviation are those of the new data"
        )
    return dataclasses.replace(recipe, data=choices), tuple(notes)


def _differences(data: Learnt, card: Card | None) -> tuple[str, ...]:
    """What the values of the data mean otherwise than to the weights that training starts from."""
    return () if card is None else card.radiometry_differences(radiometry_of(data))


def _started(objective: Objective, weights: Path, *, other_values: bool) -> LoadReport:
    """Start from weights; from ones of other values with the mean and deviation that `objective` has already."""
    encoder = objective.encoder
    mean, std = encoder.mean.clone(), encoder.std.clone()
    report = transfer(objective, weights)
    if other_values:
        encoder.mean.copy_(mean)
        encoder.std.copy_(std)
        objective.catch_up()
    return report


def _objective(recipe: Recipe, data: Learnt) -> Objective[Any]:
    supervised = recipe.segmentation or recipe.classification
    weighted = supervised is not None and supervised.weights == "inverse_frequency"
    torch.manual_seed(derived_seed("weights", recipe.training.seed))
    return build_objective(
        recipe,
        bands=data.bands,
        dates=data.dates,
        classes=data.table.n,
        mean=data.mean,
        std=data.std,
        class_weights=_inverse_frequency(labels_drawn(data)) if weighted else None,
    )


def _inverse_frequency(labels: NDArray[np.int64]) -> list[float]:
    """A weight a class, such that every class that occurs weighs alike in the sum; 0 for one that does not.

    >>> _inverse_frequency(np.array([6, 2, 0]))
    [0.6666666666666666, 2.0, 0.0]
    """
    present = int(np.count_nonzero(labels))
    return [float(labels.sum() / (present * n)) if n else 0.0 for n in labels.tolist()]
