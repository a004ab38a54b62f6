"""The part of `sits-model predict` for models that give one class to a parcel: a table of all parcels of a cube."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.checkpoints import Card
from sits_models.data.chips import ChipReader
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube
from sits_models.data.parcels import RECORD, SIDE, Middles, measure_parcels, plan_parcels
from sits_models.data.readers import Plans, ReaderSettings, read_in_threads
from sits_models.folder import lock_folder, sync, write_whole
from sits_models.maps import Begun, Work, open_work, refuse_another
from sits_models.maps.parcels import described, write_rows
from sits_models.maps.work import WORK
from sits_models.objectives.classification import Classification, middle_observed
from sits_models.sample import Sample

__all__ = ["ClassifiedCube", "ParcelJob", "predict_parcels"]

_SUMMARY = "prediction.json"
_MIDDLES, _CLASSES = "middles.npy", "classes.npy"
"""In the folder `work`: of each parcel id a `RECORD`, and what `_CLASS` holds. Files, since regions are large."""
_CLASS = np.dtype([("predicted", "<i4"), ("probability", "<f4"), ("second", "<i4"), ("second_probability", "<f4")])
"""Indices of classes, -1 for none."""


@dataclass(frozen=True, kw_only=True)
class ClassifiedCube:
    """What became of the parcels of a cube."""

    complete: bool
    """False where a limit stopped it; the same call goes on."""
    cells: int
    """Squares of 512 px that are done."""
    chips: int
    """Chips the model has seen in them, one a parcel."""
    class_parcels: tuple[int, ...]
    """Parcels of each class, in the order of the model's class table."""
    parcels: int
    """Rows of the table; 0 while it is not written."""
    seconds: float
    """Of all runs together."""


@dataclass(frozen=True, kw_only=True)
class ParcelJob:
    """All that is settled before the first parcel."""

    model: Classification
    card: Card
    cube: Cube
    largest: int
    """The largest parcel id."""
    dates: int
    """T of a chip."""
    batch: int
    workers: int
    device: torch.device
    identity: Mapping[str, Any]
    """What decides every value of the table."""

    @property
    def cells(self) -> list[tuple[int, int]]:
        """First row and column of the squares that are done one after the other."""
        height, width = self.cube.facts.shape
        return [(row, column) for row in range(0, height, SIDE) for column in range(0, width, SIDE)]

    @property
    def source(self) -> str:
        """The cube's own table of parcels."""
        return f"{self.cube.facts.path}/parcels.parquet"


def predict_parcels(folder: Path, job: ParcelJob, *, limit: int | None, narrator: Narrator) -> ClassifiedCube:
    """Classify all parcels of a cube into the folder, or go on where that was interrupted; `limit` is of cells.

    `parcels.parquet` and `prediction.json`. Each parcel is seen in the middle of a chip, as in an evaluation, but with
    all the ground around it. A parcel without a pixel, or whose middle was observed on none of the dates that the model
    sees, has no class. Raises FileExistsError where the folder holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        finished = _finished_before(folder, job)
        if finished is not None:
            narrator.stage(f"{folder} holds these parcels already")
            Work(folder / WORK).remove()
            return finished
        threads = torch.get_num_threads()
        try:
            work = _begin(folder, job, narrator)
            _classify(work, job, limit, narrator)
        finally:
            torch.set_num_threads(threads)
        if len(work.done()) < len(job.cells):
            return _outcome(job, work.done(), parcels=0)
        narrator.stage("writing the table of parcels")
        parcels = write_rows(folder / "parcels.parquet", job.source, _Describer(work, job))
        outcome = _outcome(job, work.done(), parcels=parcels)
        write_whole(folder / _SUMMARY, (json.dumps(_summary(job, outcome), indent=1) + "\n").encode())
        work.remove()
        return outcome


def _begin(folder: Path, job: ParcelJob, narrator: Narrator) -> Work:
    """The work folder with a middle of each parcel, and room for its class."""
    work, begun = open_work(folder, job.identity)
    if begun is None:
        begun = Begun(identity=job.identity, threads=torch.get_num_threads())
        work.begin(begun)
    if begun.state == "creating":
        narrator.stage(f"finding the parcels of {job.cube.facts.path}")
        made = {name: _create(work.path / name, dtype, job) for name, dtype in ((_MIDDLES, RECORD), (_CLASSES, _CLASS))}
        measure_parcels(job.cube, made[_MIDDLES], cells=None, split=None)
        made[_CLASSES]["predicted"] = made[_CLASSES]["second"] = -1
        for name, array in made.items():
            array.flush()
            sync(work.path / name)
        work.begin(dataclasses.replace(begun, state="created"))
    # Sums are cut into as many parts as there are threads: another number changes the last bit of a probability.
    torch.set_num_threads(begun.threads)
    return work


def _create(path: Path, dtype: np.dtype[Any], job: ParcelJob) -> np.memmap[Any, Any]:
    """Zeros of each parcel id in a file."""
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(job.largest + 1,))


def _classify(work: Work, job: ParcelJob, limit: int | None, narrator: Narrator) -> None:
    done, cells = set(work.done()), list(enumerate(job.cells))
    todo = [(number, corner) for number, corner in cells if number not in done][:limit]
    narrator.stage("classifying the parcels")
    middles = np.load(work.path / _MIDDLES, mmap_mode="r")
    classes = np.load(work.path / _CLASSES, mmap_mode="r+")
    settings = _settings(job)
    model, reader = job.model.to(job.device).eval(), settings.open()
    started = time.monotonic()
    for finished, (number, corner) in enumerate(todo, len(cells) - len(todo) + 1):
        mine = _in_cell(job.cube, middles, corner)
        said = _classes_of(mine, job, model, settings, reader)
        classes[mine.parcel] = said
        classes.flush()
        seconds, started = time.monotonic() - started, time.monotonic()
        counts = np.bincount(said["predicted"][said["predicted"] >= 0], minlength=len(job.card.classes))
        work.finish({"cell": number, "chips": len(mine), "classes": counts.tolist(), "seconds": round(seconds, 3)})
        narrator.progress(finished, len(cells))


def _settings(job: ParcelJob) -> ReaderSettings:
    recipe = job.card.recipe.data
    return ReaderSettings(
        cubes=(job.cube,),
        table=None,
        bands=job.card.bands,
        dates=recipe.dates,
        labels=1,
        cache_mb=recipe.cache_mb,
        pad_to=job.dates,
    )


def _in_cell(cube: Cube, middles: NDArray[Any], corner: tuple[int, int]) -> Middles:
    """The parcels whose middle lies in the cell."""
    (top, left), (height, width) = corner, cube.facts.shape
    bottom, right = min(top + SIDE, height), min(left + SIDE, width)
    parcel = np.unique(cube.read("parcel_id", slice(top, bottom), slice(left, right))).astype(np.int64)
    parcel = parcel[parcel > 0]
    found = middles[parcel]
    row, column = found["row"].astype(np.int64), found["column"].astype(np.int64)
    here = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    return Middles(parcel=parcel, row=row, column=column, crop=found["crop"].astype(np.int64)).where(here)


def _classes_of(
    mine: Middles, job: ParcelJob, model: Classification, settings: ReaderSettings, reader: ChipReader
) -> NDArray[Any]:
    """(n,) of `_CLASS`: what the model says of these parcels."""
    size = job.card.recipe.data.size
    plan = plan_parcels([mine], size=size, batch=job.batch, split=Split.NONE, cells=None)
    found: dict[tuple[int, int], Any] = {}
    chips = read_in_threads(Plans(plan), lambda batch: settings.read(reader, batch), threads=job.workers)
    with closing(chips), torch.inference_mode():
        for sample in chips:
            said = _judge(sample, model(sample.to(job.device)))
            corners = (sample.place[:, 1:] + size // 2).tolist()
            found.update(zip(map(tuple, corners), said, strict=True))
    # The plan has an order of its own.
    said = np.zeros(len(mine), _CLASS)
    for index, middle in enumerate(zip(mine.row.tolist(), mine.column.tolist(), strict=True)):
        said[index] = found[middle]
    return said


def _judge(sample: Sample, logits: torch.Tensor) -> NDArray[Any]:
    """(B,) of `_CLASS` from logits (B, K); none where the middle of a chip was never observed."""
    shares, classes = torch.softmax(logits, dim=1).cpu().topk(min(2, logits.shape[1]), dim=1)
    observed = middle_observed(sample).numpy()
    said = np.zeros(len(logits), _CLASS)
    said["second"] = -1
    for rank, (name, share) in enumerate((("predicted", "probability"), ("second", "second_probability"))):
        if rank < shares.shape[1]:
            said[name] = np.where(observed, classes[:, rank].numpy(), -1)
            said[share] = np.where(observed, shares[:, rank].numpy(), 0)
    return said


class _Describer:
    """Rows of the table, from rows of the cube's own."""

    def __init__(self, work: Work, job: ParcelJob) -> None:
        self._middles = np.load(work.path / _MIDDLES, mmap_mode="r")
        self._classes = np.load(work.path / _CLASSES, mmap_mode="r")
        self._job = job
        self._table = ClassTable(classes=job.card.classes)

    def __call__(self, batch: Any) -> Any:
        """A pyarrow Table of a batch of parcels."""
        import pyarrow as pa

        parcel = np.asarray(batch.column("parcel_id"), np.int64)
        said, middle = self._classes[parcel], self._middles[parcel]
        nothing, alone, without = said["predicted"] < 0, said["second"] < 0, middle["pixels"] == 0
        codes = np.array([*self._table.codes, None], object)
        columns: dict[str, Any] = {
            "probability": pa.array(said["probability"], pa.float32(), mask=nothing),
            "second_code": pa.array(codes[said["second"]], pa.string()),
            "second_probability": pa.array(said["second_probability"], pa.float32(), mask=alone),
            "row": pa.array(middle["row"], pa.int32(), mask=without),
            "column": pa.array(middle["column"], pa.int32(), mask=without),
        }
        return described(batch, said["predicted"].astype(np.int64), columns, self._table, self._job.cube.facts)


def _outcome(job: ParcelJob, done: Mapping[int, Mapping[str, Any]], *, parcels: int) -> ClassifiedCube:
    rows: Sequence[list[int]] = [entry["classes"] for entry in done.values()] or [[0] * len(job.card.classes)]
    return ClassifiedCube(
        complete=len(done) == len(job.cells),
        cells=len(done),
        chips=sum(entry["chips"] for entry in done.values()),
        class_parcels=tuple(np.sum(rows, axis=0).tolist()),
        parcels=parcels,
        seconds=round(sum(entry["seconds"] for entry in done.values()), 3),
    )


def _summary(job: ParcelJob, outcome: ClassifiedCube) -> dict[str, Any]:
    return {
        "format": "sits-parcels 1",
        "recipe": job.card.recipe.name,
        "made_of": dict(job.identity),
        "simulated": job.cube.facts.simulated,
        "cells": outcome.cells,
        "chips": outcome.chips,
        "classes": [
            {"index": index, "code": crop.code, "name": crop.name, "parcels": n}
            for index, (crop, n) in enumerate(zip(job.card.classes, outcome.class_parcels, strict=True))
        ],
        "parcels": outcome.parcels,
        "seconds": outcome.seconds,
    }


def _finished_before(folder: Path, job: ParcelJob) -> ClassifiedCube | None:
    """The outcome where the table is whole. Raises FileExistsError where it is another one, or a map."""
    path = folder / _SUMMARY
    if not path.is_file():
        return None
    summary = json.loads(path.read_bytes())
    refuse_another(folder, summary["made_of"], job.identity)
    return ClassifiedCube(
        complete=True,
        cells=summary["cells"],
        chips=summary["chips"],
        class_parcels=tuple(row["parcels"] for row in summary["classes"]),
        parcels=summary["parcels"],
        seconds=summary["seconds"],
    )
