"""What processes that share a batch bring together, and which of it is a process's own."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Gathered", "as_it_is", "own_rows"]

Gathered = Callable[[Tensor], Tensor]
"""From what this process has, (N, ...), to what all have, (M, ...), along the first dimension in their order; N may
differ between them. Its backward pass adds up what all processes have for a part."""


def as_it_is(own: Tensor) -> Tensor:
    """What a process that is alone gathers."""
    return own


def own_rows(rows: int, gathered: Gathered, *, device: torch.device) -> slice:
    """Where the rows of this process lie in what is gathered of it and all others, one after the other.

    A number that no other process draws tells which they are; no value depends on it. All processes ask together.
    Raises ValueError where they are not there, one after the other.
    """
    if gathered is as_it_is:
        return slice(0, rows)
    mark = secrets.randbits(62)
    mine = (gathered(torch.full((rows,), mark, dtype=torch.int64, device=device)) == mark).nonzero()[:, 0]
    start = int(mine[0]) if rows and len(mine) else 0
    if not torch.equal(mine, torch.arange(start, start + rows, device=device)):
        raise ValueError(
            f"what is gathered holds the {rows} rows of this process, one after the other; got them at "
            f"{mine.tolist()}: gather them unchanged"
        )
    return slice(start, start + rows)
