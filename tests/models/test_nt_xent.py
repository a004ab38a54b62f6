from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sits_models.objectives import nt_xent as module
from sits_models.objectives.nt_xent import contrast, nt_xent, two_views


def in_loops(
    queries: Tensor, keys: Tensor, positive: list[int], *, temperature: float, hidden: Tensor, decoupled: bool
) -> Tensor:
    """Query by query and key by key, as the equation has it."""
    total = queries.new_zeros(())
    for i, query in enumerate(queries):
        scores = [query @ key / (query.norm() * key.norm()) / temperature for key in keys]
        summed = queries.new_zeros(())
        for j, score in enumerate(scores):
            counts = not decoupled if j == positive[i] else not hidden[i, j]
            if counts:
                summed = summed + score.exp()
        total = total - (scores[positive[i]].exp() / (summed + (1e-8 if decoupled else 0.0))).log()
    return total / max(1, len(queries))


def vectors(n: int, d: int, *, seed: int) -> Tensor:
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.requires_grad_()


@given(
    n=st.integers(1, 6),
    m=st.integers(1, 7),
    d=st.integers(1, 5),
    temperature=st.sampled_from([0.07, 0.5, 1.0]),
    decoupled=st.booleans(),
    similarities=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_value_and_gradients_are_those_of_loops(
    n: int, m: int, d: int, *, temperature: float, decoupled: bool, similarities: int, seed: int
) -> None:
    queries, keys = vectors(n, d, seed=seed), vectors(m, d, seed=seed + 1)
    draw = torch.Generator().manual_seed(seed)
    positive, hidden = torch.randint(0, m, (n,), generator=draw), torch.rand(n, m, generator=draw) < 0.3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SIMILARITIES", similarities)  # blocks of one query and more
        found = nt_xent(
            queries,
            keys,
            positive,
            temperature=temperature,
            no_negative=lambda rows: hidden[rows],
            decoupled=decoupled,
        )
    expected = in_loops(queries, keys, positive.tolist(), temperature=temperature, hidden=hidden, decoupled=decoupled)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(3 * loss, [queries, keys]) for loss in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("decoupled", [False, True])
def test_queries_that_find_their_positive_are_counted(*, decoupled: bool) -> None:
    """By hand: the first finds it, the second finds another, the third two alike, the fourth but for a hidden one."""
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [-1.0, 0.0]])
    queries = torch.tensor([[2.0, 1.0], [1.0, 2.0], [0.0, 1.0], [-1.0, 2.0]])
    hidden = torch.zeros(4, 4, dtype=torch.bool)
    hidden[3, 1] = hidden[3, 2] = True
    found = contrast(
        queries,
        keys,
        torch.tensor([0, 0, 1, 3]),
        temperature=0.1,
        no_negative=lambda rows: hidden[rows],
        decoupled=decoupled,
    )
    assert found.right.item() == 2
    assert found.right.dtype == torch.int64


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("temperature", [0.001, 0.01, 100.0])
def test_no_temperature_overflows(temperature: float, *, decoupled: bool) -> None:
    queries, keys = (vectors(6, 3, seed=seed).detach().float().requires_grad_() for seed in (0, 1))
    found = nt_xent(queries, keys, torch.arange(6), temperature=temperature, decoupled=decoupled)
    found.backward()
    a, b = (torch.nn.functional.normalize(x.double().detach(), dim=1) for x in (queries, keys))
    scores = a @ b.T / temperature
    among = scores.clone().fill_diagonal_(-torch.inf) if decoupled else scores
    floor = torch.full((6, 1), math.log(module.FLOOR) if decoupled else -torch.inf)
    expected = (torch.cat([among, floor], dim=1).logsumexp(dim=1) - scores.diagonal()).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert queries.grad is not None
    assert queries.grad.isfinite().all()
    assert keys.grad is not None
    assert keys.grad.isfinite().all()


@pytest.mark.parametrize(("decoupled", "expected"), [(True, -1.3068528), (False, 0.2395448)])
def test_two_orthogonal_pairs(*, decoupled: bool, expected: float) -> None:
    """By hand: s+ = 1 and two negatives with s = 0 at t = 1/2, so log(2) - 2, or log(2 + e^2) - 2."""
    views = torch.eye(2), torch.eye(2)
    by_hand = math.log(2 if decoupled else 2 + math.exp(2)) - 2
    assert by_hand == pytest.approx(expected, abs=1e-7)
    assert two_views(*views, temperature=0.5, decoupled=decoupled).item() == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("decoupled", [False, True])
def test_scale_of_vectors_does_not_count(*, decoupled: bool) -> None:
    a, b = vectors(5, 3, seed=0), vectors(5, 3, seed=1)
    long = two_views(1000 * a, 0.01 * b, temperature=0.1, decoupled=decoupled)
    torch.testing.assert_close(long, two_views(a, b, temperature=0.1, decoupled=decoupled))


def test_many_equal_vectors_give_the_logarithm_of_their_number() -> None:
    ones = torch.ones(300, 4)
    assert two_views(ones, ones, temperature=0.07).item() == pytest.approx(math.log(599), abs=1e-4)


def test_a_positive_that_is_no_negative_either_counts_once() -> None:
    queries, keys = vectors(3, 4, seed=2), vectors(3, 4, seed=3)
    all_hidden = nt_xent(
        queries,
        keys,
        torch.arange(3),
        temperature=0.1,
        no_negative=lambda rows: torch.ones(3, 3, dtype=torch.bool)[rows],
    )
    assert all_hidden.item() == pytest.approx(0.0, abs=1e-12)


def test_half_precision_is_computed_in_float32() -> None:
    a, b = (vectors(8, 4, seed=seed).detach().to(torch.bfloat16) for seed in (0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = two_views(a, b, temperature=0.07)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, two_views(a.float(), b.float(), temperature=0.07))


def test_nothing_to_compare_costs_nothing() -> None:
    none = torch.zeros(0, 4, requires_grad=True)
    loss = two_views(none, none, temperature=0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert none.grad is not None


@pytest.mark.parametrize(
    ("queries", "keys", "positive"), [((3, 4), (3, 5), 3), ((3, 4), (2, 4), 2), ((3, 4, 1), (3, 4, 1), 3)]
)
def test_shapes_that_do_not_fit_are_refused(queries: tuple[int, ...], keys: tuple[int, ...], positive: int) -> None:
    with pytest.raises(ValueError, match=r"queries \(N, D\), keys \(M, D\)"):
        nt_xent(torch.zeros(queries), torch.zeros(keys), torch.zeros(positive, dtype=torch.int64), temperature=0.1)


def test_two_views_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"as many vectors; got \(3, 4\) and \(2, 4\)"):
        two_views(torch.zeros(3, 4), torch.zeros(2, 4), temperature=0.1)
