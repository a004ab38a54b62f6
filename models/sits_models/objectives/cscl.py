"""Context-self contrastive pretraining (CSCL): each pixel against the pixels of its window, in the same image.

Tarasiou, Guler and Zafeiriou, "Context-self contrastive pretraining for crop type semantic segmentation", IEEE TGRS
2022; code: michaeltrs/DeepSatModels. Formula, options and deliberate differences: docs/reference/cscl.md.
"""

from __future__ import annotations

import torch

from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss, SampleObjective
from sits_models.objectives.context_similarity import ContextSimilarity, Window, windows_of
from sits_models.objectives.pair_sweep import window_loss
from sits_models.objectives.pairs import PairRule, Pairs, PairSums, pairs_in_windows
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


class ContextContrast(SampleObjective):
    """An encoder whose embeddings are drawn together within a crop class (or parcel), and apart across its borders."""

    def __init__(self, encoder: Encoder, *, recipe: ContrastRecipe, background: bool = True) -> None:
        """`background`: whether class 0 means ground that is known to be no parcel, for `mask_background`.

        Raises ValueError for a backbone without an embedding a pixel.
        """
        super().__init__()
        if encoder.backbone.stride != 1:
            side = encoder.backbone.stride
            what = f"for {side} x {side} pixels" if side else "for the whole chip"
            raise ValueError(
                "a contrast of neighbouring pixels needs an embedding of every pixel; "
                f"{type(encoder.backbone).__name__} gives one {what}: choose a dense backbone"
            )
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
        pairs = self.pairs(sample)
        value, sums = window_loss(self.encoder(sample), self.similarity, pairs, rule=self.rule)
        window = self.similarity.window
        every = torch.full_like(sums.pairs, window.pairs_in(window.thin(pairs.identity)))
        return Loss(
            value,
            sums.pairs if self.rule.mean == "kept" else every,
            {"similarity_same": sums.mean_same, "similarity_different": sums.mean_different},
            {"similarity_same": sums.same, "similarity_different": sums.pairs - sums.same},
        )

    def pairs(self, sample: Sample) -> Pairs:
        """What the pixels of the sample are to each other, on its label grid.

        A pixel whose label is hidden is of no kind: its pairs cost nothing, whatever the recipe masks. A loss with the
        mean over "all" divides by the number of pairs of the grid, hidden ones too.
        """
        mask_background, mask_ignored = self.masks
        identity = sample.crop if self.same == "class" else sample.parcel
        dropped = ~sample.counted
        if mask_background:
            dropped |= identity == 0
        if mask_ignored:
            dropped |= sample.crop == IGNORE_INDEX
        return Pairs(identity=identity, counted=~dropped)
