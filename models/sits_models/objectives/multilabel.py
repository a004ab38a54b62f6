"""Which of the classes a chip has, any number of them, as SeCo is finetuned and probed on BigEarthNet.

O. Mañas et al., "Seasonal contrast: unsupervised pre-training from uncurated remote sensing data" (SeCo), ICCV 2021;
code: github.com/ServiceNow/seasonal-contrast, main_bigearthnet.py. Differences: a chip is seen at its own side, not
resized to 128 px; the encoder's batch norms learn in a finetuning, and stand still in a probe (`training.probe`) alone;
the average precision is that of a whole split (`metrics.average_precision`), where the published number is the mean
over batches of what each gives alone.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss, SampleObjective
from sits_models.recipe import MultiLabelRecipe
from sits_models.sample import Sample

__all__ = ["MultiLabel", "soft_margin"]


class MultiLabel(SampleObjective):
    """An encoder, the mean of its embedding map, dropout, and a linear layer: one logit for each class of a chip.

    Of a backbone that ends in logits, their mean alone.
    """

    def __init__(self, encoder: Encoder, *, classes: int, recipe: MultiLabelRecipe) -> None:
        """Raises ValueError for no class, and for an encoder of finer labels."""
        super().__init__()
        if classes < 1:
            raise ValueError("a multilabel tells which classes a chip has; got none: give it chips with labels")
        if encoder.magnification != 1:
            raise ValueError(
                f"a multilabel knows the classes of a chip, so that labels {encoder.magnification} times finer are no "
                "use to it: set data.labels=1"
            )
        self.encoder = encoder
        self.classes = classes
        ends_in_logits = encoder.backbone.head == "none"
        self.dropout = nn.Identity() if ends_in_logits else nn.Dropout(recipe.dropout)
        self.head = nn.Identity() if ends_in_logits else nn.Linear(encoder.channels, classes)

    def forward(self, sample: Sample) -> Tensor:
        """Logits of each class of each chip, (B, K)."""
        return cast(Tensor, self.head(self.dropout(self.encoder(sample).mean(dim=(2, 3)))))

    def present(self, sample: Sample) -> Tensor:
        """Which classes each chip has, (B, K) bool. Raises ValueError for chips whose classes are not known."""
        if sample.present is None:
            raise ValueError(
                "a multilabel learns from chips that are labelled as such, and these have labels of pixels or none: "
                "give it a patch set with several labels a patch, such as data.layout=bigearthnet, or the recipe the "
                "section segmentation"
            )
        if sample.present.shape[1] != self.classes:
            raise ValueError(
                f"this model knows {self.classes} classes; the chips are labelled with {sample.present.shape[1]}: give "
                "it those of the class table that it was built for"
            )
        return sample.present

    def loss(self, sample: Sample) -> Loss:
        """The mean over the chips; watched: the share of (chip, class) pairs that are told right."""
        return self.labelled_loss(self(sample), self.present(sample))

    def labelled_loss(self, logits: Tensor, present: Tensor) -> Loss:
        """The same of logits that are there already, both (B, K)."""
        with torch.no_grad():
            right = ((logits > 0) == present).to(torch.float32).mean()
            count = torch.tensor(len(logits), device=logits.device)
        return Loss(soft_margin(logits, present), count, {"accuracy": right})


def soft_margin(logits: Tensor, present: Tensor) -> Tensor:
    """The mean over chips and classes of log(1 + exp(-x)) where a class is there, and log(1 + exp(x)) where it is not.

    The multi-label soft margin loss: binary cross entropies, every class alike. Both arguments are (B, K).
    """
    return functional.multilabel_soft_margin_loss(logits, present.to(logits.dtype))
