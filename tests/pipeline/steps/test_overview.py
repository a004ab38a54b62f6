from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sits_pipeline.steps.overview import overview_of


def by_loop(
    reflectance: NDArray[np.uint16], quality: NDArray[np.uint8]
) -> tuple[list[list[list[int]]], list[list[int]]]:
    """The overview, a block after the other."""
    n_bands, height, width = reflectance.shape
    rows, columns = -(-height // 8), -(-width // 8)
    means = [[[0] * columns for _ in range(rows)] for _ in range(n_bands)]
    bits = [[0] * columns for _ in range(rows)]
    for r in range(rows):
        for c in range(columns):
            block = np.s_[8 * r : 8 * r + 8, 8 * c : 8 * c + 8]
            observed = [int(q) for q in quality[block].ravel() if q & 1]
            if not observed:
                bits[r][c] = 128 if (quality[block] & 128).any() else 0
                continue
            bits[r][c] = 1 + sum(
                bit for bit in (2, 4, 8, 16, 32, 64) if 2 * sum(bool(q & bit) for q in observed) >= len(observed)
            )
            for b in range(n_bands):
                total = sum(int(v) for v in reflectance[b][block].ravel())
                means[b][r][c] = int(total / len(observed) + 0.5)
    return means, bits


def random_frame(seed: int, shape: tuple[int, int], share: float) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    observed = rng.random(shape) < share
    flags = (rng.random((6, *shape)) < rng.random((6, 1, 1))) * np.array([2, 4, 8, 16, 32, 64]).reshape(6, 1, 1)
    unread = ~observed & (rng.random(shape) < 0.01)
    quality = np.where(observed, 1 + flags.sum(0), np.where(unread, 128, 0)).astype(np.uint8)
    reflectance = rng.choice(np.array([1, 2, 500, 65535], np.uint16), (2, *shape)) * observed
    return reflectance.astype(np.uint16), quality


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 26),
    width=st.integers(1, 26),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)
def test_an_overview_agrees_with_a_loop_over_its_blocks(seed: int, height: int, width: int, share: float) -> None:
    reflectance, quality = random_frame(seed, (height, width), share)
    means, bits = overview_of(reflectance, quality)
    expected_means, expected_bits = by_loop(reflectance, quality)
    assert means.tolist() == expected_means
    assert bits.tolist() == expected_bits


def test_the_mean_is_over_observed_pixels_alone_and_rounded() -> None:
    reflectance, quality = np.zeros((1, 8, 8), np.uint16), np.zeros((8, 8), np.uint8)
    reflectance[0, 0, :3] = [10, 11, 11]
    quality[0, :3] = 1
    means, bits = overview_of(reflectance, quality)
    assert means.tolist() == [[[11]]]
    assert bits.tolist() == [[1]]


def test_saturated_blocks_do_not_overflow() -> None:
    means, _ = overview_of(np.full((1, 16, 8), 65535, np.uint16), np.ones((16, 8), np.uint8))
    assert means.tolist() == [[[65535], [65535]]]


def test_a_bit_needs_half_of_the_observed_pixels() -> None:
    quality = np.zeros((8, 16), np.uint8)
    quality[0, :4] = [1, 1, 3, 3]
    quality[0, 8:13] = [1, 1, 1, 3, 3]
    _, bits = overview_of(np.zeros((1, 8, 16), np.uint16), quality)
    assert bits.tolist() == [[3, 1]]


@pytest.mark.parametrize(("shape", "expected"), [((6, 6), (1, 1)), ((102, 60), (13, 8)), ((1024, 8), (128, 1))])
def test_the_shape_is_an_eighth_rounded_up(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    means, bits = overview_of(np.zeros((2, *shape), np.uint16), np.zeros(shape, np.uint8))
    assert means.shape == (2, *expected)
    assert bits.shape == expected
    assert means.dtype == np.uint16
    assert bits.dtype == np.uint8
