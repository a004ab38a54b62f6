"""Means of what batches report, equal however many processes share a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sits_models.engine.processes import Processes

__all__ = ["Mean", "Means"]


@dataclass(frozen=True)
class Mean:
    """A mean over so much (pixels, pairs, chips or their weights), both scalars; over nothing it is 0."""

    value: Tensor
    count: Tensor


class Means:
    """Weighted means over batches, whose parts stay on their device until the means are asked for."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self._names: tuple[str, ...] = ()
        self._rows: list[Tensor] = []

    def add(self, means: Mapping[str, Mean], *, weight: Tensor | int) -> None:
        """What a batch reports, or this process's part of it, and how much this weighs among all."""
        self._names = tuple(means)
        pairs = [part.detach() for mean in means.values() for part in (mean.value, mean.count)]
        scalars = [torch.as_tensor(weight, device=pairs[0].device), *pairs]
        self._rows.append(torch.stack([scalar.to(torch.float64) for scalar in scalars]))  # (1 + 2 names,)

    def named(self, prefix: str) -> dict[str, float]:
        """The means over all batches of all processes, which ask together; empty where nothing was reported."""
        weights, values = self._batches()
        weight = float(weights.sum())
        if weight == 0:
            return {}
        means = {}
        for name, column in zip(self._names, values.unbind(1), strict=True):
            total = 0.0
            for share in (column * weights).tolist():  # one by one: a sum in another order is another number
                total += share
            means[f"{prefix}_{name}"] = total / weight
        return means

    def _batches(self) -> tuple[Tensor, Tensor]:
        """Weight (batches,) of every batch, and its means (batches, names)."""
        reports = self.processes.gather((len(self._rows), self._names))
        batches, self._names = max(reports)
        if not batches:
            return torch.zeros(0), torch.zeros(0, 0)
        rows = torch.zeros(batches, 1 + 2 * len(self._names), dtype=torch.float64)
        if self._rows:
            rows[: len(self._rows)] = torch.stack(self._rows).cpu()
        weights, values, counts = rows[:, 0], rows[:, 1::2], rows[:, 2::2]
        if self.processes.alone:
            return weights, values
        # A batch may have fewer chips than there are processes: then it is no batch of the last ones.
        shares = torch.where(counts > 0, values * counts, 0.0)
        summed = self.processes.sum(torch.cat([weights[:, None], shares, counts], dim=1))
        weights, shares, counts = summed[:, 0], *summed[:, 1:].chunk(2, dim=1)
        return weights, torch.where(counts > 0, shares / counts, 0.0)
