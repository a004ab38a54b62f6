"""What the experiment compares: backbones, arms, regions, seeds and labels, and the runs that follow from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

from sits_models.recipe import (
    Augmentation,
    BackboneRecipe,
    ContrastRecipe,
    DataRecipe,
    DateRule,
    Recipe,
    SegmentationRecipe,
    TrainingRecipe,
)

__all__ = [
    "ARMS",
    "BACKBONES",
    "LABELS",
    "REGIONS",
    "SEEDS",
    "Arm",
    "Budget",
    "Learner",
    "Run",
    "region_file",
    "runs_of",
]

LABELS: tuple[Literal[1, 2], ...] = (1, 2)
"""Labels at 10 m, and at 5 m from the same input (x2)."""
SEEDS = (0, 1, 2)
REGIONS = ("claim-temperate", "claim-mediterranean", "claim-pampas")
_VERSION = 1
"""Of what a run does; another number makes all rows those of another experiment."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A backbone, and what it may spend: half a minute of two cores."""

    name: str
    title: str
    steps: int
    """Of pretraining and finetuning together. A step is one batch, forwards and backwards."""
    batch: int
    """Chips."""
    learning_rate: float
    """At the beginning of finetuning."""
    pretraining_rate: float
    """At the beginning of pretraining."""


BACKBONES = (
    Learner(name="unet3df", title="UNet3Df", steps=640, batch=2, learning_rate=2e-3, pretraining_rate=5e-4),
    Learner(name="unet2d_clstm", title="UNet2D-CLSTM", steps=360, batch=2, learning_rate=4e-3, pretraining_rate=5e-4),
    Learner(name="utae", title="U-TAE", steps=900, batch=4, learning_rate=2e-3, pretraining_rate=5e-4),
)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to spend the steps."""

    name: str
    title: str
    share: float
    """Of the steps that is pretraining."""
    contrast: tuple[tuple[str, str | bool | float], ...] = ()
    """Where the pretraining is not as published: keys of `ContrastRecipe` and their values."""


ARMS = (
    Arm(name="random", title="random", share=0.0),
    Arm(name="cscl", title="CSCL", share=1 / 4),
)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What all runs share."""

    size: int = 24
    dates: int = 12
    width: float = 0.25
    final_learning_rate: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm of one backbone, in one region, with one seed and one kind of labels."""

    region: str
    region_sha256: str
    """Of what the region's file says, so that another region of this name is another run."""
    backbone: str
    arm: str
    seed: int
    labels: Literal[1, 2]
    pretraining_steps: int
    finetuning_steps: int
    contrast: tuple[tuple[str, str | bool | float], ...]
    batch: int
    learning_rate: float
    pretraining_rate: float
    """0 where nothing is pretrained."""
    budget: Budget
    version: int = _VERSION

    @property
    def steps(self) -> int:
        """Of both stages together: the same for all arms."""
        return self.pretraining_steps + self.finetuning_steps

    @property
    def key(self) -> str:
        """By which a finished run is known again; it depends on every choice above and on nothing else."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.region}, seed {self.seed}, {self.backbone}, labels of {10 // self.labels} m, {self.arm}"

    def data(self) -> DataRecipe:
        """What both stages see."""
        return DataRecipe(
            dates=DateRule(pick="even", n=self.budget.dates),
            size=self.budget.size,
            labels=self.labels,
            batch=self.batch,
            chips=20 * self.batch,
            readers=1,
        )

    def pretraining(self) -> Recipe:
        """The first stage: CSCL, as published where `contrast` says nothing else."""
        return self._recipe(contrast=ContrastRecipe(**dict(self.contrast)))

    def finetuning(self) -> Recipe:
        """The second stage, the same for all arms."""
        return self._recipe(segmentation=SegmentationRecipe())

    def _recipe(
        self, *, contrast: ContrastRecipe | None = None, segmentation: SegmentationRecipe | None = None
    ) -> Recipe:
        return Recipe(
            name="claim",
            title=self.title,
            data=self.data(),
            augmentation=Augmentation(flips=True, rotations=True),
            backbone=BackboneRecipe(name=self.backbone, width=self.budget.width),
            contrast=contrast,
            segmentation=segmentation,
            training=TrainingRecipe(seed=self.seed),
        )


def region_file(region: str) -> Path:
    """The file that a region is built from."""
    return Path(__file__).parent / "regions" / f"{region}.yaml"


def runs_of(
    *,
    budget: Budget,
    regions: tuple[str, ...] = REGIONS,
    backbones: tuple[Learner, ...] = BACKBONES,
    seeds: tuple[int, ...] = SEEDS,
    labels: tuple[Literal[1, 2], ...] = LABELS,
    arms: tuple[Arm, ...] = ARMS,
) -> Iterator[Run]:
    """All runs, seed by seed, so that a grid that was stopped has whole seeds to show."""
    for seed in seeds:
        for region in regions:
            for finer in labels:
                for backbone in backbones:
                    for arm in arms:
                        pretraining = round(arm.share * backbone.steps)
                        yield Run(
                            region=region,
                            region_sha256=_hash_of(region_file(region)),
                            backbone=backbone.name,
                            arm=arm.name,
                            seed=seed,
                            labels=finer,
                            pretraining_steps=pretraining,
                            finetuning_steps=backbone.steps - pretraining,
                            contrast=arm.contrast,
                            batch=backbone.batch,
                            learning_rate=backbone.learning_rate,
                            pretraining_rate=backbone.pretraining_rate if pretraining else 0.0,
                            budget=budget,
                        )


@cache
def _hash_of(path: Path) -> str:
    """Of the values in a YAML file, not of its comments; empty without a file."""
    values = yaml.safe_load(path.read_text("utf-8")) if path.is_file() else None
    return "" if values is None else hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()
