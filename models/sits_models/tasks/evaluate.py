"""`sits-model evaluate`: how well a model maps the pixels and the parcels of a split."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from sits_catalog.console import Narrator
from sits_catalog.cube import BACKGROUND, CHIP, IGNORE, PIXEL_M, Split
from sits_models.checkpoints import Card, load_model
from sits_models.data.classes import BACKGROUND_CODE, ClassTable
from sits_models.data.cubes import Cube, open_cube
from sits_models.data.loader import EvaluationData
from sits_models.data.patch_sets import are_patch_sets
from sits_models.device import resolve_device
from sits_models.folder import write_whole
from sits_models.metrics import AveragePrecision, Scores, boundary_window
from sits_models.objectives.change import Change
from sits_models.objectives.classification import Classification
from sits_models.objectives.multilabel import MultiLabel
from sits_models.objectives.segmentation import Segmentation
from sits_models.report import (
    EvaluationFacts,
    evaluation_json,
    render_evaluation,
    write_confusion,
)
from sits_models.report.findings import EvaluationCounts, find_facts, find_parcel_facts, read_notes
from sits_models.sample import IGNORE_INDEX, Sample
from sits_models.tasks.evaluate_parcels import classify_parcels, unknown_parcels
from sits_models.tasks.evaluate_patches import evaluate_patches
from sits_models.tasks.evaluation_windows import Windows, open_evaluation, plan_windows
from sits_models.tasks.parcel_table import parcel_table
from sits_models.zoo import find_weights

__all__ = ["EvaluationOutcome", "evaluate"]

_SPLITS = {"train": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}


@dataclass(frozen=True, kw_only=True)
class EvaluationOutcome:
    """What an evaluation found, and where it is written."""

    folder: Path
    """metrics.json, confusion.csv, confusion.png, report.html, and per_parcel.parquet where there are parcels; of patch
    sets no page, and no matrix where a patch may have several classes."""
    overall: Scores | None
    """Of all pixels, or patches; None, as `boundary` and `interior`, of a model that gives one class to a parcel."""
    boundary: Scores | None
    interior: Scores | None
    parcels: Scores | None
    """By majority vote, or as the model classifies them; None where no labelled pixel lies in a parcel."""
    simulated: bool
    """Whether a cube is simulated: the figures then say nothing about any real place."""
    ranking: AveragePrecision | None = None
    """Of a model that says which classes a patch has, any number of them."""

    @property
    def report(self) -> Path:
        """The page for people, or, of a patch set, which has none, metrics.json."""
        page = self.folder / "report.html"
        return page if page.is_file() else self.folder / "metrics.json"


def evaluate(
    weights: str,
    *,
    cubes: Sequence[str] | None,
    out: str,
    split: str = "test",
    device: str = "auto",
    narrator: Narrator,
) -> EvaluationOutcome:
    """Measure a model on one split of cubes, each pixel once, and write figures, pictures and a page into `out`.

    Of a model that gives one class to a parcel, each labelled parcel once; of patch sets see `evaluate_patches`.
    `weights` is a folder of weights or of a run; `cubes` None: those of the model's recipe. They need no train split.
    Raises ValueError where the model knows no classes, or a cube has no labels in the split, differs in bands or
    radiometry, or has more dates than the model takes, and where a model of changes or of several labels should see a
    cube. Pixels, or parcels, of a class that the model does not know count in no score, nor do parcels that were never
    observed, which are given no class; how many there are is told.
    """
    if split not in _SPLITS:
        raise ValueError(f"a model is evaluated on one of the splits {', '.join(_SPLITS)}; got {split!r}")
    where = resolve_device(device)
    narrator.stage(f"reading {weights}")
    model = load_model(find_weights(weights))
    card, objective = model.card, model.objective
    if not isinstance(objective, Segmentation | Classification | Change | MultiLabel):
        raise ValueError(  # noqa: TRY004  # the weights are of another kind, not the argument
            f"the model in {weights} was pretrained and knows no classes yet: finetune it, then evaluate"
        )
    paths = tuple(cubes) if cubes else card.recipe.data.cubes
    if not paths:
        raise ValueError(f"the recipe of {weights} names no cube; give --cube with the folder of a dataset")
    if are_patch_sets(paths, card.recipe.data.layout):
        return _of_patches(card, weights, objective.to(where).eval(), paths, split=split, out=Path(out), say=narrator)
    if isinstance(objective, Change | MultiLabel):
        told = "changes" if isinstance(objective, Change) else "several labels a patch"
        raise ValueError(  # noqa: TRY004  # wrong weights, not a wrong type
            f"the model in {weights} tells {told}, of which cubes of regions have no labels: give --cube with a patch "
            "set, and weights whose recipe has its data.layout"
        )
    opened = [_labelled(path, card) for path in paths]
    job = _Job(card=card, weights=weights, cubes=opened, split=split, narrator=narrator)
    if isinstance(objective, Classification):
        facts, table = _measure_parcels(job, objective.to(where).eval())
    else:
        facts, table = _measure_pixels(job, objective.to(where).eval())
    _write(Path(out), facts, table)
    return EvaluationOutcome(
        folder=Path(out),
        overall=None if facts.overall is None else facts.overall.scores,
        boundary=None if facts.boundary is None else facts.boundary.scores,
        interior=None if facts.interior is None else facts.interior.scores,
        parcels=None if facts.parcels is None else facts.parcels.scores,
        simulated=facts.simulated,
    )


def _of_patches(
    card: Card,
    weights: str,
    objective: Segmentation | Classification | Change | MultiLabel,
    paths: Sequence[str],
    *,
    split: str,
    out: Path,
    say: Narrator,
) -> EvaluationOutcome:
    found = evaluate_patches(card, weights, objective, paths, split=_SPLITS[split], out=out, narrator=say)
    return EvaluationOutcome(
        folder=out,
        overall=found.scores,
        boundary=None,
        interior=None,
        parcels=None,
        simulated=found.simulated,
        ranking=found.ranking,
    )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is measured, and where."""

    card: Card
    weights: str
    cubes: Sequence[Cube]
    split: str
    narrator: Narrator

    def check_found(self, found: bool, unit: str) -> None:
        """Raises ValueError where nothing in the split has a label."""
        if not found:
            paths = ", ".join(cube.facts.path for cube in self.cubes)
            raise ValueError(f"no labelled {unit} lies in the {self.split} split of {paths}; choose another split")


def _measure_pixels(job: _Job, objective: Segmentation) -> tuple[EvaluationFacts, pa.Table | None]:
    """What the page tells of a segmentation, and its table of parcels, where there are any."""
    windows, notes = plan_windows(objective, job.card.recipe.data), [read_notes(cube) for cube in job.cubes]
    block_px = max(note.block_m for note in notes) // PIXEL_M
    counts = EvaluationCounts.of(job.cubes, classes=len(job.card.classes), block_px=block_px)
    recipe = job.card.recipe.data
    with open_evaluation(job.cubes, objective, job.card, batch=windows.batch, readers=recipe.readers) as data:
        job.narrator.stage(f"mapping the {job.split} split")
        _count(data, objective, counts, windows, split=_SPLITS[job.split], narrator=job.narrator)
    job.check_found(bool(counts.pixels.overall.matrix.any()), "pixel")
    job.narrator.stage("drawing the page")
    facts = find_facts(
        job.card, job.weights, job.cubes, notes, counts, split=job.split, window=windows.side, halo=windows.halo
    )
    if facts.parcels is None:
        return facts, None
    votes = counts.votes.majority()
    further = {"share": pa.array(votes.share, pa.float64()), "n_pixels": pa.array(votes.pixels, pa.int64())}
    return facts, parcel_table(votes, facts.classes, job.cubes, further)


def _measure_parcels(job: _Job, objective: Classification) -> tuple[EvaluationFacts, pa.Table]:
    """What the page tells of a classification, and its table of parcels."""
    recipe, split = job.card.recipe.data, _SPLITS[job.split]
    notes = [read_notes(cube) for cube in job.cubes]
    with open_evaluation(job.cubes, objective, job.card, batch=recipe.batch, readers=recipe.readers) as data:
        job.narrator.stage(f"classifying the parcels of the {job.split} split")
        found, unobserved = classify_parcels(data, objective, size=recipe.size, split=split, narrator=job.narrator)
        unknown = unknown_parcels(data, split)
    seen = " and that was observed" if unobserved else ""
    job.check_found(len(found.parcel) > 0, f"parcel of a class that the model knows{seen}")
    job.narrator.stage("drawing the page")
    facts = find_parcel_facts(
        job.card,
        job.weights,
        job.cubes,
        notes,
        found,
        unknown,
        unobserved=unobserved,
        split=job.split,
        window=recipe.size,
    )
    further = {
        "probability": pa.array(found.probability, pa.float32()),
        "row": pa.array(found.row, pa.int32()),
        "column": pa.array(found.column, pa.int32()),
    }
    return facts, parcel_table(found, facts.classes, job.cubes, further)


def _labelled(path: str, card: Card) -> Cube:
    cube = open_cube(path)
    card.check_cube(cube.facts)
    if not cube.facts.has_labels:
        raise ValueError(f"{path} has no labels to evaluate with; build it with parcels")
    return cube


# Counting


def _count(
    data: EvaluationData,
    objective: Segmentation,
    counts: EvaluationCounts,
    windows: Windows,
    *,
    split: Split,
    narrator: Narrator,
) -> None:
    magnification = objective.encoder.magnification
    assert data.table is not None
    maps = [_LabelMap(cube, data.table, magnification) for cube in data.cubes]
    total = _labelled_pixels(data.cubes, split) * magnification**2
    device, done = objective.encoder.mean.device, 0
    with torch.inference_mode():
        for sample in data.evaluation(split, size=windows.size, halo=windows.halo):
            predicted = objective(sample.to(device)).argmax(dim=1).cpu()
            owned, predicted = _owned(sample, predicted)
            counts.add(owned, predicted, _edges(owned, maps))
            for found in _unknown(owned, maps):
                counts.add_unknown(found)
            done += int((owned.crop != IGNORE_INDEX).sum())
            narrator.progress(done, total)


def _owned(sample: Sample, predicted: Tensor) -> tuple[Sample, Tensor]:
    """The part of the windows, the same in all, that holds every label which is not hidden."""
    m = sample.magnification
    rows, columns = (_span(sample.counted.any(0).any(axis).nonzero(), m) for axis in (1, 0))
    fine = (..., slice(m * rows.start, m * rows.stop), slice(m * columns.start, m * columns.stop))
    part = sample.replace(
        image=sample.image[..., rows, columns],
        clear=sample.clear[..., rows, columns],
        boundary=sample.boundary[..., rows, columns],
        crop=sample.crop[fine],
        counted=sample.counted[fine],
        parcel=sample.parcel[fine],
        place=sample.place + torch.tensor([0, rows.start, columns.start]),
    )
    return part, predicted[fine]


def _span(found: Tensor, m: int) -> slice:
    """The input pixels that hold these positions of labels; one where there is none."""
    if not len(found):
        return slice(0, 1)
    return slice(int(found.min()) // m, int(found.max()) // m + 1)


def _labelled_pixels(cubes: Sequence[Cube], split: Split) -> int:
    """Roughly: grid chips of one split, which leave out its pixels in the blocks of others."""
    chips = [cube.chips(["kind", "split", "height", "width", "labelled_share"]) for cube in cubes]
    parts = [table[(table["kind"] == "grid") & (table["split"] == split.name.lower())] for table in chips]
    return round(sum(float((part["height"] * part["width"] * part["labelled_share"]).sum()) for part in parts))


_SQUARES = 512
"""Squares of labels that are kept: evaluations pass over 8 x 8 grid chips, then over the next ones."""


class _LabelMap:
    """The whole label map of a cube, as it is stored: what a window hides of it is seen."""

    def __init__(self, cube: Cube, table: ClassTable, magnification: int) -> None:
        height, width = cube.facts.shape
        self.shape = (magnification * height, magnification * width)
        self.lookup = table.lookup(cube.facts)
        self.names = {BACKGROUND: (BACKGROUND_CODE, "background")}
        self.names |= {entry.index: (entry.code, entry.name) for entry in cube.facts.classes}
        self._name = "crop_type" if magnification == 1 else f"labels_x{magnification}/crop_type"
        self._cube = cube
        self._side = CHIP * magnification
        self._square = lru_cache(maxsize=_SQUARES)(self._read_square)

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint16]:
        """The labels of a window inside the map."""
        values = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.uint16)
        for i in range(rows.start // self._side, -(-rows.stop // self._side)):
            for j in range(columns.start // self._side, -(-columns.stop // self._side)):
                square = self._square(i, j)
                top, left = i * self._side, j * self._side
                first, last = max(rows.start, top), min(rows.stop, top + self._side)
                begin, end = max(columns.start, left), min(columns.stop, left + self._side)
                values[first - rows.start : last - rows.start, begin - columns.start : end - columns.start] = square[
                    first - top : last - top, begin - left : end - left
                ]
        return values

    def edges(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Where the 3 x 3 rule, applied to the whole map in the model's classes, finds a boundary."""
        return boundary_window(lambda y, x: self.lookup[self.read(y, x)], rows, columns, shape=self.shape)

    def tally(self, mask: NDArray[np.bool_], rows: slice, columns: slice) -> dict[tuple[str, str], int]:
        """Labelled pixels by code and name where the mask of a window holds."""
        top, bottom = max(rows.start, 0), min(rows.stop, self.shape[0])
        left, right = max(columns.start, 0), min(columns.stop, self.shape[1])
        inside = mask[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]
        found, pixels = np.unique(self.read(slice(top, bottom), slice(left, right))[inside], return_counts=True)
        labels = zip(found.tolist(), pixels.tolist(), strict=True)
        return {self.names.get(label, (str(label), "")): n for label, n in labels if label != IGNORE}

    def _read_square(self, i: int, j: int) -> NDArray[np.uint16]:
        top, left = i * self._side, j * self._side
        rows = slice(top, min(top + self._side, self.shape[0]))
        return self._cube.read(self._name, rows, slice(left, min(left + self._side, self.shape[1])))


def _edges(sample: Sample, maps: Sequence[_LabelMap]) -> Tensor:
    """Where a label is boundary: bool (B, mH, mW)."""
    found = [maps[number].edges(rows, columns) for number, rows, columns in _places(sample)]
    return torch.from_numpy(np.stack(found))


def _unknown(sample: Sample, maps: Sequence[_LabelMap]) -> list[Mapping[tuple[str, str], int]]:
    """Of each chip the labelled pixels of classes that the model does not know, by code and name."""
    ignored = (sample.counted & (sample.crop == IGNORE_INDEX)).numpy()
    places = zip(ignored, _places(sample), strict=True)
    return [maps[number].tally(mask, rows, columns) for mask, (number, rows, columns) in places if mask.any()]


def _places(sample: Sample) -> list[tuple[int, slice, slice]]:
    """Of each chip the number of its cube, and its window in pixels of the labels."""
    m, (height, width) = sample.magnification, sample.crop.shape[-2:]
    return [
        (number, slice(m * row, m * row + height), slice(m * column, m * column + width))
        for number, row, column in sample.place.tolist()
    ]


# Files


def _write(folder: Path, facts: EvaluationFacts, parcels: pa.Table | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.json", "per_parcel.parquet"):
        (folder / name).unlink(missing_ok=True)  # of an evaluation before this one
    codes = [crop.code for crop in facts.classes]
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["label \\ predicted", *codes])
        rows.writerows([code, *row] for code, row in zip(codes, facts.main.matrix.tolist(), strict=True))
    write_confusion(
        facts.main.matrix,
        [crop.name for crop in facts.classes],
        folder / "confusion.png",
        simulated=facts.simulated,
        unit=facts.unit,
    )
    if parcels is not None:
        pq.write_table(parcels, folder / "per_parcel.parquet")
    write_whole(folder / "report.html", render_evaluation(facts).encode())
    # Last: where there are figures, everything else is there too.
    text = json.dumps(evaluation_json(facts), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / "metrics.json", f"{text}\n".encode())
