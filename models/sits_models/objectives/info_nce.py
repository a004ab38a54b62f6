"""InfoNCE: each query has a positive of its own, all share their negatives, and no gradient reaches a key.

Van den Oord, Li and Vinyals, "Representation learning with contrastive predictive coding", 2018, equation 4; as MoCo
has it (He et al., CVPR 2020, equation 1). Where keys learn too, see `nt_xent`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

__all__ = ["Contrast", "info_nce"]


@dataclass(frozen=True)
class Contrast:
    """Queries and what they are compared with; all vectors have length 1."""

    query: Tensor
    """(N, D)"""
    positive: Tensor
    """(N, D): the key of each query."""
    negatives: tuple[Tensor, ...]
    """(M, D) each: keys that no query shall be like."""

    def __post_init__(self) -> None:
        n, d = self.query.shape
        if self.positive.shape != (n, d) or any(part.shape[1:] != (d,) for part in self.negatives):
            raise ValueError(
                f"queries {(n, d)} have positives of that shape and negatives (M, {d}); got "
                f"{tuple(self.positive.shape)} and {[tuple(part.shape) for part in self.negatives]}"
            )

    @torch.no_grad()
    def logits(self, temperature: float) -> Tensor:
        """(N, 1 + all M): cosines over the temperature, that of the positive first, the others in their order."""
        scaled = self.query / temperature
        found = scaled.new_empty(len(scaled), 1 + sum(map(len, self.negatives)))
        found[:, 0] = (scaled * self.positive).sum(dim=1)
        at = 1
        for part in self.negatives:
            # Written where it belongs, and read where it lies: a queue is large.
            torch.mm(scaled, part.T, out=found[:, at : at + len(part)])
            at += len(part)
        return found


def info_nce(contrast: Contrast, *, temperature: float) -> tuple[Tensor, Tensor]:
    """The mean cross entropy of the positive among all keys, a scalar, and (N,) bool: whether it is the most alike.

    0 without queries. Computed in float32 at least; memory is that of the logits, once. The keys may change after it:
    gradients are made forwards, and nothing but them is kept.
    """
    with torch.autocast(contrast.query.device.type, enabled=False):
        exact = torch.promote_types(contrast.query.dtype, torch.float32)
        query, positive, *negatives = (
            vectors.to(exact) for vectors in (contrast.query, contrast.positive, *contrast.negatives)
        )
        loss, right = _InfoNCE.apply(query, positive, tuple(negatives), temperature)
    return loss, right


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Tensor, positive: Tensor, negatives: tuple[Tensor, ...], temperature: float
    ) -> tuple[Tensor, Tensor]:
        logits = Contrast(query, positive, negatives).logits(temperature)
        n = max(1, len(logits))
        own = logits[:, :1].clone()
        best = logits[:, 1:].amax(dim=1, keepdim=True) if logits.shape[1] > 1 else torch.full_like(own, -torch.inf)
        largest = torch.maximum(own, best)
        # In the place of the logits: e^(l - largest), which over its sum is the softmax.
        powers = logits.sub_(largest).exp_()
        total = powers.sum(dim=1, keepdim=True)
        value = (total.log() + largest - own).sum() / n
        by_query = (powers[:, :1] / total - 1) * positive
        at = 1
        for part in negatives:
            by_query += (powers[:, at : at + len(part)] @ part) / total
            at += len(part)
        right = (own > best).squeeze(1)
        ctx.save_for_backward(by_query / (n * temperature))
        ctx.mark_non_differentiable(right)
        return value, right

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, by_value: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        (by_query,) = ctx.saved_tensors  # type: ignore[attr-defined]  # torch's stubs lack it
        return by_value * by_query, None, None, None
