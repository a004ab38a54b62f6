"""Batch norms that cannot tell which key belongs to a query: keys are encoded in another process than their query.

He et al., "Momentum contrast for unsupervised visual representation learning" (MoCo), CVPR 2020, section 3.3: where
each process normalises by statistics of its own chips, these give away which keys were in the query's batch. It has
an effect only with several processes and batch norms that are not synchronized between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sits_models.objectives.gathering import Gathered, own_rows
from sits_models.sample import Sample

__all__ = ["Apart", "Encode", "Shuffled", "here"]

Encode = Callable[[Sample], Tensor]
"""A sample of B chips to vectors (B, D)."""
Apart = Callable[[Encode, Sample, Tensor], Tensor]
"""What the encoder gives for a sample, (B, D), wherever its chips were encoded; the last is a draw for each, (B,), by
which chips may be dealt out."""


def here(encode: Encode, sample: Sample, deal: Tensor) -> Tensor:  # noqa: ARG001  # nothing is dealt out
    """Encoded in this process."""
    return encode(sample)


@dataclass(frozen=True)
class Shuffled:
    """The chips of all processes are dealt out by their draws, each process encodes as many as it has, and gets its own
    back."""

    gathered: Gathered

    def __call__(self, encode: Encode, sample: Sample, deal: Tensor) -> Tensor:
        """All processes ask together; `deal` (B,) holds a number a chip, of which equal ones stay in their order."""
        image = self.gathered(sample.image.to(torch.float32))  # as the encoder takes it; uint16 cannot be indexed
        own = own_rows(len(sample.image), self.gathered, device=image.device)
        order = self.gathered(deal.to(image.device)).argsort(stable=True)
        mine = order[own]
        # An encoder reads no labels.
        dealt = sample.replace(
            image=image[mine], valid=self.gathered(sample.valid)[mine], day=self.gathered(sample.day)[mine]
        )
        every = self.gathered(encode(dealt))  # in the order in which they were dealt
        return every[order.argsort()[own]]
