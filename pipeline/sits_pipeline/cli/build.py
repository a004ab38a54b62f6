"""`sits-build`: from a region, or from locations, to a dataset."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sits_catalog.console import DONE, FAILED, INCOMPLETE, Narrator, guarded
from sits_catalog.region import IMAGERY_SOURCES, Imagery, ImagerySource, Region
from sits_pipeline.cli.options import OPTIONS, AsJson, Debug
from sits_pipeline.config import BuildConfig

if TYPE_CHECKING:
    from sits_pipeline.patches import PatchSet

__all__ = ["build_app"]

build_app = typer.Typer(**OPTIONS)


class Kind(StrEnum):
    """What the workers on this machine are."""

    THREADS = "threads"
    PROCESSES = "processes"


class Chips(StrEnum):
    """Chips to list."""

    GRID = "grid"
    PARCEL = "parcel"


@build_app.command(no_args_is_help=True)
def sits_build(
    region: Annotated[
        str | None,
        typer.Option(help="A shipped region (see `sits-catalog regions`), FILE.yaml, FILE.geojson or W,S,E,N."),
    ] = None,
    season: Annotated[str | None, typer.Option(help="First and last day, 2023-10-01/2024-09-30.")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Where the scenes come from. Files: simulated, stac, safe. Services: earth-search and eopf (free, no "
            "account), planetary-computer (free, no account), cdse (free account), sentinel-hub (account, processing "
            "units), stac-api (any other API)."
        ),
    ] = None,
    source_path: Annotated[
        str | None,
        typer.Option(
            help="STAC catalogue (file or URL) of stac, folder of .SAFE of safe, or the address of an API: stac-api's, "
            "or a mirror of a service's."
        ),
    ] = None,
    search_again: Annotated[
        bool,
        typer.Option(
            "--search-again",
            help="Ask a service's catalogue anew. Without it, a plan that was searched before reads the items that it "
            "found then, even if the service does not answer.",
        ),
    ] = False,
    requests_a_minute: Annotated[
        int, typer.Option(min=0, help="Requests to a service of all workers together; 0: what it allows.")
    ] = 0,
    max_pu: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Sentinel Hub's processing units that this build may use. A plan that needs more is refused; --plan "
            "says what it needs.",
        ),
    ] = None,
    parcels: Annotated[str | None, typer.Option(help="File of parcels; the region file names its columns.")] = None,
    locations: Annotated[
        Path | None,
        typer.Option(
            help="Build small patches at the locations of this file (see `sits-catalog sample-locations`) instead of "
            "a region."
        ),
    ] = None,
    out: Annotated[
        str, typer.Option(help="Folder, or address of an object store such as s3://bucket/prefix, for the dataset.")
    ] = "out",
    scheduler: Annotated[str | None, typer.Option(help="A running Dask scheduler, tcp://host:port.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Workers on this machine; 0: one a core.")] = 0,
    kind: Annotated[Kind, typer.Option(help="What they are.")] = Kind.THREADS,
    cell: Annotated[int, typer.Option(min=0, help="Side of a cell in pixels, whole shards; 0: chosen.")] = 0,
    memory: Annotated[float, typer.Option(min=0, help="GB for the workers of this machine; 0: 60 % of the free.")] = 0,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps the bytes of remote files.")] = None,
    cache_gb: Annotated[float, typer.Option(min=0.1, help="Size of that folder.")] = 20.0,
    chips: Annotated[
        Chips, typer.Option(help="Chips to list: the grid, or one around each parcel as well.")
    ] = Chips.GRID,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Print what would be read and written, what a service would be asked for and would charge, and stop. "
            "Of a simulated region the archive is written first.",
        ),
    ] = False,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="With --plan: estimate tiles, orbits, dates and costs from geometry, without network and parcels.",
        ),
    ] = False,
    doctor: Annotated[
        bool,
        typer.Option(
            "--doctor",
            help="Check libraries, services, credentials, --out, --cache and --scheduler, say what is wrong and what "
            "to do, and stop. Of one source with --region or --source, of all services without.",
        ),
    ] = False,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """Build a verified Sentinel-2 time series cube with crop labels, or take up a build that was interrupted.

    Searches scenes of the season, audits and removes the BOA offset, masks, mosaics by solar day, rasterizes the
    parcels and writes a sharded Zarr cube with its tables and a report under OUT/REGION.

    Exit codes: 0 done, 1 failed (a service that answers nothing, a bound that was reached; run again to go on), 2 wrong
    use, 3 incomplete (a source could not be read; run again to fill it). With --doctor: 0 all is well, 1 something is
    wrong.

    \b
    Examples:
        sits-build --region demo
        sits-build --region my-region.yaml --plan
        sits-build --region t31tfm-2018 --plan --offline
        sits-build --region 3.29,43.61,3.32,43.65 --season 2018-01-01/2018-12-31 \\
            --source safe --source-path safe/
        sits-build --region 3.29,43.61,3.32,43.65 --season 2023-01-01/2023-12-31 --source earth-search
        sits-build --locations seco.csv --source eopf --season 2021-01-01/2023-06-30
        sits-build --doctor --source sentinel-hub
    """

    def work() -> int:
        config = BuildConfig(
            out=out,
            scheduler=scheduler,
            workers=workers,
            kind=kind.value,
            cell_px=cell,
            memory_gb=memory,
            cache=cache,
            cache_gb=cache_gb,
            chips=chips.value,
            search_again=search_again,
            max_pu=max_pu,
            requests_a_minute=requests_a_minute,
        )
        asked = _Place(region=region, season=season, source=source, source_path=source_path, parcels=parcels)
        if doctor:
            return _examine(asked, config, as_json=json_)
        if offline:
            if locations is not None or not plan:
                raise ValueError("--offline is for --plan of a region: sits-build --region NAME --plan --offline")
            return _look_out(asked, config, as_json=json_)
        if locations is not None:
            return _build_locations(locations, asked, config, plan=plan, as_json=json_)
        return _build_region(asked, config, plan=plan, as_json=json_)

    guarded(work, debug=debug)


_PATHS = {
    "stac": "its catalogue or table of items: a file or an address",
    "safe": "the folder that holds its products, unpacked (.SAFE)",
    "stac-api": "the address of the API's root",
}
"""What `--source-path` is, for the sources that have no place of their own."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """What is to be built, as the options say it."""

    region: str | None
    season: str | None
    source: str | None
    source_path: str | None
    parcels: str | None

    def load(self) -> Region:
        """The region; raises ValueError where none is named."""
        from sits_catalog.loading import load_region

        if self.region is None:
            raise ValueError("what is to be built? name it with --region, or a file of locations with --locations")
        return load_region(
            self.region,
            season=self.season,
            source=self.source,
            source_path=self.source_path,
            parcels=self.parcels,
        )

    def patch_set(self, path: Path) -> PatchSet:
        """The set of the locations of a file: named as the file, or all but the place as a region file has it."""
        from sits_catalog.loading import parse_season
        from sits_pipeline.patches import PatchRule, PatchSet

        if self.region is not None:
            return PatchSet.of(self.load(), rule=PatchRule())
        imagery = self.imagery()
        if imagery is None or self.season is None:
            raise ValueError(
                "--locations needs --source and --season, at whose end the dates begin to be counted back, or --region "
                "with a region file that has them"
            )
        if imagery.path is None and imagery.source in _PATHS:
            raise ValueError(f"--source {imagery.source} needs --source-path, {_PATHS[imagery.source]}")
        return PatchSet(id=_name_of(path), season=parse_season(self.season), imagery=imagery)

    def imagery(self) -> Imagery | None:
        """Where the scenes come from; None where no source is named."""
        if self.region is not None:
            region = self.load()
            path = region.imagery.path
            return region.imagery if path is None else replace(region.imagery, path=region.resolve(path))
        if self.source is None:
            return None
        if self.source not in IMAGERY_SOURCES:
            raise ValueError(f"--source is one of {', '.join(IMAGERY_SOURCES)}; got {self.source!r}")
        path = self.source_path
        path = path if path is None or "://" in path else str(Path(path).absolute())
        return Imagery(source=cast(ImagerySource, self.source), path=path)


def _name_of(path: Path) -> str:
    """A file's name as the name of a dataset."""
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._")[:63] or "locations"


def _examine(asked: _Place, config: BuildConfig, *, as_json: bool) -> int:
    from sits_pipeline.doctor import examine, finding_as_json, finding_in_words

    findings = []
    for finding in examine(asked.imagery(), config):
        findings.append(finding)
        if not as_json:
            print(finding_in_words(finding), flush=True)
    if as_json:
        print(json.dumps([finding_as_json(finding) for finding in findings], indent=2))
    return FAILED if any(finding.state == "wrong" for finding in findings) else DONE


def _look_out(asked: _Place, config: BuildConfig, *, as_json: bool) -> int:
    from sits_pipeline.outlook import look_out, outlook_as_json, outlook_in_words

    outlook = look_out(asked.load(), cell_px=config.cell_px)
    print(json.dumps(outlook_as_json(outlook), indent=2) if as_json else outlook_in_words(outlook))
    return DONE


def _build_region(asked: _Place, config: BuildConfig, *, plan: bool, as_json: bool) -> int:
    from sits_pipeline.build import build
    from sits_pipeline.prepare import prepare

    region = asked.load()
    _check_out(config, plan=plan)
    with Narrator() as narrator:
        prepared = prepare(region, config, narrator)
        if not plan:
            outcomes = build(prepared, config, narrator)
    if plan:
        return _print_plan(prepared, as_json=as_json)
    return _print_outcomes(outcomes, as_json=as_json)


def _build_locations(path: Path, asked: _Place, config: BuildConfig, *, plan: bool, as_json: bool) -> int:
    from sits_catalog.locations import read_locations
    from sits_pipeline.patches import build_locations, plan_as_json, plan_in_words, plan_locations

    refused = {
        "--parcels": asked.parcels is not None,
        "--chips parcel": config.chips == "parcel",
        "--cell": config.cell_px != 0,
    }
    if any(refused.values()):
        raise ValueError(
            f"{' and '.join(name for name, given in refused.items() if given)} cannot be used with --locations, which "
            "writes patches of one size without labels; leave it out"
        )
    chosen, locations = asked.patch_set(path), read_locations(path)
    _check_out(config, plan=plan)
    with Narrator() as narrator:
        if not plan:
            return _print_outcomes((build_locations(locations, chosen, config, narrator),), as_json=as_json)
        found = plan_locations(locations, chosen, config, narrator)
    print(json.dumps(plan_as_json(found), indent=2) if as_json else plan_in_words(found))
    return DONE


def _check_out(config: BuildConfig, *, plan: bool) -> None:
    """Raises where nothing could be written at the end, before a service is asked for anything."""
    from sits_pipeline.folder import Folder

    if not plan:
        Folder(config.out).check_writable()


def _print_plan(plan: Any, *, as_json: bool) -> int:
    from sits_pipeline.show import plan_as_json, plan_in_words

    print(json.dumps(plan_as_json(plan), indent=2) if as_json else plan_in_words(plan))
    return DONE


def _print_outcomes(outcomes: Any, *, as_json: bool) -> int:
    from sits_pipeline.show import outcome_as_json, outcome_in_words

    if as_json:
        print(json.dumps([outcome_as_json(outcome) for outcome in outcomes], indent=2))
    else:
        print("\n\n".join(outcome_in_words(outcome) for outcome in outcomes))
    return DONE if all(outcome.complete for outcome in outcomes) else INCOMPLETE
