"""`sits-model pretrain` and `finetune`: a recipe trained on cubes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sits_catalog.console import DONE, Narrator
from sits_models.cli.options import (
    SIMULATED,
    AsJson,
    Changes,
    CubeFolders,
    OutFolder,
    RecipeName,
    WithTraceback,
    run,
)

if TYPE_CHECKING:
    from sits_models.tasks.training import TrainingOutcome

__all__ = ["finetune", "pretrain"]


def pretrain(
    recipe: RecipeName,
    cube: CubeFolders = None,
    out: OutFolder = None,
    set_: Changes = None,
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """Pretrain an encoder by contrasting neighbouring pixels, or take up a pretraining that was interrupted.

    Writes the run folder: recipe, cubes and environment as used, metrics, curves, and the weights.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model pretrain --recipe cscl-demo

        sits-model pretrain --recipe cscl-laptop --cube out/my-region --set training.epochs=5 --out runs/mine
    """

    def work() -> int:
        from sits_models.recipe import load_recipe

        chosen = load_recipe(recipe, changes=set_ or ())
        from sits_models.tasks.pretrain import pretrain as train  # seconds, which a wrong recipe need not wait for

        with Narrator() as narrator:
            outcome = train(chosen, cubes=cube, out=str(out or Path("runs") / chosen.name), narrator=narrator)
        return _print_training(outcome, as_json=json_)

    run(work, debug=debug)


def finetune(
    recipe: RecipeName,
    weights: Annotated[
        str | None, typer.Option(help="A finished run, or a folder of weights, to start from; default: random weights.")
    ] = None,
    cube: CubeFolders = None,
    out: OutFolder = None,
    set_: Changes = None,
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """Train a model that gives each pixel a crop class, or take up a training that was interrupted.

    Without --weights it starts from random ones.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model finetune --recipe segment-demo --weights runs/cscl-demo

        sits-model finetune --recipe segment-laptop --cube out/region-a --cube out/region-b --set data.batch=8
    """

    def work() -> int:
        from sits_models.recipe import load_recipe

        chosen = load_recipe(recipe, changes=set_ or ())
        from sits_models.tasks.finetune import finetune as train  # seconds, which a wrong recipe need not wait for

        with Narrator() as narrator:
            folder = str(out or Path("runs") / chosen.name)
            outcome = train(chosen, cubes=cube, weights=weights, out=folder, narrator=narrator)
        return _print_training(outcome, as_json=json_)

    run(work, debug=debug)


def _print_training(outcome: TrainingOutcome, *, as_json: bool) -> int:
    facts: Mapping[str, object] = {
        "folder": str(outcome.folder),
        "weights": str(outcome.weights),
        "recipe": outcome.recipe,
        "epochs": outcome.epochs,
        "best_epoch": outcome.best_epoch,
        "stopped_early": outcome.stopped_early,
        "seconds": outcome.seconds,
        "metrics": dict(outcome.metrics),
        "notes": list(outcome.notes),
        "finished_before": outcome.finished_before,
        "simulated": outcome.simulated,
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return DONE
    if outcome.finished_before:
        print(f"{outcome.folder} was finished before; nothing is left to do")
    if outcome.loaded is not None:
        kept, left = len(outcome.loaded.loaded), len(outcome.loaded.left_out)
        print(f"started from weights: {kept} tensors loaded, {left} of the tasks left out")
    for note in outcome.notes:
        print(note)
    early = ", stopped early" if outcome.stopped_early else ""
    print(
        f"{outcome.recipe}: {outcome.epochs} epochs in {outcome.seconds:.0f} s{early}; best epoch {outcome.best_epoch}"
    )
    for key, value in outcome.metrics.items():
        print(f"  {key.replace('_', ' '):32} {value:.4f}")
    if outcome.simulated:
        print(SIMULATED)
    print(f"weights   {outcome.weights}")
    print(f"curves    {outcome.folder / 'curves.png'}")
    return DONE
