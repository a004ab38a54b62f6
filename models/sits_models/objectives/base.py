"""What a training loop asks of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Generic

from torch import Tensor, nn
from typing_extensions import TypeVar

from sits_models.data.draws import Draws
from sits_models.data.transforms import augment
from sits_models.encoder import Encoder
from sits_models.objectives.gathering import Gathered, as_it_is
from sits_models.recipe import Augmentation
from sits_models.sample import Sample

__all__ = ["Loss", "Objective", "SampleObjective"]


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


Seen = TypeVar("Seen", default=Sample)


class Objective(nn.Module, ABC, Generic[Seen]):  # the default of a parameter is Python 3.13's
    """An encoder and what it is trained for, by what it sees of a sample (`Seen`)."""

    encoder: Encoder
    gathered: Gathered = staticmethod(as_it_is)
    """What brings together what the processes of a training have; the engine sets it."""

    @property
    def compared(self) -> Gathered:
        """What losses compare with: what all processes have in training, and this one alone in an evaluation, of which
        it may have fewer batches than others, so that they would wait for it."""
        return self.gathered if self.training else as_it_is

    def catch_up(self) -> None:  # most have nothing that follows
        """Called where weights were loaded into the encoder alone: what follows it is there at once."""

    @abstractmethod
    def views(self, sample: Sample, augmentation: Augmentation, draws: Draws) -> Seen:
        """What is seen of a batch in a step, drawn anew."""

    @abstractmethod
    def loss(self, seen: Seen) -> Loss:
        """The loss of a batch; a batch without a pixel that counts has the value 0 and gradients of 0."""


class SampleObjective(Objective[Sample]):
    """An objective that sees the sample itself, augmented."""

    def views(self, sample: Sample, augmentation: Augmentation, draws: Draws) -> Sample:
        """The sample, augmented as the recipe says."""
        return augment(sample, augmentation, generator=draws.generator, part=draws.part, of=draws.chips)
