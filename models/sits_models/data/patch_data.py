"""Data from patch sets: batches of chips an epoch for training, or each patch of a split once for evaluation."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import CHIP, Split
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import check_radiometry
from sits_models.data.few_labels import few_blocks
from sits_models.data.grid import Ground
from sits_models.data.parts import part_of
from sits_models.data.patch_labels import LabelCounts, count_labels, join_set_classes, measure_bands, positions_of
from sits_models.data.patch_places import (
    LabelCells,
    Patches,
    chips_in_epoch,
    plan_epoch,
    plan_evaluation,
    plan_middles,
)
from sits_models.data.patch_reader import PatchReader
from sits_models.data.patch_sets import PatchSet, open_patch_set
from sits_models.data.readers import Plans, read_in_threads
from sits_models.data.sampling import BatchPlan, EpochPlan
from sits_models.device import Rank
from sits_models.recipe import DataRecipe
from sits_models.sample import Sample

__all__ = ["KeptPatches", "PatchData"]

_REFLECTANCE_SCALE = 10_000.0
_FOR_EVALUATION = 1 / 8
"""Of the cache: an evaluation, which passes over each patch once, may be read while an epoch is."""
_LABEL_BYTES = 10
"""Of a pixel: class and parcel."""
_SET_SHIFT = 40


@dataclass(frozen=True, kw_only=True)
class KeptPatches:
    """Which patches of the train split `data.few` leaves, as if the others had never been collected."""

    kept: NDArray[np.int64]
    """(K,): patches that are kept and show each class."""
    of: NDArray[np.int64]
    """(K,): those there are."""

    def described(self, table: ClassTable) -> dict[str, object]:
        """For data.json: of each class how many patches are kept of how many."""
        rows = zip(table.classes, self.kept.tolist(), self.of.tolist(), strict=True)
        return {"by": "block", "classes": [{"code": entry.code, "kept": kept, "of": of} for entry, kept, of in rows]}


class PatchData:
    """Patch sets, a class table and readers; `close` ends their threads, as does leaving a `with` block.

    The `place` of a chip of it is the number of its patch among the `patches` of all sets, and the row and column of
    its upper-left pixel in that.
    """

    def __init__(
        self,
        recipe: DataRecipe,
        *,
        sets: tuple[PatchSet, ...],
        patches: Patches,
        bands: tuple[str, ...],
        table: ClassTable,
        pad_to: int | None = None,
        rank: Rank | None = None,
    ) -> None:
        """As `open` makes it."""
        self.recipe = recipe
        self.rank = rank or Rank()
        self.sets = sets
        self.bands = bands
        self.table = table
        longest = int(patches.dates.max())
        self.dates: int = pad_to or (longest if recipe.dates.n is None else recipe.dates.n)
        """T of a chip; shorter series are padded."""
        self._train = patches.of_split(Split.TRAIN)
        self.kept: KeptPatches | None = None
        """What `data.few` leaves of the train split; None: all."""
        self.patches = patches
        if recipe.few is not None:
            self._keep_few(share=recipe.few.share, seed=recipe.few.seed)
        self._reader: PatchReader | None = None
        self._running = weakref.WeakSet[Generator[Sample]]()

    @classmethod
    def open(
        cls,
        recipe: DataRecipe,
        *,
        sets: Sequence[str] | Sequence[PatchSet],
        table: ClassTable | None = None,
        bands: Sequence[str] | None = None,
        pad_to: int | None = None,
        rank: Rank | None = None,
        ground: Ground = "split",
    ) -> Self:
        """The data of these sets, or of folders that hold what `recipe.layout` says.

        `table` and `bands`, those of a trained model, go before the recipe's, and `pad_to` before the longest series as
        the T of a chip. Of several processes, `rank` says whose part of every batch is read. `ground` other than
        "split" is for learning without labels: none are read then, and the table is empty. Bands are joined by name,
        classes by code. ValueError, with one sentence, where the sets do not fit together or to the recipe: no set,
        another radiometry, a band, a class or splits missing, labels of pixels beside labels of patches, or what of a
        recipe is for regions alone. A set that is only evaluated needs no train split.
        """
        if not sets:
            raise ValueError("no patch set to learn from; give --cube, or cubes under data in the recipe")
        opened = tuple(open_patch_set(one, recipe.layout) if isinstance(one, str) else one for one in sets)
        check_radiometry(opened)
        names = tuple(bands or recipe.bands or opened[0].facts.bands)
        for one in opened:
            positions_of(one.facts, names)
        if ground != "split":
            table = ClassTable(())
        elif table is None:
            facts = [one.facts for one in opened]
            table = join_set_classes(facts, codes=recipe.classes, background=recipe.background)
        dense = [one.facts.dense for one in opened]
        if table.n and len(set(dense)) > 1:
            first, other = opened[dense.index(True)].facts.path, opened[dense.index(False)].facts.path
            raise ValueError(
                f"{first} has labels of pixels and {other} labels of patches, which are not learnt together; give sets "
                "of one kind"
            )
        _check_recipe(recipe, dense=all(dense))
        patches = Patches.of(opened, ground=ground)
        if not patches.dates.any():
            paths = ", ".join(one.facts.path for one in opened)
            raise ValueError(f"no patch of {paths} has a date; give sets with images")
        return cls(recipe, sets=opened, patches=patches, bands=names, table=table, pad_to=pad_to, rank=rank)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def dense(self) -> bool:
        """Whether labels are of pixels, and not of patches as such."""
        return all(one.facts.dense for one in self.sets)

    @property
    def batches_in_epoch(self) -> int:
        """Batches of a training epoch, all of them full."""
        return chips_in_epoch(self.patches, self.recipe) // self.recipe.batch

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each band, in stored units: what is taken from it before a backbone sees it."""
        return self._normalization[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Of each band, in stored units."""
        return self._normalization[1]

    @cached_property
    def _normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.recipe.normalize == "reflectance":
            return (0.0,) * len(self.bands), (_REFLECTANCE_SCALE,) * len(self.bands)
        # Of the whole train split, also where labels are few: they need no labels.
        return measure_bands(self.sets, self.patches, self.bands, self._train, threads=self.recipe.readers)

    @cached_property
    def _counts(self) -> LabelCounts:
        """Labels of the train split, few or not."""
        by_class = self.recipe.sampling == "class"
        return count_labels(
            self.sets, self.patches, self.table, self._train, cells=by_class, threads=self.recipe.readers
        )

    def train_pixels(self) -> NDArray[np.int64]:
        """(K,): labels of each class in the train split, which is passed over once: pixels, or, where labels are of
        patches, patches that have the class; where labels are few, those that are kept. Without a class none are read.
        """
        if not self.table.n:
            return np.zeros(0, np.int64)
        kept = self.patches.split[self._counts.patch] == Split.TRAIN
        return np.asarray(self._counts.pixels[kept].sum(axis=0, dtype=np.int64))

    def check_one_class(self) -> None:
        """Raises ValueError where a patch of the train split has several classes of its set, of which a chip can have
        one, and the model knows one of them."""
        if self.dense:
            return
        several = self._counts.patch[(self._counts.own > 1) & self._counts.pixels.any(axis=1)]
        if len(several):
            raise ValueError(
                f"a classification learns one class a patch, and {len(several)} of {len(self._train)} patches of the "
                f"train split have several, those that data.classes leaves out among them, {self._first(several)}: "
                "take a recipe of multilabel"
            )

    def check_dates(self, least: int) -> None:
        """Raises ValueError where a patch of the train split has fewer dates."""
        short = self._train[self.patches.dates[self._train] < least]
        if len(short):
            raise ValueError(
                f"each patch should have {least} dates at least, and {len(short)} of {len(self._train)} patches of the "
                f"train split have fewer, {self._first(short)}: give sets in which all have them"
            )

    def _first(self, numbers: NDArray[np.int64]) -> str:
        """The first of these patches in words."""
        number = int(numbers[0])
        path = self.sets[int(self.patches.owner[number])].facts.path
        return f"the first one number {self.patches.number[number]} of {path}"

    def plan(self, number: int, *, seed: int) -> EpochPlan:
        """The chips of a training epoch, in order, those of all processes."""
        return plan_epoch(
            self.patches, self.recipe, seed=seed, epoch=number, mixed=self._mixed(), cells=self._cells_drawn()
        )

    def epoch(self, number: int, *, seed: int, start: int = 0, pin: bool = False) -> Generator[Sample]:
        """The batches of a training epoch, from batch `start` on.

        The same number, seed and recipe give the same batches, whatever the number of readers and of processes, of
        which each gets its part of every batch. `pin` puts batches into page-locked memory.
        """
        return self._read(self.plan(number, seed=seed), start=start, pin=pin, open_at_once=2 * self.recipe.batch)

    def evaluation(
        self, split: Split, *, size: int | None = None, halo: int = 0, pin: bool = False
    ) -> Generator[Sample]:
        """Windows of the patches of a split that together count each of their labelled pixels once.

        A window owns a part of a patch of `size` px at most (64 without one), and sees `halo` px around that on each
        side; what lies outside of the patch is not observed. Labels that it does not own, or outside, are hidden:
        IGNORE_INDEX and not `counted`. Where labels are of patches, each patch is seen once, as by `parcels`. Random
        dates are spread evenly. It may run while an epoch is read.
        """
        if not self.dense:
            return self.parcels(split, size=size or CHIP, pin=pin)
        plan = plan_evaluation(self.patches, split=split, size=size or CHIP, halo=halo, batch=self.recipe.batch)
        return self._read(plan, pin=pin)

    def parcels(self, split: Split, *, size: int, pin: bool = False) -> Generator[Sample]:
        """Chips of `size` px, one for each patch of the split, from its middle.

        Where labels are of patches, and the patch has one class, all of the chip has it; where they are of pixels, all
        are hidden but that of the pixel in the middle. What lies outside of the patch is not observed.
        """
        plan = plan_middles(self.patches, split=split, size=size, batch=self.recipe.batch, dense=self.dense)
        return self._read(plan, pin=pin)

    def described(self) -> list[dict[str, object]]:
        """For data.json: of each set what it is, and how many patches of each split there are, few labels or not."""
        found = []
        for number, one in enumerate(self.sets):
            facts, mine = one.facts, self.patches.owner == number
            split = self.patches.split.copy()
            split[self._train] = Split.TRAIN
            counts = {word.name.lower(): int((split[mine] == word).sum()) for word in Split if word is not Split.NONE}
            found.append(
                {
                    "path": facts.path,
                    "region": facts.name,
                    "layout": self.recipe.layout,
                    "config_sha256": facts.identity,
                    "split_sha256": hashlib.sha256(split[mine].tobytes()).hexdigest(),
                    "patches": {name: n for name, n in counts.items() if n},
                    "complete": facts.complete,
                    "simulated": facts.simulated,
                }
            )
        return found

    def close(self) -> None:
        """End the threads and forget decoded patches; the data may be read again."""
        for running in tuple(self._running):
            running.close()
        self._reader = None

    def _read(
        self, plan: EpochPlan, *, start: int = 0, pin: bool, open_at_once: int | None = None
    ) -> Generator[Sample]:
        """The batches of a plan, whose chips are cut from so many patches at a time; None: from one after the other."""
        if self._reader is None:
            self._reader = PatchReader(
                self.sets,
                self.patches,
                table=self.table,
                bands=self.bands,
                dates=self.recipe.dates,
                pad_to=self.dates,
                cache_mb=self.recipe.cache_mb,
            )
        reader, threads = self._reader, self.recipe.readers
        open_at_once = 2 * threads if open_at_once is None else open_at_once
        # A patch that one chip alone is cut from need not be kept, nor one that would be gone before the next.
        numbers = np.unique(plan.places[:, 0])
        whole = len(numbers) < len(plan.places) and self._kept_at_once() >= min(open_at_once, len(numbers))
        mine = part_of(plan, self.rank, streams=threads)

        def read(batch: BatchPlan) -> Sample:
            sample = reader.read(batch, whole=whole)
            return sample.pin_memory() if pin else sample

        running = read_in_threads(Plans(mine, start), read, threads=threads)
        self._running.add(running)
        return running

    def _mixed(self) -> int:
        """Patches that batches are drawn from at a time: as many as the cache holds, and some of each batch's own."""
        return max(2 * self.recipe.batch, self._kept_at_once())

    def _kept_at_once(self) -> int:
        """Patches that the cache holds beside those of an evaluation."""
        pixels, longest = int(self.patches.sizes.prod(axis=1).max()), int(self.patches.dates.max())
        dates = longest if self.recipe.dates.pick == "random" else min(longest, self.dates)
        size = pixels * (dates * (2 * len(self.bands) + 1) + _LABEL_BYTES)
        return int(self.recipe.cache_mb * 1e6 * (1 - _FOR_EVALUATION) // size)

    def _cells_drawn(self) -> LabelCells | None:
        if self.recipe.sampling != "class":
            return None
        cells = self._counts.cells
        assert cells is not None  # checked when it was opened
        return cells.where(self.patches.split[cells.patch] == Split.TRAIN)

    def _keep_few(self, *, share: float, seed: int) -> None:
        """Leave a share of the labelled patches of the train split, that together show every class; of share 1 all of
        them. Those without a label go, whatever the share."""
        shows = self._counts.pixels > 0
        labelled = np.flatnonzero(shows.any(axis=1))
        if not len(labelled):
            paths = ", ".join(one.facts.path for one in self.sets)
            raise ValueError(
                f"no patch of the train split of {paths} has a label of a known class; learn from other sets"
            )
        shows, numbers = shows[labelled], self._counts.patch[labelled]
        ids = (self.patches.owner[numbers] << _SET_SHIFT) | self.patches.number[numbers]
        kept = few_blocks(shows, share=share, seed=seed, ids=ids)
        self.kept = KeptPatches(kept=shows[kept].sum(axis=0), of=shows.sum(axis=0))
        self.patches = self.patches.only(numbers[kept])


def _check_recipe(recipe: DataRecipe, *, dense: bool) -> None:
    """Raises ValueError for what of a recipe patch sets know nothing of."""
    if recipe.readers < 1:
        raise ValueError(f"data.readers is at least 1; got {recipe.readers}")
    if recipe.start != "threads":
        raise ValueError(f"patch sets are read by threads; set data.start=threads, not {recipe.start}")
    if recipe.labels != 1:
        raise ValueError(f"the labels of patch sets are of 10 m; set data.labels=1, not {recipe.labels}")
    if recipe.few is not None and recipe.few.by == "parcel":
        raise ValueError("data.few of patch sets keeps whole patches; set data.few.by=block, not parcel")
    known = ("uniform", "class") if dense else ("uniform",)
    if recipe.sampling not in known:
        why = "patch sets" if dense else "patch sets whose labels are of patches"
        raise ValueError(f"chips of {why} are drawn by data.sampling={' or '.join(known)}; got {recipe.sampling}")
