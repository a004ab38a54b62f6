"""The loopback Sentinel Hub, asked by the provider's own client: what it must do before it may judge a source."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import requests
import shapely
from rasterio.warp import transform_bounds
from tests.end_to_end.building import extent
from tests.services.sentinel_hub.process import processing_units
from tests.services.sentinel_hub.scripts import node_path
from tests.services.sentinel_hub.service import CLIENT, SECRET, SentinelHub
from tests.services.sentinel_hub.tiles import Tile

from sits_catalog.region import Season
from sits_pipeline.simulate import write_archive

pytestmark = pytest.mark.skipif(node_path() is None, reason="Node runs the evalscripts, and there is none here")

GRID = extent(width=60, height=48)
BBOX = tuple(int(side) for side in GRID.boundingbox.bbox)
CRS_URI = "http://www.opengis.net/def/crs/EPSG/0/32631"

PLAIN = """//VERSION=3
function setup() {
  return {
    input: [{bands: ["B02", "B8A", "SCL", "dataMask"], units: "DN"}],
    output: [{id: "bands", bands: 3, sampleType: "UINT16"}, {id: "used", bands: 1, sampleType: "UINT8"}],
    mosaicking: Mosaicking.TILE
  };
}
var count = 0;
function evaluatePixel(samples, scenes) {
  count += 1;
  for (var i = 0; i < samples.length; i++) {
    var s = samples[i];
    if (s.dataMask) { return {bands: [s.B02, s.B8A, s.SCL], used: [scenes.tiles[i].shId - 21000000]}; }
  }
  return {bands: [0, 0, 0], used: [255]};
}
function updateOutputMetadata(scenes, inputMetadata, outputMetadata) {
  outputMetadata.userData = {tiles: scenes.tiles, count: count, factor: inputMetadata.normalizationFactor};
}
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three simulated dates of two tiles as products."""
    folder = tmp_path_factory.mktemp("archive")
    season = Season(start=date(2021, 10, 1), end=date(2022, 9, 30))
    bands = ("B02", "B8A", "B09")
    write_archive(folder, GRID, season, climate="temperate", dates=3, seed=5, bands=bands, safe=True)
    return folder / "safe"


@pytest.fixture(scope="module")
def hub(archive: Path) -> Iterator[SentinelHub]:
    with SentinelHub(archive, page=2) as hub:
        yield hub


@pytest.fixture(autouse=True)
def _plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's OAuth library asks for https, but on request."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


def config_of(hub: SentinelHub, **changes: Any) -> Any:
    from sentinelhub import SHConfig

    fields = {
        "sh_client_id": CLIENT, "sh_client_secret": SECRET, "sh_base_url": hub.url, "sh_token_url": hub.token_url,
        "max_retries": 3, "max_download_attempts": 1, "download_sleep_time": 0.01,
    }  # fmt: skip
    return SHConfig(use_defaults=True, **{**fields, **changes})


def request_of(hub: SentinelHub, tile: Tile, evalscript: str = PLAIN, **changes: Any) -> Any:
    """What the client makes of a request for a day."""
    from sentinelhub import CRS, BBox, DataCollection, MimeType, SentinelHubRequest

    names = changes.pop("names", ("bands", "used"))
    collection = DataCollection.SENTINEL2_L2A.define_from(f"loopback-{hub.url}", service_url=hub.url)
    day = f"{tile.sensed:%Y-%m-%d}"
    data = SentinelHubRequest.input_data(
        collection,
        time_interval=(f"{day}T00:00:00", f"{day}T23:59:59"),
        other_args={"processing": {"harmonizeValues": changes.pop("harmonize", True), "upsampling": "NEAREST"}},
    )
    responses = [SentinelHubRequest.output_response(name, MimeType.TIFF) for name in names]
    if changes.pop("user_data", True):
        responses.append(SentinelHubRequest.output_response("userdata", MimeType.JSON))
    options = {"bbox": BBox(BBOX, CRS("32631")), "size": (60, 48), "config": config_of(hub), **changes}
    return SentinelHubRequest(evalscript, [data], responses, **options)


def token_of(hub: SentinelHub) -> str:
    form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRET}
    return str(requests.post(hub.token_url, data=form, timeout=10).json()["access_token"])


def post(hub: SentinelHub, payload: object, *, path: str = "/api/v1/process", **headers: str) -> requests.Response:
    given = {"Authorization": f"Bearer {token_of(hub)}", "Accept": "application/tar", **headers}
    return requests.post(hub.url + path, json=payload, headers=given, timeout=30)


def truth(tile: Tile, band: str) -> Any:
    """A band of one product on the grid at 10 m, with rasterio and the definition of the offset alone."""
    with rasterio.open(tile.images[band]) as file:
        factor = int(file.res[0]) // 10
        dn = file.read(1).repeat(factor, axis=0).repeat(factor, axis=1).astype(int)
        row, column = int(file.bounds.top - BBOX[3]) // 10, int(BBOX[0] - file.bounds.left) // 10
    out = np.zeros((48, 60), int)
    part = dn[max(row, 0) : row + 48, max(column, 0) : column + 60]
    top, left = max(-row, 0), max(-column, 0)
    out[top : top + part.shape[0], left : left + part.shape[1]] = part
    if band != "SCL" and tile.baseline >= (4, 0):
        out = np.where((out == 65535) | (out == 0), out, np.maximum(out - 1000, 0))
    return out


def days(hub: SentinelHub) -> list[list[Tile]]:
    """Tiles by day, the latest tile of each first."""
    found: dict[date, list[Tile]] = {}
    for tile in sorted(hub.tiles, key=lambda tile: tile.sensed, reverse=True):
        found.setdefault(tile.sensed.date(), []).append(tile)
    return list(found.values())


# OAuth


def test_a_wrong_secret_and_a_missing_token_are_refused(hub: SentinelHub) -> None:
    from sentinelhub import DownloadFailedException, SentinelHubSession

    with pytest.raises(Exception, match="Invalid client"):
        SentinelHubSession(config_of(hub, sh_client_secret="wrong"))
    answer = requests.get(f"{hub.url}/api/v1/catalog/1.0.0/collections", timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (401, 401)
    answer = requests.post(f"{hub.url}/api/v1/process", json={}, timeout=10)
    assert answer.json()["error"]["code"] == "COMMON_UNAUTHORIZED"
    session = SentinelHubSession(config_of(hub), refresh_before_expiry=None)
    hub.tokens.expire()
    request = request_of(hub, hub.tiles[0])
    from sentinelhub import SentinelHubDownloadClient

    client = SentinelHubDownloadClient(session=session, config=config_of(hub))
    with pytest.raises(DownloadFailedException, match="You are not authorized"):
        client.download(request.download_list)


def test_credentials_may_come_as_basic_authentication(hub: SentinelHub) -> None:
    from urllib.parse import quote

    for auth in ((CLIENT, SECRET), (CLIENT, quote(SECRET, safe=""))):
        answer = requests.post(hub.token_url, data={"grant_type": "client_credentials"}, auth=auth, timeout=10)
        assert answer.json()["token_type"] == "Bearer"
    answer = requests.post(hub.token_url, data={"grant_type": "password"}, auth=auth, timeout=10)
    assert answer.status_code == 400


# Catalog


def search(hub: SentinelHub, **changes: Any) -> list[dict[str, Any]]:
    from sentinelhub import CRS, BBox, SentinelHubCatalog

    place = BBox(transform_bounds("EPSG:32631", "EPSG:4326", *BBOX), CRS.WGS84)
    options = {"time": ("2021-10-01", "2022-09-30"), "bbox": place, **changes}
    return list(SentinelHubCatalog(config_of(hub)).search("sentinel-2-l2a", **options))


def test_the_catalogue_lists_every_tile_in_pages(hub: SentinelHub) -> None:
    hub.forget()
    found = search(hub)
    assert {item["id"] for item in found} == {tile.product for tile in hub.tiles}
    assert [item["properties"]["datetime"] for item in found] == sorted(
        (item["properties"]["datetime"] for item in found), reverse=True
    )
    assert [one.body["next"] for one in hub.requests_of("catalog")[1:] if one.body] == [2, 4]


def test_the_catalogue_filters_by_place_time_and_cloud(hub: SentinelHub) -> None:
    from sentinelhub import CRS, BBox

    assert search(hub, bbox=BBox((20, 40, 21, 41), CRS.WGS84)) == []
    tile = hub.tiles[0]
    same_day = [one.product for one in hub.tiles if one.sensed.date() == tile.sensed.date()]
    found = search(hub, time=(f"{tile.sensed:%Y-%m-%d}T00:00:00Z", f"{tile.sensed:%Y-%m-%d}T23:59:59Z"))
    assert sorted(item["id"] for item in found) == sorted(same_day)
    limit = sorted(one.cloud_cover for one in hub.tiles)[2]
    found = search(hub, filter=f"eo:cloud_cover < {limit}", fields={"include": ["properties.eo:cloud_cover"]})
    assert all(item["properties"]["eo:cloud_cover"] < limit for item in found)
    assert len(found) == sum(one.cloud_cover < limit for one in hub.tiles)
    assert all(set(item["properties"]) == {"eo:cloud_cover"} for item in found)


def test_items_have_the_shape_of_recorded_ones(hub: SentinelHub, sits_data: Path) -> None:
    recorded = sits_data / "stac/sentinel_hub/notebook_outputs/data_search_cdse_cell12.json"
    real = json.loads(recorded.read_text())["output"]
    mine = search(hub)[0]
    assert list(mine) == list(real)
    assert list(mine["properties"]) == list(real["properties"])
    assert mine["assets"]["data"]["href"].endswith(mine["id"])
    assert mine["assets"].keys() == real["assets"].keys()
    assert mine["geometry"].keys() == real["geometry"].keys()
    assert [link["rel"] for link in mine["links"]] == [link["rel"] for link in real["links"]]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"collections": ["landsat"]}, 404),
        ({"datetime": None}, 400),
        ({"datetime": "2021-10-01T00:00:00/2021-10-02T00:00:00"}, 400),
        ({"limit": 500}, 400),
        ({"query": {"eo:cloud_cover": {"lt": 5}}}, 400),
        ({"intersects": {"type": "Point", "coordinates": [0, 0]}}, 400),
    ],
)
def test_the_catalogue_refuses_what_it_does_not_know(hub: SentinelHub, changes: dict[str, Any], status: int) -> None:
    query = {"collections": ["sentinel-2-l2a"], "datetime": "2021-10-01T00:00:00Z/..", "bbox": [3, 48, 4, 49]}
    query["datetime"] = "2021-10-01T00:00:00Z/2022-10-01T00:00:00Z"
    answer = post(hub, {**query, **changes}, path="/api/v1/catalog/1.0.0/search")
    assert (answer.status_code, answer.json()["code"]) == (status, status)


def test_other_deployments_keep_tiles_by_place_and_day(archive: Path, sits_data: Path) -> None:
    recorded = sits_data / "stac/sentinel_hub/notebook_outputs/data_search_cell15.json"
    real = json.loads(recorded.read_text())["output"]
    with SentinelHub(archive, deployment="aws") as hub:
        found = search(hub)
        mine, tile = next((item, tile) for tile in hub.tiles for item in found if item["id"] == tile.item_id)
        assert mine["properties"].keys() == real["properties"].keys()
        assert mine["assets"]["data"]["href"] == f"{tile.path}/"
        assert [part.isdigit() for part in real["assets"]["data"]["href"].split("/")] == [
            part.isdigit() for part in mine["assets"]["data"]["href"].split("/")
        ]
        assert len({tile.path for tile in hub.tiles}) == len(hub.tiles) == len(found)


# Process


@pytest.mark.parametrize("sparse", [False, True], ids=["all scenes", "scenes with data"])
def test_pixels_are_those_of_the_first_tile_with_data(archive: Path, sparse: bool) -> None:
    with SentinelHub(archive, sparse=sparse) as hub:
        for tiles in days(hub):
            (got,) = request_of(hub, tiles[0]).get_data()
            expected, used = np.zeros((3, 48, 60), int), np.full((48, 60), 255)
            for tile in reversed(tiles):
                bands = np.stack([truth(tile, band) for band in ("B02", "B8A", "SCL")])
                there = bands[:2].max(axis=0) > 0
                # A dark pixel from which the offset was taken is 0 and no hole.
                there |= bands[2] > 0
                expected, used = np.where(there, bands, expected), np.where(there, tile.sh_id - 21_000_000, used)
            np.testing.assert_array_equal(np.moveaxis(got["bands.tif"], -1, 0), expected)
            np.testing.assert_array_equal(got["used.tif"], used)
            assert got["userdata.json"]["count"] == 48 * 60
            assert [scene["dataPath"] for scene in got["userdata.json"]["tiles"]] == [tile.path for tile in tiles]
            assert set(got["userdata.json"]["tiles"][0]) == {"date", "shId", "cloudCoverage", "dataPath", "__idx"}
        assert any(len(tiles) > 1 for tiles in days(hub))


def test_images_carry_place_and_the_price_is_in_the_headers(hub: SentinelHub) -> None:
    (answer,) = request_of(hub, hub.tiles[0], names=("bands",), user_data=False).get_data(decode_data=False)
    assert answer.headers["Content-Type"] == "image/tiff"
    with rasterio.MemoryFile(answer.content) as memory, memory.open() as file:
        assert (file.crs.to_epsg(), tuple(int(side) for side in file.bounds), file.count) == (32631, BBOX, 3)
    tiles = next(tiles for tiles in days(hub) if hub.tiles[0] in tiles)
    # Three bands, dataMask is free, a sample a tile; the area counts as a hundredth of 512 x 512 at least.
    assert float(answer.headers["x-processingunits-spent"]) == pytest.approx(60 * 48 / 512**2 * len(tiles))


def test_prices_are_those_of_the_documented_examples() -> None:
    assert processing_units(512, 512, ["B02", "B03", "B04"], samples=1, floats=False) == 1
    assert processing_units(1024, 1024, ["a", "b", "c", "d"], samples=2, floats=True) == pytest.approx(64 / 3)
    assert processing_units(20, 20, ["B04", "B08", "dataMask"], samples=1, floats=False) == pytest.approx(2 / 300)
    assert processing_units(1, 1, ["dataMask"], samples=1, floats=False) == 0.005


def evaluate(hub: SentinelHub, body: str, *, kind: str = "UINT16", tile: int = 0, mosaicking: str = "SIMPLE") -> Any:
    """One output band of a script, at the upper left pixels, and its userdata."""
    evalscript = f"""//VERSION=3
    function setup() {{ return {{input: [{{bands: ["B02", "SCL", "dataMask"], units: "DN"}}],
      output: {{bands: 1, sampleType: "{kind}"}}, mosaicking: "{mosaicking}"}}; }}
    {body}"""
    (got,) = request_of(hub, hub.tiles[tile], evalscript, names=("default",)).get_data()
    return got["default.tif"], got["userdata.json"]


@pytest.mark.parametrize(
    ("kind", "returned", "stored"),
    [
        ("UINT8", "40.6", 41), ("UINT8", "310", 255), ("UINT8", "-3", 0), ("INT8", "-200", -128),
        ("INT16", "-5.5", -5), ("UINT16", "70000", 65535), ("UINT16", "NaN", 0), ("FLOAT32", "-0.25", -0.25),
        ("AUTO", "0.5", 128), ("AUTO", "2", 255),
    ],
)  # fmt: skip
def test_values_are_rounded_and_clamped_to_the_sample_type(
    hub: SentinelHub, kind: str, returned: str, stored: float
) -> None:
    got, _ = evaluate(hub, f"function evaluatePixel() {{ return [{returned}]; }}", kind=kind)
    assert (got == stored).all()


def test_scenes_may_be_left_out_before_and_what_a_script_remembers_stays(hub: SentinelHub) -> None:
    tiles = next(tiles for tiles in days(hub) if len(tiles) > 1)
    number = hub.tiles.index(tiles[0])
    body = f"""
    var before = 0;
    function preProcessScenes(collections) {{
      before = collections.scenes.tiles.length;
      collections.scenes.tiles = collections.scenes.tiles.filter(function (t) {{ return t.shId != {tiles[0].sh_id}; }});
      return collections;
    }}
    function evaluatePixel(samples, scenes) {{ return [samples.length * 10 + scenes.tiles.length]; }}
    function updateOutputMetadata(scenes, i, o) {{ o.userData = {{before: before, after: scenes.tiles}}; }}"""
    got, told = evaluate(hub, body, mosaicking="TILE", tile=number)
    assert (got == 11 * (len(tiles) - 1)).all()
    assert told["before"] == len(tiles)
    assert [scene["shId"] for scene in told["after"]] == [tile.sh_id for tile in tiles[1:]]
    assert hub.requests_of("process")[-1].n_tiles == len(tiles) - 1


def test_an_orbit_is_a_day_and_simple_is_one_sample(hub: SentinelHub) -> None:
    tiles = next(tiles for tiles in days(hub) if len(tiles) > 1)
    number = hub.tiles.index(tiles[0])
    orbit, told = evaluate(
        hub,
        """function evaluatePixel(samples) { return [samples[0].B02]; }
        function updateOutputMetadata(scenes, i, o) { o.userData = scenes.orbits; }""",
        mosaicking="ORBIT",
        tile=number,
    )
    simple, _ = evaluate(hub, "function evaluatePixel(sample) { return [sample.B02]; }", tile=number)
    first, second = (truth(tile, "B02") for tile in tiles)
    there = truth(tiles[0], "SCL") > 0
    np.testing.assert_array_equal(orbit, np.where(there, first, second))
    np.testing.assert_array_equal(simple, orbit)
    (told,) = told
    assert told["dateFrom"] == f"{tiles[0].sensed:%Y-%m-%d}T00:00:00Z"
    assert [scene["dataPath"] for scene in told["tiles"]] == [tile.path for tile in tiles]


def test_without_harmonization_numbers_are_the_product_s_own(hub: SentinelHub) -> None:
    number, tile = next((n, tile) for n, tile in enumerate(hub.tiles) if tile.baseline >= (4, 0))
    script = PLAIN.replace("s.dataMask", f"scenes.tiles[i].shId == {tile.sh_id}")
    (own,) = request_of(hub, tile, script, harmonize=False).get_data()
    (changed,) = request_of(hub, hub.tiles[number], script).get_data()
    own, changed = (got["bands.tif"][..., 0].astype(int) for got in (own, changed))
    plain = (own > 0) & (own < 65535)
    assert plain.any()
    np.testing.assert_array_equal(changed[plain], np.maximum(own[plain] - 1000, 0))
    np.testing.assert_array_equal(changed[~plain], own[~plain])


def test_a_lost_tile_is_listed_and_not_computed(archive: Path) -> None:
    with SentinelHub(archive) as hub:
        tiles = next(tiles for tiles in days(hub) if len(tiles) > 1)
        hub.lost.add(tiles[0].product)
        assert tiles[0].product in {item["id"] for item in search(hub)}
        (got,) = request_of(hub, tiles[0]).get_data()
        assert [scene["dataPath"] for scene in got["userdata.json"]["tiles"]] == [tile.path for tile in tiles[1:]]


def test_coarse_pixels_are_those_under_their_centres(hub: SentinelHub) -> None:
    (got,) = request_of(hub, hub.tiles[0], size=(5, 4)).get_data()
    (fine,) = request_of(hub, hub.tiles[0]).get_data()
    np.testing.assert_array_equal(got["bands.tif"], fine["bands.tif"][6::12, 6::12])


def broken(payload: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of a request with one value changed, or taken away for None."""
    changed = copy.deepcopy(payload)
    *parents, name = (int(part) if part.isdigit() else part for part in path.split("."))
    target: Any = changed
    for part in parents:
        target = target[part]
    if value is None:
        del target[name]
    else:
        target[name] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("input.bounds.bbox", [3.3, 48.6, 3.4, 48.7], "lattice"),
        ("input.bounds.bbox", [BBOX[0] + 5, BBOX[1], BBOX[2] + 5, BBOX[3]], "lattice"),
        ("input.bounds.bbox", [BBOX[0], BBOX[1], BBOX[2] + 10, BBOX[3]], "square"),
        ("input.bounds.properties.crs", "http://www.opengis.net/def/crs/EPSG/0/4326", "UTM"),
        ("input.bounds.properties.crs", "EPSG:32631", "UTM"),
        ("input.data.0.type", "sentinel-2-l1c", "sentinel-2-l2a"),
        ("input.data.0.dataFilter.timeRange", None, "timeRange"),
        ("input.data.0.dataFilter.timeRange.from", "2021-10-01", "timeRange"),
        ("input.data.0.dataFilter.mosaickingOrder", "oldest", "mosaickingOrder"),
        ("input.data.0.processing.harmonizeValues", None, "harmonizeValues"),
        ("input.data.0.processing.upsampling", None, "upsampling"),
        ("input.data.0.processing.upsampling", "BILINEAR", "upsampling"),
        ("input.data.0.harmonizeValues", True, "Unrecognized"),
        ("output.width", 2501, "2500"),
        ("output.width", 61, "square"),
        ("output.width", None, "number of pixels"),
        ("output.resx", 10, "Unrecognized"),
        ("output.responses", [], "empty"),
        ("output.responses.0.identifier", "other", "setup()"),
        ("output.responses.0.format.type", "image/png", "image/tiff"),
        ("evalscript", "function setup() {}", "VERSION=3"),
        ("evalscript", PLAIN.replace('"B8A"', '"B10"'), "Band B10"),
        ("evalscript", PLAIN.replace("s.SCL]", "s.SCL, 1]"), "has 3 bands, got 4"),
        ("evalscript", PLAIN.replace("samples[i]", "samples[9]"), "undefined"),
    ],
)
def test_a_request_that_would_not_be_exact_is_refused(hub: SentinelHub, path: str, value: object, says: str) -> None:
    payload = json.loads(json.dumps(request_of(hub, hub.tiles[0]).payload))
    answer = post(hub, broken(payload, path, value))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert says in error["message"]
    assert error["reason"] == "Bad Request"
    assert "x-processingunits-spent" not in answer.headers
    assert post(hub, payload).status_code == 200


def test_several_responses_need_a_tar(hub: SentinelHub) -> None:
    payload = request_of(hub, hub.tiles[0]).payload
    assert post(hub, payload, Accept="image/tiff").status_code == 406


def test_who_asks_too_often_waits_for_milliseconds(archive: Path) -> None:
    from sentinelhub.exceptions import SHRateLimitWarning

    with SentinelHub(archive, a_minute=60, burst=2) as hub:
        payload = request_of(hub, hub.tiles[0]).payload
        while (answer := post(hub, payload)).status_code == 200:
            pass
        assert answer.status_code == 429
        assert answer.json()["code"] == "RATE_LIMIT_EXCEEDED"
        assert 1 <= int(answer.headers["Retry-After"]) <= 1001
        with pytest.warns(SHRateLimitWarning):
            (got,) = request_of(hub, hub.tiles[0]).get_data()
        assert got["userdata.json"]["count"] == 48 * 60


def test_the_service_is_simulated_and_says_where_data_lie(hub: SentinelHub) -> None:
    assert all(shapely.area(tile.footprint) > 0 for tile in hub.tiles)
    assert all(tile.path.startswith("s3://EODATA/Sentinel-2/MSI/L2A_N0") for tile in hub.tiles)
    assert "SH_CLIENT_SECRET" not in os.environ
