"""Pairs of pixels: which are of one kind, which count, and how they make a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from sits_models.objectives.context_similarity import Window, windows_of
from sits_models.recipe import ContrastRecipe

__all__ = ["OUTSIDE", "PairRule", "PairSums", "Pairs", "pairs_in_windows"]

OUTSIDE = torch.iinfo(torch.int64).min
"""Stands for the label of what lies outside of the image; equal to no other."""


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
    """all: divided by the number of all pairs of the grid, whether they count or not; kept: of those that count."""

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
