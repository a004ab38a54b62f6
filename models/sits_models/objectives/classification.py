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
        """`class_weights` holds a factor a class; None: all classes alike.

        Raises ValueError for an encoder of finer labels.
        """
        super().__init__()
        if encoder.magnification != 1:
            raise ValueError(
                f"a classification gives one class a chip, so that labels {encoder.magnification} times finer are no "
                "use to it: set data.labels=1"
            )
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
        return Loss(self.loss_of(logits, target), count, {"accuracy": accuracy}, {"accuracy": kept.sum()})

    def loss_of(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (B, K) for the classes `target` (B,), a scalar."""
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
