"""The Process API: tiles found, mosaicked as the evalscript asks, its pixels computed by Node, TIFFs returned."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from tests.services.sentinel_hub.errors import Refused, bad_payload
from tests.services.sentinel_hub.request import Asked, read_request
from tests.services.sentinel_hub.scripts import Node, Script
from tests.services.sentinel_hub.tiles import Tile

__all__ = ["Computed", "Process"]

OPTICAL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
_DTYPES = {
    "INT8": "int8", "UINT8": "uint8", "INT16": "int16", "UINT16": "uint16", "FLOAT32": "float32", "AUTO": "uint8",
}  # fmt: skip
_SATURATED = 65535
_META = {"serviceVersion": "loopback", "normalizationFactor": 0.0001}

Json = dict[str, Any]
Bands = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Computed:
    """An answer, and what it costs."""

    body: bytes
    content_type: str
    processing_units: float
    n_tiles: int
    """Tiles, or orbits, that were mosaicked."""


class Process:
    """Computes answers. `sparse`: evaluatePixel is given the scenes that have data at a pixel, not all of them.

    The documentation says that `samples` and `scenes` are as long as each other, not which of the two they are.
    """

    def __init__(self, tiles: Sequence[Tile], *, sparse: bool) -> None:
        self.tiles, self.sparse = tiles, sparse
        self.node = Node()

    def answer(self, body: Json, accept: str, lost: Collection[str]) -> Computed:
        """The answer to a request; tiles of the products `lost` are no longer there. Raises Refused."""
        asked = read_request(body, accept)
        there = [tile for tile in self.tiles if tile.product not in lost]
        with self.node.script() as script:
            return _compute(asked, _Setup(script.setup(asked.evalscript)), _found(asked, there), script, self.sparse)


class _Setup:
    """What `setup` asks for. Raises Refused."""

    def __init__(self, returned: Json) -> None:
        given = returned.get("input")
        inputs = given if isinstance(given, list) else [given]
        if any(not isinstance(entry, dict) for entry in inputs):
            inputs = [{"bands": inputs}]
        if len(inputs) != 1:
            raise Refused(400, "This service knows one input", "RENDERER_EXCEPTION")
        self.bands: list[str] = inputs[0].get("bands") or []
        units = inputs[0].get("units")
        self.units = units if isinstance(units, list) else [units] * len(self.bands)
        for band, unit in zip(self.bands, self.units, strict=True):
            known = {"DN"} | ({"REFLECTANCE"} if band in OPTICAL else set())
            if band not in (*OPTICAL, "SCL", "dataMask") or (unit is not None and str(unit).upper() not in known):
                raise Refused(400, f"Band {band} with units {unit} does not exist", "RENDERER_EXCEPTION")
        outputs = returned.get("output")
        listed = outputs if isinstance(outputs, list) else [outputs]
        self.outputs = [
            {"id": "default", "sampleType": "AUTO", "nodataValue": None, **(output or {})} for output in listed
        ]
        for output in self.outputs:
            if output["sampleType"] not in _DTYPES or not isinstance(output.get("bands"), int):
                raise Refused(400, f"Output {output['id']} has no bands or an unknown sampleType", "RENDERER_EXCEPTION")
        self.mosaicking = returned.get("mosaicking") or "SIMPLE"
        if self.mosaicking not in ("SIMPLE", "ORBIT", "TILE"):
            raise Refused(400, f"Unknown mosaicking {self.mosaicking}", "RENDERER_EXCEPTION")


def _found(asked: Asked, tiles: Sequence[Tile]) -> list[Tile]:
    """Tiles in the time range whose data meet the box, in mosaicking order.

    Tiles of other zones are not warped here: a request is in the zone of the tiles it wants.
    """
    box = shapely.box(*asked.bbox)
    found = [
        tile
        for tile in tiles
        if tile.epsg == asked.epsg
        and asked.start <= tile.sensed <= asked.end
        and tile.cloud_cover <= asked.max_cloud
        and tile.footprint_m.intersects(box)
    ]
    # Equal times: the one that came later into the archive is used.
    found.sort(key=lambda tile: (tile.sensed, tile.generated), reverse=asked.order != "leastRecent")
    if asked.order == "leastCC":
        found.sort(key=lambda tile: tile.cloud_cover)
    return found


def _compute(asked: Asked, setup: _Setup, tiles: list[Tile], script: Script, sparse: bool) -> Computed:
    unknown = set(asked.images) - {output["id"] for output in setup.outputs}
    if unknown:
        raise bad_payload("output->responses", f"{', '.join(sorted(unknown))} missing from function setup()")
    scenes, groups = _scenes(setup.mosaicking, tiles)
    kept, bands = script.scenes(
        {
            "mosaicking": setup.mosaicking,
            "scenes": scenes,
            "from": asked.start.isoformat(),
            "to": asked.end.isoformat(),
            "bands": {output["id"]: {"bands": output["bands"]} for output in setup.outputs},
            "meta": _META,
        }
    )
    outputs = [{**output, "bands": bands[output["id"]]["bands"]} for output in setup.outputs]
    shape = (asked.height, asked.width)
    arrays: list[NDArray[np.float32]] = []
    for index in kept if setup.mosaicking != "SIMPLE" else [0]:
        values = _mosaic(asked, setup, groups[index], shape)
        arrays += [values[band] for band in (*setup.bands, "dataMask")]
    header = {
        "n": asked.width * asked.height,
        "bands": setup.bands,
        "scenes": len(arrays) // (len(setup.bands) + 1),
        "outputs": [{name: output[name] for name in ("id", "bands", "sampleType")} for output in outputs],
        "sparse": sparse,
    }
    user_data, filled = script.run(header, arrays)
    files = {
        f"{output['id']}.tif": _tiff(asked, np.frombuffer(raw, _DTYPES[output["sampleType"]]), output)
        for output, raw in zip(outputs, filled, strict=True)
        if output["id"] in asked.images
    }
    if asked.user_data:
        files["userdata.json"] = json.dumps(user_data).encode()
    samples = 1 if setup.mosaicking == "SIMPLE" else len(kept)
    floats = any(output["sampleType"] == "FLOAT32" for output in outputs if output["id"] in asked.images)
    units = processing_units(asked.width, asked.height, setup.bands, samples=samples, floats=floats)
    return Computed(*_packed(files, asked), units, samples)


def processing_units(width: int, height: int, bands: Sequence[str], *, samples: int, floats: bool) -> float:
    """What a request costs: documentation, "Processing Unit definition".

    >>> round(processing_units(20, 20, ["B04", "B08"], samples=1, floats=False), 4)
    0.0067
    """
    counted = sum(band != "dataMask" for band in bands) or 1
    area = max(width * height / 512**2, 0.01)
    return max(area * counted / 3 * (2 if floats else 1) * samples, 0.005)


def _scenes(mosaicking: str, tiles: list[Tile]) -> tuple[list[Json], list[list[Tile]]]:
    """Scenes as scripts see them, and the tiles of each."""
    if mosaicking == "SIMPLE":
        return [], [tiles]
    described = [
        {
            "date": f"{tile.sensed:%Y-%m-%dT%H:%M:%S}Z",
            "shId": tile.sh_id,
            "cloudCoverage": tile.cloud_cover,
            "dataPath": tile.path,
        }
        for tile in tiles
    ]
    if mosaicking == "TILE":
        return [{**scene, "__idx": number} for number, scene in enumerate(described)], [[tile] for tile in tiles]
    orbits: list[Json] = []
    groups: list[list[Tile]] = []
    pairs = sorted(zip(tiles, described, strict=True), key=lambda pair: pair[0].sensed.date(), reverse=True)
    for number, (day, members) in enumerate(itertools.groupby(pairs, key=lambda pair: pair[0].sensed.date())):
        listed = list(members)
        groups.append([tile for tile, _ in listed])
        interval = {"dateFrom": f"{day}T00:00:00Z", "dateTo": f"{day}T23:59:59Z"}
        orbits.append({**interval, "tiles": [scene for _, scene in listed], "__idx": number})
    return orbits, groups


def _mosaic(asked: Asked, setup: _Setup, tiles: Sequence[Tile], shape: tuple[int, int]) -> Bands:
    """One sample a pixel: of the first tile that has data there."""
    merged = {band: np.zeros(shape, np.float32) for band in (*setup.bands, "dataMask")}
    for tile in tiles:
        values = _sample(asked, setup, tile)
        fresh = (merged["dataMask"] == 0) & (values["dataMask"] == 1)
        for band, target in merged.items():
            np.copyto(target, values[band], where=fresh)
    return merged


def _sample(asked: Asked, setup: _Setup, tile: Tile) -> Bands:
    """A tile's bands at the request's pixels, in the units that were asked for; 0 where dataMask is 0.

    Where a tile says "no data" is not documented band by band: here where all optical bands that were asked for are 0,
    ESA's value for it, or SCL is, where no optical one was asked for.
    """
    eastings, northings = asked.centres()
    raw = {band: tile.image(band).at(eastings, northings) for band in setup.bands if band != "dataMask"}
    deciding = [raw[band] for band in raw if band in OPTICAL] or list(raw.values())
    if not deciding:
        deciding = [tile.image("SCL").at(eastings, northings)]
    mask = np.any([values > 0 for values in deciding], axis=0)
    sampled: Bands = {"dataMask": mask.astype(np.float32)}
    for band, unit in zip(setup.bands, setup.units, strict=True):
        if band == "dataMask":
            continue
        values = raw[band].astype(np.float32)
        if band in OPTICAL:
            reflectance = str(unit or "REFLECTANCE").upper() == "REFLECTANCE"
            if tile.baseline >= (4, 0) and (asked.harmonize or reflectance):
                values = _without_offset(values, clamp=asked.harmonize)
            if reflectance:
                values = values * np.float32(0.0001)
        sampled[band] = np.where(mask, values, np.float32(0))
    return sampled


def _without_offset(dn: NDArray[np.float32], *, clamp: bool) -> NDArray[np.float32]:
    """DN comparable with those of older baselines.

    That saturated pixels stay 65535 is not documented by the provider; all else here is. Zero stays zero: it is no
    data, of this band at least.
    """
    lowered = np.where((dn == _SATURATED) | (dn == 0), dn, dn - 1000)
    return np.maximum(lowered, 0).astype(np.float32) if clamp else lowered.astype(np.float32)


def _tiff(asked: Asked, values: NDArray[Any], output: Json) -> bytes:
    image = values.reshape(output["bands"], asked.height, asked.width)
    profile = {
        "driver": "GTiff", "width": asked.width, "height": asked.height, "count": output["bands"],
        "dtype": image.dtype.name, "crs": f"EPSG:{asked.epsg}", "nodata": output["nodataValue"], "compress": "deflate",
        "transform": Affine(asked.resolution, 0, asked.bbox[0], 0, -asked.resolution, asked.bbox[3]),
    }  # fmt: skip
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(image)
        return bytes(memory.read())


def _packed(files: dict[str, bytes], asked: Asked) -> tuple[bytes, str]:
    """Body and content type."""
    if not asked.tar:
        ((name, content),) = files.items()
        return content, "image/tiff" if name.endswith(".tif") else "application/json"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue(), "application/tar"
