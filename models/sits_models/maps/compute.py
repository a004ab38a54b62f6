"""From a cube and a model to the class probabilities of one block after the other."""

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
from sits_models.tiling import Block, Mosaic, Tile, Tiling

__all__ = ["BlockMap", "Computation", "compute_blocks", "quantise", "summarise"]


@dataclass(frozen=True, kw_only=True)
class BlockMap:
    """What is known of a block of (m height, m width) pixels of the map."""

    block: Block
    crop_type: NDArray[np.uint16]
    """Index in the class table; 65535 where nothing was observed."""
    probability: NDArray[np.uint8]
    """Probability of that class x 254; 255 where nothing was observed."""
    uncertainty: NDArray[np.uint8]
    """Entropy of the probabilities over log K, x 254; 255 where nothing was observed."""
    probabilities: NDArray[np.float32]
    """(K, y, x), 1 in sum."""


@dataclass(frozen=True, kw_only=True)
class Computation:
    """All that decides the pixels of a map, and how they are come by."""

    model: Segmentation
    cube: Cube
    table: ClassTable
    """The model's classes."""
    dates: DateRule
    pad_to: int | None
    """Dates the model was built for, where no other number works."""
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
    """Tiles of a block that the model sees at a time."""

    block: Block
    tiles: tuple[Tile, ...]
    last: bool
    """Whether the block is complete with them."""


def compute_blocks(computation: Computation, blocks: Sequence[Block]) -> Generator[BlockMap]:
    """The blocks in the order given; each is the same whatever comes before it."""
    model = computation.model.to(computation.device).eval()
    mosaic: Mosaic | None = None
    seen = np.empty((0, 0), np.bool_)
    for job, sample in _read_ahead(computation, blocks):
        with torch.inference_mode():
            if mosaic is None:
                mosaic = _mosaic(computation, job.block)
                seen = np.zeros((job.block.height, job.block.width), np.bool_)
            observed = _observed(sample)
            _mark(seen, job, observed)
            # A tile without any observation would fill pixels that hold no class anyway.
            if observed.any():
                logits = model(sample.to(computation.device, non_blocking=True))
                for tile, part in zip(job.tiles, logits, strict=True):
                    mosaic.add(tile, part)
            if job.last:
                yield _finished(job.block, mosaic.logits(), seen, computation.magnification)
                mosaic = None


def _mosaic(computation: Computation, block: Block) -> Mosaic:
    return Mosaic(
        computation.tiling,
        block,
        classes=computation.table.n,
        magnification=computation.magnification,
        device=computation.device,
    )


def _jobs(computation: Computation, blocks: Sequence[Block]) -> Iterator[_Job]:
    for block in blocks:
        groups = list(batched(computation.tiling.tiles(block), computation.batch))
        for number, tiles in enumerate(groups, 1):
            yield _Job(block, tiles, number == len(groups))


def _read_ahead(computation: Computation, blocks: Sequence[Block]) -> Iterator[tuple[_Job, Sample]]:
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
        for job in _jobs(computation, blocks):
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
    """Enter what is observed of some tiles into their block."""
    for tile, mask in zip(job.tiles, observed, strict=True):
        row, column = tile.row - job.block.row, tile.column - job.block.column
        here = seen[max(row, 0) : max(row + len(mask), 0), max(column, 0) : max(column + len(mask), 0)]
        here |= mask[max(-row, 0) :, max(-column, 0) :][: here.shape[0], : here.shape[1]]


def _finished(block: Block, logits: Tensor, seen: NDArray[np.bool_], m: int) -> BlockMap:
    probabilities = torch.softmax(logits, dim=0).cpu().numpy()
    observed = seen.repeat(m, axis=0).repeat(m, axis=1)
    crop_type, probability, uncertainty = summarise(probabilities, observed)
    return BlockMap(
        block=block,
        crop_type=crop_type,
        probability=probability,
        uncertainty=uncertainty,
        probabilities=probabilities,
    )


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
