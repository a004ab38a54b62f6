"""Two views of the same, drawn together and apart from all others, of all processes that share a batch.

Chen et al., "A simple framework for contrastive learning of visual representations" (SimCLR), ICML 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sits_models.objectives.collapse import effective_rank
from sits_models.objectives.gathering import Gathered, own_rows
from sits_models.objectives.nt_xent import contrast

__all__ = ["Found", "ViewContrast", "count_of"]


@dataclass(frozen=True)
class Found:
    """A loss and what is worth watching, scalars; all but the loss without gradient."""

    value: Tensor
    """The mean over the vectors of both views that this process has."""
    accuracy: Tensor
    """Share of them that are more alike to their other view than to anything else."""
    effective_rank: Tensor
    """In how many directions they lie."""
    pairs: int
    """Of all processes. One pair alone has no negative: its value is 0, and means nothing."""


@dataclass(frozen=True, kw_only=True)
class ViewContrast:
    """NT-Xent of two views, whose negatives are those of all processes."""

    temperature: float
    decoupled: bool
    """Whether the positive is left out of the denominator, as GLCNet does."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"a temperature is a number above 0; got {self.temperature}")

    def __call__(self, first: Tensor, second: Tensor, *, gathered: Gathered) -> Found:
        """Of vectors (N, D) each; row i of one view belongs to row i of the other.

        Every vector of this process is a query, and all others of both views and all processes are its keys. Raises
        ValueError where the views have not as many vectors.
        """
        if first.shape != second.shape or first.ndim != 2:
            raise ValueError(
                f"two views have as many vectors, (N, D); got {tuple(first.shape)} and {tuple(second.shape)}"
            )
        queries = torch.cat([first, second])
        queries = queries.to(torch.promote_types(queries.dtype, torch.float32))
        keys = gathered(queries)
        start = own_rows(len(queries), gathered, device=queries.device).start
        number = torch.arange(len(queries), device=queries.device)
        itself = start + number
        positive = start + (number + len(first)) % max(1, len(queries))
        found = contrast(
            queries,
            keys,
            positive,
            temperature=self.temperature,
            no_negative=lambda rows: itself[rows, None] == torch.arange(len(keys), device=keys.device),
            decoupled=self.decoupled,
        )
        pairs = len(keys) // 2
        value = found.value if pairs > 1 else found.value * 0
        return Found(value, found.right / max(1, len(queries)), effective_rank(queries), pairs)


def count_of(found: Found, *, chips: int, device: torch.device) -> Tensor:
    """What a loss of so many chips counts: their views, or 0 where there is one chip in all processes."""
    return torch.tensor(2.0 * chips if found.pairs > 1 else 0.0, device=device)
