from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sits_models.objectives.collapse import effective_rank, unit_deviation


def by_singular_values(vectors: Tensor) -> float:
    singular = torch.linalg.svdvals(vectors.double())
    share = singular / singular.sum()
    return math.exp(-sum(p * math.log(p) for p in share.tolist() if p > 0))


@given(n=st.integers(1, 12), d=st.integers(1, 8), scale=st.sampled_from([1e-3, 1.0, 1e3]), seed=st.integers(0, 1000))
def test_the_rank_is_that_of_singular_values(n: int, d: int, scale: float, seed: int) -> None:
    vectors = scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    assert effective_rank(vectors).item() == pytest.approx(by_singular_values(vectors), rel=1e-5)


def test_two_directions_of_unequal_weight() -> None:
    """By hand: singular values 3 and 1, so shares of 3/4 and 1/4."""
    vectors = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert effective_rank(vectors).item() == pytest.approx(math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)))


@pytest.mark.parametrize("n", [1, 5, 500])
def test_vectors_on_one_line_have_the_rank_1(n: int) -> None:
    line = torch.randn(n, 1) * torch.randn(1, 64)
    assert effective_rank(line).item() == pytest.approx(1.0, abs=1e-6)
    assert effective_rank(torch.ones(n, 64)).item() == pytest.approx(1.0, abs=1e-6)


def test_vectors_spread_evenly_have_the_rank_of_their_space() -> None:
    assert effective_rank(torch.eye(7).repeat(3, 1)).item() == pytest.approx(7.0, rel=1e-6)
    assert unit_deviation(torch.cat([torch.eye(9), -torch.eye(9)])).item() == pytest.approx(1 / 3, rel=1e-6)


def test_vectors_that_point_one_way_do_not_deviate_whatever_their_length() -> None:
    same = torch.rand(20, 1).add(0.1) * torch.randn(1, 8)
    assert unit_deviation(same).item() == pytest.approx(0.0, abs=1e-6)
    mixed = torch.tensor([[5.0, 0.0], [0.0, 0.1]])  # each channel 0 and 1
    assert unit_deviation(mixed).item() == pytest.approx(0.5)


@pytest.mark.parametrize("measure", [effective_rank, unit_deviation])
def test_nothing_measures_0_and_no_gradient_is_left(measure: object) -> None:
    assert callable(measure)
    assert measure(torch.zeros(0, 4)).item() == 0
    assert measure(torch.zeros(3, 4)).item() == 0
    found = measure(torch.randn(3, 4, dtype=torch.bfloat16, requires_grad=True))
    assert not found.requires_grad
    assert found.dtype == torch.float32
    with pytest.raises(ValueError, match=r"vectors \(N, D\); got \(2, 3, 4\)"):
        measure(torch.zeros(2, 3, 4))
