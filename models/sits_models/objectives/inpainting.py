"""Inpainting: blocks of a chip are hidden, and filled in from what is around them.

Pathak, Krähenbühl, Donahue, Darrell and Efros, "Context encoders: feature learning by inpainting", CVPR 2016, without
its adversarial loss; as Li et al. (GLCNet, IEEE TGRS 2022) compare it with theirs: 16 blocks of 16 x 16 px at random,
and 0.99 x the squared error where it is hidden + 0.01 x that of the rest. Deliberate differences: the decoder is one
1x1 convolution on the embedding map, so that what is learnt lies in the backbone; errors are of normalised values; what
was not observed costs nothing; and each chip has its own two means, so that processes can share a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.data.draws import Draws
from sits_models.data.looks import draw_look, draw_single
from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss, Objective
from sits_models.objectives.chip_embeddings import embed_nothing, enough_chips, require_plain
from sits_models.recipe import Augmentation, InpaintingRecipe
from sits_models.sample import Sample

__all__ = ["HiddenBlocks", "Inpainting", "hide_blocks"]


@dataclass(frozen=True)
class HiddenBlocks:
    """Chips, whole, and what of them the encoder is not to see."""

    sample: Sample
    hidden: Tensor
    """(B, H, W) bool."""

    def __post_init__(self) -> None:
        shape = tuple(self.sample.boundary.shape)
        if tuple(self.hidden.shape) != shape:
            raise ValueError(f"hidden is a mask of the pixels, {shape}; got {tuple(self.hidden.shape)}")


def hide_blocks(sample: Sample, options: InpaintingRecipe, *, draws: Draws) -> HiddenBlocks:
    """Blocks at random places of each chip, each of which lies inside.

    Raises ValueError for a chip smaller than a block, and where the draws are of another number of chips.
    """
    b, h, w = sample.boundary.shape
    side = options.side
    if min(h, w) < side:
        raise ValueError(f"a block of {side} px does not fit into chips of {h} x {w} px: set data.size={side} or more")
    draws.check(b)
    room = torch.tensor([h - side + 1, w - side + 1])
    first = (draws.uniform(options.blocks, 2) * room).long()  # (B, blocks, 2): row and column
    rows, columns = (
        (torch.arange(length) >= start) & (torch.arange(length) < start + side)  # (B, blocks, length)
        for length, start in ((h, first[..., :1]), (w, first[..., 1:]))
    )
    hidden = (rows[:, :, :, None] & columns[:, :, None, :]).any(dim=1)
    return HiddenBlocks(sample, hidden.to(sample.image.device))


class Inpainting(Objective[HiddenBlocks]):
    """An encoder and a 1x1 convolution from its embeddings to the bands."""

    def __init__(self, encoder: Encoder, *, options: InpaintingRecipe) -> None:
        """Raises ValueError for an encoder of finer labels, of logits, or of one embedding a chip."""
        super().__init__()
        require_plain(encoder, "an inpainting")
        if encoder.backbone.stride == 0:
            raise ValueError(
                f"an inpainting needs an embedding map; {type(encoder.backbone).__name__} gives one embedding a chip: "
                "choose a dense backbone"
            )
        self.encoder = encoder
        self.options = options
        self.head = nn.Conv2d(encoder.channels, len(encoder.bands), 1)

    def views(self, sample: Sample, augmentation: Augmentation, draws: Draws) -> HiddenBlocks:  # noqa: ARG002
        """One date, with blocks hidden; chips without a date that is clear enough are left out."""
        (date,), there = draw_single(sample, self.options.dates, draws)
        look = draw_look(date, self.options.geometry, None, draws).sample
        found = hide_blocks(look, self.options, draws=draws)
        there = enough_chips(self.encoder, there, side=look.image.shape[-1])
        return HiddenBlocks(look.take(there), found.hidden[there])

    def loss(self, views: HiddenBlocks) -> Loss:
        """The mean over the chips of the weighted squared errors; watched: both errors.

        Raises ValueError for a series of more than one date.
        """
        sample, hidden = views.sample, views.hidden[:, None]  # (B, 1, H, W)
        if sample.image.shape[1] != 1:
            raise ValueError(
                f"an inpainting fills in single dates; got {sample.image.shape[1]}: set data.dates={{pick: random, "
                "n: 1}"
            )
        image = sample.image.to(torch.float32)
        wanted, observed = self.encoder.normalize(image)[:, 0], image[:, 0] != 0  # (B, C, H, W)
        seen = sample.replace(image=image.masked_fill(hidden[:, None], 0.0))
        squared = (self.filled(seen).to(torch.float32) - wanted).square()
        inside, outside = (_mean_of_chips(squared, observed & part) for part in (hidden, ~hidden))
        weight, count = self.options.weight, torch.tensor(float(len(image)), device=image.device)
        return Loss(
            weight * inside + (1 - weight) * outside,
            count,
            {"error_hidden": inside.detach(), "error_seen": outside.detach()},
        )

    def filled(self, sample: Sample) -> Tensor:
        """The normalised image as the network has it, (B, C, H, W), resized with corners on corners."""
        size = sample.image.shape[-2:]
        embedded = embed_nothing(self.encoder, sample, self.encoder.channels, *size)
        values = cast(Tensor, self.head(self.encoder(sample) if embedded is None else embedded))
        if values.shape[-2:] == size:
            return values
        return functional.interpolate(values, size=size, mode="bilinear", align_corners=True)


def _mean_of_chips(values: Tensor, counted: Tensor) -> Tensor:
    """The mean over the chips of the mean over what counts in each, a scalar; 0 for a chip where nothing does."""
    total = torch.where(counted, values, 0.0).flatten(1).sum(dim=1)
    return (total / counted.flatten(1).sum(dim=1).clamp(min=1)).sum() / max(1, len(values))
