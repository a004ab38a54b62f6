"""Pages that name the tests which hold what they promise: each test is there, and each row names one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PROMISES = ROOT / "docs" / "reference" / "promises.md"
PAGES = [PROMISES, ROOT / "SECURITY.md"]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows(page: Path) -> list[str]:
    """Rows of the page's tables, without heads and lines."""
    return [line for line in page.read_text().splitlines() if line.startswith("| ") and "held by |" not in line]


@cache
def functions_in(file: str) -> frozenset[str]:
    """Tests that a file defines, by its text alone: nothing is imported or run."""
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(
        one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    named = NAMED.findall(page.read_text())
    assert len(named) > 10
    lost = [f"{file}::{name}" for file, name in named if not (TESTS / file).is_file() or name not in functions_in(file)]
    assert lost == []


def test_every_promise_names_a_test() -> None:
    assert len(rows(PROMISES)) > 50
    assert [row for row in rows(PROMISES) if not NAMED.search(row.rpartition(" | ")[2])] == []


def test_there_are_eight_promises() -> None:
    numbers = re.findall(r"^\*\*(\d+)\. ", PROMISES.read_text(), re.M)
    assert numbers == [str(number) for number in range(1, 9)]
