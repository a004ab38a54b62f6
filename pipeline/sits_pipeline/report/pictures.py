"""The pictures of a report: RGB of a few dates, and maps of classes and splits drawn from the parcels."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from sits_catalog.cube import IGNORE, PIXEL_M, Quality, Split
from sits_pipeline.picture import colour_of, encode_png, limits_of, natural_bands, paint
from sits_pipeline.report.facts import ReportFacts
from sits_pipeline.splits import SplitPlan
from sits_pipeline.store import read_overview

__all__ = ["SPLIT_COLOURS", "Map", "Preview", "draw_parcels", "label_map", "previews", "split_map"]

SPLIT_COLOURS = {
    Split.TRAIN: "#0072b2",
    Split.VALIDATION: "#e69f00",
    Split.TEST: "#cc79a7",
    Split.BUFFER: "#9aa5ad",
    Split.NONE: "#c9d1d6",
}
"""Distinct for colour-blind readers (Okabe and Ito)."""

_N_PREVIEWS = 6
_PREVIEW_PX = 400
_MAP_PX = 900
_MANY_PARCELS = 25_000
_PAPER = (246, 247, 245)
_IGNORED = (190, 190, 190)


@dataclass(frozen=True)
class Preview:
    """One date as a picture."""

    date_index: int
    uri: str
    width: int
    height: int
    bands: tuple[str, str, str]


@dataclass(frozen=True)
class Map:
    """A map as a picture, with its scale."""

    uri: str
    width: int
    height: int
    bar_px: float
    """Length of the scale bar on the picture."""
    bar_label: str


def previews(facts: ReportFacts) -> list[Preview]:
    """The clearest date of each part of the season, all with one stretch."""
    chosen = _dates_to_show(facts)
    if not chosen:
        return []
    names = natural_bands(facts.plan.bands)
    bands = [facts.plan.bands.index(name) for name in names]
    read = [read_overview(facts.folder, index, bands=bands, max_px=_PREVIEW_PX) for index in chosen]
    usable = [(quality & (Quality.OBSERVED | Quality.CLOUD)) == Quality.OBSERVED for _, quality in read]
    limits = limits_of([image for image, _ in read], usable)
    shown = []
    for index, (image, quality) in zip(chosen, read, strict=True):
        pixels = paint(image, (quality & Quality.OBSERVED) > 0, limits)
        shown.append(Preview(index, _uri(encode_png(pixels)), pixels.shape[1], pixels.shape[0], names))
    return shown


def _dates_to_show(facts: ReportFacts) -> list[int]:
    clear, observed = facts.date_pixels("clear"), facts.date_pixels("observed")
    n = len(clear)
    if not any(observed):
        return []
    parts = min(n, _N_PREVIEWS)
    starts = [part * n // parts for part in range(parts + 1)]
    ranges = [range(first, last) for first, last in pairwise(starts)]
    best = [max(dates, key=lambda i: (clear[i], observed[i], -i)) for dates in ranges]
    return [index for index in best if observed[index]]


# Maps


def label_map(facts: ReportFacts, drawn: NDArray[np.int64] | None) -> Map | None:
    """Parcels in the colours of their classes, with thin outlines."""
    if drawn is None or facts.table is None:
        return None
    colours = {0: _PAPER, IGNORE: _IGNORED}
    if facts.taxonomy is not None:
        colours |= {crop.index: colour_of(crop.colour) for crop in facts.taxonomy.classes}
    crops = facts.table.parcels.crop_type.tolist()
    palette = np.array([_PAPER, *(colours.get(crop, _IGNORED) for crop in crops)], np.uint8)
    pixels = palette[drawn]
    pixels[_edges(drawn)] = (pixels[_edges(drawn)] * 0.62).astype(np.uint8)
    return _map(facts, pixels)


def split_map(facts: ReportFacts, drawn: NDArray[np.int64] | None) -> Map | None:
    """Blocks, or polygons, tinted with the colour of their split, the parcels in it in full colour."""
    if drawn is None or facts.plan.splits is None or facts.split is None:
        return None
    full = np.array([colour_of(SPLIT_COLOURS[code]) for code in Split], np.float64)
    tint = 255 - (255 - full) * 0.22
    ground, borders = _ground(facts, facts.plan.splits, (drawn.shape[0], drawn.shape[1]))
    pixels = tint[ground].astype(np.uint8)
    parcels = full[np.append(0, facts.split)].astype(np.uint8)
    pixels[drawn > 0] = parcels[drawn[drawn > 0]]
    pixels[_edges(drawn)] = (pixels[_edges(drawn)] * 0.8).astype(np.uint8)
    pixels[borders] = 255
    return _map(facts, pixels)


def _ground(
    facts: ReportFacts, splits: SplitPlan, shape: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The split of the ground at each pixel of a map, and where blocks or polygons end."""
    epsg, scale = facts.plan.zone.epsg, _scale(facts)
    areas = splits.areas_of(epsg)
    if areas is not None:
        corner = facts.plan.zone.geobox.affine
        transform = Affine(scale, 0, corner.c, 0, -scale, corner.f)
        # GDAL refuses to draw nothing.
        drawn = burn(areas.geometry, shape, transform) if len(areas.geometry) else np.zeros(shape, np.int64)
        return np.append(np.uint8(0), areas.split)[drawn], _edges(drawn)
    grid, (height, width) = splits.grid(epsg), shape
    rows = np.minimum((np.arange(height) + 0.5) * scale / grid.block_m, grid.split.shape[0] - 1).astype(int)
    columns = np.minimum((np.arange(width) + 0.5) * scale / grid.block_m, grid.split.shape[1] - 1).astype(int)
    borders = np.zeros((height, width), bool)
    borders[np.flatnonzero(np.diff(rows)) + 1, :] = True
    borders[:, np.flatnonzero(np.diff(columns)) + 1] = True
    return grid.split[rows[:, None], columns[None, :]], borders


def _scale(facts: ReportFacts) -> float:
    """Metres a pixel of a map."""
    longest = max(facts.plan.zone.geobox.shape) * PIXEL_M
    return float(max(longest / _MAP_PX, 1.0))


def draw_parcels(facts: ReportFacts) -> NDArray[np.int64] | None:
    """Position in the table, from 1, of the parcel at each pixel of a map, of several the last; 0 none."""
    if facts.table is None or not len(facts.table):
        return None
    box, scale = facts.plan.zone.geobox, _scale(facts)
    height, width = (max(1, round(size * PIXEL_M / scale)) for size in box.shape)
    transform = Affine(scale, 0, box.affine.c, 0, -scale, box.affine.f)
    geometries = facts.table.parcels.geometry
    draw = burn if len(geometries) <= _MANY_PARCELS else look_up
    return draw(geometries, (height, width), transform)


def burn(geometries: NDArray[np.object_], shape: tuple[int, int], transform: Affine) -> NDArray[np.int64]:
    """Each polygon drawn by GDAL: quick for few, linear in their number."""
    from rasterio.features import rasterize

    numbered = zip(geometries, range(1, len(geometries) + 1), strict=True)
    return np.asarray(rasterize(numbered, out_shape=shape, transform=transform, dtype="int32"), np.int64)


def look_up(geometries: NDArray[np.object_], shape: tuple[int, int], transform: Affine) -> NDArray[np.int64]:
    """The same by asking for each pixel centre: a second, however many polygons there are."""
    height, width = shape
    x = transform.c + (np.arange(width) + 0.5) * transform.a
    y = transform.f + (np.arange(height) + 0.5) * transform.e
    centres = shapely.points(*(values.ravel() for values in np.meshgrid(x, y)))
    pixel, parcel = shapely.STRtree(geometries).query(centres, predicate="within")
    drawn = np.zeros(height * width, np.int64)
    np.maximum.at(drawn, pixel, parcel + 1)
    return drawn.reshape(shape)


def _edges(drawn: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pixels of a parcel whose right or lower neighbour belongs to another."""
    edges = np.zeros(drawn.shape, bool)
    edges[:, :-1] |= drawn[:, :-1] != drawn[:, 1:]
    edges[:-1] |= drawn[:-1] != drawn[1:]
    return edges & (drawn > 0)


def _map(facts: ReportFacts, pixels: NDArray[np.uint8]) -> Map:
    height, width = pixels.shape[:2]
    scale = _scale(facts)
    # The longest round length that takes at most a quarter of the width.
    lengths = [step * 10**power for power in range(1, 7) for step in (1, 2, 5)]
    metres = max((length for length in lengths if length <= width * scale / 4), default=lengths[0])
    label = f"{metres // 1000} km" if metres >= 1000 else f"{metres} m"
    return Map(_uri(encode_png(pixels)), width, height, metres / scale, label)


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
