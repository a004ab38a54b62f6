"""One pass over batches: the confusion matrices of boundary, interior, distance bands, parcel sizes and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sits_models.metrics.boundary import distance_bands, name_bands
from sits_models.metrics.confusion import Counted, Margins, counted_pairs, margins_of
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["RegionMatrices", "Regions", "block_keys"]


@dataclass(frozen=True, kw_only=True)
class Regions:
    """How pixels are told apart."""

    distances_dm: tuple[int, ...] = (100, 200, 500)
    """Upper limits of the bands by distance to a parcel's edge, decimetres; one more band holds all beyond."""
    sizes_ha: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0)
    """Upper limits of the size classes of parcels; one more holds all larger."""
    block_px: int
    """Side of a block of the bootstrap, pixels of 10 m, counted from the cube's corner."""

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands by distance, in metres."""
        return name_bands([limit / 10 for limit in self.distances_dm], "m")

    @property
    def size_names(self) -> tuple[str, ...]:
        """Names of the size classes, in hectares."""
        return name_bands(self.sizes_ha, "ha")


class RegionMatrices:
    """Counts that grow batch by batch; memory grows with the blocks seen, 3 K numbers a region, and not with pixels."""

    def __init__(self, *, classes: int, regions: Regions, sizes: Sequence[NDArray[np.int64]] | None = None) -> None:
        """`sizes` holds a `size_table` with the limits of `regions` for each cube; None: no size classes."""
        self.classes = classes
        self.regions = regions
        bands, parcels = len(regions.distances_dm) + 1, 0 if sizes is None else len(regions.sizes_ha) + 1
        self._edges, self._bands = slice(0, 2), slice(2, 2 + bands)
        self._sizes = slice(2 + bands, 2 + bands + parcels)
        self._regions = self._sizes.stop
        self._matrices = np.zeros((self._regions, classes, classes), np.int64)
        self._blocks: dict[int, NDArray[np.int64]] = {}  # (regions, 3, K): hits, targets, predictions
        self._size_table, self._size_offsets = _joined(sizes)

    def add(self, sample: Sample, predicted: Tensor, *, edges: Tensor) -> None:
        """Count a batch: predicted classes, integers (B, mH, mW), and where a pixel is boundary, bool (B, mH, mW).

        `edges` comes from `boundary_window` for the label maps of the cubes, or from `boundary_map` of the sample's
        own labels where nothing in them was set to IGNORE_INDEX for the window's sake. Raises ValueError for shapes
        that differ and for classes outside 0 to K - 1.
        """
        if edges.shape != sample.crop.shape:
            raise ValueError(f"edges has the labels' shape {tuple(sample.crop.shape)}; got {tuple(edges.shape)}")
        truth, guess = counted_pairs(
            sample.crop, predicted, classes=self.classes, ignore_index=IGNORE_INDEX, where=None
        )
        kept = sample.crop != IGNORE_INDEX
        cell = truth * self.classes + guess
        keys, block = torch.unique(block_keys(sample, self.regions.block_px)[kept], return_inverse=True)
        bands = _finer(distance_bands(sample.boundary, self.regions.distances_dm), sample.magnification)
        self._count(self._edges, edges[kept].to(torch.int64), keys, block, cell)
        self._count(self._bands, bands[kept], keys, block, cell)
        if self._size_table is not None:
            self._count(self._sizes, self._size_classes(sample)[kept], keys, block, cell)

    @property
    def overall(self) -> Counted:
        """All counted pixels."""
        return self._counted(self._edges)

    @property
    def boundary(self) -> Counted:
        """Those where `edges` was True."""
        return self._counted(slice(1, 2))

    @property
    def interior(self) -> Counted:
        """Those where it was not."""
        return self._counted(slice(0, 1))

    @property
    def distance_bands(self) -> dict[str, Counted]:
        """By distance to a parcel's edge; pixels whose distance is unknown are in none."""
        return self._each(self._bands, self.regions.band_names)

    @property
    def size_classes(self) -> dict[str, Counted]:
        """Pixels by the size of their parcel; pixels of no parcel are in none. Empty without size tables."""
        return {} if self._size_table is None else self._each(self._sizes, self.regions.size_names)

    @property
    def block_keys(self) -> tuple[tuple[int, int, int], ...]:
        """Cube, block row and block column of every block with a counted pixel, in the order of `Counted.blocks`."""
        return tuple((key >> 40, key >> 20 & 0xFFFFF, key & 0xFFFFF) for key in sorted(self._blocks))

    def _count(self, regions: slice, group: Tensor, keys: Tensor, block: Tensor, cell: Tensor) -> None:
        """Count pixels (N,) of one way to part them: the number of the region, where a negative one is none."""
        k, groups, inside = self.classes, regions.stop - regions.start, group >= 0
        index = ((block * groups + group) * k * k + cell)[inside]
        flat = torch.bincount(index, minlength=len(keys) * groups * k * k).cpu().numpy()
        counts = flat.reshape(len(keys), groups, k, k)
        self._matrices[regions] += counts.sum(0)
        margins = margins_of(counts)
        parts = np.stack([margins.hits, margins.truth, margins.guess], axis=2)  # (blocks, groups, 3, K)
        for key, part in zip(keys.tolist(), parts, strict=True):
            if key not in self._blocks:
                self._blocks[key] = np.zeros((self._regions, 3, k), np.int64)
            self._blocks[key][regions] += part

    def _counted(self, regions: slice) -> Counted:
        found = [self._blocks[key][regions].sum(0) for key in sorted(self._blocks)]
        blocks = np.stack(found) if found else np.zeros((0, 3, self.classes), np.int64)
        return Counted(self._matrices[regions].sum(0), Margins(blocks[:, 0], blocks[:, 1], blocks[:, 2]))

    def _each(self, regions: slice, names: Sequence[str]) -> dict[str, Counted]:
        numbers = range(regions.start, regions.stop)
        return {name: self._counted(slice(n, n + 1)) for n, name in zip(numbers, names, strict=True)}

    def _size_classes(self, sample: Sample) -> Tensor:
        assert self._size_table is not None
        device = sample.parcel.device
        self._size_table, self._size_offsets = self._size_table.to(device), self._size_offsets.to(device)
        cube = sample.place[:, 0]
        rows = self._size_offsets[cube + 1] - self._size_offsets[cube]
        if bool((sample.parcel.amax((-2, -1)) >= rows).any()):
            raise ValueError(f"the size table of a cube lacks the parcel {int(sample.parcel.max())}")
        return self._size_table[sample.parcel + self._size_offsets[cube][:, None, None]]


def block_keys(sample: Sample, block_px: int) -> Tensor:
    """Key of the block of each label, int64 (B, mH, mW): by cube, then by row and column of the block."""
    side, device = block_px * sample.magnification, sample.crop.device
    height, width = sample.crop.shape[-2:]
    place = sample.place * torch.tensor([1, sample.magnification, sample.magnification], device=device)
    rows = (place[:, 1, None] + torch.arange(height, device=device)) // side  # (B, mH)
    columns = (place[:, 2, None] + torch.arange(width, device=device)) // side  # (B, mW)
    # 20 bits each: 2**20 blocks of one pixel would be 10 000 km.
    return (place[:, 0, None, None] << 40) | (rows[:, :, None] << 20) | columns[:, None, :]


def _joined(sizes: Sequence[NDArray[np.int64]] | None) -> tuple[Tensor | None, Tensor]:
    """The tables of all cubes end to end, and where each begins."""
    if sizes is None:
        return None, torch.zeros(1, dtype=torch.int64)
    offsets = np.cumsum([0, *(len(table) for table in sizes)])
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *sizes])), torch.from_numpy(offsets)


def _finer(values: Tensor, magnification: int) -> Tensor:
    """(B, H, W) to (B, mH, mW): each pixel m x m times."""
    return values.repeat_interleave(magnification, -2).repeat_interleave(magnification, -1)
