"""Supervised classification of chips: the class of the pixel in the middle, as TSViT's and SeCo's classifiers learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sits_models.encoder import Encoder
from sits_models.losses import cross_entropy
from sits_models.objectives.supervised import Supervised
from sits_models.sample import Sample

__all__ = ["Classification", "middle_class", "middle_observed"]


class Classification(Supervised):
    """An encoder and a linear layer on the mean of its embedding, or on the one embedding that it gives a chip.

    Tarasiou, Chavez and Zafeiriou, "ViTs for SITS: vision transformers for satellite image time series", CVPR 2023: a
    chip has the class of its middle.
    """

    def __init__(self, encoder: Encoder, *, classes: int, class_weights: Sequence[float] | None) -> None:
        """`class_weights` holds a factor a class; None: all classes alike.

        Raises ValueError for an encoder of finer labels.
        """
        super().__init__(classes=classes, class_weights=class_weights)
        if encoder.magnification != 1:
            raise ValueError(
                f"a classification gives one class a chip, so that labels {encoder.magnification} times finer are no "
                "use to it: set data.labels=1"
            )
        self.encoder = encoder
        ends_in_logits = encoder.backbone.head == "none"
        self.head = nn.Identity() if ends_in_logits else nn.Linear(encoder.channels, classes)

    def forward(self, sample: Sample) -> Tensor:
        """Logits of each chip, (B, K)."""
        return cast(Tensor, self.head(self.encoder(sample).mean(dim=(2, 3))))

    def target(self, sample: Sample) -> Tensor:
        """The class of each chip's middle, (B,)."""
        return middle_class(sample)

    def loss_of(self, logits: Tensor, target: Tensor) -> Tensor:
        """The cross entropy of logits (B, K) for the classes `target` (B,), a scalar."""
        return cross_entropy(logits[:, :, None, None], target[:, None, None], weights=self.class_weights)


def middle_class(sample: Sample) -> Tensor:
    """(B,) int64: the class of the pixel in each chip's middle, or IGNORE_INDEX.

    Where the side is even four pixels meet there: the one below and right, or, where that is hidden (`Sample.counted`),
    one that is not. So a chip that shows the label of one of them alone keeps its class when it is turned.
    """
    height, width = sample.crop.shape[-2:]
    found: Tensor | None = None
    for row in ((height - 1) // 2, height // 2):
        for column in ((width - 1) // 2, width // 2):
            crop, counted = sample.crop[:, row, column], sample.counted[:, row, column]
            # The last one, below and right, goes before the others.
            found = crop if found is None else torch.where(counted, crop, found)
    assert found is not None
    return found


def middle_observed(sample: Sample) -> Tensor:
    """(B,) bool: whether the pixel in each chip's middle, below and right of it, was observed on any of its dates."""
    height, width = sample.image.shape[-2:]
    middle = sample.image[..., height // 2, width // 2]  # (B, T, C)
    return (middle.view(torch.int16) != 0).flatten(1).any(dim=1)
