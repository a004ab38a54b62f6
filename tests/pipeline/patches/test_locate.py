from __future__ import annotations

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from sits_catalog.locations import Location
from sits_pipeline.patches.locate import geobox_of, outline_of, zone_of


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [
        (3.0, 48.0, 32631),
        (-0.001, 48.0, 32630),
        (0.0, 48.0, 32631),
        (3.0, -0.001, 32731),
        (3.0, 0.0, 32631),
        (180.0, 10.0, 32660),
        (-180.0, 10.0, 32601),
        (5.3, 60.4, 32632),  # Bergen: 32V reaches west to 3 E
        (5.3, 55.99, 32631),
        (5.3, 64.0, 32631),
        (2.99, 60.4, 32631),
        (8.99, 72.0, 32631),  # Svalbard: four zones of 9 or 12 degrees
        (9.0, 72.0, 32633),
        (15.6, 78.2, 32633),
        (21.0, 78.2, 32635),
        (33.0, 78.2, 32637),
        (42.0, 78.2, 32638),
        (15.6, 71.9, 32633),
        (7.0, 71.9, 32632),
    ],
)
def test_the_zone_is_that_of_the_mgrs_strip(lon: float, lat: float, epsg: int) -> None:
    assert zone_of(lon, lat) == epsg


@given(lon=st.floats(-180, 180), lat=st.floats(-79.9, 83.9))
def test_a_patch_lies_on_the_lattice_with_its_point_within_30_m_of_the_middle(lon: float, lat: float) -> None:
    box = geobox_of(Location("a", lon, lat), 276)
    epsg = zone_of(lon, lat)
    assert box.crs is not None
    assert box.crs.epsg == epsg
    assert tuple(box.shape) == (276, 276)
    left, bottom, right, top = box.boundingbox.bbox
    assert (right - left, top - bottom) == (2760, 2760)
    assert left % 60 == 0
    assert top % 60 == (0 if lat >= 0 else 40)
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    assert abs(x - (left + right) / 2) <= 30.001
    assert abs(y - (top + bottom) / 2) <= 30.001


def test_a_patch_worked_by_hand() -> None:
    # 3 E on the equator is (500000, 0) in zone 31N: corners at 500000 - 1380 = 498620, nearest multiple of 60 498600
    # (8310 x 60), and at 0 + 1380 = 23 x 60.
    box = geobox_of(Location("a", 3.0, 0.0), 276)
    assert box.boundingbox.bbox == (498600.0, -1380.0, 501360.0, 1380.0)


def test_the_outline_holds_the_point() -> None:
    outline = outline_of(geobox_of(Location("a", 3.36, 48.68), 276))
    assert shapely.contains(outline, shapely.Point(3.36, 48.68))
    west, south, east, north = shapely.bounds(outline)
    assert east - west == pytest.approx(2760 / (111320 * 0.6604), rel=0.02)
    assert north - south == pytest.approx(2760 / 111200, rel=0.02)


@pytest.mark.parametrize("lon", [179.999, -179.999])
def test_a_patch_across_the_antimeridian_has_an_outline_in_two_parts(lon: float) -> None:
    outline = outline_of(geobox_of(Location("a", lon, -17.0), 276))
    parts = shapely.get_parts(outline)
    assert outline.geom_type == "MultiPolygon"
    assert len(parts) == 2
    assert shapely.is_valid(outline)
    assert sum(part.bounds[2] - part.bounds[0] for part in parts) == pytest.approx(0.0263, rel=0.03)
    assert shapely.contains(outline, shapely.Point(lon, -17.0))
