"""Labels of random parcels against shapely, pixel by pixel, against exactextract and against rasterio."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from affine import Affine
from exactextract import exact_extract
from exactextract.feature import JSONFeatureSource
from exactextract.raster import NumPyRasterSource
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio import features

from sits_catalog.region import LabelRule
from sits_pipeline.steps.rasterize import rasterize, rasterize_finer
from sits_pipeline.values import Labels, Parcels

IGNORE = 65535
LEFT, TOP = 523560.0, 4832780.0
SIDE = 12
GRIDS = {
    10.0: GeoBox((SIDE, SIDE), Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631"),
    # Neither square nor of whole metres, as in data sets made elsewhere.
    9.9948: GeoBox((SIDE, SIDE), Affine(9.9948, 0, LEFT + 0.052, 0, -9.9974, TOP + 0.633), "EPSG:32631"),
}
grids = st.sampled_from(list(GRIDS.values()))

anywhere = st.integers(-30_000, 150_000).map(lambda n: n / 1000)
on_the_lattice = st.integers(-6, 30).map(lambda n: n * 5.0)
"""Pixel edges and pixel centres, exactly."""


def place(geometry: shapely.Geometry) -> shapely.Geometry:
    """Metres east and south of the grid's corner to coordinates of the CRS."""
    return shapely.transform(geometry, lambda xy: [LEFT, TOP] + [1, -1] * xy)


def polygonal(geometry: shapely.Geometry) -> shapely.Geometry:
    """The polygons of a repaired geometry."""
    parts = shapely.get_parts(shapely.make_valid(geometry))
    while any(shapely.get_type_id(parts) > 3):
        parts = shapely.get_parts(parts)
    return shapely.union_all(parts[shapely.get_type_id(parts) == 3])


@st.composite
def parcels_in(draw, coordinate) -> shapely.Geometry:
    points = st.tuples(coordinate, coordinate)
    kind = draw(st.sampled_from(["hull", "tangle", "hole", "parts", "thin", "tiny"]))
    corners = draw(st.lists(points, min_size=3, max_size=9))
    shape = shapely.make_valid(shapely.Polygon(corners))
    if kind == "hull":
        shape = shapely.convex_hull(shapely.multipoints(corners))
    elif kind == "hole":
        outer = shapely.convex_hull(shapely.multipoints(corners))
        shape = outer.difference(shapely.affinity.scale(outer, 0.5, 0.7))
    elif kind == "parts":
        shape = shapely.union(shape, shapely.box(-20, -20, 3, draw(st.integers(-5, 60))))
    elif kind == "thin":
        a, b = corners[:2]
        shape = shapely.Polygon([a, b, (b[0] + 0.3, b[1]), (a[0], a[1] + 0.2)])
    elif kind == "tiny":
        x, y = corners[0]
        shape = shapely.Polygon([(x, y), (x + 2, y), (x + 1, y + 1)])
    return place(polygonal(shape))


parcel_lists = st.one_of(
    st.lists(parcels_in(anywhere), min_size=1, max_size=6),
    st.lists(parcels_in(on_the_lattice), min_size=1, max_size=6),
).map(lambda found: [g for g in found if shapely.is_valid(g) and shapely.area(g) > 1e-3])


def parcels_of(geometry: list[shapely.Geometry]) -> Parcels:
    n = len(geometry)
    return Parcels(
        epsg=32631,
        parcel_id=np.arange(1, n + 1, dtype=np.uint32),
        source_row=np.arange(n)[::-1].copy(),
        crop_type=np.resize(np.array([3, 4, 3, IGNORE], np.uint16), n),
        geometry=np.array(geometry, np.object_),
    )


def squares(grid: GeoBox) -> NDArray[np.object_]:
    """Every pixel as a polygon, (y, x)."""
    a = grid.affine
    row, column = np.indices(grid.shape)
    x, y = a.c + column * a.a, a.f + row * a.e
    return shapely.box(x, y + a.e, x + a.a, y)


def centres(grid: GeoBox) -> NDArray[np.object_]:
    a = grid.affine
    row, column = np.indices(grid.shape)
    return shapely.points(a.c + (column + 0.5) * a.a, a.f + (row + 0.5) * a.e)


def shares_by_shapely(geometry: list[shapely.Geometry], grid: GeoBox) -> NDArray[np.float64]:
    """Share of each pixel a parcel: (parcel, y, x)."""
    pixels = squares(grid)
    area = np.array([shapely.area(shapely.intersection(pixels, g)) for g in geometry])
    area = area.reshape(len(geometry), *grid.shape)
    return area / abs(grid.affine.a * grid.affine.e)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(geometry=parcel_lists, grid=grids)
def test_coverage_winner_class_and_conflict_agree_with_intersections_by_shapely(geometry, grid):
    known = shapely.buffer(shapely.Point(LEFT + 61, TOP - 58), 47)
    labels = rasterize(parcels_of(geometry), grid, rule=LabelRule(), known=known)
    check_against_shapely(labels, geometry, grid, known)


metres = st.integers(0, 19)
small_triangles = st.lists(st.tuples(metres, metres), min_size=3, max_size=3, unique=True).map(shapely.Polygon)
crowds = st.lists(small_triangles, min_size=3, max_size=9).map(
    lambda found: [place(g) for g in found if shapely.area(g) > 0.1]
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(geometry=crowds, min_coverage=st.sampled_from([0.5, 0.9]))
def test_ground_that_several_parcels_share_is_counted_once(geometry, min_coverage):
    grid = GeoBox((2, 2), GRIDS[10.0].affine, "EPSG:32631")
    rule, known = LabelRule(min_coverage=min_coverage), place(shapely.box(-100, -100, 100, 100))
    labels = rasterize(parcels_of(geometry), grid, rule=rule, known=known)
    union = shapely.area(shapely.intersection(squares(grid), shapely.union_all(geometry))) / 100
    sure = (labels.parcel_id == 0) & (np.abs(union - 0.5) > 1e-6)
    assert_array_equal(labels.crop_type[sure], np.where(union < 0.5, 0, IGNORE)[sure])


def check_against_shapely(labels: Labels, geometry, grid: GeoBox, known: shapely.Geometry) -> None:
    shares = shares_by_shapely(geometry, grid)
    parcels = parcels_of(geometry)
    best = shares.max(axis=0, initial=0)
    assert np.abs(labels.coverage / 255 - best).max() <= 1 / 255 + 1e-6

    wins = labels.parcel_id > 0
    sure = np.abs(best - 0.5) > 1e-6
    assert_array_equal(wins[sure], best[sure] > 0.5)
    assert (best[wins] >= 0.5 - 1e-6).all()
    rows, columns = np.nonzero(wins)
    winner = labels.parcel_id[wins].astype(int) - 1
    assert (shares[winner, rows, columns] >= best[wins] - 1e-6).all()
    # Nobody with a smaller number covers as much.
    for parcel in range(len(geometry)):
        smaller = parcel < winner
        assert (shares[parcel, rows, columns][smaller] < best[wins][smaller] + 1e-6).all()
    assert_array_equal(labels.crop_type[wins], parcels.crop_type[winner])

    union = shapely.union_all(np.array([shapely.make_valid(g) for g in geometry], np.object_))
    free = 1 - shapely.area(shapely.intersection(squares(grid), union)) / abs(grid.affine.a * grid.affine.e)
    background = (free > 0.5) & shapely.intersects(known, centres(grid))
    sure = ~wins & (np.abs(free - 0.5) > 1e-6)
    assert_array_equal(labels.crop_type[sure], np.where(background, 0, IGNORE)[sure])

    present, noise = shares > 2e-6, (shares > 1e-7) & (shares <= 2e-6)
    whole, nearly = shares > 1 - 5e-7, (shares > 1 - 2e-6) & (shares <= 1 - 5e-7)
    for row, column in np.argwhere(~(noise | nearly).any(axis=0)):
        classes = parcels.crop_type[present[:, row, column]].tolist()
        # No two parcels without a class are known to be of one.
        classes = [(IGNORE, number) if crop == IGNORE else crop for number, crop in enumerate(classes)]
        bits = (len(set(classes)) < len(classes)) | (len(set(classes)) > 1) << 1
        bits |= (np.count_nonzero(whole[:, row, column]) > 1) << 2
        assert labels.conflict[row, column] == bits


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(geometry=parcel_lists, factor=st.sampled_from([2, 4]))
def test_finer_labels_are_the_labels_of_the_finer_grid(geometry, factor):
    grid = GRIDS[10.0]
    fine = GeoBox((SIDE * factor, SIDE * factor), Affine(10 / factor, 0, LEFT, 0, -10 / factor, TOP), "EPSG:32631")
    known = place(shapely.box(5, 0, 90, 100))
    finer = rasterize_finer(parcels_of(geometry), grid, factor=factor, rule=LabelRule(), known=known)
    expected = rasterize(parcels_of(geometry), fine, rule=LabelRule(), known=known)
    for name, values in vars(finer).items():
        assert_array_equal(values, getattr(expected, name))
    check_against_shapely(expected, geometry, fine, known)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(geometry=parcel_lists, grid=grids)
def test_boundary_distance_agrees_with_shapely(geometry, grid):
    labels = rasterize(parcels_of(geometry), grid, rule=LabelRule(), known=None)
    distance = np.full(grid.shape, 100.0)
    for parcel in geometry:
        distance = np.minimum(distance, shapely.distance(centres(grid), shapely.boundary(parcel)))
    assert np.abs(np.abs(labels.boundary_distance) - distance * 10).max() <= 0.5 + 1e-3
    assert (labels.boundary_distance[labels.parcel_id > 0] >= 0).all()
    assert (labels.boundary_distance[labels.parcel_id == 0] <= 0).all()


@settings(max_examples=60, deadline=None)
@given(geometry=parcel_lists)
def test_coverage_agrees_with_exactextract(geometry):
    # A raster around all parcels: exactextract 0.3 crashes where a part outside touches the raster's edge.
    pad, side = 4, SIDE + 8
    expected = np.zeros(side * side)
    bounds = (LEFT - 10 * pad, TOP - 10 * (SIDE + pad), LEFT + 10 * (SIDE + pad), TOP + 10 * pad)
    raster = NumPyRasterSource(np.zeros((side, side)), *bounds)
    shapes = [{"type": "Feature", "geometry": json.loads(shapely.to_geojson(parcel))} for parcel in geometry]
    for feature in exact_extract(raster, JSONFeatureSource(shapes), ["cell_id", "coverage"]):
        found = feature["properties"]
        np.maximum.at(expected, found["cell_id"], found["coverage"])
    coverage = rasterize(parcels_of(geometry), GRIDS[10.0], rule=LabelRule(), known=None).coverage
    expected = expected.reshape(side, side)[pad:-pad, pad:-pad]
    assert np.abs(coverage / 255 - expected).max() <= 1 / 255 + 1e-5


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(geometry=parcel_lists, grid=grids, all_touched=st.booleans())
def test_center_and_all_touched_are_rasterio_in_the_order_of_the_source(geometry, grid, all_touched):
    parcels = parcels_of(geometry)
    rule = LabelRule(rule="all_touched" if all_touched else "center")
    labels = rasterize(parcels, grid, rule=rule, known=None)
    drawn = [(parcels.geometry[i], int(parcels.parcel_id[i])) for i in np.argsort(parcels.source_row)]
    expected = features.rasterize(
        drawn, out_shape=grid.shape, transform=grid.affine, all_touched=all_touched, dtype=np.int32
    )
    sure = ~ties(geometry, grid, all_touched=all_touched)
    assert_array_equal(labels.parcel_id[sure], expected[sure])
    assert_array_equal(labels.crop_type, np.append(IGNORE, parcels.crop_type)[labels.parcel_id])


shifts = st.integers(-40, 0)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(geometry=st.lists(parcels_in(on_the_lattice), min_size=1, max_size=3), row=shifts, column=shifts)
def test_ties_do_not_move_with_the_window(geometry, row, column):
    geometry = [g for g in geometry if shapely.area(g) > 1e-3]
    wide = GeoBox((SIDE - row, SIDE - column), GRIDS[10.0].affine @ Affine.translation(column, row), "EPSG:32631")
    for rule in (LabelRule(), LabelRule(rule="center"), LabelRule(rule="all_touched")):
        labels = rasterize(parcels_of(geometry), GRIDS[10.0], rule=rule, known=None)
        larger = rasterize(parcels_of(geometry), wide, rule=rule, known=None)
        for name, values in vars(labels).items():
            assert_array_equal(values, getattr(larger, name)[-row:, -column:], name)


def ties(geometry: list[shapely.Geometry], grid: GeoBox, *, all_touched: bool) -> NDArray[np.bool_]:
    """Pixels where GDAL decides by the position of its raster: the centre on an edge, or a touch without any area."""
    found = np.zeros(grid.shape, np.bool_)
    for parcel in geometry:
        if all_touched:
            outside = shapely.area(shapely.intersection(squares(grid), parcel)) < 1e-6
            found |= outside & (shapely.distance(squares(grid), parcel) < 1e-6)
        else:
            found |= shapely.distance(centres(grid), shapely.boundary(parcel)) < 1e-6
    return found
