"""Reflectance spectra of pure covers in the twelve bands of Level-2A.

Round numbers in the middle of what field spectra of such covers show; they are no measurements.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sits_catalog.sentinel2 import BANDS

__all__ = ["GROUNDS", "GROUND_NAMES", "LEAVES", "SKY", "STRAW", "band_columns"]

_ORDER = tuple(BANDS)


def band_columns(bands: tuple[str, ...]) -> NDArray[np.intp]:
    """Positions of some bands in the spectra of this module.

    >>> band_columns(("B02", "B8A")).tolist()
    [1, 8]
    """
    return np.array([_ORDER.index(band) for band in bands], np.intp)


def _spectrum(*percent: float) -> NDArray[np.float32]:
    assert len(percent) == len(_ORDER)
    return np.array([value / 100 for value in percent], np.float32)


#                       B01   B02   B03   B04   B05   B06   B07   B08   B8A   B09   B11   B12
LEAVES: Mapping[str, NDArray[np.float32]] = {
    "cereal": _spectrum(1.6, 2.2, 5.4, 2.1, 8.4, 32.0, 42.0, 45.0, 47.0, 47.0, 20.0, 8.5),
    "rapeseed": _spectrum(1.9, 2.8, 7.0, 2.9, 10.5, 34.0, 44.0, 48.0, 50.0, 50.0, 21.0, 10.0),
    "maize": _spectrum(1.5, 2.1, 5.0, 2.2, 7.6, 29.0, 38.0, 41.0, 43.0, 43.0, 19.0, 8.0),
    "beet": _spectrum(1.7, 2.5, 6.6, 2.2, 10.2, 40.0, 51.0, 55.0, 57.0, 56.0, 22.0, 8.5),
    "potato": _spectrum(1.7, 2.4, 6.2, 2.4, 9.4, 36.0, 46.0, 50.0, 52.0, 51.0, 20.0, 8.5),
    "sunflower": _spectrum(1.8, 2.6, 6.4, 3.0, 9.8, 35.0, 44.0, 48.0, 50.0, 49.0, 22.0, 10.5),
    "soy": _spectrum(1.6, 2.2, 6.2, 2.0, 9.6, 42.0, 54.0, 57.0, 59.0, 58.0, 20.0, 8.0),
    "grass": _spectrum(2.0, 2.9, 6.2, 3.4, 9.8, 27.0, 34.0, 37.0, 39.0, 39.0, 22.0, 11.0),
    "alfalfa": _spectrum(1.7, 2.4, 6.2, 2.4, 9.6, 36.0, 46.0, 49.0, 51.0, 51.0, 22.0, 9.5),
    "vine": _spectrum(1.8, 2.6, 5.6, 2.9, 8.6, 26.0, 33.0, 36.0, 38.0, 38.0, 19.0, 9.0),
    "broadleaf": _spectrum(1.3, 1.8, 4.2, 1.8, 7.2, 26.0, 34.0, 36.0, 38.0, 38.0, 17.0, 7.0),
    "conifer": _spectrum(1.2, 1.6, 2.8, 1.7, 4.6, 13.0, 16.5, 18.0, 19.0, 19.0, 9.5, 4.6),
    "rapeseed flower": _spectrum(2.2, 3.4, 15.5, 14.5, 20.0, 35.0, 41.0, 44.0, 46.0, 46.0, 23.0, 12.5),
    "sunflower flower": _spectrum(2.2, 3.2, 11.5, 11.0, 16.0, 34.0, 41.0, 44.0, 46.0, 45.0, 23.0, 12.5),
}
"""Closed green canopies, and flowers over them."""

STRAW = _spectrum(5.0, 7.2, 11.6, 15.4, 19.0, 21.6, 23.4, 26.0, 28.6, 29.5, 36.0, 26.0)
"""Ripe or dry canopy and its residue."""

GROUNDS: Mapping[str, NDArray[np.float32]] = {
    "loess": _spectrum(6.6, 8.4, 11.8, 15.2, 17.6, 19.0, 20.2, 21.6, 22.8, 23.6, 30.0, 25.0),
    "dark loam": _spectrum(4.4, 5.4, 7.2, 9.0, 10.6, 11.8, 12.8, 14.0, 15.0, 15.6, 21.5, 18.0),
    "chalk": _spectrum(11.0, 14.0, 19.0, 23.5, 26.0, 27.5, 28.5, 30.0, 31.0, 31.5, 37.0, 33.0),
    "terra rossa": _spectrum(4.6, 5.6, 9.2, 16.0, 19.0, 20.6, 22.0, 23.6, 25.2, 26.0, 34.0, 28.5),
    "limestone": _spectrum(10.0, 12.6, 17.0, 21.5, 24.0, 25.4, 26.6, 28.0, 29.2, 30.0, 38.0, 34.0),
    "mollisol": _spectrum(3.6, 4.4, 6.0, 7.8, 9.2, 10.4, 11.4, 12.6, 13.6, 14.2, 20.0, 17.2),
    "sand": _spectrum(8.6, 11.0, 15.4, 20.0, 22.6, 24.4, 25.8, 27.4, 28.8, 29.6, 40.0, 36.0),
    "asphalt": _spectrum(6.6, 7.4, 8.8, 9.8, 10.4, 10.8, 11.2, 11.8, 12.2, 12.4, 13.6, 13.0),
    "gravel": _spectrum(9.0, 11.0, 14.4, 17.0, 18.6, 19.6, 20.4, 21.4, 22.2, 22.6, 27.0, 24.5),
    "roof": _spectrum(7.6, 9.0, 11.2, 15.4, 17.4, 18.4, 19.0, 20.0, 20.6, 21.0, 24.0, 22.0),
    "bright roof": _spectrum(24.0, 28.0, 30.0, 31.0, 32.0, 32.4, 32.8, 33.4, 33.8, 34.0, 31.0, 28.0),
    "litter": _spectrum(2.6, 3.2, 4.6, 6.0, 7.8, 9.4, 10.6, 12.0, 13.2, 13.8, 19.0, 13.0),
    "lake": _spectrum(2.2, 1.7, 1.3, 0.55, 0.35, 0.15, 0.10, 0.05, 0.02, 0.0, -0.05, -0.08),
    "river": _spectrum(3.2, 3.4, 4.2, 2.6, 1.6, 0.7, 0.5, 0.35, 0.25, 0.2, 0.08, 0.03),
}
"""What lies under the canopy. Water is so dark that the atmospheric correction leaves some of it below zero."""

GROUND_NAMES = tuple(GROUNDS)

SKY: Mapping[str, NDArray[np.float32]] = {
    "cloud": _spectrum(62.0, 62.0, 62.0, 63.0, 64.0, 65.0, 66.0, 67.0, 68.0, 60.0, 52.0, 40.0),
    "cirrus": _spectrum(13.0, 12.0, 11.0, 10.4, 10.2, 10.0, 9.8, 9.6, 9.4, 9.0, 5.0, 4.0),
    "haze": _spectrum(2.6, 1.9, 1.2, 0.7, 0.55, 0.45, 0.4, 0.3, 0.25, 0.2, 0.05, 0.02),
    "snow": _spectrum(84.0, 85.0, 85.0, 84.0, 83.0, 81.0, 80.0, 79.0, 77.0, 74.0, 12.0, 9.0),
    "shadow": _spectrum(46.0, 50.0, 55.0, 60.0, 62.0, 64.0, 65.0, 66.0, 67.0, 67.0, 72.0, 74.0),
}
"""Opaque cloud, full cirrus and haze (added light), snow, and the share of light a full cloud shadow takes away."""
