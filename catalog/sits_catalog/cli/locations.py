"""`sits-catalog sample-locations`: places for `sits-build --locations`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sits_catalog.cli.options import Debug, one_sentence
from sits_catalog.locations import Location, read_locations, write_locations

__all__ = ["sample_locations"]


class Around(StrEnum):
    """What locations are drawn around."""

    CITIES = "cities"


class On(StrEnum):
    """What locations are drawn on."""

    LAND = "land"


_N_CITIES = 10_000
_SIGMA_KM = 50.0


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
    with one_sentence(debug):
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
