from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.models.meeting import Gather, together
from torch import Tensor

from sits_models.objectives.gathering import as_it_is
from sits_models.objectives.nt_xent import two_views
from sits_models.objectives.view_contrast import Found, ViewContrast, count_of


def views(n: int, *, seed: int, d: int = 5) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn[0].requires_grad_(), drawn[1].requires_grad_()


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_process_that_is_alone_has_the_loss_of_two_views(*, decoupled: bool) -> None:
    first, second = views(4, seed=0)
    found = ViewContrast(temperature=0.3, decoupled=decoupled)(first, second, gathered=as_it_is)
    expected = two_views(first, second, temperature=0.3, decoupled=decoupled)
    assert found.pairs == 4
    torch.testing.assert_close(found.value, expected)
    ours, theirs = (torch.autograd.grad(loss, [first, second]) for loss in (found.value, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("decoupled", [False, True])
def test_processes_of_unequal_parts_have_the_loss_and_gradients_of_the_whole_batch(*, decoupled: bool) -> None:
    contrast = ViewContrast(temperature=0.5, decoupled=decoupled)
    parts = [views(n, seed=n) for n in (3, 1, 0, 4)]
    every = [vectors for part in parts for vectors in part]

    def work(gathered: Gather, *, part: tuple[Tensor, Tensor], whole_gradient: bool = True) -> Found:
        def kept(own: Tensor) -> Tensor:
            found = gathered(own)
            # As the engine's, whose gradients reach the parts of others; here they share a graph.
            return torch.cat(every) if whole_gradient and own.is_floating_point() else found

        return contrast(*part, gathered=kept)

    whole = two_views(
        torch.cat([part[0] for part in parts]),
        torch.cat([part[1] for part in parts]),
        temperature=0.5,
        decoupled=decoupled,
    )
    shared = together([partial(work, part=part) for part in parts])
    mean = torch.stack([2 * len(part[0]) * one.value for part, one in zip(parts, shared, strict=True)]).sum() / 16
    torch.testing.assert_close(mean, whole)
    ours, theirs = (torch.autograd.grad(loss, every) for loss in (mean, whole))
    torch.testing.assert_close(ours, theirs)


def test_the_same_vectors_in_two_processes_are_negatives_of_each_other() -> None:
    first, second = views(2, seed=3)
    own = torch.cat([first, second])
    found = ViewContrast(temperature=0.5, decoupled=False)(first, second, gathered=_twice)
    unit = own / own.norm(dim=1, keepdim=True)
    similar = torch.cat([unit @ unit.T] * 2, dim=1) / 0.5
    similar[range(4), range(4)] = -torch.inf
    expected = torch.nn.functional.cross_entropy(similar, torch.tensor([2, 3, 0, 1]))
    torch.testing.assert_close(found.value, expected)


def _twice(own: Tensor) -> Tensor:
    """With another process behind it, that has the same vectors and another mark."""
    return torch.cat([own, own if own.is_floating_point() else own + 1])


def test_views_of_other_numbers_and_a_temperature_of_0_are_refused() -> None:
    first, second = views(2, seed=0)
    with pytest.raises(ValueError, match=r"as many vectors, \(N, D\); got \(2, 5\) and \(1, 5\)"):
        ViewContrast(temperature=0.5, decoupled=True)(first, second[:1], gathered=as_it_is)
    with pytest.raises(ValueError, match="a temperature is a number above 0; got 0"):
        ViewContrast(temperature=0.0, decoupled=True)


def test_what_is_watched_of_pairs_at_right_angles_and_of_a_collapse() -> None:
    contrast = ViewContrast(temperature=0.5, decoupled=True)
    apart = contrast(torch.eye(4), torch.eye(4), gathered=as_it_is)
    assert apart.accuracy.item() == 1.0
    assert apart.effective_rank.item() == pytest.approx(4.0)
    assert apart.value.item() == pytest.approx(math.log(6) - 2)  # 6 negatives of similarity 0, and e^2
    same = contrast(torch.ones(4, 3), torch.ones(4, 3), gathered=as_it_is)
    assert same.accuracy.item() == 0.0
    assert same.effective_rank.item() == pytest.approx(1.0)


def test_a_single_pair_counts_nothing() -> None:
    contrast = ViewContrast(temperature=0.5, decoupled=True)
    one, three = (contrast(torch.eye(n, 3), torch.eye(n, 3), gathered=as_it_is) for n in (1, 3))
    cpu = torch.device("cpu")
    assert one.value.item() == 0.0
    assert count_of(one, chips=1, device=cpu).item() == 0.0
    assert count_of(three, chips=3, device=cpu).item() == 6.0


def test_half_precision_is_compared_in_float32() -> None:
    first, second = (vectors.detach().to(torch.bfloat16) for vectors in views(3, seed=1))
    found = ViewContrast(temperature=0.5, decoupled=True)(first, second, gathered=as_it_is)
    assert found.value.dtype == torch.float32
    expected = two_views(first.float(), second.float(), temperature=0.5, decoupled=True)
    torch.testing.assert_close(found.value, expected)
