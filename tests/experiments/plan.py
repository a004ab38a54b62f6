"""What the experiment compares: arms, regions, seeds, and the recipes that follow from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sits_models.recipe import Recipe, load_recipe

REGIONS = ("demo", "demo-south")
SEEDS = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much each arm may learn. A step is one batch, forwards and backwards."""

    size: int = 24
    dates: int = 12
    batch: int = 16
    steps_an_epoch: int = 40
    pretrain_epochs: int = 4
    finetune_epochs: int = 6
    width: float = 0.25
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to spend a budget."""

    name: str
    title: str
    pretrain_epochs: int
    finetune_epochs: int


def arms_of(budget: Budget) -> tuple[Arm, ...]:
    """Random initialisation, CSCL, and random initialisation with all of CSCL's steps spent on finetuning."""
    pretrain, finetune = budget.pretrain_epochs, budget.finetune_epochs
    return (
        Arm(name="random", title="random", pretrain_epochs=0, finetune_epochs=finetune),
        Arm(name="cscl", title="CSCL", pretrain_epochs=pretrain, finetune_epochs=finetune),
        Arm(name="random-longer", title="random, longer", pretrain_epochs=0, finetune_epochs=pretrain + finetune),
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm in one region with one seed."""

    region: str
    seed: int
    arm: Arm
    cube: Path
    """Folder of the dataset."""
    folder: Path
    """Where it writes pretrain/, finetune/ and evaluation/."""
    budget: Budget

    @property
    def metrics(self) -> Path:
        """What it leaves last."""
        return self.folder / "evaluation" / "metrics.json"

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.metrics.is_file()

    @property
    def steps(self) -> int:
        """Of pretraining and finetuning together."""
        return (self.arm.pretrain_epochs + self.arm.finetune_epochs) * self.budget.steps_an_epoch

    def pretraining(self) -> Recipe | None:
        """The recipe of the first stage; None where there is none."""
        return self._recipe("cscl-demo", self.arm.pretrain_epochs) if self.arm.pretrain_epochs else None

    def finetuning(self) -> Recipe:
        """The recipe of the second stage: the same for all arms but for its epochs."""
        return self._recipe("segment-demo", self.arm.finetune_epochs)

    def _recipe(self, name: str, epochs: int) -> Recipe:
        budget = self.budget
        # Validated in the last epoch alone, so the last weights are taken and no score chooses them.
        changes = {
            "title": f"{self.region}, seed {self.seed}, {self.arm.title}",
            "data.cubes": [str(self.cube)],
            "data.size": budget.size,
            "data.dates": {"pick": "even", "n": budget.dates},
            "data.batch": budget.batch,
            "data.chips": budget.batch * budget.steps_an_epoch,
            "backbone.width": budget.width,
            "training.epochs": epochs,
            "training.validate_every": epochs,
            "training.schedule": "cosine",
            "training.learning_rate": budget.learning_rate,
            "training.final_learning_rate": budget.final_learning_rate,
            "training.seed": self.seed,
        }
        return load_recipe(name, changes=[f"{key}={json.dumps(value)}" for key, value in changes.items()])


def runs_of(
    out: Path, *, cubes: Path, budget: Budget, regions: tuple[str, ...] = REGIONS, seeds: tuple[int, ...] = SEEDS
) -> Iterator[Run]:
    """All runs, seed by seed, so that one that was stopped has whole seeds to show.

    `cubes` holds the datasets. Another budget has folders of its own: what is done is what was asked for.
    """
    settings = hashlib.sha256(json.dumps(asdict(budget), sort_keys=True).encode()).hexdigest()[:8]
    for seed in seeds:
        for region in regions:
            for arm in arms_of(budget):
                folder = out / settings / region / f"seed-{seed}" / arm.name
                yield Run(region=region, seed=seed, arm=arm, cube=cubes / region, folder=folder, budget=budget)
