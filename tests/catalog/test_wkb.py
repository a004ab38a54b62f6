"""WKB of strangers."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from sits_catalog.wkb import read_wkb

SQUARE = shapely.box(0, 0, 1, 1)
COLLECTION, MULTIPOLYGON = 7, 6


def nested(levels: int, kind: int, order: str = "<") -> bytes:
    """A square in so many geometries of a kind, each of which holds one."""
    head = struct.pack(f"{order}BII", order == "<", kind, 1)
    return head * levels + shapely.to_wkb(SQUARE)


@pytest.mark.parametrize("kind", [COLLECTION, MULTIPOLYGON, 9, 12, 1007, 0x80000007])
@pytest.mark.parametrize("order", "<>")
def test_nesting_that_overflows_the_stack_of_the_library_is_no_geometry(kind: int, order: str) -> None:
    assert read_wkb([nested(200_000, kind, order)])[0] is None


def test_geometries_in_one_another_to_some_depth_are_read() -> None:
    few, many = read_wkb([nested(60, COLLECTION), nested(70, COLLECTION)])
    assert shapely.area(few) == 1
    assert many is None


@pytest.mark.parametrize("count", [2**31, 2**32 - 1])
@pytest.mark.parametrize("head", [(3,), (3, 1), (2,), (4,), (6,), (7,)])
def test_counts_that_lie_make_no_geometry_and_ask_for_no_memory(head: tuple[int, ...], count: int) -> None:
    assert read_wkb([struct.pack(f"<B{len(head) + 1}I", 1, *head, count)])[0] is None


def test_large_geometries_are_looked_through_and_read() -> None:
    circle = shapely.Point(0, 0).buffer(1, quad_segs=2000)
    ground = shapely.MultiPolygon([circle, shapely.affinity.translate(circle, 5).difference(SQUARE)])
    every = [
        ground,
        shapely.force_3d(ground),
        shapely.LineString(circle.exterior),
        shapely.GeometryCollection([ground]),
    ]
    for flavor in ("iso", "extended"):
        data = [shapely.to_wkb(one, flavor=flavor, byte_order=big) for one in every for big in (0, 1)]
        assert min(map(len, data)) > 50_000
        assert shapely.equals_exact(read_wkb(data), np.repeat(every, 2)).all()
    assert shapely.equals_exact(read_wkb([shapely.to_wkb(shapely.set_srid(ground, 32631), include_srid=True)]), ground)


@given(
    st.lists(st.one_of(st.none(), st.binary(max_size=60), st.integers(0, 92).map(lambda n: shapely.to_wkb(SQUARE)[:n])))
)
def test_any_bytes_are_a_geometry_or_none(values: list[bytes | None]) -> None:
    assert len(read_wkb(values)) == len(values)


@pytest.mark.soak
@settings(max_examples=3000, deadline=10_000)
@given(st.data())
def test_long_bytes_with_changes_are_a_geometry_or_none(data: st.DataObject) -> None:
    circle = shapely.Point(0, 0).buffer(1, quad_segs=data.draw(st.integers(1, 2000)))
    whole = bytearray(shapely.to_wkb(shapely.GeometryCollection([shapely.MultiPolygon([circle, SQUARE]), circle])))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert len(read_wkb([bytes(whole)])) == 1


@pytest.mark.parametrize("kind", range(8, 13))
def test_a_curve_is_no_geometry_and_costs_no_other(kind: int) -> None:
    """Codes 8 to 12 of SQL/MM: circular strings, compound curves, curve polygons, multicurves, multisurfaces."""
    point = shapely.to_wkb(shapely.Point(1, 2))
    first, curve, last = read_wkb([point, struct.pack("<BII", 1, kind, 0), point])
    assert first == last == shapely.Point(1, 2)
    assert curve is None
