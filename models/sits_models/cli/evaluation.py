"""`sits-model evaluate`: how good a model is."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sits_catalog.console import DONE, Narrator
from sits_models.cli.options import SIMULATED, AsJson, DeviceName, WeightsFolder, WithTraceback, folder_beside, run

__all__ = ["evaluate"]


class Part(StrEnum):
    """A split to evaluate on."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def evaluate(
    weights: WeightsFolder,
    cube: Annotated[
        list[str] | None, typer.Option(help="Folder or URL of a labelled dataset; repeatable; default: the recipe's.")
    ] = None,
    split: Annotated[Part, typer.Option(help="Where to measure.")] = Part.TEST,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: evaluation-SPLIT in WEIGHTS or runs/NAME.")
    ] = None,
    device: DeviceName = "auto",
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """Measure a model on a split, each pixel once: mIoU, boundary and interior, parcels, intervals, a report page.

    A model that gives one class to a parcel is measured on the labelled parcels, each once.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model evaluate --weights runs/segment-demo

        sits-model evaluate --weights runs/segment-demo --cube out/elsewhere --split validation --out elsewhere
    """

    def work() -> int:
        from sits_models.tasks.evaluate import evaluate as measure

        folder = str(out or folder_beside(weights, f"evaluation-{split.value}"))
        with Narrator() as narrator:
            outcome = measure(weights, cubes=cube, out=folder, split=split.value, narrator=narrator, device=device)
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
            print(SIMULATED)
        print(f"report    {outcome.report}")
        return DONE

    run(work, debug=debug)


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
