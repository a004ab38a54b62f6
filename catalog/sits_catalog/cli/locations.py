"""`sits-catalog`: what the catalog ships, for people and, with `--json`, for machines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
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
from sits_catalog.locations import Location, read_locations, write_locations

__all__ = ["main"]

app = typer.Typer(
    help="Regions, crop taxonomies and parcel sources that sits-build knows by name.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100},
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


class Around(StrEnum):
    """What locations are drawn around."""

    CITIES = "cities"


class On(StrEnum):
    """What locations are drawn on."""

    LAND = "land"


_N_CITIES = 10_000
_SIGMA_KM = 50.0


@app.command("sample-locations", no_args_is_help=True)
def sample_locations(
    out: Annotated[Path, typer.Option(help="File to write: .csv, .geojson or .parquet (GeoParquet).")],
    n: Annotated[int | None, typer.Option("--n", help="How many; of a file, all where it is left out.")] = None,
    around: Annotated[Around | None, typer.Option(help="Around one of the 10 000 largest cities each.")] = None,
    on: Annotated[On | None, typer.Option(help="Evenly on land, between 56 S and 84 N.")] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Points of a file: CSV with lon and lat, GeoJSON or GeoParquet.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same file; a larger --n adds to it. Default: 0.")
    ] = None,
    sigma_km: Annotated[
        float | None,
        typer.Option(help="Deviation from a city, in km to the east and to the north. Default: 50."),
    ] = None,
    keep_sea: Annotated[bool, typer.Option("--keep-sea", help="Keep points at sea, as SeCo does.")] = False,
    debug: Debug = False,
) -> None:
    """Draw locations for `sits-build --locations`: around large cities, as SeCo does, on land, or out of a file.

    Around cities (the default): a city with equal chances, and from there a normally distributed distance, 50 km to the
    east and 50 km to the north, in metres on the ground. A point at sea is drawn again, together with its city.

    Columns: id, lon, lat (degrees, WGS 84), city and country (its ISO code). The cities are those of GeoNames (CC BY
    4.0). Cities and land need an extra: pip install 'sits-cubes[locations]'

    \b
    Examples:
        sits-catalog sample-locations --n 1000 --out seco.csv
        sits-catalog sample-locations --n 5000 --on land --seed 7 --out land.parquet
        sits-catalog sample-locations --n 100 --from farms.geojson --out some.geojson
    """
    with _one_sentence(debug):
        if sum(given is not None for given in (around, on, from_)) > 1:
            raise ValueError("locations come from one place: give --around, --on or --from, not several")
        if from_ is None and n is None:
            raise ValueError("say how many locations to draw: --n 1000")
        if on is not None or from_ is not None:
            other = "--on" if from_ is None else "--from"
            _refuse({"--sigma-km": sigma_km is not None, "--keep-sea": keep_sea}, other)
        if from_ is not None and n is None and seed is not None:
            raise ValueError("--seed chooses --n locations of a file; without --n all are taken: leave it out")
        if from_ is not None and out.resolve() == from_.resolve():
            raise ValueError(f"--from and --out are the same file, {out}; write to another one")
        found = _sampled(
            n,
            on=on,
            file=from_,
            seed=seed or 0,
            sigma_km=_SIGMA_KM if sigma_km is None else sigma_km,
            keep_sea=keep_sea,
        )
        write_locations(out, found)
    near = {location.city for location in found} - {None}
    countries = {location.country for location in found} - {None}
    typer.echo(
        f"{out}: {len(found)} locations"
        + (f" near {len(near)} cities of {len(countries)} countries" if near else "")
        + (f", seed {seed or 0}" if from_ is None or n is not None else "")
    )


def _refuse(options: dict[str, bool], other: str) -> None:
    """Raises ValueError for options that say how to draw around cities, where nothing is drawn around any."""
    given = [name for name, is_given in options.items() if is_given]
    if given:
        what, them = ("are", "them") if len(given) > 1 else ("is", "it")
        raise ValueError(
            f"{' and '.join(given)} {what} for points around cities and cannot be used with {other}; leave {them} out"
        )


def _sampled(
    n: int | None, *, on: On | None, file: Path | None, seed: int, sigma_km: float, keep_sea: bool
) -> tuple[Location, ...]:
    from sits_catalog.cities import load_cities
    from sits_catalog.land import is_land
    from sits_catalog.sampling import sample_around_cities, sample_of, sample_on_land

    if file is not None:
        return sample_of(read_locations(file), n, seed=seed)
    if on is not None:
        return sample_on_land(n or 0, seed=seed, on_land=is_land)
    cities, on_land = load_cities(_N_CITIES), None if keep_sea else is_land
    return sample_around_cities(n or 0, cities=cities, sigma_m=sigma_km * 1000, seed=seed, on_land=on_land)


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
