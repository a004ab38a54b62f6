"""Trainings that several processes share, each with its part of every batch; run by torchrun, or alone."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tests.models.samples import make_sample
from torch import nn

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.backbones import backbone_class, list_backbones
from sits_models.device import Rank
from sits_models.engine import CHECKPOINT, METRICS, Processes, fit, joined
from sits_models.objectives import Objective, build_objective
from sits_models.recipe import (
    Augmentation,
    BackboneRecipe,
    ContrastRecipe,
    DataRecipe,
    Recipe,
    SegmentationRecipe,
    TrainingRecipe,
    TransformerRecipe,
)
from sits_models.sample import IGNORE_INDEX, Sample

BANDS, CLASSES, DATES, SIZE, BATCH = ("B02", "B04", "B08"), 4, 4, 16, 3
EPOCHS = 5
"""Of the trainings whose batch norms move."""
DENSE = tuple(name for name in list_backbones() if backbone_class(name).stride == 1)


def recipe_of(name: str, **training: object) -> Recipe:
    """The training of a case: a backbone, for a segmentation, or `contrast-all` and the like."""
    objective, _, how = name.partition("-")
    contrast = ContrastRecipe(mean="kept" if how == "kept" else "all", mask_ignored=True)
    small = TransformerRecipe(temporal_depth=1, spatial_depth=1, heads=2, head_channels=8)
    changes: dict[str, object] = {"epochs": 2, "learning_rate": 1e-3, "schedule": "constant", **training}
    backbone = "unet3df" if objective in ("contrast", "weighted") else objective
    return Recipe(
        name=name,
        data=DataRecipe(bands=BANDS, size=SIZE, batch=BATCH),
        augmentation=Augmentation(flips=True, rotations=True, drop_dates=0.2, gain=0.05, noise=0.01),
        backbone=BackboneRecipe(
            name=backbone, width=0.125, transformer=small if backbone.startswith("tsvit") else None
        ),
        contrast=contrast if objective == "contrast" else None,
        segmentation=None if objective == "contrast" else SegmentationRecipe(),
        training=TrainingRecipe(**changes),  # type: ignore[arg-type]
    )


def objective_of(recipe: Recipe, *, frozen: bool = True, dates: int = DATES) -> Objective:
    """The model of a case: without dropout, and batch norms as in evaluation where they are `frozen`."""
    torch.manual_seed(0)
    built = build_objective(
        recipe,
        bands=BANDS,
        dates=dates,
        classes=CLASSES,
        mean=(5000.0,) * len(BANDS),
        std=(2900.0,) * len(BANDS),
        class_weights=(0.1, 1.0, 3.0, 7.0) if recipe.name == "weighted" else None,
    )
    for module in built.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if frozen and "BatchNorm" in type(module).__name__:
            module.eval()
    return built


def masked(number: int, *, dates: int = DATES) -> Sample:
    """A batch whose parts hold very unequal labels: all, a few or none, by its number."""
    sample = make_sample(
        batch=BATCH, dates=dates, bands=BANDS, size=SIZE, classes=CLASSES, seed=number, padded=dates // 4
    )
    shown = torch.zeros_like(sample.counted)
    if number % 3 == 0:
        shown[:2] = True  # nothing in the last chip, the part of the second of two processes
    elif number % 3 == 1:
        shown[0, 0, :3], shown[2] = True, True
    else:
        shown[1, 5, 5:7] = True
    return sample.replace(crop=torch.where(shown, sample.crop, IGNORE_INDEX), counted=shown)


@dataclass(frozen=True)
class Masked:
    """What `fit` draws on: of every batch the part of a process."""

    rank: Rank
    batches_in_epoch: int = 3
    validated: tuple[int, ...] = (BATCH, BATCH, 1)
    """Chips of each batch; of a single one the second process has none."""
    pause_s: float = 0.0
    """Before each batch of training."""

    def epoch(self, number: int, *, seed: int, pin: bool = False) -> Iterator[Sample]:
        for batch in range(self.batches_in_epoch):
            time.sleep(self.pause_s)
            yield part_of(masked(1000 * seed + 30 * number + batch), self.rank)

    def evaluation(self, split: Split, *, size: int | None = None, pin: bool = False) -> Iterator[Sample]:
        for batch, chips in enumerate(self.validated):
            sample = part_of(part_of(masked(900 + batch), Rank(), slice(chips)), self.rank)
            if len(sample.place):
                yield sample

    def parcels(self, split: Split, *, size: int, pin: bool = False) -> Iterator[Sample]:
        return self.evaluation(split, size=size, pin=pin)


def part_of(sample: Sample, rank: Rank, chips: slice | None = None) -> Sample:
    """The chips of a process."""
    rows = chips or rank.part(len(sample.place))
    tensors = {name: value[rows] for name, value in vars(sample).items() if isinstance(value, torch.Tensor)}
    return sample.replace(**tensors)


def train(
    name: str,
    folder: Path,
    processes: Processes,
    *,
    chips: Masked | None = None,
    frozen: bool = True,
    **training: object,
) -> Objective:
    """The model that a case ends with; all of its files lie in `folder`."""
    recipe = recipe_of(name, **training)
    objective = objective_of(recipe, frozen=frozen)
    with Narrator() as narrator:
        drawn = chips or Masked(processes.rank)
        fit(objective, drawn, recipe, folder=folder, narrator=narrator, processes=processes)
    return objective


def refused(case: str, out: Path, processes: Processes) -> None:
    """Take up a training that is done, where metrics.csv cannot be written."""
    folder, name = out / case, case.partition("-")[2]
    if processes.rank.first:
        (folder / CHECKPOINT).parent.mkdir(parents=True)
        shutil.copy(out / name / CHECKPOINT, folder / CHECKPOINT)
        (folder / METRICS).mkdir()
    processes.gather(None)  # until the folder is there
    try:
        train(name, folder, processes)
    except OSError as error:
        (out / f"refused-{processes.rank.number}.txt").write_text(f"{type(error).__name__}: {error}")


def main(out: Path, cases: list[str]) -> None:
    """Each case in a folder of its own, with the weights of every process.

    In `moving-NAME` batch norms move; `slow-NAME` is the same, but waits before each batch. `refused-NAME` is without
    an epoch, with a folder where the first process alone writes in the end: the error of each process is kept.
    """
    torch.set_num_threads(1)
    with joined(Rank.here()) as processes:
        for case in cases:
            if case.startswith("refused-"):
                refused(case, out, processes)
                continue
            chips = Masked(processes.rank, pause_s=0.1 if case.startswith("slow-") else 0.0)
            moving = case.startswith(("slow-", "moving-"))
            name, epochs = (case.partition("-")[2], EPOCHS) if moving else (case, 2)
            objective = train(name, out / case, processes, chips=chips, frozen=not moving, epochs=epochs)
            torch.save(objective.state_dict(), out / case / f"weights-{processes.rank.number}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
