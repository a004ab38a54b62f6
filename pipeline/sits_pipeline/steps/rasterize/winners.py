"""Who wins a pixel under the rule `area`, and which pixels are left for the background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_pipeline.steps.rasterize.coverage import WHOLE, Shares
from sits_pipeline.steps.rasterize.lattice import Lattice

__all__ = ["Best", "best_parcels", "conflicts", "half_free"]

_HALF = WHOLE // 2
_LOW = (1 << 32) - 1

_SAME_CLASS, _DIFFERENT_CLASSES, _WHOLLY_INSIDE_TWO = 1, 2, 4
