"""One run of the few-label protocol: a finetuning through the task of that name, and the scores of a split."""

from __future__ import annotations

import json
import platform
import shutil
import time
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import override

import numpy as np
import torch
from numpy.typing import NDArray

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.checkpoints import CARD, WEIGHTS, load_model
from sits_models.data.cubes import Cube, open_cube
from sits_models.device import resolve_device
from sits_models.metrics import scores_of
from sits_models.objectives.classification import Classification
from sits_models.objectives.segmentation import Segmentation
from sits_models.tasks.few_labels.measure import measure
from sits_models.tasks.few_labels.plan import Run
from sits_models.tasks.finetune import finetune
from sits_models.tasks.run_folder import DONE, is_finished

__all__ = ["SCORES", "UNITS", "carry_out", "tidy"]

UNITS = ("pixels", "parcels")
SCORES = ("miou", "overall_accuracy", "kappa", "macro_f1")
_SPLITS = {"train": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}


def carry_out(run: Run, folder: Path) -> dict[str, object]:
    """Train in a run's folder, or go on there, and measure: the run's row, the same wherever it was stopped."""
    protocol, narrator = run.protocol, _Silent()
    if is_finished(folder) and not all((folder / "weights" / name).is_file() for name in (WEIGHTS, CARD)):
        (folder / DONE).unlink()  # a run whose row was lost after `tidy`: it begins anew
    outcome = finetune(run.recipe, cubes=protocol.cubes, weights=run.start.weights, out=str(folder), narrator=narrator)
    started = time.monotonic()
    model = load_model(folder)
    objective = model.objective.to(resolve_device("auto"))
    assert isinstance(objective, Segmentation | Classification)
    cubes = [_cube(path) for path in protocol.tests]
    for cube in cubes:
        model.card.check_cube(cube.facts)
    matrices = measure(objective, model.card, cubes, split=_SPLITS[protocol.split], narrator=narrator)
    measuring = time.monotonic() - started
    described = json.loads((folder / "data.json").read_text())
    return {
        "key": run.key,
        **_choices(run),
        "trained_on": [cube["region"] for cube in described["cubes"]],
        "evaluated_on": [cube.facts.region for cube in cubes],
        "simulated": outcome.simulated or any(cube.facts.simulated for cube in cubes),
        "classes": [row["code"] for row in described["classes"]],
        "train_pixels": [row["train_pixels"] for row in described["classes"]],
        "kept": described.get("few"),
        **_scores(matrices),
        "normalize": model.card.recipe.data.normalize,
        # What the folder says of the training, which may have ended in another process.
        "training_seconds": round(outcome.seconds, 2),
        "seconds": round(outcome.seconds + measuring, 2),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in ("torch", "sits-cubes")},
    }


def tidy(folder: Path) -> None:
    """Remove from the folder of a run that has its row what is large: checkpoints, weights and pictures."""
    for name in ("checkpoints", "tensorboard", "weights"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("curves.png", "confusion.png"):
        (folder / name).unlink(missing_ok=True)


def _choices(run: Run) -> dict[str, object]:
    start, training = run.start, run.recipe.training
    return {
        "recipe": run.protocol.recipe.name,
        "backbone": run.protocol.recipe.backbone.name,
        "start": start.name,
        "start_sha256": start.sha256,
        "start_objective": start.objective,
        "start_supervised": start.supervised,
        "start_labels": start.labels,
        "start_transductive": start.transductive,
        "start_regions": list(start.regions),
        "start_place": start.place,
        "share": run.share,
        "by": run.protocol.by,
        "seed": run.seed,
        "mode": run.mode,
        "split": run.protocol.split,
        "epochs": training.epochs,
        "chips": run.protocol.recipe.data.chips,
        "batch": run.protocol.recipe.data.batch,
    }


def _scores(matrices: dict[str, NDArray[np.int64]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for unit, matrix in matrices.items():
        scores = scores_of(matrix)
        found |= {f"{unit}_{name}": getattr(scores, name) for name in SCORES}
        found |= {f"{unit}_count": scores.count, f"{unit}_confusion": matrix.tolist()}
    return found


@lru_cache(maxsize=8)
def _cube(path: str) -> Cube:
    return open_cube(path)


class _Silent(Narrator):
    """Hundreds of trainings would talk at once."""

    @override
    def stage(self, text: str) -> None:
        pass

    @override
    def progress(self, done: int, total: int) -> None:
        pass
