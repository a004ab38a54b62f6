from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.archives import SmallArchive, build_here, cells_in_journal, promised, write_small_archive
from tests.end_to_end.building import SMALL, Dataset, build_region, extent, simulated_land
from tests.end_to_end.interrupted import FINISH, is_concluded, killed_build

from sits_catalog.loading import load_region
from sits_catalog.region import LabelRule, Region


@pytest.fixture(scope="session")
def expected(sits_data: Path) -> dict[str, Any]:
    """Reference numbers of the real data, computed without this project."""
    return dict(json.loads((sits_data / "expected.json").read_text()))


@pytest.fixture(scope="session")
def t31tej(sits_data: Path) -> Region:
    """Southern France in 2018: SAFE products of the real archive, parcels of the real declarations."""
    folder = sits_data / "t31tej"
    return load_region(
        str(Path(__file__).with_name("t31tej-2018.yaml")),
        source_path=str(folder),
        parcels=str(folder / "parcels" / "france_data_2018.shp"),
    )


@pytest.fixture(scope="session")
def t31tej_area(t31tej: Region, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_region(t31tej, tmp_path_factory.mktemp("area"))


@pytest.fixture(scope="session")
def t31tej_center(t31tej: Region, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    rule = replace(t31tej.labels, rule="center")
    return build_region(t31tej.replace(labels=rule), tmp_path_factory.mktemp("center"))


@pytest.fixture(scope="session")
def t31tej_all_touched(t31tej: Region, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    rule = LabelRule(rule="all_touched")
    return build_region(t31tej.replace(labels=rule), tmp_path_factory.mktemp("all-touched"))


@pytest.fixture(scope="session")
def land(tmp_path_factory: pytest.TempPathFactory) -> Region:
    """Simulated farmland of 1080 x 600 px in two tiles, eight dates: as wide as two of the largest cells."""
    folder = tmp_path_factory.mktemp("land")
    return simulated_land(folder, extent(width=1080, height=600), bands=("B02", "B04", "B8A", "B09"), dates=8, seed=3)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A finished dataset with every array and group that a cube may have, of a shape that no chunk divides."""
    folder = tmp_path_factory.mktemp("small")
    region = simulated_land(folder, SMALL, bands=("B02", "B04", "B8A"), dates=3, seed=1)
    return build_region(region.replace(labels=LabelRule(finer=(2, 4))), folder / "out")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> SmallArchive:
    """A small archive, of each file of tests its own."""
    return write_small_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def undisturbed(archive: SmallArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of that archive, built by this process in one go."""
    out = tmp_path_factory.mktemp("undisturbed")
    ended = build_here(archive, out)
    assert ended.code == 0, ended.stderr
    assert ended.outcome["built"] == 9
    return out / "small"


@pytest.fixture(scope="module")
def unfinished(archive: SmallArchive, undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset as a build left it that was killed as it entered the finish: all cells, and no file of the finish."""
    dataset = tmp_path_factory.mktemp("unfinished") / "small"
    killed_build(archive, dataset, FINISH[0], "before")
    assert cells_in_journal(dataset).keys() == cells_in_journal(undisturbed).keys()
    assert [path.name for path in dataset.iterdir() if path.is_file() and ".partial" not in path.name] == []
    assert is_concluded(undisturbed)
    assert not is_concluded(dataset)
    return dataset


@pytest.fixture(scope="module")
def local(undisturbed: Path) -> dict[str, str]:
    """What a build on this machine alone promises."""
    return promised(undisturbed)
