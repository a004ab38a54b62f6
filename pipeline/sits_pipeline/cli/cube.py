"""`sits-cube`: look at and prove datasets."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sits_catalog.console import DONE, FAILED, INCOMPLETE, Narrator, guarded
from sits_pipeline.cli.options import OPTIONS, AsJson, Dataset, Debug, parse_day

__all__ = ["cube_app"]

cube_app = typer.Typer(**OPTIONS, help="Look at, prove, split, import and export datasets.")


@cube_app.command()
def info(dataset: Dataset, json_: AsJson = False, debug: Debug = False) -> None:
    """Say what a dataset holds: grid, dates, bands, classes, splits, state."""

    def work() -> int:
        from sits_catalog.cube import VERSION
        from sits_pipeline import patches, show
        from sits_pipeline.folder import Folder
        from sits_pipeline.importers import words as importers
        from sits_pipeline.journal import split_under_way
        from sits_pipeline.store import read_attributes

        folder = Folder(dataset)
        attributes = read_attributes(folder) or {}
        known = importers if "imported" in attributes else patches
        words = known if attributes.get("profile") == "patches" else show
        facts = words.dataset_as_json(folder)
        splitting = split_under_way(folder) is not None
        print(json.dumps({**facts, "splitting": splitting}, indent=2) if json_ else words.dataset_in_words(facts))
        if facts["sits_cube"]["version"] != VERSION and not json_:
            print(
                f"  state    of a version that this program does not know ({VERSION}): what is new in it is not shown"
            )
        if splitting and not json_:
            print("  state    a split is under way: run the same sits-cube split command to go on")
        return DONE

    guarded(work, debug=debug)


@cube_app.command()
def verify(dataset: Dataset, json_: AsJson = False, debug: Debug = False) -> None:
    """Prove each byte of a dataset against the journal; every damaged, missing or foreign file is named.

    Exit codes: 0 all is as it was written, 1 something is not, 3 the build is not complete.
    """

    def work() -> int:
        from sits_pipeline.folder import Folder
        from sits_pipeline.verify import verify as prove

        folder = Folder(dataset)
        with Narrator() as narrator:
            narrator.stage(f"verifying {dataset}")
            findings = prove(folder, progress=narrator.progress)
        if json_:
            print(json.dumps([{"file": finding.file, "what": finding.what} for finding in findings], indent=2))
        else:
            print("\n".join(str(finding) for finding in findings) or f"{dataset}: every file is as it was written")
        if all(finding.incomplete for finding in findings):
            return INCOMPLETE if findings else DONE
        return FAILED

    guarded(work, debug=debug)


class Layer(StrEnum):
    """What a preview shows."""

    RGB = "rgb"
    NDVI = "ndvi"
    LABELS = "labels"


@cube_app.command()
def preview(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("preview.png"),
    layer: Annotated[Layer, typer.Option(help="What to show.")] = Layer.RGB,
    day: Annotated[str | None, typer.Option(help="A date of the cube, 2018-06-27; default: the clearest.")] = None,
    size: Annotated[int, typer.Option(min=16, help="Longest side in pixels.")] = 1024,
    debug: Debug = False,
) -> None:
    """Draw one date, its NDVI or the crop classes into a PNG."""

    def work() -> int:
        from sits_pipeline.folder import Folder
        from sits_pipeline.preview import render_preview

        image, text = render_preview(Folder(dataset), layer.value, day=parse_day(day), max_px=size)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(image)
        print(f"{out}: {text}")
        return DONE

    guarded(work, debug=debug)
