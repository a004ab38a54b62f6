"""The command `sits-model`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sits_catalog.console import DONE, INCOMPLETE, Narrator, guarded

if TYPE_CHECKING:
    from sits_models.tasks.training import TrainingOutcome

__all__ = ["main"]

_OPTIONS: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}
_app = typer.Typer(
    **_OPTIONS,
    help="Learn from cubes: pretrain an encoder, finetune a model, evaluate it, predict maps with it.",
    epilog="The four steps on the demo cube (make demo): sits-model pretrain --recipe cscl-demo; sits-model finetune "
    "--recipe segment-demo --weights runs/cscl-demo; sits-model evaluate --weights runs/segment-demo; sits-model "
    "predict --weights runs/segment-demo --cube out/demo",
)

_NO_TORCH = (
    "sits-model needs torch and what comes with it, which are not installed ({}); run `make setup`, or "
    "`pip install 'sits-cubes[models]'`"
)
_EXTRA = ("torch", "lightning", "safetensors", "tensorboard", "matplotlib", "torchvision")

_Recipe = Annotated[str, typer.Option(help="A shipped recipe (see `sits-model recipes`) or FILE.yaml.")]
_Cube = Annotated[
    list[str] | None, typer.Option(help="Folder or URL of a dataset to learn from; repeatable; default: the recipe's.")
]
_Out = Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME of the recipe.")]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a value of the recipe, such as training.epochs=3; repeatable."),
]
_Weights = Annotated[str, typer.Option(help="A finished run, or a folder of weights.")]
_Device = Annotated[str, typer.Option(help="Where to compute: auto (a GPU where there is one), cpu or cuda.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]


def main() -> None:
    """Entry point of `sits-model`."""
    _app()


_SIMULATED = "(simulated data: these figures say nothing about any real place)"


@_app.command()
def pretrain(
    recipe: _Recipe,
    cube: _Cube = None,
    out: _Out = None,
    set_: _Set = None,
    json_: _Json = False,
    debug: _Debug = False,
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
        from sits_models.tasks.pretrain import pretrain as run  # seconds, which a wrong recipe need not wait for

        with Narrator() as narrator:
            outcome = run(chosen, cubes=cube, out=str(out or Path("runs") / chosen.name), narrator=narrator)
        return _print_training(outcome, as_json=json_)

    _run(work, debug=debug)


@_app.command()
def finetune(
    recipe: _Recipe,
    weights: Annotated[
        str | None, typer.Option(help="A finished run, or a folder of weights, to start from; default: random weights.")
    ] = None,
    cube: _Cube = None,
    out: _Out = None,
    set_: _Set = None,
    json_: _Json = False,
    debug: _Debug = False,
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
        from sits_models.tasks.finetune import finetune as run  # seconds, which a wrong recipe need not wait for

        with Narrator() as narrator:
            folder = str(out or Path("runs") / chosen.name)
            outcome = run(chosen, cubes=cube, weights=weights, out=folder, narrator=narrator)
        return _print_training(outcome, as_json=json_)

    _run(work, debug=debug)


class Part(StrEnum):
    """A split to evaluate on."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@_app.command()
def evaluate(
    weights: _Weights,
    cube: Annotated[
        list[str] | None, typer.Option(help="Folder or URL of a labelled dataset; repeatable; default: the recipe's.")
    ] = None,
    split: Annotated[Part, typer.Option(help="Where to measure.")] = Part.TEST,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: WEIGHTS/evaluation-SPLIT.")] = None,
    device: _Device = "auto",
    json_: _Json = False,
    debug: _Debug = False,
) -> None:
    """Measure a model on a split, each pixel once: mIoU, boundary and interior, parcels, intervals, a report page.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model evaluate --weights runs/segment-demo

        sits-model evaluate --weights runs/segment-demo --cube out/elsewhere --split validation --out elsewhere
    """

    def work() -> int:
        from sits_models.tasks.evaluate import evaluate as run

        folder = str(out or Path(weights) / f"evaluation-{split.value}")
        with Narrator() as narrator:
            outcome = run(weights, cubes=cube, out=folder, split=split.value, narrator=narrator, device=device)
        parts = {
            "overall": outcome.overall,
            "boundary": outcome.boundary,
            "interior": outcome.interior,
            "parcels": outcome.parcels,
        }
        if json_:
            scores = {name: None if part is None else part.to_json() for name, part in parts.items()}
            print(
                json.dumps(
                    {"folder": str(outcome.folder), "split": split.value, "simulated": outcome.simulated, **scores},
                    indent=2,
                )
            )
            return DONE
        for name, part in parts.items():
            if part is not None:
                print(f"{name:9} mIoU {_share(part.miou)}, overall accuracy {_share(part.overall_accuracy)}")
        if outcome.simulated:
            print(_SIMULATED)
        print(f"report    {outcome.report}")
        return DONE

    _run(work, debug=debug)


@_app.command()
def predict(
    weights: _Weights,
    cube: Annotated[str, typer.Option(help="Folder or URL of a dataset to map; it needs no labels.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: WEIGHTS/map.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Tiles at a time; default: chosen.")] = None,
    tile: Annotated[int | None, typer.Option(min=1, help="Side of a tile in pixels; default: chosen.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read.")] = 2,
    device: _Device = "auto",
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Keep those of every class as well.")] = False,
    json_: _Json = False,
    debug: _Debug = False,
) -> None:
    """Map a cube of any size: class, probability and uncertainty of each pixel, and a table of parcels.

    A map that was interrupted is taken up. A model refuses a cube of other bands or radiometry, and says how it
    differs.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model predict --weights runs/segment-demo --cube out/demo

        sits-model predict --weights weights/ --cube s3://bucket/region --out maps/region --probabilities
    """

    def work() -> int:
        from sits_models.tasks.predict import predict as run

        with Narrator() as narrator:
            outcome = run(
                weights,
                cube=cube,
                out=str(out or Path(weights) / "map"),
                narrator=narrator,
                batch=batch,
                tile=tile,
                workers=workers,
                device=device,
                probabilities=probabilities,
            )
        facts = {
            "folder": str(outcome.folder),
            "complete": outcome.complete,
            "cells": outcome.cells,
            "pixels": sum(outcome.class_pixels),
            "empty_pixels": outcome.empty_pixels,
            "parcels": outcome.parcels,
            "seconds": outcome.seconds,
        }
        if json_:
            print(json.dumps(facts, indent=2))
        else:
            print(f"{facts['folder']}: {facts['pixels']:,} pixels mapped, {outcome.parcels:,} parcels")
            print(f"look at   {outcome.folder / 'map.png'}")
        return DONE if outcome.complete else INCOMPLETE

    _run(work, debug=debug)


@_app.command(no_args_is_help=False)
def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe to print in full; default: list them.")] = None,
    json_: _Json = False,
    debug: _Debug = False,
) -> None:
    """List the shipped recipes, or print one with every value spelt out: a file to begin with.

    Examples:

        sits-model recipes

        sits-model recipes segment-laptop > mine.yaml
    """

    def work() -> int:
        from sits_models.recipe import dump_recipe, list_recipes, load_recipe, recipe_to_plain

        if name is not None:
            recipe = load_recipe(name)
            print(json.dumps(recipe_to_plain(recipe), indent=2) if json_ else dump_recipe(recipe), end="")
            if json_:
                print()
            return DONE
        shipped = {known: load_recipe(known) for known in list_recipes()}
        if json_:
            print(json.dumps({known: recipe.title for known, recipe in shipped.items()}, indent=2))
            return DONE
        width = max(map(len, shipped))
        print("\n".join(f"{known:{width}}  {recipe.title}" for known, recipe in shipped.items()))
        return DONE

    guarded(work, debug=debug)


def _run(work: Callable[[], int], *, debug: bool) -> None:
    """Run a command that needs torch; where that is missing, say so."""

    def checked() -> int:
        try:
            return work()
        except ImportError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in _EXTRA:
                raise
            raise ValueError(_NO_TORCH.format(f"there is no {missing}")) from error

    guarded(checked, debug=debug)


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
        print(_SIMULATED)
    print(f"weights   {outcome.weights}")
    print(f"curves    {outcome.folder / 'curves.png'}")
    return DONE


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
