"""What a training loop asks of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor, nn

from sits_models.encoder import Encoder
from sits_models.sample import Sample

__all__ = ["Loss", "Objective"]


@dataclass(frozen=True)
class Loss:
    """The value to minimise, a scalar, and what is worth watching beside it, scalars without gradient."""

    value: Tensor
    """A mean over what counts in the batch; 0 where nothing does."""
    count: Tensor
    """What it was divided by (pixels, pairs or their weights), a scalar without gradient, 0 where nothing counts: the
    loss of a batch that several devices share is the mean of theirs weighted by it."""
    monitors: dict[str, Tensor] = field(default_factory=dict)
    over: dict[str, Tensor] = field(default_factory=dict)
    """What the monitors are means over, by their names, where that is not `count`."""


class Objective(nn.Module, ABC):
    """An encoder and what it is trained for."""

    encoder: Encoder

    @abstractmethod
    def loss(self, sample: Sample) -> Loss:
        """The loss of a batch; a batch without a pixel that counts has the value 0 and gradients of 0."""
