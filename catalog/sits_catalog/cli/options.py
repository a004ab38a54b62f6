"""What the options of several commands mean, and how rows are printed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from sits_catalog.printable import one_line, printable

__all__ = ["OPTIONS", "AsJson", "Debug", "one_sentence", "print_rows"]

OPTIONS: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"max_content_width": 100},
}
"""Of every command line application."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def one_sentence(debug: bool) -> Iterator[None]:
    """An error of the user as one sentence on stderr and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        if debug:
            raise
        typer.echo(f"error: {one_line(error)}", err=True)
        raise typer.Exit(2) from error


def print_rows(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Rows as aligned text under the names of their keys, or as JSON."""
    typer.echo(json.dumps(rows, indent=2) if as_json else printable("\n".join(_table(rows))))


def _table(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Rows as aligned text, under the names of their keys."""
    lines = [list(rows[0]), *([str(value or "") for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
