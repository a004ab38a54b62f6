"""What the options of several commands mean."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

import typer

__all__ = ["OPTIONS", "AsJson", "Dataset", "Debug", "parse_day"]

OPTIONS: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"max_content_width": 100},
}
"""Of every command line application."""

Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Dataset = Annotated[str, typer.Argument(help="Folder or URL of a dataset, the one that holds cube.zarr.")]


def parse_day(text: str | None) -> date | None:
    """A day of an option; None where it is not given. Raises ValueError."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"a day is written 2018-06-27; got {text!r}") from None
