"""The part of `sits-model evaluate` for patch sets: datasets of many small places."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.backbones.base import check_dates
from sits_models.checkpoints import Card
from sits_models.data.classes import ClassTable
from sits_models.data.patch_data import PatchData
from sits_models.data.patch_sets import PatchSetFacts
from sits_models.folder import write_whole
from sits_models.metrics import AveragePrecision, Scores, confusion_matrix, rank_classes, scores_of
from sits_models.objectives.base import Objective
from sits_models.objectives.change import Change
from sits_models.objectives.classification import Classification
from sits_models.objectives.multilabel import MultiLabel
from sits_models.objectives.segmentation import Segmentation
from sits_models.report import Unit, write_confusion
from sits_models.sample import IGNORE_INDEX, Sample
from sits_models.tasks.evaluation_windows import Windows, plan_windows
from sits_models.tasks.training_data import check_kind_of_labels

__all__ = ["PatchFindings", "evaluate_patches"]

FORMAT = "sits-patch-evaluation 1"
Measured = Segmentation | Change | Classification | MultiLabel
"""Objectives whose models know classes."""


@dataclass(frozen=True, kw_only=True)
class PatchFindings:
    """How well the labels of a split were told."""

    matrix: NDArray[np.int64] | None
    """(K, K) over all that has a label, rows = truth; None where a patch may have several classes."""
    ranking: AveragePrecision | None
    """Of the scores of all patches, where it may; else None."""
    patches: int
    """Patches of the split that have a label."""
    unit: Literal["pixel", "patch"]
    """What the model gives a class to."""
    simulated: bool

    @property
    def scores(self) -> Scores | None:
        """All that follows from the matrix."""
        return None if self.matrix is None else scores_of(self.matrix)


def evaluate_patches(
    card: Card, weights: str, objective: Measured, paths: Sequence[str], *, split: Split, out: Path, narrator: Narrator
) -> PatchFindings:
    """Measure a model on a split of patch sets, and write metrics.json into `out`, with confusion.csv and
    confusion.png where labels exclude each other. There is no page.

    Maps, of classes or of changes, are counted pixel by pixel, each once, in one matrix; classifications and
    multilabels patch by patch, of which the model sees the middle. Raises ValueError where bands or radiometry of a set
    are not the model's, its labels are of another kind than the model's, or nothing in the split has a label.
    """
    windows = plan_windows(objective, card.recipe.data) if isinstance(objective, Segmentation | Change) else None
    with _open(card, objective, paths, windows) as data:
        narrator.stage(f"{'mapping' if windows else 'classifying'} the patches of the {split.name.lower()} split")
        if windows is not None:
            assert isinstance(objective, Segmentation | Change)
            findings = _count_pixels(data, objective, windows, split, narrator)
        elif isinstance(objective, Classification):
            findings = _count_patches(data, objective, split, narrator)
        else:
            assert isinstance(objective, MultiLabel)
            findings = _rank(data, objective, split, narrator)
        if not findings.patches:
            raise ValueError(
                f"no patch of the {split.name.lower()} split of {', '.join(paths)} has a label of a class that the "
                "model knows; choose another split"
            )
        facts = [one.facts for one in data.sets]
    _write(out, card, _metrics(card, weights, facts, findings, windows, split), findings)
    return findings


def _open(card: Card, objective: Objective, paths: Sequence[str], windows: Windows | None) -> PatchData:
    # What is drawn for training is no concern of an evaluation, and some of it no patch set knows.
    recipe = dataclasses.replace(card.recipe.data, few=None, sampling="uniform", start="threads")
    if windows is not None:
        recipe = dataclasses.replace(recipe, batch=windows.batch)
    table = ClassTable(classes=card.classes)
    data = PatchData.open(recipe, sets=paths, table=table, bands=card.bands)
    check_kind_of_labels(card.recipe.objective, data)
    for one in data.sets:
        card.check_radiometry(one.facts)
    backbone, longest = objective.encoder.backbone, int(data.patches.dates.max())
    if isinstance(objective, Change):
        return data  # which says itself whether it can compare what it sees
    dates = check_dates(backbone.needs, recipe.dates, longest)
    if not backbone.ignores_padding or backbone.needs.dates is not None:
        dates = max(dates, card.dates)  # as in training
    return PatchData(recipe, sets=data.sets, patches=data.patches, bands=card.bands, table=table, pad_to=dates)


# Counting


class _Seen:
    """The patches that came by, for the bar and for the number of those with a label."""

    def __init__(self, data: PatchData, split: Split, narrator: Narrator) -> None:
        self._total = len(data.patches.of_split(split))
        self._narrator = narrator
        self._seen: set[int] = set()
        self._labelled: set[int] = set()

    def add(self, sample: Sample, labelled: Tensor) -> None:
        """A batch, and which of its chips have a label, (B,) bool."""
        patches = sample.place[:, 0]
        self._seen.update(patches.tolist())
        self._labelled.update(patches[labelled.cpu()].tolist())
        self._narrator.progress(len(self._seen), self._total)

    @property
    def labelled(self) -> int:
        """How many have one."""
        return len(self._labelled)


def _count_pixels(
    data: PatchData, objective: Segmentation | Change, windows: Windows, split: Split, narrator: Narrator
) -> PatchFindings:
    device, seen = objective.encoder.mean.device, _Seen(data, split, narrator)
    matrix = torch.zeros(objective.classes, objective.classes, dtype=torch.int64)
    with torch.inference_mode():
        for sample in data.evaluation(split, size=windows.size, halo=windows.halo):
            predicted, target = objective(sample.to(device)).argmax(dim=1).cpu(), objective.target(sample)
            matrix += confusion_matrix(target, predicted, classes=objective.classes)
            seen.add(sample, (target != IGNORE_INDEX).flatten(1).any(dim=1))
    return _findings(data, matrix, None, seen, "pixel")


def _count_patches(data: PatchData, objective: Classification, split: Split, narrator: Narrator) -> PatchFindings:
    device, seen = objective.encoder.mean.device, _Seen(data, split, narrator)
    matrix = torch.zeros(objective.classes, objective.classes, dtype=torch.int64)
    with torch.inference_mode():
        for sample in data.parcels(split, size=data.recipe.size):
            predicted, target = objective(sample.to(device)).argmax(dim=1).cpu(), objective.target(sample)
            matrix += confusion_matrix(target, predicted, classes=objective.classes)
            seen.add(sample, target != IGNORE_INDEX)
    return _findings(data, matrix, None, seen, "patch")


def _rank(data: PatchData, objective: MultiLabel, split: Split, narrator: Narrator) -> PatchFindings:
    device, seen = objective.encoder.mean.device, _Seen(data, split, narrator)
    scores, present = [torch.zeros(0, objective.classes)], [torch.zeros(0, objective.classes, dtype=torch.bool)]
    with torch.inference_mode():
        for sample in data.parcels(split, size=data.recipe.size):
            scores.append(objective(sample.to(device)).float().cpu())
            present.append(objective.present(sample))
            seen.add(sample, present[-1].any(dim=1))
    ranking = rank_classes(torch.cat(scores).numpy(), torch.cat(present).numpy())
    return _findings(data, None, ranking, seen, "patch")


def _findings(
    data: PatchData,
    matrix: Tensor | None,
    ranking: AveragePrecision | None,
    seen: _Seen,
    unit: Literal["pixel", "patch"],
) -> PatchFindings:
    return PatchFindings(
        matrix=None if matrix is None else matrix.numpy(),
        ranking=ranking,
        patches=seen.labelled,
        unit=unit,
        simulated=any(one.facts.simulated for one in data.sets),
    )


# Files


def _metrics(
    card: Card,
    weights: str,
    sets: Sequence[PatchSetFacts],
    findings: PatchFindings,
    windows: Windows | None,
    split: Split,
) -> dict[str, object]:
    """All figures as plain values; what is undefined is None."""
    scores, ranking, recipe = findings.scores, findings.ranking, card.recipe
    return {
        "format": FORMAT,
        "title": recipe.name,
        "sets": [{"name": one.name, "path": one.path, "identity": one.identity} for one in sets],
        "split": split.name.lower(),
        "simulated": findings.simulated,
        "model": {
            "weights": weights,
            "sha256": card.sha256,
            "parent": card.parent,
            "recipe": recipe.name,
            "backbone": recipe.backbone.name,
            "probe": recipe.training.probe,
            "bands": list(card.bands),
        },
        "classes": [{"index": k, "code": crop.code, "name": crop.name} for k, crop in enumerate(card.classes)],
        "unit": findings.unit,
        "patches": findings.patches,
        "overall": None if scores is None else scores.to_json(),
        "confusion": None if findings.matrix is None else findings.matrix.tolist(),
        "average_precision": None if ranking is None else ranking.to_json(),
        "windows": {"size_px": recipe.data.size, "halo_px": 0}
        if windows is None
        else {"size_px": windows.side, "halo_px": windows.halo},
        "page": None,
        "software": f"sits-cubes {version('sits-cubes')}",
    }


def _write(folder: Path, card: Card, metrics: Mapping[str, object], findings: PatchFindings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.json", "report.html", "confusion.csv", "confusion.png", "per_parcel.parquet"):
        (folder / name).unlink(missing_ok=True)  # of an evaluation before this one
    if findings.matrix is not None:
        codes = [crop.code for crop in card.classes]
        with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["label \\ predicted", *codes])
            rows.writerows([code, *row] for code, row in zip(codes, findings.matrix.tolist(), strict=True))
        names = [crop.name for crop in card.classes]
        unit: Unit = "pixel" if findings.unit == "pixel" else "chip"
        write_confusion(findings.matrix, names, folder / "confusion.png", simulated=findings.simulated, unit=unit)
    # Last: where there are figures, everything else is there too.
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / "metrics.json", f"{text}\n".encode())
