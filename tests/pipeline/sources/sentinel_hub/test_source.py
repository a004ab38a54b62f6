"""The source against a loopback hub whose answers a test scripts."""

from __future__ import annotations

import json
import logging
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from tests.pipeline.sources.sentinel_hub.items import LEFT, TOP, grid, scene
from tests.pipeline.sources.sentinel_hub.scripted_hub import (
    CLIENT,
    SECRET,
    Json,
    Reply,
    ScriptedHub,
    answer,
    files_of,
    json_reply,
    tar,
)

from sits_catalog.region import Imagery, Season
from sits_pipeline.config import BuildConfig
from sits_pipeline.sources.base import ServiceDown
from sits_pipeline.sources.sentinel_hub import SentinelHubSource, open_sentinel_hub
from sits_pipeline.sources.sentinel_hub.deployment import Patience
from sits_pipeline.sources.sentinel_hub.passes import clearly_meets, meets, passes_of
from sits_pipeline.sources.sentinel_hub.process import boxes_of
from sits_pipeline.values import Raster, Scene

EAST = (LEFT + 99_780, TOP - 109_800, LEFT + 209_580, TOP)
FIRST, SECOND = scene(cloud=1.0), scene(tile="31TGJ", cloud=5.0, sensed="2023-08-13T10:45:27Z")
BANDS = ("B02", "B8A")


def rising(size: tuple[int, int], n_bands: int) -> NDArray[np.uint16]:
    """(band, y, x); every value another, the first of each band 0."""
    shape = (n_bands, size[1], size[0])
    return (np.arange(np.prod(shape)).reshape(shape) % (size[0] * size[1])).astype(np.uint16)


def whole(request: Json, *, tile: NDArray[np.uint8] | None = None, ranks: Sequence[int] = (0, 1)) -> Reply:
    """An answer of the size that was asked for, all of it from the first tile unless `tile` says otherwise."""
    size = (request["output"]["width"], request["output"]["height"])
    n_bands = request["evalscript"].count('"B') // 2
    used = np.ones(size[::-1], np.uint8) if tile is None else tile
    return answer(rising(size, n_bands), np.full(size[::-1], 4, np.uint8), used, list(ranks))


def read(source: SentinelHubSource, scenes: Sequence[Scene] = (FIRST,), side: int = 4) -> list[Raster]:
    return list(source.read(scenes, grid(side, side), BANDS, pad=0))


def error_of(raster: Raster) -> str:
    (failure,) = raster.failures
    assert raster.bands == {}
    assert failure.band == "*"
    assert "\n" not in failure.error
    return failure.error


# Pixels


def test_each_scene_gets_the_pixels_that_were_taken_from_it(source: SentinelHubSource, hub: ScriptedHub) -> None:
    tile = np.array([[1, 1, 2], [1, 2, 0]], np.uint8)
    hub.process = lambda request: whole(request, tile=tile)
    first, second = source.read([FIRST, SECOND], grid(2, 3), BANDS, pad=0)
    # Values are 0..5 in each band; the observed 0 of the first pixel is a clipped dark value and becomes 1.
    for band in BANDS:
        np.testing.assert_array_equal(first.bands[band].dn, [[1, 1, 0], [3, 0, 0]])
        np.testing.assert_array_equal(second.bands[band].dn, [[0, 0, 2], [0, 4, 0]])
        assert first.bands[band].dn.dtype == np.uint16
    np.testing.assert_array_equal(first.bands["SCL"].dn, [[4, 4, 0], [4, 0, 0]])
    np.testing.assert_array_equal(second.bands["SCL"].dn, [[0, 0, 4], [0, 4, 0]])
    assert {(one.factor, one.row, one.column) for one in first.bands.values()} == {(1, 0, 0)}
    assert first.failures == second.failures == ()
    assert first.note == ""
    assert len(hub.requests) == 1


def test_one_request_a_pass_is_sent_when_its_first_scene_is_read(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.process = whole
    other = scene(platform="S2B", orbit=108, time="20230813T103021", sensed="2023-08-13T10:31:00Z", cloud=3.0)
    rasters = source.read([FIRST, other, SECOND], grid(2, 3), BANDS, pad=0)
    counts = []
    for _ in rasters:
        counts.append(len(hub.requests))
    assert counts == [1, 2, 2]
    one, two = hub.requests
    ranges = [request["input"]["data"][0]["dataFilter"]["timeRange"] for request in (one, two)]
    assert ranges[0] == {"from": "2023-08-13T10:35:12Z", "to": "2023-08-13T10:55:27Z"}
    assert ranges[1] == {"from": "2023-08-13T10:21:00Z", "to": "2023-08-13T10:41:00Z"}
    assert one["evalscript"].index(FIRST.id) < one["evalscript"].index(SECOND.id)
    assert other.id not in one["evalscript"]
    assert one["input"]["bounds"]["bbox"] == [LEFT, TOP - 20, LEFT + 30, TOP]


def test_passes_are_one_satellite_and_orbit_within_minutes() -> None:
    later = scene(sensed="2023-08-13T12:25:12Z")
    other = scene(platform="S2B")
    groups = passes_of([SECOND, other, FIRST, replace(later, id="later")])
    assert [[one.id for one in group] for group in groups] == [[SECOND.id, FIRST.id], [other.id], ["later"]]


def test_a_large_geobox_is_put_together_from_its_boxes(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.process = whole
    (raster,) = source.read([FIRST], grid(3, 2502), ["B02"], pad=0)
    assert [(one["output"]["width"], one["output"]["height"]) for one in hub.requests] == [(2500, 3), (2, 3)]
    dn = raster.bands["B02"].dn
    np.testing.assert_array_equal(dn[0, :4], [1, 1, 2, 3])
    np.testing.assert_array_equal(dn[:, 2500:], [[1, 1], [2, 3], [4, 5]])


def test_a_planned_scene_that_was_not_offered_is_a_failure_and_never_nodata(
    source: SentinelHubSource, hub: ScriptedHub
) -> None:
    hub.process = lambda request: whole(request, tile=np.full((4, 4), 2, np.uint8), ranks=[1, -1])
    first, second = read(source, (FIRST, SECOND))
    assert "did not offer it for a box that it covers (2 tiles were offered)" in error_of(first)
    assert hub.host in error_of(first)
    assert second.failures == ()


def test_a_scene_that_only_touches_the_box_need_not_be_offered(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.process = lambda request: whole(request, ranks=[0])
    neighbour = scene(tile="31TGJ", sensed="2023-08-13T10:45:27Z", box=EAST)
    first, second = read(source, (FIRST, neighbour))
    assert first.failures == second.failures == ()
    assert not any(window.dn.any() for window in second.bands.values())


def test_two_pixels_of_a_footprint_are_clearly_in_a_box() -> None:
    for columns, expected in ((3, True), (1, False), (-1, False)):
        (box,) = boxes_of(grid(100, 100, row=100, column=columns - 100))
        assert clearly_meets(FIRST, box) is expected
        assert meets(FIRST, box) is (columns > 0)


def test_an_edge_that_is_straight_in_degrees_alone_is_no_promise() -> None:
    corners = shapely.transform(
        shapely.box(LEFT, TOP - 109_800, LEFT + 109_800, TOP),
        Transformer.from_crs(32631, 4326, always_xy=True).transform,
        interleaved=False,
    )
    bare = replace(FIRST, footprint=corners)
    # Half-way along the northern edge, straight in degrees, the footprint ends some 100 m off the tile's own edge.
    offsets = range(-30, 40)
    boxes = [boxes_of(grid(1, 100, row=row, column=5440))[0] for row in offsets]
    inside = [row for row, box in zip(offsets, boxes, strict=True) if meets(bare, box)]
    clearly = [row for row, box in zip(offsets, boxes, strict=True) if clearly_meets(bare, box)]
    assert clearly
    assert min(clearly) >= max(min(inside), 0) + 2


def test_the_orbit_mode_gives_all_pixels_to_the_first_scene_and_says_so(
    source: SentinelHubSource, hub: ScriptedHub
) -> None:
    source = replace(source, mosaicking="orbit")
    hub.process = lambda request: whole(request, ranks=[1])
    first, second = read(source, (FIRST, SECOND))
    assert 'mosaicking: "ORBIT"' in hub.requests[0]["evalscript"]
    assert first.note == "merged by the service"
    # The documented way to keep tiles out: no cloudier ones than the cloudiest that is planned (5 %), by whole percent.
    assert hub.requests[0]["input"]["data"][0]["dataFilter"]["maxCloudCoverage"] == 6
    assert first.bands["SCL"].dn.all()
    assert second.note == ""
    assert not second.bands["SCL"].dn.any()
    hub.process = lambda request: whole(request, tile=np.zeros((4, 4), np.uint8), ranks=[])
    assert all("did not offer it" in error_of(raster) for raster in read(source, (FIRST, SECOND)))


def test_tiles_that_the_plan_refused_but_the_service_merged_are_named(
    source: SentinelHubSource, hub: ScriptedHub, tmp_path: Path
) -> None:
    older = FIRST.id.replace("N0509", "N0400")

    def merged(request: Json) -> Reply:
        size = (request["output"]["width"], request["output"]["height"])
        files = files_of(rising(size, 2), np.full(size[::-1], 4, np.uint8), np.ones(size[::-1], np.uint8), [])
        tiles = [
            {"rank": 0, "dataPath": f"s3://EODATA/{FIRST.id}.SAFE"},
            {"rank": -1, "dataPath": f"s3://EODATA/Sentinel-2/{older}.SAFE/"},
            {"rank": -1, "dataPath": "s3://sentinel-s2-l2a/tiles/31/T/GJ/2023/8/13/1"},
        ]
        return Reply(body=tar({**files, "userdata.json": json.dumps({"tiles": tiles}).encode()}))

    hub.process = merged
    source = replace(source, mosaicking="orbit", cache=tmp_path)
    said = f"merged by the service, with tiles that the plan refused: {older}, tiles/31/T/GJ/2023/8/13/1"
    assert [raster.note for raster in read(source, (FIRST, SECOND))] == [said, ""]
    # From the kept answer too.
    assert read(source, (FIRST, SECOND))[0].note == said
    assert len(hub.requests) == 1


def test_a_scene_of_another_zone_and_padding_are_refused(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.process = whole
    wrong, right = read(source, (replace(SECOND, epsg=32632), FIRST))
    assert error_of(wrong) == "its CRS is EPSG:32632, the cube's is EPSG:32631"
    assert right.failures == ()
    with pytest.raises(ValueError, match="pad 0"):
        next(source.read([FIRST], grid(2, 2), BANDS, pad=1))


# Cost


def test_the_cost_counts_requests_boxes_and_the_tiles_that_meet_them(source: SentinelHubSource) -> None:
    tenth = [f"B{number:02d}" for number in range(1, 10)]
    km2 = grid(100, 100)
    assert source.cost([FIRST], km2, tenth).processing_units == pytest.approx(0.1272, abs=5e-5)
    both = source.cost([FIRST, SECOND], km2, tenth)
    assert (both.requests, both.processing_units) == (1, pytest.approx(2 * 0.12716, abs=5e-5))
    orbit = replace(source, mosaicking="orbit").cost([FIRST, SECOND], km2, tenth)
    assert orbit.processing_units == pytest.approx(0.1272, abs=5e-5)
    beside = scene(tile="31TGJ", sensed="2023-08-13T10:45:27Z", box=EAST)
    assert source.cost([FIRST, beside], km2, tenth).processing_units == pytest.approx(0.1272, abs=5e-5)
    two_passes = source.cost([FIRST, scene(platform="S2B")], km2, tenth)
    assert (two_passes.requests, two_passes.processing_units) == (2, pytest.approx(2 * 0.12716, abs=5e-5))
    wide = source.cost([FIRST], grid(10, 2510), ["B02", "B03"])
    assert (wide.requests, wide.processing_units) == (2, pytest.approx(25_000 / 512**2 + 0.01))


def test_units_are_what_the_service_charged_else_what_it_should(source: SentinelHubSource, hub: ScriptedHub) -> None:
    def charging(request: Json) -> Reply:
        return replace(whole(request), headers={"x-processingunits-spent": "0.75"})

    hub.process = charging
    first, second = read(source, (FIRST, SECOND))
    assert (first.processing_units, second.processing_units) == (0.75, 0.0)
    hub.process = whole
    first, _ = read(source, (FIRST, SECOND))
    assert first.processing_units == source.cost([FIRST, SECOND], grid(4, 4), BANDS).processing_units


def test_what_a_sample_may_be_charged_is_known_before(source: SentinelHubSource, hub: ScriptedHub) -> None:
    # 110 km in 75 pixels of 1470 m: 75^2 / 512^2 x (3 + 5) / 3.
    cost = source.sample_cost(FIRST)
    assert (cost.requests, cost.processing_units) == (2, pytest.approx(75**2 / 512**2 * 8 / 3))
    hub.process = lambda request: whole(request, ranks=[0])
    source.sample(FIRST)
    sizes = {(request["output"]["width"], request["output"]["height"]) for request in hub.requests}
    assert sizes == {(75, 75)}


# Sample


def test_a_sample_is_a_small_request_for_the_tile_alone(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.process = lambda request: whole(request, ranks=[0])
    sample = source.sample(FIRST)
    (request,) = hub.requests
    width, height = request["output"]["width"], request["output"]["height"]
    west, south, east, north = request["input"]["bounds"]["bbox"]
    pixel = (east - west) / width
    assert pixel == (north - south) / height
    assert pixel <= 1500
    assert pixel % 10 == 0
    assert 70 <= width <= 80
    assert width * height / 512**2 < 0.025
    assert west <= LEFT < LEFT + 109_800 <= east + 10
    assert set(sample.dn) == {"B02", "B04"}
    assert sample.scl is not None
    assert sample.scl.shape == sample.dn["B02"].shape == (width * height,)
    assert sample.dn["B02"].min() == 1
    assert request["evalscript"].count("S2A_MSIL2A") == 2, "the tile alone: its product and its path"


def test_a_sample_without_vegetation_asks_for_the_bands_of_water(source: SentinelHubSource, hub: ScriptedHub) -> None:
    def water(request: Json) -> Reply:
        size = (request["output"]["width"], request["output"]["height"])
        n_bands = request["evalscript"].count('"B') // 2
        return answer(rising(size, n_bands), np.full(size[::-1], 6, np.uint8), np.ones(size[::-1], np.uint8), [0])

    hub.process = water
    assert set(source.sample(FIRST).dn) == {"B02", "B04", "B8A", "B11"}
    assert len(hub.requests) == 2


def test_a_sample_that_cannot_be_had_is_an_error(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.process = lambda request: whole(request, ranks=[])
    with pytest.raises(OSError, match=r"no sample for the audit: 127\.0\.0\.1:\d+ did not offer it"):
        source.sample(FIRST)


# Faults

FAULTS: dict[str, Reply] = {
    "429": json_reply({"status": 429, "code": "RATE_LIMIT_EXCEEDED", "message": "exceeded"}, 429, Retry_After="3"),
    "500": json_reply({"error": {"status": 500, "message": "boom"}}, 500),
    "503": Reply(503, b"<html>", kind="text/html"),
    "reset": Reply(reset=True),
    "truncated": Reply(body=b"x" * 4000, truncate=True),
    "html": Reply(body=b"<html>sign in</html>", kind="text/html"),
    "half a tar": Reply(body=tar({"bands.tif": b"II"})),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_not_seen(source: SentinelHubSource, hub: ScriptedHub, fault: str) -> None:
    hub.process = lambda request: FAULTS[fault] if len(hub.requests) < 3 else whole(request)
    (raster,) = read(source)
    assert raster.failures == ()
    assert len(hub.requests) == 3


SAID = {
    "429": "HTTP 429: exceeded (after 16 tries)",
    "500": "HTTP 500: boom (after 8 tries)",
    "503": "HTTP 503: Service Unavailable (after 8 tries)",
    "reset": "Connection reset by peer (after 8 tries)",
    "truncated": "broke",
    "html": "its answer is broken: a tar was expected; it starts with '<html>sign in</html>' (after 8 tries)",
    "half a tar": "were asked for, bands.tif came (after 8 tries)",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_a_failure_of_all_scenes_of_the_pass(
    source: SentinelHubSource, hub: ScriptedHub, fault: str
) -> None:
    hub.process = lambda request: FAULTS[fault]
    rasters = read(source, (FIRST, SECOND))
    for raster in rasters:
        assert error_of(raster).startswith(f"{hub.host}: ")
        assert SAID[fault] in error_of(raster)


def test_refusals_that_say_what_to_do_are_not_repeated(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.process = lambda request: json_reply(
        {"error": {"status": 403, "message": "Insufficient processing units."}}, 403
    )
    assert error_of(read(source)[0]).endswith(
        "HTTP 403: Insufficient processing units; "
        "the account may lack rights, requests or processing units; see its dashboard"
    )
    assert len(hub.requests) == 1
    hub.process = lambda request: json_reply({"error": {"status": 400, "message": "bad evalscript"}}, 400)
    assert error_of(read(source)[0]) == f"{hub.host}: HTTP 400: bad evalscript"
    assert len(hub.requests) == 2


def test_a_quarter_of_faults_changes_nothing_and_ends_soon(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.process = whole
    calm = [read(source, side=side)[0] for side in range(1, 21)]
    random, names = np.random.default_rng(7), list(FAULTS)
    lock = threading.Lock()

    def rough(request: Json) -> Reply:
        with lock:
            fails = random.random() < 0.25
            fault = FAULTS[names[random.integers(len(names))]]
        return fault if fails else whole(request)

    hub.process = rough
    with ThreadPoolExecutor(4) as pool:
        stormy = list(pool.map(lambda side: read(source, side=side)[0], range(1, 21)))
    for one, two in zip(calm, stormy, strict=True):
        assert two.failures == ()
        for band in one.bands:
            np.testing.assert_array_equal(one.bands[band].dn, two.bands[band].dn)


def test_retry_after_is_in_milliseconds_and_is_waited_for(source: SentinelHubSource, hub: ScriptedHub) -> None:
    times: list[float] = []

    def busy_once(request: Json) -> Reply:
        times.append(time.monotonic())
        return whole(request) if len(times) > 1 else json_reply({"code": "RATE_LIMIT_EXCEEDED"}, 429, Retry_After="200")

    hub.process = busy_once
    assert read(source)[0].failures == ()
    # In seconds it would be 200; without regard for it, some milliseconds.
    assert 0.2 <= times[1] - times[0] < 20


def test_a_service_that_answers_nothing_is_down_and_named(hub: ScriptedHub, credentials: None) -> None:
    hub.close()
    source = open_sentinel_hub(Imagery(source="sentinel-hub", path=hub.url), BuildConfig())
    source = replace(source, patience=Patience(first_pause_s=0.001, longest_pause_s=0.01, tries=2))
    with pytest.raises(ServiceDown, match=f"{hub.host} did not answer 3 requests in a row"):
        [read(source, side=side) for side in range(1, 9)]
    with pytest.raises(ServiceDown, match=hub.host):
        source.find(shapely.box(4.3, 43.5, 4.6, 44.0), Season(start=date(2023, 8, 1), end=date(2023, 8, 31)))


def test_requests_pass_the_gate_of_their_deployment(source: SentinelHubSource, hub: ScriptedHub) -> None:
    @dataclass
    class Counting:
        passed: list[str] = field(default_factory=list)

        @contextmanager
        def request(self) -> Iterator[None]:
            self.passed.append("in")
            try:
                yield
            finally:
                self.passed.append("out")

    gate = Counting()
    hub.process = lambda request: FAULTS["500"] if len(hub.requests) < 2 else whole(request)
    read(source.through({source.limits[0].name: gate, "another": Counting()}))
    assert gate.passed == ["in", "out"] * 2
    assert source.through({"another": Counting()}) == source


# Tokens and secrets


def test_a_token_is_fetched_once_and_renewed_when_it_expires_or_is_refused(
    source: SentinelHubSource, hub: ScriptedHub
) -> None:
    hub.process = whole
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda side: read(source, side=side), range(1, 17)))
    assert len(hub.tokens) == 1
    hub.valid.clear()
    assert read(source)[0].failures == ()
    assert len(hub.tokens) == 2


def test_a_short_lived_token_is_used_until_shortly_before_its_end(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.life_s = 1
    hub.process = whole
    for side in (1, 2):
        read(source, side=side)
    # The library alone renews a token of less than two minutes before each request.
    assert len(hub.tokens) == 1
    time.sleep(1.0)
    hub.valid.clear()
    assert read(source)[0].failures == ()
    assert len(hub.tokens) == 2
    assert len(hub.requests) == 3, "renewed before it was refused"


def test_a_token_that_does_not_say_how_long_it_lives_is_used_until_it_is_refused(
    source: SentinelHubSource, hub: ScriptedHub
) -> None:
    hub.valid.add("Bearer endless")
    hub.token = lambda: json_reply({"access_token": "endless", "token_type": "Bearer"})
    hub.process = whole
    assert read(source)[0].failures == ()


def test_a_faulty_token_service_is_asked_again(source: SentinelHubSource, hub: ScriptedHub) -> None:
    issue = hub.token
    faults = iter([FAULTS["503"], FAULTS["reset"], FAULTS["html"], FAULTS["429"]])
    hub.token = lambda: next(faults, None) or issue()
    hub.process = whole
    assert read(source)[0].failures == ()


def test_a_token_of_another_deployment_is_refused_with_advice(source: SentinelHubSource, hub: ScriptedHub) -> None:
    hub.token = lambda: json_reply({"access_token": "TOKEN-of-another", "expires_in": 600, "token_type": "Bearer"})
    error = error_of(read(source)[0])
    assert "HTTP 401" in error
    assert "it may be another deployment's: set SH_CLIENT_ID and SH_CLIENT_SECRET" in error
    assert "TOKEN-of-another" not in error


def test_a_client_that_is_not_accepted_is_told_what_to_check(
    source: SentinelHubSource, hub: ScriptedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SH_CLIENT_SECRET", "a-wrong-one")
    error = error_of(read(source)[0])
    assert f"{hub.host} does not accept this client (invalid_client); set SH_CLIENT_ID" in error
    assert "a-wrong-one" not in error
    monkeypatch.delenv("SH_CLIENT_SECRET")
    assert f"no credentials for {hub.host}: set SH_CLIENT_ID" in error_of(read(source)[0])


def test_no_secret_is_in_anything_that_leaves_the_source(
    source: SentinelHubSource, hub: ScriptedHub, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = [repr(source), str(source.query), pickle.dumps(source).decode("latin-1"), repr(source.limits)]
    leaky = f"you are {CLIENT} with {SECRET} and {{token}}"
    scripts: list[Callable[[Json], Reply]] = [
        lambda request: json_reply({"error": {"message": leaky.format(token=hub.tokens[-1])}}, 403),
        lambda request: json_reply({"error": {"message": leaky.format(token=hub.tokens[-1])}}, 500),
        lambda request: Reply(401),
        lambda request: FAULTS["reset"],
        whole,
    ]
    for number, script in enumerate(scripts, 1):
        hub.process = script
        texts += [repr(raster) for raster in read(source, side=number)]
        try:
            source.sample(FIRST)
        except OSError as error:
            texts += ["".join(traceback.format_exception(error)), repr(error), pickle.dumps(error).decode("latin-1")]
    texts += [caplog.text, "".join(capfd.readouterr())]
    assert hub.tokens
    for secret in (SECRET, *hub.tokens):
        assert not any(secret in text for text in texts)


# Kept answers


def test_an_answer_is_paid_for_once(source: SentinelHubSource, hub: ScriptedHub, tmp_path: Path) -> None:
    source = replace(source, cache=tmp_path)
    hub.process = whole
    (fresh,) = read(source)
    (kept,) = read(pickle.loads(pickle.dumps(source)))
    assert len(hub.requests) == 1
    assert fresh.processing_units > 0
    assert kept.processing_units == 0
    np.testing.assert_array_equal(fresh.bands["B8A"].dn, kept.bands["B8A"].dn)
    (block,) = tmp_path.glob("*/*/*.block")
    block.write_bytes(block.read_bytes()[:900])
    (again,) = read(source)
    assert len(hub.requests) == 2
    np.testing.assert_array_equal(fresh.bands["B8A"].dn, again.bands["B8A"].dn)


def test_an_answer_that_lacks_a_tile_is_asked_for_again(
    source: SentinelHubSource, hub: ScriptedHub, tmp_path: Path
) -> None:
    source = replace(source, cache=tmp_path)
    hub.process = lambda request: whole(request, ranks=[] if len(hub.requests) == 1 else [0])
    assert "did not offer it" in error_of(read(source)[0])
    assert read(source)[0].failures == ()
    assert len(hub.requests) == 2


def test_files_of_an_answer_are_those_of_the_service() -> None:
    empty = np.zeros((1, 1), np.uint8)
    assert set(files_of(np.zeros((1, 1, 1), np.uint16), empty, empty, [])) == {
        "bands.tif", "scl.tif", "dataMask.tif", "tile.tif", "userdata.json",
    }  # fmt: skip
    assert os.environ.get("SH_CLIENT_SECRET") != SECRET
