"""`sits-model predict`: a map of a whole cube, a cell at a time, taken up again where it was interrupted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch
from numpy.typing import NDArray

from sits_catalog.console import Narrator
from sits_models.backbones.base import Backbone, check_dates
from sits_models.checkpoints import Card, load_model
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube, open_cube
from sits_models.data.parcels import largest_parcel
from sits_models.device import resolve_device
from sits_models.folder import lock_folder, write_whole
from sits_models.maps import (
    Begun,
    CellLogits,
    Computation,
    MapLayout,
    ParcelCounts,
    Work,
    compute_cells,
    count_parcels,
    create_map,
    draw_map,
    open_work,
    refuse_another,
    thin_map,
    write_cell,
    write_cogs,
    write_parcels,
)
from sits_models.maps.compute import quantise
from sits_models.maps.store import NO_CLASS
from sits_models.maps.work import WORK
from sits_models.objectives.change import Change
from sits_models.objectives.classification import Classification
from sits_models.objectives.multilabel import MultiLabel
from sits_models.objectives.segmentation import Segmentation
from sits_models.tasks.predict_parcels import ClassifiedCube, ParcelJob, predict_parcels
from sits_models.tiling import Cell, Tiling, plan_tiling
from sits_models.zoo import find_weights

__all__ = ["PredictionOutcome", "predict"]

_SUMMARY = "prediction.json"
_BYTES = 3 * 2**29
"""What the activations of a batch may take, roughly: a figure of the model and the cube, never of the machine."""
_MAX_BATCH = 16
"""More tiles at a time make nothing quicker."""
_BYTES_A_CHANNEL = 24
"""Six float32 maps of 128 channels times width: what UNet3Df was measured to need."""
_MAPS_A_HEAD = 3
"""Float32 maps of all channels and all classes that a head holds at a time."""
_MAX_CACHE_MB = 512


@dataclass(frozen=True, kw_only=True)
class PredictionOutcome:
    """What became of a map, or of a table of parcels."""

    folder: Path
    complete: bool
    """False where `limit` stopped it; the same command goes on."""
    cells: int
    """Cells that are done."""
    tiles: int
    """Tiles, or chips, that the model has seen in them."""
    class_pixels: tuple[int, ...]
    """Pixels of each class, in the order of the model's class table; none of a model that gives a class to a parcel."""
    class_parcels: tuple[int, ...] | None
    """Parcels of each class that such a model saw; None of a map."""
    empty_pixels: int
    """Pixels of a map without any observation."""
    parcels: int
    """Rows of the parcel table; 0 where the cube has none."""
    seconds: float
    """Of all runs together."""


def predict(
    weights: str,
    *,
    cube: str,
    out: str,
    narrator: Narrator,
    batch: int | None = None,
    tile: int | None = None,
    workers: int = 2,
    device: str = "auto",
    probabilities: bool = False,
    limit: int | None = None,
) -> PredictionOutcome:
    """Map a cube with the model in the folder `weights` into the folder `out`, and return what it holds then.

    `map.zarr` (class, probability, uncertainty; with `probabilities` those of every class), `map.tif`,
    `probability.tif`, `uncertainty.tif`, `parcels.parquet` where the cube has parcels, `map.png` and
    `prediction.json`. The same model, cube and options give the same bytes, whatever the number of `workers` that read
    and however often it was interrupted (the last bit of a probability depends on torch and on its threads, whose
    number a map keeps from its beginning). `batch` and `tile` None: chosen for the model. `limit`: stop after so many
    cells. A model that gives one class to a parcel makes `parcels.parquet` and `prediction.json` alone.

    Raises ValueError where the cube's bands or radiometry are not the model's, or the model cannot map it;
    FileExistsError where `out` holds another map; FileNotFoundError where there is no cube or no model.
    """
    narrator.stage("opening the model and the cube")
    wishes = _Wishes(batch=batch, tile=tile, workers=workers, device=device, probabilities=probabilities)
    _check(wishes)
    loaded, folder = load_model(find_weights(weights)), Path(out)
    if isinstance(loaded.objective, Change | MultiLabel):
        told = "changes between two dates" if isinstance(loaded.objective, Change) else "several classes of a patch"
        raise ValueError(  # noqa: TRY004  # as below
            f"the weights in {weights} tell {told}, and a map has one class a pixel: give those of a segmentation or a "
            "classification; sits-model evaluate measures these"
        )
    opened = open_cube(cube)
    if isinstance(loaded.objective, Classification):
        parcel_job = _parcel_job(loaded.objective, loaded.card, opened, wishes)
        return _of_parcels(folder, predict_parcels(folder, parcel_job, limit=limit, narrator=narrator))
    if not isinstance(loaded.objective, Segmentation):
        raise ValueError(  # noqa: TRY004  # wrong weights, not a wrong type
            f"the weights in {weights} are those of a pretraining, which knows no classes; finetune them first"
        )
    job = _job(loaded.objective, loaded.card, opened, wishes)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        finished = _finished_before(folder, job)
        if finished is not None:
            narrator.stage(f"{folder} holds this map already")
            # Its summary is the last file that is written, but not the last thing that is done.
            Work(folder / WORK).remove()
            return finished
        threads = torch.get_num_threads()
        work = _begin(folder, job)
        try:
            _compute(folder, work, job, narrator, limit)
        finally:
            torch.set_num_threads(threads)
        if len(work.done()) < len(job.tiling.cells()):
            return _outcome(folder, job, work.done(), parcels=0, complete=False)
        return _finish(folder, work, job, narrator)


@dataclass(frozen=True, kw_only=True)
class _Wishes:
    """What a caller may decide; see `predict`."""

    batch: int | None
    tile: int | None
    workers: int
    device: str
    probabilities: bool


@dataclass(frozen=True, kw_only=True)
class _Job:
    """All that is settled before the first pixel."""

    computation: Computation
    card: Card
    layout: MapLayout
    identity: Mapping[str, Any]

    @property
    def tiling(self) -> Tiling:
        return self.computation.tiling

    @property
    def table(self) -> ClassTable:
        return self.computation.table

    @property
    def cube(self) -> Cube:
        return self.computation.cube

    @property
    def magnification(self) -> int:
        return self.computation.magnification


def _check(wishes: _Wishes) -> None:
    for name, value in (("--batch", wishes.batch), ("--workers", wishes.workers)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is at least 1; got {value}")


def _job(model: Segmentation, card: Card, cube: Cube, wishes: _Wishes) -> _Job:
    card.check_cube(cube.facts)
    computation = _computation(model, card, cube, wishes)
    identity = _identity(computation, card, probabilities=wishes.probabilities)
    return _Job(
        computation=computation,
        card=card,
        layout=_layout(computation, card, identity, probabilities=wishes.probabilities),
        identity=identity,
    )


def _parcel_job(model: Classification, card: Card, cube: Cube, wishes: _Wishes) -> ParcelJob:
    """Raises ValueError where there is no parcel to classify, or a wish is one of maps."""
    facts, backbone, recipe = cube.facts, model.encoder.backbone, card.recipe.data
    for name, wished in (("--tile", wishes.tile is not None), ("--probabilities", wishes.probabilities)):
        if wished:
            raise ValueError(f"{name} is for maps, and this model gives one class to a parcel; leave it out")
    card.check_cube(facts)
    largest = largest_parcel(cube) if facts.has_labels else 0
    if not largest:
        raise ValueError(
            f"{facts.path} has no parcels, and this model gives one class to a parcel; build the cube with parcels, or "
            "map it with a model of pixels"
        )
    dates = check_dates(backbone.needs, recipe.dates, len(facts.days))
    batch, device = wishes.batch or recipe.batch, resolve_device(wishes.device)
    return ParcelJob(
        model=model,
        card=card,
        cube=cube,
        largest=largest,
        dates=_pad_to(backbone, dates, card.dates) or dates,
        batch=batch,
        workers=wishes.workers,
        device=device,
        identity={**_origin(cube, card), "parcels": largest, "batch": batch, "device": device.type},
    )


def _of_parcels(folder: Path, found: ClassifiedCube) -> PredictionOutcome:
    return PredictionOutcome(
        folder=folder,
        complete=found.complete,
        cells=found.cells,
        tiles=found.chips,
        class_pixels=(),
        class_parcels=found.class_parcels,
        empty_pixels=0,
        parcels=found.parcels,
        seconds=found.seconds,
    )


def _computation(model: Segmentation, card: Card, cube: Cube, wishes: _Wishes) -> Computation:
    """What is computed, in parts that fit into memory."""
    backbone, rule = model.encoder.backbone, card.recipe.data.dates
    dates = check_dates(backbone.needs, rule, len(cube.facts.days))
    pad_to = _pad_to(backbone, dates, card.dates)
    max_pixels = _BYTES // _bytes_a_pixel(model, card, dates if pad_to is None else pad_to)
    tiling = plan_tiling(
        cube.facts.shape,
        reach=model.reach,
        tile_size=backbone.tile_size,
        multiple=backbone.needs.size_multiple,
        min_size=backbone.needs.min_size,
        max_pixels=max_pixels,
        tile=wishes.tile,
        pixel_bytes=4 * len(card.classes) * card.magnification**2,
    )
    return Computation(
        model=model,
        cube=cube,
        table=ClassTable(classes=card.classes),
        dates=rule,
        pad_to=pad_to,
        magnification=card.magnification,
        tiling=tiling,
        batch=wishes.batch or min(_MAX_BATCH, max(1, max_pixels // tiling.tile**2)),
        workers=wishes.workers,
        device=resolve_device(wishes.device),
        cache_mb=_cache_mb(tiling, dates * (2 * len(card.bands) + 1)),
    )


def _pad_to(backbone: Backbone, dates: int, trained: int) -> int | None:
    """Dates of the series that the model is given: as many as in training, where it would see a difference."""
    if backbone.needs.dates is not None:
        return backbone.needs.dates
    return None if backbone.ignores_padding else max(dates, trained)


def _bytes_a_pixel(model: Segmentation, card: Card, dates: int) -> int:
    """What the activations of a pixel of a tile take: those of the backbone, then those at the map's resolution."""
    finer = 4 * _MAPS_A_HEAD * card.magnification**2 * (model.encoder.channels + len(card.classes))
    return int(dates * 128 * card.recipe.backbone.width * _BYTES_A_CHANNEL) + finer


def _cache_mb(tiling: Tiling, pixel_bytes: int) -> int:
    """Decoded pixels worth keeping: those of two rows of tiles of a cell, which overlap."""
    width = min(tiling.cell, tiling.shape[1]) + 2 * tiling.tile
    return min(_MAX_CACHE_MB, -(-2 * tiling.tile * width * pixel_bytes // 10**6))


def _identity(computation: Computation, card: Card, *, probabilities: bool) -> dict[str, Any]:
    """What decides every byte of a map."""
    tiling = computation.tiling
    return {
        **_origin(computation.cube, card),
        "tile": tiling.tile,
        "stride": tiling.stride,
        "batch": computation.batch,
        "device": computation.device.type,
        "probabilities": probabilities,
    }


def _origin(cube: Cube, card: Card) -> dict[str, Any]:
    """What a prediction is made of: a model and a cube."""
    facts, plain = cube.facts, json.dumps(card.to_json(), sort_keys=True)
    return {
        "weights": card.sha256,
        "card": hashlib.sha256(plain.encode()).hexdigest(),
        "cube": facts.config_sha256,
        # A cube whose sources could not all be read is read again without another config.
        "complete": facts.complete,
        "journal": _hash_of_journal(facts.path),
        "region": facts.region,
    }


def _hash_of_journal(path: str) -> str | None:
    """SHA-256 of the last line of a cube's journal, which vouches for those before it; None where it is not at hand."""
    try:
        with (Path(path) / "journal.jsonl").open("rb") as file:
            last = b""
            for line in file:
                last = line
    except FileNotFoundError:
        return None
    return hashlib.sha256(last).hexdigest()


def _layout(computation: Computation, card: Card, identity: Mapping[str, Any], *, probabilities: bool) -> MapLayout:
    facts, m = computation.cube.facts, computation.magnification
    height, width = facts.shape
    a, b, c, d, e, f = facts.transform
    made_of = {key: identity[key] for key in ("weights", "cube", "region")}
    return MapLayout(
        shape=(m * height, m * width),
        transform=(a / m, b / m, c, d / m, e / m, f),
        epsg=int(str(facts.crs).removeprefix("EPSG:")),
        cell=m * computation.tiling.cell,
        classes=computation.table.classes,
        probabilities=probabilities,
        attributes={"version": "1.0", "recipe": card.recipe.name, "made_of": made_of},
        simulated=facts.simulated,
    )


def _begin(folder: Path, job: _Job) -> Work:
    work, begun = open_work(folder, job.identity)
    if begun is None:
        begun = Begun(identity=job.identity, threads=torch.get_num_threads())
        work.begin(begun)
    if begun.state == "creating":
        create_map(folder, job.layout)
        work.begin(dataclasses.replace(begun, state="created"))
    # Sums are cut into as many parts as there are threads: another number changes the last bit of a probability.
    torch.set_num_threads(begun.threads)
    return work


def _compute(folder: Path, work: Work, job: _Job, narrator: Narrator, limit: int | None) -> None:
    done, cells = set(work.done()), job.tiling.cells()
    todo = [cell for cell in cells if cell.number not in done][:limit]
    narrator.stage(f"mapping {job.layout.shape[0]} x {job.layout.shape[1]} pixels")
    started = time.monotonic()
    with closing(compute_cells(job.computation, todo)) as computed:
        for number, made in enumerate(computed, len(cells) - len(todo) + 1):
            cell, counts = made.cell, _store(folder, work, job, made)
            # Its logits go before those of the next cell come.
            del made
            seconds, started = time.monotonic() - started, time.monotonic()
            work.finish({"cell": cell.number, "classes": counts, "seconds": round(seconds, 3)})
            narrator.progress(number, len(cells))


def _store(folder: Path, work: Work, job: _Job, made: CellLogits) -> list[int]:
    """Write all files of a cell, and return the pixels of each class, and at the end of none."""
    m, cell, n = job.magnification, made.cell, job.table.n
    shape = (m * cell.height, m * cell.width)
    arrays: dict[str, NDArray[Any]] = {
        name: np.empty((n, *shape) if name == "probabilities" else shape, dtype)
        for name, (dtype, _, _) in job.layout.arrays().items()
    }
    parcel_id = _labels(job.cube, "parcel_id", cell, m) if job.cube.facts.has_labels else None
    parcels: list[ParcelCounts] = []
    for strip in made.strips():
        arrays["crop_type"][strip.rows] = strip.crop_type
        arrays["probability"][strip.rows] = strip.probability
        arrays["uncertainty"][strip.rows] = strip.uncertainty
        if "probabilities" in arrays:
            arrays["probabilities"][:, strip.rows] = quantise(strip.probabilities, strip.crop_type != NO_CLASS)
        if parcel_id is not None:
            parcels.append(count_parcels(parcel_id[strip.rows], strip.crop_type, strip.probabilities))
    write_cell(folder, cell, m, arrays)
    if parcels:
        ParcelCounts.total(parcels).save(work.parcels, cell.number)
    counts = np.bincount(np.minimum(arrays["crop_type"], n).ravel(), minlength=n + 1)
    return [int(count) for count in counts]


def _labels(cube: Cube, name: str, cell: Cell, m: int) -> NDArray[Any]:
    """A label array on the grid of the map: the cube's own finer one where it has that, else each pixel m x m times."""
    if m > 1 and m in cube.facts.finer:
        rows = slice(m * cell.row, m * (cell.row + cell.height))
        return cube.read(f"labels_x{m}/{name}", rows, slice(m * cell.column, m * (cell.column + cell.width)))
    return cube.read(name, cell.rows, cell.columns).repeat(m, axis=0).repeat(m, axis=1)


def _finish(folder: Path, work: Work, job: _Job, narrator: Narrator) -> PredictionOutcome:
    """The files that are made from all cells; the summary comes last and says that the map is whole."""
    narrator.stage("writing GeoTIFFs, parcels and the picture")
    write_cogs(folder, job.layout, job.tiling, job.magnification)
    parcels = _write_parcels(folder, work, job)
    _draw(folder, job)
    outcome = _outcome(folder, job, work.done(), parcels=parcels, complete=True)
    write_whole(folder / _SUMMARY, (json.dumps(_summary(job, outcome), indent=1) + "\n").encode())
    work.remove()
    return outcome


def _write_parcels(folder: Path, work: Work, job: _Job) -> int:
    facts = job.cube.facts
    source = f"{facts.path}/parcels.parquet"
    filesystem, path = fsspec.core.url_to_fs(source)
    if not facts.has_labels or not filesystem.exists(path):
        return 0
    return write_parcels(folder / "parcels.parquet", source, work.parcels, table=job.table, facts=facts)


def _draw(folder: Path, job: _Job) -> None:
    facts = job.cube.facts
    lookup = job.table.lookup(facts) if facts.has_labels else None

    def declared(cell: Cell) -> NDArray[np.int64]:
        assert lookup is not None
        return np.asarray(lookup[job.cube.read("crop_type", cell.rows, cell.columns)])

    thinned = thin_map(
        folder,
        job.tiling,
        magnification=job.magnification,
        pixel_m=facts.transform[0],
        declared=None if lookup is None else declared,
    )
    made_up = " (simulated data)" if facts.simulated else ""
    title = f"{facts.region}: crops mapped by {job.card.recipe.name}{made_up}"
    write_whole(folder / "map.png", draw_map(thinned, job.table.classes, title))


def _outcome(
    folder: Path, job: _Job, done: Mapping[int, Mapping[str, Any]], *, parcels: int, complete: bool
) -> PredictionOutcome:
    counts = np.sum([entry["classes"] for entry in done.values()] or [[0] * (job.table.n + 1)], axis=0).tolist()
    return PredictionOutcome(
        folder=folder,
        complete=complete,
        cells=len(done),
        tiles=sum(len(job.tiling.tiles(cell)) for cell in job.tiling.cells() if cell.number in done),
        class_pixels=tuple(counts[:-1]),
        class_parcels=None,
        empty_pixels=counts[-1],
        parcels=parcels,
        seconds=round(sum(entry["seconds"] for entry in done.values()), 3),
    )


def _summary(job: _Job, outcome: PredictionOutcome) -> dict[str, Any]:
    return {
        "format": "sits-map 1",
        "recipe": job.card.recipe.name,
        "made_of": dict(job.identity),
        "simulated": job.layout.simulated,
        "cells": outcome.cells,
        "tiles": outcome.tiles,
        "classes": [
            {"index": index, "code": crop.code, "name": crop.name, "pixels": pixels}
            for index, (crop, pixels) in enumerate(zip(job.table.classes, outcome.class_pixels, strict=True))
        ],
        "empty_pixels": outcome.empty_pixels,
        "parcels": outcome.parcels,
        "seconds": outcome.seconds,
    }


def _finished_before(folder: Path, job: _Job) -> PredictionOutcome | None:
    """The outcome of a map that is whole. Raises FileExistsError where it is another one."""
    path = folder / _SUMMARY
    if not path.is_file():
        return None
    summary = json.loads(path.read_bytes())
    refuse_another(folder, summary["made_of"], job.identity)
    return PredictionOutcome(
        folder=folder,
        complete=True,
        cells=summary["cells"],
        tiles=summary["tiles"],
        class_pixels=tuple(row["pixels"] for row in summary["classes"]),
        class_parcels=None,
        empty_pixels=summary["empty_pixels"],
        parcels=summary["parcels"],
        seconds=summary["seconds"],
    )
