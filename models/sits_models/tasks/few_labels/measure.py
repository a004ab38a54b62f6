"""How well a model maps a split, in numbers alone: the scores of its pixels and of its parcels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sits_catalog.console import Narrator
from sits_catalog.cube import CHIP, Split
from sits_models.checkpoints import Card
from sits_models.data.cubes import Cube
from sits_models.data.kept_labels import block_px
from sits_models.data.loader import EvaluationData
from sits_models.metrics import ParcelVotes, confusion_matrix
from sits_models.objectives.classification import Classification
from sits_models.objectives.segmentation import Segmentation
from sits_models.tasks.evaluate_parcels import classify_parcels
from sits_models.tasks.evaluation_windows import open_evaluation

__all__ = ["measure"]

_LARGEST = 128
"""Side of a window, pixels."""
_PIXELS_AT_ONCE = 1 << 16
"""Of a batch. On one thread torch's convolutions take three times as long, a pixel, for a batch of one chip as for one
of several."""


def measure(
    objective: Segmentation | Classification, card: Card, cubes: Sequence[Cube], *, split: Split, narrator: Narrator
) -> dict[str, NDArray[np.int64]]:
    """The confusion (K, K), rows = truth, of the `pixels` of a split and of its `parcels`; of the parcels alone where
    the model gives a class to each.

    They are counted as `sits-model evaluate` counts them, but a window sees a split block, or a part of a large one,
    and nothing around it: with a halo most of the work would be on ground that is hidden, that of other splits.
    """
    objective = objective.eval()
    batch = max(1, _PIXELS_AT_ONCE // _pixels_of(cubes, objective, card))
    with open_evaluation(cubes, objective, card, batch=batch, readers=1) as data:
        if isinstance(objective, Classification):
            found, _ = classify_parcels(data, objective, size=card.recipe.data.size, split=split, narrator=narrator)
            return {"parcels": _matrix(found.target, found.predicted, classes=objective.classes)}
        return _measure_pixels(objective, data, split)


def _measure_pixels(objective: Segmentation, data: EvaluationData, split: Split) -> dict[str, NDArray[np.int64]]:
    k, votes, device = objective.classes, ParcelVotes(classes=objective.classes), objective.encoder.mean.device
    pixels = torch.zeros(k, k, dtype=torch.int64)
    with torch.inference_mode():
        for sample in data.evaluation(split, size=objective.encoder.backbone.tile_size, own=_own_px(data.cubes)):
            predicted = objective(sample.to(device)).argmax(dim=1).cpu()
            pixels += confusion_matrix(sample.crop, predicted, classes=k)
            nowhere = torch.zeros_like(sample.crop)
            votes.add(predicted, target=sample.crop, parcel=sample.parcel, cube=sample.place[:, 0], block=nowhere)
    majority = votes.majority()
    return {"pixels": pixels.numpy(), "parcels": _matrix(majority.target, majority.predicted, classes=k)}


def _matrix(target: NDArray[np.int64], predicted: NDArray[np.int64], *, classes: int) -> NDArray[np.int64]:
    return confusion_matrix(torch.from_numpy(target), torch.from_numpy(predicted), classes=classes).numpy()


def _own_px(cubes: Sequence[Cube]) -> int:
    """Side of the windows: a split block, or the largest part of one of at most 128 px."""
    chips = min(block_px(cube) for cube in cubes) // CHIP
    return CHIP * max(n for n in range(1, _LARGEST // CHIP + 1) if chips % n == 0)


def _pixels_of(cubes: Sequence[Cube], objective: Segmentation | Classification, card: Card) -> int:
    """Of what the model sees at a time."""
    if isinstance(objective, Classification):
        return card.recipe.data.size**2
    return (objective.encoder.backbone.tile_size or _own_px(cubes)) ** 2
