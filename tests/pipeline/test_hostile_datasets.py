"""Datasets of strangers: whatever they say, each command answers in a sentence, and no catalogue is spoilt."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.archives import run_here
from tests.synthetic import make_dataset
from typer.testing import CliRunner

from sits_catalog.catalogue.folder import Catalogue
from sits_catalog.catalogue.write import add_dataset
from sits_catalog.checking import check
from sits_catalog.cli import app
from sits_pipeline.folder import Folder
from sits_pipeline.preview import render_preview
from sits_pipeline.show import dataset_as_json, dataset_in_words
from sits_pipeline.verify import verify

NASTY = (
    *(None, True, -1, 0, 2**40, 2**63, 1e308, float("nan"), "", "x" * 3000, "\x1b[31m\x00", "../../etc/passwd"),
    *("file:///etc/passwd", "a\ud800", [], [[]], {}, [2**31, 2**31], {"a": {"b": 1}}),
)
FILES = ("cube.zarr/zarr.json", "cube.zarr/time/zarr.json", "item.json", "journal.jsonl")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole dataset of simulated pixels."""
    return make_dataset(tmp_path_factory.mktemp("made") / "one", height=128, width=128, n_dates=3).folder.path


@pytest.fixture
def dataset(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "one"))


def commands(dataset: Path, catalogue: Path) -> Iterator[Callable[[], object]]:
    """What is done with a dataset."""
    folder = Folder(str(dataset))
    yield lambda: dataset_in_words(dataset_as_json(folder))
    yield lambda: verify(folder)
    yield lambda: check(dataset)
    yield lambda: render_preview(folder, "rgb", day=None, max_px=64)
    yield lambda: add_dataset(Catalogue.at(catalogue, {}), str(dataset))


def change_item(dataset: Path, **properties: object) -> None:
    item = json.loads((dataset / "item.json").read_text())
    item["properties"] |= properties
    (dataset / "item.json").write_text(json.dumps(item))


# Catalogues


@pytest.mark.parametrize(
    "properties",
    [
        {"title": {"a": 1}},
        {"platform": [[1]]},
        {"gsd": 2**63},
        {"start_datetime": [], "datetime": None},
    ],
    ids=lambda properties: next(iter(properties)),
)
@pytest.mark.slow
def test_an_item_that_no_catalogue_can_hold_leaves_the_others_alone(
    made: Path, dataset: Path, tmp_path: Path, properties: dict[str, Any]
) -> None:
    catalogue = Catalogue.at(tmp_path / "catalogue", {})
    change_item(dataset, **properties)
    try:
        add_dataset(catalogue, str(dataset), name="bad")
    except ValueError as error:
        assert str(dataset) in str(error)  # noqa: PT017  # one that can be held is right as well
    add_dataset(catalogue, str(made), name="good")
    assert "good" in [entry.id for entry in catalogue.entries()]


# Names that reach the terminal


@pytest.mark.slow
def test_names_with_escapes_are_shown_written_out(dataset: Path, tmp_path: Path) -> None:
    change_item(dataset, title="\x1b[31mred\u202e")
    add_dataset(Catalogue.at(tmp_path / "catalogue", {}), str(dataset), name="one")
    shown = CliRunner().invoke(app, ["cubes", "show", "one", "--catalogue", str(tmp_path / "catalogue")])
    assert "one: \\u001b[31mred\\u202e\n" in shown.output
    (dataset / "cube.zarr/zarr.json").write_text('{"\x1b[31m": ')
    ended = run_here("sits-cube", "info", f"{dataset}/\x1b[31mred")
    assert ended.code == 2
    assert "\\u001b[31mred" in ended.stderr
    assert "\x1b" not in ended.stdout + ended.stderr


# Whatever is changed


def change(value: Any, dice: random.Random) -> Any:
    """The JSON value with one of its parts left out or replaced."""
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        pairs = part.items() if isinstance(part, dict) else enumerate(part[:20]) if isinstance(part, list) else ()
        for key, inner in pairs:
            places.append((part, key))
            walk(inner)

    walk(value)
    if not places:
        return dice.choice(NASTY)
    part, key = dice.choice(places)
    if isinstance(part, dict) and dice.random() < 0.2:
        del part[key]
    else:
        part[key] = dice.choice(NASTY)
    return value


def spoil(dataset: Path, dice: random.Random) -> None:
    path = dataset / dice.choice(FILES)
    if dice.random() < 0.15:
        whole = bytearray(path.read_bytes())
        whole[dice.randrange(len(whole))] = dice.randrange(256)
        path.write_bytes(whole)
        return
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = dice.randrange(len(lines))
    lines[number] = json.dumps(change(json.loads(lines[number]), dice))
    path.write_text("\n".join(lines) + "\n")


def answer(dataset: Path, catalogue: Path, seed: int) -> None:
    spoil(dataset, random.Random(seed))
    for command in commands(dataset, catalogue):
        try:
            command()
        except (ValueError, FileNotFoundError) as error:
            assert str(error)  # noqa: PT017  # an answer is right as well


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100_008, 100_031, 100_046, 100_065])
def test_a_changed_dataset_is_read_or_one_sentence(dataset: Path, tmp_path: Path, seed: int) -> None:
    answer(dataset, tmp_path / "catalogue", seed)


@pytest.mark.soak
def test_hundreds_of_changed_datasets_are_read_or_one_sentence(made: Path, tmp_path: Path) -> None:
    for seed in range(100):
        dataset = Path(shutil.copytree(made, tmp_path / str(seed) / "one"))
        answer(dataset, tmp_path / str(seed) / "catalogue", seed)
        shutil.rmtree(tmp_path / str(seed))
