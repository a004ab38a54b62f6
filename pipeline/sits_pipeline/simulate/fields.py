"""Smooth random fields and the random generators behind everything that is simulated."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["block_mean", "generator", "smooth_field", "white_noise"]

Floats = NDArray[np.float32]


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """A generator that depends on the seed and a key alone, never on what was drawn before or in which thread."""
    return np.random.default_rng([seed, zlib.crc32("/".join(map(str, key)).encode())])


def white_noise(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Independent normal values (y, x), standard deviation 1."""
    return rng.standard_normal(shape, dtype=np.float32)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], scale_px: float, octaves: int = 4) -> Floats:
    """Cloud-like noise (y, x) of mean 0 and deviation 1, whose largest features are some `scale_px` pixels wide.

    Each octave halves the size and the amplitude: coarse normal values, interpolated by cubic B-splines.
    """
    field = np.zeros(shape, np.float32)
    amplitude, scale = 1.0, max(scale_px, 2.0)
    for _ in range(octaves):
        field += np.float32(amplitude) * _octave(rng, shape, scale)
        amplitude, scale = amplitude * 0.5, scale * 0.5
        if scale < 2:
            break
    field -= field.mean(dtype=np.float64).astype(np.float32)
    field /= np.float32(max(float(field.std(dtype=np.float64)), 1e-6))
    return field


def _octave(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Floats:
    height, width = shape
    rows, columns = (int(np.ceil(side / scale)) + 4 for side in shape)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    jitter = rng.random(2)
    tall = sum(w[:, None] * coarse[i] for i, w in _spline(height, scale, jitter[0]))
    assert isinstance(tall, np.ndarray)
    turned = np.ascontiguousarray(tall.T)
    wide = sum(w[:, None] * turned[i] for i, w in _spline(width, scale, jitter[1]))
    assert isinstance(wide, np.ndarray)
    return np.ascontiguousarray(wide.T)


def _spline(n: int, scale: float, offset: float) -> list[tuple[NDArray[np.intp], Floats]]:
    """Index and weight of the four coarse values around each of n fine positions."""
    position = np.arange(n) / scale + offset
    base = np.floor(position).astype(np.intp)
    t = position - base
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    return [(base + k, (w / 6).astype(np.float32)) for k, w in enumerate(weights)]


def block_mean(field: Floats, factor: int) -> Floats:
    """Means of squares of `factor` x `factor` pixels; both sides must be multiples of the factor."""
    height, width = field.shape
    squares = field.reshape(height // factor, factor, width // factor, factor)
    return np.asarray(squares.mean(axis=(1, 3), dtype=np.float32))
