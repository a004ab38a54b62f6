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

from sits_models.sample import Sample

__all__ = ["Apart", "Encode", "Shuffled", "here"]

Encode = Callable[[Sample], Tensor]
"""A sample of B chips to vectors (B, D)."""
Apart = Callable[[Encode, Sample], Tensor]
"""What the encoder gives for a sample, (B, D), wherever its chips were encoded."""


def here(encode: Encode, sample: Sample) -> Tensor:
    """Encoded in this process."""
    return encode(sample)


@dataclass(frozen=True)
class Shuffled:
    """The chips of all processes are dealt out anew, each process encodes as many as it has, and gets its own back."""

    gathered: Callable[[Tensor], Tensor]
    """Tensors of all processes along the first dimension, in their order."""
    order: Tensor
    """(chips of the batch,) int64: a permutation of them, the same in all processes."""
    part: slice
    """Which chips of the batch are those of this process."""

    def __call__(self, encode: Encode, sample: Sample) -> Tensor:
        """Raises ValueError where the chips are not as many as the order and the part say."""
        image = self.gathered(sample.image.to(torch.float32))  # as the encoder takes it; uint16 cannot be indexed
        order = self.order.to(image.device)
        if len(order) != len(image) or len(order[self.part]) != len(sample.image):
            raise ValueError(
                f"an order of {len(order)} chips and the part {self.part} were announced; got {len(image)} chips, "
                f"{len(sample.image)} of them here"
            )
        mine = order[self.part]
        # An encoder reads no labels.
        dealt = sample.replace(
            image=image[mine], valid=self.gathered(sample.valid)[mine], day=self.gathered(sample.day)[mine]
        )
        every = self.gathered(encode(dealt))  # in the order in which they were dealt
        return every[order.argsort()[self.part]]
