"""Which finetunings the few-label protocol compares: starts, shares of the labels, seeds and modes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from sits_models.recipe import FewLabels, Recipe, recipe_to_plain

__all__ = ["MODES", "RANDOM", "Mode", "Place", "Protocol", "Run", "Start", "notes_of", "runs_of"]

Mode = Literal["finetune", "probe"]
Place = Literal["none", "in-region", "cross-region", "unknown"]
"""Where weights were trained, beside the cubes that are learnt from now; none: they were not."""
MODES: tuple[Mode, ...] = ("finetune", "probe")
_VERSION = 2
"""Of what a run does; another number makes all rows those of another experiment."""
_WORDS = ("name", "title", "source", "notes")


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the weights of a model start from."""

    name: str
    weights: str | None = None
    """Folder of weights or of a run, or a name of the zoo; None: random ones."""
    sha256: str | None = None
    """Of these weights."""
    objective: str | None = None
    """What they were trained for."""
    supervised: bool = False
    """Whether that was finetuned with labels."""
    regions: tuple[str, ...] = ()
    """Of the cubes they were trained on."""
    place: Place = "none"
    reads_labels: bool = False
    """Whether they were trained with labels: finetuned, or by context-self contrast."""
    few: FewLabels | None = None
    """Which of the labels that was; None: all."""
    transductive: bool = False
    """Whether they were trained without labels on the ground of all splits."""

    @property
    def labels(self) -> str | None:
        """For people: the labels that they were trained with; None: none."""
        if not self.reads_labels:
            return None
        return "all" if self.few is None else f"{100 * self.few.share:g} % by {self.few.by}, seed {self.few.seed}"

    @property
    def title(self) -> str:
        """For people: what it is."""
        return self.titled(self.labels)

    def titled(self, labels: str | None) -> str:
        """What it is, with other words for the labels."""
        if self.weights is None:
            return "random weights"
        how = "supervised pretraining" if self.supervised else "pretraining"
        where = {"in-region": "in-region", "cross-region": "cross-region"}.get(self.place, "of an unknown region")
        read = [] if labels is None else [f"reads labels: {labels}"]
        return ", ".join([f"{how} ({self.objective})", where, *read, *(["transductive"] if self.transductive else [])])


RANDOM = Start(name="random")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What all runs share."""

    recipe: Recipe
    """With the number of chips of an epoch, and the bands, that all runs have."""
    by: Literal["parcel", "block"]
    cubes: tuple[str, ...]
    tests: tuple[str, ...]
    """Evaluated on."""
    identities: tuple[str, ...]
    """What decides the pixels, labels and splits of these cubes, those learnt from first."""
    split: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finetuning and its evaluation."""

    protocol: Protocol
    start: Start
    share: float
    seed: int
    mode: Mode

    @cached_property
    def recipe(self) -> Recipe:
        """What is trained. The last epoch is the one that is taken, and none is validated: to choose one would take
        labels of its own, of which there are not few."""
        training = replace(
            self.protocol.recipe.training,
            seed=self.seed,
            probe=self.mode == "probe",
            validate_every=None,
            patience=None,
        )
        data = replace(self.protocol.recipe.data, few=self.few)
        # The folder of a run is known by its key, which the name of the recipe is no part of.
        return replace(self.protocol.recipe, name="few-label", data=data, training=training)

    @property
    def few(self) -> FewLabels:
        """The labels that are learnt from."""
        return FewLabels(share=self.share, by=self.protocol.by, seed=self.seed)

    @property
    def labels_agree(self) -> bool:
        """Whether the start read no labels, or those of this run and no others."""
        start = self.start
        theirs = None if start.few is None or start.few.share == 1 else start.few
        return not start.reads_labels or theirs == (None if self.share == 1 else self.few)

    @cached_property
    def key(self) -> str:
        """By which a finished run is known again: it depends on all that decides its scores and on nothing else."""
        plain = {name: value for name, value in recipe_to_plain(self.recipe).items() if name not in _WORDS}
        data = plain.get("data")
        assert isinstance(data, dict)
        plain["data"] = {name: value for name, value in data.items() if name not in ("cubes", "start")}
        decisive = [_VERSION, plain, self.start.sha256, self.protocol.identities, self.protocol.split]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.start.name}, {self.mode}, {100 * self.share:g} % of the labels, seed {self.seed}"


def notes_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """A sentence a start that read labels of the region that runs are not given, or not in this way."""
    notes = []
    for name in dict.fromkeys(run.start.name for run in runs):
        mine = [run for run in runs if run.start.name == name]
        other = [run for run in mine if run.start.place == "in-region" and not run.labels_agree]
        labels = "; ".join(dict.fromkeys(str(run.start.labels) for run in other))
        if other:
            notes.append(
                f"Note: in {len(other)} of its {len(mine)} runs {name} starts from weights that read other labels of "
                f"this region ({labels}) than the run itself: it is a reference there, and does not show what weights "
                "are worth where labels are few."
            )
    return tuple(notes)


def runs_of(
    protocol: Protocol,
    *,
    starts: Callable[[float, int], Sequence[Start]],
    shares: Sequence[float],
    seeds: int,
    modes: Sequence[Mode],
) -> Iterator[Run]:
    """All runs, seed by seed, so that a grid that was stopped has whole seeds to show, and the starts of a share and a
    seed one after the other, so that one which does not fit is found at once."""
    for seed in range(seeds):
        for share in shares:
            for mode in modes:
                for start in starts(share, seed):
                    yield Run(protocol=protocol, start=start, share=share, seed=seed, mode=mode)
