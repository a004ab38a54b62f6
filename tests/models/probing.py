"""Probes that several processes share, and a ranking of what all of them validated; run by torchrun, or alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tests.models.sharing import CLASSES, Masked, masked, objective_of, part_of, recipe_of

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.device import Rank
from sits_models.engine import Processes, fit, joined
from sits_models.objectives import Objective
from sits_models.recipe import MultiLabelRecipe, Recipe
from sits_models.sample import Sample


@dataclass(frozen=True)
class Labelled(Masked):
    """Chips with labels of their own; a batch of one chip has a part for one process alone."""

    def epoch(self, number: int, *, seed: int, pin: bool = False) -> Iterator[Sample]:
        for batch in range(self.batches_in_epoch):
            yield part_of(labelled(1000 * seed + 30 * number + batch), self.rank)

    def parcels(self, split: Split, *, size: int, pin: bool = False) -> Iterator[Sample]:
        for batch, chips in enumerate(self.validated):
            sample = part_of(part_of(labelled(900 + batch), Rank(), slice(chips)), self.rank)
            if len(sample.place):
                yield sample


def labelled(number: int) -> Sample:
    sample = masked(number)
    draw = torch.Generator().manual_seed(number)
    return sample.replace(present=torch.rand(len(sample.place), CLASSES, generator=draw) < 0.5)


def probe_of() -> Recipe:
    """Several labels a chip, on an encoder that stays as it is."""
    return replace(
        recipe_of("unet3df", probe=True, learning_rate=0.1), segmentation=None, multilabel=MultiLabelRecipe()
    )


def train(folder: Path, processes: Processes) -> tuple[Objective, float]:
    """The model after its epochs, and the average precision over what all processes validated."""
    recipe = probe_of()
    objective = objective_of(recipe, frozen=False)
    with Narrator() as narrator:
        drawn = Labelled(processes.rank)
        fitted = fit(objective, drawn, recipe, folder=folder, narrator=narrator, processes=processes)
    return objective, fitted.metrics["validation_map"]


def main(out: Path) -> None:
    """Train, and keep the weights and the score of every process."""
    torch.set_num_threads(1)
    with joined(Rank.here()) as processes:
        objective, score = train(out / "run", processes)
        torch.save((objective.state_dict(), score), out / f"found-{processes.rank.number}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
