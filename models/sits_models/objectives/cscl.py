"""Context-self contrastive pretraining (CSCL): each pixel against the pixels of its window, in the same image.

Tarasiou, Guler and Zafeiriou, "Context-self contrastive pretraining for crop type semantic segmentation", IEEE TGRS
2022; code: michaeltrs/DeepSatModels. Formula, options and deliberate differences: docs/reference/cscl.md.

`ContextSimilarity` returns the similarities themselves. `window_loss` is the loss and its gradient from one sweep over
the window's rows, in which neither windows of vectors nor all k x k similarities of the batch ever exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from sits_models.encoder import Encoder
from sits_models.losses import pair_costs
from sits_models.objectives.base import Loss, Objective
from sits_models.recipe import ContrastRecipe
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = [
    "ContextContrast",
    "ContextSimilarity",
    "PairRule",
    "PairSums",
    "Pairs",
    "Window",
    "pairs_in_windows",
    "window_loss",
    "windows_of",
]

OUTSIDE = torch.iinfo(torch.int64).min
"""Stands for the label of what lies outside of the image; equal to no other."""


class ContextContrast(Objective):
    """An encoder whose embeddings are drawn together within a crop class (or parcel), and apart across its borders."""

    def __init__(self, encoder: Encoder, *, recipe: ContrastRecipe, background: bool = True) -> None:
        """`background`: whether class 0 means ground that is known to be no parcel, for `mask_background`."""
        super().__init__()
        self.encoder = encoder
        self.similarity = ContextSimilarity(
            encoder.channels,
            channels=recipe.channels or encoder.channels,
            window=Window(size=recipe.window, stride=recipe.stride, dilation=recipe.dilation),
            groups=recipe.groups,
            cosine=recipe.similarity == "cosine",
            relative_position=recipe.relative_position,
        )
        self.rule = PairRule.of(recipe)
        self.same = recipe.same
        self.masks = (recipe.mask_background and (background or recipe.same == "parcel"), recipe.mask_ignored)

    def loss(self, sample: Sample) -> Loss:
        """The loss of a batch, and the mean similarity of pairs of one class and of two (0 where there is none)."""
        value, sums = window_loss(self.encoder(sample), self.similarity, self.pairs(sample), rule=self.rule)
        return Loss(value, {"similarity_same": sums.mean_same, "similarity_different": sums.mean_different})

    def pairs(self, sample: Sample) -> Pairs:
        """What the pixels of the sample are to each other, on its label grid."""
        mask_background, mask_ignored = self.masks
        identity = sample.crop if self.same == "class" else sample.parcel
        dropped = ~sample.counted
        if mask_background:
            dropped |= identity == 0
        if mask_ignored:
            dropped |= sample.crop == IGNORE_INDEX
        return Pairs(identity=identity, counted=~dropped)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Which neighbours a pixel has: `size` x `size`, every `dilation`-th pixel, for every `stride`-th pixel.

    The smaller of stride and dilation must divide the larger. The embedding is first thinned by the smaller one; then
    either only every `step`-th pixel is a centre, or the window is spread by `spread`.
    """

    size: int = 3
    stride: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        if min(self.size, self.stride, self.dilation) < 1:
            raise ValueError(
                f"window, stride and dilation are at least 1; got {self.size}, {self.stride}, {self.dilation}"
            )
        if max(self.stride, self.dilation) % self.thinning:
            raise ValueError(
                f"of stride and dilation the smaller divides the larger; got {self.stride} and {self.dilation}: "
                "make one a multiple of the other"
            )
        if (self.size - 1) * self.spread % 2:
            raise ValueError(f"a window of {self.size} has no centre; give an odd number")

    @property
    def thinning(self) -> int:
        """Only every so manieth row and column of the embedding is looked at."""
        return min(self.stride, self.dilation)

    @property
    def step(self) -> int:
        """Of these, every so manieth is a centre; 1 unless the stride is larger than the dilation."""
        return self.stride // self.thinning

    @property
    def spread(self) -> int:
        """Distance of neighbours on the thinned grid; 1 unless the dilation is larger than the stride."""
        return self.dilation // self.thinning

    @property
    def reach(self) -> int:
        """How far the window goes to each side of its centre, on the thinned grid."""
        return (self.size - 1) * self.spread // 2

    def thin(self, tensor: Tensor) -> Tensor:
        """(..., H, W) with the rows and columns that are looked at."""
        return tensor if self.thinning == 1 else tensor[..., :: self.thinning, :: self.thinning]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What makes two pixels a pair of one kind, and which pixels take part."""

    identity: Tensor
    """(B, H, W) int64: two pixels are the same where it is equal."""
    counted: Tensor
    """(B, H, W) bool: a pair counts only where both of its pixels do."""


@dataclass(frozen=True, kw_only=True)
class PairRule:
    """How pairs make a loss."""

    loss: Literal["contrast", "cross_entropy"] = "contrast"
    positive_weight: float = 0.125
    mask_self: bool = False
    mask_outside: bool = False
    mean: Literal["all", "kept"] = "all"

    @classmethod
    def of(cls, recipe: ContrastRecipe) -> PairRule:
        """That of a recipe."""
        return cls(
            loss=recipe.loss,
            positive_weight=recipe.positive_weight,
            mask_self=recipe.mask_self,
            mask_outside=recipe.mask_outside,
            mean=recipe.mean,
        )


@dataclass(frozen=True)
class PairSums:
    """Sums over the pairs of a batch, float64 scalars without gradient."""

    pairs: Tensor
    """Number of pairs that count."""
    same: Tensor
    """How many of them are of one kind."""
    similarity: Tensor
    similarity_same: Tensor

    @property
    def mean_same(self) -> Tensor:
        """Mean similarity of pairs of one kind; 0 where there is none."""
        return self.similarity_same / self.same.clamp_min(1)

    @property
    def mean_different(self) -> Tensor:
        """Mean similarity of pairs of two kinds; 0 where there is none."""
        return (self.similarity - self.similarity_same) / (self.pairs - self.same).clamp_min(1)


class ContextSimilarity(nn.Module):
    """Similarity of each pixel's query with the keys of its window, relative positions added to the keys.

    Parameters bear the names of the official code: `rel_h` and `rel_w` for rows and columns of the window, on the first
    and the second half of the channels, and two 1 x 1 convolutions without bias.
    """

    def __init__(
        self, inputs: int, *, channels: int, window: Window, groups: int, cosine: bool, relative_position: bool
    ) -> None:
        super().__init__()
        if channels % 2 or channels % groups:
            raise ValueError(f"channels of queries are even and a multiple of groups; got {channels} and {groups}")
        self.window, self.groups, self.cosine = window, groups, cosine
        size = window.size
        positions = torch.randn if relative_position else torch.zeros
        self.rel_h = nn.Parameter(positions(channels // 2, 1, 1, size, 1), requires_grad=relative_position)
        self.rel_w = nn.Parameter(positions(channels // 2, 1, 1, 1, size), requires_grad=relative_position)
        self.key_conv = nn.Conv2d(inputs, channels, 1, bias=False)
        self.query_conv = nn.Conv2d(inputs, channels, 1, bias=False)

    def positions(self) -> Tensor:
        """Relative positions, (2k, C): those of rows, 0 in the second half, then those of columns, 0 in the first."""
        size, half = self.window.size, self.rel_h.shape[0]
        rows, columns = self.rel_h.view(half, size).T, self.rel_w.view(half, size).T
        return torch.cat([F.pad(rows, (0, half)), F.pad(columns, (half, 0))])

    def forward(self, embedded: Tensor) -> Tensor:
        """All similarities, (B, H', W', k, k): in [-groups, groups] if cosine. Memory: k x k vectors a pixel.

        What lies outside of the image has the relative position alone as its key. A vector of length 0 is similar to
        nothing: 0.
        """
        embedded, window, size = self.window.thin(embedded), self.window, self.window.size
        query, key = self.query_conv(embedded)[..., :: window.step, :: window.step], self.key_conv(embedded)
        b, c, h, w = query.shape
        keys = windows_of(F.pad(key, (window.reach,) * 4), window)  # (B, C, H', W', k, k)
        rows, columns = self.positions().view(2, size, c).unbind()
        keys = keys + (rows[:, None] + columns).permute(2, 0, 1)[:, None, None]
        query, keys = query.view(b, self.groups, -1, h, w), keys.view(b, self.groups, -1, h, w, size, size)
        if self.cosine:
            query, keys = _unit(query), _unit(keys)
        similarity: Tensor = torch.einsum("bgchw,bgchwij->bhwij", query, keys)
        return similarity


def windows_of(padded: Tensor, window: Window) -> Tensor:
    """(..., H', W', k, k) views of the windows of a thinned (..., H, W) that was padded by `window.reach`."""
    span = (window.size - 1) * window.spread + 1
    spread = padded.unfold(-2, span, window.step).unfold(-2, span, window.step)
    return spread[..., :: window.spread, :: window.spread]


def pairs_in_windows(pairs: Pairs, window: Window, *, rule: PairRule) -> tuple[Tensor, Tensor]:
    """Whether each pair is of one kind, and whether it counts; bool, (B, H', W', k, k) as the similarities.

    What lies outside of the image is of another kind than all inside.
    """
    step, margin = window.step, (window.reach,) * 4
    identity, counted = window.thin(pairs.identity), window.thin(pairs.counted)
    neighbour = windows_of(F.pad(identity, margin, value=OUTSIDE), window)
    same = neighbour == identity[:, ::step, ::step, None, None]
    kept = windows_of(F.pad(counted, margin, value=not rule.mask_outside), window)
    kept = kept & counted[:, ::step, ::step, None, None]
    if rule.mask_self and window.size % 2:
        kept[..., window.size // 2, window.size // 2] = False
    return same, kept


def window_loss(
    embedded: Tensor, similarity: ContextSimilarity, pairs: Pairs, *, rule: PairRule
) -> tuple[Tensor, PairSums]:
    """The loss of embeddings (B, C, H, W), a scalar, and what was summed. 0 where no pair counts.

    Each pair of a query q and a key k with its relative position r costs <q, k>, which comes from matrix products of
    blocks of pixels, and <q, r>, <k, r>, |q|, |k|, which come from products with 2k vectors: |k + r|^2 = |k|^2 +
    2 <k, r> + |r|^2. The gradient is made in the same sweep and scaled in the backward pass; there is no second one.
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


def _unit(vectors: Tensor) -> Tensor:
    """Vectors (B, G, C, ...) of length 1, or 0 where they were; without the endless gradient that 0 / 0 would have."""
    squares = vectors.square().sum(2, keepdim=True)
    return vectors * torch.where(squares > 0, squares, 1.0).rsqrt()


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
        divisor = totals[1].clamp_min(1) if options.rule.mean == "kept" else _pairs_in(embedded, options.window)
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


def _pairs_in(thinned: Tensor, window: Window) -> int:
    """Pairs of a thinned (B, C, H, W), counted or not."""
    b, _, h, w = thinned.shape
    return b * -(-h // window.step) * -(-w // window.step) * window.size**2


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
    layout = _Layout.of(embedded, options.window)
    inputs = layout.spread(embedded.transpose(0, 1), fill=0)  # (inputs, length)
    # A tensor of its own for each group of queries, then of keys: only what is contiguous is added to in one product.
    maps = weights.chunk(2 * options.groups)
    vectors = [inputs.T @ part.T for part in maps]  # (length, C / groups)
    pulls = [torch.zeros_like(part) for part in vectors]
    work = _Workspace.on(layout, vectors[0])
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


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The pixels of some images as one list in which the neighbour (dy, dx) of pixel p is pixel p + dy * pitch + dx.

    Rows are followed by `reach` columns of zeros and images by `reach` rows, and the whole stands between `lead` more,
    so that all that lies outside of an image is a pixel of zeros. Pixels are taken in blocks of n: the products of n
    queries and the n + 2 * reach keys that a row of their windows meets are one small matrix, of which every
    `spread`-th diagonal is wanted, k in all: a view. Seen from the keys, the same holds with rows and columns reversed.
    """

    window: Window
    images: int
    height: int
    width: int
    block: int

    @classmethod
    def of(cls, embedded: Tensor, window: Window) -> _Layout:
        b, _, h, w = embedded.shape
        return cls(window=window, images=b, height=h, width=w, block=16 if embedded.device.type == "cpu" else 32)

    @property
    def pitch(self) -> int:
        return self.width + self.window.reach

    @property
    def lead(self) -> int:
        return self.window.reach * (self.pitch + 1)

    @property
    def blocks(self) -> int:
        return -(-self.images * (self.height + self.window.reach) * self.pitch // self.block)

    @property
    def pixels(self) -> int:
        return self.blocks * self.block

    @property
    def length(self) -> int:
        return self.pixels + 2 * self.lead

    def gather(self, values: Tensor) -> Tensor:
        """The images' pixels of (C, length), a view (C, B, H, W)."""
        b, rows, start = self.images, self.height + self.window.reach, self.lead
        images = values[:, start : start + b * rows * self.pitch].view(-1, b, rows, self.pitch)
        return images[:, :, : self.height, : self.width]

    def spread(self, images: Tensor, *, fill: float) -> Tensor:
        """(C, length) with the pixels of (C, B, H, W), and `fill` all around."""
        values = images.new_full((images.shape[0], self.length), fill)
        self.gather(values).copy_(images)
        return values

    def middle(self, values: Tensor) -> Tensor:
        """The pixels of all blocks, of (length, ...)."""
        return values[self.lead : self.lead + self.pixels]

    def start(self, row: int) -> int:
        """The neighbour of the first pixel that is first in a row of its window. From the keys: of the row reversed."""
        return self.lead + (row * self.window.spread - self.window.reach) * self.pitch - self.window.reach

    def blocks_from(self, vectors: Tensor, start: int, *, more: int) -> Tensor:
        """Blocks of vectors (length, C) from a pixel on, each with some of the next: a view (blocks, n + more, C)."""
        (pixel, channel), first = vectors.stride(), vectors.storage_offset()
        shape = (self.blocks, self.block + more, vectors.shape[1])
        return vectors.as_strided(shape, (self.block * pixel, pixel, channel), first + start * pixel)

    def neighbours(self, values: Tensor, row: int) -> Tensor:
        """Of values (length,) or (length, k) what each pixel meets in a row of its window: a view (pixels, k).

        The n-th neighbour takes the n-th of the k values.
        """
        k, spread = self.window.size, self.window.spread
        pixel = values.stride(0)
        each = 0 if values.ndim == 1 else 1
        return values.as_strided((self.pixels, k), (pixel, spread * pixel + each), self.start(row) * pixel)

    def centres(self, values: Tensor, row: int) -> Tensor:
        """Of values (length, k), a value a pair, those of a key: a view (pixels, k), the last neighbour first."""
        k, spread = self.window.size, self.window.spread
        first = self.start(k - 1 - row) * k + k - 1
        return values.as_strided((self.pixels, k), (k, spread * k - 1), first)

    def diagonals(self, matrices: Tensor) -> Tensor:
        """Of (blocks, n, n + 2 reach) the wanted diagonals, a view (blocks, n, k)."""
        n, wide = self.block, self.block + 2 * self.window.reach
        shape, strides = (self.blocks, n, self.window.size), (n * wide, wide + 1, self.window.spread)
        return matrices.as_strided(shape, strides)


@dataclass(frozen=True)
class _Workspace:
    """Memory that the rows of the window use in turn."""

    products: Tensor
    """(blocks, n, n + 2 reach)."""
    band: Tensor
    """The same; 0 but on the wanted diagonals."""
    pulls: Tensor
    """(length, k): a value a pair; 0 but in the middle."""
    turns: Tensor

    @classmethod
    def on(cls, layout: _Layout, vectors: Tensor) -> _Workspace:
        matrices = (layout.blocks, layout.block, layout.block + 2 * layout.window.reach)
        pairs = (layout.length, layout.window.size)
        return cls(vectors.new_empty(matrices), *(vectors.new_zeros(shape) for shape in (matrices, pairs, pairs)))


class _Group:
    """One group of channels: its similarities s = <q, k + r> / (|q| |k + r|), and how a slope of s pulls at q, k and r.

    With c = slope / (|q| |k + r|) a pair pulls q by c (k + r) - slope s q / |q|^2, and k and r alike by
    c q - slope s (k + r) / |k + r|^2.
    """

    def __init__(
        self,
        layout: _Layout,
        work: _Workspace,
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
        queries = layout.blocks_from(self.query, layout.lead, more=0)
        keys = layout.blocks_from(self.key, layout.start(row), more=2 * reach)
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
        layout, work, k = self.layout, self.work, self.layout.window.size
        reach, mirrored = layout.window.reach, k - 1 - row
        pulls = layout.middle(work.pulls)
        torch.mul(slope, self.query_inverse * self.key_inverse if self.cosine else 1.0, out=pulls)
        band = layout.diagonals(work.band)
        band.copy_(pulls.view(band.shape))
        into = layout.blocks_from(self.by_query, layout.lead, more=0)
        torch.baddbmm(into, work.band, layout.blocks_from(self.key, layout.start(row), more=2 * reach), out=into)
        band.copy_(layout.centres(work.pulls, row).reshape(band.shape))
        into = layout.blocks_from(self.by_key, layout.lead, more=0)
        torch.baddbmm(into, work.band, layout.blocks_from(self.query, layout.start(mirrored), more=2 * reach), out=into)
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

    layout: _Layout
    identity: Tensor
    neighbour: Tensor
    """(length,) bool: counts as a neighbour."""
    centre: Tensor
    """(pixels, 1) bool: counts as a centre."""
    itself: Tensor | None
    """(k, k) bool: False for the centre, where it does not count."""

    @classmethod
    def of(cls, layout: _Layout, pairs: Pairs, options: _Options) -> _Kinds:
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
