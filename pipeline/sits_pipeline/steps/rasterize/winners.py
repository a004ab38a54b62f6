"""The best parcel of each pixel and, under the rule `area`, its winner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sits_pipeline.steps.rasterize.coverage import WHOLE, Shares
from sits_pipeline.steps.rasterize.lattice import Lattice

__all__ = ["Best", "best_parcels"]

_LOW = (1 << 32) - 1


@dataclass(frozen=True, kw_only=True)
class Best:
    """The parcel that covers most of each pixel."""

    share: NDArray[np.int64]
    """(pixel,), 0..WHOLE."""
    parcel: NDArray[np.intp]
    """(pixel,), position of the parcel; -1 where no parcel covers any of the pixel."""

    def coverage(self) -> NDArray[np.uint8]:
        """The share x 255, rounded up, (pixel,)."""
        return (-(-self.share * 255 // WHOLE)).astype(np.uint8)

    def winner(self, min_coverage: float) -> NDArray[np.intp]:
        """The parcel where it covers at least `min_coverage` of the pixel, else -1."""
        return np.where(self.share >= round(min_coverage * WHOLE), self.parcel, -1)


def best_parcels(shares: Shares, lattice: Lattice) -> Best:
    """The best parcel of every pixel; of two with one share the earlier, which has the smaller parcel_id."""
    best = np.zeros(lattice.n_pixels, np.int64)
    # One number to maximize: the share, then the smaller position.
    np.maximum.at(best, shares.pixel, (shares.share << 32) | (_LOW - shares.parcel))
    return Best(share=best >> 32, parcel=np.where(best > 0, _LOW - (best & _LOW), -1))
