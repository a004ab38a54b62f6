from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pyproj import CRS
from pyproj.exceptions import ProjError

from sits_pipeline.transformers import transformer_between


def test_longitude_and_easting_come_first_whatever_a_crs_says_of_its_axes() -> None:
    # The origins of two projections; of EPSG:3035 the axes are northing, easting, of EPSG:4326 latitude, longitude.
    assert transformer_between(4326, 32631).transform(3, 0) == pytest.approx((500_000, 0), abs=1e-6)
    assert transformer_between(3035, 4326).transform(4_321_000, 3_210_000) == pytest.approx((10, 52), abs=1e-9)


def test_a_way_is_found_once_for_equal_crs_and_another_for_each_direction() -> None:
    stated = CRS.from_epsg(3035).to_json_dict()
    one, again = (transformer_between(CRS.from_user_input(stated), 32631) for _ in range(2))
    assert one is again
    back = transformer_between(32631, CRS.from_user_input(stated))
    assert back.transform(*one.transform(4_000_000, 3_000_000)) == pytest.approx((4_000_000, 3_000_000), abs=1e-3)


def test_threads_may_use_it_together() -> None:
    shared = transformer_between(3035, 32631)
    points = [(4_000_000 + 10 * number, 3_000_000) for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda point: shared.transform(*point), points)) == [shared.transform(*p) for p in points]


def test_where_there_is_no_way_each_call_raises() -> None:
    mars = CRS.from_user_input("IAU_2015:49900")
    for _ in range(2):
        with pytest.raises(ProjError):
            transformer_between(mars, 4326)
