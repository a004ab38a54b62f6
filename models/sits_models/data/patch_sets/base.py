"""What every dataset of many small places answers, so that no reader asks how its files lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sits_models.data.cubes import CropEntry

__all__ = ["Patch", "PatchSet", "PatchSetFacts"]


@dataclass(frozen=True, kw_only=True)
class PatchSetFacts:
    """What a patch set of P patches says of itself."""

    path: str
    """Its folder, or its URL."""
    name: str
    bands: tuple[str, ...]
    sizes: NDArray[np.int64]
    """(P, 2): height and width of each patch, pixels."""
    days: NDArray[np.int32]
    """(P, T): days since 1970-01-01, NO_DAY for padding, which stands last; 0 where a dataset does not say when."""
    splits: NDArray[np.uint8]
    """(P,): `Split` of each patch; NONE for all where the dataset has no splits."""
    classes: tuple[CropEntry, ...] = ()
    """By `index`, from 0; empty in a set without labels. Where ground that is known to be of no class is labelled, it
    is the first one, with `BACKGROUND_CODE`."""
    dense: bool = True
    """Whether labels are of pixels (`Patch.crop`); False: of patches as such (`Patch.present`)."""
    radiometry: Mapping[str, object] = field(default_factory=dict)
    """As a cube has it: level, scale, offset_removed, clamp."""
    identity: str = ""
    """A SHA-256, of no pixel and not of the place on the disk. Of our datasets: the configuration of the build and the
    splits. Of published folders: the layout, the names of the patches, their splits, and what else is read when the set
    is opened: the dates (seco, oscd), the sizes (oscd), the classes of each patch (bigearthnet), the suffix (eurosat);
    or the size of each file in bytes, names of bands, and names of classes with their values (geotiffs)."""
    complete: bool = True
    simulated: bool = False


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A window of a patch, of the dates that were asked for."""

    image: NDArray[np.uint16]
    """(T, C, H, W): all bands of the set, or those asked for; reflectance x 10000, 0 = not observed. Other values (of
    8 bits, say) are scaled such that the largest is 10000, and the least that was observed is 1."""
    clear: NDArray[np.bool_]
    """(T, H, W): observed, and neither cloud, shadow, snow, cirrus nor defect, as far as the set knows."""
    crop: NDArray[np.uint16] | None = None
    """(H, W): `index` of a class, IGNORE (65535) where there is none; None in a set without labels of pixels."""
    parcel: NDArray[np.int64] | None = None
    """(H, W): number of the parcel in the set, 0 = none; None where it has no parcels."""
    present: NDArray[np.bool_] | None = None
    """(K,): which classes the patch has; None in a set without labels of patches."""


class PatchSet(ABC):
    """Patches by number, from 0; it pickles, and several threads may read."""

    facts: PatchSetFacts

    @abstractmethod
    def read(
        self,
        number: int,
        rows: slice,
        columns: slice,
        dates: NDArray[np.intp],
        bands: NDArray[np.intp] | None = None,
    ) -> Patch:
        """A window of a patch, which lies inside of it, of the dates of these positions in its row of `facts.days`.

        The image has the bands of these positions in `facts.bands` in their order (None: all), with the values that
        they have among all; `clear` and the labels do not depend on which are asked for. Sets whose bands lie in files
        of their own leave the others unread.

        Raises OSError, in one sentence that names the file, where it cannot be read.
        """

    def labels(self, number: int) -> Patch:
        """The whole patch as `read` gives it, of which the labels alone are looked at, as every label is once.

        A set whose labels lie apart from its images leaves these out (no date), for it may have many patches.
        """
        height, width = self.facts.sizes[number].tolist()
        return self.read(number, slice(0, height), slice(0, width), np.zeros(1, np.intp))
