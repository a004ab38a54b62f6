"""From one CRS to another, each found once."""

from __future__ import annotations

from functools import lru_cache

from pyproj import CRS, Transformer

__all__ = ["transformer_between"]


@lru_cache(maxsize=256)
def transformer_between(source: int | CRS, target: int | CRS) -> Transformer:
    """From a CRS, or its EPSG code, to another; x comes before y, and longitude before latitude.

    PROJ looks for up to 0.1 s for the best way from a country's CRS, and a build goes the same ways again and again.
    Any thread may use what is returned. Raises ProjError where there is no way.
    """
    return Transformer.from_crs(source, target, always_xy=True)
