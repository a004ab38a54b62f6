"""A Sentinel Hub that fails now and then, for one day, for one tile or for good, and what a build makes of it."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.end_to_end.archives import run, run_here
from tests.end_to_end.building import IMAGES, Dataset, Silent, build_region, extent, simulated_land
from tests.end_to_end.hub_land import (
    assert_same_cube,
    environment_of,
    from_disk,
    needs_node,
    product_of_pixels,
    products,
    served,
    statuses,
    variables,
)
from tests.end_to_end.test_secrets import said
from tests.services.fault_proxy import FAULTS, FaultProxy
from tests.services.sentinel_hub.service import CLIENT, SECRET, SentinelHub

from sits_catalog.region import Region
from sits_pipeline.config import BuildConfig
from sits_pipeline.prepare import prepare

pytestmark = [pytest.mark.slow, needs_node]

BANDS = ("B02", "B04", "B8A", "B11")


@pytest.fixture(scope="module")
def small_land(tmp_path_factory: pytest.TempPathFactory) -> Region:
    grid = extent(width=180, height=96)
    return simulated_land(tmp_path_factory.mktemp("faults"), grid, bands=BANDS, dates=8, seed=7, safe=True)


@pytest.fixture(scope="module")
def undisturbed(small_land: Region, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return from_disk(small_land, tmp_path_factory.mktemp("disk"))


@pytest.fixture
def hub(small_land: Region) -> Iterator[SentinelHub]:
    with SentinelHub(products(small_land), page=4) as hub:
        yield hub


def write_region(land: Region, url: str, folder: Path) -> Path:
    """A region file of the land without its parcels."""
    imagery = {"source": "sentinel-hub", "path": url, "bands": list(BANDS)}
    season = {"start": str(land.season.start), "end": str(land.season.end)}
    document = {"id": "land", "season": season, "place": {"file": land.place.file}, "imagery": imagery}
    path = folder / "land.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def resolution_of(body: dict[str, Any]) -> float:
    west, _, east, _ = body["input"]["bounds"]["bbox"]
    return float((east - west) / body["output"]["width"])


def asks_pixels_of(body: dict[str, Any], day: str) -> bool:
    """Whether a Process request is for the cube's own pixels of a day."""
    interval = body["input"]["data"][0]["dataFilter"]["timeRange"]
    return resolution_of(body) == 10 and interval["from"][:10] <= day <= interval["to"][:10]


# Now and then


@pytest.mark.parametrize(
    ("rate", "seed"), [(0.05, 1), *(pytest.param(*case, marks=pytest.mark.soak) for case in [(0.05, 2), (0.12, 3)])]
)
def test_faults_now_and_then_leave_no_trace(
    rate: float, seed: int, small_land: Region, hub: SentinelHub, undisturbed: Dataset, tmp_path: Path
) -> None:
    rates = dict.fromkeys(FAULTS, rate)
    with (
        FaultProxy(hub.url, rates=rates, seed=seed, retry_after_s=0.1, retry_after_ms=True) as proxy,
        environment_of(hub, through=proxy.url),
    ):
        mine = build_region(served(small_land, proxy.url), tmp_path)
    print(f"{rate:.0%} each: {dict(proxy.injected)} of {len(proxy.requests)} requests")
    assert mine.complete
    assert proxy.injected.total() >= 1
    if rate > 0.1:
        assert set(proxy.injected) == set(FAULTS)
    assert_same_cube(mine, undisturbed)
    assert mine.findings() == []


@pytest.mark.soak
def test_a_rate_that_is_passed_is_waited_for(
    small_land: Region, hub: SentinelHub, undisturbed: Dataset, tmp_path: Path
) -> None:
    hub.a_minute = 120
    with environment_of(hub):
        mine = build_region(served(small_land, hub.url), tmp_path)
    print(f"{sum(one.status == 429 for one in hub.received)} of {len(hub.received)} requests were refused with 429")
    assert any(one.status == 429 for one in hub.received)
    assert mine.complete
    assert_same_cube(mine, undisturbed)


# For good


def unread_as_expected(mine: Dataset, undisturbed: Dataset, unread: Any) -> None:
    """Quality 128 and nothing else at `unread` (time, y, x), all else as it would have been."""
    assert unread.any()
    quality = mine.array("quality")
    np.testing.assert_array_equal(quality == 128, unread)
    for name in IMAGES[:3]:
        nothing = 128 if name == "quality" else 0
        where = unread[:, None] if name == "reflectance" else unread
        np.testing.assert_array_equal(mine.array(name), np.where(where, nothing, undisturbed.array(name)), err_msg=name)
    expected = np.where(unread, "", product_of_pixels(undisturbed))
    np.testing.assert_array_equal(product_of_pixels(mine), expected)


@pytest.mark.soak
def test_a_day_that_always_fails_is_unread_and_nothing_else_is_lost(
    small_land: Region, hub: SentinelHub, undisturbed: Dataset, tmp_path: Path
) -> None:
    number, day = next(
        (number, str(day))
        for number, day in enumerate(undisturbed.days)
        if len(set(product_of_pixels(undisturbed)[number].ravel()) - {""}) > 1
    )
    hub.failing = lambda body: 500 if asks_pixels_of(body, day) else None
    region, out = write_region(small_land, hub.url, tmp_path), tmp_path / "out"
    with environment_of(hub):
        ended = run_here("sits-build", "--region", region, "--out", out, "--json")
        assert ended.code == 3
        broken = Dataset(out / "land", complete=False)
        expected = np.zeros(broken.array("quality").shape, bool)
        # A tile's footprint says what it would have covered: all that was observed, and the rest of its border.
        expected[number] = broken.array("quality")[number] == 128
        assert (expected[number] >= (undisturbed.array("quality")[number] & 1).astype(bool)).all()
        unread_as_expected(broken, undisturbed, expected)
        listed = {failure["item"] for failure in failures(out / "land")}
        of_day = {tile.product.removesuffix(".SAFE") for tile in hub.tiles if str(tile.sensed.date()) == day}
        assert listed
        assert listed <= of_day
        assert "HTTP 500" in ended.stdout + ended.stderr + json.dumps(failures(out / "land"))
        sources = broken.table("sources").set_index("id")
        assert all("not read in places" in sources.reason[item] for item in listed)
        hub.failing = lambda body: None
        mended = run_here("sits-build", "--region", region, "--out", out, "--json")
    assert mended.code == 0
    assert_same_cube(Dataset(out / "land", complete=True), undisturbed)


def failures(dataset: Path) -> list[dict[str, Any]]:
    """What the journal says could not be read."""
    lines = [json.loads(line) for line in (dataset / "journal.jsonl").read_text().splitlines()]
    return [failure for line in lines if line["kind"] == "cell" for failure in line["failures"]]


def test_a_tile_that_the_service_lost_is_unread_and_no_nodata(
    small_land: Region, hub: SentinelHub, undisturbed: Dataset, tmp_path: Path
) -> None:
    names = product_of_pixels(undisturbed)
    number = next(number for number, day in enumerate(names) if len(set(day.ravel()) - {""}) > 1)
    day = str(undisturbed.days[number])
    counts = {name: int((names[number] == name).sum()) for name in set(names[number].ravel()) - {""}}
    lost = max(counts, key=lambda name: counts[name])
    with environment_of(hub):
        prepared = prepare(served(small_land, hub.url), BuildConfig(out=str(tmp_path)), Silent())
        assert f"{lost}.SAFE" in {tile.product for tile in hub.tiles}
        hub.lost.add(f"{lost}.SAFE")
        from sits_pipeline.build import build

        (outcome,) = build(prepared, BuildConfig(out=str(tmp_path)), Silent())
    assert not outcome.complete
    mine = Dataset(Path(outcome.location), complete=False)
    quality = mine.array("quality")
    # No pixel that came from it is nodata, or another tile's.
    assert (quality[number][names[number] == lost] == 128).all()
    assert ((quality == 128).sum(axis=(1, 2)) > 0).tolist() == [str(one) == day for one in mine.days]
    assert lost in {failure["item"] for failure in failures(mine.path)}
    assert not (product_of_pixels(mine) == lost).any()
    others = np.delete(np.arange(len(mine.days)), number)
    for name in IMAGES[:3]:
        np.testing.assert_array_equal(mine.array(name)[others], undisturbed.array(name)[others], err_msg=name)


def test_a_dead_service_is_named_within_a_minute(small_land: Region, hub: SentinelHub, tmp_path: Path) -> None:
    region = write_region(small_land, hub.url, tmp_path)
    token_url, host = hub.token_url, hub.url.removeprefix("http://")
    hub.close()
    started = time.monotonic()
    ended = run("sits-build", "--region", region, "--out", tmp_path / "out", timeout=90, **variables(token_url))
    seconds = time.monotonic() - started
    print(f"{seconds:.0f} s: {ended.stderr.strip()}")
    assert ended.returncode == 1
    assert host in ended.stderr
    assert "Traceback" not in ended.stderr
    assert seconds < 60


@pytest.mark.soak
def test_a_service_that_dies_in_mid_build_is_named_and_the_build_goes_on_later(
    small_land: Region, hub: SentinelHub, undisturbed: Dataset, tmp_path: Path
) -> None:
    """Dead is the proxy: it is closed once two days were read; then the very address answers again."""
    hub.failing = lambda body: None
    answered = 0
    proxy = FaultProxy(hub.url, rates={}, seed=0)
    host = proxy.url.removeprefix("http://")

    def dies(path: str) -> str | None:
        return "reset" if answered >= 2 else None

    def counting(body: dict[str, Any]) -> int | None:
        nonlocal answered
        answered += resolution_of(body) == 10
        return None

    proxy.always, hub.failing = dies, counting
    region, out = write_region(small_land, proxy.url, tmp_path), tmp_path / "out"
    settings = variables(hub.token_url.replace(hub.url, proxy.url))
    with proxy:
        started = time.monotonic()
        ended = run("sits-build", "--region", region, "--out", out, timeout=90, **settings)
        seconds = time.monotonic() - started
        print(f"{seconds:.0f} s: {ended.stderr.strip().splitlines()[-1]}")
        assert ended.returncode == 1
        assert host in ended.stderr
        assert seconds < 60
        proxy.always = None
        mended = run("sits-build", "--region", region, "--out", out, **settings)
    assert mended.returncode == 0, mended.stderr
    assert_same_cube(Dataset(out / "land", complete=True), undisturbed)


def test_a_wrong_secret_says_which_variables_to_set(small_land: Region, hub: SentinelHub, tmp_path: Path) -> None:
    region = write_region(small_land, hub.url, tmp_path)
    settings = variables(hub.token_url, secret="WRONG-SECRET")
    ended = run("sits-build", "--region", region, "--out", tmp_path / "out", timeout=60, **settings)
    assert ended.returncode == 2
    assert "SH_CLIENT_SECRET" in ended.stderr
    assert "WRONG-SECRET" not in ended.stdout + ended.stderr
    assert hub.tokens.refused <= 2  # there is no use in asking again


# Secrets


def test_no_output_holds_the_secret_or_a_token(small_land: Region, hub: SentinelHub, tmp_path: Path) -> None:
    day = str(hub.tiles[0].sensed.date())
    hub.expire_after = {12}
    region, out, cache = write_region(small_land, hub.url, tmp_path), tmp_path / "out", tmp_path / "cache"
    arguments = ("--region", region, "--out", out, "--cache", cache)
    settings = variables(hub.token_url)
    with environment_of(hub):
        plan = run_here("sits-build", *arguments, "--plan", "--json")
    hub.failing = lambda body: 500 if asks_pixels_of(body, day) else None
    broken = run("sits-build", *arguments, "--debug", "--workers", "2", "--kind", "processes", **settings)
    assert (plan.code, broken.returncode) == (0, 3), plan.stderr + broken.stderr
    with environment_of(hub):
        source = prepare(served(small_land, hub.url), BuildConfig(out=str(out)), Silent()).source
    hub.close()
    dead = run("sits-build", *arguments, "--search-again", "--debug", timeout=90, **settings)
    assert dead.returncode == 1
    spoken = [text for ended in (plan, broken, dead) for text in (ended.stdout, ended.stderr)]
    spoken += [repr(source), pickle.dumps(source).decode("latin-1")]
    files = [path for folder in (out, cache) for path in folder.rglob("*") if path.is_file()]
    assert {"sources.parquet", "item.json", "config.yaml"} <= {path.name for path in files}
    assert len(hub.tokens.issued) >= 2
    secrets = [SECRET, SECRET.split("/")[0], *hub.tokens.issued]
    for secret in secrets:
        assert [text for text in spoken if secret in text] == []
        assert [str(path) for path in files if secret in said(path)] == []
    # The id of the client is no secret, but no output's business either.
    assert [str(path) for path in files if CLIENT in said(path)] == []


def test_statuses_of_an_undisturbed_build_are_the_archive_s(
    small_land: Region, hub: SentinelHub, undisturbed: Dataset, tmp_path: Path
) -> None:
    with environment_of(hub):
        mine = build_region(served(small_land, hub.url), tmp_path)
    assert statuses(mine) == statuses(undisturbed)
    reasons = mine.table("sources")
    assert set(reasons[reasons.status == "superseded"].reason) != {""}
