"""What an original dataset is to the importer that writes it down: facts, an index of patches, and their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_catalog.taxonomy import Taxonomy

__all__ = ["Chronology", "Original", "OriginalFacts", "OriginalPatch", "PatchPixels"]

Chronology = Literal["kept", "restored", "day-of-year"]
"""Of the frames: as the files have it; put right from other files; or lost, so that `day` says the day of the year
alone, in the year that the season ends in."""


@dataclass(frozen=True, kw_only=True)
class OriginalFacts:
    """What is true of the whole set."""

    id: str
    """Name of the dataset that is written: lower case, as a region's."""
    title: str
    format: str
    """pastis, pastis24, mtlcc or t31tfm: what `export` writes again."""
    level: Literal["L1C", "L2A"]
    bands: tuple[str, ...]
    """In the order of the arrays that `read` gives."""
    height: int
    """Pixels of 10 m of every patch."""
    width: int
    variant: str = ""
    """Which of several forms of the files is read, where an original has them: another one gives other pixels."""
    taxonomy: Taxonomy
    """Its class indices are the values of `crop_type`; 0 is background, 65535 what is to be ignored."""
    chronology: Chronology
    licence: str
    attribution: str
    labels: tuple[str, ...] = ("crop_type",)
    """Names of the label arrays that `read` gives of every patch; `split` is written from the patches' own."""
    notes: tuple[str, ...] = ()
    """Sentences for the item and the report: what was left out, what is odd."""


@dataclass(frozen=True, kw_only=True)
class OriginalPatch:
    """One patch, as far as it is known before its pixels are read."""

    name: str
    """Its name in the original; unique in the set."""
    days: NDArray[np.int32]
    """(time,) days since 1970-01-01, ascending; two frames may share a day."""
    order: NDArray[np.int32]
    """(time,) position of each frame in the original."""
    split: Literal["none", "train", "validation", "test"] = "none"
    fold: int | None = None
    outline: shapely.Geometry | None = None
    """In lon/lat; None where the original does not say."""
    epsg: int | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    """Affine of pixel corners in `epsg`, where the original has one."""
    original: Mapping[str, Any] = field(default_factory=dict)
    """Plain values that an export needs to write the files again: names of files, numbers, years."""


@dataclass(frozen=True, kw_only=True)
class PatchPixels:
    """The pixels of one patch."""

    dn: NDArray[np.int32]
    """(time, band, y, x) as the file has them, bands of 20 m and 60 m repeated to 10 m; not offset, not normalised."""
    labels: Mapping[str, NDArray[Any]]
    """(y, x) label arrays by the contract's name and in its type: those that `OriginalFacts.labels` names."""
    unobserved: NDArray[np.bool_] | None = None
    """(time, y, x) where the original marks a pixel as not observed; None: where no band is above 0."""
    defective: NDArray[np.bool_] | None = None
    """(time, y, x) where the original marks a band of an observed pixel as missing; None: nowhere."""


class Original(Protocol):
    """A dataset in its original format; a pickle of it opens the same files in another process."""

    @property
    def facts(self) -> OriginalFacts:
        """What is true of the whole set."""
        ...

    def index(self) -> Sequence[OriginalPatch]:
        """All patches, in an order that depends on their names alone.

        Raises FileNotFoundError or ValueError, in one sentence, for files that are missing or not of the format.
        """
        ...

    def files(self, patch: OriginalPatch) -> Mapping[str, Path]:
        """The files that `read` opens for a patch, by their names in the original."""
        ...

    def read(self, patch: OriginalPatch) -> PatchPixels:
        """The pixels of a patch. Raises ValueError, with the file's name, where they are not what the format says."""
        ...
