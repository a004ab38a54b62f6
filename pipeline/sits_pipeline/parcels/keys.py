"""The key of a parcel: the same whichever part of its file is read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Set

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

__all__ = ["content_keys", "repeated", "source_keys"]

_DIGITS = 16


def content_keys(geometry: NDArray[np.object_], code: NDArray[np.object_], *, crs: CRS) -> NDArray[np.object_]:
    """First 16 hex digits of the SHA-256 of normalized WKB (source CRS, 2D, rounded to 1 mm) and crop code.

    `geometry` is as the file has it, before any repair, so that keys do not depend on how GEOS repairs.
    """
    decimals = 8 if crs.is_geographic else 3  # 1e-8 degrees are 1.1 mm
    rounded = shapely.transform(shapely.force_2d(geometry), lambda xy: np.round(xy, decimals) + 0.0)  # + 0.0: no -0.0
    wkb = shapely.to_wkb(shapely.normalize(rounded), byte_order=1)
    keys = np.empty(len(geometry), dtype=object)
    keys[:] = [
        hashlib.sha256(shape + (text or "").encode()).hexdigest()[:_DIGITS]
        for shape, text in zip(wkb, code, strict=True)
    ]
    return keys


def repeated(ids: Iterable[str | None]) -> frozenset[str]:
    """Ids that more than one row of the whole file has."""
    return frozenset(text for text, count in Counter(ids).items() if text is not None and count > 1)


def source_keys(
    ids: NDArray[np.object_] | None, content: NDArray[np.object_], *, repeats: Set[str]
) -> NDArray[np.object_]:
    """The id where there is one and no other row of the file has it, else the content key; -2, -3 for exact repeats.

    Rows are in the order of the file.
    """
    seen: Counter[str] = Counter()
    keys = np.empty(len(content), dtype=object)
    for index, fallback in enumerate(content):
        own = None if ids is None else ids[index]
        key = fallback if own is None or own in repeats else own
        seen[key] += 1
        keys[index] = key if seen[key] == 1 else f"{key}-{seen[key]}"
    return keys
