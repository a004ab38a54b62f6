"""`sits-catalog serve`: the catalogue of datasets as a STAC API and as a page."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Annotated

import typer

from sits_catalog.cli.cubes import At, open_catalogue
from sits_catalog.cli.options import Debug, one_sentence

__all__ = ["serve"]

_POLL_S = 0.2


def serve(
    catalogue: At = None,
    port: Annotated[int, typer.Option(help="Port of the page, 0 for any; the API has the next one.")] = 8400,
    debug: Debug = False,
) -> None:
    """Serve the catalogue on this machine alone, as a page and as a STAC API, until Ctrl-C."""
    from sits_catalog.catalogue.serve import serve as serving

    # Also where a parent has it ignored, as shells do of what runs in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    with one_sentence(debug):
        found = open_catalogue(catalogue)
        try:
            with serving(found, port=port, api_port=port + 1 if port else 0) as (served, ended):
                typer.echo(f"page:     {served.page}")
                typer.echo(f"STAC API: {served.api}")
                while (said := ended()) is None:
                    time.sleep(_POLL_S)
                raise OSError(said)
        except KeyboardInterrupt:
            typer.echo("ended")


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
