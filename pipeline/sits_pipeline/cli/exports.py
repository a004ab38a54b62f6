"""`sits-cube export`: datasets in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sits_catalog.console import DONE, guarded
from sits_pipeline.cli.options import OPTIONS, Dataset, Debug, parse_day

__all__ = ["export_app"]

export_app = typer.Typer(**OPTIONS, help="Write datasets, or parts of them, in other formats.")


@export_app.command()
def cog(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    array: Annotated[list[str] | None, typer.Option(help="Arrays to write, such as crop_type; repeatable.")] = None,
    day: Annotated[list[str] | None, typer.Option(help="Dates to write; repeatable; default: all.")] = None,
    debug: Debug = False,
) -> None:
    """Write arrays as cloud-optimised GeoTIFFs: one file a date, one for each label array."""

    def work() -> int:
        from sits_pipeline.exporters.cog import export_cog
        from sits_pipeline.folder import Folder

        days = None if day is None else [chosen for text in day if (chosen := parse_day(text)) is not None]
        for path in export_cog(Folder(dataset), out, arrays=array or ["reflectance"], days=days):
            print(path)
        return DONE

    guarded(work, debug=debug)
