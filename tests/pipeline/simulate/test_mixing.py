from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_pipeline.simulate.mixing import share_pixels


def grid(rows: int, columns: int, resolution: int = 10) -> GeoBox:
    return GeoBox((rows, columns), Affine(resolution, 0, 0, 0, -resolution, rows * resolution), "EPSG:32631")


def pieces(*geometry: shapely.Geometry) -> NDArray[np.object_]:
    return np.array([shapely.box(-1e4, -1e4, 1e4, 1e4), *geometry], dtype=object)


def test_a_pixel_cut_in_the_middle_sees_both_halves_alike() -> None:
    shares = share_pixels(pieces(shapely.box(35, -100, 200, 200)), grid(5, 8), 4)
    seen = shares.spread(np.array([0, 1], np.float32))
    assert seen[2, 3] == pytest.approx(0.5, abs=1e-6)
    assert seen[2].tolist() == pytest.approx([*(1 - seen[2, 6::-1]), 1.0], abs=1e-5)


def test_pixels_far_from_an_edge_see_one_piece() -> None:
    shares = share_pixels(pieces(shapely.box(40, -100, 200, 200)), grid(5, 8), 4)
    seen = shares.spread(np.array([0, 1], np.float32))
    assert seen[:, :3].tolist() == np.zeros((5, 3)).tolist()
    assert seen[:, 5:].tolist() == np.ones((5, 3)).tolist()
    assert ((seen[:, 3] > 0.05) & (seen[:, 3] < 0.3)).all()


def test_shares_sum_to_one_and_mixing_is_linear() -> None:
    rng = np.random.default_rng(0)
    boxes = [shapely.Point(*rng.uniform(0, 400, 2)).buffer(rng.uniform(5, 60)) for _ in range(60)]
    shares = share_pixels(pieces(*boxes), grid(40, 40), 4)
    a, b = rng.random((2, 61)).astype(np.float32)
    assert shares.spread(np.ones(61, np.float32)) == pytest.approx(np.ones((40, 40)), abs=1e-5)
    both = shares.spread(a + 2 * b)
    assert both == pytest.approx(shares.spread(a) + 2 * shares.spread(b), abs=1e-4)


@pytest.mark.parametrize(("resolution", "samples"), [(10, 4), (20, 6), (60, 8)])
def test_the_blur_moves_no_area(resolution: int, samples: int) -> None:
    field = shapely.box(333, 412, 1517, 1298)
    shares = share_pixels(pieces(field), grid(1800 // resolution, 1800 // resolution, resolution), samples)
    seen = shares.spread(np.array([0, 1], np.float32)).sum() * resolution**2
    assert seen == pytest.approx(field.area, rel=0.01)


def test_strips_join_without_a_seam() -> None:
    field = shapely.Point(60, 2450).buffer(47)
    tall = share_pixels(pieces(field), grid(490, 12), 4).spread(np.array([0, 1], np.float32))
    low = GeoBox((20, 12), Affine(10, 0, 0, 0, -10, 2550), "EPSG:32631")
    alone = share_pixels(pieces(field), low, 4).spread(np.array([0, 1], np.float32))
    assert tall[235:255].tolist() == alone.tolist()
    assert 0 < alone.max() <= 1


def test_later_pieces_are_painted_over_earlier_ones() -> None:
    shares = share_pixels(pieces(shapely.box(0, 0, 100, 100), shapely.box(0, 0, 100, 100)), grid(10, 10), 4)
    assert shares.main[5, 5] == 2
