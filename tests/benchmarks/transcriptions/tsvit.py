"""TSViT written straight from its description (Tarasiou, Chavez, Zafeiriou 2023), dense and a class a chip.

Entries are named as in the official code, so that `from_reference` of the backbone reads them. The day of the year is
the last channel of the series over 365.0001, the class maps keep the order of the tokens, as there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PlainTSViT", "PlainTSViTcls"]


class Attention(nn.Module):
    """Softmax of all products of queries and keys."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = dim_head**-0.5
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim), nn.Dropout(0.0))

    def forward(self, tokens: Tensor) -> Tensor:
        n, length, _ = tokens.shape
        q, k, v = (
            part.reshape(n, length, self.heads, -1).permute(0, 2, 1, 3) for part in self.to_qkv(tokens).chunk(3, dim=-1)
        )
        scores = torch.einsum("nhid,nhjd->nhij", q, k) * self.scale
        mixed = torch.einsum("nhij,nhjd->nhid", scores.softmax(dim=-1), v)
        out: Tensor = self.to_out(mixed.permute(0, 2, 1, 3).reshape(n, length, -1))
        return out


class FeedForward(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, inner), nn.GELU(), nn.Dropout(0.0), nn.Linear(inner, dim), nn.Dropout(0.0)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.net(tokens)
        return out


class PreNorm(nn.Module):
    """A module behind a layer norm."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.fn(self.norm(tokens))
        return out


class Transformer(nn.Module):
    """Layers of attention and feed forward, each added to its input, and a last layer norm."""

    def __init__(self, dim: int, depth: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([PreNorm(dim, Attention(dim, heads, dim_head)), PreNorm(dim, FeedForward(dim, 4 * dim))])
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        for attention, feed_forward in self.layers:
            tokens = attention(tokens) + tokens
            tokens = feed_forward(tokens) + tokens
        out: Tensor = self.norm(tokens)
        return out


class _Tokens(nn.Module):
    """What both share: patches of each date, days, class tokens, attention over time."""

    def __init__(
        self,
        channels: int,
        *,
        size: int,
        classes: int,
        patch: int,
        dim: int,
        temporal_depth: int,
        spatial_depth: int,
        heads: int,
        dim_head: int,
        days: int,
    ) -> None:
        """`channels` counts the day of the year."""
        super().__init__()
        self.patch, self.classes, self.days = patch, classes, days
        self.to_patch_embedding = nn.Sequential(nn.Identity(), nn.Linear((channels - 1) * patch**2, dim))
        self.to_temporal_embedding_input = nn.Linear(days, dim)
        self.temporal_token = nn.Parameter(torch.randn(1, classes, dim))
        self.temporal_transformer = Transformer(dim, temporal_depth, heads, dim_head)
        self.space_pos_embedding = nn.Parameter(torch.randn(1, (size // patch) ** 2, dim))
        self.space_transformer = Transformer(dim, spatial_depth, heads, dim_head)

    def over_time(self, series: Tensor) -> Tensor:
        """(B, T, C, H, W) to class tokens of each patch, (B*K, patches, dim)."""
        b, t, _, height, width = series.shape
        index = (series[:, :, -1, 0, 0].to(torch.float32) * 365.0001).to(torch.int64)
        days = self.to_temporal_embedding_input(functional.one_hot(index, self.days).to(series.dtype))  # (B, T, dim)
        p, h, w = self.patch, height // self.patch, width // self.patch
        patches = series[:, :, :-1].reshape(b, t, -1, h, p, w, p).permute(0, 3, 5, 1, 4, 6, 2)
        patches = patches.reshape(b * h * w, t, -1)  # (B*patches, T, p*p*C)
        tokens = self.to_patch_embedding(patches).reshape(b, h * w, t, -1)
        tokens = (tokens + days[:, None]).reshape(b * h * w, t, -1)
        tokens = torch.cat([self.temporal_token.repeat(b * h * w, 1, 1), tokens], dim=1)
        tokens = self.temporal_transformer(tokens)[:, : self.classes]  # (B*patches, K, dim)
        tokens = tokens.reshape(b, h * w, self.classes, -1).permute(0, 2, 1, 3)
        return tokens.reshape(b * self.classes, h * w, -1) + self.space_pos_embedding


class PlainTSViT(_Tokens):
    """Channels (B, T, C, H, W) to logits (B, classes, H, W)."""

    def __init__(
        self,
        channels: int,
        *,
        size: int,
        classes: int,
        patch: int = 2,
        dim: int = 128,
        temporal_depth: int = 4,
        spatial_depth: int = 4,
        heads: int = 4,
        dim_head: int = 32,
    ) -> None:
        """The defaults are those of PASTIS24."""
        super().__init__(
            channels,
            size=size,
            classes=classes,
            patch=patch,
            dim=dim,
            temporal_depth=temporal_depth,
            spatial_depth=spatial_depth,
            heads=heads,
            dim_head=dim_head,
            days=366,
        )
        self.mlp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, patch**2))

    def forward(self, series: Tensor, valid: Tensor) -> Tensor:  # padding is like any other date
        b, _, _, h, w = series.shape
        maps = self.mlp_head(self.space_transformer(self.over_time(series)))  # (B*K, patches, p*p)
        maps = maps.reshape(b, self.classes, -1, self.patch**2).permute(0, 2, 3, 1)
        logits: Tensor = maps.reshape(b, h, w, self.classes).permute(0, 3, 1, 2)
        return logits


class PlainTSViTcls(_Tokens):
    """Channels (B, T, C, H, W) to logits (B, classes) of the chip."""

    def __init__(
        self,
        channels: int,
        *,
        size: int,
        classes: int,
        patch: int = 3,
        dim: int = 128,
        temporal_depth: int = 8,
        spatial_depth: int = 4,
        heads: int = 4,
        dim_head: int = 64,
    ) -> None:
        """The defaults are those of PASTIS24."""
        super().__init__(
            channels,
            size=size,
            classes=classes,
            patch=patch,
            dim=dim,
            temporal_depth=temporal_depth,
            spatial_depth=spatial_depth,
            heads=heads,
            dim_head=dim_head,
            days=365,
        )
        self.space_token = nn.Parameter(torch.randn(1, 1, dim))
        self.mlp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 1))

    def forward(self, series: Tensor, valid: Tensor) -> Tensor:  # padding is like any other date
        tokens = self.over_time(series)
        tokens = torch.cat([self.space_token.repeat(len(tokens), 1, 1), tokens], dim=1)
        logits: Tensor = self.mlp_head(self.space_transformer(tokens)[:, 0]).reshape(len(series), self.classes)
        return logits
