"""What the journal's lines of an import say together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sits_pipeline.steps.statistics import BandSums, merge
from sits_pipeline.values import JsonObject

__all__ = ["ImportTally", "PatchTally", "tally_import"]


@dataclass(frozen=True, kw_only=True)
class PatchTally:
    """What is known of one patch."""

    observed: NDArray[np.int32]
    """Pixels a date."""
    clear: NDArray[np.int32]
    """Pixels a date."""
    clamped: int
    """Values of observed pixels that were 0 or less and are 1 now."""
    saturated: int
    """Pixels and dates that are saturated or defective."""
    classes: tuple[tuple[int, int], ...]
    """Values of `crop_type` and how many pixels have them."""


@dataclass
class ImportTally:
    """What is known of all patches, in their order."""

    patches: list[PatchTally] = field(default_factory=list)
    bands: list[BandSums] = field(default_factory=list)

    @property
    def clamped(self) -> int:
        """Values of observed pixels that were 0 or less and are 1 now."""
        return sum(patch.clamped for patch in self.patches)

    def pixels_of(self, patches: Iterable[int]) -> Counter[int]:
        """Pixels of each value of `crop_type` in these patches."""
        counts: Counter[int] = Counter()
        for patch in patches:
            counts.update(dict(self.patches[patch].classes))
        return counts


def tally_import(lines: Iterable[bytes]) -> ImportTally:
    """The tally of the lines of all shards, in the order of their patches."""
    tally = ImportTally()
    for line in lines:
        entry: JsonObject = json.loads(line)
        tally.patches += [_patch(note) for note in entry["patches"]]
        more = merge([entry["bands"]])
        tally.bands = [a + b for a, b in zip(tally.bands, more, strict=True)] if tally.bands else more
    return tally


def _patch(note: JsonObject) -> PatchTally:
    return PatchTally(
        observed=np.array(note["observed"], np.int32),
        clear=np.array(note["clear"], np.int32),
        clamped=note["clamped"],
        saturated=note["saturated"],
        classes=tuple((index, count) for index, count in note["classes"]),
    )
