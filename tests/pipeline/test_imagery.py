"""What a pixel of one scene becomes, six of them worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from tests.pipeline.steps.test_group import BASE

from sits_pipeline.imagery import Day, Images, Reading, Visit, read_images
from sits_pipeline.values import BandWindow, Raster, ReadFailure, Scene

GRID = GeoBox((1, 6), Affine(10, 0, 600_000, 0, -10, 4_900_020), "EPSG:32631")
B02 = [0, 0, 500, 1000, 65535, 3000]
B03 = [0, 7, 900, 2000, 4000, 3000]


@dataclass(frozen=True)
class OneScene:
    """Gives the same raster for every scene; of a scene source, all that reading a day needs."""

    raster: Raster

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        assert (geobox, tuple(bands), pad) == (GRID, ("B02", "B03"), 0)
        return (self.raster for _ in scenes)


def window(values: list[int], kind: type[np.uint8] | type[np.uint16]) -> BandWindow:
    return BandWindow(dn=np.array([values], kind), factor=1, row=0, column=0)


def images_of(scl: list[int] | None, *, offset: int | None, failures: tuple[ReadFailure, ...] = ()) -> dict[str, Any]:
    bands = {"B02": window(B02, np.uint16), "B03": window(B03, np.uint16)}
    if scl is not None:
        bands["SCL"] = window(scl, np.uint8)
    source: Any = OneScene(Raster(bands=bands, failures=failures))
    reading = Reading(source=source, geobox=GRID, bands=("B02", "B03"), resampling="nearest", inside=None)
    visit = Visit(source_index=3, scene=BASE, offset=offset, reason="")
    images = Images.empty(1, 2, (1, 6))
    with ThreadPoolExecutor(1) as pool:
        read_images(reading, [Day(day=date(2023, 5, 1), visits=(visit,))], images, pool)
    names = ("reflectance", "scl", "quality", "source_index")
    return {name: getattr(images, name).squeeze().tolist() for name in names}


def test_with_a_classification_a_pixel_is_observed_where_it_is_not_0_and_a_band_is_above_0() -> None:
    """The second pixel has a band of 0, which is a dark value; the last is not classified at all."""
    found = images_of([4, 4, 9, 6, 4, 0], offset=-1000)
    assert found["reflectance"] == [[0, 1, 1, 1, 65535, 0], [0, 1, 1, 1000, 3000, 0]]
    assert found["quality"] == [0, 1, 1 + 2, 1 + 64, 1 + 16, 0]
    assert found["source_index"] == [255, 3, 3, 3, 3, 255]
    assert found["scl"] == [0, 4, 9, 6, 4, 0]


def test_without_a_classification_a_pixel_is_observed_where_every_band_is_above_0() -> None:
    found = images_of(None, offset=0)
    assert found["reflectance"] == [[0, 0, 500, 1000, 65535, 3000], [0, 0, 900, 2000, 4000, 3000]]
    assert found["quality"] == [0, 0, 1, 1, 1 + 16, 1]
    assert found["source_index"] == [255, 255, 3, 3, 3, 3]
    assert found["scl"] == [0] * 6


def test_a_scene_of_which_a_band_fails_is_unread_where_it_holds_data() -> None:
    failure = ReadFailure(item="a", band="B03", error="torn")
    for found in (
        images_of([4, 4, 9, 6, 4, 0], offset=-1000, failures=(failure,)),
        images_of([4, 4, 9, 6, 4, 0], offset=None),
    ):
        assert found["reflectance"] == [[0] * 6] * 2
        assert found["quality"] == [128, 128, 128, 128, 128, 0]
        assert found["source_index"] == [255] * 6
