from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from sits_models.objectives.info_nce import Contrast, info_nce
from sits_models.objectives.queues import Queue


def units(n: int, d: int, *, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(drawn, dim=1).to(dtype)


def in_loops(query: Tensor, positive: Tensor, negatives: tuple[Tensor, ...], temperature: float) -> Tensor:
    """Query by query and key by key, as the equation has it."""
    total = query.new_zeros(())
    for one, its in zip(query, positive, strict=True):
        best = (one @ its / temperature).exp()
        total = (
            total - (best / (best + sum((one @ key / temperature).exp() for part in negatives for key in part))).log()
        )
    return total / max(1, len(query))


@given(
    n=st.integers(0, 5),
    d=st.integers(1, 5),
    parts=st.lists(st.integers(0, 6), max_size=3),
    temperature=st.sampled_from([0.07, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_value_and_gradients_are_those_of_loops(
    n: int, d: int, *, parts: list[int], temperature: float, seed: int
) -> None:
    query, positive = units(n, d, seed=seed).requires_grad_(), units(n, d, seed=seed + 1)
    negatives = tuple(units(m, d, seed=seed + 2 + number) for number, m in enumerate(parts))
    found, right = info_nce(Contrast(query, positive, negatives), temperature=temperature)
    expected = in_loops(query, positive, negatives, temperature)
    torch.testing.assert_close(found, expected)
    by_query = torch.autograd.grad(3 * found, query)[0]
    torch.testing.assert_close(
        by_query, torch.autograd.grad(3 * expected, query)[0] if n else torch.zeros(0, d).double()
    )
    every = torch.cat([query @ part.T for part in negatives], dim=1) if parts else torch.zeros(n, 0)
    alike = (query * positive).sum(dim=1, keepdim=True)
    assert right.tolist() == (alike > every).all(dim=1).tolist()


def test_the_positive_has_column_zero_and_the_others_keep_their_order() -> None:
    query, positive = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    negatives = (torch.tensor([[-1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.8, 0.6]]))
    logits = Contrast(query, positive, negatives).logits(0.5)
    torch.testing.assert_close(logits, torch.tensor([[1.2, -2.0, 0.0, 1.6], [2.0, 0.0, 2.0, 1.2]]))
    value, right = info_nce(Contrast(query, positive, negatives), temperature=0.5)
    torch.testing.assert_close(value, functional.cross_entropy(logits, torch.zeros(2, dtype=torch.int64)))
    assert right.tolist() == [False, False]  # another is more alike, or as much


def test_a_queue_may_change_before_the_backward_pass() -> None:
    torch.manual_seed(0)
    queue, keys = Queue(8, channels=4), units(4, 4, seed=1, dtype=torch.float32)
    gradients = []
    for changes in (False, True):
        query = units(4, 4, seed=0, dtype=torch.float32).requires_grad_()
        loss, _ = info_nce(Contrast(query, keys, (queue.keys,)), temperature=0.07)
        if changes:
            queue.enqueue(keys)
        loss.backward()
        gradients.append(query.grad)
    assert torch.equal(gradients[0], gradients[1])


@pytest.mark.parametrize("temperature", [1e-3, 1e-4])
def test_far_apart_logits_stay_finite(temperature: float) -> None:
    """By hand: the positive is opposite, the one negative equal, so that the loss is the distance of their logits."""
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss, _ = info_nce(Contrast(query, -query.detach(), (query.detach(),)), temperature=temperature)
    loss.backward()
    assert loss.item() == pytest.approx(2 / temperature, rel=1e-6)
    assert query.grad is not None
    torch.testing.assert_close(query.grad, torch.tensor([[2.0, 0.0]]) / temperature)


def test_equal_vectors_give_the_logarithm_of_their_number() -> None:
    ones = functional.normalize(torch.ones(300, 4), dim=1)
    value, right = info_nce(Contrast(ones, ones, (ones,)), temperature=0.07)
    assert value.item() == pytest.approx(math.log(301), abs=1e-4)
    assert not right.any()


def test_half_precision_is_computed_in_float32() -> None:
    vectors = [units(6, 4, seed=seed, dtype=torch.bfloat16) for seed in range(3)]
    query = vectors[0].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = info_nce(Contrast(query, vectors[1], (vectors[2],)), temperature=0.07)
    assert found.dtype == torch.float32
    wide = Contrast(query.float(), vectors[1].float(), (vectors[2].float(),))
    torch.testing.assert_close(found, info_nce(wide, temperature=0.07)[0])
    found.backward()
    assert query.grad is not None


@pytest.mark.parametrize(("positive", "negatives"), [((2, 4), (5, 4)), ((3, 5), (5, 4)), ((3, 4), (5, 3))])
def test_shapes_that_do_not_fit_are_refused(positive: tuple[int, int], negatives: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"queries \(3, 4\) have positives of that shape and negatives \(M, 4\)"):
        Contrast(torch.zeros(3, 4), torch.zeros(positive), (torch.zeros(negatives),))
