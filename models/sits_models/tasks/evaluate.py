"""`sits-model evaluate`: how well a model maps the pixels and the parcels of a split."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from sits_catalog.console import Narrator
from sits_catalog.cube import PIXEL_M, Split
from sits_models.checkpoints import Card, load_model, write_whole
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube, open_cube
from sits_models.data.loader import TrainingData
from sits_models.metrics import (
    ParcelMajority,
    Scores,
    boundary_window,
)
from sits_models.objectives.segmentation import Segmentation
from sits_models.report import (
    ClassName,
    EvaluationFacts,
    evaluation_json,
    render_evaluation,
    write_confusion,
)
from sits_models.report.findings import EvaluationCounts, find_facts, read_notes
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["EvaluationOutcome", "evaluate"]

_SPLITS = {"train": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}


@dataclass(frozen=True, kw_only=True)
class EvaluationOutcome:
    """What an evaluation found, and where it is written."""

    folder: Path
    """metrics.json, confusion.csv, confusion.png, report.html, and per_parcel.parquet where there are parcels."""
    overall: Scores
    boundary: Scores
    interior: Scores
    parcels: Scores | None
    """By majority vote; None where no labelled pixel lies in a parcel."""

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.folder / "report.html"


def evaluate(
    weights: str, *, cubes: Sequence[str] | None, out: str, split: str = "test", narrator: Narrator
) -> EvaluationOutcome:
    """Measure a model on one split of cubes, each pixel once, and write figures, pictures and a page into `out`.

    `weights` is a folder of weights or of a run; `cubes` None: those of the model's recipe. Raises ValueError where
    the model does no segmentation, or a cube has no labels in the split, or differs in bands or radiometry. Pixels of
    a class that the model does not know are not counted, and the page says so.
    """
    if split not in _SPLITS:
        raise ValueError(f"a model is evaluated on one of the splits {', '.join(_SPLITS)}; got {split!r}")
    narrator.stage(f"reading {weights}")
    model = load_model(weights)
    card, objective = model.card, model.objective
    if not isinstance(objective, Segmentation):
        raise ValueError(  # noqa: TRY004  # the weights are of another kind, not the argument
            f"the model in {weights} was pretrained and knows no classes yet: finetune it, then evaluate"
        )
    paths = tuple(cubes) if cubes else card.recipe.data.cubes
    if not paths:
        raise ValueError(f"the recipe of {weights} names no cube; give --cube with the folder of a dataset")
    opened = [_labelled(path, card) for path in paths]
    table = ClassTable(classes=card.classes)
    notes = [read_notes(cube) for cube in opened]
    block_px = max(note.block_m for note in notes) // PIXEL_M
    counts = EvaluationCounts.of(opened, classes=table.n, block_px=block_px)
    data = TrainingData.open(card.recipe.data, cubes=paths, table=table, bands=card.bands)
    try:
        narrator.stage(f"mapping the {split} split")
        _count(data, opened, table, objective, counts, split=_SPLITS[split], narrator=narrator)
    finally:
        data.close()
    if not counts.overall.overall.any():
        raise ValueError(f"no labelled pixel lies in the {split} split of {', '.join(paths)}; choose another split")
    narrator.stage("drawing the page")
    facts = find_facts(card, weights, opened, notes, counts, split=split)
    folder = Path(out)
    _write(folder, facts, counts, opened)
    return EvaluationOutcome(
        folder=folder,
        overall=facts.overall.scores,
        boundary=facts.boundary.scores,
        interior=facts.interior.scores,
        parcels=None if facts.parcels is None else facts.parcels.scores,
    )


def _labelled(path: str, card: Card) -> Cube:
    cube = open_cube(path)
    card.check_cube(cube.facts)
    if not cube.facts.has_labels:
        raise ValueError(f"{path} has no labels to evaluate with; build it with parcels, or predict a map of it")
    return cube


# Counting


def _count(
    data: TrainingData,
    cubes: Sequence[Cube],
    table: ClassTable,
    objective: Segmentation,
    counts: EvaluationCounts,
    *,
    split: Split,
    narrator: Narrator,
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective.to(device).eval()
    needed = objective.encoder.backbone.needs.dates or 0
    total = _labelled_pixels(cubes, split) * objective.encoder.magnification**2
    readers = [_label_reader(cube, table, objective.encoder.magnification) for cube in cubes]
    done = 0
    with torch.inference_mode():
        for sample in data.evaluation(split, size=objective.encoder.backbone.tile_size):
            predicted = objective(_padded(sample.to(device), needed)).argmax(dim=1).cpu()
            counts.add(sample, predicted, _edges(sample, cubes, readers))
            done += int((sample.crop != IGNORE_INDEX).sum())
            narrator.progress(done, total)


def _padded(sample: Sample, dates: int) -> Sample:
    """The batch with padding up to so many dates, for a backbone that takes no other number."""
    missing = dates - sample.valid.shape[1]
    if missing <= 0:
        return sample
    longer = {
        name: torch.cat([tensor, tensor.new_zeros(tensor.shape[0], missing, *tensor.shape[2:])], dim=1)
        for name in ("image", "valid", "day", "clear")
        for tensor in [getattr(sample, name)]
    }
    return sample.replace(**longer)


def _labelled_pixels(cubes: Sequence[Cube], split: Split) -> int:
    """Roughly: grid chips of one split, which leave out its pixels in the blocks of others."""
    chips = [cube.chips(["kind", "split", "height", "width", "labelled_share"]) for cube in cubes]
    parts = [table[(table["kind"] == "grid") & (table["split"] == split.name.lower())] for table in chips]
    return round(sum(float((part["height"] * part["width"] * part["labelled_share"]).sum()) for part in parts))


LabelReader = Callable[[slice, slice], NDArray[np.int64]]


def _label_reader(cube: Cube, table: ClassTable, magnification: int) -> LabelReader:
    """Reads a window of the whole label map, in the model's classes; what the split hides is seen."""
    name = "crop_type" if magnification == 1 else f"labels_x{magnification}/crop_type"
    lookup = table.lookup(cube.facts)
    return lambda rows, columns: lookup[cube.read(name, rows, columns)]


def _edges(sample: Sample, cubes: Sequence[Cube], readers: Sequence[LabelReader]) -> Tensor:
    """Where the 3 x 3 rule, applied to the whole map, finds a boundary: bool (B, mH, mW)."""
    m = sample.magnification
    height, width = sample.crop.shape[-2:]
    maps = []
    for number, row, column in sample.place.tolist():
        rows, columns = slice(row * m, row * m + height), slice(column * m, column * m + width)
        shape = cubes[number].facts.shape
        maps.append(boundary_window(readers[number], rows, columns, shape=(shape[0] * m, shape[1] * m)))
    return torch.from_numpy(np.stack(maps))


# Files


def _write(folder: Path, facts: EvaluationFacts, counts: EvaluationCounts, cubes: Sequence[Cube]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.json", "per_parcel.parquet"):
        (folder / name).unlink(missing_ok=True)  # of an evaluation before this one
    codes = [crop.code for crop in facts.classes]
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["label \\ predicted", *codes])
        rows.writerows([code, *row] for code, row in zip(codes, facts.overall.matrix.tolist(), strict=True))
    write_confusion(facts.overall.matrix, [crop.name for crop in facts.classes], folder / "confusion.png")
    if facts.parcels is not None:
        pq.write_table(_parcel_table(counts.votes.majority(), facts.classes, cubes), folder / "per_parcel.parquet")
    write_whole(folder / "report.html", render_evaluation(facts).encode())
    # Last: where there are figures, everything else is there too.
    text = json.dumps(evaluation_json(facts), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / "metrics.json", f"{text}\n".encode())


def _parcel_table(votes: ParcelMajority, classes: Sequence[ClassName], cubes: Sequence[Cube]) -> pa.Table:
    """A row a parcel with a counted pixel: whose it is, what was declared and what was seen."""
    codes = np.array([crop.code for crop in classes], object)
    folders = np.array([cube.facts.path for cube in cubes], object)
    area = np.full(len(votes.parcel), np.nan)
    for number, cube in enumerate(cubes):
        parcels, here = cube.parcels(["parcel_id", "area_ha"]), votes.cube == number
        area[here] = parcels.set_index("parcel_id")["area_ha"].loc[votes.parcel[here]].to_numpy(np.float64)
    return pa.table(
        {
            "cube": pa.array(folders[votes.cube], pa.string()),
            "parcel_id": pa.array(votes.parcel, pa.uint32()),
            "declared": pa.array(codes[votes.target], pa.string()),
            "predicted": pa.array(codes[votes.predicted], pa.string()),
            "right": pa.array(votes.target == votes.predicted),
            "share": pa.array(votes.share, pa.float64()),
            "n_pixels": pa.array(votes.pixels, pa.int64()),
            "area_ha": pa.array(area, pa.float64()),
        }
    )
