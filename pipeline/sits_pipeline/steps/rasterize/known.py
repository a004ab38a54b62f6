"""The pixels whose centre lies in an area."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_pipeline.steps.rasterize.coverage import WHOLE, pixel_shares
from sits_pipeline.steps.rasterize.lattice import Lattice

__all__ = ["centres_inside"]


def centres_inside(area: shapely.Geometry | None, lattice: Lattice) -> NDArray[np.bool_]:
    """Whether each pixel's centre lies in `area` or on its border, (pixel,); None is nowhere.

    Only pixels that the border crosses are asked one by one. Raises ValueError where `area` is no valid polygon.
    """
    inside = np.zeros(lattice.n_pixels, np.bool_)
    if area is None or shapely.is_empty(area):
        return inside
    if shapely.get_type_id(area) not in (3, 6) or not shapely.is_valid(area):
        raise ValueError(
            f"the known area must be a valid polygon or multipolygon, got a {type(area).__name__} "
            f"({shapely.is_valid_reason(area)}); repair it with make_valid and keep its polygons"
        )
    shares = pixel_shares(np.array([area], np.object_), lattice)
    inside[shares.pixel[shares.share == WHOLE]] = True
    border = shares.pixel[shares.share < WHOLE]
    row, column = np.divmod(border, lattice.width)
    own = shapely.force_2d(area)  # a copy: preparing is not safe on a geometry that threads share
    shapely.prepare(own)
    inside[border] = shapely.intersects_xy(own, lattice.centres_x()[column], lattice.centres_y()[row])
    return inside
