from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import shapely
from tests.pipeline.sources.sentinel_hub.items import catalog_item
from tests.pipeline.sources.test_stac import AREA, SEASON
from tests.pipeline.sources.tiny_archive import item

from sits_pipeline.sources.footprints import footprint_of
from sits_pipeline.sources.items import scene_from_item
from sits_pipeline.sources.kept import _encode
from sits_pipeline.sources.sentinel_hub.catalog import scene_of
from sits_pipeline.sources.sift import Candidate, sift

OFTEN = "no footprint: its lines cross or touch one another in more than 100 places"


def scribble(corners: int) -> dict[str, Any]:
    """Corners at random around the area, so that about a quarter of all pairs of edges cross."""
    xy = np.random.default_rng(0).uniform((3.5, 43.5), (4.5, 44.5), (corners, 2))
    found: dict[str, Any] = json.loads(shapely.to_geojson(shapely.Polygon(xy)))
    return found


def drawn(geometry: dict[str, Any]) -> dict[str, Any]:
    return {**item(), "geometry": geometry}


# 250 corners took half a minute each time that they were looked at, by the first of these repairs.
def test_a_scribble_is_no_footprint_wherever_it_is_looked_at() -> None:
    document = drawn(scribble(250))
    with pytest.raises(ValueError, match=OFTEN):
        scene_from_item(document, str)
    with pytest.raises(ValueError, match=OFTEN):
        scene_of({**catalog_item(), "geometry": scribble(250)})
    found = sift([Candidate(document, "", lambda: scene_from_item(document, str))], AREA, SEASON)
    assert [one.reason for one in found.unusable] == [OFTEN]
    assert _encode([document], {})[:4] == b"PAR1"  # a kept search holds it without its place


def test_a_drawing_that_crosses_itself_a_few_times_is_repaired() -> None:
    found = footprint_of(drawn(scribble(12)))
    assert found.is_valid
    assert found.area > 0.1


@pytest.mark.parametrize("collected", [1, 2, 3])
def test_a_scribble_in_collections_is_none_either(collected: int) -> None:
    geometry = scribble(60)
    geometry = {"type": "MultiPolygon", "coordinates": [geometry["coordinates"]]}
    for _ in range(collected):
        geometry = {"type": "GeometryCollection", "geometries": [geometry]}
    with pytest.raises(ValueError, match=OFTEN):
        footprint_of(drawn(geometry))


def test_a_footprint_of_many_corners_is_read_and_one_of_too_many_is_not() -> None:
    circle = shapely.Point(4, 44).buffer(0.5, quad_segs=4999)
    geometry = json.loads(shapely.to_geojson(circle))
    assert footprint_of(drawn(geometry)).area == pytest.approx(math.pi / 4, rel=1e-5)
    wider = json.loads(shapely.to_geojson(shapely.Point(4, 44).buffer(0.5, quad_segs=5001)))
    with pytest.raises(ValueError, match="no footprint: it has 20005 vertices; up to 20000 are read"):
        footprint_of(drawn(wider))


def test_lines_that_would_be_cut_into_a_hundred_million_pieces_are_no_footprint() -> None:
    world = json.loads(shapely.to_geojson(shapely.box(-180, -90, 180, 90)))  # 1080 degrees
    half = json.loads(shapely.to_geojson(shapely.box(-180, 0, 180, 90)))  # 900
    assert footprint_of(drawn(half)).bounds == (-180, 0, 180, 90)
    with pytest.raises(ValueError, match="no footprint: its lines are longer than 1000 degrees together"):
        footprint_of(drawn(world))
    for far in (361.0, 1e9, 1e300):
        with pytest.raises(ValueError, match="no footprint: its coordinates are not all degrees"):
            footprint_of(drawn(json.loads(shapely.to_geojson(shapely.box(0, 0, far, 1)))))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_single_corner_that_is_no_number_is_enough(wrong: float) -> None:
    ring = [[3, 43], [4, 43], [4, wrong], [3, 44], [3, 43]]
    with pytest.raises(ValueError, match="no footprint: its coordinates are not all finite numbers"):
        footprint_of(drawn({"type": "Polygon", "coordinates": [ring]}))
