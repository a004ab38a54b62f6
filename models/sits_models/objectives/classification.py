"""Supervised classification of chips: the class of the pixel in the middle, as TSViT's and SeCo's classifiers learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sits_models.encoder import Encoder
from sits_models.losses import cross_entropy
from sits_models.objectives.base import Loss, Objective
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["Classification", "middle_class"]


class Classification(Objective):
    """An encoder and a linear layer on the mean of its embedding, or on the one embedding that it gives a chip.

    Tarasiou, Chavez and Zafeiriou, "ViTs for SITS: vision transformers for satellite image time series", CVPR 2023: a
    chip has the class of its middle.
    """

    class_weights: Tensor | None

    def __init__(self, encoder: Encoder, *, classes: int, class_weights: Sequence[float] | None) -> None:
        """`class_weights` holds a factor a class; None: all classes alike."""
        super().__init__()
        if class_weights is not None and len(class_weights) != classes:
            raise ValueError(f"{classes} classes need as many weights; got {len(class_weights)}")
        self.encoder = encoder
        self.classes = classes
        ends_in_logits = encoder.backbone.head == "none"
        self.head = nn.Identity() if ends_in_logits else nn.Linear(encoder.channels, classes)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)  # of the training, not of the model

    def forward(self, sample: Sample) -> Tensor:
        """Logits of each chip, (B, K)."""
        return cast(Tensor, self.head(self.encoder(sample).mean(dim=(2, 3))))

    def loss(self, sample: Sample) -> Loss:
        """Cross entropy, the mean over the chips whose middle has a class; watched: the share that is right."""
        logits, target = self(sample), middle_class(sample)
        with torch.no_grad():
            kept = target != IGNORE_INDEX
            right = (logits.argmax(dim=1) == target) & kept
            accuracy = right.sum() / kept.sum().clamp(min=1)
            count = kept.sum() if self.class_weights is None else self.class_weights[target[kept]].sum()
        value = cross_entropy(logits[:, :, None, None], target[:, None, None], weights=self.class_weights)
        return Loss(value, count, {"accuracy": accuracy})


def middle_class(sample: Sample) -> Tensor:
    """(B,) int64: the class of the pixel below and right of each chip's middle, or IGNORE_INDEX."""
    height, width = sample.crop.shape[-2:]
    return sample.crop[:, height // 2, width // 2]
