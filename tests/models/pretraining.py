"""Pretrainings without labels on made-up series, shared by several processes or not; run by torchrun, or alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tests.models.samples import make_sample
from tests.models.sharing import part_of
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.data.draws import Draws
from sits_models.device import Rank
from sits_models.engine import Processes, fit, joined
from sits_models.objectives import Objective, build_objective
from sits_models.recipe import (
    Augmentation,
    BackboneRecipe,
    DataRecipe,
    DateSubset,
    EmbeddingEarthRecipe,
    Geometry,
    GLCNetRecipe,
    InpaintingRecipe,
    JigsawRecipe,
    Recipe,
    SeCoRecipe,
    SimCLRRecipe,
    SingleDates,
    TrainingRecipe,
)
from sits_models.sample import Sample

BANDS, DATES, SIZE, BATCH = ("B02", "B03", "B04", "B08"), 6, 48, 5
_CLEAR = SingleDates(n=1, clear=0.6)
_VIEW = Geometry(sides=(40,), scale=(0.4, 1.0))

SECTIONS: dict[str, dict[str, Any]] = {
    "earth": {
        "embedding_earth": EmbeddingEarthRecipe(pixels=8, dates=DateSubset(most=4), geometry=Geometry(sides=(16,)))
    },
    "glcnet": {"glcnet": GLCNetRecipe(region=12, dates=_CLEAR, first=_VIEW, second=_VIEW)},
    "simclr": {"simclr": SimCLRRecipe(dates=_CLEAR, first=_VIEW, second=_VIEW)},
    "inpainting": {"inpainting": InpaintingRecipe(blocks=3, side=8, dates=_CLEAR, geometry=_VIEW)},
    "jigsaw": {"jigsaw": JigsawRecipe(orders=20, channels=16, dates=_CLEAR, geometry=_VIEW)},
    "seco": {"seco": SeCoRecipe(channels=8, queue=7, momentum=0.9, clear=0.6, geometry=_VIEW)},
}
_BACKBONES = {"earth": "unet3df", "glcnet": "deeplab_resnet18"}
METHODS = tuple(SECTIONS)


def recipe_of(name: str, **training: object) -> Recipe:
    """The training of a case: a method, `earth-shared`, or a method of SeCo's such as `seco-moco`."""
    method, _, how = name.partition("-")
    section = dict(SECTIONS[method])
    if how == "shared":
        section = {"embedding_earth": replace(section["embedding_earth"], key="shared")}
    elif how:
        section = {"seco": replace(section["seco"], mode=how)}
    # Of tiles so small the frozen batch norms have little to go by, so that larger steps grow without end.
    rate = 0.002 if method == "jigsaw" else 0.02
    changes: dict[str, object] = {"epochs": 2, "optimizer": "sgd", "learning_rate": rate, "schedule": "constant"}
    return Recipe(
        name=name,
        data=DataRecipe(bands=BANDS, size=SIZE, batch=BATCH),
        backbone=BackboneRecipe(name=_BACKBONES.get(method, "resnet18"), width=0.0625, variant="fixed"),
        training=TrainingRecipe(**{**changes, **training}),  # type: ignore[arg-type]
        **section,
    )


def objective_of(recipe: Recipe, *, frozen: bool = True, seed: int = 0) -> Objective[Any]:
    """The model of a case; without dropout and with batch norms that normalise by the statistics of one batch for ever
    where it is `frozen`."""
    torch.manual_seed(seed)
    built = build_objective(recipe, bands=BANDS, dates=DATES, classes=0, mean=(5000.0,) * 4, std=(2900.0,) * 4)
    if frozen:
        norms = [module for module in built.modules() if isinstance(module, _BatchNorm)]
        for module in built.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            built.loss(built.views(series(0), Augmentation(), Draws.of(torch.Generator().manual_seed(0), chips=BATCH)))
        for norm in norms:
            norm.eval()
    return built


def series(number: int) -> Sample:
    """A batch of which the parts are unequally clear: all of it, the last chips not, or one chip alone."""
    sample = make_sample(batch=BATCH, dates=DATES, bands=BANDS, size=SIZE, seed=number)
    clear = sample.clear.clone()
    if number % 3 == 1:
        clear[2:] = False
    elif number % 3 == 2:
        clear[:4] = False
    image = torch.where(clear[:, :, None], sample.image.to(torch.int32), 0) if number % 3 else sample.image
    return sample.replace(clear=clear, image=image.to(torch.uint16))


@dataclass(frozen=True)
class Series:
    """What `fit` draws on: of every batch the part of a process."""

    rank: Rank = field(default_factory=Rank)
    batches_in_epoch: int = 3
    validated: int = 1
    stop: int | None = None
    """The epoch in the midst of which the training ends, as by a signal."""

    def epoch(self, number: int, *, seed: int, pin: bool = False) -> Iterator[Sample]:
        for batch in range(self.batches_in_epoch):
            if number == self.stop and batch == 1:
                raise KeyboardInterrupt
            yield part_of(series(100 * seed + 3 * number + batch), self.rank)

    def evaluation(self, split: Split, *, size: int | None = None, pin: bool = False) -> Iterator[Sample]:
        for batch in range(self.validated):
            # Of the last batch the second process has none.
            sample = part_of(series(900 + 3 * batch), Rank(), slice(1 if batch else BATCH))
            sample = part_of(sample, self.rank)
            if len(sample.place):
                yield sample

    def parcels(self, split: Split, *, size: int, pin: bool = False) -> Iterator[Sample]:
        return self.evaluation(split, size=size, pin=pin)


def train(
    name: str,
    folder: Path,
    processes: Processes | None = None,
    *,
    chips: Series | None = None,
    frozen: bool = True,
    seed: int = 0,
    **training: object,
) -> Objective[Any]:
    """The model that a case ends with; all of its files lie in `folder`."""
    recipe = recipe_of(name, **training)
    objective = objective_of(recipe, frozen=frozen, seed=seed)
    processes = processes or Processes()
    with Narrator() as narrator:
        drawn = chips or Series(processes.rank)
        fit(objective, drawn, recipe, folder=folder, narrator=narrator, processes=processes)
    return objective


def main(out: Path, cases: list[str]) -> None:
    """Each case in a folder of its own, with the weights of every process.

    In `moving-NAME` batch norms move; `resumed-NAME` is the same, but begun anew after its first epoch. These validate,
    on negatives that a part has, so that the epoch that is kept is another than that of one process.
    """
    torch.set_num_threads(1)
    with joined(Rank.here()) as processes:
        for case in cases:
            how, _, name = case.partition("-") if case.startswith(("moving-", "resumed-")) else ("", "", case)
            chips = Series(processes.rank, validated=2 if how else 0)
            if how == "resumed":
                train(name, out / case, processes, chips=chips, frozen=False, epochs=1)
            objective = train(
                name, out / case, processes, chips=chips, frozen=not how, seed=5 if how == "resumed" else 0
            )
            torch.save(objective.state_dict(), out / case / f"weights-{processes.rank.number}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
