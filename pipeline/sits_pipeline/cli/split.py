"""`sits-cube split` and `sits-cube check-splits`: other splits for a dataset, and the proof that none leaks."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sits_catalog.console import DONE, FAILED, INCOMPLETE, Narrator, guarded
from sits_catalog.region import SplitRule
from sits_pipeline.cli.cube import cube_app
from sits_pipeline.cli.options import AsJson, Debug

__all__ = ["check_splits", "split"]

Datasets = Annotated[
    list[str], typer.Argument(help="Folders or URLs of datasets, those that hold cube.zarr.", show_default=False)
]


class SplitName(StrEnum):
    """A split."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@cube_app.command(no_args_is_help=True)
def split(
    context: typer.Context,
    datasets: Datasets,
    block: Annotated[int, typer.Option(min=640, help="Side of the blocks in m, a multiple of 640.")] = 2560,
    buffer: Annotated[float, typer.Option(min=0, max=100, help="Metres kept free around other splits' parcels.")] = 100,
    train: Annotated[float, typer.Option(min=0, max=1, help="Share of the parcels' area.")] = 0.6,
    validation: Annotated[float, typer.Option(min=0, max=1, help="Share of the parcels' area.")] = 0.2,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of the parcels' area.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other blocks.")] = 0,
    folds: Annotated[int, typer.Option(min=0, help="Folds of equal size in place of shares; 0: none.")] = 0,
    fold: Annotated[int, typer.Option(min=1, help="The fold that is test; the next one is validation.")] = 1,
    min_pixels: Annotated[int, typer.Option(min=1, help="Pixels that a class should have in each split.")] = 1,
    whole: Annotated[SplitName | None, typer.Option(help="All of a dataset in this split.")] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="File of polygons with a column split that decide in place of blocks; of patches: name,split.",
        ),
    ] = None,
    by_year: Annotated[
        list[str] | None,
        typer.Option(help="Whole datasets by the year their season ends in: train=2016,2017; repeatable."),
    ] = None,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Give finished datasets other splits: the array split, chips, parcels, statistics and report are replaced.

    No other array changes, and the result is what a build with these splits would have written. An interrupted run is
    taken up by the same command.

    Exit codes: 0 done, 1 failed, 2 wrong use, 3 the dataset was not complete before, and is not now.

    \b
    Examples:
        sits-cube split out/demo --block 1280 --train 0.7 --validation 0.1 --test 0.2
        sits-cube split out/demo --folds 5 --fold 2
        sits-cube split out/demo --from my-areas.gpkg
        sits-cube split out/pastis --folds 5 --fold 1
        sits-cube split out/a-2016 out/a-2017 out/a-2018 --by-year train=2016,2017 --by-year test=2018
    """

    def work() -> int:
        from sits_pipeline.folder import Folder
        from sits_pipeline.resplit import split_by_year, split_region

        _check_meaning(context)
        places, years = _sorted_out(datasets, by_year or [])
        folders = [Folder(place) for place in places]
        with Narrator() as narrator:
            if years:
                done = split_by_year(folders, years, narrator, buffer_m=buffer)
            else:
                rule = SplitRule(
                    block_m=block,
                    buffer_m=buffer,
                    shares={"train": train, "validation": validation, "test": test},
                    seed=seed,
                    folds=folds,
                    fold=fold,
                    min_pixels=min_pixels,
                    whole=None if whole is None else whole.value,
                    file=None if from_ is None else str(from_),
                )
                done = split_region(folders, rule, narrator)
        if json_:
            print(json.dumps([asdict(one) for one in done], indent=2))
        else:
            print("\n\n".join(map(_in_words, done)))
        return DONE if all(one.complete for one in done) else INCOMPLETE

    guarded(work, debug=debug)


_SHARES = ("train", "validation", "test")
_IDLE = {
    "by_year": ("block", *_SHARES, "seed", "folds", "fold", "min_pixels", "whole", "from_"),
    "whole": ("block", *_SHARES, "seed", "min_pixels"),
    "from_": ("block", *_SHARES, "seed"),
    "folds": _SHARES,
}
"""Options that say nothing beside another one."""


def _check_meaning(context: typer.Context) -> None:
    """Raises ValueError where an option is given that another one makes say nothing."""
    given = {name for name in context.params if _is_given(context, name)}
    for way, idle in _IDLE.items():
        words = [_option(name) for name in idle if way in given and name in given]
        if words:
            raise ValueError(f"{_option(way)} decides without {' and '.join(words)}; leave one or the other out")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(name: str) -> str:
    return f"--{name.strip('_').replace('_', '-')}"


def _sorted_out(places: list[str], years: list[str]) -> tuple[list[str], list[str]]:
    """Datasets and years, of which the shell may hand over some among the datasets: --by-year train=2016 test=2017."""
    if not years:
        return places, years
    words = tuple(f"{name.value}=" for name in SplitName)
    more = [place for place in places if place.startswith(words)]
    return [place for place in places if place not in more], [*years, *more]


def _in_words(done: Any) -> str:
    total = sum(done.pixels.values())
    cells = "shards" if done.unit == "patches" else "cells"
    state = "complete" if done.complete else "INCOMPLETE"
    lines = [f"{done.name}: {state}, {done.built} of {done.cells} {cells} split now"]
    for name, pixels in done.pixels.items():
        lines.append(f"  {name:<10} {pixels / total:6.1%} of the pixels, {done.parcels.get(name, 0)} {done.unit}")
    return "\n".join([*lines, *(f"  {note}" for note in done.notes)])


@cube_app.command(no_args_is_help=True)
def check_splits(datasets: Datasets, json_: AsJson = False, debug: Debug = False) -> None:
    """Prove from a dataset's files that no split leaks into another, whoever has made the splits.

    Every parcel is in one split; no pixel of a split is inside of another split's parcel or nearer to it than the
    buffer; every labelled pixel is in its parcel's split; the chips say what their pixels are. Classes that a split
    lacks are named.

    Exit codes: 0 no leak, 1 a leak, which is named with parcel and pixel.
    """

    def work() -> int:
        from sits_pipeline.folder import Folder
        from sits_pipeline.resplit import check_patches
        from sits_pipeline.resplit import check_splits as prove
        from sits_pipeline.store import read_attributes

        proofs = []
        with Narrator() as narrator:
            for place in datasets:
                narrator.stage(f"checking the splits of {place}")
                folder = Folder(place)
                are_patches = (read_attributes(folder) or {}).get("profile") == "patches"
                proofs.append(check_patches(folder) if are_patches else prove(folder, progress=narrator.progress))
        if json_:
            print(json.dumps([asdict(proof) for proof in proofs], indent=2))
        else:
            print("\n\n".join(map(_proof_in_words, proofs)))
        return FAILED if any(proof.leaks for proof in proofs) else DONE

    guarded(work, debug=debug)


def _proof_in_words(proof: Any) -> str:
    if not proof.leaks:
        pixels = sum(proof.pixels.values())
        head = [f"{proof.location}: no leak among {proof.parcels} {proof.unit} and {pixels} pixels"]
    else:
        head = [f"{proof.location}: LEAKS"]
        head += [f"  {leak.what}{f', and {leak.count - 1} more' if leak.count > 1 else ''}" for leak in proof.leaks]
    return "\n".join([*head, *(f"  {note}" for note in proof.notes)])
