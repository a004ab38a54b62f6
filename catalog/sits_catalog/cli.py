"""`sits-catalog`: what the catalog ships, for people and, with `--json`, for machines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from sits_catalog.loading import (
    dump_region,
    list_parcel_sources,
    list_regions,
    list_taxonomies,
    load_national_source,
    load_region,
    load_taxonomy,
)

__all__ = ["main"]

app = typer.Typer(
    help="Regions, crop taxonomies and parcel sources that sits-build knows by name.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
regions_app = typer.Typer(help="Regions: named areas with a season.", rich_markup_mode=None)
taxonomies_app = typer.Typer(help="Taxonomies: from crop codes to the classes of a cube.", rich_markup_mode=None)
parcels_app = typer.Typer(help="Parcel sources: who publishes declared parcels, and where.", rich_markup_mode=None)
app.add_typer(regions_app, name="regions")
app.add_typer(taxonomies_app, name="taxonomies")
app.add_typer(parcels_app, name="parcels")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def _one_sentence(debug: bool) -> Iterator[None]:
    """An error of the user as one sentence on stderr and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


@regions_app.callback(invoke_without_command=True)
def regions(context: typer.Context, as_json: AsJson = False) -> None:
    """List the shipped regions; `show NAME` prints one with every setting."""
    if context.invoked_subcommand is not None:
        return
    found = [load_region(name) for name in list_regions()]
    rows = [{"id": r.id, "season": f"{r.season.start}/{r.season.end}", "title": r.title} for r in found]
    _print(rows, as_json)


@regions_app.command("show")
def show_region(
    name: Annotated[
        str,
        typer.Argument(help="A shipped name, a .yaml file, a .geojson file or W,S,E,N (after -- where W is negative)."),
    ],
    season: Annotated[str | None, typer.Option(help="First and last day: 2023-10-01/2024-09-30.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print a region with every setting, as a region file; it also checks your own region file."""
    import yaml

    with _one_sentence(debug):
        plain = dump_region(load_region(name, season=season))
        typer.echo(json.dumps(plain, indent=2) if as_json else yaml.safe_dump(plain, sort_keys=False).rstrip())


@taxonomies_app.callback(invoke_without_command=True)
def taxonomies(context: typer.Context, as_json: AsJson = False) -> None:
    """List the shipped taxonomies; `show NAME` prints the classes of one."""
    if context.invoked_subcommand is not None:
        return
    found = [load_taxonomy(name) for name in list_taxonomies()]
    _print([{"id": t.id, "classes": len(t.classes), "title": t.title} for t in found], as_json)


@taxonomies_app.command("show")
def show_taxonomy(
    name: Annotated[str, typer.Argument(help="A shipped name or a CSV file.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print the classes of a taxonomy; it also checks your own CSV file."""
    with _one_sentence(debug):
        taxonomy = load_taxonomy(name)
    classes = [dataclasses.asdict(crop) for crop in taxonomy.classes]
    if as_json:
        whole = {**dataclasses.asdict(taxonomy), "classes": classes, "ignore": sorted(taxonomy.ignore)}
        typer.echo(json.dumps(whole, indent=2))
        return
    _print(classes, as_json=False)
    if taxonomy.ignore:
        typer.echo(f"ignored: {', '.join(sorted(taxonomy.ignore))}")


@parcels_app.callback(invoke_without_command=True)
def parcels(context: typer.Context, as_json: AsJson = False) -> None:
    """List the shipped parcel sources; `show NAME` prints one with its addresses."""
    if context.invoked_subcommand is not None:
        return
    found = [load_national_source(name) for name in list_parcel_sources()]
    years = {source.id: [edition.year for edition in source.editions] for source in found}
    rows = [{"id": s.id, "years": f"{min(years[s.id])}-{max(years[s.id])}", "title": s.title} for s in found]
    _print(rows, as_json)


@parcels_app.command("show")
def show_parcels(
    name: Annotated[str, typer.Argument(help="A shipped name.")], as_json: AsJson = False, debug: Debug = False
) -> None:
    """Print a parcel source: columns, licence, and where each year is published."""
    with _one_sentence(debug):
        source = dataclasses.asdict(load_national_source(name))
    if as_json:
        typer.echo(json.dumps(source, indent=2))
        return
    editions = source.pop("editions")
    typer.echo("\n".join(f"{key}: {value}" for key, value in source.items() if value is not None))
    typer.echo("\n".join(f"{edition['year']}: {' '.join(edition['addresses'])}" for edition in editions))


def _print(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    typer.echo(json.dumps(rows, indent=2) if as_json else "\n".join(_table(rows)))


def _table(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Rows as aligned text, under the names of their keys."""
    lines = [list(rows[0]), *([str(value or "") for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def main() -> None:
    """Run `sits-catalog`."""
    app()
