"""Where an item holds data, lon/lat: a stranger's drawing, which is bounded before anything is made of it."""

from __future__ import annotations

import numpy as np
import shapely

from sits_pipeline.steps.tangles import is_tangled
from sits_pipeline.values import JsonObject

__all__ = ["footprint_of", "sound"]

_VERTICES = 20_000
"""Those of a product have a few hundred."""
_CROSSINGS = 100
"""Of the lines of one that is repaired, in 30 ms; a footprint over the 180th meridian has a few. At 250 vertices drawn
by chance a repair takes half a minute."""
_LENGTH_DEG = 1000.0
"""Of all lines together, which are cut into pieces when they are projected; once around the Earth and back are 720."""


def footprint_of(item: JsonObject) -> shapely.Geometry:
    """Where an item holds data, lon/lat; raises ValueError."""
    geometry = item.get("geometry")
    try:
        with np.errstate(invalid="ignore"):  # of numbers that are none, which are refused below
            if isinstance(geometry, dict):
                shape = shapely.force_2d(shapely.geometry.shape(geometry))
            else:
                shape = shapely.box(*_flat_bbox(item.get("bbox")))
    except (
        *(TypeError, ValueError, KeyError, IndexError, AttributeError),
        *(OverflowError, RecursionError, shapely.errors.ShapelyError),
    ) as error:
        what = " ".join(str(error).split())[:150]
        raise ValueError(f"no footprint: {what if what.isprintable() else ascii(what)}") from None
    return sound(shape)


def sound(shape: shapely.Geometry | None) -> shapely.Geometry:
    """A footprint as it was drawn, made valid; raises ValueError where it is none, or too much work."""
    reason = _fault(shape)
    if reason is not None:
        raise ValueError(f"no footprint: {reason}")
    assert shape is not None
    return shapely.make_valid(shape)


def _fault(shape: shapely.Geometry | None) -> str | None:
    """Why a drawing is no footprint; None where it is one."""
    if not shapely.is_geometry(shape) or shapely.is_empty(shape):  # a box of NaN is None
        return "its geometry is empty"
    vertices = int(shapely.get_num_coordinates(shape))
    if vertices > _VERTICES:
        return f"it has {vertices} vertices; up to {_VERTICES} are read"
    coordinates = shapely.get_coordinates(shape)
    if not np.isfinite(coordinates).all():
        return "its coordinates are not all finite numbers"
    if np.abs(coordinates).max() > 360:
        return "its coordinates are not all degrees"
    if shapely.length(shape) > _LENGTH_DEG:
        return f"its lines are longer than {_LENGTH_DEG:g} degrees together"
    if not shapely.is_valid(shape) and is_tangled(np.array([shape], dtype=object), crossings=_CROSSINGS):
        return f"its lines cross or touch one another in more than {_CROSSINGS} places"
    return None


def _flat_bbox(bbox: object) -> tuple[float, float, float, float]:
    if not isinstance(bbox, list) or len(bbox) not in (4, 6):
        raise ValueError("neither a geometry nor a bbox")
    half = len(bbox) // 2
    return float(bbox[0]), float(bbox[1]), float(bbox[half]), float(bbox[half + 1])
