"""Whatever a catalogue or a service answers gives a value or the documented error, of one short printable sentence."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import shapely
from hypothesis import given
from tests.pipeline.fuzz.running import check_sentence, each, run_few, run_for_a_while

from sits_catalog.reach import Reach
from sits_catalog.region import Season
from sits_pipeline.sources import oidc, sas
from sits_pipeline.sources.catalogue import resolve_remote
from sits_pipeline.sources.eopf import _describe
from sits_pipeline.sources.eopf_grid import check_offset, grid_of_coordinates, stated_epsg, stated_grid
from sits_pipeline.sources.eopf_sizes import ChunkCheck
from sits_pipeline.sources.exchange import Answer
from sits_pipeline.sources.footprints import footprint_of
from sits_pipeline.sources.items import scene_from_item
from sits_pipeline.sources.search import _NOT_AS_EXPECTED, _features, _next, _not_an_api, _stated
from sits_pipeline.sources.sentinel_hub import session
from sits_pipeline.sources.sentinel_hub.catalog import scene_of
from sits_pipeline.sources.sentinel_hub.faults import busy, said
from sits_pipeline.sources.sentinel_hub.process import parse_answer
from sits_pipeline.sources.sift import Candidate, sift

PUBLIC = Reach.of("https://stac.example.org/v1")
SEASON = Season(start=datetime.date(2018, 1, 1), end=datetime.date(2018, 12, 31))

numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.just(10**400),
    st.just(-(10**400)),
    st.just(math.inf),
    st.just(math.nan),
    st.booleans(),
)
texts = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2023-05-05T10:40:21Z", "05.09", "9" * 5000,
            "EPSG:32631", "EPSG:99999", "MGRS-31TEJ", "Sentinel-2A", "http://169.254.169.254/latest", "//0x7f.1/a",
            "https://e.org\\.dataspace.copernicus.eu/a", "file:///etc/passwd", "/vsicurl/http://x", "../../x",
            "S2A_MSIL2A_20180418T104021_N0500_R008_T31TEJ_20180418T125356", "\x1b[31m", "\ud800", "http://[::1", "a\nb",
        ]
    ),
)  # fmt: skip
values = st.recursive(
    st.one_of(st.none(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
geometries = st.one_of(
    values,
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Polygon", "Point", "MultiPolygon", "GeometryCollection", "Nothing"]),
            "coordinates": st.one_of(values, st.lists(st.lists(st.lists(numbers, max_size=4), max_size=6), max_size=2)),
        }
    ),
)
PROPERTIES = (
    "datetime", "platform", "eo:cloud_cover", "proj:epsg", "proj:code", "grid:code", "s2:processing_baseline",
    "processing:version", "sat:relative_orbit", "s2:datatake_id", "processing:datetime", "mgrs:utm_zone",
    "mgrs:latitude_band", "mgrs:grid_square", "s2:product_uri", "s2:product_type", "constellation", "simulated",
)  # fmt: skip


def item() -> dict[str, Any]:
    """One that is a scene."""
    return {
        "type": "Feature",
        "id": "S2A_MSIL2A_20180418T104021_N0500_R008_T31TEJ_20180418T125356",
        "collection": "sentinel-2-l2a",
        "geometry": None,
        "bbox": [3.0, 43.0, 4.0, 44.0],
        "properties": {
            "datetime": "2018-04-18T10:40:21Z", "platform": "sentinel-2a", "proj:code": "EPSG:32631",
            "grid:code": "MGRS-31TEJ", "s2:processing_baseline": "05.00",
        },
        "links": [{"rel": "self", "href": "https://stac.example.org/v1/items/a"}],
        "assets": {"B02": {"href": "./B02.tif"}, "data": {"href": "s3://bucket/a"}},
    }  # fmt: skip


items = st.builds(
    lambda parts, geometry, properties, asset: {
        **item(), **parts, **({} if geometry is None else {"geometry": geometry}),
        "properties": properties if isinstance(properties, list) else {**item()["properties"], **properties},
        "assets": {**item()["assets"], "B02": asset},
    },
    st.dictionaries(st.sampled_from(["id", "collection", "bbox", "links", "assets"]), values, max_size=2),
    geometries,
    st.one_of(st.dictionaries(st.sampled_from(PROPERTIES), values, max_size=3), st.lists(values, max_size=1)),
    st.one_of(values, st.fixed_dictionaries({"href": texts, "alternate": values, "bands": values})),
)  # fmt: skip


def as_items(found: dict[str, Any]) -> None:
    resolve = partial(resolve_remote, found, stores=False, reach=PUBLIC)
    for make in (partial(scene_from_item, found, resolve), partial(scene_of, found)):
        result = sift([Candidate(found, "", make)], shapely.box(3, 43, 4, 44), SEASON)
        for one in result.unusable:
            assert one.id.isprintable()
            check_sentence(ValueError(one.reason))
        for scene in result.scenes:
            assert scene.footprint.is_valid
            assert all(address.startswith(("http://", "https://", "s3://")) for address in scene.assets.values())


def as_footprint(rings: list[list[list[float]]]) -> None:
    """A drawing that is bounded in what comes of it: the time that its repair takes grows with that."""
    with each(ValueError):
        shape = footprint_of({**item(), "geometry": {"type": "MultiPolygon", "coordinates": [rings]}})
        assert shape.is_valid
        assert shapely.get_num_coordinates(shape) <= sum(map(len, rings)) + 6 * 100


def as_tokens(document: object) -> None:
    body = json.dumps(document).encode()
    with each(OSError):
        assert sas._read(body, "https://example.org/token")[0]
    with each(OSError):
        assert oidc._read(body, "https://example.org/token").text
    answer = Answer(200, {"Retry-After": str(document)[:50]}, body)
    assert session._judged(answer, "example.org", unit_s=1.0) is not None
    assert said(answer).isprintable()
    assert busy(answer, "HTTP 429", unit_s=1.0).wait_s >= 0


def as_pages(document: object) -> None:
    if isinstance(document, dict):
        try:
            _features(document)
            _next(document)
        except _NOT_AS_EXPECTED as error:
            check_sentence(ValueError(_not_an_api("https://stac.example.org/v1", error)))
        assert all(isinstance(number, int) for number in _stated(document))


def as_attributes(attributes: Mapping[str, Any]) -> None:
    try:
        check_offset(attributes, -1000, "05.00")
    except ValueError as error:
        check_sentence(ValueError(_describe(error, "https://e.org/a.zarr/measurements/b02")))
    stated_grid(attributes)
    stated_epsg(attributes)


tokens = st.one_of(
    values,
    st.fixed_dictionaries(
        {"access_token": values, "expires_in": st.one_of(numbers, values)},
        optional={
            "refresh_token": values, "refresh_expires_in": values, "token": values, "error": values,
            "msft:expiry": st.one_of(texts, values),
        },
    ),
)  # fmt: skip
pages = st.dictionaries(st.sampled_from(["features", "links", "context", "numberMatched"]), values)
degrees = st.one_of(st.integers(0, 9).map(float), st.floats(-200, 200), st.floats())
rings = st.lists(st.lists(st.lists(degrees, min_size=2, max_size=2), min_size=4, max_size=60), min_size=1, max_size=3)
attributes = st.dictionaries(
    st.sampled_from(["scale_factor", "add_offset", "_eopf_attrs", "proj:code", "proj:epsg", "proj:transform"]), values
)


@pytest.mark.parametrize("deep", [b"[" * 50_000, b'{"a":' * 15_000])
def test_answers_nested_without_end_are_no_answers(deep: bytes) -> None:
    with pytest.raises(OSError, match="gave no token"):
        sas._read(deep, "https://example.org/token")
    with pytest.raises(OSError, match="gave no token"):
        oidc._read(deep, "https://example.org/token")
    answer = Answer(200, {}, deep)
    assert "something that is none" in str(session._judged(answer, "example.org", unit_s=1.0))
    assert said(answer) == ""


def as_coordinates(y: list[float], x: list[float]) -> None:
    with each(ValueError):
        found = grid_of_coordinates(np.array(y), np.array(x))
        assert all(math.isfinite(value) for value in found)


def as_chunks(head: bytes, content: bytes) -> None:
    for packer in ("blosc", "zstd"):
        for in_shard in (0, 1, 3):
            with each(ValueError):
                ChunkCheck(n_bytes=64, packer=packer, trailing=4, in_shard=in_shard).whole(head + content)


def as_images(content: bytes) -> None:
    with each(ValueError):
        parse_answer(content, size=(4, 4), n_bands=1, charged=0.0)


floats = st.lists(st.floats(), max_size=5)
PROPERTIES_OF = {
    "items": given(items)(as_items),
    "footprints": given(rings)(as_footprint),
    "tokens": given(tokens)(as_tokens),
    "pages": given(pages)(as_pages),
    "attributes": given(attributes)(as_attributes),
    "coordinates": given(floats, floats)(as_coordinates),
    "chunks": given(st.sampled_from([b"", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=300))(as_chunks),
    "images": given(st.binary(max_size=3000))(as_images),
}
"""What is fuzzed, by the name of its input."""


@pytest.mark.parametrize(
    "properties",
    [
        {"sat:relative_orbit": math.inf},
        {"eo:cloud_cover": 10**400},
        {"mgrs:utm_zone": math.inf, "mgrs:latitude_band": "T", "mgrs:grid_square": "EJ"},
        {"datetime": "0001-01-01T00:00:00+14:00"},
        {"platform": "\x1b[31m"},
    ],
)
def test_an_item_that_once_ended_the_program_or_spoke_to_the_terminal(properties: dict[str, Any]) -> None:
    as_items({**item(), "properties": {**item()["properties"], **properties}})


def test_a_footprint_beyond_all_floats_is_none() -> None:
    for bbox in ([10**400, 43, 4, 44], [math.inf, 43, 4, 44], [math.nan, 43, 4, 44]):
        with pytest.raises(ValueError, match="no footprint"):
            footprint_of({**item(), "bbox": bbox})


@pytest.mark.parametrize("life", [10**400, math.inf, math.nan])
def test_a_token_whose_life_is_no_number_of_seconds_is_none(life: float) -> None:
    as_tokens({"access_token": "a", "expires_in": life})
    with pytest.raises(OSError, match="gave no token"):
        oidc._read(json.dumps({"access_token": "a", "expires_in": life}).encode(), "https://example.org/token")


def test_attributes_and_coordinates_beyond_all_floats_are_refused() -> None:
    for attributes in ({"scale_factor": 10**400}, {"scale_factor": 0.0001, "add_offset": 10**400}):
        with pytest.raises(ValueError, match=r"was expected|its add_offset is"):
            check_offset(attributes, -1000, "05.00")
    for x in ([math.inf, math.inf], [0.0, math.inf], [math.nan, 1.0], [5.0, 5.0]):
        with pytest.raises(ValueError, match="its coordinates are not"):
            grid_of_coordinates(np.array([20.0, 10.0]), np.array(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPERTIES_OF)
def test_any_input_gives_a_value_or_a_sentence(name: str) -> None:
    run_few(PROPERTIES_OF[name])


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", PROPERTIES_OF)
def test_for_as_long_as_is_asked_for(name: str) -> None:
    run_for_a_while(name, PROPERTIES_OF[name])
