"""Losses worked by hand, and against PyTorch's own where it has them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from sits_models.losses import cross_entropy, focal_loss, pair_costs
from sits_models.sample import IGNORE_INDEX


def logits_of(*probabilities: float) -> torch.Tensor:
    """(1, 2, 1, W): the first class has these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p, 1 - p]).log()[None, :, None]


def random_batch(classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 6, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    return logits, torch.randint(-1, classes, (2, 6, 7), generator=generator)


def test_focal_loss_by_hand() -> None:
    # p = 0.9 and 0.25 of the true class: (0.1)^2 * -ln 0.9 and (0.75)^2 * -ln 0.25.
    target = torch.tensor([[[0, 1]]])
    expected = (0.01 * -math.log(0.9) + 0.5625 * -math.log(0.25)) / 2
    assert focal_loss(logits_of(0.9, 0.75), target, gamma=2).item() == pytest.approx(expected)


def test_ignored_pixels_count_in_neither_sum_nor_number() -> None:
    target = torch.tensor([[[0, IGNORE_INDEX]]])
    assert cross_entropy(logits_of(0.5, 0.001), target).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2, 0, 0.5, 3], dtype=torch.float64)])
def test_cross_entropy_is_that_of_pytorch(weights: torch.Tensor | None) -> None:
    logits, target = random_batch()
    ours = cross_entropy(logits, target, weights=weights)
    theirs = F.cross_entropy(logits, target, weight=weights, ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (ours, theirs)))


def test_without_gamma_focal_loss_is_cross_entropy() -> None:
    logits, target = random_batch()
    torch.testing.assert_close(focal_loss(logits, target, gamma=0.0), cross_entropy(logits, target))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_gradient_of_focal_loss_is_that_of_small_steps(gamma: float) -> None:
    logits, target = random_batch(classes=3)
    corner = logits.detach()[..., :3, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: focal_loss(values, target[:, :3, :3], gamma=gamma), (corner,))


def test_a_detached_factor_changes_the_gradient_and_not_the_value() -> None:
    logits, target = random_batch()
    whole, detached = (focal_loss(logits, target, gamma=2.0, detach_factor=detach) for detach in (False, True))
    assert whole.item() == detached.item()
    first, second = (torch.autograd.grad(value, logits)[0] for value in (whole, detached))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_certain_pixel_costs_nothing_and_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([100.0, -100.0]).view(1, 2, 1, 1).requires_grad_()
    loss = focal_loss(logits, torch.zeros(1, 1, 1, dtype=torch.int64), gamma=gamma)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-6


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_batch_of_ignored_pixels_costs_0_with_gradients_of_0(gamma: float) -> None:
    logits, target = random_batch()
    loss = focal_loss(logits, torch.full_like(target, IGNORE_INDEX), gamma=gamma)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_pairs_of_one_kind_are_drawn_together_and_others_apart() -> None:
    similarity, same = torch.tensor([0.5, 0.5, -1.0]), torch.tensor([True, False, False])
    assert pair_costs(similarity, same, loss="contrast", positive_weight=0.125).tolist() == [-0.0625, 0.5, -1.0]


def test_cross_entropy_of_pairs_is_that_of_pytorch() -> None:
    similarity, same = torch.randn(40, dtype=torch.float64), torch.rand(40) < 0.4
    ours = pair_costs(similarity, same, loss="cross_entropy", positive_weight=0.125).mean()
    weight = torch.tensor(0.125, dtype=torch.float64)
    theirs = F.binary_cross_entropy_with_logits(similarity, same.to(torch.float64), pos_weight=weight)
    torch.testing.assert_close(ours, theirs)
