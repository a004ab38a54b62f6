"""Text of strangers as a terminal may show it: it moves no cursor, turns no reading order and fills no page."""

from __future__ import annotations

import io
import logging
import re
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

__all__ = ["LONGEST", "one_line", "printable", "printable_output"]

LONGEST = 2000
"""Characters of a sentence; what is between its first and its last words is left out."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Controls, formats (such as the marks of reading order), halves of surrogates, breaks of lines and paragraphs."""
_KEPT = "\n\t\u200c\u200d\u00ad"
"""Breaks of our own, and the joiners that scripts are written with."""


def printable(text: str) -> str:
    r"""The text with what nobody sees written out, as JSON writes it.

    >>> printable("\x1b[31mred \u202e")
    '\\u001b[31mred \\u202e'
    """
    if text.isascii():
        return _CONTROLS.sub(lambda found: _written(found[0]), text)
    seen = (letter in _KEPT or unicodedata.category(letter) not in _UNSEEN for letter in text)
    return "".join(letter if shown else _written(letter) for letter, shown in zip(text, seen, strict=True))


def one_line(error: object) -> str:
    """What an error says on one line of at most `LONGEST` characters and a note on those that are left out."""
    text = " ".join(str(error).split())
    if len(text) > LONGEST:
        half = LONGEST // 2
        text = f"{text[:half]} ... ({len(text) - 2 * half} characters left out) ... {text[-half:]}"
    return printable(text)


@contextmanager
def printable_output() -> Iterator[None]:
    """What is printed, logged and warned of meanwhile is printable, whatever names it holds.

    Standard error itself is left as it is: progress moves the cursor there.
    """
    make, form = logging.getLogRecordFactory(), warnings.formatwarning

    def form_printable(*args: Any, **options: Any) -> str:
        return printable(form(*args, **options))

    logging.setLogRecordFactory(_PrintableRecord)
    warnings.formatwarning = form_printable
    try:
        with redirect_stdout(_Printable(sys.stdout)):
            yield
    finally:
        logging.setLogRecordFactory(make)
        warnings.formatwarning = form


class _PrintableRecord(logging.LogRecord):
    """What is logged, whoever formats it: libraries have handlers of their own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.exc_info and self.exc_info[1] is not None:
            self.exc_text = printable("".join(traceback.format_exception(self.exc_info[1])).rstrip("\n"))

    def getMessage(self) -> str:  # noqa: N802  # logging's name
        return printable(super().getMessage())


class _Printable(io.TextIOBase):
    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str, /) -> int:
        self._out.write(printable(text))
        return len(text)

    def flush(self) -> None:
        self._out.flush()

    def isatty(self) -> bool:
        return self._out.isatty()


def _written(letter: str) -> str:
    number = ord(letter)
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"
