"""A queue of keys: the negatives that MoCo and SeCo keep from batches before.

He et al., "Momentum contrast for unsupervised visual representation learning" (MoCo), CVPR 2020, section 3.2. The
published codes need a length that is a multiple of the batch; this one wraps around wherever its end is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Queue"]


class Queue(nn.Module):
    """The last `length` keys of one sub-space, vectors of length 1; random ones at first, as in MoCo.

    All of it is in the state dict, so that a training that is resumed has the same negatives.
    """

    keys: Tensor
    """(length, channels), in the order of their places and not of their age."""
    pointer: Tensor
    """Scalar int64: the place of the next key, from 0."""
    filled: Tensor
    """Scalar int64: places that hold keys; the others are still random vectors."""

    def __init__(self, length: int, *, channels: int) -> None:
        """Raises ValueError for a length or channels below 1."""
        super().__init__()
        if length < 1 or channels < 1:
            raise ValueError(f"a queue holds at least 1 key of at least 1 channel; got {length} keys of {channels}")
        self.register_buffer("keys", functional.normalize(torch.randn(length, channels), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @property
    def length(self) -> int:
        """Keys it holds."""
        return self.keys.shape[0]

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put keys (N, channels), vectors of length 1, in the places of the oldest; of more than `length` the last.

        Nothing is read back from the device. Raises ValueError for keys of another shape.
        """
        if keys.ndim != 2 or keys.shape[1] != self.keys.shape[1]:
            raise ValueError(f"this queue takes keys (N, {self.keys.shape[1]}); got {tuple(keys.shape)}")
        n, stay = len(keys), min(len(keys), self.length)
        places = (self.pointer + torch.arange(n - stay, n, device=self.keys.device)) % self.length
        self.keys.index_copy_(0, places, keys[n - stay :].to(self.keys.dtype))
        self.pointer.add_(n).remainder_(self.length)
        self.filled.add_(n).clamp_(max=self.length)
