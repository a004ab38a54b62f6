"""A small training without a cube: chips whose crop follows from their first band."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sits_catalog.cube import Split
from sits_models.objectives import Objective, build_objective
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
from sits_models.sample import IGNORE_INDEX, Sample

BANDS = ("B02", "B04", "B08")
DATES, SIZE, CLASSES = 4, 8, 3


def recipe_of(*, contrast: bool = False, augmentation: Augmentation | None = None, **training: object) -> Recipe:
    changes: dict[str, object] = {"epochs": 2, "learning_rate": 1e-2, "schedule": "constant", **training}
    return Recipe(
        name="tiny",
        data=DataRecipe(bands=BANDS, dates=DateRule(pick="even", n=DATES), size=SIZE, batch=2),
        augmentation=augmentation or Augmentation(flips=True, rotations=True, gain=0.05, noise=0.01),
        backbone=BackboneRecipe(name="unet3df", width=0.0625),
        contrast=ContrastRecipe() if contrast else None,
        segmentation=None if contrast else SegmentationRecipe(),
        training=TrainingRecipe(**changes),  # type: ignore[arg-type]
    )


def objective_of(recipe: Recipe, *, seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    return build_objective(
        recipe, bands=BANDS, dates=DATES, classes=CLASSES, mean=(1500.0,) * 3, std=(900.0,) * 3, class_weights=None
    )


def sample_of(seed: int, *, chips: int = 2) -> Sample:
    """Halves of a chip belong to two classes; the first band tells which."""
    generator = torch.Generator().manual_seed(seed)
    crop = torch.zeros(chips, SIZE, SIZE, dtype=torch.int64)
    for chip in range(chips):
        a, b = torch.randperm(CLASSES, generator=generator)[:2]
        crop[chip, :, : SIZE // 2], crop[chip, :, SIZE // 2 :] = a, b
    image = torch.randint(1, 3000, (chips, DATES, len(BANDS), SIZE, SIZE), generator=generator)
    image[:, :, 0] = 500 + 1000 * crop[:, None]
    crop[:, 0] = IGNORE_INDEX
    return Sample(
        image=image.to(torch.uint16),
        valid=torch.ones(chips, DATES, dtype=torch.bool),
        day=torch.arange(DATES, dtype=torch.int32).mul(30).add(18_900).expand(chips, DATES).contiguous(),
        clear=torch.ones(chips, DATES, SIZE, SIZE, dtype=torch.bool),
        crop=crop,
        counted=torch.ones_like(crop, dtype=torch.bool),
        parcel=crop.clamp(min=0) + 1,
        boundary=torch.full((chips, SIZE, SIZE), 50, dtype=torch.int16),
        place=torch.zeros(chips, 3, dtype=torch.int64),
        bands=BANDS,
    )


@dataclass
class Chips:
    """What `fit` draws on: new chips in each epoch, the same for one seed and number."""

    batches_in_epoch: int = 3
    validated: int = 2

    def epoch(self, number: int, *, seed: int, pin: bool = False) -> Iterator[Sample]:
        for batch in range(self.batches_in_epoch):
            yield sample_of(1000 * seed + 10 * number + batch)

    def evaluation(self, split: Split, *, size: int | None = None, pin: bool = False) -> Iterator[Sample]:
        assert split is Split.VALIDATION
        for batch in range(self.validated):
            yield sample_of(99_000 + batch)

    def parcels(self, split: Split, *, size: int, pin: bool = False) -> Iterator[Sample]:
        return self.evaluation(split, size=size, pin=pin)
