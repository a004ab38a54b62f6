"""Losses against the authors' code: values, and gradients by the logits."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from tests.models.parity.case import Case
from torch import Tensor

from sits_models.losses import cross_entropy, focal_loss, pair_costs

Values = tuple[Tensor, Tensor]
"""A loss and what it depends on."""


def check(case: Case) -> None:
    """Compare every output of a case; one that is not known fails."""
    for name in case.output_names:
        is_gradient, loss = name.startswith("grad_"), name.removeprefix("grad_")
        value, origin = _loss(case, loss)
        case.compare(name, torch.autograd.grad(value, origin)[0] if is_gradient else value)


def _loss(case: Case, name: str) -> Values:
    makers: dict[str, Callable[..., Values]] = {
        r"masked_cross_entropy": lambda: _classes(case, masked=True),
        r"cross_entropy_nomask": lambda: _classes(case, masked=False),
        r"masked_focal_gamma([\d.]+)": lambda gamma: _focal(case, float(gamma), masked=True),
        r"focal_gamma([\d.]+)": lambda gamma: _focal(case, float(gamma), masked=False),
        r"bce_pos_weight_([\d.]+)": lambda weight: _pairs(case, float(weight), masked=False),
        r"bce_masked_pos_weight_([\d.]+)": lambda weight: _pairs(case, float(weight), masked=True),
    }
    for pattern, make in makers.items():
        if found := re.fullmatch(pattern, name):
            return make(*found.groups())
    raise AssertionError(f"unknown output: {name}")


def _logits_and_target(case: Case, *, masked: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As given, (N, H, W, K); as we take them, (N, K, H, W); and the labels, where masked the last class ignored."""
    logits = torch.from_numpy(case.input("logits")).requires_grad_()
    target = torch.from_numpy(case.input("labels")).to(torch.int64)[..., 0]
    if masked:
        target = torch.where(target == case.configuration["num_classes"] - 1, -1, target)
    return logits, logits.permute(0, 3, 1, 2), target


def _classes(case: Case, *, masked: bool) -> Values:
    logits, ours, target = _logits_and_target(case, masked=masked)
    return cross_entropy(ours, target), logits


def _focal(case: Case, gamma: float, *, masked: bool) -> Values:
    # The authors' masked form differentiates the factor, the other one does not.
    logits, ours, target = _logits_and_target(case, masked=masked)
    return focal_loss(ours, target, gamma=gamma, detach_factor=not masked), logits


def _pairs(case: Case, weight: float, *, masked: bool) -> Values:
    similarity = torch.from_numpy(case.input("sim")).requires_grad_()
    same = torch.from_numpy(case.input("sim_targets")).to(torch.bool)
    costs = pair_costs(similarity, same, loss="cross_entropy", positive_weight=weight)
    if masked:
        costs = costs.flatten()[torch.arange(costs.numel()) % 3 != 0]
    return costs.mean(), similarity
