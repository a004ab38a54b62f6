"""`sits-catalog cubes`: the catalogue of the datasets that were made."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sits_catalog.cli.options import OPTIONS, AsJson, Debug, one_sentence, print_rows
from sits_catalog.printable import printable

if TYPE_CHECKING:
    from sits_catalog.catalogue.folder import Catalogue, Entry

__all__ = ["At", "cubes_app", "open_catalogue"]

JsonObject = dict[str, Any]

cubes_app = typer.Typer(**OPTIONS, help="The catalogue of datasets: add, find, check and remove.")

At = Annotated[
    Path | None,
    typer.Option("--catalogue", help="Folder of the catalogue; default: SITS_CATALOGUE, else ./catalogue."),
]
Name = Annotated[str, typer.Argument(metavar="ID", help="Id of a dataset in the catalogue.")]


def open_catalogue(at: Path | None) -> Catalogue:
    """The catalogue that a command is about. Raises ValueError where its folder holds other things."""
    from sits_catalog.catalogue.folder import Catalogue

    return Catalogue.at(at, os.environ)


@cubes_app.callback(invoke_without_command=True)
def cubes(context: typer.Context, catalogue: At = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the datasets of the catalogue; `add DATASET` puts one into it."""
    if context.invoked_subcommand is not None:
        return
    with one_sentence(debug):
        found = open_catalogue(catalogue)
        found.check_exists()
        _print(found.entries(), as_json, "the catalogue is empty")


@cubes_app.command("add", no_args_is_help=True)
def add(
    datasets: Annotated[
        list[str], typer.Argument(metavar="DATASET...", help="Folders or addresses (https, s3) of finished datasets.")
    ],
    catalogue: At = None,
    family: Annotated[
        str | None, typer.Option(help="Family they belong to; default: the id without UTM zone and year.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--id", help="Id in the catalogue of the one dataset that is added.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Add datasets, or take up what they have become; nothing of a dataset is copied or changed."""
    from sits_catalog.catalogue.write import add_dataset

    with one_sentence(debug):
        if name is not None and len(datasets) > 1:
            raise ValueError(f"--id names one dataset, got {len(datasets)}; add them one by one")
        found = open_catalogue(catalogue)
        for location in datasets:
            entry = add_dataset(found, location, family=family, name=name)
            splits = f", {len(entry.splits)} splits" if entry.splits else ""
            typer.echo(f"{entry.id}: added to the family {entry.family}{splits}")
        typer.echo(f"page: {found.folder / 'index.html'}")


@cubes_app.command("show", no_args_is_help=True)
def show(name: Name, catalogue: At = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Print what the catalogue knows of a dataset; with --json its STAC item."""
    with one_sentence(debug):
        entry = open_catalogue(catalogue).entry(name)
    if as_json:
        typer.echo(json.dumps(entry.item, indent=2))
        return
    for line in _described(entry):
        typer.echo(printable(line))


@cubes_app.command("search")
def search(
    bbox: Annotated[
        str, typer.Option(metavar="W,S,E,N", help="Box in degrees that the dataset's ground must meet.")
    ] = "",
    season: Annotated[str, typer.Option(metavar="FIRST/LAST", help="Days of which one at least has a date.")] = "",
    crop: Annotated[
        str, typer.Option(help="Part of a class's name, its code, or the beginning of its HCAT code.")
    ] = "",
    bands: Annotated[str, typer.Option(help="Bands it must have: B04,B08.")] = "",
    family: Annotated[str, typer.Option(help="Its family.")] = "",
    text: Annotated[str, typer.Option(help="Words in its id, title, description, classes or licence.")] = "",
    catalogue: At = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the datasets that are all that is asked; exit code 1 where there are none."""
    from sits_catalog.catalogue.search import Query, matches, parse_box
    from sits_catalog.loading import parse_season

    with one_sentence(debug):
        found = open_catalogue(catalogue)
        found.check_exists()
        query = Query(
            box=parse_box(bbox) if bbox else None,
            season=parse_season(season) if season else None,
            crop=crop,
            bands=tuple(band.strip().upper() for band in bands.split(",") if band.strip()),
            family=family,
            text=text,
        )
        entries = [entry for entry in found.entries() if matches(entry, query)]
        _print(entries, as_json, "no dataset in the catalogue is all that")
    if not entries:
        raise typer.Exit(1)


@cubes_app.command("validate")
def validate(catalogue: At = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Check it by the core schemas of STAC, and that each dataset is where and what it was; exit code 1: findings."""
    from sits_catalog.catalogue.validate import can_check_schemas, findings

    with one_sentence(debug):
        found = open_catalogue(catalogue)
        sentences = list(findings(found))
    if as_json:
        typer.echo(json.dumps(sentences, indent=2))
    else:
        if not can_check_schemas():
            typer.echo(
                "note: jsonschema is not installed, so that nothing was checked against the core schemas of STAC",
                err=True,
            )
        n = len(found.entries())
        for sentence in [printable(one) for one in sentences] or [
            f"{found.folder}: {n} {'dataset' if n == 1 else 'datasets'}, all as it should be"
        ]:
            typer.echo(sentence)
    if sentences:
        raise typer.Exit(1)


@cubes_app.command("remove", no_args_is_help=True)
def remove(name: Name, catalogue: At = None, debug: Debug = False) -> None:
    """Take a dataset out of the catalogue; the dataset itself stays as it is."""
    from sits_catalog.catalogue.write import remove_dataset

    with one_sentence(debug):
        found = open_catalogue(catalogue)
        remove_dataset(found, name)
        typer.echo(f"{name}: taken out of {found.folder}; the dataset stays where it is")


def _print(entries: list[Entry] | tuple[Entry, ...], as_json: bool, nothing: str) -> None:
    if entries or as_json:
        print_rows([_row(entry, as_json) for entry in entries], as_json)
    else:
        typer.echo(nothing, err=True)


def _row(entry: Entry, as_json: bool) -> JsonObject:
    properties = entry.item["properties"]
    start, end = (str(properties.get(key) or properties["datetime"])[:10] for key in ("start_datetime", "end_datetime"))
    row = {
        "id": entry.id,
        "family": entry.family,
        "dates": f"{start}/{end}",
        "state": _state(properties),
        "address": properties["sits_cube:address"],
    }
    return {**row, "bbox": entry.item.get("bbox"), "title": properties.get("title")} if as_json else row


def _state(properties: JsonObject) -> str:
    simulated = ", SIMULATED" if properties.get("sits_cube:simulated") else ""
    return ("complete" if properties.get("sits_cube:complete") else "not complete") + simulated


def _described(entry: Entry) -> list[str]:
    properties = entry.item["properties"]
    box = ", ".join(f"{value:g}" for value in entry.item.get("bbox") or ()) or "unknown"
    lines = [
        f"{entry.id}: {properties.get('title') or ''}",
        f"  {properties.get('description') or ''}",
        f"  state    {_state(properties)}",
        f"  family   {entry.family}",
        f"  place    {box}",
        f"  bands    {' '.join(properties.get('sits_cube:bands', ()))}",
        f"  lies in  {properties['sits_cube:address']}, {properties['sits_cube:bytes'] / 1e6:.1f} MB",
        f"  licence  {properties.get('sits_cube:licence') or 'not stated'}",
    ]
    lines += [f"  split    {one['name']}: {_amounts(one)}" for one in properties.get("sits_cube:splits", ())]
    for row in sorted(properties.get("sits_cube:classes", ()), key=lambda one: -one["pixels"]):
        if row["index"] and (row["pixels"] or row["parcels"]):
            lines.append(f"  class    {row['name']}: {row['pixels']} pixels, {row['parcels']} parcels")
    return lines


def _amounts(split: JsonObject) -> str:
    return ", ".join(f"{split[key]} {key}" for key in ("patches", "parcels", "pixels") if key in split)
