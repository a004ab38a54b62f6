"""`sits-catalog parcels`: who publishes declared parcels, and where."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from sits_catalog.cli.options import OPTIONS, AsJson, Debug, one_sentence, print_rows
from sits_catalog.loading import list_parcel_sources, load_national_source

__all__ = ["parcels_app"]

parcels_app = typer.Typer(**OPTIONS, help="Parcel sources: who publishes declared parcels, and where.")


@parcels_app.callback(invoke_without_command=True)
def parcels(context: typer.Context, as_json: AsJson = False) -> None:
    """List the shipped parcel sources; `show NAME` prints one with its addresses."""
    if context.invoked_subcommand is not None:
        return
    found = [load_national_source(name) for name in list_parcel_sources()]
    years = {source.id: [edition.year for edition in source.editions] for source in found}
    rows = [{"id": s.id, "years": f"{min(years[s.id])}-{max(years[s.id])}", "title": s.title} for s in found]
    print_rows(rows, as_json)


@parcels_app.command("show")
def show_parcels(
    name: Annotated[str, typer.Argument(help="A shipped name.")], as_json: AsJson = False, debug: Debug = False
) -> None:
    """Print a parcel source: columns, licence, and where each year is published."""
    with one_sentence(debug):
        source = dataclasses.asdict(load_national_source(name))
    if as_json:
        typer.echo(json.dumps(source, indent=2))
        return
    editions = source.pop("editions")
    typer.echo("\n".join(f"{key}: {value}" for key, value in source.items() if value is not None))
    typer.echo("\n".join(f"{edition['year']}: {' '.join(edition['addresses'])}" for edition in editions))
