"""What strangers wrote, as a terminal shows it."""

from __future__ import annotations

import io
import json
import unicodedata
from contextlib import redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
