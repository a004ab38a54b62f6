"""What the pages tell people to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from tests.end_to_end.archives import run_here
from tests.end_to_end.building import SMALL, Dataset, build_region, simulated_land

from sits_catalog import cli as catalog_cli
from sits_catalog.loading import load_region
from sits_catalog.region import IMAGERY_SOURCES
from sits_models import cli as models_cli
from sits_pipeline.cli import build_app, cube_app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = {
    "sits-build": build_app,
    "sits-catalog": catalog_cli.app,
    "sits-cube": cube_app,
    "sits-model": models_cli._app,
}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Page and text of each fenced block in a language, also where it is indented."""
    for page in PAGES:
        for indent, text in re.findall(rf"^( *)```{language}\n(.*?)^ *```", page.read_text(), re.M | re.S):
            yield page.name, "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A small simulated dataset with the bands that the pages speak of."""
    folder = tmp_path_factory.mktemp("docs")
    return build_region(simulated_land(folder, SMALL, bands=("B02", "B04", "B08"), dates=2, seed=1), folder / "out")


def test_there_is_something_to_test() -> None:
    assert len(list(blocks("python"))) >= 2
    assert len(list(blocks("yaml"))) >= 1
    assert len(list(blocks("console"))) >= 3


@pytest.mark.parametrize(("page", "code"), [pytest.param(*block, id=block[0]) for block in blocks("python")])
def test_python_on_the_pages_runs(page: str, code: str, dataset: Dataset) -> None:
    runnable, replaced = re.subn(r'"out/[^"]*/cube\.zarr"', repr(f"{dataset.path}/cube.zarr"), code)
    assert replaced <= 1
    exec(compile(runnable, page, "exec"), {})


def test_the_region_file_of_the_how_to_loads(tmp_path: Path) -> None:
    (text,) = [text for page, text in blocks("yaml") if page == "your-own-region.md"]
    (tmp_path / "region.yaml").write_text(text)
    region = load_region(str(tmp_path / "region.yaml"))
    assert region.imagery.source == "safe"
    assert region.labels.finer == (2,)


OF_NO_PROVIDER = ("your-own-region.md", "locations.md", "national-parcels.md")
REGIONS = [block for block in blocks("yaml") if "imagery:" in block[1] and block[0] not in OF_NO_PROVIDER]


@pytest.mark.parametrize(("page", "text"), [pytest.param(*block, id=block[0]) for block in REGIONS])
def test_the_region_file_of_a_provider_loads(page: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "region.yaml").write_text(text)
    source = load_region(str(tmp_path / "region.yaml")).imagery.source
    assert source == ("stac-api" if page == "any-stac-api.md" else page.removesuffix(".md"))


def test_every_source_has_its_row_among_the_keys() -> None:
    page = (ROOT / "docs" / "how-to" / "your-own-region.md").read_text()
    rows = re.findall(r"^\| (.*?) \|", page, re.M)
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert set(IMAGERY_SOURCES) <= named


@pytest.mark.slow
def test_the_offline_example_of_locations_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "locations.md"
    (region,), (csv,) = ([text for name, text in blocks(kind) if name == page] for kind in ("yaml", "csv"))
    (tmp_path / "spots.yaml").write_text(region)
    (tmp_path / "spots.csv").write_text(csv)
    monkeypatch.chdir(tmp_path)
    commands, *_ = (text for name, text in blocks("console") if name == page)
    said = []
    for line in commands.splitlines():
        ended = run_here(*shlex.split(line.removeprefix("$ ")))
        assert ended.code == 0, ended.stderr
        said.append(ended.stdout)
    build, info, verify = said
    assert build.startswith("spots: complete")
    assert "profile patches, complete, simulated" in info
    assert "2 (2 built), 5 dates, 276 px" in info
    assert verify == "out/spots: every file is as it was written\n"


@pytest.mark.parametrize(("page", "text"), [pytest.param(*block, id=block[0]) for block in blocks("console")])
def test_commands_on_the_pages_have_the_options_they_name(page: str, text: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        app = COMMANDS.get(Path(words[0]).name) if words else None
        if app is not None:
            assert_known(typer.main.get_command(app), words[1:])


def assert_known(command: click.Command, words: list[str]) -> None:
    """Every sub-command and option among the words exists."""
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
