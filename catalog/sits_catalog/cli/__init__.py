"""`sits-catalog`: what the catalog knows, for people and, with `--json`, for machines."""

from __future__ import annotations

import typer

from sits_catalog.cli.cubes import cubes_app
from sits_catalog.cli.locations import sample_locations
from sits_catalog.cli.options import OPTIONS
from sits_catalog.cli.parcels import parcels_app
from sits_catalog.cli.regions import regions_app
from sits_catalog.cli.serve import serve
from sits_catalog.cli.taxonomies import taxonomies_app

__all__ = ["app", "main"]

app = typer.Typer(
    **OPTIONS,
    help="Regions, crop taxonomies and parcel sources that sits-build knows by name, and the datasets that were made.",
    no_args_is_help=True,
)
app.add_typer(regions_app, name="regions")
app.add_typer(taxonomies_app, name="taxonomies")
app.add_typer(parcels_app, name="parcels")
app.add_typer(cubes_app, name="cubes")
app.command("serve")(serve)
app.command("sample-locations", no_args_is_help=True)(sample_locations)


def main() -> None:
    """Run `sits-catalog`."""
    app()
