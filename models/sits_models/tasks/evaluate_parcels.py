"""The part of `sits-model evaluate` for models that give one class to a parcel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.data.loader import EvaluationData
from sits_models.data.parcels import known_parcels
from sits_models.objectives.classification import Classification, middle_class, middle_observed
from sits_models.report.findings import ClassifiedParcels

__all__ = ["classify_parcels", "unknown_parcels"]


def classify_parcels(
    data: EvaluationData, objective: Classification, *, size: int, split: Split, narrator: Narrator
) -> tuple[ClassifiedParcels, int]:
    """Each labelled parcel of the split whose class the model knows, once, in the order of cubes and parcels.

    Those whose middle was observed on none of the dates that the model sees are left out; beside it how many there are.
    """
    assert data.table is not None
    total = sum(map(len, known_parcels(data.middles(split), data.cubes, data.table)))
    device, middle = objective.encoder.mean.device, size // 2
    # Cube, parcel, row, column, label and class of each parcel, (n, 6) a batch.
    found, sure = [np.zeros((0, 6), np.int64)], [np.zeros(0, np.float32)]
    done = unobserved = 0
    with torch.inference_mode():
        for sample in data.parcels(split, size=size):
            probability, predicted = torch.softmax(objective(sample.to(device)), dim=1).cpu().max(dim=1)
            place, parcel = sample.place + torch.tensor([0, middle, middle]), sample.parcel[:, middle, middle]
            rows = [place[:, 0], parcel, place[:, 1], place[:, 2], middle_class(sample), predicted]
            seen = middle_observed(sample)
            found.append(torch.stack(rows, dim=1)[seen].numpy())
            sure.append(probability[seen].numpy())
            unobserved += int((~seen).sum())
            done += len(parcel)
            narrator.progress(done, total)
    columns, probabilities = np.concatenate(found), np.concatenate(sure)
    order = np.lexsort((columns[:, 1], columns[:, 0]))
    cube, parcel_id, row, column, target, guess = columns[order].T
    classified = ClassifiedParcels(
        cube=cube,
        parcel=parcel_id,
        row=row,
        column=column,
        target=target,
        predicted=guess,
        probability=probabilities[order],
    )
    return classified, unobserved


def unknown_parcels(data: EvaluationData, split: Split) -> Mapping[tuple[str, str], int]:
    """Labelled parcels of the split by code and name of the classes that the model does not know."""
    assert data.table is not None
    unknown: dict[tuple[str, str], int] = {}
    for middles, cube in zip(data.middles(split), data.cubes, strict=True):
        names = {entry.index: (entry.code, entry.name) for entry in cube.facts.classes}
        crops = middles.crop[data.table.lookup(cube.facts)[middles.crop] < 0]
        for crop, n in zip(*(part.tolist() for part in np.unique(crops, return_counts=True)), strict=True):
            key = names.get(crop, (str(crop), ""))
            unknown[key] = unknown.get(key, 0) + n
    return unknown
