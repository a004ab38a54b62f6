"""The table of an evaluation with a row a parcel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sits_models.data.cubes import Cube
from sits_models.report import ClassName

__all__ = ["JudgedParcels", "parcel_table"]


class JudgedParcels(Protocol):
    """N parcels with a class that was declared and one that was seen."""

    @property
    def cube(self) -> NDArray[np.int64]:
        """(N,): number of the cube."""

    @property
    def parcel(self) -> NDArray[np.int64]:
        """(N,): row key in the cube's table."""

    @property
    def target(self) -> NDArray[np.int64]:
        """(N,): class that was declared."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,): class that was seen."""


def parcel_table(
    judged: JudgedParcels, classes: Sequence[ClassName], cubes: Sequence[Cube], further: Mapping[str, pa.Array]
) -> pa.Table:
    """A row a parcel: whose it is, what was declared and what was seen, its area, and the `further` columns."""
    codes = np.array([crop.code for crop in classes], object)
    folders = np.array([cube.facts.path for cube in cubes], object)
    area = np.full(len(judged.parcel), np.nan)
    for number, cube in enumerate(cubes):
        parcels, here = cube.parcels(["parcel_id", "area_ha"]), judged.cube == number
        area[here] = parcels.set_index("parcel_id")["area_ha"].loc[judged.parcel[here]].to_numpy(np.float64)
    return pa.table(
        {
            "cube": pa.array(folders[judged.cube], pa.string()),
            "parcel_id": pa.array(judged.parcel, pa.uint32()),
            "declared": pa.array(codes[judged.target], pa.string()),
            "predicted": pa.array(codes[judged.predicted], pa.string()),
            "right": pa.array(judged.target == judged.predicted),
            "area_ha": pa.array(area, pa.float64()),
            **further,
        }
    )
