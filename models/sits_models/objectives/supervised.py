"""What a segmentation and a classification share: class weights, and what a step tells of logits and labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from sits_models.objectives.base import Loss, SampleObjective
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["Supervised"]


class Supervised(SampleObjective):
    """An objective that gives logits (B, K, ...) for labels (B, ...), of pixels or of chips."""

    class_weights: Tensor | None
    classes: int

    def __init__(self, *, classes: int, class_weights: Sequence[float] | None) -> None:
        """`class_weights` holds a factor a class; None: all classes alike. Raises ValueError for another number."""
        super().__init__()
        if class_weights is not None and len(class_weights) != classes:
            raise ValueError(f"{classes} classes need as many weights; got {len(class_weights)}")
        self.classes = classes
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)  # of the training, not of the model

    @abstractmethod
    def forward(self, sample: Sample) -> Tensor:
        """Logits (B, K, ...)."""

    @abstractmethod
    def target(self, sample: Sample) -> Tensor:
        """The labels (B, ...) that the logits are for, IGNORE_INDEX where there is none."""

    @abstractmethod
    def loss_of(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (B, K, ...) for these labels, a scalar."""

    def loss(self, sample: Sample) -> Loss:
        """The mean over what has a class, weighted by the class weights; watched: the share that is right."""
        return self.supervised_loss(self(sample), self.target(sample))

    def supervised_loss(self, logits: Tensor, target: Tensor) -> Loss:
        """The same of logits that are there already."""
        with torch.no_grad():
            kept = target != IGNORE_INDEX
            # Ten times as fast as `argmax` on a CPU.
            right = (logits.max(dim=1).indices == target) & kept
            accuracy = right.sum() / kept.sum().clamp(min=1)
            count = kept.sum() if self.class_weights is None else self.class_weights[target[kept]].sum()
        return Loss(self.loss_of(logits, target), count, {"accuracy": accuracy}, {"accuracy": kept.sum()})
