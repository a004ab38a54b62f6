"""What strangers wrote, as a terminal shows it."""

from __future__ import annotations

import io
import json
import logging
import unicodedata
import warnings
from contextlib import redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sits_catalog.console import guarded
from sits_catalog.printable import LONGEST, one_line, printable, printable_output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("winter wheat", "winter wheat"),
        ("Müllers Weide, 冬小麦, قمح", "Müllers Weide, 冬小麦, قمح"),
        ("\x1b[31mred\x07", "\\u001b[31mred\\u0007"),
        ("a\rb\x00\x7f\x9b", "a\\u000db\\u0000\\u007f\\u009b"),
        ("\u202egnp.exe\u2066\u200f\ufeff", "\\u202egnp.exe\\u2066\\u200f\\ufeff"),
        ("a\u2028b\ud800", "a\\u2028b\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("two\tcolumns\ntwo lines", "two\tcolumns\ntwo lines"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_what_nobody_sees_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_an_error_is_one_short_line_that_moves_nothing(text: str) -> None:
    line = one_line(ValueError(text))
    assert {unicodedata.category(letter) for letter in line}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    assert printable(line) == line


def test_of_a_long_error_both_ends_are_shown() -> None:
    line = one_line("first " + "x" * 500_000 + " last")
    assert line.startswith("first xxx")
    assert line.endswith("xxx last")
    assert "(498011 characters left out)" in line
    assert len(line) < LONGEST + 50


def test_json_that_is_printed_stays_the_same_json() -> None:
    value = {"name": "a\x7f\x1b\n\u202e"}
    with redirect_stdout(io.StringIO()) as shown, printable_output():
        print(json.dumps(value))
    assert "\x7f" not in shown.getvalue()
    assert json.loads(shown.getvalue()) == value


HOSTILE = "\x1b[31ma name\x07"
SHOWN = "\\u001b[31ma name\\u0007"


def test_what_is_logged_and_warned_of_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    """As without any handler, and by one of a library's own."""
    out = io.StringIO()
    own, log = logging.StreamHandler(out), logging.getLogger("a.stranger")
    log.addHandler(own)
    bare = logging.getLogger("nobody.listens")
    bare.propagate = False
    try:
        with printable_output():
            bare.warning("the layer %s", HOSTILE)
            warned = warnings.formatwarning(f"the field {HOSTILE}", UserWarning, "a.py", 1)
            log.error("a file of %s", HOSTILE, exc_info=ValueError(HOSTILE))
    finally:
        log.removeHandler(own)
    said = capsys.readouterr().err
    assert f"the layer {SHOWN}" in said
    assert f"the field {SHOWN}" in warned
    assert f"a file of {SHOWN}" in out.getvalue()
    assert f"ValueError: {SHOWN}" in out.getvalue()
    assert "\x1b" not in said + warned + out.getvalue()
    assert logging.getLogRecordFactory() is logging.LogRecord


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_and_its_traceback_are_printable(debug: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise ValueError(HOSTILE) from KeyError(HOSTILE)

    with pytest.raises(SystemExit):
        guarded(work, debug=debug)
    said = capsys.readouterr().err
    assert f"error: {SHOWN}" in said
    assert ("Traceback" in said) is debug
    assert "\x1b" not in said
