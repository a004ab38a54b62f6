"""What the attributes and coordinates of an EOPF array say of its pixels: where they lie and what they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Transform", "check_offset", "grid_of_coordinates", "stated_epsg", "stated_grid"]

Transform = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f), from pixels to metres; c and f are the upper left corner."""

_SCALE = 0.0001
_FARTHEST_M = 1e8
"""From the origin of a UTM zone: more than any coordinate."""


def check_offset(attributes: Mapping[str, Any], declared_offset: int, baseline: str) -> None:
    """Raise ValueError unless CF attributes, or EOPF's own, say what the rule of the item's baseline says.

    Where they say nothing, the rule stands alone.
    """
    inner = attributes.get("_eopf_attrs")
    known = {**(inner if isinstance(inner, dict) else {}), **attributes}
    scale, offset = known.get("scale_factor"), known.get("add_offset")
    if scale is None and offset is None:
        return
    # In this way, since no comparison with NaN holds.
    if not isinstance(scale, int | float) or not abs(scale) < 1 or not abs(scale - _SCALE) <= _SCALE * 1e-6:
        raise ValueError(f"a scale_factor of {_SCALE} was expected, the array declares {scale}")
    # The bound comes first: beyond it JSON has integers that no float holds.
    is_far = not isinstance(offset, int | float | None) or not abs(offset or 0) < 1e6
    if is_far or not abs((offset or 0) / scale - declared_offset) <= 1e-3:
        raise ValueError(
            f"its add_offset is {offset} at a scale of {scale}, while the baseline of its item, {baseline}, asks for "
            f"{declared_offset} DN; take another provider, or leave the item out"
        )


def grid_of_coordinates(y: NDArray[Any], x: NDArray[Any]) -> Transform:
    """The grid whose pixel centres these are; raises ValueError where they are not evenly spaced.

    >>> grid_of_coordinates(np.array([95, 85]), np.array([5, 15, 25]))
    (10.0, 0.0, 0.0, 0.0, -10.0, 100.0)
    """
    if min(y.size, x.size) < 2:
        raise ValueError(f"its coordinates have {y.size} and {x.size} values; two of each at least were expected")
    metres = [axis.astype(np.float64) for axis in (y, x)]
    if not all((np.abs(axis) < _FARTHEST_M).all() for axis in metres):
        raise ValueError("its coordinates are not all metres of a UTM zone")
    down, right = map(np.diff, metres)
    if not all(steps[0] and np.abs(steps - steps[0]).max() <= 1e-6 for steps in (down, right)):
        raise ValueError("its coordinates are not evenly spaced")
    a, e = float(right[0]), float(down[0])
    return (a, 0.0, float(x[0]) - a / 2, 0.0, e, float(y[0]) - e / 2)


def stated_grid(attributes: Mapping[str, Any]) -> Transform | None:
    """The grid that an array's attributes state."""
    for key in ("spatial:transform", "proj:transform"):
        values = attributes.get(key)
        if isinstance(values, list) and len(values) >= 6 and all(map(_is_finite, values)):
            a, b, c, d, e, f = (float(value) for value in values[:6])
            return (a, b, c, d, e, f)
    return None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300


def stated_epsg(attributes: Mapping[str, Any]) -> int | None:
    """The EPSG code that an array's attributes state."""
    code, epsg = attributes.get("proj:code"), attributes.get("proj:epsg")
    if isinstance(code, str) and re.fullmatch(r"EPSG:[0-9]{1,9}", code):
        return int(code[5:])
    return epsg if isinstance(epsg, int) else None
