"""A run: a recipe trained on cubes in a folder of its own, from the first check to the last file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sits_catalog.console import Narrator
from sits_models.checkpoints import Card, LoadReport, save_weights
from sits_models.data.loader import TrainingData
from sits_models.device import Rank
from sits_models.engine import METRICS, Fitted, Processes, fit, joined
from sits_models.folder import lock_folder
from sits_models.recipe import Recipe
from sits_models.report import Unit, write_confusion, write_curves
from sits_models.tasks.run_folder import (
    DONE,
    begin_run,
    check_folder,
    device_name,
    identity_of,
    is_finished,
    seen_in,
    threads_of,
    write_json,
)
from sits_models.tasks.training_data import Learnt, is_simulated, radiometry_of
from sits_models.tasks.training_preparation import Prepared, prepare

__all__ = ["TrainingOutcome", "train"]


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
    """Where the weights it started from overruled the recipe, or learnt from values that mean something else."""

    @property
    def weights(self) -> Path:
        """The folder of the weights."""
        return self.folder / "weights"


def train(
    recipe: Recipe, *, cubes: Sequence[str] | None, weights: str | None, out: str, narrator: Narrator
) -> TrainingOutcome:
    """Train a recipe on cubes into the folder `out`, or take up the run there where it stopped.

    `cubes` None: those of the recipe; `weights`: a folder of weights or of a run to start from. Nothing is written
    before recipe, cubes and weights have been checked. The encoder that is loaded brings its mean and deviation with
    it, but for published datasets (`data.layout`) whose values mean something else than those that the weights learnt
    from: there they are those of the new data, of the kind that the weights had, and a note says so.

    Raises ValueError or FileNotFoundError for what a user can set right, FileExistsError where `out` holds something
    else, BlockingIOError where another process trains there.
    """
    folder = Path(out)
    with joined(Rank.here()) as processes, ExitStack() as held:
        rank = processes.rank
        say = narrator.stage if rank.first else _say_nothing
        ready = processes.agree(lambda: prepare(recipe, cubes, weights, rank=rank, say=say, held=held))
        simulated = is_simulated(ready.data)
        devices = processes.gather(device_name(rank))
        processes.agree(lambda: _enter(folder, ready, rank=rank, devices=devices, held=held))
        _check_same(folder, ready, processes)
        if processes.of_first(is_finished(folder)):
            return _finished_before(folder, ready.recipe, simulated=simulated)
        with threads_of(folder):
            fitted = fit(
                ready.objective, ready.data, ready.recipe, folder=folder, narrator=narrator, processes=processes
            )
        processes.agree(lambda: _finish(folder, ready, fitted) if rank.first else None)
    return TrainingOutcome(
        folder=folder,
        recipe=ready.recipe.name,
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        metrics=dict(fitted.metrics),
        seconds=fitted.seconds,
        stopped_early=fitted.stopped_early,
        loaded=ready.loaded,
        finished_before=False,
        notes=ready.notes,
        simulated=simulated,
    )


def _say_nothing(_: str) -> None:
    """What processes say but for the first."""


def _enter(folder: Path, ready: Prepared, *, rank: Rank, devices: Sequence[str], held: ExitStack) -> None:
    """The first process takes the folder, and writes there what the run is."""
    if not rank.first:
        return
    check_folder(folder, ready.recipe, ready.described)
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(lock_folder(folder))
    if not is_finished(folder):
        begin_run(folder, ready.recipe, ready.described, rank=rank, devices=devices)


def _check_same(folder: Path, ready: Prepared, processes: Processes) -> None:
    """Raises ValueError where a process sees another folder, or other cubes, than the first one."""
    seen, identity = processes.of_first((seen_in(folder), identity_of(ready.described)))

    def check() -> None:
        missed = [name for name, size in seen_in(folder).items() if size != seen[name]]
        if missed:
            raise ValueError(
                f"the first process sees another {missed[0]} in {folder} than this one; give --out a folder that all "
                "machines share"
            )
        if identity_of(ready.described) != identity:
            raise ValueError("the first process reads other cubes than this one; give all machines the same datasets")

    processes.agree(check)


def _finish(folder: Path, ready: Prepared, fitted: Fitted) -> None:
    recipe, data, objective, described = ready.recipe, ready.data, ready.objective, ready.described
    simulated = is_simulated(data)
    write_curves(folder / METRICS, folder / "curves.png", simulated=simulated)
    if fitted.confusion is not None:
        unit = _unit(recipe, data)
        write_confusion(fitted.confusion, data.table.names, folder / "confusion.png", simulated=simulated, unit=unit)
    encoder = objective.encoder
    parent, cubes = described["parent"], described["cubes"]
    card = Card(
        recipe=recipe,
        bands=data.bands,
        dates=recipe.dates_of(data.dates),
        classes=data.table.classes,
        radiometry=radiometry_of(data),
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
        "notes": list(ready.notes),
        "weights_sha256": saved.sha256,
    }
    write_json(folder / DONE, outcome)


def _unit(recipe: Recipe, data: Learnt) -> Unit:
    """What is validated: a classification gives one class to a parcel, however its chips are drawn, or to a patch."""
    if recipe.objective != "classification":
        return "pixel"
    return "parcel" if isinstance(data, TrainingData) else "chip"


def _finished_before(folder: Path, recipe: Recipe, *, simulated: bool) -> TrainingOutcome:
    found = json.loads((folder / DONE).read_text())
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
        notes=tuple(found.get("notes", ())),  # which older runs have not kept
        simulated=simulated,
    )
