"""`sits-model export`: a model that other programs run."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sits_catalog.console import DONE, Narrator
from sits_models.cli.options import AsJson, WeightsFolder, WithTraceback, run

if TYPE_CHECKING:
    from sits_models.tasks.export import Exported

__all__ = ["export"]


class To(StrEnum):
    """What to write."""

    ONNX = "onnx"
    TORCH = "torch"


def export(
    weights: WeightsFolder,
    to: Annotated[To, typer.Option(help="An ONNX file, or a program of torch.export.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: NAME.onnx or NAME.pt2 here, by the recipe's name.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of a chip in pixels; default: any that the model takes.")
    ] = None,
    dates: Annotated[
        int | None, typer.Option(min=1, help="Dates of a series; default: any number that the model takes.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Chips at a time; default: any number.")] = None,
    opset: Annotated[int | None, typer.Option(help="Version of ONNX's operators, 18 to 23; default: 20.")] = None,
    json_: AsJson = False,
    debug: WithTraceback = False,
) -> None:
    """Write a model as one file that runs without this project, and compare what it computes with the model.

    It takes image (batch, dates, bands, height, width) as a cube stores it, valid and day, and gives logits; a
    pretrained model gives its embedding. A file that differs is not kept.

    Exit codes: 0 done, 1 failed, 2 wrong use.

    Examples:

        sits-model export --weights runs/segment-demo --to onnx

        sits-model export --weights runs/segment-demo --to torch --out segment.pt2 --size 48
    """

    def work() -> int:
        from sits_models.tasks.export import export as write

        with Narrator() as narrator:
            exported = write(
                weights,
                to=to.value,
                out=None if out is None else str(out),
                narrator=narrator,
                batch=batch,
                dates=dates,
                size=size,
                opset=opset,
            )
        print(json.dumps(exported.to_json(), indent=2) if json_ else "\n".join(_lines(exported)))
        return DONE

    run(work, debug=debug)


def _lines(exported: Exported) -> list[str]:
    from sits_models.tasks.exporting import TOLERANCE

    facts = [f"{exported.size / 1e6:,.1f} MB"] + ([f"opset {exported.opset}"] if exported.opset else [])
    inputs = (f"{name} {_shape(shape)}" for name, shape in exported.inputs.items())
    return [
        f"{exported.path}: {', '.join(facts)}",
        f"takes     {', '.join(inputs)}",
        f"gives     {exported.output} {_shape(exported.output_shape)}",
        *(f"{axis:9} {dimension}" for axis, dimension in exported.dimensions),
        *(f"differs   by {agreement}" for agreement in exported.agreements),
        f"equal     to the model, where {TOLERANCE:.0e} of the largest value is allowed",
    ]


def _shape(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
