"""From a cube and a model to the class probabilities of one cell after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import batched

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sits_models.data.chips import ChipReader
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube
from sits_models.maps.store import NO_CLASS, NOTHING, ONE
from sits_models.objectives.segmentation import Segmentation
from sits_models.recipe import DateRule
from sits_models.sample import Sample
from sits_models.tiling import Cell, Mosaic, Tile, Tiling

__all__ = ["CellLogits", "Computation", "Strip", "compute_cells", "quantise", "summarise"]

_STRIP_BYTES = 2**24
"""Of the probabilities of a strip."""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """What is known of some rows of a cell, at the pixels of the map and over the whole width of the cell."""

    row: int
    """The first one, counted from the cell's, pixels of the map."""
    crop_type: NDArray[np.uint16]
    """Index in the class table; 65535 where nothing was observed."""
    probability: NDArray[np.uint8]
    """Probability of that class x 254; 255 where nothing was observed."""
    uncertainty: NDArray[np.uint8]
    """Entropy of the probabilities over log K, x 254; 255 where nothing was observed."""
    probabilities: NDArray[np.float32]
    """(K, y, x), 1 in sum."""

    @property
    def rows(self) -> slice:
        """Its rows as a slice of the cell."""
        return slice(self.row, self.row + len(self.crop_type))


@dataclass(frozen=True, kw_only=True)
class CellLogits:
    """What the model says of a cell of (h, w) pixels of the cube: the one array of a map that is large."""

    cell: Cell
    magnification: int
    """m: pixels of the map a pixel of the cube, along a side."""
    logits: Tensor
    """(K, m h, m w) float32."""
    observed: NDArray[np.bool_]
    """(h, w): whether any date has a value."""

    def strips(self) -> Iterator[Strip]:
        """The cell from top to bottom, a few rows at a time: their probabilities take 16 MB and are not kept."""
        m, (n, height, width) = self.magnification, self.logits.shape
        rows = m * max(1, _STRIP_BYTES // (4 * n * width * m))
        for row in range(0, height, rows):
            shares = torch.softmax(self.logits[:, row : row + rows], dim=0).cpu().numpy()
            observed = self.observed[row // m : (row + rows) // m].repeat(m, axis=0).repeat(m, axis=1)
            crop_type, probability, uncertainty = summarise(shares, observed)
            yield Strip(
                row=row,
                crop_type=crop_type,
                probability=probability,
                uncertainty=uncertainty,
                probabilities=shares,
            )


@dataclass(frozen=True, kw_only=True)
class Computation:
    """All that decides the pixels of a map, and how they are come by."""

    model: Segmentation
    cube: Cube
    table: ClassTable
    """The model's classes."""
    dates: DateRule
    pad_to: int | None
    """Dates that a shorter series is filled up to, as in training; None: the model does not mind."""
    magnification: int
    """Pixels of the map a pixel of the cube, along a side."""
    tiling: Tiling
    batch: int
    """Tiles that the model sees at a time. Another number may change the last bit of a probability."""
    workers: int
    """Threads that read ahead; their number changes nothing."""
    device: torch.device
    cache_mb: int
    """Decoded pixels that are kept for the tiles beside."""


@dataclass(frozen=True)
class _Job:
    """Tiles of a cell that the model sees at a time."""

    cell: Cell
    tiles: tuple[Tile, ...]
    last: bool
    """Whether the cell is complete with them."""


def compute_cells(computation: Computation, cells: Sequence[Cell]) -> Generator[CellLogits]:
    """The cells in the order given; each is the same whatever comes before it.

    Let go of one before you take the next: there is memory for the logits of one.
    """
    computation.model.to(computation.device).eval()
    mosaic: Mosaic | None = None
    seen = np.empty((0, 0), np.bool_)
    for job, sample in _read_ahead(computation, cells):
        if mosaic is None:
            mosaic = _mosaic(computation, job.cell)
            seen = np.zeros((job.cell.height, job.cell.width), np.bool_)
        observed = _observed(sample)
        _mark(seen, job, observed)
        # A tile without any observation would fill pixels that hold no class anyway.
        if observed.any():
            _add(mosaic, job, computation, sample)
        if job.last:
            logits, mosaic = mosaic.logits(), None
            yield CellLogits(cell=job.cell, magnification=computation.magnification, logits=logits, observed=seen)
            del logits


# Not around the generator: what runs between two cells is the caller's.
@torch.inference_mode()
def _add(mosaic: Mosaic, job: _Job, computation: Computation, sample: Sample) -> None:
    """Run the model on some tiles, and enter what it says into the mosaic."""
    logits = computation.model(sample.to(computation.device, non_blocking=True))
    for tile, part in zip(job.tiles, logits, strict=True):
        mosaic.add(tile, part)


def _mosaic(computation: Computation, cell: Cell) -> Mosaic:
    return Mosaic(
        computation.tiling,
        cell,
        classes=computation.table.n,
        magnification=computation.magnification,
        device=computation.device,
    )


def _jobs(computation: Computation, cells: Sequence[Cell]) -> Iterator[_Job]:
    for cell in cells:
        groups = list(batched(computation.tiling.tiles(cell), computation.batch))
        for number, tiles in enumerate(groups, 1):
            yield _Job(cell, tiles, number == len(groups))


def _read_ahead(computation: Computation, cells: Sequence[Cell]) -> Iterator[tuple[_Job, Sample]]:
    """Each job with its pixels, which threads read while the model computes."""
    reader = ChipReader(
        [computation.cube],
        table=None,
        bands=computation.model.encoder.bands,
        dates=computation.dates,
        labels=1,
        cache_mb=computation.cache_mb,
    )

    def read(job: _Job) -> Sample:
        places = np.array([(0, tile.row, tile.column) for tile in job.tiles], np.int64)
        sample = reader.read(places, size=computation.tiling.tile, pad_to=computation.pad_to)
        return sample.pin_memory() if computation.device.type == "cuda" else sample

    pool = ThreadPoolExecutor(computation.workers, thread_name_prefix="tiles")
    ahead: deque[tuple[_Job, Future[Sample]]] = deque()
    try:
        for job in _jobs(computation, cells):
            ahead.append((job, pool.submit(read, job)))
            if len(ahead) > computation.workers:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _observed(sample: Sample) -> NDArray[np.bool_]:
    """(B, H, W): whether any date has a value."""
    image = sample.image.view(torch.int16) if sample.image.dtype == torch.uint16 else sample.image
    return ((image != 0) & sample.valid[:, :, None, None, None]).any(dim=2).any(dim=1).numpy()


def _mark(seen: NDArray[np.bool_], job: _Job, observed: NDArray[np.bool_]) -> None:
    """Enter what is observed of some tiles into their cell."""
    for tile, mask in zip(job.tiles, observed, strict=True):
        row, column = tile.row - job.cell.row, tile.column - job.cell.column
        here = seen[max(row, 0) : max(row + len(mask), 0), max(column, 0) : max(column + len(mask), 0)]
        here |= mask[max(-row, 0) :, max(-column, 0) :][: here.shape[0], : here.shape[1]]


def summarise(
    probabilities: NDArray[np.float32], observed: NDArray[np.bool_]
) -> tuple[NDArray[np.uint16], NDArray[np.uint8], NDArray[np.uint8]]:
    """Class, its probability and the uncertainty, each (y, x), as a map stores them; of equal classes the first."""
    n = len(probabilities)
    best = probabilities.argmax(axis=0)
    highest = np.take_along_axis(probabilities, best[None], axis=0)[0]
    # p log p is 0 where p is 0.
    entropy = -(probabilities * np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))).sum(axis=0)
    uncertainty = np.clip(entropy / np.log(n), 0, 1) if n > 1 else np.zeros_like(highest)
    crop_type = np.where(observed, best, NO_CLASS).astype(np.uint16)
    return crop_type, quantise(highest, observed), quantise(uncertainty, observed)


def quantise(shares: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Values 0 to 1 as a map stores them; `observed` (y, x)."""
    return np.where(observed, np.rint(ONE * shares), NOTHING).astype(np.uint8)
