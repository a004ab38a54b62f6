"""Supervised segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor
from torch.nn import functional

from sits_models.encoder import Encoder
from sits_models.heads import build_head, head_reach
from sits_models.losses import cross_entropy, focal_loss
from sits_models.objectives.supervised import Supervised
from sits_models.recipe import SegmentationRecipe
from sits_models.sample import Sample

__all__ = ["Segmentation"]


class Segmentation(Supervised):
    """An encoder with the published head of its backbone, trained by the crop class of each pixel."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int,
        recipe: SegmentationRecipe,
        class_weights: Sequence[float] | None,
    ) -> None:
        """`class_weights` holds a factor a class; None: all classes alike.

        Raises ValueError for a backbone that gives one embedding a chip.
        """
        super().__init__(classes=classes, class_weights=class_weights)
        if encoder.backbone.stride == 0:
            raise ValueError(
                f"{type(encoder.backbone).__name__} gives one class a chip and none a pixel: give the recipe the "
                "section classification in place of segmentation, or a dense backbone"
            )
        self.encoder = encoder
        self.recipe = recipe
        backbone = encoder.backbone
        self.head = build_head(backbone.head, channels=encoder.channels, classes=classes, variant=backbone.variant)

    @property
    def reach(self) -> int | None:
        """Input pixels on each side that a logit depends on; None: the whole chip."""
        if self.encoder.reach is None:
            return None
        # The head works on the magnified map; a part of an input pixel is a pixel.
        return self.encoder.reach - (-head_reach(self.encoder.backbone.head) // self.encoder.magnification)

    def forward(self, sample: Sample) -> Tensor:
        """Logits at the resolution of the labels, (B, K, mH, mW)."""
        logits = cast(Tensor, self.head(self.encoder(sample)))
        side = self.encoder.magnification * sample.image.shape[-1]
        if logits.shape[-1] == side:
            return logits
        # Corners on corners, as in DeepLabV3+ of GLCNet. A resize and a 1x1 convolution may change places: the logits
        # are fewer than the channels.
        size = (self.encoder.magnification * sample.image.shape[-2], side)
        return functional.interpolate(logits, size=size, mode="bilinear", align_corners=True)

    def target(self, sample: Sample) -> Tensor:
        """The class of each pixel, (B, mH, mW)."""
        return sample.crop

    def loss_of(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross entropy or focal loss of logits (B, K, H, W) for the classes `target` (B, H, W), a scalar."""
        if self.recipe.loss == "focal":
            return focal_loss(logits, target, gamma=self.recipe.gamma, weights=self.class_weights)
        return cross_entropy(logits, target, weights=self.class_weights)
