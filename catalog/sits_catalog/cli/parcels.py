"""`sits-catalog parcels`: who publishes declared parcels, and where; and fetching them."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from sits_catalog.cli.options import OPTIONS, AsJson, Debug, one_sentence, print_rows
from sits_catalog.loading import list_parcel_sources, load_national_source, load_parcel_source
from sits_catalog.parcel_source import NationalSource

__all__ = ["parcels_app"]

parcels_app = typer.Typer(**OPTIONS, help="Parcel sources: who publishes declared parcels, where, and fetching them.")


@parcels_app.callback(invoke_without_command=True)
def parcels(context: typer.Context, as_json: AsJson = False) -> None:
    """List the shipped parcel sources; `show NAME` prints one with its addresses, `fetch NAME` downloads a year."""
    if context.invoked_subcommand is not None:
        return
    found = [load_national_source(name) for name in list_parcel_sources()]
    rows = [{"id": s.id, "years": _years(s) or "any", "licence": s.licence, "title": s.title} for s in found]
    print_rows(rows, as_json)


@parcels_app.command("show")
def show_parcels(
    name: Annotated[str, typer.Argument(help="A shipped name.")], as_json: AsJson = False, debug: Debug = False
) -> None:
    """Print a parcel source: columns, licence, where each year is published, and how to use it."""
    with one_sentence(debug):
        source = load_national_source(name)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(source), indent=2))
        return
    facts = {key: value for key, value in dataclasses.asdict(source).items() if key != "editions"}
    typer.echo("\n".join(f"{key}: {' '.join(str(value).split())}" for key, value in facts.items() if value is not None))
    for edition in source.editions:
        typer.echo(f"{edition.year}: {' '.join(edition.addresses)}")
        own = {key: value for key, value in dataclasses.asdict(edition).items() if value is not None}
        differing = [f"{key} {own[key]!r}" for key in own if key not in ("year", "addresses", "sha256", "files")]
        if differing:
            typer.echo(f"      {', '.join(differing)}")
    typer.echo(_use(source))


@parcels_app.command("fetch")
def fetch_parcels(
    name: Annotated[str, typer.Argument(help="A shipped name; `sits-catalog parcels` lists them.")],
    year: Annotated[int, typer.Option(help="Which year's parcels.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of all fetched parcels; default: where SITS_PARCELS says, else ./parcels."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Ask whether what was fetched has changed, and compare its checksums."),
    ] = False,
    mapping: Annotated[
        bool, typer.Option("--mapping/--no-mapping", help="Fetch the table from the crop codes to HCAT as well.")
    ] = True,
    with_fiboa: Annotated[
        bool,
        typer.Option(
            "--with-fiboa",
            help="Let fiboa-cli fetch and convert the year, as a program of its own: `fiboa` in PATH, or by uv.",
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Download a year of parcels from its provider; a download that was cut goes on where it stopped.

    Afterwards a region finds them by `parcels: {source: NAME, year: YEAR}`.
    """
    from sits_catalog.console import guarded

    guarded(
        lambda: _fetch(name, year, out, again=again, mapping=mapping, with_fiboa=with_fiboa),
        debug=debug,
    )


def _fetch(name: str, year: int, out: Path | None, *, again: bool, mapping: bool, with_fiboa: bool) -> int:
    from sits_catalog.console import DONE, Narrator
    from sits_catalog.fetching import convert_edition, fetch_edition, parcels_folder

    national = load_national_source(name)
    folder = parcels_folder() if out is None else out
    with Narrator() as narrator:
        if with_fiboa:
            receipt = convert_edition(
                national, year, folder=folder, listener=narrator, again=again, environment=os.environ
            )
        else:
            receipt = fetch_edition(national, year, folder=folder, listener=narrator, again=again, mapping=mapping)
    path = str(folder / national.id / str(year) / receipt.path)
    typer.echo(f"fetched: {path}")
    if path.lower().endswith(".rar"):
        typer.echo(f"a .rar archive is not read here: unpack it with 7-Zip, unrar or bsdtar into {Path(path).parent}")
    typer.echo(f"use it: parcels: {{source: {national.id}, year: {year}}}")
    if folder.resolve() != parcels_folder().resolve():
        typer.echo(f"so that a region finds it: export SITS_PARCELS={folder.resolve()}")
    source = national.parcels(year, path)
    typer.echo(f"licence: {source.licence}")
    typer.echo(f"whom a map made of it names: {source.attribution}")
    if national.notes is not None:
        typer.echo(f"note: {' '.join(national.notes.split())}")
    return DONE


def _years(source: NationalSource) -> str:
    """Years as 2009-2012, 2015; empty where there are none."""
    runs: list[list[int]] = []
    for edition in source.editions:
        if runs and runs[-1][-1] == edition.year - 1:
            runs[-1].append(edition.year)
        else:
            runs.append([edition.year])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _use(source: NationalSource) -> str:
    """What to type for the newest edition, or for a file of the user's."""
    if not source.editions:
        return f"use it: parcels: {{source: {source.id}, path: FILE}}"
    year = source.editions[-1].year
    with one_sentence(debug=False):
        path = load_parcel_source(source.id, year).path
    use = f"use it: parcels: {{source: {source.id}, year: {year}}}"
    return use if path else f"fetch it: sits-catalog parcels fetch {source.id} --year {year}\n{use}"
