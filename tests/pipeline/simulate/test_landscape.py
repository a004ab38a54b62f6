from __future__ import annotations

import numpy as np
import pytest
import shapely

from sits_pipeline.simulate.climates import CLIMATES
from sits_pipeline.simulate.crops import COVERS, CROPS
from sits_pipeline.simulate.declarations import Declarations, declare
from sits_pipeline.simulate.landscape import Landscape, make_landscape

BOUNDS = (524_760.0, 5_383_560.0, 535_440.0, 5_394_240.0)


@pytest.fixture(scope="module")
def landscape() -> Landscape:
    """The demo's 10.7 km x 10.7 km."""
    return make_landscape(BOUNDS, CLIMATES["temperate"], 0)


@pytest.fixture(scope="module")
def declarations(landscape: Landscape) -> Declarations:
    return declare(landscape, (525_000.0, 5_383_800.0, 535_200.0, 5_394_000.0), 0)


def test_fields_are_between_a_third_of_a_hectare_and_fifteen(landscape: Landscape) -> None:
    hectares = shapely.area(landscape.geometry[landscape.field]) / 1e4
    assert hectares.min() >= 0.3
    assert hectares.max() <= 15
    assert 1 < np.median(hectares) < 4
    assert shapely.is_valid(landscape.geometry).all()


def test_fields_do_not_overlap_and_many_share_an_edge(landscape: Landscape) -> None:
    fields = landscape.geometry[landscape.field]
    first, second = shapely.STRtree(fields).query(fields, predicate="intersects")
    pairs = first < second
    common = shapely.intersection(fields[first[pairs]], fields[second[pairs]])
    assert shapely.area(common).max() < 0.01
    assert np.count_nonzero(shapely.length(common) > 50) > 1000


def test_all_twelve_crops_grow_and_so_do_woods_and_villages(landscape: Landscape) -> None:
    counts = np.bincount(landscape.cover[landscape.field], minlength=len(COVERS))
    assert (counts[: len(CROPS)] >= 25).all()
    assert counts[len(CROPS) :].sum() == 0
    others = {COVERS[index].code for index in np.unique(landscape.cover[~landscape.field])}
    assert others == {"road", "verge", "broadleaf", "conifer", "street", "house", "hall", "garden", "lake", "river"}


def test_the_first_piece_covers_everything(landscape: Landscape) -> None:
    assert landscape.geometry[0].covers(shapely.box(*BOUNDS))


@pytest.mark.slow
def test_two_countries_differ(landscape: Landscape) -> None:
    pampas = make_landscape(BOUNDS, CLIMATES["pampas"], 0)
    size = [np.median(shapely.area(land.geometry[land.field])) for land in (landscape, pampas)]
    assert size[1] > 1.5 * size[0]
    soy = [np.mean(land.cover[land.field] == list(CROPS).index("soy")) for land in (landscape, pampas)]
    assert soy[1] > 4 * soy[0]


def test_a_small_region_has_a_lake_and_fields() -> None:
    small = make_landscape((0.0, 0.0, 1680.0, 1680.0), CLIMATES["temperate"], 5)
    lakes = small.geometry[small.cover == [cover.code for cover in COVERS].index("lake")]
    assert any(shapely.box(240, 240, 1440, 1440).contains(lake.centroid) for lake in lakes)
    assert small.field.sum() > 30


def test_the_declarations_hold_what_real_ones_hold(declarations: Declarations) -> None:
    assert len(declarations) >= 1500
    counts = {name: int((declarations.oddity == name).sum()) for name in set(declarations.oddity)}
    assert set(counts) == {"", "multipolygon", "sliver", "overlap", "invalid", "duplicate"}
    assert 2 <= counts["invalid"] <= 10
    assert min(counts[name] for name in ("multipolygon", "sliver", "overlap")) >= 10
    assert (~shapely.is_valid(declarations.geometry)).sum() == counts["invalid"]
    multi = shapely.get_type_id(declarations.geometry) == shapely.GeometryType.MULTIPOLYGON
    assert multi.sum() >= counts["multipolygon"]
    holes = shapely.get_num_interior_rings(declarations.geometry[~multi])
    assert (holes > 0).sum() >= 20


def test_slivers_are_narrow_and_overlaps_a_few_metres_wide(declarations: Declarations) -> None:
    slivers = declarations.geometry[declarations.oddity == "sliver"]
    assert (shapely.area(shapely.buffer(slivers, -3)) < 0.1 * shapely.area(slivers)).all()
    sound = declarations.geometry[shapely.is_valid(declarations.geometry) & (declarations.oddity != "duplicate")]
    first, second = shapely.STRtree(sound).query(sound, predicate="overlaps")
    assert len(first) > 60
    shared = shapely.intersection(sound[first], sound[second])
    assert shapely.area(shapely.buffer(shared, -2.6)).max() < 200


def test_codes_are_those_of_the_crops_the_ignored_one_unknown_ones_and_none(declarations: Declarations) -> None:
    codes = list(declarations.code)
    assert set(codes) == {*CROPS, "other", "quinoa", "hops", None}
    assert codes.count(None) == 1
    assert codes.count("other") > 10
    assert 1 <= codes.count("quinoa") <= 10


def test_duplicates_repeat_another_parcel(declarations: Declarations) -> None:
    for geometry in declarations.geometry[declarations.oddity == "duplicate"]:
        assert shapely.equals_exact(declarations.geometry, geometry).sum() == 2
