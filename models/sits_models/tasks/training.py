"""A run: a recipe trained on cubes in a folder of its own, from the first check to the last file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning
import numpy as np
import torch
from numpy.typing import NDArray

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.checkpoints import CARD, WEIGHTS, Card, LoadReport, read_card, save_weights, transfer
from sits_models.data.cubes import RADIOMETRY, Cube
from sits_models.data.grid import Grid
from sits_models.data.loader import TrainingData
from sits_models.engine import CHECKPOINT, METRICS, Fitted, check_precision, derived_seed, fit
from sits_models.folder import lock_folder, partial_of, write_whole
from sits_models.objectives import build_objective
from sits_models.objectives.base import Objective
from sits_models.recipe import Recipe, dump_recipe, load_recipe
from sits_models.report import write_confusion, write_curves

__all__ = ["TrainingOutcome", "train"]

_RECIPE, _DATA, _ENVIRONMENT, _DONE = "recipe.yaml", "data.json", "environment.json", "metrics.json"
_WHOLE = (_RECIPE, _DATA, _ENVIRONMENT, METRICS, CHECKPOINT, f"weights/{WEIGHTS}", f"weights/{CARD}", _DONE)
"""What is written whole, in a run's folder."""


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
    simulated: bool
    """Whether a cube is simulated: the figures then say nothing about any real place."""
    notes: tuple[str, ...] = ()
    """Where the weights it started from overruled the recipe."""

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
    check_precision(recipe.training)
    paths = _paths(recipe, cubes)
    narrator.stage(f"reading {', '.join(paths)}")
    card = None if weights is None else read_card(weights)
    data = TrainingData.open(recipe.data, cubes=paths, bands=_bands(recipe, card))
    try:
        if card is not None:
            for cube in data.cubes:
                card.check_cube(cube.facts)
        resolved, notes = _resolved(recipe, paths, data, card)
        for note in notes:
            narrator.stage(note)
        objective = _objective(resolved, data)
        _check_chips(resolved, objective, data)
        loaded = None if weights is None else transfer(objective, weights)
        described = _describe(data, objective, parent=None if card is None else card.sha256)
        _check_folder(folder, resolved, described)
        folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(folder):
            if (folder / _DONE).is_file():
                return _finished_before(folder, resolved, simulated=any(cube.facts.simulated for cube in data.cubes))
            _begin(folder, resolved, described)
            with _threads_of(folder):
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
        notes=notes,
        simulated=any(cube.facts.simulated for cube in data.cubes),
    )


def _paths(recipe: Recipe, cubes: Sequence[str] | None) -> tuple[str, ...]:
    paths = tuple(cubes) if cubes else recipe.data.cubes
    if not paths:
        raise ValueError(f"the recipe {recipe.name} names no cube; give --cube with the folder of a dataset")
    return paths


def _bands(recipe: Recipe, card: Card | None) -> tuple[str, ...] | None:
    """The recipe's bands; where it leaves them open, those of the weights."""
    return recipe.data.bands if recipe.data.bands is not None or card is None else card.bands


def _resolved(
    recipe: Recipe, paths: tuple[str, ...], data: TrainingData, card: Card | None
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with everything it leaves to the cubes and to the weights, and what of it these overrule."""
    choices = dataclasses.replace(recipe.data, cubes=paths, bands=data.bands)
    notes: tuple[str, ...] = ()
    if card is not None and card.recipe.data.normalize != choices.normalize:
        theirs = card.recipe.data.normalize
        notes = (f"normalizing by {theirs}, as the weights it starts from, not by {choices.normalize} as the recipe",)
        choices = dataclasses.replace(choices, normalize=theirs)
    return dataclasses.replace(recipe, data=choices), notes


def _check_chips(recipe: Recipe, objective: Objective, data: TrainingData) -> None:
    """Raises ValueError where no batch can be drawn, or the backbone cannot take one."""
    size, backbone = recipe.data.size, objective.encoder.backbone
    try:
        backbone.check(torch.empty(1, data.dates, len(data.bands), size, size, device="meta"))
    except ValueError as error:
        raise ValueError(f"data.size is {size} and a chip holds {data.dates} dates: {error}") from error
    data.plan(0, seed=recipe.training.seed)


def _objective(recipe: Recipe, data: TrainingData) -> Objective:
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
        class_weights=_inverse_frequency(data.train_pixels()) if weighted else None,
    )


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
        # A run that was killed while it began.
        ours = {
            name for path in map(Path, (_RECIPE, _DATA, _ENVIRONMENT)) for name in (path.name, partial_of(path).name)
        }
        strangers = sorted(path.name for path in folder.iterdir() if path.name not in ours)
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


def _describe(data: TrainingData, objective: Objective, *, parent: str | None) -> dict[str, object]:
    pixels, encoder = data.train_pixels(), objective.encoder
    return {
        "cubes": [_describe_cube(cube, grid) for cube, grid in zip(data.cubes, data.grids, strict=True)],
        "bands": list(data.bands),
        "dates": data.dates,
        "classes": [
            {"index": entry.index, "code": entry.code, "name": entry.name, "train_pixels": int(n)}
            for entry, n in zip(data.table.classes, pixels.tolist(), strict=True)
        ],
        # Those of the encoder: weights that training starts from bring their own.
        "statistics": {"mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()},
        "parent": parent,
    }


def _describe_cube(cube: Cube, grid: Grid) -> dict[str, object]:
    shape = f"{grid.height} {grid.width} ".encode()
    counts = {split.name.lower(): int((grid.split == split).sum()) for split in Split if split is not Split.NONE}
    return {
        "path": cube.facts.path,
        "region": cube.facts.region,
        "version": cube.facts.version,
        "config_sha256": cube.facts.config_sha256,
        "split_sha256": hashlib.sha256(shape + grid.split.tobytes()).hexdigest(),
        "chips": {name: n for name, n in counts.items() if n},
        "complete": cube.facts.complete,
        "simulated": cube.facts.simulated,
    }


def _begin(folder: Path, recipe: Recipe, described: Mapping[str, object]) -> None:
    """What the run is, first of all the recipe, by which the same command knows the folder again."""
    for name in _WHOLE:
        partial_of(folder / name).unlink(missing_ok=True)
    write_whole(folder / _RECIPE, dump_recipe(recipe).encode())
    write_whole(folder / _DATA, _json(described))
    # The numbers of finished epochs come from where they ran.
    if not ((folder / _ENVIRONMENT).is_file() and (folder / CHECKPOINT).is_file()):
        write_whole(folder / _ENVIRONMENT, _json(_environment(recipe)))


@contextmanager
def _threads_of(folder: Path) -> Iterator[None]:
    """As many threads of torch as the run began with: sums of other parts are not equal to the last bit."""
    before, wanted = torch.get_num_threads(), json.loads((folder / _ENVIRONMENT).read_text()).get("threads")
    try:
        if isinstance(wanted, int) and wanted > 0:
            torch.set_num_threads(wanted)
        yield
    finally:
        torch.set_num_threads(before)


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
    simulated = any(cube.facts.simulated for cube in data.cubes)
    write_curves(folder / METRICS, folder / "curves.png", simulated=simulated)
    if fitted.confusion is not None:
        write_confusion(fitted.confusion, data.table.names, folder / "confusion.png", simulated=simulated)
    radiometry = data.cubes[0].facts.radiometry
    encoder = objective.encoder
    parent, cubes = described["parent"], described["cubes"]
    card = Card(
        recipe=recipe,
        bands=data.bands,
        dates=data.dates,
        classes=data.table.classes,
        radiometry={key: radiometry.get(key) for key in RADIOMETRY},
        mean=tuple(encoder.mean.flatten().tolist()),
        std=tuple(encoder.std.flatten().tolist()),
        data={"cubes": [{**cube, "path": None} for cube in cubes] if isinstance(cubes, list) else cubes},
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


def _finished_before(folder: Path, recipe: Recipe, *, simulated: bool) -> TrainingOutcome:
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
        simulated=simulated,
    )


def _json(values: Mapping[str, object]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
