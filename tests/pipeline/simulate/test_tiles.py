from __future__ import annotations

import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from sits_pipeline.simulate.tiles import canvas_of, scene_tiles


def grid(x: float, y: float, crs: str = "EPSG:32631", shape: tuple[int, int] = (1020, 1020)) -> GeoBox:
    return GeoBox(shape, Affine(10, 0, x, 0, -10, y), crs)


def test_sentinel_2s_own_layout_is_used_where_two_of_its_tiles_meet() -> None:
    first, second = scene_tiles(canvas_of(grid(525_000, 5_394_000)))
    assert (first.code, first.top, first.bottom) == ("31UEP", 0, 1068)
    assert (second.code, second.top, second.bottom) == ("31UEQ", 0, 378 + 24)
    assert (second.left, second.right) == (0, 1068)


def test_tiles_of_the_south_are_named_and_anchored_right() -> None:
    canvas = canvas_of(grid(525_000, 6_494_020, "EPSG:32750"))
    first, second = scene_tiles(canvas)
    assert (first.code, second.code) == ("50HNK", "50JNL")
    assert (second.bottom, second.geobox(canvas, 60).affine.f % 60) == (
        402,
        40,
    )


def test_elsewhere_a_made_up_boundary_crosses_the_region() -> None:
    canvas = canvas_of(grid(525_000, 5_350_020))
    west, east = scene_tiles(canvas)
    assert (west.code, east.code) == ("31UEP", "31UFP")
    assert (west.left, east.right) == (0, 1068)
    assert 0 < east.left < west.right < 1068
    assert (west.right - east.left) / 1068 == pytest.approx(0.2, abs=0.01)
    assert all(side % 6 == 0 for tile in (west, east) for side in (tile.left, tile.right, tile.top, tile.bottom))


@pytest.mark.parametrize("crs", ["EPSG:32601", "EPSG:32630", "EPSG:32632", "EPSG:32660", "EPSG:32733"])
def test_the_two_tiles_cover_small_regions_of_every_zone(crs: str) -> None:
    canvas = canvas_of(grid(699_960, 5_000_040 if crs < "EPSG:327" else 5_000_020, crs, (60, 60)))
    west, east = scene_tiles(canvas)
    assert west.left == 0
    assert east.right == 108
    assert east.left < west.right
    assert west.code != east.code


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (grid(525_010, 5_394_000), r"starts and ends on the lattice of 60 m .*\(525010, 5394000\)"),
        (grid(525_000, 5_394_000, shape=(1024, 1020)), "1024 x 1020 pixels"),
        (grid(525_000, 5_394_000, "EPSG:32731"), "y 40 modulo 60"),
        (GeoBox((60, 60), Affine(20, 0, 0, 0, -20, 0), "EPSG:32631"), "a 10 m grid in a UTM zone"),
        (grid(525_000, 5_394_000, "EPSG:2154"), "a cube lies in a WGS 84 / UTM zone"),
    ],
)
def test_an_extent_off_the_lattice_is_refused(bad: GeoBox, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canvas_of(bad)
