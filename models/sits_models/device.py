"""Where torch computes, and which of the processes that train a model together this one is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch

__all__ = ["Rank", "resolve_device"]


@dataclass(frozen=True, kw_only=True)
class Rank:
    """One of the processes that train a model together, each on a device of its own."""

    number: int = 0
    """From 0."""
    of: int = 1
    """How many there are."""
    local: int = 0
    """Its number among those of its machine."""
    machines: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.of or self.of % self.machines:
            raise ValueError(
                f"process {self.number} of {self.of} on {self.machines} machines: numbers count from 0, and every "
                "machine runs as many; give torchrun the same --nproc-per-node everywhere"
            )

    @classmethod
    def here(cls) -> Self:
        """This process: what torchrun says in its environment, or the only one.

        Raises ValueError where the machines run unequal numbers of them.
        """
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        named = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        number, of, local, beside = (int(os.environ[name]) for name in named)
        if of % beside:
            raise ValueError(
                f"{beside} of {of} processes run on this machine, and every machine has to run as many; give torchrun "
                "the same --nproc-per-node everywhere"
            )
        return cls(number=number, of=of, local=local, machines=of // beside)

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and speaks."""
        return self.number == 0

    def part(self, n: int) -> slice:
        """Which of `n` things in order are its own: neighbours, one more for the first processes.

        >>> [Rank(number=k, of=3).part(8) for k in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        share, more = divmod(n, self.of)
        start = self.number * share + min(self.number, more)
        return slice(start, start + share + (self.number < more))


def resolve_device(text: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:<number>` names; auto is a GPU where there is one.

    Raises ValueError for other words, and where torch can use no GPU.
    """
    import torch  # seconds, which a command that names no device need not wait for

    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        raise ValueError(f"--device is auto, cpu, cuda or cuda:<number>; got {text!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {text}: this machine has no GPU that torch can use; give --device cpu")
    return device
