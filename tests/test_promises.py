"""Pages that name the tests which hold what they promise: pytest finds each, and `(soak)` is said truly."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PROMISES = ROOT / "docs" / "reference" / "promises.md"
SECURITY = ROOT / "SECURITY.md"
PAGES = [PROMISES, SECURITY]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows(page: Path) -> list[str]:
    """Rows of the page's tables, without heads and lines."""
    return [line for line in page.read_text().splitlines() if line.startswith("| ") and "held by |" not in line]


@cache
def found_in(file: Path) -> Mapping[str, bool]:
    """Tests that pytest finds in a file, and whether each is run by hand alone; by its text: nothing is imported.

    A function inside another is none, and a case of a parametrised test that is marked on its own changes nothing.
    """
    body = ast.parse(file.read_text()).body
    all_of_them = any(
        isinstance(one, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in one.targets)
        and any(is_soak(mark) for mark in ast.walk(one.value))
        for one in body
    )
    return {
        one.name: all_of_them or any(is_soak(decorator) for decorator in one.decorator_list)
        for one in body
        if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")
    }


def is_soak(mark: ast.AST) -> bool:
    """Whether it is `pytest.mark.soak`, or a name `soak` for it."""
    return ast.unparse(mark) in ("pytest.mark.soak", "soak") if isinstance(mark, ast.expr) else False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    named = NAMED.findall(page.read_text())
    assert len(named) > 10
    lost = [
        f"{file}::{name}" for file, name in named if not (TESTS / file).is_file() or name not in found_in(TESTS / file)
    ]
    assert lost == []


@pytest.mark.parametrize(("page", "at_least"), [(PROMISES, 50), (SECURITY, 20)], ids=["promises", "security"])
def test_every_row_names_a_test(page: Path, at_least: int) -> None:
    assert len(rows(page)) > at_least
    assert [row for row in rows(page) if not NAMED.search(row.rpartition(" | ")[2])] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_row_says_soak_where_its_tests_are_run_by_hand_and_nowhere_else(page: Path) -> None:
    wrong = [
        f"{file}::{name}"
        for row in rows(page)
        for file, name in NAMED.findall(row)
        if found_in(TESTS / file)[name] != row.partition(" | ")[0].endswith("(soak)")
    ]
    assert wrong == []


def test_only_what_pytest_finds_is_a_test(tmp_path: Path) -> None:
    quick = "def test_quick():\n    def test_inside(): pass\n@pytest.mark.soak\ndef test_long(): pass\n"
    case = "@pytest.mark.parametrize('n', [pytest.param(1, marks=pytest.mark.soak)])\ndef test_case(n): pass\n"
    (tmp_path / "mixed.py").write_text(quick + case)
    assert found_in(tmp_path / "mixed.py") == {"test_quick": False, "test_long": True, "test_case": False}
    (tmp_path / "by_hand.py").write_text("pytestmark = [pytest.mark.soak]\n" + quick)
    assert found_in(tmp_path / "by_hand.py") == {"test_quick": True, "test_long": True}


def test_there_are_eight_promises() -> None:
    numbers = re.findall(r"^\*\*(\d+)\. ", PROMISES.read_text(), re.M)
    assert numbers == [str(number) for number in range(1, 9)]
