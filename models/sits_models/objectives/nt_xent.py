"""NT-Xent, the normalised, temperature-scaled cross entropy of contrastive learning, in blocks of queries.

Chen et al., "A simple framework for contrastive learning of visual representations" (SimCLR), ICML 2020, equation 1.
The similarities of a batch never exist together: memory is that of one block against all keys, and of the gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

__all__ = ["FLOOR", "NoNegative", "nt_xent", "two_views"]

FLOOR = 1e-8
"""Added to the denominator where that leaves the positive out."""
_SIMILARITIES = 2**21
"""Of a block at most: 8 MB."""

NoNegative = Callable[[slice], Tensor]
"""Of the queries of a slice, which keys are no negatives: (queries, keys) bool. The positive need not be among them."""


def nt_xent(
    queries: Tensor,
    keys: Tensor,
    positive: Tensor,
    *,
    temperature: float,
    no_negative: NoNegative | None = None,
    decoupled: bool = False,
) -> Tensor:
    """The mean over the queries of -log(e^(s+/t) / sum e^(s/t)), a scalar; 0 without queries.

    `queries` (N, D) and `keys` (M, D) are compared by their cosine s; s+ is that with the key of number `positive`
    (N,), and the sum goes over it and all keys that are not `no_negative`. `decoupled` leaves the positive out of the
    sum and adds `FLOOR` to it, as GLCNet does: that loss may be negative. Computed in float32 at least.
    """
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1] or positive.shape != queries.shape[:1]:
        raise ValueError(
            "queries (N, D), keys (M, D) and the numbers of N positives are compared; got "
            f"{tuple(queries.shape)}, {tuple(keys.shape)} and {tuple(positive.shape)}"
        )
    with torch.autocast(queries.device.type, enabled=False):
        exact = torch.promote_types(queries.dtype, torch.float32)
        a, b = (functional.normalize(vectors.to(exact), dim=1) for vectors in (queries, keys))
        options = _Options(
            temperature=temperature,
            no_negative=no_negative,
            decoupled=decoupled,
            gradient=torch.is_grad_enabled() and (a.requires_grad or b.requires_grad),
        )
        loss: Tensor = _Blocks.apply(a, b, positive, options)
    return loss


def two_views(first: Tensor, second: Tensor, *, temperature: float, decoupled: bool = False) -> Tensor:
    """SimCLR's loss of two views (N, D) each: every vector is a query, and all others of both views are its keys."""
    if first.shape != second.shape:
        raise ValueError(f"two views have as many vectors; got {tuple(first.shape)} and {tuple(second.shape)}")
    both, n = torch.cat([first, second]), len(first)
    number = torch.arange(2 * n, device=both.device)

    def itself(rows: slice) -> Tensor:
        return number[rows, None] == number

    return nt_xent(
        both, both, (number + n) % max(1, 2 * n), temperature=temperature, no_negative=itself, decoupled=decoupled
    )


@dataclass(frozen=True, kw_only=True)
class _Options:
    temperature: float
    no_negative: NoNegative | None
    decoupled: bool
    gradient: bool


class _Blocks(torch.autograd.Function):
    """Value of the loss of vectors of length 1; its gradients are made forwards and kept."""

    @staticmethod
    def forward(ctx: FunctionCtx, queries: Tensor, keys: Tensor, positive: Tensor, options: _Options) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=queries.device)
        by_queries, by_keys = torch.zeros_like(queries), torch.zeros_like(keys)
        n = max(1, len(queries))
        for rows in _blocks(len(queries), len(keys)):
            scaled = queries[rows] @ keys.T / options.temperature  # (block, M)
            right = positive[rows, None]
            best = scaled.gather(1, right)
            hidden = torch.zeros_like(scaled, dtype=torch.bool)
            if options.no_negative is not None:
                hidden |= options.no_negative(rows)
            summed = scaled.masked_fill_(hidden.scatter_(1, right, options.decoupled), -torch.inf)
            log_sum = summed.logsumexp(dim=1, keepdim=True)
            if options.decoupled:
                log_sum = torch.logaddexp(log_sum, torch.full_like(log_sum, math.log(FLOOR)))
            total += (log_sum - best).sum(dtype=torch.float64)
            if options.gradient:
                # Of a block, by its similarities: the softmax, less 1 at the positive.
                by_scaled = summed.sub_(log_sum).exp_()
                by_scaled.scatter_add_(1, right, torch.full_like(best, -1.0))
                by_scaled /= n * options.temperature
                by_queries[rows] = by_scaled @ keys
                by_keys += by_scaled.T @ queries[rows]
        ctx.save_for_backward(by_queries, by_keys)
        return (total / n).to(queries.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, by_loss: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_queries, by_keys = ctx.saved_tensors  # type: ignore[attr-defined]  # torch's stubs lack it
        return by_loss * by_queries, by_loss * by_keys, None, None


def _blocks(queries: int, keys: int) -> Iterator[slice]:
    step = max(1, _SIMILARITIES // max(1, keys))
    return (slice(first, min(first + step, queries)) for first in range(0, queries, step))
