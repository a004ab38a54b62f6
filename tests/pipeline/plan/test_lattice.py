from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from sits_catalog.cube import central_meridian, lattice_anchor_y
from sits_pipeline.plan.lattice import (
    inside_strip,
    part_in_zone,
    project,
    snap,
    strip_of,
    to_lonlat,
    zones_of,
)
from sits_pipeline.values import epsg_of


def test_strips_are_six_degrees_around_the_central_meridian() -> None:
    assert central_meridian(32631) == 3
    assert strip_of(32631) == (0, 6)
    assert strip_of(32701) == (-180, -174)
    assert strip_of(32660) == (174, 180)


# Snapping


def test_a_northern_box_snaps_outwards_to_multiples_of_60_m() -> None:
    geobox = snap(shapely.box(523561, 4829001, 523999, 4832779), 32631)
    assert geobox.boundingbox.bbox == (523560, 4828980, 524040, 4832820)
    assert tuple(geobox.shape) == (384, 48)
    assert geobox.affine[:6] == (10, 0, 523560, 0, -10, 4832820)
    assert epsg_of(geobox) == 32631


def test_a_southern_box_snaps_to_40_modulo_60_m() -> None:
    geobox = snap(shapely.box(300001, 7990001, 300059, 7990041), 32735)
    # 7 990 000 = 40 modulo 60, so that 7 990 041 needs the next line.
    assert geobox.boundingbox.bbox == (300000, 7990000, 300060, 7990060)


@pytest.mark.parametrize("epsg", [32631, 32735])
def test_a_box_on_the_lattice_stays_as_it_is(epsg: int) -> None:
    anchor = lattice_anchor_y(epsg)
    box = (600000, 4000020 + anchor, 601200, 4000620 + anchor)
    assert snap(shapely.box(*box), epsg).boundingbox.bbox == box


@given(
    st.sampled_from([32601, 32631, 32660, 32701, 32735]),
    st.floats(200_000, 800_000),
    st.floats(1_000_000, 9_000_000),
    st.floats(1, 20_000),
    st.floats(1, 20_000),
)
def test_a_snapped_grid_holds_the_box_and_less_than_60_m_more(
    epsg: int, left: float, bottom: float, width: float, height: float
) -> None:
    area = shapely.box(left, bottom, left + width, bottom + height)
    geobox = snap(area, epsg)
    x0, y0, x1, y1 = geobox.boundingbox.bbox
    west, south, east, north = shapely.bounds(area)
    assert x0 % 60 == x1 % 60 == 0
    assert y0 % 60 == y1 % 60 == (0 if epsg < 32700 else 40)
    assert 0 <= west - x0 < 60
    assert 0 <= x1 - east < 60
    assert 0 <= south - y0 < 60
    assert 0 <= y1 - north < 60
    assert all(size % 6 == 0 for size in geobox.shape)


def test_corners_of_real_tiles_lie_on_the_lattice(sits_data: Path) -> None:
    corners = set()
    for path in sorted(sits_data.rglob("*.json")):
        if path.stat().st_size < 5_000_000:
            corners |= set(_corners(json.loads(path.read_text())))
    north = {corner for corner in corners if corner[0] < 32700}
    assert len(north) >= 5
    assert len(corners - north) >= 2
    for epsg, x, y in corners:
        assert x % 60 == 0, (epsg, x, y)
        assert (y - lattice_anchor_y(epsg)) % 60 == 0, (epsg, x, y)


def _corners(value: object) -> set[tuple[int, int, int]]:
    """(EPSG code, easting, northing) of the upper-left corner of every Sentinel-2 band in a document."""
    found: set[tuple[int, int, int]] = set()
    if isinstance(value, list):
        for one in value:
            found |= _corners(one)
    if isinstance(value, dict):
        properties = value.get("properties")
        if isinstance(properties, dict) and str(value.get("id")).startswith("S2"):
            code = str(properties.get("proj:epsg") or properties.get("proj:code", "")).removeprefix("EPSG:")
            for asset in value.get("assets", {}).values():
                transform = asset.get("proj:transform")
                if transform and code and transform[0] in (10, 20, 60):
                    found.add((int(code), transform[2], transform[5]))
        for one in value.values():
            found |= _corners(one)
    return found


# Zones


def test_a_box_in_one_zone_has_one_code() -> None:
    assert zones_of(shapely.box(3.2, 43.5, 3.4, 43.7)) == (32631,)
    assert zones_of(shapely.box(27.1, -16.2, 27.3, -16.0)) == (32735,)


def test_a_box_across_a_zone_border_has_both_codes_west_to_east() -> None:
    assert zones_of(shapely.box(5.9, 43, 6.1, 43.1)) == (32631, 32632)
    assert zones_of(shapely.box(-1, 43, 7, 43.1)) == (32630, 32631, 32632)


def test_a_box_that_ends_on_a_zone_border_has_one_code() -> None:
    assert zones_of(shapely.box(5.9, 43, 6.0, 43.1)) == (32631,)
    assert zones_of(shapely.box(6.0, 43, 6.1, 43.1)) == (32632,)


def test_a_box_across_the_equator_has_codes_of_both_hemispheres() -> None:
    assert zones_of(shapely.box(33.1, -0.1, 33.2, 0.1)) == (32636, 32736)
    assert zones_of(shapely.box(35.9, -0.1, 36.1, 0.1)) == (32636, 32736, 32637, 32737)
    assert zones_of(shapely.box(33.1, 0, 33.2, 0.1)) == (32636,)
    assert zones_of(shapely.box(33.1, -0.1, 33.2, 0)) == (32736,)


def test_the_outermost_zones_end_at_the_antimeridian() -> None:
    assert zones_of(shapely.box(-180, 60, -179.9, 60.1)) == (32601,)
    assert zones_of(shapely.box(179.9, -17, 180, -16.9)) == (32760,)


def test_a_zone_between_two_parts_of_an_area_is_left_out() -> None:
    west = shapely.box(5, 43, 5.1, 43.1)
    assert zones_of(shapely.MultiPolygon([west, shapely.box(12, 43, 12.1, 43.1)])) == (32631, 32633)
    assert zones_of(shapely.MultiPolygon([west, shapely.box(11.9, 43, 12, 43.1)])) == (32631, 32632)


@given(
    st.floats(-180, 179),
    st.floats(-79, 83),
    st.floats(0.01, 20),
    st.floats(0.01, 1),
)
def test_the_parts_in_the_zones_make_up_the_area(west: float, south: float, width: float, height: float) -> None:
    area = shapely.box(west, south, min(west + width, 180), south + height)
    parts = [part_in_zone(area, code) for code in zones_of(area)]
    assert all(shapely.area(part) > 0 for part in parts)
    assert sum(shapely.area(part) for part in parts) == pytest.approx(shapely.area(area))


# Projecting


def test_projecting_there_and_back_gives_the_same_area() -> None:
    area = shapely.box(5.0, 43.0, 5.9, 43.5)
    back = to_lonlat(project(area, 32631), 32631)
    assert shapely.hausdorff_distance(area, back) < 1e-7


def test_edges_are_densified_so_that_they_follow_the_parallel() -> None:
    area = project(shapely.box(0.1, 50.0, 5.9, 50.1), 32631)
    middle = Transformer.from_crs(4326, 32631, always_xy=True).transform(1.2345, 50.0)
    # A straight edge would pass some kilometres off.
    assert shapely.distance(shapely.boundary(area), shapely.Point(*middle)) < 0.01


# The strip


def longitudes(geobox: GeoBox, epsg: int) -> np.ndarray:
    """Longitude of every pixel centre, (y, x)."""
    height, width = geobox.shape
    transform = Transformer.from_crs(epsg, 4326, always_xy=True).transform
    rows, columns = np.mgrid[0:height, 0:width]
    x, y = geobox.affine @ (columns + 0.5, rows + 0.5)
    return np.asarray(transform(x, y)[0])


@pytest.mark.parametrize(
    ("west_code", "east_code", "border", "latitude"),
    [(32631, 32632, 6.0, 43.6), (32636, 32637, 36.0, 0.01), (32734, 32735, 24.0, -16.0), (32601, 32602, -174.0, 60.0)],
)
def test_each_pixel_centre_belongs_to_the_strip_of_exactly_one_zone(
    west_code: int, east_code: int, border: float, latitude: float
) -> None:
    area = shapely.box(border - 0.01, latitude, border + 0.01, latitude + 0.01)
    for grid_code, other_code in ((west_code, east_code), (east_code, west_code)):
        geobox = snap(project(area, grid_code), grid_code)
        longitude = longitudes(geobox, grid_code)
        mask = inside_strip(geobox, grid_code)
        assert mask is not None
        assert mask.any()
        assert not mask.all()
        low, high = strip_of(grid_code)
        np.testing.assert_array_equal(mask, (longitude >= low) & (longitude < high))
        low, high = strip_of(other_code)
        np.testing.assert_array_equal(~mask, (longitude >= low) & (longitude < high))


def test_a_grid_inside_of_its_strip_needs_no_mask() -> None:
    assert inside_strip(snap(shapely.box(500000, 4830000, 510000, 4840000), 32631), 32631) is None


def test_a_part_of_a_grid_has_the_same_mask_as_the_whole() -> None:
    geobox = snap(project(shapely.box(5.99, 43.6, 6.01, 43.61), 32631), 32631)
    whole = inside_strip(geobox, 32631)
    assert whole is not None
    for part in (np.s_[0:40, 0:40], np.s_[40:100, 60:120], np.s_[7:90, 100:144]):
        mask = inside_strip(geobox[part], 32631)
        expected = whole[part]
        np.testing.assert_array_equal(np.ones(expected.shape, bool) if mask is None else mask, expected)


def test_beyond_the_antimeridian_nothing_belongs_to_the_last_zone() -> None:
    geobox = snap(project(shapely.box(179.99, -17, 180, -16.99), 32760), 32760).pad(100)
    mask = inside_strip(geobox, 32760)
    assert mask is not None
    np.testing.assert_array_equal(mask, longitudes(geobox, 32760) >= 174)
    assert mask.any()
    assert not mask.all()
