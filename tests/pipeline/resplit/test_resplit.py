"""Datasets that are split anew: the same bytes as built so from the start, also where the work was cut short."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely
from tests.end_to_end.archives import EPOCH, command, kill, leftovers, promised, run_here, start, wait_for
from tests.end_to_end.building import (
    EPSG,
    FIRST_X,
    FIRST_Y,
    Dataset,
    Silent,
    build_region,
    extent,
    simulated_land,
)

from sits_catalog.region import LabelRule, Region, SplitRule
from sits_pipeline.folder import Folder
from sits_pipeline.journal import Journal, read_journal
from sits_pipeline.resplit import check_splits, split_by_year, split_region
from sits_pipeline.store import write_cell
from sits_pipeline.verify import verify

pytestmark = pytest.mark.slow
GRID = extent(width=600, height=300)
"""Two cells of 512 px."""


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        folder = tmp_path_factory.mktemp("archive")
        region = simulated_land(folder, GRID, bands=("B02", "B8A"), dates=2, seed=5)
        yield region.replace(labels=LabelRule(finer=(2,)))


@pytest.fixture(scope="module")
def finished(land: Region, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_region(land, tmp_path_factory.mktemp("out"), cell_px=512, chips="parcel").path


@pytest.fixture
def dataset(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished dataset."""
    return Path(shutil.copytree(finished, tmp_path / "land"))


@pytest.fixture(scope="module")
def areas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rectangles that leave a strip of ground out, in degrees."""
    path = tmp_path_factory.mktemp("areas") / "areas.gpkg"
    west = shapely.box(FIRST_X - 50, FIRST_Y - 2000, FIRST_X + 2507, FIRST_Y + 20)
    east = shapely.box(FIRST_X + 2507, FIRST_Y - 1500, FIRST_X + 5333, FIRST_Y - 11)
    table = geopandas.GeoDataFrame({"split": ["train", "test"]}, geometry=[west, east], crs=EPSG)
    table.to_crs(4326).to_file(path)
    return path


def built_so(land: Region, rule: SplitRule, out: Path) -> Path:
    return build_region(land.replace(splits=rule), out, cell_px=512, chips="parcel").path


def differing(one: Path, other: Path) -> list[str]:
    """Files that do not have the same bytes, but for the journals."""
    files = [
        {p.relative_to(d).as_posix(): p.read_bytes() for p in d.rglob("*") if p.suffix != ".jsonl" and p.is_file()}
        for d in (one, other)
    ]
    return sorted(name for name in files[0].keys() | files[1].keys() if files[0].get(name) != files[1].get(name))


FOLDS = SplitRule(block_m=640, folds=3, fold=2, buffer_m=50.0)


@pytest.mark.parametrize(
    "kind", ["shares", "file", *(pytest.param(kind, marks=pytest.mark.soak) for kind in ("folds", "whole"))]
)
def test_a_cube_that_is_split_anew_is_the_one_that_was_built_so(
    land: Region, dataset: Path, areas: Path, tmp_path: Path, kind: str
) -> None:
    rule = {
        "folds": FOLDS,
        "shares": SplitRule(block_m=1280, buffer_m=0.0, shares={"train": 0.7, "test": 0.3}, seed=4, min_pixels=2000),
        "whole": SplitRule(whole="test"),
        "file": SplitRule(file=str(areas), buffer_m=30.0),
    }[kind]
    before = promised(dataset)
    (done,) = split_region([Folder(str(dataset))], rule, Silent())
    assert (done.complete, done.built, done.cells) == (True, 2, 2)
    other = built_so(land, rule, tmp_path / "other")
    assert differing(dataset, other) == []
    after = promised(dataset)
    changed = {name for name in after if after[name] != before.get(name)}
    assert all(
        name.startswith(("cube.zarr/split/c/", "parcels.", "chips.")) or name == "cube.zarr/zarr.json"
        for name in changed
    )
    assert verify(Folder(str(dataset))) == []
    assert leftovers(dataset.parent) == []
    assert check_splits(Folder(str(dataset))).leaks == ()
    assert sum(done.pixels.values()) == 600 * 300


def test_a_build_takes_up_a_dataset_that_was_split_and_another_rule_is_refused(
    land: Region, dataset: Path, tmp_path: Path
) -> None:
    split_region([Folder(str(dataset))], FOLDS, Silent())
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    taken_up = build_region(land.replace(splits=FOLDS), dataset.parent, cell_px=512, chips="parcel")
    assert taken_up.complete
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before
    with pytest.raises(ValueError, match=r"nothing else differs; go on with the section splits of its config.yaml"):
        build_region(land, dataset.parent, cell_px=512, chips="parcel")
    # Another title is written without a cell, and the journal still tells of the split.
    build_region(land.replace(splits=FOLDS, title="Land"), dataset.parent, cell_px=512, chips="parcel")
    lines = [line for line in read_journal(Folder(str(dataset))) if line["kind"] == "split"]
    assert [line["splits"]["folds"] for line in lines] == [3]
    assert verify(Folder(str(dataset))) == []


def test_the_same_split_again_writes_nothing(dataset: Path) -> None:
    folder = Folder(str(dataset))
    split_region([folder], FOLDS, Silent())
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    (again,) = split_region([folder], FOLDS, Silent())
    assert (again.built, again.complete, sum(again.pixels.values())) == (0, True, 180_000)
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


# Cut short


class Killed(BaseException):
    """The process is gone."""


class Effects:
    """Counts what is written to the disk, and ends the process at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, instant: int | None) -> None:
        self.count, self._instant = 0, instant
        self._journals: list[Journal] = []
        patch.setattr(Folder, "_write_local", self._around(Folder._write_local))
        patch.setattr(Folder, "remove", self._around(Folder.remove))
        patch.setattr(Journal, "_append_local", self._around(Journal._append_local))
        patch.setattr("sits_pipeline.resplit.carry_out.write_cell", self._around(write_cell))

    def _around(self, effect: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            self.count += 1
            self._journals += [one for one in arguments[:1] if isinstance(one, Journal)]
            if self.count == self._instant:
                raise Killed
            return effect(*arguments)

        return run

    def close(self) -> None:
        """Close what the system would close."""
        for journal in self._journals:
            if journal._file is not None:
                journal._file.close()


def split_killed(folder: Folder, rule: SplitRule, instant: int) -> None:
    """Split a dataset in a process that ends before it writes for the n-th time."""
    with pytest.MonkeyPatch.context() as patch:
        effects = Effects(patch, instant)
        with pytest.raises(Killed):
            split_region([folder], rule, Silent())
        effects.close()


@pytest.fixture(scope="module")
def whole(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A dataset that was split without a disturbance, and how often that wrote something."""
    path = Path(shutil.copytree(finished, tmp_path_factory.mktemp("whole") / "land"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        effects = Effects(patch, None)
        split_region([Folder(str(path))], FOLDS, Silent())
    return path, effects.count


def assert_is_taken_up(dataset: Path, finished: Path, whole: Path, instant: int) -> None:
    folder = Folder(str(dataset))
    split_killed(folder, FOLDS, instant)
    if differing(dataset, finished) and differing(dataset, whole):
        assert [str(finding) for finding in verify(folder)] == [
            "journal: a split is under way, so that old and new splits are mixed; "
            "run the same sits-cube split command to go on"
        ]
    of_splits = [[n for n in differing(dataset, other) if "/split/c/" in n] for other in (finished, whole)]
    root = json.loads((dataset / "cube.zarr" / "zarr.json").read_text())["attributes"]["sits_cube"]
    assert not all(of_splits) or not root["complete"]
    split_region([folder], FOLDS, Silent())
    assert differing(dataset, whole) == []
    assert verify(folder) == []
    assert leftovers(dataset.parent) == []


@pytest.mark.parametrize("part", [0.4, 0.7, 0.9])
def test_a_split_that_is_killed_is_taken_up_and_ends_the_same(
    finished: Path, dataset: Path, whole: tuple[Path, int], part: float
) -> None:
    assert whole[1] > 12
    assert_is_taken_up(dataset, finished, whole[0], round(part * whole[1]))


@pytest.mark.soak
def test_a_split_that_is_killed_before_any_of_its_writes_ends_the_same(
    finished: Path, whole: tuple[Path, int], tmp_path: Path
) -> None:
    """Each instant is one between two writes; what a file itself goes through is `Folder.write`'s matter."""
    for instant in range(1, whole[1] + 1):
        dataset = Path(shutil.copytree(finished, tmp_path / str(instant) / "land"))
        assert_is_taken_up(dataset, finished, whole[0], instant)
        shutil.rmtree(dataset.parent)


def _segments(dataset: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (dataset / "journal").glob("*.jsonl"))


@pytest.mark.parametrize("torn", ["", '{"kind":"spl'])
def test_a_journal_that_was_cut_short_in_its_first_line_hinders_nobody(
    dataset: Path, whole: tuple[Path, int], torn: str
) -> None:
    (dataset / "journal").mkdir()
    (dataset / "journal" / "000001.jsonl").write_text(torn)
    assert verify(Folder(str(dataset))) == []
    split_region([Folder(str(dataset))], FOLDS, Silent())
    assert differing(dataset, whole[0]) == []
    assert verify(Folder(str(dataset))) == []


@pytest.mark.soak
def test_a_killed_process_leaves_a_dataset_that_says_so_and_no_build_takes_it(
    land: Region, dataset: Path, tmp_path: Path
) -> None:
    arguments = ["split", str(dataset), "--block", "640", "--folds", "3", "--fold", "2", "--buffer", "50"]
    process = start(command("sits-cube", *arguments))
    wait_for(lambda: b"\n" in _segments(dataset) or process.poll() is not None)
    assert kill(process)
    assert run_here("sits-cube", "verify", dataset).code == 3
    assert "a split is under way" in run_here("sits-cube", "info", dataset).stdout
    assert json.loads(run_here("sits-cube", "info", dataset, "--json").stdout)["splitting"] is True
    for rule in (land.splits, FOLDS):
        with pytest.raises(ValueError, match="is being split anew, and sits-cube split has not ended"):
            build_region(land.replace(splits=rule), dataset.parent, cell_px=512, chips="parcel")
    ended = run_here("sits-cube", *arguments, "--json")
    assert (ended.code, ended.outcome["complete"]) == (0, True)
    assert "splitting" not in run_here("sits-cube", "info", dataset).stdout
    assert differing(dataset, built_so(land, FOLDS, tmp_path / "other")) == []


def test_another_split_in_place_of_one_that_was_killed_begins_anew(dataset: Path, whole: tuple[Path, int]) -> None:
    folder = Folder(str(dataset))
    split_killed(folder, SplitRule(whole="test"), 6)  # after the first cell
    (done,) = split_region([folder], FOLDS, Silent())
    assert done.built == 2
    assert differing(dataset, whole[0]) == []
    assert verify(folder) == []


# By year


def with_season_end(dataset: Path, end: str) -> Path:
    """The dataset as if its season ended then."""
    root = dataset / "cube.zarr" / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"]["sits_cube"]["season"]["end"] = end
    root.write_text(json.dumps(document))
    return dataset


@pytest.fixture
def years(finished: Path, tmp_path: Path) -> dict[int, Path]:
    """The dataset thrice, as if of three years."""
    return {
        year: with_season_end(Path(shutil.copytree(finished, tmp_path / str(year) / "land")), f"{year}-09-30")
        for year in (2016, 2017, 2018)
    }


def test_years_are_in_one_split_each(years: dict[int, Path]) -> None:
    ended = run_here("sits-cube", "split", *years.values(), "--by-year", "train=2016,2017", "test=2018", "--json")
    assert ended.code == 0, ended.stderr
    assert [list(one["pixels"]) for one in json.loads(ended.stdout)] == [["train"], ["train"], ["test"]]
    for year, path in years.items():
        split = Dataset(path, True).array("split")
        assert (split == (3 if year == 2018 else 1)).all()


def test_a_year_that_is_not_named_is_refused_before_anything_is_written(years: dict[int, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for place in years.values() for path in place.rglob("*")}
    folders = [Folder(str(path)) for path in years.values()]
    with pytest.raises(ValueError, match=r"ends on 2018-09-30, and 2018 is in no split; name it, as in train=2018"):
        split_by_year(folders, ["train=2016", "validation=2017"], Silent(), buffer_m=100)
    assert {path: path.stat().st_mtime_ns for place in years.values() for path in place.rglob("*")} == before


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["train=2016,2017", "test=2017"], "2017 is named for train and for test; a year is in one split"),
        (["tests=2016"], "years of a split are written train=2016,2017"),
        (["test=16"], "got 'test=16'"),
    ],
)
def test_years_that_are_written_wrongly_are_refused(dataset: Path, texts: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        split_by_year([Folder(str(dataset))], texts, Silent(), buffer_m=100)


# What cannot be split


def test_a_dataset_that_is_not_finished_is_refused(dataset: Path) -> None:
    (dataset / "journal").mkdir()
    (dataset / "journal" / "000001.jsonl").write_text('{"kind":"plan"}\n')
    ended = run_here("sits-cube", "split", dataset)
    assert ended.code == 2
    assert "has not finished; run the same sits-build command to go on, then split" in ended.stderr


def test_a_journal_of_an_earlier_release_is_refused(dataset: Path) -> None:
    path = dataset / "journal.jsonl"
    first, *lines = path.read_text().splitlines(keepends=True)
    plan = {key: value for key, value in json.loads(first).items() if key != "deciding"}
    path.write_text(json.dumps(plan) + "\n" + "".join(lines))
    with pytest.raises(ValueError, match=r"was built by an earlier version, .*; build it again to another --out"):
        split_region([Folder(str(dataset))], FOLDS, Silent())


def test_a_dataset_without_parcels_is_refused(land: Region, tmp_path: Path) -> None:
    path = build_region(land.replace(parcels=None, taxonomy=None), tmp_path, cell_px=512).path
    with pytest.raises(ValueError, match="has no parcels, and splits are made by parcels"):
        split_region([Folder(str(path))], FOLDS, Silent())


def test_datasets_of_two_regions_are_refused(dataset: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(dataset, tmp_path / "else"))
    with pytest.raises(ValueError, match="are not the zones of one region; split them one by one"):
        split_region([Folder(str(dataset)), Folder(str(other))], FOLDS, Silent())
    with pytest.raises(ValueError, match="is given twice"):
        split_region([Folder(str(dataset)), Folder(str(dataset))], FOLDS, Silent())
