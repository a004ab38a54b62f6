"""The evalscripts run under Node on samples worked by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from sits_pipeline.sources.sentinel_hub.evalscript import OUTPUTS, PlannedTile, orbit_evalscript, tile_evalscript

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node runs the evalscripts; it is not installed")

A = "S2A_MSIL2A_20230813T104021_N0509_R008_T31TFJ_20230813T151212"
B = "S2A_MSIL2A_20230813T104021_N0509_R008_T31TGJ_20230813T151212"
OLD = "S2A_MSIL2A_20180418T104021_N0207_R008_T31TEJ_20180418T125356"
BANDS = ("B02", "B04")

RUN = """
const outcome = { setup: setup() };
let tiles = given.tiles;
const before = given.orbits ? { orbits: given.orbits } : { tiles: tiles };
const scenes = preProcessScenes({ scenes: before }).scenes;
tiles = scenes.tiles || [];
outcome.kept = tiles.map(function (tile) { return given.tiles.indexOf(tile); });
outcome.pixels = given.pixels.map(function (samples) {
  const chosen = given.orbits ? samples : outcome.kept.map(function (i) { return samples[i]; });
  return evaluatePixel(chosen, scenes, {}, {}, {});
});
const metadata = {};
updateOutputMetadata(scenes, { serviceVersion: "test" }, metadata);
outcome.userData = metadata.userData;
console.log(JSON.stringify(outcome));
"""


def planned(product: str, *, path: str = "", is_clipped: bool = True) -> PlannedTile:
    return PlannedTile(product=product, path=path, is_clipped=is_clipped)


def cdse(product: str) -> dict[str, Any]:
    """A tile as Copernicus Data Space describes it."""
    return {"dataPath": f"s3://EODATA/Sentinel-2/MSI/L2A/2023/08/13/{product}.SAFE", "shId": 7, "date": "2023-08-13"}


def sample(b02: int, b04: int, scl: int = 4, mask: int = 1) -> dict[str, int]:
    return {"B02": b02, "B04": b04, "SCL": scl, "dataMask": mask}


def run(script: str, **given: Any) -> dict[str, Any]:
    text = f"{script}\nconst given = {json.dumps(given)};\n{RUN}"
    done = subprocess.run(["node", "-"], input=text, capture_output=True, text=True, check=True, timeout=60)
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def chosen(outcome: dict[str, Any]) -> list[tuple[Sequence[int], int, int, int]]:
    return [(pixel["bands"], pixel["scl"][0], pixel["dataMask"][0], pixel["tile"][0]) for pixel in outcome["pixels"]]


def test_setup_asks_for_digital_numbers_and_declares_integer_outputs() -> None:
    setup = run(tile_evalscript([planned(A)], BANDS), tiles=[], pixels=[])["setup"]
    assert setup["input"] == [{"bands": ["B02", "B04", "SCL", "dataMask"], "units": "DN"}]
    assert setup["mosaicking"] == "TILE"
    assert [(output["id"], output["bands"], output["sampleType"]) for output in setup["output"]] == [
        ("bands", 2, "UINT16"),
        ("scl", 1, "UINT8"),
        ("dataMask", 1, "UINT8"),
        ("tile", 1, "UINT8"),
    ]
    assert tuple(output["id"] for output in setup["output"]) == OUTPUTS


def test_the_first_planned_tile_that_observes_gives_the_pixel_whatever_order_the_service_has() -> None:
    # The plan prefers B; the service lists A first.
    outcome = run(
        tile_evalscript([planned(B), planned(A)], BANDS),
        tiles=[cdse(A), cdse(B)],
        pixels=[
            [sample(300, 400), sample(500, 600, 5)],  # both observe: B
            [sample(300, 400), sample(0, 0, 0, 0)],  # outside of B: A
            [sample(300, 400), sample(500, 600, 0)],  # B has no class there: A
            [sample(0, 0, 0, 0), sample(0, 0, 0, 0)],  # nobody
        ],
    )
    assert chosen(outcome) == [
        ([500, 600], 5, 1, 1),
        ([300, 400], 4, 1, 2),
        ([300, 400], 4, 1, 2),
        ([0, 0], 0, 0, 0),
    ]
    assert [(tile["rank"], tile["shId"]) for tile in outcome["userData"]["tiles"]] == [(1, 7), (0, 7)]


def test_a_tile_that_the_plan_does_not_know_is_neither_used_nor_paid_for() -> None:
    newer = A.replace("N0509", "N0511")
    outcome = run(
        tile_evalscript([planned(A)], BANDS),
        tiles=[cdse(newer), cdse(A)],
        pixels=[[sample(9, 9), sample(300, 400)], [sample(9, 9), sample(0, 0, 0, 0)]],
    )
    assert outcome["kept"] == [1]
    assert chosen(outcome) == [([300, 400], 4, 1, 1), ([0, 0], 0, 0, 0)]


def test_tiles_are_known_by_product_id_or_by_path_and_the_product_decides() -> None:
    tiles = [planned(A, path="tiles/31/T/FJ/2023/8/13/0"), planned(B, path="tiles/31/T/GJ/2023/8/13/1")]
    offered = [
        {"dataPath": "s3://sentinel-s2-l2a/tiles/31/T/GJ/2023/8/13/1"},
        {"dataPath": "http://sentinel-s2-l2a.s3.amazonaws.com/tiles/31/T/FJ/2023/8/13/0/"},
        {"dataPath": "s3://sentinel-s2-l2a/tiles/31/T/GJ/2023/8/13/10"},
        {"dataPath": "s3://sentinel-s2-l2a/tiles/31/T/FJ/2023/8/13/0", "productId": A.replace("N0509", "N0400")},
        {"productId": A},
        {"date": "2023-08-13"},
    ]
    outcome = run(tile_evalscript(tiles, BANDS), tiles=offered, pixels=[[sample(index, 1) for index in range(6)]])
    # One without any name is looked at again when its pixel comes, and not used.
    assert outcome["kept"] == [0, 1, 4, 5]
    assert [tile["rank"] for tile in outcome["userData"]["tiles"]] == [1, 0, 0, -1]
    assert chosen(outcome) == [([1, 1], 4, 1, 1)]


def test_a_dark_pixel_is_observed_where_harmonizing_clips_and_is_nodata_where_it_does_not() -> None:
    pixels = [[sample(0, 0, 6)], [sample(0, 3, 6)]]
    new = run(tile_evalscript([planned(A)], BANDS), tiles=[cdse(A)], pixels=pixels)
    assert chosen(new) == [([0, 0], 6, 1, 1), ([0, 3], 6, 1, 1)]
    old = run(tile_evalscript([planned(OLD, is_clipped=False)], BANDS), tiles=[cdse(OLD)], pixels=pixels)
    assert chosen(old) == [([0, 0], 0, 0, 0), ([0, 3], 6, 1, 1)]


def test_a_place_without_tiles_is_empty() -> None:
    outcome = run(tile_evalscript([planned(A)], BANDS), tiles=[], pixels=[[]])
    assert chosen(outcome) == [([0, 0], 0, 0, 0)]
    assert outcome["userData"]["tiles"] == []


def test_a_dark_pixel_of_an_orbit_is_observed_where_all_planned_tiles_are_clipped() -> None:
    pixels = [[sample(0, 0, 6)], [sample(0, 3, 6)]]
    orbits = [{"tiles": [cdse(A), cdse(OLD)]}]
    both = [planned(A), planned(OLD, is_clipped=False)]
    mixed = run(orbit_evalscript(both, BANDS), tiles=[], orbits=orbits, pixels=pixels)
    # It may be ESA's nodata of the older one, which the service has not clipped.
    assert chosen(mixed) == [([0, 0], 0, 0, 0), ([0, 3], 6, 1, 1)]
    new = run(orbit_evalscript([planned(A)], BANDS), tiles=[], orbits=orbits, pixels=pixels)
    assert chosen(new) == [([0, 0], 6, 1, 1), ([0, 3], 6, 1, 1)]


def test_a_pass_of_which_the_plan_knows_nothing_is_neither_used_nor_paid_for() -> None:
    orbits = [{"tiles": [cdse(OLD)]}, {"tiles": [cdse(OLD), cdse(A)]}, {"tiles": [{"date": "2023-08-13"}]}, {}]
    outcome = run(orbit_evalscript([planned(A)], BANDS), tiles=[], orbits=orbits, pixels=[[sample(3, 4)]])
    assert [tile["rank"] for tile in outcome["userData"]["tiles"]] == [-1, 0, -1]


def test_the_orbit_mode_takes_what_the_service_merged() -> None:
    outcome = run(
        orbit_evalscript([planned(A), planned(B)], BANDS),
        tiles=[],
        orbits=[{"dateFrom": "2023-08-13T00:00:00Z", "tiles": [cdse(B), cdse(OLD)]}],
        pixels=[[sample(300, 400)], [sample(0, 0, 0, 0)]],
    )
    assert outcome["setup"]["mosaicking"] == "ORBIT"
    assert chosen(outcome) == [([300, 400], 4, 1, 1), ([0, 0], 0, 0, 0)]
    assert [tile["rank"] for tile in outcome["userData"]["tiles"]] == [1, -1]
