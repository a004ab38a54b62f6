"""SimCLR: one vector a chip, drawn to that of another view of it and away from those of all other chips.

Chen, Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual representations", ICML 2020;
on DeepLabV3+ as Li et al. (GLCNet, IEEE TGRS 2022; code: github.com/GeoX-Lab/G-RSIM, T-SS-GLCNet) compare it with
theirs: the mean of the joined branches, a projection head 256-256-64, and no decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss, Objective
from sits_models.objectives.chip_embeddings import chip_channels, embed_chips, leave_decoder_out, require_plain
from sits_models.objectives.projection import build_projection
from sits_models.objectives.view_contrast import Gathered, ViewContrast, as_it_is, count_of
from sits_models.sample import Sample

__all__ = ["ChipContrast", "ChipContrastOptions", "ChipViews"]


@dataclass(frozen=True, kw_only=True)
class ChipViews:
    """Two views of the same chips, in the same order."""

    first: Sample
    second: Sample

    def __post_init__(self) -> None:
        chips = self.first.image.shape[0], self.second.image.shape[0]
        if chips[0] != chips[1]:
            raise ValueError(f"two views show the same chips; got {chips[0]} and {chips[1]}")


class ChipContrast(Objective):
    """An encoder and a projection head of two layers."""

    gathered: Gathered
    """What gives vectors of all processes from those of one; the engine sets it."""

    def __init__(self, encoder: Encoder, *, options: ChipContrastOptions) -> None:
        """Raises ValueError for an encoder of finer labels, or of logits."""
        super().__init__()
        require_plain(encoder, "a contrast of chips")
        leave_decoder_out(encoder)
        self.encoder = encoder
        self.contrast = ViewContrast(temperature=options.temperature, decoupled=options.decoupled)
        self.gathered = as_it_is
        inputs = chip_channels(encoder)
        self.head = build_projection(
            inputs, hidden=(inputs,), outputs=options.channels, kind="vector", batch_norm=False
        )

    def loss(self, views: ChipViews) -> Loss:  # type: ignore[override]  # views of a sample, and not the sample
        """The loss of a batch, which counts both views of each chip; watched: how often the positive is found, and
        the effective rank. Raises ValueError for a single chip in training."""
        found = self.contrast(self.embed(views.first), self.embed(views.second), gathered=self.gathered)
        image = views.first.image
        return Loss(
            found.value,
            count_of(found, chips=image.shape[0], training=self.training, device=image.device),
            {"accuracy": found.accuracy, "effective_rank": found.effective_rank},
        )

    def embed(self, sample: Sample) -> Tensor:
        """The projection of each chip, (B, D)."""
        return cast(Tensor, self.head(embed_chips(self.encoder, sample)))
