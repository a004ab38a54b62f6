"""Rows of a vector file as they are: geometry, and columns as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_catalog.wkb import read_wkb

__all__ = ["Box", "Features", "as_text", "geometry_of"]

Box = tuple[float, float, float, float]
"""West, south, east, north in a file's own CRS."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Rows of a vector file, as they are."""

    row: NDArray[np.int64]
    """Position in the file, ascending; the feature's own number where the format has one."""
    geometry: NDArray[np.object_]
    """shapely geometries in the file's CRS; None where the row has none."""
    columns: Mapping[str, NDArray[np.object_]]
    """str or None a row."""


def as_text(values: NDArray[Any]) -> NDArray[np.object_]:
    """Each value as the text a person would write: integral floats as integers, blanks and missing values as None.

    Raises UnicodeDecodeError for bytes that are not UTF-8: with signs in their place two codes might become one.
    """
    text = np.empty(len(values), dtype=object)
    text[:] = [_text(value) for value in values.tolist()]
    return text


def _text(value: object) -> str | None:
    if value is None or value != value:  # NaN and NaT differ from themselves
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return (value.decode("utf-8") if isinstance(value, bytes) else str(value)).strip() or None


def geometry_of(wkb: NDArray[np.object_]) -> NDArray[np.object_]:
    """Geometries of WKB; a ring that does not close is closed, and what is no geometry at all is None."""
    return read_wkb(wkb)
