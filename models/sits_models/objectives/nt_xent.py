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

__all__ = ["FLOOR", "Contrast", "NoNegative", "contrast", "nt_xent", "two_views"]

FLOOR = 1e-8
"""Added to the denominator where that leaves the positive out."""
_SIMILARITIES = 2**21
"""Of a block at most: 8 MB."""
_NEAR_SIMILARITIES, _NEAR_QUERIES = 2**17, 128
"""Of a block on a CPU, where what stays in the cache is computed twice as fast: so many similarities or, among more
keys, queries."""

NoNegative = Callable[[slice], Tensor]
"""Of the queries of a slice, which keys are no negatives: (queries, keys) bool. The positive need not be among them."""


@dataclass(frozen=True)
class Contrast:
    """What comes of comparing queries with keys."""

    value: Tensor
    """The loss, a scalar."""
    right: Tensor
    """How many queries are more alike to their positive than to any negative: a scalar without gradient. Where all
    vectors are the same there is none."""


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
    found = contrast(queries, keys, positive, temperature=temperature, no_negative=no_negative, decoupled=decoupled)
    return found.value


def contrast(
    queries: Tensor,
    keys: Tensor,
    positive: Tensor,
    *,
    temperature: float,
    no_negative: NoNegative | None = None,
    decoupled: bool = False,
) -> Contrast:
    """The loss of `nt_xent`, and how many queries find their positive."""
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
        value, right = _Blocks.apply(a, b, positive, options)
    return Contrast(value, right)


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
    def forward(
        ctx: FunctionCtx, queries: Tensor, keys: Tensor, positive: Tensor, options: _Options
    ) -> tuple[Tensor, Tensor]:
        total = torch.zeros((), dtype=torch.float64, device=queries.device)
        found = torch.zeros((), dtype=torch.int64, device=queries.device)
        by_queries, by_keys = torch.zeros_like(queries), torch.zeros_like(keys)
        n, exact = max(1, len(queries)), queries / options.temperature
        for rows in _blocks(len(queries), len(keys), cpu=not queries.is_cuda):
            scores, right = exact[rows] @ keys.T, positive[rows, None]  # (block, M), (block, 1)
            best = scores.gather(1, right)
            scores.scatter_(1, right, -torch.inf)
            if options.no_negative is not None:
                scores.masked_fill_(options.no_negative(rows), -torch.inf)
            nearest = scores.amax(dim=1, keepdim=True)
            found += (best > nearest).sum()
            # Of the sum e^(score - shift), in which nothing overflows, the block keeps the terms.
            if options.decoupled:
                shift = nearest.clamp(min=math.log(FLOOR))
                terms = scores.sub_(shift).exp_()
                summed = terms.sum(dim=1, keepdim=True) + (math.log(FLOOR) - shift).exp()
            else:
                shift = torch.maximum(nearest, best)
                terms = scores.scatter_(1, right, best).sub_(shift).exp_()
                summed = terms.sum(dim=1, keepdim=True)
            total += (shift - best + summed.log()).sum(dtype=torch.float64)
            if options.gradient:
                # By its scores: the softmax, terms / summed, less 1 at the positive.
                terms.scatter_add_(1, right, -summed)
                each = 1 / (summed * n * options.temperature)
                by_queries[rows] = each * (terms @ keys)
                by_keys.addmm_(terms.T, each * queries[rows])
        ctx.save_for_backward(by_queries, by_keys)
        ctx.mark_non_differentiable(found)
        return (total / n).to(queries.dtype), found

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, by_loss: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_queries, by_keys = ctx.saved_tensors  # type: ignore[attr-defined]  # torch's stubs lack it
        return by_loss * by_queries, by_loss * by_keys, None, None


def _blocks(queries: int, keys: int, *, cpu: bool) -> Iterator[slice]:
    step = _SIMILARITIES // max(1, keys)
    if cpu:
        step = min(step, max(_NEAR_QUERIES, _NEAR_SIMILARITIES // max(1, keys)))
    step = max(1, step)
    return (slice(first, min(first + step, queries)) for first in range(0, queries, step))
