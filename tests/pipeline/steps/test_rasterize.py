"""Labels of small grids, worked out by hand, and of real parcels."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from numpy.testing import assert_array_equal
from odc.geo.geobox import GeoBox
from shapely import MultiPolygon, Polygon, box

from sits_catalog.region import LabelRule
from sits_pipeline.steps.rasterize import rasterize, rasterize_finer
from sits_pipeline.values import Labels, Parcels

IGNORE = 65535
GRID = GeoBox((3, 3), Affine(10, 0, 0, 0, -10, 30), "EPSG:32631")
ALL = box(0, 0, 30, 30)
AREA, CENTER, TOUCHED = LabelRule(), LabelRule(rule="center"), LabelRule(rule="all_touched")


def parcels_of(*geometry: shapely.Geometry, crop: tuple[int, ...] = (), epsg: int = 32631) -> Parcels:
    n = len(geometry)
    return Parcels(
        epsg=epsg,
        parcel_id=np.arange(1, n + 1, dtype=np.uint32),
        source_row=np.arange(n),
        crop_type=np.array(crop or range(3, n + 3), np.uint16),
        geometry=np.array(geometry, np.object_),
    )


def draw(*geometry: shapely.Geometry, rule: LabelRule = AREA, crop: tuple[int, ...] = ()) -> Labels:
    return rasterize(parcels_of(*geometry, crop=crop), GRID, rule=rule, known=ALL)


def test_a_half_covered_pixel_is_won():
    labels = draw(box(0, 10, 15, 30), crop=(3,))
    assert_array_equal(labels.crop_type, [[3, 3, 0], [3, 3, 0], [0, 0, 0]])
    assert_array_equal(labels.parcel_id, [[1, 1, 0], [1, 1, 0], [0, 0, 0]])
    assert_array_equal(labels.coverage, [[255, 128, 0], [255, 128, 0], [0, 0, 0]])
    assert_array_equal(labels.conflict, np.zeros((3, 3)))


def test_boundary_distance_is_counted_from_the_pixel_centre_in_decimetres():
    labels = draw(box(0, 10, 15, 30))
    # Bottom right: (25, 5) to the corner (15, 10), sqrt(125) m.
    assert_array_equal(labels.boundary_distance, [[50, 0, -100], [50, 0, -100], [-50, -50, -112]])


def test_boundary_distance_sees_holes_and_saturates_at_100_m():
    grid = GeoBox((1, 26), Affine(10, 0, 0, 0, -10, 5), "EPSG:32631")
    ring = Polygon([(0, -500), (1000, -500), (1000, 500), (0, 500)], [[(230, -1), (240, -1), (240, 1), (230, 1)]])
    distance = rasterize(parcels_of(ring), grid, rule=AREA, known=None).boundary_distance[0]
    assert_array_equal(distance[:12], [50, 150, 250, 350, 450, 550, 650, 750, 850, 950, 1000, 1000])
    # The hole 230..240 m takes a fifth of its pixel, whose centre is 1 m from the hole's edge.
    assert_array_equal(distance[12:], [1000, 950, 850, 750, 650, 550, 450, 350, 250, 150, 50, 10, 50, 150][:14])


def test_the_type_of_every_layer_is_the_contract_s():
    labels = draw(box(0, 10, 15, 30))
    types = {name: values.dtype.name for name, values in vars(labels).items()}
    assert types == {
        "crop_type": "uint16",
        "parcel_id": "uint32",
        "coverage": "uint8",
        "boundary_distance": "int16",
        "conflict": "uint8",
    }


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (AREA, [[1, 0, 0], [1, 0, 0], [0, 0, 0]]),
        (CENTER, [[1, 0, 0], [1, 0, 0], [0, 0, 0]]),
        (TOUCHED, [[1, 1, 0], [1, 1, 0], [1, 1, 0]]),
        (LabelRule(min_coverage=0.7), [[0, 0, 0], [1, 0, 0], [0, 0, 0]]),
        (LabelRule(min_coverage=0.2), [[1, 0, 0], [1, 1, 0], [0, 0, 0]]),
    ],
)
def test_each_rule_has_its_own_winners_and_the_same_coverage(rule, expected):
    labels = draw(box(2, 8, 12, 28), rule=rule)
    assert_array_equal(labels.parcel_id, expected)
    # Shares 0.64, 0.8, 0.16 in the first column and a quarter of these in the second; x 255, rounded up.
    assert_array_equal(labels.coverage, [[164, 41, 0], [204, 51, 0], [41, 11, 0]])
    assert_array_equal(labels.boundary_distance > 0, np.array(expected) > 0)


@pytest.mark.parametrize("rule", [AREA, CENTER, TOUCHED])
def test_background_lies_only_where_something_is_known(rule):
    parcels = parcels_of(box(1, 11, 9, 29))
    west = rasterize(parcels, GRID, rule=rule, known=box(0, 0, 20, 30))
    assert_array_equal(west.crop_type, [[3, 0, IGNORE], [3, 0, IGNORE], [0, 0, IGNORE]])
    nowhere = rasterize(parcels, GRID, rule=rule, known=None)
    assert_array_equal(nowhere.crop_type, [[3, IGNORE, IGNORE], [3, IGNORE, IGNORE], [IGNORE] * 3])


def test_the_centre_decides_whether_a_pixel_is_known():
    speck, frame = (
        box(4, 24, 6, 26),
        Polygon([(10, 0), (30, 0), (30, 20), (10, 20)], [box(14, 4, 16, 6).exterior.coords]),
    )
    labels = rasterize(parcels_of(box(100, 0, 110, 9)), GRID, rule=AREA, known=MultiPolygon([speck, frame]))
    assert_array_equal(labels.crop_type, [[0, IGNORE, IGNORE], [IGNORE, 0, 0], [IGNORE, IGNORE, 0]])


@pytest.mark.parametrize("tip", [2550, 2560, 2570])
def test_all_touched_has_no_seam_where_gdal_s_rasters_join(tip):
    # GDAL burns the pixel below a polygon whose tip ends on its corner; rasters join at 2560 m.
    grid = GeoBox((6, 3), Affine(10, 0, 0, 0, -10, 2590), "EPSG:32631")
    wedge = Polygon([(10, tip + 5), (10, tip), (15, tip + 5)])
    labels = rasterize(parcels_of(wedge), grid, rule=TOUCHED, known=None)
    row = (2590 - tip) // 10
    assert_array_equal(np.argwhere(labels.parcel_id), [[row - 1, 1], [row, 1]])


def test_a_parcel_without_a_class_keeps_its_number():
    labels = draw(box(0, 20, 30, 30), crop=(IGNORE,))
    assert_array_equal(labels.parcel_id[0], [1, 1, 1])
    assert_array_equal(labels.crop_type, [[IGNORE] * 3, [0] * 3, [0] * 3])


def test_of_two_equal_shares_the_smaller_parcel_id_wins():
    first, second = box(0, 20, 5, 30), box(5, 20, 10, 30)
    assert draw(first, second).parcel_id[0, 0] == 1
    assert draw(second, first).parcel_id[0, 0] == 1


def test_a_slanted_edge_through_the_centre_is_a_tie_too():
    lower, upper = Polygon([(0, 23), (10, 27), (10, 0), (0, 0)]), Polygon([(0, 23), (10, 27), (10, 40), (0, 40)])
    assert draw(lower, upper).parcel_id[0, 0] == 1
    assert draw(upper, lower).parcel_id[0, 0] == 1


def test_the_parcel_that_covers_most_wins_even_when_it_comes_later():
    assert draw(box(0, 20, 4, 30), box(4, 20, 10, 30)).parcel_id[0, 0] == 2


def test_a_mixed_pixel_is_ignored_and_a_mostly_free_one_is_background():
    mixed = draw(box(0, 20, 3, 30), box(3, 20, 6, 30))
    assert mixed.crop_type[0, 0] == IGNORE
    free = draw(box(0, 20, 2, 30), box(3, 20, 6, 30))
    assert free.crop_type[0, 0] == 0


def test_parcels_that_overlap_cover_their_common_ground_once():
    labels = draw(box(0, 20, 3, 30), box(0, 20, 3, 30))
    assert labels.crop_type[0, 0] == 0
    labels = draw(box(0, 20, 3, 30), box(0, 20, 3, 30), box(4, 20, 8, 30))
    assert labels.crop_type[0, 0] == IGNORE


@pytest.mark.parametrize("widths", [[(0, 5)], [(0, 3), (3, 5)], [(0, 3), (2, 5)], [(0, 4), (1, 4), (2, 5)]])
def test_exactly_half_a_pixel_free_is_background(widths):
    demanding = LabelRule(min_coverage=0.9)
    labels = draw(*(box(west, 20, east, 30) for west, east in widths), rule=demanding)
    assert labels.crop_type[0, 0] == 0
    more = draw(*(box(west, 20, east + 0.001, 30) for west, east in widths), rule=demanding)
    assert more.crop_type[0, 0] == IGNORE


@pytest.mark.parametrize("rule", [AREA, CENTER, TOUCHED])
def test_a_mostly_covered_pixel_is_never_background(rule):
    # The centre (5, 25) lies in the gap between two parcels that cover 80 %; the lower pixel is free to 60 %.
    labels = draw(box(0, 20, 4, 30), box(6, 20, 10, 30), box(0, 10, 4, 20), rule=rule)
    assert labels.crop_type[0, 0] == {"area": IGNORE, "center": IGNORE, "all_touched": 4}[rule.rule]
    assert labels.crop_type[1, 0] == {"area": 0, "center": 0, "all_touched": 5}[rule.rule]


def test_conflict_tells_same_class_different_classes_and_twice_covered_apart():
    left, right = box(0, 20, 4, 30), box(6, 20, 9, 30)
    assert draw(left, right, crop=(5, 5)).conflict[0, 0] == 1
    assert draw(left, right, crop=(5, 6)).conflict[0, 0] == 2
    assert draw(left, right, box(4, 20, 6, 30), crop=(5, 6, 5)).conflict[0, 0] == 1 | 2
    assert draw(ALL, box(0, 20, 10, 30), crop=(5, 6)).conflict[0].tolist() == [2 | 4, 0, 0]
    assert draw(left, MultiPolygon([box(5, 20, 6, 30), box(8, 20, 9, 30)]), crop=(5, 5)).conflict[0, 0] == 1


def test_parcels_without_a_class_are_not_known_to_be_of_one_class():
    left, right = box(0, 20, 4, 30), box(6, 20, 9, 30)
    assert draw(left, right, crop=(IGNORE, IGNORE)).conflict[0, 0] == 2
    assert draw(left, right, crop=(IGNORE, 5)).conflict[0, 0] == 2
    assert draw(left, right, box(4, 20, 6, 30), crop=(IGNORE, 5, 5)).conflict[0, 0] == 1 | 2


def test_parts_of_one_parcel_are_not_in_conflict():
    labels = draw(MultiPolygon([box(0, 20, 4, 30), box(6, 20, 10, 30)]))
    assert labels.conflict[0, 0] == 0
    assert labels.coverage[0, 0] == 204


def test_a_hole_is_not_covered():
    labels = draw(Polygon([(0, 0), (30, 0), (30, 30), (0, 30)], [[(10, 10), (10, 20), (20, 20), (20, 10)]]))
    assert_array_equal(labels.coverage, [[255, 255, 255], [255, 0, 255], [255, 255, 255]])
    assert_array_equal(labels.crop_type, [[3, 3, 3], [3, 0, 3], [3, 3, 3]])
    assert_array_equal(labels.boundary_distance, [[50, 50, 50], [50, -50, 50], [50, 50, 50]])


def test_a_sliver_counts_from_a_millionth_of_a_pixel_on():
    assert draw(box(0, 20, 1e-4, 30)).coverage[0, 0] == 1
    assert draw(box(0, 20, 1e-6, 30)).coverage[0, 0] == 0


def test_drawing_order_is_the_source_s_and_not_that_of_the_ids():
    parcels = parcels_of(box(0, 0, 20, 30), box(10, 0, 30, 30))
    turned = Parcels(**{**vars(parcels), "source_row": np.array([7, 2])})
    for rule in (CENTER, TOUCHED):
        assert rasterize(parcels, GRID, rule=rule, known=None).parcel_id[0, 1] == 2
        assert rasterize(turned, GRID, rule=rule, known=None).parcel_id[0, 1] == 1


def test_no_parcels_leave_background_and_full_distance():
    labels = rasterize(parcels_of(), GRID, rule=AREA, known=ALL)
    assert not labels.crop_type.any()
    assert not labels.coverage.any()
    assert (labels.boundary_distance == -1000).all()
    for rule in (CENTER, TOUCHED):
        assert (rasterize(parcels_of(), GRID, rule=rule, known=None).crop_type == IGNORE).all()


def test_finer_labels_nest_in_the_grid():
    finer = rasterize_finer(parcels_of(box(0, 10, 15, 30)), GRID, factor=2, rule=AREA, known=ALL)
    assert finer.crop_type.shape == (6, 6)
    assert_array_equal(finer.coverage, np.pad(np.full((4, 3), 255), ((0, 2), (0, 3))))
    assert_array_equal(finer.parcel_id, np.pad(np.ones((4, 3)), ((0, 2), (0, 3))))
    quarter = rasterize_finer(parcels_of(box(0, 10, 16, 30)), GRID, factor=4, rule=AREA, known=None)
    assert quarter.coverage[0].tolist() == [255] * 6 + [102] + [0] * 5
    assert quarter.crop_type[0].tolist() == [3] * 6 + [IGNORE] * 6


def test_bad_input_is_named():
    bow_tie = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    with pytest.raises(ValueError, match=r"parcel 2 must be a valid polygon .* Self-intersection"):
        draw(ALL, bow_tie)
    with pytest.raises(ValueError, match=r"parcel 1 .* an empty Polygon"):
        draw(Polygon())
    with pytest.raises(ValueError, match=r"parcel 1 .* a LineString"):
        draw(shapely.LineString([(0, 0), (1, 1)]))
    with pytest.raises(ValueError, match=r"parcel 1 .* no geometry"):
        draw(None)
    with pytest.raises(ValueError, match="EPSG:2154"):
        rasterize(parcels_of(ALL, epsg=2154), GRID, rule=AREA, known=None)
    with pytest.raises(ValueError, match="known area"):
        rasterize(parcels_of(ALL), GRID, rule=AREA, known=bow_tie)
    with pytest.raises(ValueError, match="north up"):
        rasterize(parcels_of(ALL), GeoBox((3, 3), Affine(8, 6, 0, 6, -8, 30), 32631), rule=AREA, known=None)
    with pytest.raises(ValueError, match="order of their parcel_id"):
        rasterize(parcels_of(ALL, ALL).take(np.array([1, 0])), GRID, rule=AREA, known=None)
    with pytest.raises(ValueError, match="got 3"):
        rasterize_finer(parcels_of(ALL), GRID, factor=3, rule=AREA, known=None)


def test_the_eolearn_raster_is_reproduced_bit_for_bit_by_the_centre_rule(sits_data):
    polygons = gpd.read_file(sits_data / "eolearn/TestEOPatch/vector_timeless/LULC.gpkg")
    expected = np.load(sits_data / "eolearn/TestEOPatch/mask_timeless/LULC.npy")[..., 0]
    transform = json.loads((sits_data / "expected.json").read_text())["eolearn"]["transform"]
    grid = GeoBox(expected.shape, Affine(*transform[:6]), "EPSG:32633")
    parcels = parcels_of(*polygons.geometry, crop=tuple(polygons.LULC_ID), epsg=32633)
    labels = rasterize(parcels, grid, rule=CENTER, known=shapely.box(*grid.boundingbox.bbox))
    assert_array_equal(labels.crop_type, expected)


@pytest.fixture(scope="module")
def t31tej(sits_data) -> tuple[Parcels, GeoBox, dict[str, int], dict]:
    expected = json.loads((sits_data / "expected.json").read_text())["t31tej"]
    fields = gpd.read_file(sits_data / "t31tej/parcels/france_data_2018.shp").to_crs(32631)
    crop = tuple(expected["nomenclature"][name] for name in fields.EC_hcat_n)
    grid = GeoBox(tuple(expected["shape_rows_cols"]), Affine(*expected["transform"][:6]), "EPSG:32631")
    return parcels_of(*fields.geometry, crop=crop), grid, expected["nomenclature"], expected


@pytest.mark.parametrize(
    ("rule", "section"),
    [
        (CENTER, ("centre_rule", "pixels_per_class")),
        (TOUCHED, ("all_touched_rule", "pixels_per_class_last_parcel_wins")),
        (AREA, ("exact_area_min_cover_0.5", "by_parcel", "pixels_per_class")),
    ],
)
def test_t31tej_has_the_expected_pixels_a_class(t31tej, rule, section):
    parcels, grid, classes, expected = t31tej
    for key in section:
        expected = expected[key]
    labels = rasterize(parcels, grid, rule=rule, known=None)
    counts = np.bincount(labels.crop_type[labels.crop_type != IGNORE], minlength=9)
    assert {name: counts[index] for name, index in classes.items()} == expected
    assert counts.sum() == sum(expected.values())


def test_t31tej_has_the_expected_covered_area(t31tej):
    parcels, grid, _, expected = t31tej
    expected = expected["exact_area_min_cover_0.5"]
    labels = rasterize(parcels, grid, rule=AREA, known=None)
    # Three pixels are covered by 3.7e-7, 5.7e-7 and 6.0e-7 (shapely), which is none.
    assert np.count_nonzero(labels.coverage) == expected["cells_touched_by_any_parcel"] - 3
    assert len(np.unique(labels.parcel_id)) - 1 == expected["by_parcel"]["parcels_with_pixels"]
