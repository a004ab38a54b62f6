"""A source that cannot be read is never plain nodata: promise 2 of the cube, on real files and whole builds."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
import zarr
from numpy.typing import NDArray
from tests.end_to_end.archives import (
    DATES,
    Ended,
    SmallArchive,
    build_arguments,
    build_here,
    cells_in_journal,
    leftovers,
    pixels,
    promised,
    region_document,
    run,
    run_here,
    stamps,
    write_small_archive,
)

LABELS = ("crop_type", "parcel_id", "coverage", "boundary_distance", "conflict", "split")
FIRST, LATER, DAY = "31TEJ", "31TFJ", "2023-05-20"
"""Tiles of a day in the order in which they fill its pixels."""


@dataclass(frozen=True)
class Undisturbed:
    """A build that could read everything."""

    archive: SmallArchive
    dataset: Path
    promised: dict[str, str]
    arrays: Mapping[str, NDArray[Any]]

    def pixels_of(self, tile: str, day: str) -> NDArray[np.bool_]:
        """(time, y, x): which pixels come from one item."""
        table = pq.read_table(self.dataset / "sources.parquet").to_pandas().set_index("id")
        row = table.loc[self.archive.item(tile, day)]
        mine = np.zeros(self.arrays["source_index"].shape, bool)
        mine[int(row.date_index)] = self.arrays["source_index"][int(row.date_index)] == int(row.source_index)
        return mine


def built(folder: Path, *, not_firm: bool) -> Undisturbed:
    archive = write_small_archive(folder / "archive", not_firm=not_firm)
    ended = build_here(archive, folder / "out")
    assert ended.code == 0, ended.stderr
    dataset = folder / "out" / "small"
    return Undisturbed(archive, dataset, promised(dataset), pixels(dataset))


@pytest.fixture(scope="module")
def firm(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return built(tmp_path_factory.mktemp("firm"), not_firm=False)


@pytest.fixture(scope="module")
def not_firm(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return built(tmp_path_factory.mktemp("not-firm"), not_firm=True)


# What goes wrong


def cut(path: Path) -> None:
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_the_end(path: Path) -> None:
    """Lose the last fifth of a file: its southern source blocks."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])


def take_away(path: Path) -> None:
    path.unlink()


def fill_with_junk(path: Path) -> None:
    path.write_bytes(b"<html>502 Bad Gateway</html>")


def drop_asset(path: Path) -> None:
    """The item no longer has the band's asset; the file stays."""
    item = json.loads((path.parent / "item.json").read_text())
    del item["assets"][path.stem]
    (path.parent / "item.json").write_text(json.dumps(item))


def broken(
    archive: SmallArchive, folder: Path, breaking: Iterable[tuple[Callable[[Path], None], Path]]
) -> SmallArchive:
    """A copy of an archive in which files are broken."""
    shutil.copytree(archive.folder, folder)
    for break_, path in breaking:
        break_(folder / path.relative_to(archive.folder))
    return SmallArchive(folder, archive.not_firm)


# What must be there


def in_cells(dataset: Path, cells: Iterable[tuple[int, ...]]) -> NDArray[np.bool_]:
    """(y, x): the ground of these cells."""
    height, width = zarr.open_group(dataset / "cube.zarr", mode="r")["quality"].shape[-2:]
    ground = np.zeros((height, width), bool)
    for row, column, rows, columns in cells:
        ground[row : row + rows, column : column + columns] = True
    return ground


def assert_unread_exactly(dataset: Path, undisturbed: Undisturbed, unread: NDArray[np.bool_]) -> None:
    """Quality 128 and nothing else at the pixels `unread` (time, y, x); all else as it would have been."""
    now, then = pixels(dataset), undisturbed.arrays
    assert unread.any()
    assert np.array_equal(now["quality"] == 128, unread)
    for name, nothing in (("quality", 128), ("scl", 0), ("source_index", 255)):
        assert np.array_equal(now[name], np.where(unread, nothing, then[name])), name
    assert np.array_equal(now["reflectance"], np.where(unread[:, None], 0, then["reflectance"]))
    for name in LABELS:
        assert np.array_equal(now[name], then[name]), name


def assert_incomplete_and_listed(ended: Ended, dataset: Path, *, item: str, band: str, says: str) -> None:
    assert ended.code == 3
    assert ended.outcome["complete"] is False
    assert "Traceback" not in ended.stderr
    told = [(failure["item"], failure["band"]) for failure in ended.outcome["failures"]]
    assert (item, band) in told
    assert {failure["item"] for failure in ended.outcome["failures"]} == {item}
    listed = [(list(cell), failure) for cell, line in cells_in_journal(dataset).items() for failure in line["failures"]]
    assert sorted(json.dumps({"cell": cell, **failure}, sort_keys=True) for cell, failure in listed) == sorted(
        json.dumps(failure, sort_keys=True) for failure in ended.outcome["failures"]
    )
    assert any(failure["band"] == band and says in failure["error"] for _, failure in listed), listed
    attributes = zarr.open_group(dataset / "cube.zarr", mode="r").attrs["sits_cube"]
    assert isinstance(attributes, dict)
    assert attributes["complete"] is False
    sources = pq.read_table(dataset / "sources.parquet").to_pandas().set_index("id")
    assert band in sources.loc[item, "reason"]
    verified = run_here("sits-cube", "verify", dataset)
    assert (verified.code, "not complete" in verified.stdout) == (3, True)
    report = html.unescape((dataset / "report.html").read_text())
    assert item in report
    assert all(failure["error"] in report for _, failure in listed)


def assert_next_run_completes(archive: SmallArchive, dataset: Path, undisturbed: Undisturbed) -> None:
    """With the sources restored, only cells with failures are touched, and the cube is as if nothing had happened."""
    before = stamps(dataset)
    failed = {cell for cell, line in cells_in_journal(dataset).items() if line["failures"]}
    theirs = {f"cube.zarr/{key}" for cell in failed for key in cells_in_journal(dataset)[cell]["shards"]}
    shutil.copytree(undisturbed.archive.folder, archive.folder, dirs_exist_ok=True)
    ended = build_here(archive, dataset.parent)
    assert (ended.code, ended.outcome["complete"], ended.outcome["built"]) == (0, True, len(failed))
    after = stamps(dataset)
    assert {name: after[name] for name in before if name not in theirs} == {
        name: stamp for name, stamp in before.items() if name not in theirs
    }
    assert promised(dataset) == undisturbed.promised
    assert leftovers(dataset.parent) == []
    assert run_here("sits-cube", "verify", dataset).code == 0


def failed_ground(dataset: Path) -> NDArray[np.bool_]:
    return in_cells(dataset, [cell for cell, line in cells_in_journal(dataset).items() if line["failures"]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("break_", "tile", "band", "says"),
    [
        pytest.param(take_away, FIRST, "B04", "B04.tif", id="the audit's own band of the day's first item is missing"),
        pytest.param(
            take_away, LATER, "B05", "B05.tif", id="a band of the day's later item is missing", marks=pytest.mark.soak
        ),
        pytest.param(
            take_away, FIRST, "SCL", "SCL.tif", id="the scene classification is missing", marks=pytest.mark.soak
        ),
        pytest.param(
            cut, FIRST, "B05", "B05.tif", id="a band of the first item is cut to half", marks=pytest.mark.soak
        ),
        pytest.param(
            cut, LATER, "B02", "B02.tif", id="a band of the later item is cut to half", marks=pytest.mark.soak
        ),
        pytest.param(fill_with_junk, FIRST, "B02", "B02.tif", id="a band is an error page"),
    ],
)
def test_what_cannot_be_read_is_marked_and_filled_by_the_next_run(
    firm: Undisturbed, tmp_path: Path, break_: Callable[[Path], None], tile: str, band: str, says: str
) -> None:
    archive = broken(firm.archive, tmp_path / "archive", [(break_, firm.archive.asset(tile, DAY, band))])
    dataset = tmp_path / "out" / "small"
    ended = build_here(archive, dataset.parent)
    assert_incomplete_and_listed(ended, dataset, item=archive.item(tile, DAY), band=band, says=says)
    assert_unread_exactly(dataset, firm, firm.pixels_of(tile, DAY) & failed_ground(dataset))
    if break_ is not cut:
        assert failed_ground(dataset)[firm.pixels_of(tile, DAY).any(axis=0)].all()
    assert_next_run_completes(archive, dataset, firm)


@pytest.mark.soak
def test_an_item_that_lacks_an_asset_is_refused_and_said_so(firm: Undisturbed, tmp_path: Path) -> None:
    """Reading it again tomorrow would not help, so that the cube is complete without it."""
    archive = broken(firm.archive, tmp_path / "archive", [(drop_asset, firm.archive.asset(FIRST, DAY, "B05"))])
    item, reason = archive.item(FIRST, DAY), "it has no asset for B05, which other items have"
    plan = json.loads(build_here(archive, tmp_path / "out", "--plan").stdout)["datasets"][0]
    assert plan["refused"] == [{"id": item, "status": "failed", "reason": reason}]
    ended = build_here(archive, tmp_path / "out")
    assert (ended.code, ended.outcome["complete"], ended.outcome["refused"]) == (0, True, [f"{item}: {reason}"])
    sources = pq.read_table(tmp_path / "out" / "small" / "sources.parquet").to_pandas().set_index("id")
    assert tuple(sources.loc[item, ["status", "reason"]]) == ("failed", reason)
    shutil.copytree(firm.archive.folder, archive.folder, dirs_exist_ok=True)
    again = build_here(archive, tmp_path / "out")
    assert again.code == 2
    assert "holds another cube" in again.stderr
    assert f"it lacks {item} (baseline 05.09); choose another --out" in again.stderr


def break_item(path: Path) -> None:
    """The item's metadata have a hole."""
    item = json.loads((path.parent / "item.json").read_text())
    del item["properties"]["s2:processing_baseline"]
    (path.parent / "item.json").write_text(json.dumps(item))


@pytest.mark.soak
def test_an_item_that_is_none_is_told_in_plan_console_and_report(firm: Undisturbed, tmp_path: Path) -> None:
    archive = broken(firm.archive, tmp_path / "archive", [(break_item, firm.archive.asset(FIRST, DAY, "B05"))])
    item = archive.item(FIRST, DAY)
    planned = [part for part in build_arguments(archive, tmp_path / "out", "--plan") if part != "--json"]
    words = run_here("sits-build", *planned)
    assert words.code == 0
    assert "1 failed" in words.stdout
    assert f"  not used   {item}: no processing baseline" in words.stdout
    plan = json.loads(build_here(archive, tmp_path / "out", "--plan").stdout)["datasets"][0]
    assert [(one["id"], one["status"]) for one in plan["refused"]] == [(item, "failed")]
    ended = run_here("sits-build", *[part for part in build_arguments(archive, tmp_path / "out") if part != "--json"])
    assert ended.code == 0
    assert f"  not used  {item}: no processing baseline" in ended.stdout
    assert item in html.unescape((tmp_path / "out" / "small" / "report.html").read_text())


def call_it_simulated(path: Path) -> None:
    item = json.loads((path.parent / "item.json").read_text())
    item["properties"]["simulated"] = True
    (path.parent / "item.json").write_text(json.dumps(item))


@pytest.mark.slow
def test_a_cube_with_a_simulated_item_is_simulated(firm: Undisturbed, tmp_path: Path) -> None:
    archive = broken(firm.archive, tmp_path / "archive", [(call_it_simulated, firm.archive.asset(LATER, DAY, "B05"))])
    assert build_here(archive, tmp_path / "out").code == 0
    for dataset, simulated in ((tmp_path / "out" / "small", True), (firm.dataset, False)):
        attributes = zarr.open_group(dataset / "cube.zarr", mode="r").attrs["sits_cube"]
        assert isinstance(attributes, dict)
        assert attributes["simulated"] is simulated
        assert json.loads((dataset / "item.json").read_text())["properties"]["sits_cube:simulated"] is simulated


@pytest.mark.slow
def test_a_cut_file_costs_only_the_cells_that_need_what_it_lost(firm: Undisturbed, tmp_path: Path) -> None:
    archive = broken(firm.archive, tmp_path / "archive", [(cut_the_end, firm.archive.asset(FIRST, DAY, "B02"))])
    dataset = tmp_path / "out" / "small"
    assert build_here(archive, dataset.parent).code == 3
    failed = {cell[0] for cell, line in cells_in_journal(dataset).items() if line["failures"]}
    assert failed == {512, 1024}
    assert_unread_exactly(dataset, firm, firm.pixels_of(FIRST, DAY) & failed_ground(dataset))


@pytest.mark.slow
def test_an_item_whose_offset_cannot_be_audited_is_unread_where_the_provider_is_not_trusted(
    not_firm: Undisturbed, tmp_path: Path
) -> None:
    archive = broken(not_firm.archive, tmp_path / "archive", [(take_away, not_firm.archive.asset(FIRST, DAY, "B04"))])
    dataset = tmp_path / "out" / "small"
    ended = build_here(archive, dataset.parent)
    item = archive.item(FIRST, DAY)
    assert_incomplete_and_listed(ended, dataset, item=item, band="*", says="could not be read")
    assert_incomplete_and_listed(ended, dataset, item=item, band="B04", says="red.tif")
    assert_unread_exactly(dataset, not_firm, not_firm.pixels_of(FIRST, DAY))
    assert_next_run_completes(archive, dataset, not_firm)


@pytest.mark.slow
def test_an_item_of_which_nothing_is_left_is_unread_wherever_it_may_have_been(
    firm: Undisturbed, tmp_path: Path
) -> None:
    files = [(take_away, firm.archive.asset(FIRST, DAY, band)) for band in ("B02", "B04", "B05", "SCL")]
    archive = broken(firm.archive, tmp_path / "archive", files)
    dataset = tmp_path / "out" / "small"
    assert build_here(archive, dataset.parent).code == 3
    unread = pixels(dataset)["quality"] == 128
    assert unread[firm.pixels_of(FIRST, DAY)].all()
    assert not unread[[index for index, day in enumerate(DATES) if day != DAY]].any()
    assert_unread_exactly(dataset, firm, unread)
    assert_next_run_completes(archive, dataset, firm)


@pytest.mark.slow
@pytest.mark.parametrize(("tile", "code"), [(LATER, 0), (FIRST, 3)])
def test_a_fault_that_no_pixel_needs_is_no_fault(firm: Undisturbed, tmp_path: Path, tile: str, code: int) -> None:
    """Both tiles hold the middle columns; a region there needs the first one alone."""
    archive = broken(firm.archive, tmp_path / "archive", [(take_away, firm.archive.asset(tile, DATES[0], "B02"))])
    west, south, east, north = region_document()["place"]["bbox"]
    width, height = east - west, north - south
    middle = [west + width * 0.48, south + height * 0.85, west + width * 0.52, north]
    season = {"start": DATES[0], "end": DATES[0]}
    archive.region.write_text(yaml.safe_dump(region_document(id="middle", place={"bbox": middle}, season=season)))
    ended = run_here("sits-build", "--region", archive.region, "--out", tmp_path / "out")
    assert ended.code == code, (ended.stdout, ended.stderr)


@pytest.mark.slow
def test_the_command_says_what_it_could_not_read(firm: Undisturbed, tmp_path: Path) -> None:
    archive = broken(firm.archive, tmp_path / "archive", [(take_away, firm.archive.asset(FIRST, DAY, "B05"))])
    arguments = [part for part in build_arguments(archive, tmp_path / "out") if part != "--json"]
    ended = run("sits-build", *arguments)
    assert ended.returncode == 3
    assert "INCOMPLETE" in ended.stdout
    assert archive.item(FIRST, DAY) in ended.stdout
    assert "B05" in ended.stdout
    assert "Traceback" not in ended.stderr
    assert run("sits-cube", "verify", tmp_path / "out" / "small").returncode == 3
