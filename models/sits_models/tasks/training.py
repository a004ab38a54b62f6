"""A run: a recipe trained on cubes in a folder of its own, from the first check to the last file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning
import numpy as np
import torch
from numpy.typing import NDArray

from sits_catalog.console import Narrator
from sits_catalog.cube import IGNORE
from sits_models.checkpoints import Card, LoadReport, read_card, save_weights, transfer, write_whole
from sits_models.data.cubes import RADIOMETRY, Cube
from sits_models.data.loader import TrainingData
from sits_models.engine import METRICS, Fitted, derived_seed, fit
from sits_models.maps.work import lock_folder
from sits_models.objectives import build_objective
from sits_models.objectives.base import Objective
from sits_models.recipe import Recipe, dump_recipe, load_recipe
from sits_models.report import write_confusion, write_curves

__all__ = ["TrainingOutcome", "train"]

_RECIPE, _DATA, _ENVIRONMENT, _DONE = "recipe.yaml", "data.json", "environment.json", "metrics.json"


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """What became of a run."""

    folder: Path
    """recipe.yaml, data.json, environment.json, metrics.csv, metrics.json, curves.png, confusion.png, weights/, ..."""
    recipe: str
    epochs: int
    best_epoch: int
    """The one whose weights were kept, from 1."""
    metrics: Mapping[str, float]
    """Of that epoch."""
    seconds: float
    stopped_early: bool
    loaded: LoadReport | None
    """What became of the weights it started from; None where it started from random ones, or was finished before."""
    finished_before: bool
    """Whether there was nothing left to do."""

    @property
    def weights(self) -> Path:
        """The folder of the weights."""
        return self.folder / "weights"


def train(
    recipe: Recipe, *, cubes: Sequence[str] | None, weights: str | None, out: str, narrator: Narrator
) -> TrainingOutcome:
    """Train a recipe on cubes into the folder `out`, or take up the run there where it stopped.

    `cubes` None: those of the recipe; `weights`: a folder of weights or of a run to start from. Nothing is written
    before recipe, cubes and weights have been checked. Raises ValueError or FileNotFoundError for what a user can set
    right, FileExistsError where `out` holds something else, BlockingIOError where another process trains there.
    """
    folder = Path(out)
    paths = _paths(recipe, cubes)
    narrator.stage(f"reading {', '.join(paths)}")
    card = None if weights is None else read_card(weights)
    data = TrainingData.open(recipe.data, cubes=paths, bands=_bands(recipe, card))
    try:
        if card is not None:
            for cube in data.cubes:
                card.check_cube(cube.facts)
        resolved = _resolved(recipe, paths, data)
        objective = _objective(resolved, data)
        loaded = None if weights is None else transfer(objective, weights)
        described = _describe(data, parent=None if card is None else card.sha256)
        _check_folder(folder, resolved, described)
        folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(folder):
            if (folder / _DONE).is_file():
                return _finished_before(folder, resolved)
            _begin(folder, resolved, described)
            fitted = fit(objective, data, resolved, folder=folder, narrator=narrator)
            _finish(folder, objective, resolved, data, described, fitted)
    finally:
        data.close()
    return TrainingOutcome(
        folder=folder,
        recipe=resolved.name,
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        metrics=dict(fitted.metrics),
        seconds=fitted.seconds,
        stopped_early=fitted.stopped_early,
        loaded=loaded,
        finished_before=False,
    )


def _paths(recipe: Recipe, cubes: Sequence[str] | None) -> tuple[str, ...]:
    paths = tuple(cubes) if cubes else recipe.data.cubes
    if not paths:
        raise ValueError(f"the recipe {recipe.name} names no cube; give --cube with the folder of a dataset")
    return paths


def _bands(recipe: Recipe, card: Card | None) -> tuple[str, ...] | None:
    """The recipe's bands; where it leaves them open, those of the weights."""
    return recipe.data.bands if recipe.data.bands is not None or card is None else card.bands


def _resolved(recipe: Recipe, paths: tuple[str, ...], data: TrainingData) -> Recipe:
    """The recipe with everything it leaves to the cubes."""
    choices = dataclasses.replace(recipe.data, cubes=paths, bands=data.bands)
    return dataclasses.replace(recipe, data=choices)


def _objective(recipe: Recipe, data: TrainingData) -> Objective:
    weighted = recipe.segmentation is not None and recipe.segmentation.weights == "inverse_frequency"
    torch.manual_seed(derived_seed("weights", recipe.training.seed))
    return build_objective(
        recipe,
        bands=data.bands,
        dates=data.dates,
        classes=data.table.n,
        mean=data.mean,
        std=data.std,
        class_weights=_inverse_frequency(_train_pixels(data)) if weighted else None,
    )


def _train_pixels(data: TrainingData) -> NDArray[np.int64]:
    """Labelled pixels of each class in the train chips, (K,)."""
    total = np.zeros(data.table.n, np.int64)
    for cube in data.cubes:
        lookup = data.table.lookup(cube.facts)
        table = cube.chips(["kind", "split", "crop_counts"])
        for counts in table.loc[(table.kind == "grid") & (table.split == "train"), "crop_counts"]:
            for crop, pixels in () if counts is None else dict(counts).items():
                if int(crop) != IGNORE and (index := int(lookup[int(crop)])) >= 0:
                    total[index] += int(pixels)
    return total


def _inverse_frequency(pixels: NDArray[np.int64]) -> list[float]:
    """A weight a class, such that every class that occurs weighs alike in the sum; 0 for one that does not.

    >>> _inverse_frequency(np.array([6, 2, 0]))
    [0.6666666666666666, 2.0, 0.0]
    """
    present = int(np.count_nonzero(pixels))
    return [float(pixels.sum() / (present * n)) if n else 0.0 for n in pixels.tolist()]


# The folder


def _check_folder(folder: Path, recipe: Recipe, described: Mapping[str, object]) -> None:
    """Raises FileExistsError where the folder holds another run or something else."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; give --out a folder")
    if not (folder / _RECIPE).is_file():
        strangers = [path.name for path in folder.iterdir() if path.name not in (_DATA, _ENVIRONMENT, ".lock")]
        if strangers:
            raise FileExistsError(f"{folder} holds {strangers[0]} and no run; choose another --out")
        return
    before = load_recipe(str(folder / _RECIPE))
    differing = _differences(before, recipe)
    if differing:
        raise FileExistsError(f"{folder} holds a run of another recipe ({differing[0]}); choose another --out")
    ran = json.loads((folder / _DATA).read_text()) if (folder / _DATA).is_file() else None
    if ran is not None and _identity(ran) != _identity(described):
        what = "weights to start from" if ran.get("parent") != described.get("parent") else "cubes"
        raise FileExistsError(f"{folder} holds a run with other {what}; choose another --out")


def _differences(before: Recipe, now: Recipe) -> list[str]:
    """What differs between two recipes, but for the folders of the cubes: a cube that was moved is the same cube."""
    ours, theirs = (_flat(dataclasses.asdict(recipe)) for recipe in (now, before))
    free = ("title", "source", "notes", "data.cubes", "data.start")
    keys = [key for key in ours | theirs if key not in free]
    return [
        f"{key} is {theirs.get(key)} there, {ours.get(key)} here" for key in keys if ours.get(key) != theirs.get(key)
    ]


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _identity(described: Mapping[str, object]) -> object:
    """What of data.json decides the weights; folders do not."""
    cubes = described.get("cubes")
    hashes = [{**cube, "path": None} for cube in cubes] if isinstance(cubes, list) else cubes
    return json.loads(json.dumps({**described, "cubes": hashes}))


def _describe(data: TrainingData, *, parent: str | None) -> dict[str, object]:
    pixels = _train_pixels(data)
    return {
        "cubes": [_describe_cube(cube) for cube in data.cubes],
        "bands": list(data.bands),
        "dates": data.dates,
        "classes": [
            {"index": entry.index, "code": entry.code, "name": entry.name, "train_pixels": int(n)}
            for entry, n in zip(data.table.classes, pixels.tolist(), strict=True)
        ],
        "statistics": {"mean": [float(value) for value in data.mean], "std": [float(value) for value in data.std]},
        "parent": parent,
    }


def _describe_cube(cube: Cube) -> dict[str, object]:
    chips = cube.chips(["chip_id", "split"]).astype(str).sort_values("chip_id")
    lines = "\n".join(f"{chip} {split}" for chip, split in zip(chips.chip_id, chips.split, strict=True))
    return {
        "path": cube.facts.path,
        "region": cube.facts.region,
        "version": cube.facts.version,
        "config_sha256": cube.facts.config_sha256,
        "split_sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "chips": {str(split): int(n) for split, n in sorted(chips.split.value_counts().items())},
        "complete": cube.facts.complete,
        "simulated": cube.facts.simulated,
    }


def _begin(folder: Path, recipe: Recipe, described: Mapping[str, object]) -> None:
    write_whole(folder / _DATA, _json(described))
    write_whole(folder / _ENVIRONMENT, _json(_environment(recipe)))
    write_whole(folder / _RECIPE, dump_recipe(recipe).encode())


def _environment(recipe: Recipe) -> dict[str, object]:
    """What the numbers may depend on; no name of a machine or of a person."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(0) if cuda else "cpu",
        "precision": recipe.training.precision,
        "seed": recipe.training.seed,
    }


def _finish(
    folder: Path,
    objective: Objective,
    recipe: Recipe,
    data: TrainingData,
    described: Mapping[str, object],
    fitted: Fitted,
) -> None:
    write_curves(folder / METRICS, folder / "curves.png")
    if fitted.confusion is not None:
        write_confusion(fitted.confusion, data.table.names, folder / "confusion.png")
    radiometry = data.cubes[0].facts.radiometry
    encoder = objective.encoder
    parent = described["parent"]
    card = Card(
        recipe=recipe,
        bands=data.bands,
        dates=data.dates,
        classes=data.table.classes,
        radiometry={key: radiometry.get(key) for key in RADIOMETRY},
        # Those of the encoder: weights that training started from bring their own.
        mean=tuple(encoder.mean.flatten().tolist()),
        std=tuple(encoder.std.flatten().tolist()),
        data={"cubes": [{**_describe_cube(cube), "path": None} for cube in data.cubes]},
        parent=None if parent is None else str(parent),
        metrics=dict(fitted.metrics),
    )
    saved = save_weights(folder / "weights", objective, card)
    # Last of all: with this file the run is finished.
    outcome = {
        "recipe": recipe.name,
        "objective": recipe.objective,
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch,
        "stopped_early": fitted.stopped_early,
        "seconds": fitted.seconds,
        "metrics": dict(fitted.metrics),
        "weights_sha256": saved.sha256,
    }
    write_whole(folder / _DONE, _json(outcome))


def _finished_before(folder: Path, recipe: Recipe) -> TrainingOutcome:
    found = json.loads((folder / _DONE).read_text())
    return TrainingOutcome(
        folder=folder,
        recipe=recipe.name,
        epochs=found["epochs"],
        best_epoch=found["best_epoch"],
        metrics=found["metrics"],
        seconds=found["seconds"],
        stopped_early=found["stopped_early"],
        loaded=None,
        finished_before=True,
    )


def _json(values: Mapping[str, object]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
