"""SimCLR: one vector a chip, drawn to that of another view of it and away from those of all other chips.

Chen, Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual representations", ICML 2020;
on DeepLabV3+ as Li et al. (GLCNet, IEEE TGRS 2022; code: github.com/GeoX-Lab/G-RSIM, T-SS-GLCNet) compare it with
theirs: the mean of the joined branches, a projection head 256-256-64, and no decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from sits_models.data.draws import Draws
from sits_models.data.looks import draw_look, draw_single
from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss, Objective
from sits_models.objectives.chip_embeddings import (
    chip_channels,
    embed_chips,
    enough_chips,
    leave_decoder_out,
    require_plain,
)
from sits_models.objectives.projection import build_projection
from sits_models.objectives.view_contrast import ViewContrast, count_of
from sits_models.recipe import Augmentation, SimCLRRecipe
from sits_models.sample import Sample

__all__ = ["ChipContrast", "ChipViews"]


@dataclass(frozen=True, kw_only=True)
class ChipViews:
    """Two views of the same chips, in the same order."""

    first: Sample
    second: Sample

    def __post_init__(self) -> None:
        chips = self.first.image.shape[0], self.second.image.shape[0]
        if chips[0] != chips[1]:
            raise ValueError(f"two views show the same chips; got {chips[0]} and {chips[1]}")


class ChipContrast(Objective[ChipViews]):
    """An encoder and a projection head of two layers."""

    def __init__(self, encoder: Encoder, *, options: SimCLRRecipe) -> None:
        """Raises ValueError for an encoder of finer labels, or of logits."""
        super().__init__()
        require_plain(encoder, "a contrast of chips")
        leave_decoder_out(encoder)
        self.encoder = encoder
        self.options = options
        self.contrast = ViewContrast(temperature=options.temperature, decoupled=options.decoupled)
        inputs = chip_channels(encoder)
        self.head = build_projection(
            inputs, hidden=(inputs,), outputs=options.channels, kind="vector", batch_norm=False
        )

    def views(self, sample: Sample, augmentation: Augmentation, draws: Draws) -> ChipViews:  # noqa: ARG002
        """Two views of one date, the second of other values; chips without a date that is clear enough are left out."""
        (date,), there = draw_single(sample, self.options.dates, draws)
        first = draw_look(date, self.options.first, None, draws).sample
        second = draw_look(date, self.options.second, self.options.photometry, draws).sample
        there = enough_chips(self.encoder, there, side=min(first.image.shape[-1], second.image.shape[-1]))
        return ChipViews(first=first.take(there), second=second.take(there))

    def loss(self, views: ChipViews) -> Loss:
        """The loss of a batch, which counts both views of each chip; watched: how often the positive is found, and
        the effective rank. 0 where no other chip is there to tell one from."""
        found = self.contrast(self.embed(views.first), self.embed(views.second), gathered=self.compared)
        image = views.first.image
        return Loss(
            found.value,
            count_of(found, chips=image.shape[0], device=image.device),
            {"accuracy": found.accuracy, "effective_rank": found.effective_rank},
        )

    def embed(self, sample: Sample) -> Tensor:
        """The projection of each chip, (B, D)."""
        return cast(Tensor, self.head(embed_chips(self.encoder, sample)))
