"""The ground of many polygons together, against cases in which GEOS loses some of it."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sits_pipeline.simulate.partition import cut_by_size
from sits_pipeline.steps.rasterize.union import union

SQUARE = np.array([(0.0, 0.0), (1000.0, 0.0), (1000.0, 1000.0), (0.0, 1000.0)])
OFFSET = np.array([600_000, 4_900_000])


def pieces(seed: int, angle: float) -> NDArray[np.object_]:
    """A square of a square kilometre, cut; no two pieces overlap."""
    rings = cut_by_size(SQUARE, np.random.default_rng(seed), angle=angle, target=lambda: 4e4, tilt=0.1)
    return np.array([shapely.Polygon(ring) for ring in rings], dtype=object)


@given(seed=st.integers(0, 10_000), angle=st.floats(0, 3.14))
@example(seed=2557, angle=2.0078125)
@settings(max_examples=50)
def test_the_pieces_of_a_square_are_the_square(seed: int, angle: float) -> None:
    assert shapely.area(union(pieces(seed, angle))) == pytest.approx(1e6, abs=0.01)


@pytest.mark.parametrize("order", range(5))
def test_a_lost_piece_is_found_in_whatever_order_they_come(order: int) -> None:
    """union_all of GEOS 3.14.1 returns 954 177 m2 for these, and says nothing."""
    lost = np.random.default_rng(order).permutation(pieces(2557, 2.0078125))
    assert shapely.area(union(lost)) == pytest.approx(1e6, abs=0.01)
    moved = np.array([shapely.transform(one, lambda xy: xy + OFFSET) for one in lost], dtype=object)
    assert shapely.area(union(moved)) == pytest.approx(1e6, abs=0.01)
    degrees = np.array([shapely.transform(one, lambda xy: 45 + xy / 1e5) for one in lost], dtype=object)
    assert shapely.area(union(degrees)) == pytest.approx(1e-4, rel=1e-8)


def test_overlaps_count_once_and_vertices_stay_where_nothing_is_wrong() -> None:
    ground = union(np.array([shapely.box(0.1, 0, 1, 1), shapely.box(0.5, 0, 2, 1)], dtype=object))
    assert shapely.area(ground) == pytest.approx(1.9)
    assert set(shapely.get_coordinates(ground)[:, 0].tolist()) == {0.1, 0.5, 1.0, 2.0}


def test_one_none_and_nothing() -> None:
    box = shapely.box(0, 0, 1, 1)
    assert union(np.array([box], dtype=object)) is box
    assert shapely.equals_identical(union(np.array([None, box, shapely.Polygon()], dtype=object)), box)
    assert union(np.array([], dtype=object)).is_empty
    assert union(np.array([None], dtype=object)).is_empty
