"""From a view to the arrays of published formats: bands, stacks of coarser pixels, numbers of classes, pickles."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import IGNORE
from sits_catalog.sentinel2 import L1C_BANDS
from sits_pipeline.exporters.views import View, ViewFacts
from sits_pipeline.exporters.whole import Tally
from sits_pipeline.values import JsonObject

__all__ = ["BandPlan", "ClassNumbers", "as_in_file", "dates_of", "int16_of", "plain_pickle", "stack_of"]

_EPOCH = date(1970, 1, 1)
_INT16 = np.iinfo(np.int16).max


# Frames


def dates_of(days: NDArray[np.int32]) -> tuple[date, ...]:
    """Dates of days since 1970-01-01."""
    return tuple(_EPOCH + timedelta(days=int(day)) for day in days)


def as_in_file(view: View, facts: ViewFacts, layout: str) -> NDArray[np.intp]:
    """Positions of the frames in the order of the original's file where it had this layout, else in that of time."""
    if facts.imported != layout:
        return np.arange(len(view.days))
    return np.argsort(view.order, kind="stable")


# Bands


@dataclass(frozen=True)
class BandPlan:
    """Where the bands of a format are in a dataset."""

    positions: tuple[int | None, ...]
    """None: the dataset has no such band."""
    absent: tuple[str, ...]

    @classmethod
    def of(cls, facts: ViewFacts, wanted: Sequence[str], layout: str) -> BandPlan:
        """The plan. Raises ValueError where a band other than those of 60 m, which few cubes have, is missing."""
        absent = tuple(band for band in wanted if band not in facts.bands)
        needed = [band for band in absent if L1C_BANDS[band].resolution_m < 60]
        if needed:
            raise ValueError(
                f"the layout {layout} has the bands {', '.join(wanted)}; {facts.name} lacks {', '.join(needed)}: build "
                "it with these bands"
            )
        return cls(tuple(facts.bands.index(band) if band in facts.bands else None for band in wanted), absent)

    @property
    def note(self) -> tuple[str, ...]:
        """What to say of bands that are not there."""
        if not self.absent:
            return ()
        return (f"The dataset has no {', '.join(self.absent)}: written as 0 everywhere, since the layout has them.",)

    def images(self, view: View) -> list[NDArray[np.uint16]]:
        """(time, y, x) of each band; zeros for one that is not there."""
        none = np.zeros((len(view.days), *view.reflectance.shape[-2:]), np.uint16)
        return [none if position is None else view.reflectance[:, position] for position in self.positions]


def stack_of(image: NDArray[np.uint16], observed: NDArray[np.bool_], factor: int) -> NDArray[np.uint16]:
    """(time, y / factor, x / factor): means over observed pixels; of pixels that were repeated, the value itself."""
    if factor == 1:
        return image
    frames, height, width = image.shape
    blocks = (frames, height // factor, factor, width // factor, factor)
    count = observed.reshape(blocks).sum(axis=(2, 4), dtype=np.int64)
    total = np.where(observed, image, 0).reshape(blocks).sum(axis=(2, 4), dtype=np.int64)
    return np.where(count > 0, (2 * total + count) // np.maximum(2 * count, 1), 0).astype(np.uint16)


def int16_of(image: NDArray[np.uint16], tally: Tally) -> NDArray[np.int16]:
    """The values as the formats' integers; what they cannot hold is the largest one, and counted."""
    tally.clipped += int(np.count_nonzero(image > _INT16))
    return np.minimum(image, _INT16).astype(np.int16)


# Labels


@dataclass(frozen=True)
class ClassNumbers:
    """The number of each class of a dataset in the label arrays of a format."""

    numbers: Mapping[int, int]
    """By class index."""
    background: int
    void: int
    """Of pixels to be ignored."""
    classes: tuple[JsonObject, ...]

    @classmethod
    def consecutive(cls, facts: ViewFacts) -> ClassNumbers:
        """1, 2, ... by index, and void after them, as in PASTIS. Raises ValueError where a byte cannot hold them."""
        void = len(facts.classes) + 1
        if void > 255:
            raise ValueError(
                f"{facts.name} has {len(facts.classes)} classes; the layout's label arrays are bytes and hold at most "
                "254: build with coarser classes"
            )
        numbers = {int(row["index"]): number for number, row in enumerate(facts.classes, 1)}
        return cls(numbers, 0, void, facts.classes)

    @classmethod
    def of_codes(cls, facts: ViewFacts, codes: Sequence[int], layout: str, *, void: int = 0) -> ClassNumbers:
        """Numbers that a published loader knows: the classes' own codes where they are such numbers, else by index.

        Pixels of background are 0 and those to be ignored `void`, which the loaders take for unknown. Raises ValueError
        where there are more classes than numbers.
        """
        own = [str(row["code"]) for row in facts.classes]
        if set(own) <= {str(code) for code in codes}:
            numbers = [int(code) for code in own]
        elif len(own) <= len(codes):
            numbers = list(codes[: len(own)])
        else:
            raise ValueError(
                f"{facts.name} has {len(own)} classes; the published loader of {layout} knows {len(codes)}: build with "
                "coarser classes, or fold rare ones into one"
            )
        indices = [int(row["index"]) for row in facts.classes]
        return cls(dict(zip(indices, numbers, strict=True)), 0, void, facts.classes)

    def encode(self, crop_type: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """(y, x) of the format from (y, x) of the dataset. Raises ValueError for a class that the table lacks."""
        table = np.full(IGNORE + 1, -1, np.int16)
        table[0], table[IGNORE] = self.background, self.void
        for index, number in self.numbers.items():
            table[index] = number
        encoded = table[crop_type]
        if (encoded < 0).any():
            raise ValueError(f"crop_type holds {crop_type[encoded < 0][0]}, which its class table does not have")
        return encoded.astype(np.uint8)

    def document(self) -> JsonObject:
        """`label_names.json`."""
        rows = [
            {
                "value": self.numbers[int(row["index"])],
                **{key: row.get(key) for key in ("name", "code", "hcat", "index")},
            }
            for row in self.classes
        ]
        return {"background": self.background, "void": self.void, "classes": rows}


# Pickles


def plain_pickle(sample: Mapping[str, Any]) -> bytes:
    """A pickle that every Python 3 and NumPy reads.

    NumPy 2 names numpy._core as the module of its arrays, which NumPy before 1.26 does not have; both know numpy.core.
    """
    data = pickle.dumps(dict(sample), protocol=3)
    out, done = io.BytesIO(), 0
    for opcode, argument, place in pickletools.genops(data):
        if opcode.name == "GLOBAL" and str(argument).startswith("numpy._core."):
            module, _, name = str(argument).partition(" ")
            assert place is not None
            out.write(data[done:place])
            out.write(f"c{module.replace('numpy._core.', 'numpy.core.')}\n{name}\n".encode())
            done = place + len(f"c{module}\n{name}\n")
    out.write(data[done:])
    return out.getvalue()
