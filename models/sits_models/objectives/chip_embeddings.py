"""What a pretraining takes of an encoder other than an embedding a pixel: one a chip, and the two maps of a DeepLab."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sits_models.backbones import backbone_class
from sits_models.backbones.deeplab import DeepLab
from sits_models.encoder import Encoder
from sits_models.recipe import Recipe
from sits_models.sample import Sample

__all__ = [
    "JOINED_STRIDE",
    "chip_channels",
    "embed_chips",
    "embed_maps",
    "embed_nothing",
    "enough_chips",
    "leave_decoder_out",
    "leaves_decoder_out",
    "require_plain",
]

JOINED_STRIDE = 16
"""Input pixels along a side of a pixel of the joined branches of a DeepLab."""


def chip_channels(encoder: Encoder) -> int:
    """C of `embed_chips`."""
    backbone = encoder.backbone
    return backbone.context_channels if isinstance(backbone, DeepLab) else encoder.channels


def embed_chips(encoder: Encoder, sample: Sample) -> Tensor:
    """One embedding a chip, (B, C), float32: the mean of the map, of a DeepLab that of its joined branches."""
    if (nothing := embed_nothing(encoder, sample, chip_channels(encoder))) is not None:
        return nothing
    embedded = embed_maps(encoder, sample)[1] if isinstance(encoder.backbone, DeepLab) else encoder(sample)
    return embedded.mean(dim=(2, 3), dtype=torch.promote_types(embedded.dtype, torch.float32))


def embed_nothing(encoder: Encoder, sample: Sample, *shape: int) -> Tensor | None:
    """What stands for embeddings (0, *shape) where a sample has no chip, with gradients of 0 for all that learns; None
    where it has any, or where batch norms of other GPUs wait for this one's.

    Not all backbones take a batch of nothing.
    """
    if len(sample.place) or any(isinstance(module, nn.SyncBatchNorm) for module in encoder.modules()):
        return None
    learnt = [parameter.sum() for parameter in encoder.parameters() if parameter.requires_grad]
    nothing = torch.stack(learnt).sum() if learnt else encoder.mean.sum()
    return nothing.expand(0, *shape)


def embed_maps(encoder: Encoder, sample: Sample) -> tuple[Tensor, Tensor]:
    """Of a DeepLab, the map of the first stage and that of the joined branches; see `DeepLab.encode`.

    Raises ValueError for other bands, or another number of dates.
    """
    backbone = encoder.backbone
    assert isinstance(backbone, DeepLab)  # objectives that need the maps refuse others
    if sample.bands != encoder.bands:
        raise ValueError(f"this model takes the bands {', '.join(encoder.bands)}; got {', '.join(sample.bands)}")
    image = encoder.normalize(sample.image)
    backbone.check(image)
    return backbone.encode(backbone.frame(image, sample.valid, sample.day))


def enough_chips(encoder: Encoder, there: Tensor, *, side: int) -> Tensor:
    """Which of the chips that are there, (B,) bool, a step sees: all of them, or none where it is one alone, of which
    batch norms in training would take their statistics over a single value. `side` is that of what the encoder sees.

    Clouds leave a chip out, so that no batch is large enough beforehand.
    """
    single = encoder.backbone.least_chips(side) > 1 and any(
        isinstance(module, nn.BatchNorm2d) and module.training for module in encoder.backbone.modules()
    )
    return there & (there.sum() > 1) if single else there


def leave_decoder_out(encoder: Encoder) -> None:
    """Let no gradient be waited for in the decoder of a DeepLab, whose weights stay as they are drawn.

    Other processes would wait for one, and an optimiser would let the weights decay.
    """
    if isinstance(encoder.backbone, DeepLab):
        encoder.backbone.decoder.requires_grad_(requires_grad=False)


def leaves_decoder_out(recipe: Recipe) -> bool:
    """Whether a recipe trains a DeepLab, but for its decoder: all that learns without labels does, but inpainting."""
    deeplab = issubclass(backbone_class(recipe.backbone.name), DeepLab)
    return deeplab and recipe.label_free and recipe.inpainting is None


def require_plain(encoder: Encoder, what: str) -> None:
    """Raises ValueError for finer labels, or for a backbone that gives logits, of which there are none in a `what`."""
    name = type(encoder.backbone).__name__
    if encoder.magnification != 1:
        raise ValueError(
            f"{what} has no labels, so that ones {encoder.magnification} times finer are no use to it: set "
            "data.labels=1"
        )
    if encoder.backbone.head == "none":
        raise ValueError(f"{what} needs embeddings; {name} gives logits of classes: choose another backbone")
