"""What a cell's task carries: what is near it, however large the region is."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from tests.pipeline.plan.test_zones import VERDICT, scene

from sits_catalog.cube import Split
from sits_pipeline.plan import Zone, ZonePlan
from sits_pipeline.plan.lattice import to_lonlat
from sits_pipeline.sources.api import ApiSource
from sits_pipeline.sources.providers import PROVIDERS
from sits_pipeline.steps.chips import ChipFrame, select_chips
from sits_pipeline.steps.rasterize.known import centres_inside
from sits_pipeline.steps.rasterize.lattice import lattice_of
from sits_pipeline.tasks import ChipsNear, _Days, _Known, _Visits, cell_costs
from sits_pipeline.values import Acquisition, Scene, Window

SIDE = 128
GRID = GeoBox((4 * SIDE, 6 * SIDE), Affine(10, 0, 500_040, 0, -10, 4_800_000), "EPSG:32631")


def cell(row: int, column: int) -> GeoBox:
    return GRID[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]


def over(name: str, left: float, right: float) -> Scene:
    """A scene of the grid's columns of cells from `left` to `right`, all rows."""
    west, south, east, north = GRID.boundingbox.bbox
    width = (east - west) / 6
    ground = shapely.box(west + left * width, south - 5000, west + right * width, north + 5000)
    return replace(scene(name), footprint=to_lonlat(ground, 32631))


def plan() -> ZonePlan:
    """A day over all, one over the three columns in the west, and a day of two scenes in the east."""
    groups = [[over("a", -9, 15)], [over("b", -9, 3)], [over("c", 4, 15), over("d", 5, 15)]]
    days = [date(2018, 4, number) for number in (3, 8, 13)]
    return ZonePlan(
        zone=Zone(name="z", geobox=GRID, area=shapely.box(*GRID.boundingbox.bbox), clip_to_strip=True),
        bands=("B02", "B05"),
        acquisitions=tuple(
            Acquisition(day=day, scenes=tuple(group), verdicts=(VERDICT,) * len(group))
            for day, group in zip(days, groups, strict=True)
        ),
        refusals=(),
        splits=None,
        cell_px=SIDE,
        config_sha256="",
    )


def test_a_cell_has_all_days_and_the_scenes_near_it_in_their_order() -> None:
    visits = _Visits(plan())
    ids = [[visit.scene.id for visit in day.visits] for day in visits.of(cell(0, 0).boundingbox.bbox)]
    assert ids == [["a"], ["b"], []]
    east = visits.of(cell(3, 5).boundingbox.bbox)
    assert [[visit.scene.id for visit in day.visits] for day in east] == [["a"], [], ["c", "d"]]
    assert [visit.source_index for visit in east[2].visits] == [0, 1]
    assert [day.day for day in east] == [acquisition.day for acquisition in plan().acquisitions]


def test_cells_that_see_the_same_scenes_share_their_days_and_travel_in_the_same_bytes() -> None:
    visits = _Visits(plan())
    one, other, third = (visits.of(cell(*at).boundingbox.bbox) for at in ((0, 0), (3, 1), (0, 5)))
    assert one is other
    assert one != third
    assert isinstance(one, _Days)
    travelled = pickle.loads(pickle.dumps(one))
    assert type(travelled) is tuple
    assert travelled == tuple(one)
    assert pickle.loads(pickle.dumps(other)) is travelled


def test_chips_near_a_cell_are_those_that_meet_it() -> None:
    rng = np.random.default_rng(0)
    chips = [
        ChipFrame(
            chip_id=f"parcel-{number}",
            window=Window(row=int(row), column=int(column), height=64, width=80),
            split=Split.TRAIN,
        )
        for number, (row, column) in enumerate(rng.integers(0, 4 * SIDE, (60, 2)))
    ]
    found = ChipsNear(chips)
    for window in plan().cells():
        assert found.of(window) == select_chips(chips, window)
    assert ChipsNear(()).of(Window(row=0, column=0, height=SIDE, width=SIDE)) == ()


def test_what_a_cell_is_told_of_the_known_area_gives_the_same_pixels() -> None:
    west, south, east, north = GRID.boundingbox.bbox
    slanted = shapely.Polygon([(west - 900, south - 900), (west + 3000, north + 900), (west - 900, north + 900)])
    area = shapely.union(slanted, shapely.box(east - 2000, south + 1000, east + 50, north - 1500))
    known, told = _Known(area), set()
    for row in range(4):
        for column in range(6):
            near = known.near(cell(row, column))
            assert near is not None
            told.add("outline" if near is area else "nothing" if near.is_empty else "rectangle")
            lattice = lattice_of(cell(row, column))
            np.testing.assert_array_equal(centres_inside(near, lattice), centres_inside(area, lattice))
    assert told == {"outline", "nothing", "rectangle"}
    assert _Known(None).near(cell(0, 0)) is None


def test_costs_of_files_are_those_of_each_cell(tmp_path: Path) -> None:
    source = ApiSource(
        provider=PROVIDERS["earth-search"], url="https://example.org", collection="sentinel-2-l2a", cache=tmp_path
    )
    visits = _Visits(plan())
    costs = list(cell_costs(source, plan()))
    assert [window for window, _ in costs] == list(plan().cells())
    for window, cost in costs:
        geobox = GRID[window.rows, window.columns]
        expected = sum(
            source.cost([visit.scene for visit in day.visits], geobox, ("B02", "B05")).requests
            for day in visits.of(geobox.boundingbox.bbox)
        )
        assert cost.requests == expected > 0
