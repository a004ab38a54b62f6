from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sits_pipeline.steps.statistics import BandSums, accumulate, merge, summarise


def test_three_pixels_by_hand() -> None:
    reflectance = np.array([[[[1000, 2000, 9]]], [[[4000, 7, 8]]]], dtype=np.uint16)  # (2 dates, 1 band, 1, 3)
    clear = np.array([[[True, True, True]], [[True, False, True]]])
    train = np.array([[True, True, False]])
    (sums,) = merge([accumulate(reflectance, clear, train)])
    assert (sums.n, sums.total, sums.squares) == (3, 7000, 21_000_000)
    assert {int(i): int(sums.histogram[i]) for i in np.flatnonzero(sums.histogram)} == {100: 1, 200: 1, 400: 1}
    summary = summarise(["B02"], [sums])["B02"]
    assert summary["n"] == 3
    assert summary["mean"] == pytest.approx(0.233333, abs=1e-6)
    assert summary["std"] == pytest.approx(np.std([0.1, 0.2, 0.4]), abs=1e-6)
    assert summary["p50"] == pytest.approx(0.2005, abs=1e-4)


def test_without_a_split_all_clear_pixels_count() -> None:
    reflectance = np.full((1, 2, 2, 2), 500, dtype=np.uint16)
    first, second = merge([accumulate(reflectance, np.array([[[True, False], [True, True]]]), None)])
    assert first.n == second.n == 3


def test_no_clear_pixel_gives_no_numbers() -> None:
    sums = merge([accumulate(np.zeros((1, 1, 2, 2), np.uint16), np.zeros((1, 2, 2), bool), None)])
    assert summarise(["B02"], sums) == {
        "B02": {"mean": None, "std": None, "p2": None, "p50": None, "p98": None, "n": 0}
    }
    assert merge([]) == []


@given(
    arrays(np.uint16, (2, 2, 3, 4), elements=st.sampled_from([0, 1, 9, 10, 119, 5000, 65_534, 65_535])),
    arrays(np.bool_, (2, 3, 4)),
    arrays(np.bool_, (3, 4)),
)
@settings(max_examples=50, deadline=None)
def test_sums_are_exact_and_survive_json(reflectance: np.ndarray, clear: np.ndarray, train: np.ndarray) -> None:
    sums = merge([json.loads(json.dumps(accumulate(reflectance, clear, train)))])
    for band, one in enumerate(sums):
        values = [int(v) for date in range(2) for v in reflectance[date, band][clear[date] & train]]
        assert (one.n, one.total, one.squares) == (len(values), sum(values), sum(v * v for v in values))
        expected = np.bincount([v // 10 for v in values], minlength=6554)
        np.testing.assert_array_equal(one.histogram, expected)


@given(st.lists(st.integers(1, 12_000), min_size=1, max_size=300))
@settings(max_examples=50, deadline=None)
def test_quantiles_are_right_to_a_bin(values: list[int]) -> None:
    reflectance = np.array(values, dtype=np.uint16).reshape(1, 1, 1, -1)
    sums = merge([accumulate(reflectance, np.ones((1, 1, len(values)), bool), None)])
    summary = summarise(["B02"], sums)["B02"]
    for name, share in (("p2", 0.02), ("p50", 0.5), ("p98", 0.98)):
        expected = np.quantile(values, share, method="inverted_cdf") / 1e4
        assert abs(summary[name] - expected) <= 0.001 + 1e-6
    assert summary["mean"] == pytest.approx(np.mean(values) / 1e4, abs=1e-6)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.randoms())
@settings(max_examples=20, deadline=None)
def test_the_order_of_cells_never_shows(seeds: list[int], random: object) -> None:
    cells = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        cells.append(
            accumulate(rng.integers(0, 65_536, (2, 1, 8, 8), dtype=np.uint16), rng.random((2, 8, 8)) < 0.5, None)
        )
    shuffled = list(cells)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert summarise(["B02"], merge(cells)) == summarise(["B02"], merge(shuffled))


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(0)
    reflectance = rng.integers(0, 10_000, (5, 3, 32, 32), dtype=np.uint16)
    clear = rng.random((5, 32, 32)) < 0.7
    with ThreadPoolExecutor(3) as pool:
        assert accumulate(reflectance, clear, None, pool) == accumulate(reflectance, clear, None)


def test_variance_does_not_cancel_for_a_constant_band() -> None:
    sums = BandSums(
        n=10**12, total=10**12 * 60_000, squares=10**12 * 60_000**2, histogram=np.eye(1, 6554, 6000, int)[0]
    )
    assert summarise(["B02"], [sums])["B02"]["std"] == 0
