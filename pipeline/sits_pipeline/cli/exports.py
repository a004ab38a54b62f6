"""`sits-cube export`: datasets in the formats of other programs."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sits_catalog.console import DONE, Narrator, guarded
from sits_pipeline.cli.options import OPTIONS, Dataset, Debug, parse_day

if TYPE_CHECKING:
    from sits_pipeline.exporters.whole import Exported

__all__ = ["export_app"]

export_app = typer.Typer(**OPTIONS, help="Write datasets, or parts of them, in other formats.")

Out = Annotated[Path, typer.Option(help="Folder for the files; it appears when all of them are written.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier export wrote to --out.")]
Incomplete = Annotated[
    bool, typer.Option("--incomplete", help="Export a dataset though parts of it could not be read yet.")
]


class LayoutName(StrEnum):
    """Layouts of DeepSatModels."""

    PASTIS24 = "pastis24"
    MTLCC = "mtlcc"
    T31TFM = "t31tfm"


def _say(exported: Exported) -> None:
    """What was written, where, and what a reader should know of it."""
    for note in exported.notes:
        sys.stderr.write(f"note: {note}\n")
    print(f"{exported.folder}: {exported.written} patches or windows in the layout {exported.format}")


@export_app.command()
def cog(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    array: Annotated[list[str] | None, typer.Option(help="Arrays to write, such as crop_type; repeatable.")] = None,
    day: Annotated[list[str] | None, typer.Option(help="Dates to write; repeatable; default: all.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    incomplete: Incomplete = False,
    debug: Debug = False,
) -> None:
    """Write arrays as cloud-optimised GeoTIFFs: one file a date, one for each label array."""

    def work() -> int:
        from sits_pipeline.exporters.cog import export_cog
        from sits_pipeline.folder import Folder

        days = None if day is None else [chosen for text in day if (chosen := parse_day(text)) is not None]
        written = export_cog(
            Folder(dataset),
            out,
            arrays=array or ["reflectance"],
            days=days,
            overwrite=overwrite,
            incomplete=incomplete,
            say=lambda note: print(f"note: {note}", file=sys.stderr),
        )
        for path in written:
            print(path)
        return DONE

    guarded(work, debug=debug)


@export_app.command()
def pastis(
    dataset: Dataset, out: Out, overwrite: Overwrite = False, incomplete: Incomplete = False, debug: Debug = False
) -> None:
    """Write the layout of PASTIS: patches as they are, a region in windows of 128 px."""

    def work() -> int:
        from sits_pipeline.exporters.pastis import export_pastis
        from sits_pipeline.folder import Folder

        with Narrator() as narrator:
            narrator.stage(f"exporting {dataset} as pastis")
            exported = export_pastis(
                Folder(dataset), out, overwrite=overwrite, incomplete=incomplete, progress=narrator.progress
            )
        _say(exported)
        return DONE

    guarded(work, debug=debug)


@export_app.command()
def deepsatmodels(
    dataset: Dataset,
    out: Out,
    layout: Annotated[LayoutName, typer.Option(help="Which of its datasets the files are laid out as.")],
    overwrite: Overwrite = False,
    incomplete: Incomplete = False,
    debug: Debug = False,
) -> None:
    """Write pickles and lists of paths as the loaders of DeepSatModels read them."""

    def work() -> int:
        from sits_pipeline.exporters.deepsatmodels import export_deepsatmodels
        from sits_pipeline.folder import Folder

        with Narrator() as narrator:
            narrator.stage(f"exporting {dataset} as {layout.value}")
            exported = export_deepsatmodels(
                Folder(dataset),
                out,
                layout=layout.value,
                overwrite=overwrite,
                incomplete=incomplete,
                progress=narrator.progress,
            )
        _say(exported)
        return DONE

    guarded(work, debug=debug)


@export_app.command()
def geotiff(
    dataset: Dataset,
    out: Out,
    side: Annotated[int, typer.Option(min=1, help="Pixels along a window of a region; patches stay whole.")] = 256,
    overwrite: Overwrite = False,
    incomplete: Incomplete = False,
    debug: Debug = False,
) -> None:
    """Write GeoTIFFs: one a patch or window with a band a date and spectral band, one for each label array."""

    def work() -> int:
        from sits_pipeline.exporters.geotiff import export_geotiff
        from sits_pipeline.folder import Folder

        with Narrator() as narrator:
            narrator.stage(f"exporting {dataset} as geotiff")
            exported = export_geotiff(
                Folder(dataset), out, side=side, overwrite=overwrite, incomplete=incomplete, progress=narrator.progress
            )
        _say(exported)
        return DONE

    guarded(work, debug=debug)
