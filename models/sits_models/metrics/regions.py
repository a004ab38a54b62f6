"""One pass over batches: the confusion matrices of boundary, interior, distance bands, parcel sizes and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sits_models.metrics.boundary import distance_bands, name_bands
from sits_models.metrics.confusion import counted_pairs
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["RegionMatrices", "Regions"]


@dataclass(frozen=True, kw_only=True)
class Regions:
    """How pixels are told apart."""

    distances_dm: tuple[int, ...] = (100, 200, 400)
    """Upper limits of the bands by distance to a parcel's edge, decimetres; one more band holds all beyond."""
    sizes_ha: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0)
    """Upper limits of the size classes of parcels; one more holds all larger."""
    block_px: int = 64
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
    """Confusion matrices, int64 (K, K) with rows = target, that grow batch by batch."""

    def __init__(self, *, classes: int, regions: Regions, sizes: Sequence[NDArray[np.int64]] | None = None) -> None:
        """`sizes` holds a `size_table` with the limits of `regions` for each cube; None: no size classes."""
        self.classes = classes
        self.regions = regions
        self.overall = np.zeros((classes, classes), np.int64)
        self.boundary = np.zeros_like(self.overall)
        self.interior = np.zeros_like(self.overall)
        self._bands = np.zeros((len(regions.distances_dm) + 1, classes, classes), np.int64)
        self._sizes = np.zeros((len(regions.sizes_ha) + 1, classes, classes), np.int64)
        self._blocks: dict[tuple[int, int, int], NDArray[np.int64]] = {}
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
        by_edge = self._grouped(edges[kept].to(torch.int64), cell, 2)
        self.interior += by_edge[0]
        self.boundary += by_edge[1]
        self.overall += by_edge.sum(0)
        bands = _finer(distance_bands(sample.boundary, self.regions.distances_dm), sample.magnification)
        self._bands += self._grouped(bands[kept], cell, len(self._bands))
        if self._size_table is not None:
            self._sizes += self._grouped(self._size_classes(sample)[kept], cell, len(self._sizes))
        self._add_blocks(sample, kept, cell)

    @property
    def distance_bands(self) -> dict[str, NDArray[np.int64]]:
        """By distance to a parcel's edge; pixels whose distance is unknown are in none."""
        return dict(zip(self.regions.band_names, self._bands, strict=True))

    @property
    def size_classes(self) -> dict[str, NDArray[np.int64]]:
        """Pixels by the size of their parcel; pixels of no parcel are in none. Empty without size tables."""
        return {} if self._size_table is None else dict(zip(self.regions.size_names, self._sizes, strict=True))

    @property
    def block_keys(self) -> tuple[tuple[int, int, int], ...]:
        """Cube, block row and block column of every block with a counted pixel, sorted."""
        return tuple(sorted(self._blocks))

    @property
    def blocks(self) -> NDArray[np.int64]:
        """(N, K, K), in the order of `block_keys`: what the bootstrap draws from."""
        found = [self._blocks[key] for key in self.block_keys]
        return np.stack(found) if found else np.zeros((0, self.classes, self.classes), np.int64)

    def _grouped(self, group: Tensor, cell: Tensor, groups: int) -> NDArray[np.int64]:
        """Matrices (groups, K, K) of counted pixels by their group; a negative group is none."""
        k = self.classes
        inside = group >= 0
        counts = torch.bincount(group[inside] * (k * k) + cell[inside], minlength=groups * k * k)
        return counts.cpu().numpy().reshape(groups, k, k)

    def _size_classes(self, sample: Sample) -> Tensor:
        assert self._size_table is not None
        device = sample.parcel.device
        self._size_table, self._size_offsets = self._size_table.to(device), self._size_offsets.to(device)
        cube = sample.place[:, 0]
        rows = self._size_offsets[cube + 1] - self._size_offsets[cube]
        if bool((sample.parcel.amax((-2, -1)) >= rows).any()):
            raise ValueError(f"the size table of a cube lacks the parcel {int(sample.parcel.max())}")
        return self._size_table[sample.parcel + self._size_offsets[cube][:, None, None]]

    def _add_blocks(self, sample: Sample, kept: Tensor, cell: Tensor) -> None:
        side = self.regions.block_px * sample.magnification
        device = sample.crop.device
        height, width = sample.crop.shape[-2:]
        place = sample.place * torch.tensor([1, sample.magnification, sample.magnification], device=device)
        rows = (place[:, 1, None] + torch.arange(height, device=device)) // side  # (B, mH)
        columns = (place[:, 2, None] + torch.arange(width, device=device)) // side  # (B, mW)
        # 20 bits each: 2**20 blocks of one pixel would be 10 000 km.
        key = (place[:, 0, None, None] << 40) | (rows[:, :, None] << 20) | columns[:, None, :]
        keys, group = torch.unique(key[kept], return_inverse=True)
        for number, matrix in zip(keys.tolist(), self._grouped(group, cell, len(keys)), strict=True):
            name = (number >> 40, number >> 20 & 0xFFFFF, number & 0xFFFFF)
            self._blocks[name] = self._blocks[name] + matrix if name in self._blocks else matrix


def _joined(sizes: Sequence[NDArray[np.int64]] | None) -> tuple[Tensor | None, Tensor]:
    """The tables of all cubes end to end, and where each begins."""
    if sizes is None:
        return None, torch.zeros(1, dtype=torch.int64)
    offsets = np.cumsum([0, *(len(table) for table in sizes)])
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *sizes])), torch.from_numpy(offsets)


def _finer(values: Tensor, magnification: int) -> Tensor:
    """(B, H, W) to (B, mH, mW): each pixel m x m times."""
    return values.repeat_interleave(magnification, -2).repeat_interleave(magnification, -1)
