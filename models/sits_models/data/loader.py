"""Training data from cubes: opened and compared once, then batches of chips an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

from sits_catalog.cube import Split
from sits_models.data.chips import ChipReader, pick_bands
from sits_models.data.classes import ClassTable, join_classes
from sits_models.data.cubes import Cube, check_radiometry, open_cube
from sits_models.data.grid import Grid, read_grid
from sits_models.data.readers import ReaderSettings, Workers, read_in_threads
from sits_models.data.sampling import (
    MIXED,
    BatchPlan,
    EpochPlan,
    chips_in_epoch,
    plan_epoch,
    plan_evaluation,
    superblock_px,
)
from sits_models.data.statistics import pool_statistics
from sits_models.recipe import DataRecipe
from sits_models.sample import Sample

__all__ = ["TrainingData"]

_REFLECTANCE_SCALE = 10_000.0
_FOR_EVALUATION = 1 / 8
"""Of the cache: an evaluation passes over each block once."""


class TrainingData:
    """Cubes, a class table and readers; `close` ends the reader processes, as does leaving a `with` block."""

    def __init__(
        self,
        recipe: DataRecipe,
        *,
        cubes: tuple[Cube, ...],
        bands: tuple[str, ...],
        table: ClassTable,
        grids: tuple[Grid, ...],
    ) -> None:
        """As `open` makes it."""
        self.recipe = recipe
        self.cubes = cubes
        self.bands = bands
        self.table = table
        self.grids = grids
        longest = max(len(cube.facts.days) for cube in cubes)
        self.dates: int = longest if recipe.dates.n is None else recipe.dates.n
        """T of a chip; shorter series are padded."""
        self.mean, self.std = _normalization(recipe, cubes, grids, bands)
        self._settings = ReaderSettings(
            cubes=cubes,
            table=table,
            bands=bands,
            dates=recipe.dates,
            labels=recipe.labels,
            cache_mb=recipe.cache_mb,
            pad_to=self.dates,
        )
        self._reader: ChipReader | None = None
        self._workers: Workers | None = None

    @classmethod
    def open(
        cls,
        recipe: DataRecipe,
        *,
        cubes: Sequence[str],
        table: ClassTable | None = None,
        bands: Sequence[str] | None = None,
    ) -> Self:
        """The data of these folders; `table` and `bands`, those of a trained model, go before the recipe's.

        Bands are joined by name, classes by code. ValueError, with one sentence, where the cubes do not fit together or
        to the recipe: no cube, another radiometry, a band, a class, a split or finer labels missing.
        """
        if not cubes:
            raise ValueError("no cube to learn from; give --cube, or cubes under data in the recipe")
        if recipe.readers < 1:
            raise ValueError(f"data.readers is at least 1; got {recipe.readers}")
        opened = tuple(open_cube(path) for path in cubes)
        check_radiometry(opened)
        names = tuple(bands or recipe.bands or opened[0].facts.bands)
        for cube in opened:
            pick_bands(cube, names)
        table = table or join_classes(opened, codes=recipe.classes, background=recipe.background)
        parcels = recipe.sampling == "parcel"
        grids = tuple(read_grid(cube, table, parcels=parcels) for cube in opened)
        data = cls(recipe, cubes=opened, bands=names, table=table, grids=grids)
        data._settings.open()  # says now what a reader would say later
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def batches_in_epoch(self) -> int:
        """Batches of a training epoch, all of them full."""
        return chips_in_epoch(self.grids, self.recipe) // self.recipe.batch

    def plan(self, number: int, *, seed: int) -> EpochPlan:
        """The chips of a training epoch, in order."""
        return plan_epoch(self.grids, self.recipe, seed=seed, epoch=number, mixed=self._mixed())

    def epoch(self, number: int, *, seed: int, start: int = 0) -> Iterator[Sample]:
        """The batches of a training epoch, from batch `start` on.

        The same number, seed and recipe give the same batches, whatever the kind of readers. Only one epoch is read
        at a time: with reader processes a new one ends the one before.
        """
        plan = self.plan(number, seed=seed)
        # Streams take turns, so that what is left begins with another one: the batches are the same.
        plans = [plan[k] for k in range(start, len(plan))]
        if self.recipe.start == "threads":
            return self._threads(plans)
        if self._workers is None:
            share = self.recipe.cache_mb * (1 - _FOR_EVALUATION) / self.recipe.readers
            settings = replace(self._settings, cache_mb=share)
            self._workers = Workers(settings, processes=self.recipe.readers, start=self.recipe.start)
        return self._workers.read(plans)

    def evaluation(self, split: Split, *, size: int | None = None) -> Iterator[Sample]:
        """The windows of a split, each of its labelled pixels in exactly one; elsewhere IGNORE_INDEX.

        Windows are of `size` px, at most 64 and 64 without one, so that each lies in a cell of the split: no input
        pixel is of another one. Random dates are spread evenly. It may run while an epoch is read.
        """
        plan = plan_evaluation(self.grids, split=split, size=size or 64, batch=self.recipe.batch)
        return self._threads([plan[k] for k in range(len(plan))])

    def close(self) -> None:
        """End the reader processes and forget decoded pixels; the data may be read again."""
        if self._workers is not None:
            self._workers.close()
        self._workers = self._reader = None

    def _threads(self, plans: Sequence[BatchPlan]) -> Iterator[Sample]:
        if self._reader is None:
            share = 1.0 if self.recipe.start == "threads" else _FOR_EVALUATION
            self._reader = replace(self._settings, cache_mb=self.recipe.cache_mb * share).open()
        reader, settings = self._reader, self._settings
        return read_in_threads(plans, lambda plan: settings.read(reader, plan), threads=self.recipe.readers)

    def _mixed(self) -> int:
        """Superblocks that each reader mixes: as many as its share of the cache holds, up to `MIXED`."""
        side = superblock_px(self.recipe.size)
        share = self.recipe.cache_mb * 1e6 * (1 - _FOR_EVALUATION) / self.recipe.readers
        return max(1, min(MIXED, int(share // max(self._superblock_bytes(cube, side) for cube in self.cubes))))

    def _superblock_bytes(self, cube: Cube, side: int) -> int:
        dates = len(cube.facts.days)
        if self.recipe.dates.pick != "random":
            dates = min(dates, self.dates)
        labels = 6 * self.recipe.labels**2 + 3
        return int(side**2 * (dates * (2 * len(self.bands) + 1) + labels))


def _normalization(
    recipe: DataRecipe, cubes: Sequence[Cube], grids: Sequence[Grid], bands: Sequence[str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if recipe.normalize == "reflectance":
        return (0.0,) * len(bands), (_REFLECTANCE_SCALE,) * len(bands)
    return pool_statistics(cubes, grids, bands)
