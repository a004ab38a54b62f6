"""`sits-model evaluate --few-label`: what a start is worth where labels are few, beside random weights."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sits_catalog.console import Narrator
from sits_models.checkpoints import Card, read_card
from sits_models.data.cubes import Cube, open_cube
from sits_models.data.grid import read_grid
from sits_models.data.loader import TrainingData
from sits_models.data.sampling import chips_in_epoch
from sits_models.folder import write_whole
from sits_models.recipe import FewLabels, Recipe
from sits_models.tasks.few_labels.picture import draw_curves
from sits_models.tasks.few_labels.plan import (
    MODES,
    RANDOM,
    Mode,
    Place,
    Protocol,
    Run,
    Start,
    notes_of,
    runs_of,
)
from sits_models.tasks.few_labels.rows import Row, done_of, read_rows
from sits_models.tasks.few_labels.runner import ROWS, run_all
from sits_models.tasks.few_labels.tables import Cell, cells_of, table_csv, table_md
from sits_models.zoo import find_weights

__all__ = ["FewLabelGrid", "FewLabelOutcome", "FewLabelPlan", "evaluate_few_labels", "plan_few_labels"]

_SECONDS_A_RUN = 25.0
"""Before any run has said what it took."""


@dataclass(frozen=True, kw_only=True)
class FewLabelGrid:
    """What is compared with what."""

    recipe: Recipe
    """Of a segmentation or a classification."""
    cubes: tuple[str, ...]
    """Learnt from; none: those of the recipe."""
    tests: tuple[str, ...] = ()
    """Evaluated on; none: those learnt from."""
    starts: Mapping[str, str]
    """Weights by name; random weights are a start in any case. A {seed} and a {share} in them stand for those of a
    run, where every seed has a pretraining of its own, or one that reads labels may see no more of them than a run."""
    shares: tuple[float, ...] = (0.01, 0.05, 0.1, 1.0)
    by: Literal["parcel", "block"] = "parcel"
    seeds: int = 3
    modes: tuple[Mode, ...] = MODES
    split: str = "test"

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be compared."""
        if self.recipe.objective not in ("segmentation", "classification"):
            raise ValueError(
                f"the few-label protocol finetunes a segmentation or a classification, and {self.recipe.name} is a "
                f"{self.recipe.objective}; give another --recipe"
            )
        if RANDOM.name in self.starts:
            raise ValueError("random is the start of random weights, which is always there; give yours another name")
        if self.recipe.data.few is not None or self.recipe.training.probe:
            raise ValueError(
                f"data.few and training.probe are the protocol's to set; leave them out of {self.recipe.name}"
            )
        if self.recipe.data.layout != "cube":
            raise ValueError(f"the few-label protocol reads cubes, and data.layout is {self.recipe.data.layout}")
        if self.seeds < 1:
            raise ValueError(f"there is a seed at least; got {self.seeds}")
        for name, values in (("share", self.shares), ("mode", self.modes)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"a {name} at least, and none twice; got {', '.join(map(str, values)) or 'none'}")
        for share in self.shares:
            FewLabels(share=share, by=self.by)


@dataclass(frozen=True, kw_only=True)
class FewLabelPlan:
    """What there is to do."""

    runs: tuple[Run, ...]
    done: Mapping[Run, Row]
    """Those that are finished."""
    jobs: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What to beware of, a sentence each: starts that read other labels than the runs."""
        return notes_of(self.runs)

    @property
    def seconds(self) -> float:
        """Roughly, for what is left."""
        each = statistics.mean(row["seconds"] for row in self.done.values()) if self.done else _SECONDS_A_RUN
        return (len(self.runs) - len(self.done)) * each / self.jobs

    def __str__(self) -> str:
        left = len(self.runs) - len(self.done)
        at_once = "one at a time" if self.jobs == 1 else f"{self.jobs} at a time"
        return (
            f"{len(self.runs)} runs, {len(self.done)} done; the other {left} take about {self.seconds / 60:.0f} "
            f"minutes, {at_once} on as many cores that do nothing else"
        )


@dataclass(frozen=True, kw_only=True)
class FewLabelOutcome:
    """What was found."""

    folder: Path
    """rows.jsonl, table.csv, table.md, few-label.png and runs/."""
    plan: FewLabelPlan
    cells: tuple[Cell, ...]
    simulated: bool

    @property
    def table(self) -> Path:
        """The table for people."""
        return self.folder / "table.md"

    @property
    def picture(self) -> Path:
        """The curves."""
        return self.folder / "few-label.png"


def plan_few_labels(grid: FewLabelGrid, *, out: str, jobs: int) -> FewLabelPlan:
    """The runs of a grid, and which of them have left their rows in the folder `out`.

    Recipe, cubes and weights are checked. Raises ValueError or FileNotFoundError for what a user can set right.
    """
    if jobs < 1:
        raise ValueError(f"--jobs is a number of processes from 1; got {jobs}")
    paths = grid.cubes or grid.recipe.data.cubes
    if not paths:
        raise ValueError(f"the recipe {grid.recipe.name} names no cube; give --cube with the folder of a dataset")
    cards = {weights: read_card(find_weights(weights)) for weights in sorted(_weights_of(grid))}
    recipe = _with_bands(grid.recipe, cards)
    learnt, recipe = _fixed(recipe, grid, paths)
    tested = [open_cube(path) for path in grid.tests] or list(learnt)
    for card in cards.values():
        for cube in (*learnt, *tested):
            card.check_cube(cube.facts)
    if unlabelled := [cube.facts.path for cube in tested if not cube.facts.has_labels]:
        raise ValueError(f"{unlabelled[0]} has no labels to evaluate with; build it with parcels")
    protocol = Protocol(
        recipe=recipe,
        by=grid.by,
        cubes=tuple(cube.facts.path for cube in learnt),
        tests=tuple(cube.facts.path for cube in tested),
        identities=(*map(_identity, learnt), "evaluated on", *map(_identity, tested)),
        split=grid.split,
    )

    def starts(share: float, seed: int) -> tuple[Start, ...]:
        given = {name: _filled(weights, share, seed) for name, weights in grid.starts.items()}
        found = tuple(_start(name, weights, cards[weights], learnt) for name, weights in given.items())
        _check_different(found)
        return (RANDOM, *found)

    runs = tuple(runs_of(protocol, starts=starts, shares=grid.shares, seeds=grid.seeds, modes=grid.modes))
    return FewLabelPlan(runs=runs, done=done_of(read_rows(Path(out) / ROWS), runs), jobs=jobs)


def evaluate_few_labels(plan: FewLabelPlan, *, out: str, narrator: Narrator) -> FewLabelOutcome:
    """Carry out what is left of a plan, and write the table and the curves of all of it into the folder `out`.

    A command that was killed goes on where it stopped. Raises BlockingIOError where another process works there, and
    what `tasks.finetune.finetune` raises.
    """
    folder = Path(out)
    narrator.stage(str(plan))
    done = run_all(plan.runs, folder, jobs=plan.jobs, say=narrator.stage)
    cells = cells_of(done)
    simulated = any(row["simulated"] for row in done.values())
    write_whole(folder / "table.csv", table_csv(cells).encode())
    write_whole(folder / "table.md", table_md(plan.runs, done).encode())
    outcome = FewLabelOutcome(folder=folder, plan=replace(plan, done=done), cells=cells, simulated=simulated)
    first, protocol = next(iter(done.values())), plan.runs[0].protocol
    title = (
        f"few labels of {', '.join(first['trained_on'])}, by {protocol.by}\n{protocol.recipe.name}, evaluated on the "
        f"{protocol.split} split of {', '.join(first['evaluated_on'])}"
    )
    draw_curves(cells, outcome.picture, title=title, simulated=simulated)
    return outcome


def _filled(weights: str, share: float, seed: int) -> str:
    """
    >>> _filled("runs/cscl-{share}-{seed}", 0.01, 2)
    'runs/cscl-0.01-2'
    """
    return weights.replace("{seed}", str(seed)).replace("{share}", f"{share:g}")


def _weights_of(grid: FewLabelGrid) -> set[str]:
    every = [(share, seed) for share in grid.shares for seed in range(grid.seeds)]
    return {_filled(weights, share, seed) for weights in grid.starts.values() for share, seed in every}


def _with_bands(recipe: Recipe, cards: Mapping[str, Card]) -> Recipe:
    """The recipe with the bands of the weights where it leaves them open: random weights take the same ones."""
    bands = {name: card.bands for name, card in cards.items()}
    if recipe.data.bands is not None or not bands:
        return recipe
    first, *others = bands
    for name in others:
        if bands[name] != bands[first]:
            raise ValueError(
                f"the starts take other bands: {first} {', '.join(bands[first])}, {name} {', '.join(bands[name])}; "
                "compare starts of the same bands"
            )
    return replace(recipe, data=replace(recipe.data, bands=bands[first]))


def _fixed(recipe: Recipe, grid: FewLabelGrid, paths: Sequence[str]) -> tuple[tuple[Cube, ...], Recipe]:
    """The cubes, and the recipe with its bands and with as many chips an epoch as all labels ask for, for all shares.

    Raises what opening the cubes raises, for the smallest share, too.
    """
    few = FewLabels(share=min(grid.shares), by=grid.by)
    with TrainingData.open(replace(recipe.data, few=few), cubes=paths) as data:
        cubes, bands = data.cubes, data.bands
    with TrainingData.open(replace(recipe.data, few=replace(few, share=1.0)), cubes=paths) as data:
        chips = chips_in_epoch(data.grids, recipe.data)
    return cubes, replace(recipe, data=replace(recipe.data, bands=bands, chips=chips))


def _identity(cube: Cube) -> str:
    """What decides the pixels, the labels and the splits of a cube, wherever it lies."""
    split = read_grid(cube, None, parcels=False).split
    return f"{cube.facts.region} {cube.facts.config_sha256} {hashlib.sha256(split.tobytes()).hexdigest()}"


def _start(name: str, weights: str, card: Card, cubes: Sequence[Cube]) -> Start:
    recorded = card.data.get("cubes")
    theirs = [cube for cube in recorded if isinstance(cube, Mapping)] if isinstance(recorded, list) else []
    return Start(
        name=name,
        weights=weights,
        sha256=card.sha256,
        objective=card.recipe.objective,
        supervised=not card.recipe.pretrains,
        regions=tuple(dict.fromkeys(str(cube.get("region")) for cube in theirs)),
        place=_place(theirs, cubes),
        reads_labels=not card.recipe.label_free,
        few=card.recipe.data.few,
        transductive=card.recipe.data.transductive,
    )


def _check_different(starts: Sequence[Start]) -> None:
    """Raises ValueError where two starts are the same weights, whose runs could not be told apart."""
    by_hash: dict[str | None, Start] = {}
    for start in starts:
        other = by_hash.setdefault(start.sha256, start)
        if other is not start:
            raise ValueError(
                f"the starts {other.name} and {start.name} are the same weights, {other.weights} and {start.weights}; "
                "leave one of them out"
            )


def _place(theirs: Sequence[Mapping[str, object]], cubes: Sequence[Cube]) -> Place:
    """Weights are in-region where a cube of their training is of a region that is learnt from now, or is it itself."""
    if not theirs:
        return "unknown"
    regions = {cube.facts.region for cube in cubes}
    hashes = {cube.facts.config_sha256 for cube in cubes}
    here = any(cube.get("region") in regions or cube.get("config_sha256") in hashes for cube in theirs)
    return "in-region" if here else "cross-region"
