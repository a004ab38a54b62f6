"""Ground that somebody has drawn: polygons, each with its split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import Split

__all__ = ["SplitAreas", "areas_sha256", "check_apart"]

_SLIVER_M = 1.0
"""Polygons that were drawn beside each other overlap by slivers, and more so where their edges are bent by another CRS;
what is wider is meant. A pixel in a sliver is in no split."""


@dataclass(frozen=True, kw_only=True)
class SplitAreas:
    """Polygons with their splits, in the CRS of one cube; ground outside of them is in no split."""

    epsg: int
    geometry: NDArray[np.object_]
    """shapely Polygon or MultiPolygon, valid."""
    split: NDArray[np.uint8]
    """1 train, 2 validation, 3 test; one a polygon."""

    def __post_init__(self) -> None:
        assert len(self.geometry) == len(self.split)

    def near(self, geobox: GeoBox) -> SplitAreas:
        """The polygons whose bounds meet a cell."""
        west, south, east, north = geobox.boundingbox.bbox
        low_x, low_y, high_x, high_y = shapely.bounds(self.geometry).reshape(-1, 4).T
        near = (low_x <= east) & (high_x >= west) & (low_y <= north) & (high_y >= south)
        return SplitAreas(epsg=self.epsg, geometry=self.geometry[near], split=self.split[near])


def check_apart(areas: SplitAreas, *, rows: Sequence[int], path: str) -> None:
    """Raises ValueError, with the rows of the file, where polygons of different splits overlap by more than slivers."""
    first, second = shapely.STRtree(areas.geometry).query(areas.geometry, predicate="intersects")
    differ = (first < second) & (areas.split[first] != areas.split[second])
    for one, other in zip(first[differ].tolist(), second[differ].tolist(), strict=True):
        shared = shapely.intersection(areas.geometry[one], areas.geometry[other])
        # Twice the area over the length of the outline is the width of what is long and narrow.
        if 2 * shared.area > _SLIVER_M * shared.length:
            words = [Split(int(areas.split[index])).name.lower() for index in (one, other)]
            raise ValueError(
                f"{path}: row {rows[one]} ({words[0]}) and row {rows[other]} ({words[1]}) overlap by "
                f"{shared.area:.0f} m2; ground is in one split at most: draw them apart"
            )


def areas_sha256(areas: Sequence[SplitAreas]) -> str:
    """SHA-256 over the ground of each split at 1 mm."""
    digest = hashlib.sha256()
    for zone in areas:
        for split in (Split.TRAIN, Split.VALIDATION, Split.TEST):
            ground = shapely.set_precision(shapely.union_all(zone.geometry[zone.split == split]), 0.001)
            digest.update(f"EPSG:{zone.epsg} {int(split)}\n".encode())
            digest.update(shapely.to_wkb(shapely.normalize(ground), byte_order=1))
    return digest.hexdigest()
