"""Facts of Sentinel-2: bands of Level-2A and Level-1C, scene classification, product names, processing baselines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

__all__ = [
    "BANDS",
    "BOA_OFFSET",
    "DEFAULT_BANDS",
    "L1C_BANDS",
    "SATURATED",
    "Band",
    "ProductId",
    "Scl",
    "bands_of",
    "baseline_key",
    "has_boa_offset",
    "parse_product_id",
]

BOA_OFFSET = -1000
"""BOA_ADD_OFFSET, in DN, of every band from processing baseline 04.00 on (ESA, PSD 14.9)."""

SATURATED = 65535
"""DN that ESA reserves for saturated pixels; it carries no offset."""


@dataclass(frozen=True)
class Band:
    """A spectral band of the MultiSpectral Instrument."""

    name: str
    resolution_m: int
    centre_nm: float
    """Central wavelength of Sentinel-2A, in nanometres."""
    boa_index: int
    """`band_id` in the product metadata (B01..B08, B8A, B09..B12 are 0..12)."""
    common_name: str
    """Name in the STAC electro-optical extension."""


BANDS: dict[str, Band] = {
    band.name: band
    for band in (
        Band("B01", 60, 442.7, 0, "coastal"),
        Band("B02", 10, 492.7, 1, "blue"),
        Band("B03", 10, 559.8, 2, "green"),
        Band("B04", 10, 664.6, 3, "red"),
        Band("B05", 20, 704.1, 4, "rededge071"),
        Band("B06", 20, 740.5, 5, "rededge075"),
        Band("B07", 20, 782.8, 6, "rededge078"),
        Band("B08", 10, 832.8, 7, "nir"),
        Band("B8A", 20, 864.7, 8, "nir08"),
        Band("B09", 60, 945.1, 9, "nir09"),
        Band("B11", 20, 1613.7, 11, "swir16"),
        Band("B12", 20, 2202.4, 12, "swir22"),
    )
}
"""The twelve bands that Level-2A holds (B10 exists in Level-1C only), in ESA's order."""

L1C_BANDS: dict[str, Band] = dict(
    sorted(
        {**BANDS, "B10": Band("B10", 60, 1376.9, 10, "cirrus")}.items(),
        key=lambda named: named[1].boa_index,
    )
)
"""The thirteen bands of Level-1C; only sets that were imported may have them."""

DEFAULT_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")


class Scl(IntEnum):
    """Scene classification of Level-2A."""

    NO_DATA = 0
    SATURATED_OR_DEFECTIVE = 1
    DARK_AREA = 2
    CLOUD_SHADOW = 3
    VEGETATION = 4
    NOT_VEGETATED = 5
    WATER = 6
    UNCLASSIFIED = 7
    CLOUD_MEDIUM = 8
    CLOUD_HIGH = 9
    THIN_CIRRUS = 10
    SNOW_OR_ICE = 11


def bands_of(level: str) -> dict[str, Band]:
    """The bands that a product of this level ("L1C", "L2A") may hold, in ESA's order.

    >>> "B10" in bands_of("L1C"), "B10" in bands_of("L2A")
    (True, False)
    """
    return L1C_BANDS if level == "L1C" else BANDS


def baseline_key(baseline: str) -> tuple[int, int]:
    """A processing baseline ("04.00", "0400" or "N0400") as a pair that sorts.

    >>> baseline_key("05.09") > baseline_key("N0400")
    True
    """
    match = re.fullmatch(r"N?(\d{2})\.?(\d{2})", baseline.strip())
    if match is None:
        raise ValueError(f"a processing baseline looks like 05.09 or N0509; got {baseline!r}")
    return int(match[1]), int(match[2])


def has_boa_offset(baseline: str) -> bool:
    """Whether ESA's product of this baseline carries BOA_OFFSET: decided by baseline, never by date."""
    return baseline_key(baseline) >= (4, 0)


@dataclass(frozen=True)
class ProductId:
    """ESA's product name, taken apart."""

    platform: str
    """"S2A", "S2B", "S2C"."""
    level: str
    """"L2A" or "L1C"."""
    sensing: datetime
    baseline: str
    """"05.09"."""
    orbit: int
    mgrs_tile: str
    """"31TEJ", without the leading T."""
    discriminator: datetime


_PRODUCT = re.compile(
    r"(S2[A-D])_MSI(L1C|L2A)_(\d{8}T\d{6})_N(\d{4})_R(\d{3})_T(\d{2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])_(\d{8}T\d{6})"
)


def parse_product_id(name: str) -> ProductId:
    """The parts of a product name such as S2A_MSIL2A_20180418T104021_N0207_R008_T31TEJ_20180418T125356[.SAFE]."""
    match = _PRODUCT.fullmatch(name.removesuffix(".SAFE"))
    if match is None:
        raise ValueError(
            f"a product is named S2x_MSIL2A_<sensing>_N<baseline>_R<orbit>_T<tile>_<time>[.SAFE]; got {name!r}"
        )
    platform, level, sensing, baseline, orbit, tile, discriminator = match.groups()
    return ProductId(
        platform=platform,
        level=level,
        sensing=_time(sensing),
        baseline=f"{baseline[:2]}.{baseline[2:]}",
        orbit=int(orbit),
        mgrs_tile=tile,
        discriminator=_time(discriminator),
    )


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
