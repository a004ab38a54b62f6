"""What a Process request asks for, checked more strictly than the real service does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.services.sentinel_hub.errors import Refused, bad_payload

__all__ = ["Asked", "read_request"]

MAX_PIXELS = 2500
MAX_RESOLUTION_M = 1500.0
_UTM = re.compile(r"http://www\.opengis\.net/def/crs/EPSG/0/(32[67](?:0[1-9]|[1-5]\d|60))")
_TIFF, _JSON = "image/tiff", "application/json"

Json = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A request that passed."""

    epsg: int
    bbox: tuple[float, float, float, float]
    width: int
    height: int
    start: datetime
    end: datetime
    order: str
    """mostRecent, leastRecent or leastCC."""
    max_cloud: float
    harmonize: bool
    images: tuple[str, ...]
    """Identifiers of the TIFFs."""
    user_data: bool
    tar: bool
    evalscript: str

    @property
    def resolution(self) -> float:
        """Metres a pixel."""
        return (self.bbox[2] - self.bbox[0]) / self.width

    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eastings and northings of the pixels' centres, the latter from north to south."""
        eastings = self.bbox[0] + self.resolution * (np.arange(self.width) + 0.5)
        return eastings, self.bbox[3] - self.resolution * (np.arange(self.height) + 0.5)


def read_request(body: Json, accept: str) -> Asked:
    """The request. Raises Refused for what the real service refuses, and for what would not be exact.

    Stricter than the real one: UTM alone, square pixels of 10 m on the tiles' lattice (or coarser ones, for samples),
    width and height, `harmonizeValues` and `upsampling` said explicitly.
    """
    _only(body, "", {"input", "output", "evalscript"})
    source, output = _object(body, "input"), _object(body, "output")
    _only(source, "input", {"bounds", "data"})
    _only(output, "output", {"width", "height", "responses"})
    epsg, bbox = _bounds(_object(source, "bounds"))
    width, height = _sides(output, bbox)
    data = source.get("data")
    if not isinstance(data, list) or len(data) != 1:
        raise bad_payload("input->data", "exactly one data source is needed")
    start, end, order, max_cloud, harmonize = _data(data[0])
    images, user_data, tar = _responses(output.get("responses"), accept)
    evalscript = body.get("evalscript")
    if not isinstance(evalscript, str) or not evalscript:
        raise bad_payload("evalscript", "must not be empty")
    return Asked(
        epsg, bbox, width, height, start, end, order, max_cloud, harmonize, images, user_data, tar, evalscript
    )  # fmt: skip


def _object(parent: Json, name: str) -> Json:
    value = parent.get(name)
    if not isinstance(value, dict):
        raise bad_payload(name, "must not be null")
    return value


def _only(given: Json, name: str, known: set[str]) -> None:
    if unknown := set(given) - known:
        raise bad_payload(f"{name}->{', '.join(sorted(unknown))}", "Unrecognized field")


def _bounds(bounds: Json) -> tuple[int, tuple[float, float, float, float]]:
    _only(bounds, "input->bounds", {"bbox", "properties"})
    crs, bbox = _object(bounds, "properties").get("crs"), bounds.get("bbox")
    match = _UTM.fullmatch(crs) if isinstance(crs, str) else None
    if match is None:
        raise bad_payload("input->bounds->properties->crs", "must be the URI of a UTM zone", crs)
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(isinstance(side, int | float) for side in bbox):
        raise bad_payload("input->bounds->bbox", "must be four numbers", bbox)
    west, south, east, north = (float(side) for side in bbox)
    if west >= east or south >= north:
        raise bad_payload("input->bounds->bbox", "must be west, south, east, north", bbox)
    if any(side % 10 for side in (west, south, east, north)):
        raise bad_payload("input->bounds->bbox", "must lie on the 10 m lattice of the tiles", bbox)
    return int(match[1]), (west, south, east, north)


def _sides(output: Json, bbox: tuple[float, float, float, float]) -> tuple[int, int]:
    sides = []
    for name, length in (("width", bbox[2] - bbox[0]), ("height", bbox[3] - bbox[1])):
        pixels = output.get(name)
        if not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 1:
            raise bad_payload(f"output->{name}", "must be a number of pixels", pixels)
        if pixels > MAX_PIXELS:
            raise bad_payload(f"output->{name}", f"must be less than or equal to {MAX_PIXELS}", pixels)
        if length / pixels > MAX_RESOLUTION_M:
            message = f"{length / pixels:.2f} meters per pixel exceeds the limit {MAX_RESOLUTION_M:.2f}"
            raise Refused(400, f"The resolution of your request, {message}", "RENDERER_EXCEPTION")
        sides.append((pixels, length / pixels))
    (width, across), (height, along) = sides
    if across != along:
        raise bad_payload("output->width, height", f"pixels must be square, got {across} x {along} m")
    if across < 10:
        raise bad_payload("output->width, height", f"pixels must be 10 m or coarser, got {across} m")
    return width, height


def _data(data: Json) -> tuple[datetime, datetime, str, float, bool]:
    _only(data, "input->data", {"type", "dataFilter", "processing"})
    if data.get("type") != "sentinel-2-l2a":
        raise bad_payload("input->data->type", "must be sentinel-2-l2a", data.get("type"))
    filters, processing = _object(data, "dataFilter"), _object(data, "processing")
    _only(filters, "input->data->dataFilter", {"timeRange", "mosaickingOrder", "maxCloudCoverage"})
    _only(processing, "input->data->processing", {"upsampling", "downsampling", "harmonizeValues"})
    interval = _object(filters, "timeRange")
    try:
        start, end = (datetime.fromisoformat(interval[name]) for name in ("from", "to"))
    except (KeyError, TypeError, ValueError):
        raise bad_payload("input->data->dataFilter->timeRange", "from and to must be RFC 3339", interval) from None
    if start.tzinfo is None or end.tzinfo is None or end < start:
        raise bad_payload("input->data->dataFilter->timeRange", "needs time zones, and from before to", interval)
    order = filters.get("mosaickingOrder", "mostRecent")
    if order not in ("mostRecent", "leastRecent", "leastCC"):
        raise bad_payload("input->data->dataFilter->mosaickingOrder", "is none of the three", order)
    if not isinstance(processing.get("harmonizeValues"), bool):
        raise bad_payload("input->data->processing->harmonizeValues", "must be said explicitly")
    for name in ("upsampling", "downsampling"):
        value = processing.get(name, None if name == "upsampling" else "NEAREST")
        if value != "NEAREST":
            raise bad_payload(f"input->data->processing->{name}", "must be said, and NEAREST is known here", value)
    return start, end, order, float(filters.get("maxCloudCoverage", 100)), processing["harmonizeValues"]


def _responses(responses: object, accept: str) -> tuple[tuple[str, ...], bool, bool]:
    """Identifiers of the images, whether userdata is asked for, and whether the answer is a tar."""
    if not isinstance(responses, list) or not responses:
        raise bad_payload("output->responses", "must not be empty")
    images, user_data = [], False
    for number, response in enumerate(responses):
        name, kind = response.get("identifier", "default"), response.get("format", {}).get("type")
        where = f"output->responses[{number}]->format->type"
        if name == "userdata":
            user_data = True
            if kind != _JSON:
                raise bad_payload(where, f"userdata is {_JSON}", kind)
        else:
            images.append(name)
            if kind != _TIFF:
                raise bad_payload(where, f"{_TIFF} is needed for numbers", kind)
    if len(set(images)) + user_data != len(responses):
        raise bad_payload("output->responses", "identifiers must be unique")
    kinds = {kind.split(";")[0].strip() for kind in accept.split(",")}
    tar = bool(kinds & {"application/tar", "application/x-tar"})
    only = _JSON if not images else _TIFF
    if not tar and (len(responses) > 1 or not kinds & {only, "*/*"}):
        raise Refused(406, f"{len(responses)} responses were asked for, and the header Accept is {accept}")
    return tuple(images), user_data, tar
