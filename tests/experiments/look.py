"""`python -m tests.experiments.look`: the choices that the experiment leaves open, tried on validation pixels.

One region, one seed that the experiment does not use, labels at 10 m. What is printed is told on docs/results.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.experiments.plan import ARMS, BACKBONES, Arm, Budget, Learner, Run, runs_of
from tests.experiments.rows import done_of, read_rows
from tests.experiments.runner import commit_of, run_all

from sits_catalog.cube import Split

_SEED, _REGION = 100, "claim-temperate"
_PRETRAINING_RATES = (2e-3, 1e-4)
_RATES = (5e-3, 1e-3)
_SHARES = (1 / 8, 1 / 2)
_MASKS: dict[str, tuple[tuple[str, str | bool | float], ...]] = {
    "self and outside masked": (("mask_self", True), ("mask_outside", True)),
    "ignored masked too": (("mask_self", True), ("mask_outside", True), ("mask_ignored", True), ("mean", "kept")),
    "same is one parcel": (("same", "parcel"),),
}


def main() -> None:
    """Carry out what is not done yet, and print a line a run."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.look", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/experiment"))
    parser.add_argument("--cubes", type=Path, default=Path("out/experiment-regions"))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    named = list(_variants())
    runs = [run for _, run in named]
    rows = options.out / "look" / "rows.jsonl"
    run_all(
        runs,
        rows,
        cubes=options.cubes,
        split=Split.VALIDATION,
        jobs=options.jobs,
        commit=commit_of(Path(__file__).parent),
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    done = done_of(read_rows(rows), runs)
    for name, run in named:
        scores = (100 * done[run][f"miou_{part}"] for part in ("overall", "boundary", "interior"))
        print(f"{run.backbone:14}{run.arm:8}{name:32}", *(f"{score:5.1f}" for score in scores))


def _variants() -> Iterator[tuple[str, Run]]:
    """Each with what it varies; the first are those that the experiment uses."""
    random, cscl = ARMS
    unet3df = BACKBONES[0]
    for learner in BACKBONES:
        yield from _named("as in the experiment", learner, (cscl,))
        for rate in _PRETRAINING_RATES:
            yield from _named(f"pretraining rate {rate:g}", replace(learner, pretraining_rate=rate), (cscl,))
    for learner in BACKBONES:
        yield from _named("as in the experiment", learner, (random,))
        for rate in _RATES:
            yield from _named(f"finetuning rate {rate:g}", replace(learner, learning_rate=rate), (random, cscl))
    for share in _SHARES:
        yield from _named(f"share {share:.3f}", unet3df, (replace(cscl, share=share),))
    for name, contrast in _MASKS.items():
        yield from _named(name, unet3df, (replace(cscl, contrast=contrast),))


def _named(name: str, learner: Learner, arms: tuple[Arm, ...]) -> Iterator[tuple[str, Run]]:
    for run in runs_of(
        budget=Budget(), regions=(_REGION,), backbones=(learner,), seeds=(_SEED,), labels=(1,), arms=arms
    ):
        yield name, run


if __name__ == "__main__":
    main()
