"""Who finds which entry: by ground, by days, by crops, bands, family and words; and the commands that ask."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from tests.catalog.catalogue.made import make
from typer.testing import CliRunner

from sits_catalog.catalogue import Catalogue, Query, add_dataset, matches
from sits_catalog.catalogue.search import parse_box
from sits_catalog.cli import app
from sits_catalog.region import Season


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """A labelled cube at lon 3, one in Fiji across no date line, and a set whose place nobody knows."""
    folder = tmp_path_factory.mktemp("search")
    made = Catalogue.at(folder / "catalogue", {})
    add_dataset(made, str(make(folder / "a")))
    add_dataset(made, str(make(folder / "b", name="fiji", box=(179.0, -18.0, 179.5, -17.5), labels=False)))
    add_dataset(made, str(make(folder / "c", name="nowhere", profile="patches", box=None)))
    return made


def found(catalogue: Catalogue, query: Query) -> list[str]:
    return [entry.id for entry in catalogue.entries() if matches(entry, query)]


ALL = ["fiji", "hand-2021", "nowhere"]
QUERIES: list[tuple[Query, list[str]]] = [
    (Query(), ALL),
    (Query(box=(3.05, 48.0, 4.0, 49.0)), ["hand-2021"]),
    (Query(box=(3.2, 48.0, 4.0, 49.0)), []),
    (Query(box=(170.0, -20.0, -170.0, 0.0)), ["fiji"]),
    (Query(box=(-170.0, -20.0, 170.0, 0.0)), []),
    (Query(season=Season(start=date(2022, 9, 22), end=date(2022, 12, 31))), ALL),
    (Query(season=Season(start=date(2022, 1, 1), end=date(2022, 3, 31))), []),
    (Query(crop="WHEAT"), ["hand-2021", "nowhere"]),
    (Query(crop="ww"), ["hand-2021", "nowhere"]),
    (Query(crop="33010101"), ["hand-2021", "nowhere"]),
    (Query(crop="background"), []),
    (Query(crop="maize"), ["hand-2021"]),
    (Query(bands=("B04", "B08")), ALL),
    (Query(bands=("B04", "B11")), []),
    (Query(family="hand"), ["hand-2021"]),
    (Query(text="set FIJI"), ["fiji"]),
    (Query(text="simulated maize somebody"), ["hand-2021", "nowhere"]),
    (Query(text="simulated banana"), []),
]


@pytest.mark.parametrize(("query", "wanted"), QUERIES, ids=[str(n) for n in range(len(QUERIES))])
def test_a_query_finds_what_is_all_of_it(catalogue: Catalogue, query: Query, wanted: list[str]) -> None:
    assert found(catalogue, query) == wanted


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "3,49,4,48", "200,0,201,1", ""])
def test_what_is_no_box_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="a box is"):
        parse_box(text)


def run(catalogue: Catalogue, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["cubes", *words, "--catalogue", str(catalogue.folder)])
    return result.exit_code, result.stdout, result.stderr


def test_the_commands_list_and_find(catalogue: Catalogue) -> None:
    code, text, _ = run(catalogue)
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()[1:]] == ALL
    assert "complete, SIMULATED" in text
    code, text, _ = run(catalogue, "search", "--bbox", "-170,-20,180,0", "--json")
    assert code == 0
    assert [row["id"] for row in json.loads(text)] == ["fiji"]
    code, text, error = run(catalogue, "search", "--crop", "banana")
    assert (code, text, error) == (1, "", "no dataset in the catalogue is all that\n")
    code, text, error = run(catalogue, "search", "--bbox", "1,2,3")
    assert code == 2
    assert error == "error: a box is four numbers W,S,E,N in degrees, got '1,2,3'\n"


def test_show_says_what_is_known(catalogue: Catalogue) -> None:
    code, text, _ = run(catalogue, "show", "hand-2021")
    assert code == 0
    assert "  state    complete, SIMULATED" in text
    assert "  class    winter wheat: 700 pixels, 8 parcels" in text
    assert "  split    train: 8 parcels, 828 pixels" in text
    code, text, _ = run(catalogue, "show", "hand-2021", "--json")
    assert json.loads(text)["id"] == "hand-2021"
    code, _, error = run(catalogue, "show", "banana")
    assert code == 2
    assert "no dataset named 'banana'" in error


def test_add_validate_and_remove_as_commands(tmp_path: Path) -> None:
    catalogue = Catalogue.at(tmp_path / "new", {})
    code, _, error = run(catalogue)
    assert code == 2
    assert "no catalogue in" in error
    make(tmp_path / "a")
    code, text, _ = run(catalogue, "add", str(tmp_path / "a"), "--family", "mine")
    assert (code, text.splitlines()[0]) == (0, "hand-2021: added to the family mine, 3 splits")
    code, text, _ = run(catalogue, "validate")
    assert (code, text) == (0, f"{catalogue.folder}: 1 dataset, all as it should be\n")
    (tmp_path / "a" / "journal.jsonl").unlink()
    code, text, _ = run(catalogue, "validate")
    assert code == 1
    assert "no longer in" in text
    code, text, _ = run(catalogue, "remove", "hand-2021")
    assert code == 0
    assert (tmp_path / "a" / "item.json").is_file()
    code, _, error = run(catalogue, "add", "x", "y", "--id", "z")
    assert code == 2
    assert "--id names one dataset, got 2" in error
