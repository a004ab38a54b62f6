"""The evalscripts that we send: our order over the tiles of a pass, or the service's own mosaic.

Evalscript V3: documentation.dataspace.copernicus.eu, "Sentinel Hub, Evalscript" (`samples[i]` is the pixel of
`scenes.tiles[i]`; `dataPath`, `date`, `shId` and `cloudCoverage` of a tile; `preProcessScenes` drops tiles, or orbits,
before they are read and paid for; that it may drop tiles of an orbit is documented nowhere) and "Working with metadata
in evalscript" (`productId`). A tile is known by the product's name wherever the service gives one, else by its path in
the provider's bucket.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["OUTPUTS", "PlannedTile", "orbit_evalscript", "tile_evalscript"]

OUTPUTS = ("bands", "scl", "dataMask", "tile")
"""Identifiers of the images, in the order in which they are asked for; `userdata` comes beside them."""


@dataclass(frozen=True, kw_only=True)
class PlannedTile:
    """A tile that the plan knows, by all that a service may call it."""

    product: str
    """S2A_MSIL2A_..., without .SAFE; empty: unknown."""
    path: str
    """Path inside of the provider's bucket, without slashes at its ends; empty: unknown."""
    is_clipped: bool
    """Whether harmonizing clips dark pixels to 0 (from baseline 04.00 on), so that a 0 in every band is an observation.
    Else it is ESA's nodata."""


_SETUP = """//VERSION=3
const BANDS = %(bands)s;
const TILES = %(tiles)s;

function setup() {
  return {
    input: [{ bands: %(input)s, units: "DN" }],
    mosaicking: "%(mosaicking)s",
    output: [
      { id: "bands", bands: %(count)d, sampleType: "UINT16" },
      { id: "scl", bands: 1, sampleType: "UINT8" },
      { id: "dataMask", bands: 1, sampleType: "UINT8" },
      { id: "tile", bands: 1, sampleType: "UINT8" }
    ]
  };
}

// Position among TILES, or -1. A product's name decides where the service gives one, else the path.
function rankOf(tile) {
  const product = String(tile.productId || "");
  const path = String(tile.dataPath || "");
  let name = "";
  if (product.indexOf("_MSIL2A_") >= 0) name = product;
  else if (path.indexOf("_MSIL2A_") >= 0) name = path;
  for (let i = 0; i < TILES.length; i++) {
    if (name !== "") {
      if (TILES[i].product !== "" && name.indexOf(TILES[i].product) >= 0) return i;
    } else if (TILES[i].path !== "" && (path + "/").indexOf("/" + TILES[i].path + "/") >= 0) {
      return i;
    }
  }
  return -1;
}

function observes(sample, isClipped) {
  if (sample.dataMask != 1 || sample.SCL == 0) return false;
  if (isClipped) return true;
  for (let b = 0; b < BANDS.length; b++) if (sample[BANDS[b]] > 0) return true;
  return false;
}

function pixelOf(sample, number) {
  const values = new Array(BANDS.length);
  for (let b = 0; b < BANDS.length; b++) values[b] = sample === null ? 0 : sample[BANDS[b]];
  return {
    bands: values,
    scl: [sample === null ? 0 : sample.SCL],
    dataMask: [sample === null ? 0 : 1],
    tile: [number]
  };
}

function described(tiles) {
  const found = [];
  for (let i = 0; i < tiles.length; i++) {
    found.push({
      rank: rankOf(tiles[i]), dataPath: tiles[i].dataPath, productId: tiles[i].productId, shId: tiles[i].shId,
      date: tiles[i].date
    });
  }
  return found;
}
"""

_TILE = """
// Tiles that the plan does not know are neither read nor paid for; one without any name is looked at again below.
function preProcessScenes(collections) {
  collections.scenes.tiles = collections.scenes.tiles.filter(function (tile) {
    return rankOf(tile) >= 0 || !(tile.productId || tile.dataPath);
  });
  return collections;
}

const ranks = {};
function knownRank(tile) {
  const key = tile.productId + " " + tile.dataPath;
  if (ranks[key] === undefined) ranks[key] = rankOf(tile);
  return ranks[key];
}

function evaluatePixel(samples, scenes) {
  let best = -1, chosen = null;
  for (let i = 0; i < samples.length; i++) {
    const rank = knownRank(scenes.tiles[i]);
    if (rank < 0 || (best >= 0 && rank >= best)) continue;
    if (observes(samples[i], TILES[rank].isClipped)) {
      best = rank;
      chosen = samples[i];
    }
  }
  return pixelOf(chosen, best + 1);
}

function updateOutputMetadata(scenes, inputMetadata, outputMetadata) {
  outputMetadata.userData = { tiles: described(scenes.tiles), serviceVersion: inputMetadata.serviceVersion };
}
"""

_ORBIT = """
// A pass none of whose tiles the plan knows is neither read nor paid for, where the service says so much beforehand.
function preProcessScenes(collections) {
  collections.scenes.orbits = collections.scenes.orbits.filter(function (orbit) {
    const tiles = orbit.tiles || [];
    return tiles.length === 0 || tiles.some(function (tile) {
      return rankOf(tile) >= 0 || !(tile.productId || tile.dataPath);
    });
  });
  return collections;
}

// The tile of a pixel is not known: where one of them is not clipped, a 0 in every band may be ESA's nodata.
const CLIPPED = TILES.every(function (tile) { return tile.isClipped; });

function evaluatePixel(samples) {
  for (let i = 0; i < samples.length; i++) if (observes(samples[i], CLIPPED)) return pixelOf(samples[i], 1);
  return pixelOf(null, 0);
}

function updateOutputMetadata(scenes, inputMetadata, outputMetadata) {
  let tiles = [];
  for (let i = 0; i < scenes.orbits.length; i++) tiles = tiles.concat(scenes.orbits[i].tiles || []);
  outputMetadata.userData = { tiles: described(tiles), serviceVersion: inputMetadata.serviceVersion };
}
"""


def tile_evalscript(tiles: Sequence[PlannedTile], bands: Sequence[str]) -> str:
    """Each pixel from the first of `tiles` that observes it; output `tile` is its position from 1 on, 0 none."""
    return _setup(tiles, bands, "TILE") + _TILE


def orbit_evalscript(tiles: Sequence[PlannedTile], bands: Sequence[str]) -> str:
    """The service's own mosaic of a pass; output `tile` is 1 where it observes, whichever tile that was."""
    return _setup(tiles, bands, "ORBIT") + _ORBIT


def _setup(tiles: Sequence[PlannedTile], bands: Sequence[str], mosaicking: str) -> str:
    known = [{"product": tile.product, "path": tile.path, "isClipped": tile.is_clipped} for tile in tiles]
    return _SETUP % {
        "bands": json.dumps(list(bands)),
        "tiles": json.dumps(known),
        "input": json.dumps([*bands, "SCL", "dataMask"]),
        "mosaicking": mosaicking,
        "count": len(bands),
    }
