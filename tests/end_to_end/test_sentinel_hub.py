"""The cube of a loopback Sentinel Hub is that of the archive behind it: pixels, nodata, classes and lineage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.end_to_end.building import LABELS, Dataset, Silent, build_region, extent, simulated_land, with_imagery
from tests.end_to_end.hub_land import (
    assert_same_cube,
    environment_of,
    from_disk,
    needs_node,
    product_of_pixels,
    products,
    served,
    statuses,
)
from tests.services.sentinel_hub.service import Received, SentinelHub

from sits_catalog.region import Region
from sits_pipeline.build import build
from sits_pipeline.config import BuildConfig
from sits_pipeline.prepare import prepare
from sits_pipeline.show import plan_as_json

pytestmark = [pytest.mark.slow, needs_node]

BANDS = ("B02", "B04", "B8A", "B09", "B11")
EXPIRED_AFTER = (4, 17, 45)
"""Numbers of requests after which all tokens end: between pages, between samples, between pixels."""


@pytest.fixture(scope="module")
def hub_land(tmp_path_factory: pytest.TempPathFactory) -> Region:
    """Ten simulated dates of two tiles that overlap: a twin, a split granule, an empty scene, swath edges, a lake."""
    grid = extent(width=600, height=120)
    return simulated_land(tmp_path_factory.mktemp("hub"), grid, bands=BANDS, dates=10, seed=5, safe=True)


@pytest.fixture(scope="module")
def of_archive(hub_land: Region, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return from_disk(hub_land, tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def hub(hub_land: Region) -> Iterator[SentinelHub]:
    with SentinelHub(products(hub_land), page=5) as hub:
        hub.expire_after = set(EXPIRED_AFTER)
        yield hub


@pytest.fixture(scope="module")
def planned(hub_land: Region, hub: SentinelHub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `--plan` says, and how much the audit and the search before it asked for."""
    with environment_of(hub):
        out = tmp_path_factory.mktemp("plan")
        config = BuildConfig(out=str(out), cell_px=512)
        document = plan_as_json(prepare(served(hub_land, hub.url), config, Silent()))
    return {**document, "audit": (len(hub.requests_of("process")), hub.spent)}


@dataclass(frozen=True)
class Built:
    """A cube, and what the service was asked for it."""

    dataset: Dataset
    received: tuple[Received, ...]


@pytest.fixture(scope="module")
def built(
    hub_land: Region, hub: SentinelHub, planned: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Built:
    hub.forget()
    with environment_of(hub):
        dataset = build_region(served(hub_land, hub.url), tmp_path_factory.mktemp("tile"), cell_px=512)
    return Built(dataset, tuple(hub.received))


@pytest.fixture(scope="module")
def of_hub(built: Built) -> Dataset:
    return built.dataset


def test_the_cube_is_the_archive_s(of_hub: Dataset, of_archive: Dataset) -> None:
    assert of_hub.complete
    assert_same_cube(of_hub, of_archive)
    assert of_hub.findings() == []
    for name in LABELS:
        np.testing.assert_array_equal(of_hub.array(name), of_archive.array(name), err_msg=name)


def test_the_land_has_what_archives_do_to_people(of_archive: Dataset, hub: SentinelHub) -> None:
    names = product_of_pixels(of_archive)
    assert max(len(set(day[day != ""])) for day in names) >= 3  # two tiles, one of them split in two granules
    assert set(statuses(of_archive).values()) >= {"used", "superseded"}
    assert {tile.baseline >= (4, 0) for tile in hub.tiles} == {True, False}
    reflectance, quality = of_archive.array("reflectance"), of_archive.array("quality")
    assert (reflectance == 1).any()  # clamped
    assert (reflectance == 65535).any()
    assert ((quality & 1) == 0).any()


def test_tokens_expired_and_pages_were_turned_in_mid_build(built: Built, hub: SentinelHub) -> None:
    refused = [one for one in built.received if one.status != 200]
    n_issued = len(hub.tokens.issued)
    print(f"{len(refused)} of {len(built.received)} requests met an expired token; {n_issued} were issued")
    assert {one.status for one in refused} == {401}
    assert n_issued >= 3
    searches = [one.body for one in built.received if one.path.endswith("/search") and one.status == 200]
    assert [body.get("next") for body in searches if body] == [None, *range(5, len(hub.tiles), 5)]


def test_every_request_for_pixels_passed_the_strict_check(built: Built) -> None:
    asked = [one.body for one in built.received if one.path == "/api/v1/process" and one.status == 200 and one.body]
    assert len(asked) > 20
    for body in asked:
        assert body["input"]["data"][0]["processing"]["harmonizeValues"] is True
        assert body["output"]["width"] <= 2500
        assert len(body["output"]["responses"]) > 1
    pixels = [body for body in asked if resolution_of(body) == 10]
    # Two cells and ten days.
    assert len(pixels) == 2 * len(built.dataset.days)
    assert {(body["output"]["width"], body["output"]["height"]) for body in pixels} == {(512, 120), (88, 120)}


def resolution_of(body: dict[str, Any]) -> float:
    west, _, east, _ = body["input"]["bounds"]["bbox"]
    return float((east - west) / body["output"]["width"])


def charges(received: Sequence[Received]) -> list[float]:
    """Processing units of each request for pixels of the cube that was answered."""
    answered = [one for one in received if one.path == "/api/v1/process" and one.status == 200 and one.body]
    return [one.processing_units for one in answered if one.body and resolution_of(one.body) == 10]


def test_what_is_spent_is_what_the_plan_said(planned: dict[str, Any], built: Built) -> None:
    (estimate,) = (dataset["estimate"] for dataset in planned["datasets"])
    charged = charges(built.received)
    print(f"planned {estimate['processing_units']:.4f} PU in {estimate['requests']} requests, spent {sum(charged):.4f}")
    print(f"and {planned['audit'][1]:.4f} PU for the {planned['audit'][0]} requests of the audit")
    assert sum(charged) == pytest.approx(estimate["processing_units"], rel=1e-6)
    assert len(charged) == estimate["requests"]


@pytest.mark.soak
@pytest.mark.parametrize(
    "service",
    [pytest.param({"sparse": True}, marks=pytest.mark.soak), {"deployment": "aws"}],
    ids=["sparse samples", "other names"],
)
def test_other_readings_of_the_documentation_give_the_same_cube(
    service: dict[str, Any], hub_land: Region, of_archive: Dataset, tmp_path: Path
) -> None:
    with SentinelHub(products(hub_land), page=100, **service) as hub, environment_of(hub):
        mine = build_region(served(hub_land, hub.url), tmp_path)
    assert mine.complete
    assert_same_cube(mine, of_archive)


def test_an_observed_pixel_that_is_dark_in_every_band_is_no_nodata(
    hub_land: Region, hub: SentinelHub, tmp_path: Path
) -> None:
    """Water in the infrared: harmonizing clamps all bands to 0, which the service does not call nodata."""
    dark = with_imagery(hub_land, bands=("B8A", "B11"))
    theirs = from_disk(dark, tmp_path / "disk")
    with environment_of(hub):
        mine = build_region(served(dark, hub.url), tmp_path / "hub")
    clamped = (theirs.array("reflectance") == 1).all(axis=1)
    print(f"{clamped.sum()} pixels are dark in every band on {clamped.any(axis=(1, 2)).sum()} dates")
    assert clamped.any()
    assert_same_cube(mine, theirs)


def test_what_the_service_merges_is_cheaper_and_says_so(
    hub_land: Region, hub: SentinelHub, built: Built, tmp_path: Path
) -> None:
    of_hub = built.dataset
    hub.forget()
    with environment_of(hub):
        orbit = build_region(served(hub_land, hub.url, mosaicking="orbit"), tmp_path, cell_px=512)
    assert orbit.complete
    assert orbit.days == of_hub.days
    charged = charges(hub.received)
    print(f"{sum(charged):.4f} PU merged by the service, {sum(charges(built.received)):.4f} PU merged by our order")
    assert sum(charged) < sum(charges(built.received))
    assert len(charged) == 2 * len(orbit.days)
    sources = orbit.table("sources").set_index("id")
    used = set(product_of_pixels(orbit).ravel()) - {""}
    assert used
    for name in used:
        assert "merged by the service" in sources.reason[name]
    # The land's twin is superseded, and the service merged it all the same.
    twins = {name for name, status in statuses(orbit).items() if status == "superseded"}
    named = {name for name in twins if any(name in sources.reason[one] for one in used)}
    print(f"{len(named)} of {len(twins)} superseded tiles are named as merged")
    assert any("with tiles that the plan refused: " in sources.reason[name] for name in used)
    assert named
    assert all("merged by the service" not in text for text in of_hub.table("sources").reason)
    merged, ours = (dataset.array("quality") & 1 for dataset in (orbit, of_hub))
    assert (merged <= ours).all()
    # At the edge of a split granule the service's mosaic takes 60 m pixels that reach beyond the data, where SCL is 0.
    print(f"{(merged < ours).mean():.3%} of the pixels are lost to the service's own mosaic")
    assert (merged < ours).mean() < 0.002
    one, other = (dataset.array("reflectance").astype(int) for dataset in (orbit, of_hub))
    print(f"{(one != other).mean():.2%} of the values come from another tile of the day")
    plain = (one > 1) & (one < 65535) & (other > 1) & (other < 65535)
    # Tiles of a pass differ by their simulated gain, 0.4 %.
    assert np.abs(one - other)[plain].max() <= 0.05 * other[plain].max()


@pytest.mark.parametrize(("at_once", "together"), [(1, 1), pytest.param(16, 2, marks=pytest.mark.soak)])
def test_two_processes_share_one_limit(
    at_once: int, together: int, hub_land: Region, hub: SentinelHub, of_hub: Dataset, tmp_path: Path
) -> None:
    config = BuildConfig(out=str(tmp_path), workers=2, kind="processes", cell_px=512)
    with environment_of(hub):
        prepared = prepare(served(hub_land, hub.url), config, Silent())
        deployment = replace(prepared.source.deployment, at_once=at_once)  # type: ignore[attr-defined]
        source = replace(prepared.source, deployment=deployment, cache=None)  # type: ignore[type-var]
        hub.forget()
        hub.company_s = 0.1 if together == 1 else 20.0
        try:
            (outcome,) = build(replace(prepared, source=source), config, Silent())
        finally:
            hub.company_s = 0.0
    assert outcome.complete
    print(f"at most {hub.most_at_once} requests at once, {at_once} allowed, of two processes")
    assert hub.most_at_once == together
    mine = Dataset(Path(outcome.location), complete=True)
    np.testing.assert_array_equal(mine.array("reflectance"), of_hub.array("reflectance"))
