"""Labels are the same, bit by bit, in whichever window they are drawn."""

from __future__ import annotations

import dataclasses
import functools
from itertools import pairwise

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from odc.geo.geobox import GeoBox

from sits_catalog.region import LabelRule
from sits_pipeline.steps.rasterize import rasterize, rasterize_finer
from sits_pipeline.values import Labels, Parcels

IGNORE = 65535
# Off every power of two, so that a window's own corner would be noticed; a lattice of the southern half.
LEFT, TOP, SIDE = 523560, 9832780, 200
REACH = 110
AREA = LabelRule()
RULES = [AREA, LabelRule(min_coverage=0.9), LabelRule(rule="center"), LabelRule(rule="all_touched")]
LAYERS = [field.name for field in dataclasses.fields(Labels)]


def window(row: int, column: int, height: int, width: int) -> GeoBox:
    return GeoBox((height, width), Affine(10, 0, LEFT + column * 10, 0, -10, TOP - row * 10), "EPSG:32731")


WHOLE = window(0, 0, SIDE, SIDE)


@functools.cache
def landscape() -> Parcels:
    """Neighbours with wavy common edges; boxes on pixel edges and centres; holes, parts, overlaps, slivers, a giant."""
    rng = np.random.default_rng(7)
    corner = np.array([LEFT, TOP - SIDE * 10])
    seeds = shapely.multipoints(corner + rng.uniform(-300, SIDE * 10 + 300, (120, 2)))
    wavy = shapely.segmentize(shapely.get_parts(shapely.voronoi_polygons(seeds)), 17.0)
    wavy = shapely.transform(wavy, lambda xy: xy + 6 * np.sin(np.round(xy[:, ::-1], 3) / 23))
    wavy[::3] = shapely.buffer(wavy[::3], -4)
    holed = [shapely.difference(p, shapely.buffer(shapely.centroid(p), 12)) for p in wavy[1::10]]
    low = corner + rng.integers(0, SIDE * 2, (40, 2)) * 5
    boxes = shapely.box(*low.T, *(low + rng.integers(1, 30, (40, 2)) * 5).T)
    thin = shapely.buffer(shapely.linestrings(corner + rng.uniform(0, SIDE * 10, (15, 2, 2))), 0.4)
    diagonal = [shapely.Polygon([(LEFT + a, TOP - 400), (LEFT + a + 800, TOP - 1200), (LEFT + a, TOP - 1200)])
                for a in (300, 305)]  # fmt: skip
    parts = [shapely.union_all(boxes[i : i + 3]) for i in range(0, 9, 3)]
    giant = shapely.Polygon([(LEFT - 5000, TOP - 900), (LEFT + 500, TOP - 700), (LEFT + 100, TOP + 5000)])
    kept = np.delete(wavy, np.s_[::6])
    found = np.array([*kept, *holed, *boxes, *thin, *diagonal, *parts, giant], np.object_)
    found = found[np.isin(shapely.get_type_id(found), (3, 6)) & shapely.is_valid(found) & (shapely.area(found) > 0.1)]
    n = len(found)
    return Parcels(
        epsg=32731,
        parcel_id=np.sort(rng.permutation(4 * n)[:n]).astype(np.uint32) + np.uint32(1),
        source_row=rng.permutation(n),
        crop_type=rng.choice([1, 2, 3, IGNORE], n).astype(np.uint16),
        geometry=found,
    )


@functools.cache
def known() -> shapely.Geometry:
    centre = shapely.Point(LEFT + SIDE * 5, TOP - SIDE * 5)
    return shapely.difference(shapely.buffer(centre, 900), shapely.buffer(centre, 300, quad_segs=3))


def near(geobox: GeoBox) -> Parcels:
    """What a cell is given: the parcels within 110 m of it."""
    ground = shapely.box(*geobox.boundingbox.bbox)
    return landscape().take(shapely.distance(landscape().geometry, ground) <= REACH)


def draw(geobox: GeoBox, rule: LabelRule) -> Labels:
    return rasterize(near(geobox), geobox, rule=rule, known=known())


@functools.cache
def whole(rule: LabelRule) -> Labels:
    return draw(WHOLE, rule)


def test_the_landscape_holds_every_kind_of_pixel():
    labels = whole(AREA)
    assert {0, 1, 2, 3, IGNORE} <= set(np.unique(labels.crop_type).tolist())
    assert set(np.unique(labels.conflict).tolist()) >= {0, 1, 2, 3, 4 | 1, 4 | 2}
    assert labels.boundary_distance.min() < -100
    assert labels.boundary_distance.max() > 300


cuts = st.sets(st.integers(1, SIDE - 1), max_size=3).map(lambda inner: [0, *sorted(inner), SIDE])


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(rows=cuts, columns=cuts, rule=st.sampled_from(RULES))
def test_a_window_equals_its_pieces_put_together(rows, columns, rule):
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            piece = draw(window(top, left, bottom - top, right - left), rule)
            for name in LAYERS:
                expected = getattr(whole(rule), name)[top:bottom, left:right]
                assert_array_equal(getattr(piece, name), expected, name)


spans = st.tuples(st.integers(-90, SIDE - 1), st.integers(1, 250))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(rows=spans, columns=spans, rule=st.sampled_from(RULES))
def test_overlapping_windows_agree_on_common_ground(rows, columns, rule):
    (top, height), (left, width) = rows, columns
    labels = draw(window(top, left, height, width), rule)
    ours = (slice(max(-top, 0), max(SIDE - top, 0)), slice(max(-left, 0), max(SIDE - left, 0)))
    theirs = (slice(max(top, 0), max(top + height, 0)), slice(max(left, 0), max(left + width, 0)))
    for name in LAYERS:
        assert_array_equal(getattr(labels, name)[ours], getattr(whole(rule), name)[theirs], name)


@pytest.mark.parametrize("rule", [AREA, LabelRule(rule="center")])
def test_finer_labels_of_a_part_are_a_part_of_the_finer_labels(rule):
    everything = rasterize_finer(near(WHOLE), WHOLE, factor=4, rule=rule, known=known())
    part = window(37, 101, 23, 64)
    finer = rasterize_finer(near(part), part, factor=4, rule=rule, known=known())
    for name, values in vars(finer).items():
        assert_array_equal(values, getattr(everything, name)[37 * 4 : 60 * 4, 101 * 4 : 165 * 4])


def test_bands_of_a_large_finer_grid_join_without_a_seam(monkeypatch):
    at_once = rasterize_finer(near(WHOLE), WHOLE, factor=2, rule=AREA, known=known())
    monkeypatch.setattr("sits_pipeline.steps.rasterize._BAND_PX", 9_999)
    for name, values in vars(rasterize_finer(near(WHOLE), WHOLE, factor=2, rule=AREA, known=known())).items():
        assert_array_equal(values, getattr(at_once, name))


def test_parcels_further_than_110_m_away_change_nothing():
    part = window(60, 60, 50, 50)
    everything = rasterize(landscape(), part, rule=AREA, known=known())
    for name in LAYERS:
        assert_array_equal(getattr(draw(part, AREA), name), getattr(everything, name), name)
