from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from sentinelhub.config import SHConfig
from tests.pipeline.sources.sentinel_hub.items import LEFT, TOP, grid
from tests.pipeline.sources.sentinel_hub.scripted_hub import files_of, tar, tiff

from sits_pipeline.sources.sentinel_hub.process import (
    Images,
    boxes_of,
    parse_answer,
    process_request,
    processing_units,
)

DN = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4)
SCL = np.full((3, 4), 4, np.uint8)
TILE = np.array([[1, 1, 2, 2], [1, 1, 2, 0], [1, 0, 0, 0]], np.uint8)


def config(url: str = "https://sh.dataspace.copernicus.eu") -> SHConfig:
    return SHConfig(use_defaults=True, sh_base_url=url)


def request(settings: SHConfig, **changes: Any) -> Any:
    kept = {
        "bounds": (600_000.0, 4_899_990.0, 600_040.0, 4_900_020.0),
        "epsg": 32631,
        "size": (4, 3),
        "sensed": [datetime(2023, 8, 13, 10, 45, 12, 24000, UTC), datetime(2023, 8, 13, 10, 45, 27, 0, UTC)],
        "evalscript": "//VERSION=3",
    }
    return process_request(settings, **{**kept, **changes}).download_list[0]


def test_the_request_is_exactly_this() -> None:
    sent = request(config())
    assert sent.url == "https://sh.dataspace.copernicus.eu/api/v1/process"
    assert sent.headers == {"content-type": "application/json", "accept": "application/x-tar"}
    tiff_format = {"format": {"type": "image/tiff"}}
    assert sent.post_values == {
        "input": {
            "bounds": {
                "properties": {"crs": "http://www.opengis.net/def/crs/EPSG/0/32631"},
                "bbox": [600_000.0, 4_899_990.0, 600_040.0, 4_900_020.0],
            },
            "data": [
                {
                    "type": "sentinel-2-l2a",
                    "dataFilter": {"timeRange": {"from": "2023-08-13T10:35:12Z", "to": "2023-08-13T10:55:27Z"}},
                    "processing": {"harmonizeValues": True, "upsampling": "NEAREST", "downsampling": "NEAREST"},
                }
            ],
        },
        "evalscript": "//VERSION=3",
        "output": {
            "responses": [
                {"identifier": "bands", **tiff_format},
                {"identifier": "scl", **tiff_format},
                {"identifier": "dataMask", **tiff_format},
                {"identifier": "tile", **tiff_format},
                {"identifier": "userdata", "format": {"type": "application/json"}},
            ],
            "width": 4,
            "height": 3,
        },
    }


@pytest.mark.parametrize(
    "url", ["https://services.sentinel-hub.com", "https://services-uswest2.sentinel-hub.com", "http://127.0.0.1:9"]
)
def test_each_deployment_is_asked_at_its_own_address_however_often(url: str) -> None:
    assert request(config(url)).url == request(config(url)).url == f"{url}/api/v1/process"


def test_a_box_in_degrees_or_too_large_is_never_sent() -> None:
    with pytest.raises(ValueError, match="got EPSG:4326"):
        request(config(), epsg=4326)
    with pytest.raises(ValueError, match="1 to 2500 pixels a side, got 2501 x 3"):
        request(config(), size=(2501, 3))


def test_boxes_are_the_pixels_of_the_geobox_and_have_2500_a_side_at_most() -> None:
    boxes = boxes_of(grid(2501, 5000, row=7, column=3))
    assert [(box.window.row, box.window.column, *box.size) for box in boxes] == [
        (0, 0, 2500, 2500),
        (0, 2500, 2500, 2500),
        (2500, 0, 2500, 1),
        (2500, 2500, 2500, 1),
    ]
    left, top = LEFT + 30, TOP - 70
    assert boxes[1].bounds == (left + 25_000, top - 25_000, left + 50_000, top)
    assert boxes[2].bounds == (left, top - 25_010, left + 25_000, top - 25_000)
    assert {box.epsg for box in boxes} == {32631}


@pytest.mark.parametrize(
    ("affine", "crs", "said"),
    [
        (Affine(0.0001, 0, 3, 0, -0.0001, 44), "EPSG:4326", "got EPSG:4326"),
        (Affine(20, 0, LEFT, 0, -20, TOP), "EPSG:32631", "got 20 x 20 m"),
        (Affine(10, 0, LEFT + 5, 0, -10, TOP), "EPSG:32631", r"corner \(600005, 4900020\)"),
    ],
)
def test_another_grid_is_refused(affine: Affine, crs: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        boxes_of(GeoBox((4, 4), affine, crs))


def test_the_cost_follows_the_published_rule() -> None:
    # 1 km2 at 10 m is 100 x 100 pixels: 10000 / 262144 x 10 / 3.
    assert processing_units((100, 100), n_bands=10, n_samples=1) == pytest.approx(0.1272, abs=5e-5)
    assert processing_units((512, 512), n_bands=3, n_samples=1) == 1
    assert processing_units((1024, 512), n_bands=11, n_samples=2) == pytest.approx(2 * 11 / 3 * 2)
    # Example "NDVI calculation for a parcel" of the page, and the least that a request costs.
    assert processing_units((20, 20), n_bands=2, n_samples=1) == pytest.approx(0.0067, abs=5e-5)
    assert processing_units((1, 1), n_bands=1, n_samples=1) == 0.005


def whole(**changes: bytes) -> dict[str, bytes]:
    return {**files_of(DN, SCL, TILE, [0, 1, -1]), **changes}


def parse(content: bytes) -> Images:
    return parse_answer(content, size=(4, 3), n_bands=2, charged=0.25)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_an_answer_is_taken_apart_whichever_way_its_bands_are_stored(interleave: str) -> None:
    images = parse(tar(whole(**{"bands.tif": tiff(DN, interleave=interleave)})))
    np.testing.assert_array_equal(images.dn, DN)
    np.testing.assert_array_equal(images.scl, SCL)
    np.testing.assert_array_equal(images.tile, TILE)
    assert (images.offered, images.n_offered, images.processing_units) == (frozenset({0, 1}), 3, 0.25)


BROKEN = {
    "html": (b"<html><body>Bad gateway</body></html>" * 40, "a tar was expected; it starts with '<html>"),
    "nothing": (b"", "a tar was expected"),
    "cut in a file": (tar(whole())[:1100], "were asked for, bands.tif came"),
    "a file missing": (tar({k: v for k, v in whole().items() if k != "scl.tif"}), "scl.tif, tile.tif, userdata.json"),
    "a file too many": (tar(whole(**{"default.tif": b""})), "default.tif"),
    "another type": (tar(whole(**{"bands.tif": tiff(DN.astype(np.float32))})), "of float32"),
    "another shape": (tar(whole(**{"bands.tif": tiff(DN[:, :2])})), r"holds \(2, 2, 4\)"),
    "a band too few": (tar(whole(**{"bands.tif": tiff(DN[:1])})), r"holds \(1, 3, 4\)"),
    "no tiff": (tar(whole(**{"tile.tif": b"II*\x00broken"})), "tile.tif cannot be decoded"),
    "no list of tiles": (tar(whole(**{"userdata.json": b"{}"})), "does not list the tiles"),
    "no json": (tar(whole(**{"userdata.json": b"<html>"})), "does not list the tiles"),
    "a pixel of a tile without data": (
        tar(whole(**{"dataMask.tif": tiff(np.ones((1, 3, 4), np.uint8))})),
        "contradict each other",
    ),
    "a pixel without a class": (tar(whole(**{"scl.tif": tiff(np.zeros((1, 3, 4), np.uint8))})), "contradict"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_anything_else_is_an_error_and_never_data(name: str) -> None:
    content, said = BROKEN[name]
    with pytest.raises(ValueError, match=said):
        parse(content)


def test_every_cut_of_an_answer_is_noticed() -> None:
    content = tar(whole())
    end = max(index for index, byte in enumerate(content) if byte)
    for size in range(0, end, 97):
        with pytest.raises(ValueError, match=r"tar|tif|userdata"):
            parse(content[:size])


def test_a_broken_pixel_stream_is_noticed() -> None:
    broken = bytearray(tiff(DN))
    broken[-20:] = bytes(20)
    with pytest.raises(ValueError, match=r"bands\.tif (cannot be decoded|holds)|contradict"):
        parse(tar(whole(**{"bands.tif": bytes(broken)})))


def test_userdata_with_ranks_that_are_no_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="does not list the tiles"):
        parse(tar(whole(**{"userdata.json": json.dumps({"tiles": [{"rank": "first"}]}).encode()})))
