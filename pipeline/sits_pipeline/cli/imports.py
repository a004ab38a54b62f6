"""`sits-cube import`: datasets that others have published, in their original files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sits_catalog.console import DONE, INCOMPLETE, Narrator, guarded
from sits_pipeline.cli.options import OPTIONS, AsJson, Debug

if TYPE_CHECKING:
    from sits_pipeline.importers.original import Original

__all__ = ["import_app"]

import_app = typer.Typer(
    **OPTIONS,
    help="Read published datasets in their original files and write them as datasets of the profile patches: Zarr, an "
    "index of patches, a report. Nothing is normalized, and nothing is fetched: download the files first. An import "
    "that was stopped goes on with the same command.",
)

Out = Annotated[str, typer.Option(help="Folder or URL (s3://...) under which the dataset's folder is written.")]
Name = Annotated[str | None, typer.Option("--id", help="Name of the dataset; default: that of the format.")]
Folds = Annotated[str, typer.Option(help="Folds that are train/validation/test.")]
Years = Annotated[list[int] | None, typer.Option("--year", help="Take this year alone; repeatable; default: all.")]
Threads = Annotated[int, typer.Option(min=0, help="Shards at a time, some 300 MB each; 0: as cores, at most 4.")]

_EXIT_CODES = "Exit codes: 0 done, 1 failed (run again to go on), 2 wrong use, or a file that is missing or broken."


@import_app.command(epilog=_EXIT_CODES)
def pastis(
    source: Annotated[Path, typer.Argument(help="Folder with metadata.geojson, DATA_S2 and ANNOTATIONS.")],
    out: Out = "out",
    id_: Name = None,
    folds: Folds = "1,2,3/4/5",
    threads: Threads = 0,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """PASTIS: 2 433 patches of 128 px in France.

    Dates are those of metadata.geojson; void pixels are 65535; parcel numbers come from ParcelIDs, where they are. Of
    PASTIS-R and PASTIS-HD, Sentinel-2 alone is read.

    \b
    Examples:
        sits-cube import pastis PASTIS/ --out out
        sits-cube import pastis PASTIS/ --out out --id pastis-fold2 --folds 2,3,4/5/1
    """

    def opened() -> Original:
        from sits_pipeline.importers.folds import parse_folds
        from sits_pipeline.importers.pastis import open_pastis

        return open_pastis(source, folds=parse_folds(folds))

    guarded(lambda: _import(opened, out, id_, threads, as_json=json_), debug=debug)


@import_app.command(epilog=_EXIT_CODES)
def pastis24(
    source: Annotated[Path, typer.Argument(help="Folder with pickle24x24 and fold-paths.")],
    out: Out = "out",
    metadata: Annotated[
        Path | None, typer.Option(help="metadata.geojson of PASTIS, by which the dates are put right.")
    ] = None,
    id_: Name = None,
    folds: Folds = "1,2,3/4/5",
    threads: Threads = 0,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """PASTIS24: windows of 24 px of PASTIS.

    A window is a pickle, its frames by day of the year, without years, although the season runs from September 2018 to
    November 2019: without --metadata the order in time is lost, and the dataset says so. Pickles are read without
    running anything out of them.

    \b
    Examples:
        sits-cube import pastis24 PASTIS24/ --metadata PASTIS/metadata.geojson --out out
        sits-cube import pastis24 PASTIS24/ --out out
    """

    def opened() -> Original:
        from sits_pipeline.importers.folds import parse_folds
        from sits_pipeline.importers.pastis24 import open_pastis24

        return open_pastis24(source, metadata=metadata, folds=parse_folds(folds))

    guarded(lambda: _import(opened, out, id_, threads, as_json=json_), debug=debug)


@import_app.command(epilog=_EXIT_CODES)
def mtlcc(
    source: Annotated[Path, typer.Argument(help="Clone of MTLCC, or the folder that holds data16 and data17.")],
    out: Out = "out",
    year: Years = None,
    id_: Name = None,
    threads: Threads = 0,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """MTLCC: Munich, 2016 and 2017, top of atmosphere.

    Reads the TFRecord files, or the pickles that were made of them.

    \b
    Example:
        sits-cube import mtlcc MTLCC/ --year 2016 --out out
    """

    def opened() -> Original:
        from sits_pipeline.importers.mtlcc import open_mtlcc

        return open_mtlcc(source, years=year)

    guarded(lambda: _import(opened, out, id_, threads, as_json=json_), debug=debug)


@import_app.command(epilog=_EXIT_CODES)
def t31tfm(
    source: Annotated[Path, typer.Argument(help="Folder that holds 2016, 2017, 2018 and paths.")],
    out: Out = "out",
    year: Years = None,
    id_: Name = None,
    threads: Threads = 0,
    json_: AsJson = False,
    debug: Debug = False,
) -> None:
    """T31TFM_1618: France, 2016 to 2018.

    Reads the pickles, one a chip.

    \b
    Example:
        sits-cube import t31tfm T31TFM_1618/ --year 2018 --out out
    """

    def opened() -> Original:
        from sits_pipeline.importers.t31tfm import open_t31tfm

        return open_t31tfm(source, years=year)

    guarded(lambda: _import(opened, out, id_, threads, as_json=json_), debug=debug)


def _import(opened: Callable[[], Original], out: str, name: str | None, threads: int, *, as_json: bool) -> int:
    from sits_pipeline.folder import Folder
    from sits_pipeline.importers.write import import_dataset
    from sits_pipeline.show import outcome_as_json, outcome_in_words

    Folder(out).check_writable()
    with Narrator() as narrator:
        narrator.stage("opening the original")
        outcome = import_dataset(opened(), out, narrator, id=name, threads=threads)
    print(json.dumps(outcome_as_json(outcome), indent=2) if as_json else outcome_in_words(outcome))
    return DONE if outcome.complete else INCOMPLETE
