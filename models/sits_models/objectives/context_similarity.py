"""Similarity of each pixel with the pixels around it, and the windows in which they stand.

Tarasiou, Guler and Zafeiriou, "Context-self contrastive pretraining for crop type semantic segmentation", IEEE TGRS
2022. All similarities at once: for the loss alone see `pair_sweep`, which never holds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

__all__ = ["ContextSimilarity", "Window", "windows_of"]


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

    def pairs_in(self, thinned: Tensor) -> int:
        """Pairs of a thinned (B, ..., H, W), counted or not."""
        h, w = thinned.shape[-2:]
        return thinned.shape[0] * -(-h // self.step) * -(-w // self.step) * self.size**2


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


def _unit(vectors: Tensor) -> Tensor:
    """Vectors (B, G, C, ...) of length 1, or 0 where they were; without the endless gradient that 0 / 0 would have."""
    squares = vectors.square().sum(2, keepdim=True)
    return vectors * torch.where(squares > 0, squares, 1.0).rsqrt()
