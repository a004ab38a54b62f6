"""Processes that exchange tensors, played by threads that wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""Of a tensor of each, all along the first dimension in their order; its own with gradient."""


def together[T](works: Sequence[Callable[[Gather], T]]) -> list[T]:
    """What each makes of its turn, all at once; one that fails fails all."""
    barrier, brought = threading.Barrier(len(works), timeout=30), [torch.empty(0)] * len(works)

    def gather_of(number: int) -> Gather:
        def gather(own: Tensor) -> Tensor:
            brought[number] = own.detach()
            barrier.wait()
            parts = [*brought[:number], own, *brought[number + 1 :]]
            barrier.wait()
            return torch.cat(parts)

        return gather

    def run(number: int) -> T:
        try:
            return works[number](gather_of(number))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, range(len(works))))
