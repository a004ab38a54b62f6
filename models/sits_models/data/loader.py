"""Data from cubes, opened and compared once: batches of chips an epoch for training, or a split for evaluation."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, Split
from sits_models.data.chips import ChipReader, pick_bands
from sits_models.data.classes import ClassTable, join_classes
from sits_models.data.cubes import Cube, check_radiometry, open_cube
from sits_models.data.grid import Grid, Ground, read_grid
from sits_models.data.kept_labels import KeptLabels, check_few, keep_blocks, keep_parcels
from sits_models.data.parcels import Middles, find_middles, known_parcels, plan_parcels, with_middles
from sits_models.data.parts import part_of
from sits_models.data.readers import Plans, ReaderSettings, Workers, read_in_threads
from sits_models.data.sampling import (
    MIXED,
    BatchPlan,
    EpochPlan,
    chips_in_epoch,
    drawn_parcels,
    parcels_in_epoch,
    plan_epoch,
    plan_evaluation,
    rectangle_px,
)
from sits_models.data.statistics import count_labels, pool_statistics
from sits_models.device import Rank
from sits_models.recipe import DataRecipe, DateRule
from sits_models.sample import Sample

__all__ = ["EvaluationData", "TrainingData"]

_REFLECTANCE_SCALE = 10_000.0
_FOR_EVALUATION = 1 / 8
"""Of the cache: an evaluation passes over each chunk once."""


class EvaluationData:
    """Cubes whose splits are read by threads, each pixel once; `close` forgets decoded pixels."""

    def __init__(
        self,
        settings: ReaderSettings,
        *,
        grids: tuple[Grid, ...],
        batch: int,
        readers: int,
        reader: ChipReader | None = None,
        rank: Rank | None = None,
    ) -> None:
        """As `open` makes it; `reader` is one whose cache is shared, `rank` the process whose part is read."""
        self.cubes = settings.cubes
        self.bands = settings.bands
        self.table = settings.table
        self.grids = grids
        self._settings = settings
        self._batch = batch
        self._readers = readers
        self._reader = reader
        self._rank = rank or Rank()
        self._middles: dict[Split, tuple[Middles, ...]] = {}
        self._running = weakref.WeakSet[Generator[Sample]]()

    @classmethod
    def open(
        cls,
        cubes: Sequence[Cube] | Sequence[str],
        *,
        table: ClassTable | None,
        bands: Sequence[str],
        dates: DateRule,
        labels: int,
        batch: int,
        pad_to: int,
        readers: int = 2,
        cache_mb: float = 512,
    ) -> Self:
        """The data of these cubes or folders for a model with this table of classes, these bands and dates.

        No statistics and no train pixels are needed. A chip has `pad_to` dates, shorter series are padded. ValueError,
        with one sentence, where there is no cube, or one lacks a band, splits or finer labels.
        """
        if not cubes:
            raise ValueError("no cube to evaluate with; give --cube")
        if readers < 1 or batch < 1:
            raise ValueError(f"an evaluation needs a reader and a chip in a batch at least; got {readers} and {batch}")
        opened = tuple(open_cube(cube) if isinstance(cube, str) else cube for cube in cubes)
        settings = ReaderSettings(
            cubes=opened,
            table=table,
            bands=tuple(bands),
            dates=dates,
            labels=labels,
            cache_mb=cache_mb,
            pad_to=pad_to,
        )
        reader = settings.open()
        grids = tuple(read_grid(cube, None, parcels=False) for cube in opened)
        return cls(settings, grids=grids, batch=batch, readers=readers, reader=reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def evaluation(
        self, split: Split, *, size: int | None = None, halo: int = 0, own: int = CHIP, pin: bool = False
    ) -> Generator[Sample]:
        """Windows of the grid chips of a split that together count each of their labelled pixels once.

        A window owns a grid chip, or the part of one where `size` is below 64, and sees `halo` px around that on each
        side; it is `size` px wide at least (64 without one). Of what it sees, pixels in grid chips of another split or
        of none are as outside of the cube: not observed, no label, no parcel. Labels that it does not own are hidden:
        IGNORE_INDEX and not `counted`. Random dates are spread evenly. `pin` puts batches into page-locked memory.
        `own` is the side of what a window owns at most, a multiple of 64 (`plan_evaluation`).
        """
        plan = plan_evaluation(self.grids, split=split, size=size or own, halo=halo, own=own, batch=self._batch)
        return self._read(plan, pin=pin)

    def middles(self, split: Split) -> tuple[Middles, ...]:
        """The labelled parcels of a split, a `Middles` a cube, of classes that the table lacks, too; found once."""
        if split not in self._middles:
            pairs = zip(self.cubes, self.grids, strict=True)
            self._middles[split] = tuple(find_middles(cube, grid, split=split) for cube, grid in pairs)
        return self._middles[split]

    def parcels(self, split: Split, *, size: int, pin: bool = False) -> Generator[Sample]:
        """Chips of `size` px, one for each parcel of the split whose class the table has, the parcel in the middle.

        Ground outside of the split is as in `evaluation`. All labels are hidden but that of the pixel in the middle,
        which is the parcel's (`Middles`).
        """
        assert self.table is not None
        plan = plan_parcels(
            known_parcels(self.middles(split), self.cubes, self.table),
            size=size,
            batch=self._batch,
            split=split,
            cells=[grid.split == split for grid in self.grids],
        )
        return self._read(plan, pin=pin)

    def _read(self, plan: EpochPlan, *, pin: bool) -> Generator[Sample]:
        if self._reader is None:
            self._reader = self._settings.open()
        reader, settings = self._reader, self._settings
        mine = part_of(plan, self._rank, streams=self._readers)

        def read(batch: BatchPlan) -> Sample:
            sample = settings.read(reader, batch)
            return sample.pin_memory() if pin else sample

        running = read_in_threads(Plans(mine), read, threads=self._readers)
        self._running.add(running)
        return running

    def close(self) -> None:
        """End the threads and forget decoded pixels; the data may be read again."""
        for running in tuple(self._running):
            running.close()
        self._reader = None


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
        middles: tuple[Middles, ...] | None = None,
        kept: KeptLabels | None = None,
        normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
        rank: Rank | None = None,
    ) -> None:
        """As `open` makes it; `middles` are those of the parcels of the grids, where chips are drawn at them, `kept`
        what `data.few` leaves, and `normalization` a mean and deviation a band, of the grids where it is None."""
        self.recipe = recipe
        self.rank = rank or Rank()
        self.cubes = cubes
        self.bands = bands
        self.table = table
        self.grids = grids
        self.kept = kept
        """What `data.few` leaves of the labels of the train split; None: all."""
        self._middles = middles
        longest = max(len(cube.facts.days) for cube in cubes)
        self.dates: int = longest if recipe.dates.n is None else recipe.dates.n
        """T of a chip; shorter series are padded."""
        self.mean, self.std = normalization or _normalization(recipe, cubes, grids, bands)
        self._settings = ReaderSettings(
            cubes=cubes,
            table=table,
            bands=bands,
            dates=recipe.dates,
            labels=recipe.labels,
            cache_mb=recipe.cache_mb,
            pad_to=self.dates,
            known=None if kept is None else kept.known,
        )
        self._reader: ChipReader | None = None
        self._workers: Workers | None = None
        self._evaluation: EvaluationData | None = None
        self._train_pixels: NDArray[np.int64] | None = None
        self._running = weakref.WeakSet[Generator[Sample]]()

    @classmethod
    def open(
        cls,
        recipe: DataRecipe,
        *,
        cubes: Sequence[str],
        table: ClassTable | None = None,
        bands: Sequence[str] | None = None,
        rank: Rank | None = None,
        ground: Ground = "split",
    ) -> Self:
        """The data of these folders; `table` and `bands`, those of a trained model, go before the recipe's.

        Of several processes, `rank` says whose part of every batch is read, in training and in evaluation. `ground`
        other than "split" is for learning without labels: cubes need none then, and without any the table is empty.
        Bands are joined by name, classes by code. Where labels are few (`data.few`) mean and deviation are of the whole
        train split all the same: they need no labels. ValueError, with one sentence, where the cubes do not fit
        together or to the recipe: no cube, another radiometry, a band, a class, a split or finer labels missing.
        """
        if not cubes:
            raise ValueError("no cube to learn from; give --cube, or cubes under data in the recipe")
        if recipe.readers < 1:
            raise ValueError(f"data.readers is at least 1; got {recipe.readers}")
        check_few(recipe)
        opened = tuple(open_cube(path) for path in cubes)
        check_radiometry(opened)
        names = tuple(bands or recipe.bands or opened[0].facts.bands)
        for cube in opened:
            pick_bands(cube, names)
        if table is None and ground != "split" and not any(cube.facts.has_labels for cube in opened):
            table = ClassTable(())
        table = table or join_classes(opened, codes=recipe.classes, background=recipe.background)
        parcels = recipe.sampling == "parcel"
        grids = tuple(read_grid(cube, table, parcels=parcels, ground=ground) for cube in opened)
        normalization = _normalization(recipe, opened, grids, names)
        kept = _kept(opened, grids, table, recipe)
        grids, middles = (grids, None) if kept is None else (kept.grids, kept.middles)
        if recipe.sampling == "middle" and middles is None:
            pairs = zip(opened, grids, strict=True)
            every = [find_middles(cube, grid, split=Split.TRAIN) for cube, grid in pairs]
            middles = known_parcels(every, opened, table)
            grids = tuple(with_middles(grid, one, split=Split.TRAIN) for grid, one in zip(grids, middles, strict=True))
        data = cls(
            recipe,
            cubes=opened,
            bands=names,
            table=table,
            grids=grids,
            middles=middles,
            kept=kept,
            normalization=normalization,
            rank=rank,
        )
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

    @property
    def parcels_in_epoch(self) -> tuple[int, int]:
        """With the sampling `middle`, the parcels that are drawn, and those too near to another split to be drawn."""
        return parcels_in_epoch(self.grids, self.recipe)

    def train_pixels(self) -> NDArray[np.int64]:
        """(K,): labels of each class in the train split, which leaves out its buffer; all cubes are passed over once.

        Where the labels are finer than 10 m, those are counted; where labels are few, those that are kept.
        """
        if self._train_pixels is None:
            known = (None,) * len(self.cubes) if self.kept is None else self.kept.known or (None,) * len(self.cubes)
            found = [
                count_labels(cube, grid, self.table, split=Split.TRAIN, labels=self.recipe.labels, known=one)
                for cube, grid, one in zip(self.cubes, self.grids, known, strict=True)
            ]
            self._train_pixels = np.sum(found, axis=0, dtype=np.int64)
        return self._train_pixels.copy()

    def train_parcels(self) -> NDArray[np.int64]:
        """(K,): parcels of each class that the sampling `middle` draws, or that `data.few` keeps by parcel; ValueError
        where chips are drawn otherwise."""
        if self.recipe.sampling != "middle" and self.kept is not None and self.kept.by == "parcel":
            return self.kept.kept.copy()
        if self._middles is None:
            raise ValueError(f"parcels are drawn one by one with data.sampling=middle; got {self.recipe.sampling}")
        drawn = drawn_parcels(self.grids, self.recipe)
        found = [
            np.bincount(self.table.lookup(cube.facts)[one.crop[mask]], minlength=self.table.n)
            for cube, one, mask in zip(self.cubes, self._middles, drawn, strict=True)
        ]
        return np.sum(found, axis=0, dtype=np.int64)

    def plan(self, number: int, *, seed: int) -> EpochPlan:
        """The chips of a training epoch, in order, those of all processes."""
        return plan_epoch(self.grids, self.recipe, seed=seed, epoch=number, mixed=self._mixed())

    def epoch(self, number: int, *, seed: int, start: int = 0, pin: bool = False) -> Iterator[Sample]:
        """The batches of a training epoch, from batch `start` on.

        The same number, seed and recipe give the same batches, whatever the kind of readers and the number of
        processes, of which each gets its part of every batch. Only one epoch is read
        at a time: with reader processes a new one ends the one before. `pin` puts batches into page-locked memory.
        """
        plan = part_of(self.plan(number, seed=seed), self.rank, streams=self.recipe.readers)
        # Streams take turns, so that what is left begins with another one: the batches are the same.
        plans = Plans(plan, start)
        if self.recipe.start == "threads":
            reader, settings = self._shared_reader(), self._settings

            def read(batch: BatchPlan) -> Sample:
                sample = settings.read(reader, batch)
                return sample.pin_memory() if pin else sample

            running = read_in_threads(plans, read, threads=self.recipe.readers)
            self._running.add(running)
            return running
        if self._workers is None or self._workers.is_closed or self._workers.pin != pin:
            self._end_workers()
            share = self.recipe.cache_mb * (1 - _FOR_EVALUATION) / self.recipe.readers
            settings = replace(self._settings, cache_mb=share)
            self._workers = Workers(settings, processes=self.recipe.readers, start=self.recipe.start, pin=pin)
        return self._workers.read(plans)

    def evaluation(
        self, split: Split, *, size: int | None = None, halo: int = 0, pin: bool = False
    ) -> Generator[Sample]:
        """As `EvaluationData.evaluation`. It may run while an epoch is read."""
        return self._evaluated().evaluation(split, size=size, halo=halo, pin=pin)

    def parcels(self, split: Split, *, size: int, pin: bool = False) -> Generator[Sample]:
        """As `EvaluationData.parcels`. It may run while an epoch is read."""
        return self._evaluated().parcels(split, size=size, pin=pin)

    def close(self) -> None:
        """End the reader processes and threads and forget decoded pixels; the data may be read again."""
        self._end_workers()
        for running in tuple(self._running):
            running.close()
        if self._evaluation is not None:
            self._evaluation.close()
        self._reader = self._evaluation = None

    def _evaluated(self) -> EvaluationData:
        if self._evaluation is None:
            self._evaluation = EvaluationData(
                self._settings,
                grids=self.grids,
                batch=self.recipe.batch,
                readers=self.recipe.readers,
                reader=self._shared_reader(),
                rank=self.rank,
            )
        return self._evaluation

    def _end_workers(self) -> None:
        if self._workers is not None:
            self._workers.close()
        self._workers = None

    def _shared_reader(self) -> ChipReader:
        if self._reader is None:
            share = 1.0 if self.recipe.start == "threads" else _FOR_EVALUATION
            self._reader = replace(self._settings, cache_mb=self.recipe.cache_mb * share).open()
        return self._reader

    def _mixed(self) -> int:
        """Superblocks that each reader mixes: as many as its share of the cache holds, up to `MIXED`."""
        side = rectangle_px(self.recipe.size, cut=self.recipe.sampling == "middle")
        share = self.recipe.cache_mb * 1e6 * (1 - _FOR_EVALUATION) / self.recipe.readers
        return max(1, min(MIXED, int(share // max(self._superblock_bytes(cube, side) for cube in self.cubes))))

    def _superblock_bytes(self, cube: Cube, side: int) -> int:
        dates = len(cube.facts.days)
        if self.recipe.dates.pick != "random":
            dates = min(dates, self.dates)
        labels = 6 * self.recipe.labels**2 + 3
        return int(side**2 * (dates * (2 * len(self.bands) + 1) + labels))


def _kept(cubes: Sequence[Cube], grids: Sequence[Grid], table: ClassTable, recipe: DataRecipe) -> KeptLabels | None:
    if recipe.few is None:
        return None
    return (keep_parcels if recipe.few.by == "parcel" else keep_blocks)(cubes, grids, table, recipe)


def _normalization(
    recipe: DataRecipe, cubes: Sequence[Cube], grids: Sequence[Grid], bands: Sequence[str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if recipe.normalize == "reflectance":
        return (0.0,) * len(bands), (_REFLECTANCE_SCALE,) * len(bands)
    return pool_statistics(cubes, grids, bands)
