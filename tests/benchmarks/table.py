"""A table of results as aligned text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Table"]

Value = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """The results of one benchmark."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()
    """Sentences below the table."""

    def as_json(self) -> dict[str, Any]:
        """Title, rows keyed by column, notes."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}

    def as_text(self) -> str:
        """Columns aligned with spaces."""
        cells = [self.columns, *([_shown(value) for value in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.columns))]
        lines = ["  ".join(_padded(row, widths)).rstrip() for row in cells]
        return "\n".join([self.title, "", *lines, *(f"({note})" for note in self.notes)])

    def as_markdown(self) -> str:
        """A heading, a pipe table, and a paragraph a note."""
        head = _piped(self.columns)
        line = _piped(["---", *["--:"] * (len(self.columns) - 1)])
        rows = [_piped([_shown(value) for value in row]) for row in self.rows]
        return "\n".join([f"### {self.title}", "", head, line, *rows, *(f"\n{note}" for note in self.notes)])


def _shown(value: Value) -> str:
    """
    >>> [_shown(value) for value in (1.23456, 123.4, 12345, "odc-stac", None)]
    ['1.23', '123', '12 345', 'odc-stac', '-']
    """
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *rest = (
        text.ljust(width) if n == 0 else text.rjust(width)
        for n, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return [first, *rest]


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
