"""The tiles of one orbit pass: asked for together, merged by the service, given back scene by scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_pipeline.plan.lattice import project
from sits_pipeline.sources.sentinel_hub.process import Box, Images
from sits_pipeline.transformers import transformer_between
from sits_pipeline.values import BandWindow, Raster, ReadFailure, Scene

__all__ = ["Pass", "clearly_meets", "max_cloud", "meets", "passes_of"]

_SAME_PASS = timedelta(minutes=10)
_MARGIN_M = 20.0


def passes_of(scenes: Sequence[Scene]) -> tuple[tuple[Scene, ...], ...]:
    """Scenes of one solar day by pass: one satellite and orbit, sensed within minutes; each pass in the given order.

    Passes come in the order of their first scenes.
    """
    number: dict[str, int] = {}
    last: Scene | None = None
    for scene in sorted(scenes, key=lambda scene: (scene.platform, scene.orbit or 0, scene.sensed)):
        same = (
            last is not None
            and (last.platform, last.orbit) == (scene.platform, scene.orbit)
            and scene.sensed - last.sensed <= _SAME_PASS
        )
        number[scene.id] = number[last.id] if same and last is not None else len(number)
        last = scene
    groups: dict[int, list[Scene]] = {}
    for scene in scenes:
        groups.setdefault(number[scene.id], []).append(scene)
    return tuple(tuple(group) for group in groups.values())


def meets(scene: Scene, box: Box) -> bool:
    """Whether a footprint meets a box."""
    return bool(shapely.intersects(project(scene.footprint, box.epsg), shapely.box(*box.bounds)))


def clearly_meets(scene: Scene, box: Box) -> bool:
    """Whether a footprint meets a box by two pixels or more, be its edges straight in degrees or in metres.

    Between the corners of a tile the two differ by some 200 m, and which of them a service goes by is not documented.
    """
    mover = transformer_between(4326, box.epsg)
    straight = shapely.transform(scene.footprint, lambda xy: np.column_stack(mover.transform(*xy.T)))
    grounds = [shapely.buffer(ground, -_MARGIN_M) for ground in (straight, project(scene.footprint, box.epsg))]
    return all(shapely.intersects(ground, shapely.box(*box.bounds)) for ground in grounds)


def max_cloud(scenes: Sequence[Scene]) -> int:
    """Percent above which no tile of a pass is wanted; one more, since the index may hold other decimals."""
    clouds = [100.0 if scene.cloud_cover is None else scene.cloud_cover for scene in scenes]
    return min(100, math.ceil(max(clouds)) + 1)


@dataclass
class Pass:
    """The merged pixels of a pass on a geobox."""

    scenes: tuple[Scene, ...]
    dn: NDArray[np.uint16]
    """(band, y, x)"""
    scl: NDArray[np.uint8]
    tile: NDArray[np.uint8]
    """(y, x); position among `scenes` from 1 on, 0 not observed."""
    note: str
    """How the service made it; empty: as it was told to."""
    others: set[str] = field(default_factory=set)
    """Tiles that the service merged though the plan does not have them."""
    errors: dict[str, str] = field(default_factory=dict)
    """Why a scene is unread, by id."""
    processing_units: float = 0.0

    def take(self, images: Images, box: Box) -> None:
        """Put a box in its place."""
        rows, columns = box.window.rows, box.window.columns
        self.dn[:, rows, columns] = images.dn
        self.scl[rows, columns] = images.scl
        self.tile[rows, columns] = images.tile
        self.processing_units += images.processing_units
        self.others |= set(images.others)

    def raster(self, scene: Scene, bands: Sequence[str], *, with_units: bool) -> Raster:
        """The pixels that were taken from one scene, 0 elsewhere."""
        units = self.processing_units if with_units else 0.0
        if scene.id in self.errors:
            failure = ReadFailure(item=scene.id, band="*", error=self.errors[scene.id])
            return Raster(bands={}, failures=(failure,), processing_units=units)
        own = self.tile == 1 + self.scenes.index(scene)
        windows = {
            # Harmonizing clamps dark pixels to 0; 0 would say that they were not observed.
            band: _window(np.where(own, np.maximum(dn, np.uint16(1)), np.uint16(0)))
            for band, dn in zip(bands, self.dn, strict=True)
        }
        windows["SCL"] = _window(np.where(own, self.scl, np.uint8(0)))
        return Raster(bands=windows, note=self._remark() if own.any() else "", processing_units=units)

    def _remark(self) -> str:
        if not (self.note and self.others):
            return self.note
        return f"{self.note}, with tiles that the plan refused: {', '.join(sorted(self.others))}"


def _window(dn: NDArray[np.uint16] | NDArray[np.uint8]) -> BandWindow:
    return BandWindow(dn=dn, factor=1, row=0, column=0)
