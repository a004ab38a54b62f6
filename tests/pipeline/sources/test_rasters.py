from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from sits_pipeline.sources.rasters import Nesting, nest

GEOBOX = GeoBox((60, 60), Affine(10, 0, 523_560, 0, -10, 4_832_820), "EPSG:32631")


def grid(resolution: float, left: float, top: float) -> tuple[float, ...]:
    return (resolution, 0, left, 0, -resolution, top)


@pytest.mark.parametrize(
    ("transform", "nesting"),
    [
        (grid(10, 523_560, 4_832_820), Nesting(1, 0, 0)),
        (grid(20, 523_560, 4_832_780), Nesting(2, -4, 0)),  # starts 40 m below
        (grid(60, 499_980, 4_900_020), Nesting(6, 6720, 2358)),
        (grid(120, 499_980, 4_900_020), Nesting(12, 6720, 2358)),
    ],
)
def test_a_grid_is_placed_in_cube_pixels(transform: tuple[float, ...], nesting: Nesting) -> None:
    assert nest(transform, GEOBOX) == nesting


@given(
    factor=st.integers(1, 12),
    row=st.integers(-5000, 5000),
    column=st.integers(-5000, 5000),
)
def test_any_multiple_of_ten_metres_on_the_lattice_nests(factor: int, row: int, column: int) -> None:
    found = nest(grid(10 * factor, 523_560 - 10 * column, 4_832_820 + 10 * row), GEOBOX)
    assert found == Nesting(factor, row, column)


@given(shift=st.floats(0.01, 9.99))
def test_any_shift_off_the_lattice_is_refused(shift: float) -> None:
    with pytest.raises(ValueError, match="does not nest"):
        nest(grid(20, 523_560 + shift, 4_832_820), GEOBOX)


def test_corners_with_the_noise_of_floating_point_nest() -> None:
    assert nest(grid(10, np.nextafter(523_560, 0), 4_832_820), GEOBOX) == Nesting(1, 0, 0)
