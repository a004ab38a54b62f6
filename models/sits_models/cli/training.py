"""`sits-model pretrain` and `finetune`: a recipe trained on cubes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sits_catalog.console import DONE, Narrator
from sits_models.cli.launch import hush, processes_of, spoken, start_processes
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
from sits_models.device import Rank

if TYPE_CHECKING:
    from sits_models.recipe import Recipe
    from sits_models.tasks.training import TrainingOutcome

__all__ = ["finetune", "pretrain"]

StartWeights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="A finished run, a folder of weights or a name of the zoo to start from; default: random weights.",
    ),
]

Devices = Annotated[
    str, typer.Option(help="GPUs of this machine to train on, a process each: a number, or auto for all there are.")
]

Transductive = Annotated[
    bool,
    typer.Option(
        "--transductive",
        help="Without labels: learn from the ground of all splits, validation and test too, which the card then says; "
        "default: from the train split, and from all of a cube without splits.",
    ),
]


def pretrain(
    recipe: RecipeName,
    weights: StartWeights = None,
    cube: CubeFolders = None,
    out: OutFolder = None,
    set_: Changes = None,
    transductive: Transductive = False,
    devices: Devices = "1",
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """Pretrain an encoder, with labels or without, or take up a pretraining that was interrupted.

    With labels by contrasting neighbouring pixels (cscl). Without any, from series, by the same pixel in two views
    (embedding-earth); from single dates, by style and regions (glcnet), by whole chips (simclr), or by seasons and
    colours (seco). Inpainting and jigsaw are sections of a recipe of your own.

    Writes the run folder: recipe, cubes and environment as used, metrics, curves, and the weights, from which finetune
    starts. With --weights the encoder of other weights is trained further, with heads and queues that are new.

    Several GPUs share each batch with --devices; several machines through torchrun.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model pretrain --recipe cscl-demo

        sits-model pretrain --recipe cscl-laptop --cube out/my-region --set training.epochs=5 --out runs/mine

        sits-model pretrain --recipe embedding-earth-laptop --cube out/my-region --transductive

        sits-model pretrain --recipe glcnet-laptop --cube out/my-region

        sits-model pretrain --recipe simclr-laptop --cube out/my-region

        sits-model pretrain --recipe seco-laptop --cube out/region-a --cube out/region-b

        sits-model pretrain --recipe seco-laptop --weights runs/seco-laptop --cube out/region-c --out runs/further
    """
    changes = [*(set_ or ()), *(["data.transductive=true"] if transductive else ())]

    def train(chosen: Recipe, out: str, narrator: Narrator) -> TrainingOutcome:
        from sits_models.tasks.pretrain import pretrain as train  # seconds, which a wrong recipe need not wait for

        return train(chosen, cubes=cube, weights=weights, out=out, narrator=narrator)

    run(lambda: _work(train, recipe, changes, out, devices, as_json=json_), debug=debug)


def finetune(
    recipe: RecipeName,
    weights: StartWeights = None,
    cube: CubeFolders = None,
    out: OutFolder = None,
    set_: Changes = None,
    devices: Devices = "1",
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """Train a model that gives each pixel, or each parcel, a crop class, or take up a training that was interrupted.

    Without --weights it starts from random ones.

    Several GPUs share each batch with --devices; several machines through torchrun.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model finetune --recipe segment-demo --weights runs/cscl-demo

        sits-model finetune --recipe segment-laptop --cube out/region-a --cube out/region-b --set data.batch=8
    """

    def train(chosen: Recipe, out: str, narrator: Narrator) -> TrainingOutcome:
        from sits_models.tasks.finetune import finetune as train  # seconds, which a wrong recipe need not wait for

        return train(chosen, cubes=cube, weights=weights, out=out, narrator=narrator)

    run(lambda: _work(train, recipe, set_, out, devices, as_json=json_), debug=debug)


def _work(
    train: Callable[[Recipe, str, Narrator], TrainingOutcome],
    name: str,
    changes: list[str] | None,
    out: Path | None,
    devices: str,
    *,
    as_json: bool,
) -> int:
    """Train a recipe in this process, which may be one of several, or in as many as there are devices asked for."""
    rank = Rank.here()
    hush(rank)
    with spoken(rank, before=True):
        from sits_models.recipe import load_recipe

        chosen = load_recipe(name, changes=changes or ())
        count = processes_of(devices, rank)
    if count > rank.of:
        return start_processes(count)
    with spoken(rank), Narrator() as narrator:
        outcome = train(chosen, str(out or Path("runs") / chosen.name), narrator)
    return _print_training(outcome, as_json=as_json)


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
