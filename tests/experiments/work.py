"""One run: pretraining where the arm has it, finetuning, scores on a split. All of it in memory."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import torch
from tests.experiments.plan import Run
from torch import Tensor

from sits_catalog.cube import Split
from sits_models.data.chips import ChipReader
from sits_models.data.loader import TrainingData
from sits_models.data.sampling import BatchPlan, plan_evaluation
from sits_models.data.transforms import augment
from sits_models.metrics import boundary_map, confusion_matrix, scores_of
from sits_models.objectives import build_objective
from sits_models.objectives.base import Objective
from sits_models.objectives.segmentation import Segmentation
from sits_models.recipe import DataRecipe, Recipe
from sits_models.sample import Sample

__all__ = ["carry_out"]

_CACHE_MB = 2000
"""All that a run sees of a region; a process keeps one region for the runs that follow."""


def carry_out(run: Run, *, cubes: Path, split: Split = Split.TEST) -> dict[str, object]:
    """Train and measure; the scores, in [0, 1], and what it took."""
    started, used = time.monotonic(), time.process_time()
    ground = _ground(str(cubes / run.region), run.data())
    objective = _trained(run, ground)
    scores = _measure(objective, ground, split, batch=8)
    return {
        **scores,
        "split": split.name.lower(),
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True)
class _Ground:
    """A region as the models see it."""

    data: TrainingData
    reader: ChipReader
    boundary: Tensor
    """(mH, mW) bool, of the whole label map, with a margin of one chip below and to the right."""

    @classmethod
    def open(cls, path: str, recipe: DataRecipe) -> Self:
        """The dataset in a folder. Raises what `TrainingData.open` raises."""
        data = TrainingData.open(recipe, cubes=[path])
        cube, table, m = data.cubes[0], data.table, recipe.labels
        reader = ChipReader(data.cubes, table=table, bands=data.bands, dates=recipe.dates, labels=m, cache_mb=_CACHE_MB)
        height, width = (m * side for side in cube.facts.shape)
        name = "crop_type" if m == 1 else f"labels_x{m}/crop_type"
        labels = table.lookup(cube.facts)[cube.read(name, slice(0, height), slice(0, width))]
        margin = m * recipe.size
        boundary = torch.nn.functional.pad(boundary_map(torch.from_numpy(labels)), (0, margin, 0, margin))
        return cls(data, reader, boundary)

    def training(self, *, seed: int) -> Iterator[Sample]:
        """Batches without an end. Epoch after epoch is drawn as in a training, but decoded pixels are kept."""
        epoch = 0
        while True:
            plan = self.data.plan(epoch, seed=seed)
            for number in range(len(plan)):
                yield self._read(plan[number])
            epoch += 1

    def windows(self, split: Split, *, batch: int) -> Iterator[Sample]:
        """Each pixel of a split once, in windows of the size of the chips."""
        plan = plan_evaluation(self.data.grids, split=split, size=self.data.recipe.size, batch=batch)
        for number in range(len(plan)):
            yield self._read(plan[number])

    def edges(self, sample: Sample) -> Tensor:
        """Where the 3 x 3 rule finds a boundary on the whole map, (B, mH, mW) bool."""
        m, (height, width) = sample.magnification, sample.crop.shape[-2:]
        found = [
            self.boundary[m * row : m * row + height, m * column : m * column + width]
            for _, row, column in sample.place.tolist()
        ]
        return torch.stack(found)

    def _read(self, plan: BatchPlan) -> Sample:
        return self.reader.read(
            plan.places, size=plan.size, seeds=plan.seeds, pad_to=self.data.dates, split=plan.split, keep=plan.keep
        )


@lru_cache(maxsize=1)
def _ground(path: str, recipe: DataRecipe) -> _Ground:
    return _Ground.open(path, recipe)


def _trained(run: Run, ground: _Ground) -> Segmentation:
    """The model after both stages, which share one stream of chips: all arms see the same ones in the same order."""
    batches = ground.training(seed=run.seed)
    objective = _built(run.finetuning(), ground)
    assert isinstance(objective, Segmentation)
    if run.pretraining_steps:
        first = _built(run.pretraining(), ground)
        _train(first, batches, run, steps=run.pretraining_steps, rate=run.pretraining_rate)
        # All but the last layers is taken over and nothing is frozen, as `sits-model finetune --weights` does.
        objective.encoder.load_state_dict(first.encoder.state_dict())
    _train(objective, batches, run, steps=run.finetuning_steps, rate=run.learning_rate)
    return objective


def _built(recipe: Recipe, ground: _Ground) -> Objective:
    data = ground.data
    torch.manual_seed(_seed_of("weights", recipe.training.seed))
    return build_objective(
        recipe, bands=data.bands, dates=data.dates, classes=data.table.n, mean=data.mean, std=data.std
    )


def _train(objective: Objective, batches: Iterator[Sample], run: Run, *, steps: int, rate: float) -> None:
    """Adam, along a cosine of its own for each stage."""
    last, augmentation = run.budget.final_learning_rate, run.finetuning().augmentation
    optimizer = torch.optim.Adam(objective.parameters(), lr=rate)
    objective.train()
    for step in range(steps):
        share = step / max(1, steps - 1)
        fall = (1 + math.cos(math.pi * share)) / 2
        for group in optimizer.param_groups:
            group["lr"] = last + (rate - last) * fall
        generator = torch.Generator().manual_seed(_seed_of("augment", run.seed, step))
        torch.manual_seed(_seed_of("step", run.seed, step))  # dropout
        loss = objective.loss(augment(next(batches), augmentation, generator=generator)).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _measure(objective: Segmentation, ground: _Ground, split: Split, *, batch: int) -> dict[str, object]:
    """mIoU and overall accuracy on all pixels of a split, at boundaries and between them."""
    objective.eval()
    n = objective.classes
    counts = {part: torch.zeros(n, n, dtype=torch.int64) for part in ("overall", "boundary")}
    with torch.inference_mode():
        for sample in ground.windows(split, batch=batch):
            predicted = objective(sample).argmax(dim=1)
            counts["overall"] += confusion_matrix(sample.crop, predicted, classes=n)
            counts["boundary"] += confusion_matrix(sample.crop, predicted, classes=n, where=ground.edges(sample))
    counts["interior"] = counts["overall"] - counts["boundary"]
    found = {part: scores_of(matrix.numpy()) for part, matrix in counts.items()}
    return {
        **{f"miou_{part}": scores.miou for part, scores in found.items()},
        **{f"accuracy_{part}": scores.overall_accuracy for part, scores in found.items()},
        **{f"pixels_{part}": scores.count for part, scores in found.items()},
        "classes": n,
    }


def _seed_of(*parts: str | int) -> int:
    """A seed below 2**63 that depends on all parts and on nothing else."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
