"""Facts of published file formats: bands and their order, sides of chips, numbers of classes; importers read the same.

Of PASTIS: Sainte Fare Garnot and Landrieu 2021, github.com/VSainteuf/pastis-benchmark. Of PASTIS24, T31TFM_1618 and the
pickles of MTLCC: github.com/michaeltrs/DeepSatModels. Of MTLCC: Russwurm and Koerner 2018, github.com/TUM-LMF/MTLCC.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "BAND_FACTOR",
    "MTLCC_CODES",
    "MTLCC_STACKS",
    "PASTIS_BANDS",
    "SIDES",
    "STACKS",
    "T31TFM_CODES",
    "T31TFM_UNKNOWN",
    "Layout",
]

Layout = Literal["pastis", "pastis24", "mtlcc", "t31tfm"]

SIDES: dict[Layout, int] = {"pastis": 128, "pastis24": 24, "mtlcc": 24, "t31tfm": 48}
"""Pixels of 10 m along a side of a chip."""

PASTIS_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""Bands of PASTIS and PASTIS24 in their order, all at 10 m."""

STACKS: dict[str, tuple[str, ...]] = {
    "x10": ("B04", "B03", "B02", "B08"),
    "x20": ("B05", "B06", "B07", "B8A", "B11", "B12"),
    "x60": ("B01", "B09", "B10"),
}
"""Bands of the arrays of MTLCC in their order."""

MTLCC_STACKS: dict[str, int] = {"x10": 1, "x20": 2, "x60": 6}
"""Pixels of 10 m along a side of a stack's pixel."""

BAND_FACTOR: dict[str, int] = {band: MTLCC_STACKS[stack] for stack, bands in STACKS.items() for band in bands}
"""The same by band."""

MTLCC_CODES: tuple[int, ...] = (1, 2, 3, 5, 8, 9, 12, 13, 15, 16, 17, 19, *range(22, 27))
"""Numbers in the label arrays of MTLCC that the published loader knows, in the order of its classes 0..16.

0 and every other number is unknown.
"""

T31TFM_CODES: tuple[int, ...] = (1, 2, 3, *range(6, 15), 20, 25, *range(33, 37), 48, 73)
"""Numbers in the label rasters of T31TFM_1618 that the published loader knows, in the order of its classes 0..19.

All others of 0..167 are unknown. The names behind the numbers are not published with the loader.
"""

T31TFM_UNKNOWN = 4
"""One of the numbers that the published loader takes for unknown; so is 0, which means that there is no parcel."""
