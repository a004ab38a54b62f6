"""`sits-model evaluate`: how well a model maps the pixels and the parcels of a split."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from sits_catalog.console import Narrator
from sits_catalog.cube import CHIP, PIXEL_M, Split
from sits_models.checkpoints import Card, load_model, write_whole
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube, open_cube
from sits_models.data.loader import TrainingData
from sits_models.metrics import (
    ParcelMajority,
    ParcelVotes,
    RegionMatrices,
    Regions,
    Scores,
    bootstrap_interval,
    bootstrap_scores,
    boundary_window,
    scores_of,
    size_table,
)
from sits_models.objectives.segmentation import Segmentation
from sits_models.report import (
    ClassName,
    EvaluationFacts,
    Group,
    ParcelGroup,
    evaluation_json,
    render_evaluation,
    write_confusion,
)
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["DISTANCES_DM", "SIZES_HA", "EvaluationOutcome", "evaluate"]

DISTANCES_DM = (100, 200, 500)
"""Upper limits of the bands by distance to the nearest parcel edge, decimetres."""
SIZES_HA = (0.5, 1.0, 2.0, 5.0)
"""Upper limits of the classes of parcel size, hectares."""

_RESAMPLES, _LEVEL, _SEED = 1000, 0.95, 0
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
    the model does no segmentation, or a cube has no labels, lacks a class, or differs in bands or radiometry.
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
    notes = [_notes(cube) for cube in opened]
    block_px = max(note.block_m for note in notes) // PIXEL_M
    counts = _Counts.of(opened, classes=table.n, block_px=block_px)
    data = TrainingData.open(card.recipe.data, cubes=paths, table=table, bands=card.bands)
    try:
        narrator.stage(f"mapping the {split} split")
        _count(data, opened, table, objective, counts, split=_SPLITS[split], narrator=narrator)
    finally:
        data.close()
    if not counts.overall.overall.any():
        raise ValueError(f"no labelled pixel lies in the {split} split of {', '.join(paths)}; choose another split")
    narrator.stage("drawing the page")
    facts = _facts(card, weights, opened, notes, counts, split=split)
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


# What a dataset says of itself


@dataclass(frozen=True, kw_only=True)
class _Notes:
    """What the configuration of a dataset tells beyond its pixels."""

    block_m: int
    parcels: str
    """Who made the parcels; "" where it does not say."""


def _notes(cube: Cube) -> _Notes:
    try:
        with fsspec.open(f"{cube.facts.path}/config.yaml", "rt") as file:
            config = _mapping(yaml.safe_load(file))
    except FileNotFoundError:
        config = {}
    block_m = _mapping(config.get("splits")).get("block_m")
    return _Notes(
        block_m=block_m if isinstance(block_m, int) else CHIP * PIXEL_M,
        parcels=str(_mapping(config.get("parcels")).get("attribution") or ""),
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


# Counting


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """All that is counted while the chips stream by."""

    overall: RegionMatrices
    boundary: RegionMatrices
    interior: RegionMatrices
    votes: ParcelVotes
    sizes: tuple[NDArray[np.int64], ...]
    """Size class by parcel id, one table a cube."""

    @classmethod
    def of(cls, cubes: Sequence[Cube], *, classes: int, block_px: int) -> _Counts:
        regions = Regions(distances_dm=DISTANCES_DM, sizes_ha=SIZES_HA, block_px=block_px)
        sizes = tuple(_sizes(cube) for cube in cubes)
        return cls(
            overall=RegionMatrices(classes=classes, regions=regions, sizes=sizes),
            boundary=RegionMatrices(classes=classes, regions=regions),
            interior=RegionMatrices(classes=classes, regions=regions),
            votes=ParcelVotes(classes=classes),
            sizes=sizes,
        )

    def add(self, sample: Sample, predicted: Tensor, edges: Tensor) -> None:
        """Count a batch."""
        self.overall.add(sample, predicted, edges=edges)
        for part, where in ((self.boundary, edges), (self.interior, ~edges)):
            crop = torch.where(where, sample.crop, IGNORE_INDEX)
            part.add(sample.replace(crop=crop), predicted, edges=edges)
        self.votes.add(predicted, target=sample.crop, parcel=sample.parcel, cube=sample.place[:, 0])


def _sizes(cube: Cube) -> NDArray[np.int64]:
    parcels = cube.parcels(["parcel_id", "area_ha"])
    return size_table(parcels["parcel_id"].to_numpy(np.int64), parcels["area_ha"].to_numpy(np.float64), SIZES_HA)


def _count(
    data: TrainingData,
    cubes: Sequence[Cube],
    table: ClassTable,
    objective: Segmentation,
    counts: _Counts,
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


# From counts to facts


def _facts(
    card: Card, weights: str, cubes: Sequence[Cube], notes: Sequence[_Notes], counts: _Counts, *, split: str
) -> EvaluationFacts:
    overall = _group("all", counts.overall)
    blocks = counts.overall.blocks
    parcels = counts.votes.confusion()
    return EvaluationFacts(
        title=card.recipe.name,
        model=_model_rows(card, weights, cubes),
        regions=tuple(dict.fromkeys(cube.facts.region for cube in cubes)),
        split=split,
        simulated=any(cube.facts.simulated for cube in cubes),
        classes=tuple(ClassName(entry.code, entry.name, entry.colour) for entry in card.classes),
        overall=overall,
        boundary=_group("boundary", counts.boundary),
        interior=_group("interior", counts.interior),
        class_intervals=tuple(_class_interval(blocks, k) for k in range(len(card.classes))),
        distances=tuple(
            _plain_group(name, matrix) for name, matrix in counts.overall.distance_bands.items() if matrix.any()
        ),
        parcels=_plain_group("parcels", parcels) if parcels.any() else None,
        sizes=_size_groups(counts),
        blocks=len(blocks),
        block_m=counts.overall.regions.block_px * PIXEL_M,
        resamples=_RESAMPLES,
        level=_LEVEL,
        credits=_credits(cubes, notes),
        software=f"sits-cubes {version('sits-cubes')}",
    )


def _plain_group(name: str, matrix: NDArray[np.int64]) -> Group:
    return Group(name=name, matrix=matrix, scores=scores_of(matrix))


def _group(name: str, matrices: RegionMatrices) -> Group:
    """A group with intervals; without, where nothing was counted."""
    plain = _plain_group(name, matrices.overall)
    if not plain.n:
        return plain
    intervals = bootstrap_scores(matrices.blocks, resamples=_RESAMPLES, seed=_SEED, level=_LEVEL)
    known = {key: ends for key, ends in intervals.items() if not np.isnan(ends).any()}
    return Group(name=name, matrix=plain.matrix, scores=plain.scores, intervals=known)


def _class_interval(blocks: NDArray[np.int64], k: int) -> tuple[float, float] | None:
    if not blocks.any():
        return None
    # A class against the rest: hits, misses, false alarms; the bootstrap then sums 2 x 2 matrices and not K x K.
    hits, truth, guess = blocks[:, k, k], blocks[:, k, :].sum(1), blocks[:, :, k].sum(1)
    rest = blocks.sum((1, 2)) - truth - guess + hits
    small = np.stack([hits, truth - hits, guess - hits, rest], axis=1).reshape(-1, 2, 2)
    ends = bootstrap_interval(small, _first_iou, resamples=_RESAMPLES, seed=_SEED, level=_LEVEL)
    return None if np.isnan(ends).any() else ends


def _first_iou(matrix: NDArray[np.int64]) -> float | None:
    union = int(matrix[0, 0] + matrix[0, 1] + matrix[1, 0])
    return int(matrix[0, 0]) / union if union else None


def _size_groups(counts: _Counts) -> tuple[ParcelGroup, ...]:
    pixels = counts.overall.size_classes
    parcels = counts.votes.confusion_by_size(counts.sizes, groups=len(SIZES_HA) + 1)
    return tuple(
        ParcelGroup(name=name, parcels=_plain_group(name, matrix), pixels=_plain_group(name, pixels[name]))
        for name, matrix in zip(pixels, parcels, strict=True)
        if matrix.any()
    )


def _model_rows(card: Card, weights: str, cubes: Sequence[Cube]) -> dict[str, str]:
    recipe = card.recipe
    rows = {
        "Weights": f"{weights}, SHA-256 {card.sha256}",
        "Recipe": f"{recipe.name}: {recipe.title}" if recipe.title else recipe.name,
        "Backbone": f"{recipe.backbone.name}, width {recipe.backbone.width:g}, variant {recipe.backbone.variant}",
        "Started from": f"weights with SHA-256 {card.parent}" if card.parent else "random values",
        "Bands": " ".join(card.bands),
        "Dates": f"{card.dates} a chip ({recipe.data.dates.pick})",
        "Labels": f"{PIXEL_M / card.magnification:g} m a pixel",
    }
    for number, cube in enumerate(cubes, 1):
        key = "Cube" if len(cubes) == 1 else f"Cube {number}"
        rows[key] = f"{cube.facts.path}, configuration {cube.facts.config_sha256}"
    return rows


def _credits(cubes: Sequence[Cube], notes: Sequence[_Notes]) -> tuple[str, ...]:
    lines = []
    for cube, note in zip(cubes, notes, strict=True):
        if cube.facts.simulated:
            lines.append("Imagery: simulated. It holds no Copernicus data and says nothing about any real place.")
        else:
            years = sorted(
                {1970 + int(np.datetime64(day, "D").astype("datetime64[Y]").astype(int)) for day in cube.facts.days}
            )
            span = f"{years[0]}–{years[-1]}" if years[0] != years[-1] else f"{years[0]}"
            lines.append(f"Imagery: contains modified Copernicus Sentinel data {span}.")
        if note.parcels:
            lines.append(f"Parcels: {note.parcels}.")
    return tuple(dict.fromkeys(lines))


# Files


def _write(folder: Path, facts: EvaluationFacts, counts: _Counts, cubes: Sequence[Cube]) -> None:
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
