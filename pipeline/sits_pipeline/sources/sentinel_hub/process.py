"""The Process API: which boxes are asked for, what that costs, the request, and the images in the answer."""

from __future__ import annotations

import io
import json
import re
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import lattice_anchor_y
from sits_pipeline.sources.sentinel_hub.evalscript import OUTPUTS
from sits_pipeline.values import Window, epsg_of, shape_of

if TYPE_CHECKING:
    from sentinelhub.api.process import SentinelHubRequest
    from sentinelhub.config import SHConfig
    from sentinelhub.data_collections import DataCollection

__all__ = [
    "MAX_SIDE",
    "MIN_UNITS",
    "Box",
    "Images",
    "boxes_of",
    "parse_answer",
    "process_request",
    "processing_units",
    "units_charged",
]

MAX_SIDE = 2500
"""Pixels a side of one request (Process API reference, `output.width`)."""
MIN_UNITS = 0.005
"""What a request costs at least ("Processing Unit definition")."""

_AROUND = timedelta(minutes=10)
"""What a request reaches beyond the sensing times of its tiles: passes of a satellite are 50 minutes apart
("Sentinel-2 L2A, Collection specific constraints"), and times in the service's index are not always the Catalog's."""
_DTYPES = {"bands": "uint16", "scl": "uint8", "dataMask": "uint8", "tile": "uint8"}
_MAX_BYTES = 2 * 2**30
_DEFINING = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle of whole pixels in a UTM zone, small enough for one request."""

    window: Window
    """Its place in the geobox."""
    epsg: int
    bounds: tuple[float, float, float, float]
    """West, south, east, north in metres."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.window.width, self.window.height


@dataclass(frozen=True, kw_only=True)
class Images:
    """What the service computed for one box."""

    dn: NDArray[np.uint16]
    """(band, y, x); harmonized: reflectance x 10000, negative ones 0."""
    scl: NDArray[np.uint8]
    """(y, x)"""
    tile: NDArray[np.uint8]
    """(y, x); position from 1 on among the tiles that the evalscript knows, 0 not observed."""
    offered: frozenset[int]
    """Positions from 0 on of the tiles that the service had for the box."""
    n_offered: int
    """Tiles that the service had, known or not."""
    others: tuple[str, ...]
    """Those that the evalscript does not know, by the product's name or what else the service calls them."""
    processing_units: float
    """What the service charged, or would."""


def boxes_of(geobox: GeoBox) -> tuple[Box, ...]:
    """The pixels of a 10 m grid in a UTM zone, in boxes of at most 2500 x 2500.

    Raises ValueError for another grid: a box that is not made of whole pixels would be resampled.
    """
    epsg, affine = epsg_of(geobox), geobox.affine
    lattice_anchor_y(epsg)
    corner = (affine.c, affine.f)
    if (affine.a, affine.b, affine.d, affine.e) != (10, 0, 0, -10) or any(value % 10 for value in corner):
        raise ValueError(
            "Sentinel Hub is asked for 10 m pixels on the lattice of Sentinel-2 alone, "
            f"got {affine.a:g} x {-affine.e:g} m from the corner ({affine.c:.12g}, {affine.f:.12g})"
        )
    return tuple(_boxes(shape_of(geobox), epsg, corner))


def _boxes(shape: tuple[int, int], epsg: int, corner: tuple[float, float]) -> Iterator[Box]:
    for row in range(0, shape[0], MAX_SIDE):
        for column in range(0, shape[1], MAX_SIDE):
            height, width = min(MAX_SIDE, shape[0] - row), min(MAX_SIDE, shape[1] - column)
            west, north = corner[0] + 10 * column, corner[1] - 10 * row
            yield Box(
                window=Window(row=row, column=column, height=height, width=width),
                epsg=epsg,
                bounds=(west, north - 10 * height, west + 10 * width, north),
            )


def processing_units(size: tuple[int, int], *, n_bands: int, n_samples: int) -> float:
    """What a request costs: area x bands / 3 x samples a pixel, in units of 512 x 512 pixels; 0.005 at least.

    `n_bands` counts SCL but not dataMask, which is free; the area counts at least 0.01. 8 or 16 bits a value
    (documentation.dataspace.copernicus.eu, "Sentinel Hub, Processing Unit definition").
    """
    area = max(size[0] * size[1] / 512**2, 0.01)
    return max(MIN_UNITS, area * n_bands / 3 * n_samples)


def units_charged(headers: Mapping[str, str], estimate: float) -> float:
    """Processing units that an answer says it cost, else the estimate."""
    said = next((value for name, value in headers.items() if name.lower() == "x-processingunits-spent"), "")
    try:
        return float(said)
    except ValueError:
        return estimate


def process_request(
    config: SHConfig,
    *,
    bounds: tuple[float, float, float, float],
    epsg: int,
    size: tuple[int, int],
    sensed: Sequence[datetime],
    evalscript: str,
    max_cloud: int = 100,
) -> SentinelHubRequest:
    """The request for a box; nothing is sent. Cloudier tiles than `max_cloud` percent are not offered.

    `harmonizeValues` is set although it is the default: it decides what a DN means.
    """
    from sentinelhub.api.process import SentinelHubRequest
    from sentinelhub.constants import CRS, MimeType
    from sentinelhub.geometry import BBox

    lattice_anchor_y(epsg)
    if not all(0 < side <= MAX_SIDE for side in size):
        raise ValueError(f"a request has 1 to {MAX_SIDE} pixels a side, got {size[0]} x {size[1]}")
    collection = _collection(config.sh_base_url)
    # The address of a collection overrules that of the configuration (sentinelhub/api/base_request.py).
    if collection.service_url != config.sh_base_url:
        raise ValueError(f"the collection is asked at {collection.service_url}, not at {config.sh_base_url}")
    processing = {"harmonizeValues": True, "upsampling": "NEAREST", "downsampling": "NEAREST"}
    images = [SentinelHubRequest.output_response(name, MimeType.TIFF) for name in OUTPUTS]
    return SentinelHubRequest(
        evalscript=evalscript,
        input_data=[
            SentinelHubRequest.input_data(
                collection,
                time_interval=_interval(sensed),
                maxcc=None if max_cloud >= 100 else (max_cloud + 0.5) / 100,  # the library cuts decimals off
                other_args={"processing": processing},
            )
        ],
        responses=[*images, SentinelHubRequest.output_response("userdata", MimeType.JSON)],
        bbox=BBox(bounds, crs=CRS(str(epsg))),
        size=size,
        config=config,
    )


def _collection(service_url: str) -> DataCollection:
    """Sentinel-2 L2A at this service; defined in each process, since a member added at run time cannot be pickled."""
    from sentinelhub.data_collections import DataCollection

    own: DataCollection = DataCollection.SENTINEL2_L2A
    if own.service_url == service_url:
        return own
    name = "SENTINEL2_L2A_" + "".join(letter if letter.isalnum() else "_" for letter in service_url).upper()
    with _DEFINING:
        return own.define_from(name, service_url=service_url)


def _interval(sensed: Sequence[datetime]) -> tuple[datetime, datetime]:
    start, end = min(sensed) - _AROUND, max(sensed) + _AROUND
    return start.replace(microsecond=0), end.replace(microsecond=0)


def parse_answer(content: bytes, *, size: tuple[int, int], n_bands: int, charged: float) -> Images:
    """The images in a tar of the Process API.

    Raises ValueError with the end of a sentence where anything is not as it was asked for.
    """
    files = _files(content)
    expected = {f"{name}.tif" for name in OUTPUTS} | {"userdata.json"}
    if set(files) != expected:
        raise ValueError(f"{', '.join(sorted(expected))} were asked for, {', '.join(sorted(files)) or 'nothing'} came")
    counts = {"bands": n_bands, "scl": 1, "dataMask": 1, "tile": 1}
    images = {name: _image(files[f"{name}.tif"], name, size, counts[name]) for name in OUTPUTS}
    tiles = _tiles(files["userdata.json"])
    dn, scl, mask, tile = (images[name] for name in OUTPUTS)
    observed = tile[0] != 0
    if not (np.array_equal(observed, mask[0] != 0) and scl[0][observed].all()):
        raise ValueError("its images contradict each other on which pixels are observed")
    return Images(
        dn=dn.astype(np.uint16, copy=False),
        scl=scl[0].astype(np.uint8, copy=False),
        tile=tile[0].astype(np.uint8, copy=False),
        offered=frozenset(rank for rank, _ in tiles if rank >= 0),
        n_offered=len(tiles),
        others=tuple(sorted({name for rank, name in tiles if rank < 0})),
        processing_units=charged,
    )


def _files(content: bytes) -> Mapping[str, bytes]:
    """Files of a tar by name."""
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar.getmembers():
                if member.size > _MAX_BYTES:
                    raise ValueError(f"{member.name[:80]!r} holds {member.size} bytes")
                file = tar.extractfile(member)
                if file is not None:
                    files[member.name.removeprefix("./")] = _whole(file.read(), member.size)
    except (tarfile.TarError, EOFError, OSError):
        start = content[:60].decode("ascii", "replace")
        raise ValueError(f"a tar was expected; it starts with {start!r}") from None
    return files


def _whole(content: bytes, size: int) -> bytes:
    if len(content) != size:
        raise ValueError(f"a file in its tar ends after {len(content)} of {size} bytes")
    return content


def _image(content: bytes, name: str, size: tuple[int, int], n_bands: int) -> NDArray[Any]:
    """(band, y, x) of a TIFF, whichever way its bands are stored."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            series = file.series[0]
            values, axes = series.asarray(), series.axes
    except Exception as error:  # tifffile raises whatever the broken bytes lead it to, zlib.error among them
        raise ValueError(f"{name}.tif cannot be decoded ({type(error).__name__})") from error
    image = values[None] if axes == "YX" else np.moveaxis(values, -1, 0) if axes == "YXS" else values
    if image.shape != (n_bands, size[1], size[0]) or image.dtype != _DTYPES[name]:
        raise ValueError(
            f"{name}.tif holds {image.shape} of {image.dtype}; "
            f"{(n_bands, size[1], size[0])} of {_DTYPES[name]} were asked for"
        )
    return np.asarray(image)


def _tiles(content: bytes) -> list[tuple[int, str]]:
    """Position of each offered tile among the planned ones, -1 for others, and its name."""
    try:
        tiles = json.loads(content)["tiles"]
        ranks = [tile["rank"] for tile in tiles]
    except (KeyError, TypeError, ValueError, RecursionError):
        tiles, ranks = [], [None]
    if not all(isinstance(rank, int) or (isinstance(rank, float) and rank.is_integer()) for rank in ranks):
        raise ValueError("userdata.json does not list the tiles")
    return [(int(rank), _name(tile)) for rank, tile in zip(ranks, tiles, strict=True)]


def _name(tile: Mapping[str, object]) -> str:
    """The product of a tile, else its path, else its number."""
    product, path = (str(tile.get(key) or "") for key in ("productId", "dataPath"))
    if match := re.search(r"S2[A-Z]_MSIL2A_\w+", f"{product} {path}"):
        return match[0]
    name = urlsplit(path).path.strip("/") or product or f"tile {tile.get('shId', '?')}"
    return "".join(letter for letter in name if letter.isprintable())[:100]
