"""Losses of classes and of pairs, as pure functions of logits and labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from sits_models.sample import IGNORE_INDEX

__all__ = ["cross_entropy", "focal_loss", "pair_costs"]


def cross_entropy(
    logits: Tensor, target: Tensor, *, weights: Tensor | None = None, ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """Mean cross entropy of the pixels that are not ignored; 0 with gradients of 0 where all are.

    `logits` (B, K, H, W), `target` (B, H, W) int64, `weights` (K,) a weight a class: then the mean is the weighted one.
    """
    return focal_loss(logits, target, gamma=0.0, weights=weights, detach_factor=True, ignore_index=ignore_index)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float,
    weights: Tensor | None = None,
    detach_factor: bool = False,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Mean of -(1 - p)^gamma log p over the pixels that are not ignored; 0 with gradients of 0 where all are.

    Lin et al. 2017, "Focal loss for dense object detection", equation 4 (5 with weights); p is the probability of the
    pixel's class. `logits` (B, K, H, W), `target` (B, H, W) int64. `detach_factor` takes (1 - p)^gamma for a constant,
    which the paper does not. `weights` (K,) holds one a class: then the mean is the weighted one.
    """
    counted = target != ignore_index
    labels = torch.where(counted, target, 0)
    log_p = F.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]  # (B, H, W)
    weight = counted.to(log_p.dtype) if weights is None else counted * weights.to(log_p.dtype)[labels]
    cost = -log_p
    if gamma:
        # Not 1 - exp(log p), which is 0 with an endless gradient for gamma < 1 once p rounds to 1.
        rest = -torch.expm1(log_p.detach() if detach_factor else log_p)
        cost = cost * rest.clamp_min(torch.finfo(log_p.dtype).tiny) ** gamma
    total = weight.sum()
    return (cost * weight).sum() / torch.where(total > 0, total, 1.0)


def pair_costs(
    similarity: Tensor, same: Tensor, *, loss: Literal["contrast", "cross_entropy"], positive_weight: float
) -> Tensor:
    """What each pair costs, of the shape of both arguments; its mean is the loss.

    With w the positive weight, `contrast` is -w s for a pair of one kind and s for a pair of two (Tarasiou et al.
    2022); `cross_entropy` is w log(1 + exp(-s)) and log(1 + exp(s)), the binary cross entropy with s for the logit.
    """
    weight = torch.where(same, positive_weight, 1.0).to(similarity.dtype)
    signed = torch.where(same, -similarity, similarity)
    return weight * (signed if loss == "contrast" else F.softplus(signed))
