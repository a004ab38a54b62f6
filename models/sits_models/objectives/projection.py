"""Projection heads: what stands between an embedding and the space that a contrast compares in.

Chen et al., "A simple framework for contrastive learning of visual representations" (SimCLR), ICML 2020, section 4.2: a
small network with one hidden layer, thrown away after pretraining.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import nn

__all__ = ["ProjectionKind", "build_projection"]

ProjectionKind = Literal["dense", "vector"]


def build_projection(
    inputs: int, *, hidden: tuple[int, ...], outputs: int, kind: ProjectionKind, batch_norm: bool
) -> nn.Sequential:
    """Linear maps with ReLU between them, each in front of a ReLU followed by batch normalisation where `batch_norm`.

    dense: of a map (B, inputs, H, W), pixel by pixel. vector: of vectors (N, inputs), the same of a list of pixels but
    that batch normalisation takes its statistics over that list. `hidden` holds the channels between the linear maps;
    empty, there is one map alone. A map in front of a batch normalisation has no bias, which that would take away.
    """
    channels = (inputs, *hidden, outputs)
    layers: list[nn.Module] = []
    for number, (fewer, more) in enumerate(pairwise(channels), start=1):
        between = number <= len(hidden)
        bias = not (between and batch_norm)
        layers.append(nn.Conv2d(fewer, more, 1, bias=bias) if kind == "dense" else nn.Linear(fewer, more, bias=bias))
        if between and batch_norm:
            layers.append(nn.BatchNorm2d(more) if kind == "dense" else nn.BatchNorm1d(more))
        if between:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
