"""What a report is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sits_catalog.region import Region
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.folder import Folder
from sits_pipeline.parcels import ParcelTable
from sits_pipeline.plan import ZonePlan
from sits_pipeline.sources.base import UnusableItem
from sits_pipeline.values import JsonObject

__all__ = ["ReportFacts"]


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """All that a report tells; pixels are read from the cube's overview alone."""

    folder: Folder
    region: Region
    plan: ZonePlan
    cells: Sequence[JsonObject]
    """The journal's entry of each cell that is built; of a cell that was built twice, the last."""
    attributes: JsonObject
    """The root attribute `sits_cube`, statistics included."""
    table: ParcelTable | None
    n_pixels: NDArray[np.int64] | None
    """Pixels that each parcel of `table` has won."""
    split: NDArray[np.uint8] | None
    """Code of `Split` of each parcel of `table`."""
    taxonomy: Taxonomy | None
    unusable: Sequence[UnusableItem]

    @property
    def is_simulated(self) -> bool:
        """Whether the imagery is made up."""
        return bool(self.attributes.get("simulated"))

    @cached_property
    def class_pixels(self) -> Counter[int]:
        """Pixels a value of `crop_type`."""
        return self._sum("classes")

    @cached_property
    def split_pixels(self) -> Counter[int]:
        """Pixels a code of `Split`."""
        return self._sum("splits")

    @cached_property
    def n_built_pixels(self) -> int:
        """Pixels of the cells that are built."""
        return sum(int(entry["cell"][2]) * int(entry["cell"][3]) for entry in self.cells)

    def date_pixels(self, key: str) -> list[int]:
        """Pixels a date: `observed` or `clear`."""
        totals = np.zeros(len(self.plan.acquisitions), np.int64)
        for entry in self.cells:
            totals += np.asarray(entry[key], np.int64)
        return [int(total) for total in totals]

    def _sum(self, key: str) -> Counter[int]:
        counts: Counter[int] = Counter()
        for entry in self.cells:
            counts.update({int(value): int(pixels) for value, pixels in entry[key].items()})
        return counts
