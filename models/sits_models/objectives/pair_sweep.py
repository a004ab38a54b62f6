"""The contrast of all pairs of pixels in one sweep over their windows' rows, with its gradient.

Neither windows of vectors nor all k x k similarities of the batch ever exist. What is computed is in
`context_similarity` and `pairs`, in a few lines each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from sits_models.losses import pair_costs
from sits_models.objectives.context_similarity import ContextSimilarity, Window
from sits_models.objectives.pairs import OUTSIDE, PairRule, Pairs, PairSums
from sits_models.objectives.pixel_runs import PixelRuns, Workspace

__all__ = ["window_loss"]

FEW_CHANNELS = 16
"""Cosines of groups of fewer channels are computed in float64."""


def window_loss(
    embedded: Tensor, similarity: ContextSimilarity, pairs: Pairs, *, rule: PairRule
) -> tuple[Tensor, PairSums]:
    """The loss of embeddings (B, C, H, W), a scalar, and what was summed. 0 where no pair counts.

    Each pair of a query q and a key k with its relative position r costs <q, k>, which comes from matrix products of
    runs of pixels, and <q, r>, <k, r>, |q|, |k|, which come from products with 2k vectors: |k + r|^2 = |k|^2 +
    2 <k, r> + |r|^2. The gradient is made in the same sweep and scaled in the backward pass; there is no second one.
    Where a key and its position nearly cancel these sums lose digits that adding k + r first would keep. In a few
    channels that is common, so there they are summed in float64.
    """
    module, window = similarity, similarity.window
    if pairs.identity.shape != embedded.shape[:1] + embedded.shape[2:]:
        raise ValueError(
            f"an embedding {tuple(embedded.shape)} needs a label a pixel; got labels {tuple(pairs.identity.shape)}"
        )
    weights = torch.cat([module.query_conv.weight, module.key_conv.weight]).flatten(1)  # (2 C, inputs)
    positions = module.positions()
    with_gradient = torch.is_grad_enabled() and (
        embedded.requires_grad or weights.requires_grad or positions.requires_grad
    )
    with torch.autocast(embedded.device.type, enabled=False):
        exact = torch.promote_types(embedded.dtype, torch.float32)
        total, *sums = _Sweep.apply(
            window.thin(embedded).to(exact),
            weights.to(exact),
            positions.to(exact),
            Pairs(identity=window.thin(pairs.identity), counted=window.thin(pairs.counted)),
            _Options(window=window, rule=rule, groups=module.groups, cosine=module.cosine, gradient=with_gradient),
        )
    return total, PairSums(*sums)


@dataclass(frozen=True, kw_only=True)
class _Options:
    window: Window
    rule: PairRule
    groups: int
    cosine: bool
    gradient: bool


class _Sweep(torch.autograd.Function):
    """Value and sums of the loss; its gradients are made forwards and kept."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, embedded: Tensor, weights: Tensor, positions: Tensor, pairs: Pairs, options: _Options
    ) -> tuple[Tensor, ...]:
        totals = torch.zeros(5, dtype=torch.float64, device=embedded.device)
        by_embedding = torch.empty_like(embedded, memory_format=torch.contiguous_format) if options.gradient else None
        by_weights, by_positions = torch.zeros_like(weights), torch.zeros_like(positions)
        for chunk in _chunks(embedded, options.window):
            part = Pairs(identity=pairs.identity[chunk], counted=pairs.counted[chunk])
            swept = _sweep(embedded[chunk], weights, positions, part, options)
            totals += swept.totals
            if by_embedding is not None:
                by_embedding[chunk] = swept.by_embedding
                by_weights += swept.by_weights
                by_positions += swept.by_positions
        divisor = totals[1].clamp_min(1) if options.rule.mean == "kept" else options.window.pairs_in(embedded)
        if by_embedding is not None:
            scale = torch.as_tensor(1 / divisor, dtype=embedded.dtype, device=embedded.device)
            ctx.save_for_backward(scale, by_embedding, by_weights, by_positions)
        sums = totals[1:].unbind()
        ctx.mark_non_differentiable(*sums)
        return (totals[0] / divisor).to(embedded.dtype), *sums

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, by_value: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        scale, *gradients = ctx.saved_tensors  # type: ignore[attr-defined]
        return *(gradient * (by_value * scale) for gradient in gradients), None, None


def _chunks(thinned: Tensor, window: Window) -> Iterator[slice]:
    """Slices of the batch: on a CPU what its caches hold, on a GPU what fills it."""
    b, _, h, w = thinned.shape
    budget = 4096 if thinned.device.type == "cpu" else 1 << 18
    images = max(1, budget // ((h + window.reach) * (w + window.reach)))
    for start in range(0, b, images):
        yield slice(start, start + images)


@dataclass(frozen=True, kw_only=True)
class _Swept:
    """Of some images, not yet divided by the number of pairs. Without a gradient its parts are zeros."""

    totals: Tensor
    """The costs of all pairs, then the fields of `PairSums`."""
    by_embedding: Tensor
    by_weights: Tensor
    by_positions: Tensor


def _sweep(embedded: Tensor, weights: Tensor, positions: Tensor, pairs: Pairs, options: _Options) -> _Swept:
    """Costs of all pairs of the images (B, inputs, H, W), row by row of the window, and what pulls at their origins."""
    layout = PixelRuns.of(embedded, options.window)
    few = options.cosine and len(weights) < 2 * options.groups * FEW_CHANNELS
    exact = torch.float64 if few else embedded.dtype
    weights, positions = weights.to(exact), positions.to(exact)
    inputs = layout.spread(embedded.transpose(0, 1).to(exact), fill=0)  # (inputs, length)
    # A tensor of its own for each group of queries, then of keys: only what is contiguous is added to in one product.
    maps = weights.chunk(2 * options.groups)
    vectors = [inputs.T @ part.T for part in maps]  # (length, C / groups)
    pulls = [torch.zeros_like(part) for part in vectors]
    work = Workspace.on(layout, vectors[0])
    queries, keys = slice(None, options.groups), slice(options.groups, None)
    groups = [
        _Group(layout, work, *parts, cosine=options.cosine)
        for parts in zip(
            vectors[queries],
            vectors[keys],
            pulls[queries],
            pulls[keys],
            positions.chunk(options.groups, dim=1),
            strict=True,
        )
    ]
    kinds = _Kinds.of(layout, pairs, options)
    totals = torch.zeros(5, dtype=torch.float64, device=embedded.device)
    for row in range(options.window.size):
        same, kept = kinds.in_row(row)
        parts = [group.similarity(row) for group in groups]
        similarity = sum(parts[1:], start=parts[0])
        cost, slope = _cost(similarity, same, options.rule)
        totals += torch.stack(
            [
                (cost * kept).sum(),
                kept.sum(),
                (kept * same).sum(),
                (similarity * kept).sum(),
                (similarity * kept * same).sum(),
            ]
        )
        if options.gradient:
            slope *= kept
            for group, part in zip(groups, parts, strict=True):
                group.pull(row, slope, part)
    by_positions = torch.cat([group.settle() for group in groups], dim=1)
    by_inputs = torch.zeros_like(inputs)
    for part, pull in zip(maps, pulls, strict=True):
        by_inputs.addmm_(part.T, pull.T)
    return _Swept(
        totals=totals,
        by_embedding=layout.gather(by_inputs).transpose(0, 1),
        by_weights=torch.cat([pull.T @ inputs.T for pull in pulls]),
        by_positions=by_positions,
    )


def _cost(similarity: Tensor, same: Tensor, rule: PairRule) -> tuple[Tensor, Tensor]:
    """Cost of each pair, and its derivative by the similarity."""
    cost = pair_costs(similarity, same, loss=rule.loss, positive_weight=rule.positive_weight)
    slope = torch.where(same, -rule.positive_weight, 1.0).to(similarity.dtype)
    if rule.loss == "cross_entropy":
        slope *= torch.where(same, -similarity, similarity).sigmoid()
    return cost, slope


class _Group:
    """One group of channels: its similarities s = <q, k + r> / (|q| |k + r|), and how a slope of s pulls at q, k and r.

    With c = slope / (|q| |k + r|) a pair pulls q by c (k + r) - slope s q / |q|^2, and k and r alike by
    c q - slope s (k + r) / |k + r|^2.
    """

    def __init__(
        self,
        layout: PixelRuns,
        work: Workspace,
        query: Tensor,
        key: Tensor,
        by_query: Tensor,
        by_key: Tensor,
        positions: Tensor,
        *,
        cosine: bool,
    ) -> None:
        k = layout.window.size
        self.layout, self.work, self.cosine = layout, work, cosine
        self.query, self.key, self.positions = query, key, positions
        self.by_query, self.by_key = by_query, by_key
        middle = layout.middle(query)
        self.query_positions = middle @ positions.T  # (pixels, 2 k): <q, r>
        self.query_pulls = torch.zeros_like(self.query_positions)
        if cosine:
            self.query_inverse = _inverse_root(middle.square().sum(1), 0.0)[:, None]
            self.query_turn = torch.zeros_like(self.query_inverse)
            squares, crossed = key.square().sum(1, keepdim=True), 2 * (key @ positions.T)
            self.row_squares, column_squares = (half.square().sum(1) for half in positions.chunk(2))
            self.squares = squares + crossed[:, k:] + column_squares  # (length, k): |k + r|^2 but for the window's row
            self.crossed_rows = crossed[:, :k]
            # |k + r|^2 is a sum of parts that may cancel: below their rounding it is 0.
            self.rounding = squares * (8 * torch.finfo(key.dtype).eps)
            self.key_turns = torch.zeros_like(self.query_positions)  # (pixels, 2 k)
            self.position_turns = torch.zeros_like(positions[:, :1])  # (2 k, 1)

    def similarity(self, row: int) -> Tensor:
        """With the keys of a row of the window, (pixels, k)."""
        layout, k = self.layout, self.layout.window.size
        reach = layout.window.reach
        queries = layout.runs_from(self.query, layout.lead, more=0)
        keys = layout.runs_from(self.key, layout.start(row), more=2 * reach)
        torch.bmm(queries, keys.transpose(1, 2), out=self.work.products)
        products = layout.diagonals(self.work.products).reshape(layout.pixels, k)
        similarity = products + self.query_positions[:, row, None]
        similarity += self.query_positions[:, k:]
        if self.cosine:
            squares = self.squares + (self.crossed_rows[:, row, None] + self.row_squares[row])
            self.key_inverse = layout.neighbours(_inverse_root(squares, self.rounding), row)
            similarity *= self.key_inverse
            similarity *= self.query_inverse
        return similarity

    def pull(self, row: int, slope: Tensor, similarity: Tensor) -> None:
        """Gather what slopes (pixels, k) of the similarities of this row pull at."""
        if self.cosine and self.query.shape[1] == 1:
            return  # a cosine in one channel is a sign: nothing moves it
        layout, work, k = self.layout, self.work, self.layout.window.size
        reach, mirrored = layout.window.reach, k - 1 - row
        pulls = layout.middle(work.pulls)
        torch.mul(slope, self.query_inverse * self.key_inverse if self.cosine else 1.0, out=pulls)
        band = layout.diagonals(work.band)
        band.copy_(pulls.view(band.shape))
        into = layout.runs_from(self.by_query, layout.lead, more=0)
        torch.baddbmm(into, work.band, layout.runs_from(self.key, layout.start(row), more=2 * reach), out=into)
        band.copy_(layout.centres(work.pulls, row).reshape(band.shape))
        into = layout.runs_from(self.by_key, layout.lead, more=0)
        torch.baddbmm(into, work.band, layout.runs_from(self.query, layout.start(mirrored), more=2 * reach), out=into)
        self.query_pulls[:, row] += pulls.sum(1)
        self.query_pulls[:, k:] += pulls
        if self.cosine:
            turned = slope * similarity
            self.query_turn += turned.sum(1, keepdim=True)
            turns = layout.middle(work.turns)
            torch.mul(turned, self.key_inverse.square(), out=turns)
            by_position = turns.sum(0)
            self.position_turns[row] += by_position.sum()
            self.position_turns[k:, 0] += by_position
            of_keys = layout.centres(work.turns, row)
            self.key_turns[:, row] += of_keys.sum(1)
            self.key_turns[:, k:] += of_keys.flip(1)

    def settle(self) -> Tensor:
        """Add what is a product with the positions or the vector itself; what pulls at the positions, (2 k, C)."""
        layout, k = self.layout, self.layout.window.size
        query, by_query = layout.middle(self.query), layout.middle(self.by_query)
        by_query.addmm_(self.query_pulls, self.positions)
        by_positions = self.query_pulls.T @ query
        if self.cosine:
            key, by_key = layout.middle(self.key), layout.middle(self.by_key)
            by_query.addcmul_(query, self.query_turn * self.query_inverse.square(), value=-1)
            by_key.addmm_(self.key_turns, self.positions, alpha=-1)
            by_key.addcmul_(key, self.key_turns[:, :k].sum(1, keepdim=True), value=-1)
            by_positions.addmm_(self.key_turns.T, key, alpha=-1)
            by_positions.addcmul_(self.positions, self.position_turns, value=-1)
        return by_positions


def _inverse_root(squares: Tensor, rounding: Tensor | float) -> Tensor:
    """1 / sqrt(squares), or 0 where they are not above their rounding."""
    return torch.where(squares > rounding, squares, torch.inf).rsqrt()


@dataclass(frozen=True, kw_only=True)
class _Kinds:
    """Which pairs are of one kind, and which count."""

    layout: PixelRuns
    identity: Tensor
    neighbour: Tensor
    """(length,) bool: counts as a neighbour."""
    centre: Tensor
    """(pixels, 1) bool: counts as a centre."""
    itself: Tensor | None
    """(k, k) bool: False for the centre, where it does not count."""

    @classmethod
    def of(cls, layout: PixelRuns, pairs: Pairs, options: _Options) -> _Kinds:
        window, device = layout.window, pairs.counted.device
        step = window.step
        chosen = torch.zeros(layout.height, layout.width, dtype=torch.bool, device=device)
        chosen[::step, ::step] = True
        itself = None
        if options.rule.mask_self and window.size % 2:
            itself = torch.ones(window.size, window.size, dtype=torch.bool, device=device)
            itself[window.size // 2, window.size // 2] = False
        return cls(
            layout=layout,
            identity=layout.spread(pairs.identity[None], fill=OUTSIDE)[0],
            neighbour=layout.spread(pairs.counted[None], fill=not options.rule.mask_outside)[0],
            centre=layout.middle(layout.spread((pairs.counted & chosen)[None], fill=False)[0])[:, None],
            itself=itself,
        )

    def in_row(self, row: int) -> tuple[Tensor, Tensor]:
        """Of the pairs of a row of the window: whether they are of one kind, and whether they count; (pixels, k)."""
        same = self.layout.neighbours(self.identity, row) == self.layout.middle(self.identity)[:, None]
        kept = self.layout.neighbours(self.neighbour, row) & self.centre
        return same, kept if self.itself is None else kept & self.itself[row]
