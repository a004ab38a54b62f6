"""A date of a cube, or its labels, as a PNG."""

from __future__ import annotations

from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import IGNORE, OVERVIEW_FACTOR, Quality
from sits_pipeline.folder import Folder
from sits_pipeline.picture import colour_of, encode_png, limits_of, natural_bands, paint
from sits_pipeline.steps.mask import clear_of
from sits_pipeline.store import CubeLayout, read_layout, read_overview, read_shards

__all__ = ["date_index_of", "render_preview"]

_NDVI_COLOURS = np.array(
    [(140, 81, 10), (191, 129, 45), (223, 194, 125), (245, 240, 220), (168, 221, 130), (90, 174, 97), (27, 120, 55)],
    np.float64,
)
"""From NDVI 0 to 0.9; brown to green passes through light, so that it reads without red-green vision too."""
_NDVI_TOP = 0.9


def render_preview(
    folder: Folder, layer: Literal["rgb", "ndvi", "labels"], *, day: date | None, max_px: int
) -> tuple[bytes, str]:
    """PNG of a layer with no side over `max_px`, and a sentence on what it shows.

    `day` None: the clearest date. Small sizes come from the overview at 80 m; larger ones read every pixel once.
    Raises ValueError for a date or a band that the cube does not have.
    """
    layout = read_layout(folder)
    if layer == "labels":
        return encode_png(_labels(folder, layout, max_px)), "crop classes"
    index = _clearest(folder, layout) if day is None else date_index_of(layout, day)
    names = natural_bands(layout.bands) if layer == "rgb" else _ndvi_bands(layout)
    image, quality = _read_date(folder, layout, index, [layout.bands.index(name) for name in names], max_px)
    if layer == "rgb":
        usable = (quality & (Quality.OBSERVED | Quality.CLOUD)) == Quality.OBSERVED
        pixels = paint(image, (quality & Quality.OBSERVED) > 0, limits_of([image], [usable]))
    else:
        pixels = _paint_ndvi(image, quality)
    made_up = " (simulated)" if layout.attributes.get("simulated") else ""
    return encode_png(pixels), f"{layer} of {layout.days[index]} from {', '.join(names)}{made_up}"


def date_index_of(layout: CubeLayout, day: date) -> int:
    """Position of a day. Raises ValueError that names the days around it."""
    if day in layout.days:
        return layout.days.index(day)
    nearest = sorted(sorted(layout.days, key=lambda other: abs((other - day).days))[:3])
    raise ValueError(f"the cube has no date {day}; the nearest are {', '.join(map(str, nearest))}")


def _ndvi_bands(layout: CubeLayout) -> tuple[str, str]:
    if not {"B04", "B08"} <= set(layout.bands):
        raise ValueError(f"NDVI needs B04 and B08; the cube has {', '.join(layout.bands)}")
    return "B08", "B04"


def _clearest(folder: Folder, layout: CubeLayout) -> int:
    """The date with most clear pixels in the overview, the first of equals."""
    counts = [
        int(np.count_nonzero(clear_of(read_overview(folder, index, bands=[0], max_px=256)[1])))
        for index in range(len(layout.days))
    ]
    return int(np.argmax(counts))


def _read_date(
    folder: Folder, layout: CubeLayout, index: int, bands: list[int], max_px: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Reflectance (band, y, x) and quality (y, x) of a date, thinned."""
    height, width = layout.geobox.shape
    if max_px * OVERVIEW_FACTOR <= max(height, width):
        return read_overview(folder, index, bands=bands, max_px=max_px)
    step = -(-max(height, width) // max_px)
    shape = (-(-height // step), -(-width // step))
    image, quality = np.zeros((len(bands), *shape), np.uint16), np.zeros(shape, np.uint8)
    for window, values in read_shards(folder, "reflectance", dates=[index]):
        rows, columns, inside = _thinned(window.row, window.column, window.height, window.width, step)
        image[:, rows, columns] = values[0][bands][:, inside[0], inside[1]]
    for window, values in read_shards(folder, "quality", dates=[index]):
        rows, columns, inside = _thinned(window.row, window.column, window.height, window.width, step)
        quality[rows, columns] = values[0][inside]
    return image, quality


def _thinned(row: int, column: int, height: int, width: int, step: int) -> tuple[slice, slice, tuple[slice, slice]]:
    """Where every `step`-th pixel of a window lies in the thinned picture, and in the window."""
    first_row, first_column = -row % step, -column % step
    rows = slice((row + first_row) // step, -(-(row + height) // step))
    columns = slice((column + first_column) // step, -(-(column + width) // step))
    return rows, columns, (slice(first_row, None, step), slice(first_column, None, step))


def _labels(folder: Folder, layout: CubeLayout, max_px: int) -> NDArray[np.uint8]:
    """Class colours, RGBA; what is not known is transparent."""
    if not layout.has_labels:
        raise ValueError(f"{folder.location} has no labels: it was built without parcels")
    height, width = layout.geobox.shape
    step = max(1, -(-max(height, width) // max_px))
    palette = np.zeros((IGNORE + 1, 4), np.uint8)
    palette[0] = (246, 247, 245, 255)
    for crop in layout.classes:
        palette[crop["index"]] = (*colour_of(crop["colour"]), 255)
    pixels = np.zeros((-(-height // step), -(-width // step), 4), np.uint8)
    for window, values in read_shards(folder, "crop_type", dates=None):
        rows, columns, inside = _thinned(window.row, window.column, window.height, window.width, step)
        pixels[rows, columns] = palette[values[inside]]
    return pixels


def _paint_ndvi(image: NDArray[np.uint16], quality: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """NDVI of (near infrared, red) as RGBA; what is not clear is transparent."""
    nir, red = image.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        ndvi = np.nan_to_num((nir - red) / (nir + red))
    place = np.clip(ndvi / _NDVI_TOP, 0, 1) * (len(_NDVI_COLOURS) - 1)
    below = np.minimum(place.astype(int), len(_NDVI_COLOURS) - 2)
    share = (place - below)[..., None]
    rgb = _NDVI_COLOURS[below] * (1 - share) + _NDVI_COLOURS[below + 1] * share
    alpha = np.where(clear_of(quality), 255, 0)[..., None]
    return np.concatenate([np.rint(rgb), alpha], axis=-1).astype(np.uint8)
