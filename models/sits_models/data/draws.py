"""Random numbers of a batch that several processes share: each takes those of its part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    """Random numbers of the chips of a part, drawn for all chips of the batch, in the memory of the CPU.

    They depend on the state of the generator alone, so that a part of a batch changes as it would in the whole batch.
    """

    generator: torch.Generator
    part: slice
    chips: int

    @classmethod
    def of(cls, generator: torch.Generator, *, chips: int) -> Self:
        """Of a whole batch."""
        return cls(generator, slice(None), chips)

    @property
    def count(self) -> int:
        """Chips of the part."""
        return len(range(self.chips)[self.part])

    def check(self, chips: int) -> None:
        """Raise ValueError unless the part has as many chips."""
        if self.count != chips:
            raise ValueError(f"the part {self.part} of a batch of {self.chips} chips was announced; got {chips} chips")

    def uniform(self, *shape: int) -> Tensor:
        """(chips of the part, ...), in [0, 1)."""
        return torch.rand((self.chips, *shape), generator=self.generator, device=self._device).cpu()[self.part]

    def normal(self, *shape: int) -> Tensor:
        """(chips of the part, ...)"""
        return torch.randn((self.chips, *shape), generator=self.generator, device=self._device).cpu()[self.part]

    def integers(self, below: int) -> Tensor:
        """(chips of the part,)"""
        drawn = torch.randint(0, below, (self.chips,), generator=self.generator, device=self._device)
        return drawn.cpu()[self.part]

    def shared(self, *shape: int) -> Tensor:
        """(...) in [0, 1): the same for all chips of the batch, in whichever part they are."""
        return torch.rand(shape, generator=self.generator, device=self._device).cpu()

    def shared_integer(self, below: int) -> int:
        """The same for all chips of the batch."""
        return int(torch.randint(0, below, (), generator=self.generator, device=self._device))

    def noise(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """(chips of the part, ...) normal, drawn on a device, between whose kinds it differs.

        From a generator a chip: else every process would draw the noise of the whole batch for its part of it.
        """
        seeds = self.integers(2**62).tolist()
        generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]
        return torch.stack([torch.randn(tuple(shape), generator=one, device=device) for one in generators])

    @property
    def _device(self) -> torch.device:
        return self.generator.device
