"""Geometries in WKB from strangers, whose nesting could overflow the stack of the library that reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["read_wkb"]

_DEEPEST = 64
_SHORT = 9 * _DEEPEST
"""Bytes in which nothing is nested deeper: a level takes nine."""
_HARMLESS = 50_000
"""Bytes in which no nesting overflows a stack of 8 MB."""
_MULTIPOLYGON = 6
"""Up to this code geometries hold none of their own kind, or are none; the short ones are not looked at."""
_LINES, _POLYGONS, _COLLECTIONS = (2, 8), (3, 17), (4, 5, 6, 7, 9, 10, 11, 12, 15, 16)
"""Codes of OGC 06-103r4 and SQL/MM: with one list of points, with rings, with geometries."""


def read_wkb(values: Iterable[bytes | None]) -> NDArray[np.object_]:
    """Shapely geometries, None for what is none or a curve.

    A ring that does not close is closed; numbers may be no numbers.
    """
    import numpy as np
    import shapely

    found: Any = list(values)
    found = [None if isinstance(one, bytes) and _nests_deeply(one) else one for one in found]
    geometry = np.empty(len(found), dtype=object)
    with np.errstate(all="ignore"):
        try:
            geometry[:] = shapely.from_wkb(np.array([*found, None], dtype=object)[:-1], on_invalid="fix")
        except NotImplementedError:  # one is a curve
            geometry[:] = [_straight(one) for one in found]
    return geometry


def _straight(wkb: bytes | None) -> object:
    """A geometry of straight lines; None for a curve, which the library knows and gives nobody."""
    import shapely

    try:
        return shapely.from_wkb(wkb, on_invalid="fix")
    except NotImplementedError:
        return None


def _nests_deeply(wkb: bytes) -> bool:
    """Whether geometries lie in one another more than 64 deep."""
    if len(wkb) <= _SHORT or (len(wkb) <= _HARMLESS and _head(wkb, 0, "<" if wkb[0] else ">")[0] <= _MULTIPOLYGON):
        return False
    open_, place = [1], 0
    try:
        while open_:
            if not open_[-1]:
                open_.pop()
                continue
            open_[-1] -= 1
            order = "<" if wkb[place] else ">"
            kind, numbers, place = _head(wkb, place, order)
            if kind in _COLLECTIONS:
                open_.append(struct.unpack_from(f"{order}I", wkb, place)[0])
                place += 4
                if len(open_) > _DEEPEST:
                    return True
            else:
                place = _end(wkb, place, order, kind, 8 * numbers)
    except (struct.error, IndexError, ValueError):
        pass  # it breaks off or is none: the library comes no deeper than this
    return False


def _head(wkb: bytes, place: int, order: str) -> tuple[int, int, int]:
    """Code of a geometry, numbers of a point, and where what follows begins; also of EWKB, with its three flags."""
    (code,) = struct.unpack_from(f"{order}I", wkb, place + 1)
    srid = 4 if code & 0x20000000 else 0
    has_z, has_m = bool(code & 0x80000000), bool(code & 0x40000000)
    dimensions, kind = divmod(code & 0xFFFF, 1000)
    return kind, 2 + (has_z or dimensions in (1, 3)) + (has_m or dimensions in (2, 3)), place + 5 + srid


def _end(wkb: bytes, place: int, order: str, kind: int, point: int) -> int:
    """Where a point, a line or a polygon ends."""
    if kind == 1:
        return place + point
    if kind in _LINES:
        return place + 4 + point * int(struct.unpack_from(f"{order}I", wkb, place)[0])
    if kind in _POLYGONS:
        (rings,) = struct.unpack_from(f"{order}I", wkb, place)
        place += 4
        for _ in range(rings):
            place += 4 + point * int(struct.unpack_from(f"{order}I", wkb, place)[0])
        return place
    raise ValueError(f"no geometry has the code {kind}")
