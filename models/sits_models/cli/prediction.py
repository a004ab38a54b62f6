"""`sits-model predict`: a map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sits_catalog.console import DONE, INCOMPLETE, Narrator
from sits_models.cli.options import AsJson, DeviceName, WeightsFolder, WithTraceback, folder_beside, run

__all__ = ["predict"]


def predict(
    weights: WeightsFolder,
    cube: Annotated[str, typer.Option(help="Folder or URL of a dataset to map; it needs no labels.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: map in WEIGHTS or runs/NAME.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Tiles, or parcels, at a time; default: chosen.")] = None,
    tile: Annotated[int | None, typer.Option(min=1, help="Side of a tile in pixels; default: chosen.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read.")] = 2,
    device: DeviceName = "auto",
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Keep those of every class as well.")] = False,
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """Map a cube of any size: class, probability and uncertainty of each pixel, and a table of parcels.

    A model that gives one class to a parcel makes the table alone.

    A map that was interrupted is taken up. A model refuses a cube of other bands or radiometry, and says how it
    differs.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model predict --weights runs/segment-demo --cube out/demo

        sits-model predict --weights weights/ --cube s3://bucket/region --out maps/region --probabilities
    """

    def work() -> int:
        from sits_models.tasks.predict import predict as map_cube

        with Narrator() as narrator:
            outcome = map_cube(
                weights,
                cube=cube,
                out=str(out or folder_beside(weights, "map")),
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
        elif outcome.class_parcels is not None:
            print(f"{facts['folder']}: {sum(outcome.class_parcels):,} of {outcome.parcels:,} parcels classified")
            print(f"look at   {outcome.folder / 'parcels.parquet'}")
        else:
            print(f"{facts['folder']}: {facts['pixels']:,} pixels mapped, {outcome.parcels:,} parcels")
            print(f"look at   {outcome.folder / 'map.png'}")
        return DONE if outcome.complete else INCOMPLETE

    run(work, debug=debug)
