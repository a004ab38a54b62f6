"""Small pictures from arrays: a common stretch, colours of classes, and PNG bytes that are the same every time."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stretch", "colour_of", "encode_png", "limits_of", "natural_bands", "paint"]

Stretch = tuple[tuple[float, float], ...]
"""Darkest and brightest DN of each of three bands."""

_COMBINATIONS = (("B04", "B03", "B02"), ("B08", "B04", "B03"), ("B8A", "B04", "B03"), ("B11", "B08", "B04"))
_GAMMA = 1 / 1.4


def natural_bands(bands: Sequence[str]) -> tuple[str, str, str]:
    """The bands to show as red, green and blue: true colour where they are there, else the nearest to it."""
    for names in _COMBINATIONS:
        if all(name in bands for name in names):
            return names
    return (bands[0], bands[0], bands[0])


def limits_of(images: Sequence[NDArray[np.uint16]], usable: Sequence[NDArray[np.bool_]]) -> Stretch:
    """One stretch for all images, each (3, y, x): the 2nd and 98th percentile over the usable pixels, each (y, x)."""
    limits = []
    for band in range(3):
        values = np.concatenate([image[band][mask] for image, mask in zip(images, usable, strict=True)])
        if not len(values):
            values = np.concatenate([image[band].ravel() for image in images])
        low, high = (float(value) for value in np.percentile(values, (2, 98)))
        margin = 0.1 * (high - low)
        limits.append((max(0.0, low - margin), max(high + margin, low + 1.0)))
    return tuple(limits)


def paint(image: NDArray[np.uint16], observed: NDArray[np.bool_], limits: Stretch) -> NDArray[np.uint8]:
    """An image (3, y, x) as RGBA (y, x, 4); what was not observed is transparent."""
    rgba = np.empty((*observed.shape, 4), np.uint8)
    for band, (low, high) in enumerate(limits):
        share = np.clip((image[band].astype(np.float32) - low) / (high - low), 0, 1)
        rgba[..., band] = np.rint(255 * share**_GAMMA)
    rgba[..., 3] = np.where(observed, 255, 0)
    return rgba


def colour_of(text: str) -> tuple[int, int, int]:
    """`#rrggbb` as three bytes."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """PNG of RGB or RGBA pixels (y, x, 3 or 4)."""
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    # Filter 1 of the PNG specification: each byte minus the same channel of the pixel to its left.
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 1
    filtered[:, 1 : 1 + channels] = rows[:, :channels]
    filtered[:, 1 + channels :] = rows[:, channels:] - rows[:, :-channels]
    header = struct.pack(">IIBBBBB", width, height, 8, {3: 2, 4: 6}[channels], 0, 0, 0)
    data = zlib.compress(filtered.tobytes(), 7)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
