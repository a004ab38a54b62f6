"""A transformer whose layers normalise first, and which computes no token that nobody asks for.

A. Vaswani et al., "Attention is all you need", NeurIPS 2017; with the norms in front, as in A. Dosovitskiy et al., "An
image is worth 16x16 words", ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Layer", "Transformer"]

Run = Callable[..., Tensor]
"""Calls its first argument with the others; `checkpointed` of a backbone is one."""


SLICE = 8192
"""Tokens of the rows that a CPU takes through the layers at a time. A step of TSViT is about a tenth quicker than with
all at once: what a layer computes stays in the cache, and its memory is used again."""

ROWS = 32768
"""Rows that other devices, and compiled models, take at a time: CUDA's kernels of attention stop at 65535."""


class Transformer(nn.Module):
    """Layers one after the other, and a layer norm behind the last."""

    def __init__(
        self, channels: int, *, depth: int, heads: int, head_channels: int, hidden: int, dropout: float
    ) -> None:
        """`hidden` channels are between the two linear layers of an MLP; `dropout` is of what each layer adds."""
        super().__init__()
        self.layers = nn.ModuleList(Layer(channels, heads, head_channels, hidden, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, *, run: Run, kept: int | None = None, seen: Tensor | None = None) -> Tensor:
        """(N, L, C) to the first `kept` tokens of each row, (N, kept, C); None: to all.

        `seen` (N, L) is False for tokens that no other attends to, and that are not to be kept; None: all are seen.
        """
        if torch.compiler.is_exporting():  # shapes decide, and an export is for all of them
            return self._run(tokens, run, kept, seen)
        # A compiler would write the layers out for every part: no more of them than have to be.
        few = tokens.device.type != "cpu" or torch.compiler.is_compiling()
        rows = ROWS if few else max(1, SLICE // tokens.shape[1])
        parts = torch.split(tokens, rows)
        masks = [None] * len(parts) if seen is None else torch.split(seen, rows)
        return torch.cat([self._run(part, run, kept, mask) for part, mask in zip(parts, masks, strict=True)])

    def _run(self, tokens: Tensor, run: Run, kept: int | None, seen: Tensor | None) -> Tensor:
        mask = None if seen is None else seen[:, None, None, :]  # (N, 1, 1, L), for all heads and queries
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            tokens = run(partial(layer, mask=mask, kept=kept if i == last else None), tokens)
        return cast(Tensor, self.norm(tokens))


class Layer(nn.Module):
    """Attention and a multilayer perceptron of two layers, each on normalised tokens and added to them."""

    def __init__(self, channels: int, heads: int, head_channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        inner = heads * head_channels
        self.attention_norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * inner, bias=False)
        self.out = nn.Linear(inner, channels)
        self.mlp_norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, hidden)
        self.down = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor, *, mask: Tensor | None, kept: int | None) -> Tensor:
        """(N, L, C) to (N, L, C), or to the first `kept` tokens; `mask` (N, 1, 1, L) is True where a token is seen."""
        attended = self._attend(self.attention_norm(tokens), mask, kept)
        tokens = (tokens if kept is None else tokens[:, :kept]) + self._dropped(_linear(attended, self.out))
        hidden = self._dropped(functional.gelu(_linear(self.mlp_norm(tokens), self.up)))
        return tokens + self._dropped(_linear(hidden, self.down))

    def _attend(self, normal: Tensor, mask: Tensor | None, kept: int | None) -> Tensor:
        """What the heads gather, (N, kept or L, heads * head_channels)."""
        n, length, _ = normal.shape
        if kept is None:
            q, k, v = _linear(normal, self.qkv).reshape(n, length, 3, self.heads, -1).unbind(2)  # (N, L, heads, D) each
        else:  # a last layer needs queries of the tokens alone that are kept
            inner = self.qkv.out_features // 3
            of_q, of_kv = self.qkv.weight[:inner], self.qkv.weight[inner:]
            q = _product(normal[:, :kept].contiguous(), of_q, None).reshape(n, kept, self.heads, -1)
            k, v = _product(normal, of_kv, None).reshape(n, length, 2, self.heads, -1).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (N, heads, L, D) each
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2)

    def _dropped(self, tokens: Tensor) -> Tensor:
        return functional.dropout(tokens, self.dropout, self.training) if self.dropout else tokens


def _linear(tokens: Tensor, layer: nn.Linear) -> Tensor:
    """A linear layer on contiguous tokens (N, L, C)."""
    return _product(tokens, layer.weight, layer.bias)


def _product(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Contiguous tokens (N, L, C) times a matrix (O, C), and a bias: (N, L, O).

    On a CPU as a convolution of 1 x 1, which PyTorch leaves to oneDNN, where a product of matrices goes to MKL: on
    processors that are not Intel's that one is half as fast, as it leaves their widest registers out.
    """
    n, length, channels = tokens.shape
    if tokens.device.type != "cpu" or n == 1 or torch.compiler.is_compiling():
        return functional.linear(tokens, weight, bias)
    image = tokens.view(n, 1, length, channels).permute(0, 3, 1, 2)  # (N, C, 1, L), channels last in memory
    return functional.conv2d(image, weight[:, :, None, None], bias).permute(0, 2, 3, 1).view(n, length, -1)
