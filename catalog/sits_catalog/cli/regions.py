"""`sits-catalog regions`: named areas with a season."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sits_catalog.cli.options import OPTIONS, AsJson, Debug, one_sentence, print_rows
from sits_catalog.loading import dump_region, list_regions, load_region
from sits_catalog.region import Region

__all__ = ["regions_app"]

regions_app = typer.Typer(**OPTIONS, help="Regions: named areas with a season.")


@regions_app.callback(invoke_without_command=True)
def regions(context: typer.Context, as_json: AsJson = False) -> None:
    """List the shipped regions with their imagery and parcels; `show NAME` prints one with every setting."""
    if context.invoked_subcommand is not None:
        return
    found = [load_region(name) for name in list_regions()]
    print_rows([_row(region) for region in found], as_json)


def _row(region: Region) -> dict[str, str]:
    """What the list says of a region."""
    parcels = region.parcels
    named = "" if parcels is None else " ".join(str(part) for part in (parcels.source, parcels.year) if part)
    return {
        "id": region.id,
        "season": f"{region.season.start}/{region.season.end}",
        "imagery": region.imagery.source,
        "parcels": named or ("simulated" if region.imagery.source == "simulated" else "none"),
        "title": region.title,
    }


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

    with one_sentence(debug):
        plain = dump_region(load_region(name, season=season))
        typer.echo(json.dumps(plain, indent=2) if as_json else yaml.safe_dump(plain, sort_keys=False).rstrip())
