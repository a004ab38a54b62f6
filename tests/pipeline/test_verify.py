from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pipeline.small_cube import cell_entry, fill_blocks, random_blocks, small_layout

from sits_pipeline.folder import Folder
from sits_pipeline.journal import MERGED, Journal, encode_line
from sits_pipeline.plan.cells import cells_of
from sits_pipeline.store import CUBE, CubeLayout, create_cube, update_attributes, write_cell
from sits_pipeline.values import JsonObject, Window
from sits_pipeline.verify import Finding, files_line, verify

SHAPE = (516, 520)
SHARD = f"{CUBE}/quality/c/0/0/0"
CONFIG = "5" * 64


def layout_of_dataset() -> CubeLayout:
    return small_layout(SHAPE, n_bands=1, config_sha256=CONFIG, cells={"side": 512, "count": 4})


def written_entry(folder: Folder, layout: CubeLayout, window: Window) -> JsonObject:
    # The last cell observes nothing, so that it stores nothing.
    blocks = fill_blocks(layout, window) if window.row and window.column else random_blocks(layout, window, 0)
    written = write_cell(folder, window, blocks.items())
    return cell_entry(window, {key: [shard.size, shard.sha256] for key, shard in written.items()})


def merge_with_hashes(folder: Folder, entries: list[JsonObject]) -> None:
    """Conclude a dataset: one journal whose last line covers every other file."""
    listed = {f"{CUBE}/{key}" for entry in entries if entry["kind"] == "cell" for key in entry["shards"]}
    others = [name for name in folder.files() if name not in listed and not name.startswith("journal")]
    hashes: dict[str, list[int | str]] = {
        name: [len(folder.read(name)), hashlib.sha256(folder.read(name)).hexdigest()] for name in others
    }
    lines = [encode_line(entry) for entry in entries]
    last = files_line(hashes, hashlib.sha256(b"".join(lines)).hexdigest())
    Journal(folder).merge([*lines, encode_line(last)])


def build(folder: Folder) -> None:
    layout = layout_of_dataset()
    create_cube(folder, layout)
    entries: list[JsonObject] = [{"kind": "plan", "config_sha256": CONFIG, "cells": 4}]
    entries += [written_entry(folder, layout, window) for window in cells_of(SHAPE, 512)]
    update_attributes(folder, layout, {"complete": True})
    folder.write("parcels.parquet", b"PAR1 not really a table PAR1")
    folder.write("config.yaml", b"id: herault\n")
    merge_with_hashes(folder, entries)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "herault"
    build(Folder(str(path)))
    return path


@pytest.fixture
def dataset(finished: Path, tmp_path: Path) -> Folder:
    """A finished dataset to damage."""
    shutil.copytree(finished, tmp_path / "herault")
    return Folder(str(tmp_path / "herault"))


def flip(folder: Folder, name: str, position: int = -20, bit: int = 1) -> None:
    path = folder.path / name
    data = bytearray(path.read_bytes())
    data[position] ^= bit
    path.write_bytes(bytes(data))


def restore(folder: Folder, name: str, data: bytes) -> None:
    # Without the sync of Folder.write, which many thousand repeats would wait for.
    (folder.path / name).write_bytes(data)


def named(folder: Folder) -> set[str]:
    return {finding.file for finding in verify(folder)}


def test_a_finished_dataset_has_no_findings(dataset: Folder) -> None:
    assert verify(dataset) == []


def test_a_dataset_behind_a_url_is_verified_as_well() -> None:
    folder = Folder("memory://verify-finished")
    build(folder)
    assert verify(folder) == []
    folder.write("config.yaml", b"id: herauld\n")
    folder.remove(SHARD)
    assert named(folder) == {"config.yaml", SHARD}


def test_progress_counts_every_file_once(dataset: Folder) -> None:
    calls: list[tuple[int, int]] = []
    verify(dataset, progress=lambda done, total: calls.append((done, total)))
    n_files = len(list(dataset.files())) - 1
    assert calls == [(done, n_files) for done in range(1, n_files + 1)]


@pytest.mark.parametrize("threads", [1, 4])
def test_findings_do_not_depend_on_the_number_of_threads(dataset: Folder, threads: int) -> None:
    flip(dataset, SHARD)
    flip(dataset, "config.yaml", 0)
    before = threading.active_count()
    assert [f.file for f in verify(dataset, threads=threads)] == ["config.yaml", SHARD]
    assert threading.active_count() <= before


# A flipped byte


@pytest.mark.parametrize(
    "name",
    [
        SHARD,
        f"{CUBE}/reflectance/c/0/0/0/0",
        f"{CUBE}/overview/quality/c/0/0/0",
        f"{CUBE}/zarr.json",
        f"{CUBE}/scl/zarr.json",
        f"{CUBE}/time/c/0",
        "parcels.parquet",
        "config.yaml",
    ],
)
@pytest.mark.parametrize("position", [0, 5, -1])
def test_a_flipped_byte_in_any_file_is_found(dataset: Folder, name: str, position: int) -> None:
    flip(dataset, name, position)
    assert named(dataset) == {name}


@pytest.mark.slow
def test_a_flipped_byte_at_any_place_of_the_root_metadata_is_found(dataset: Folder) -> None:
    # From the first byte to the end of `sits_cube`: whatever a reader may stumble over.
    intact = dataset.read(f"{CUBE}/zarr.json")
    end = intact.index(b"consolidated_metadata")
    for position in range(0, end, 41):
        for bit in (1, 128):
            flip(dataset, f"{CUBE}/zarr.json", position, bit)
            assert f"{CUBE}/zarr.json" in named(dataset), (position, bit)
            restore(dataset, f"{CUBE}/zarr.json", intact)


def test_a_flipped_bit_anywhere_in_the_last_line_of_the_journal_is_found(dataset: Folder) -> None:
    intact = dataset.read(MERGED)
    for position in range(intact.rstrip(b"\n").rindex(b"\n") + 1, len(intact), 23):
        for bit in (1, 128):
            flip(dataset, MERGED, position, bit)
            assert named(dataset) == {MERGED}, (position, bit)
            restore(dataset, MERGED, intact)


def test_a_flipped_bit_in_the_middle_of_the_journal_is_found(dataset: Folder) -> None:
    intact = dataset.read(MERGED)
    for position in range(0, intact.rstrip(b"\n").rindex(b"\n"), 97):
        flip(dataset, MERGED, position, 1)
        assert named(dataset) == {MERGED}, position
        restore(dataset, MERGED, intact)


def test_a_line_feed_in_the_place_of_another_byte_is_found(dataset: Folder) -> None:
    data = bytearray(dataset.read(MERGED))
    data[200] = ord("\n")
    dataset.write(MERGED, bytes(data))
    assert named(dataset) == {MERGED}


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -2, -100])
def test_a_journal_that_was_cut_short_is_found(dataset: Folder, kept: int) -> None:
    dataset.write(MERGED, dataset.read(MERGED)[:kept])
    (finding,) = verify(dataset)
    assert finding.file == MERGED
    assert "is damaged or cut short" in finding.what


@pytest.mark.parametrize("last", [b"[1,2]", b"7", b'"text"', b"null", b"{}", b'{"line_sha256":"x"}'])
def test_a_last_line_that_is_another_value_is_found(dataset: Folder, last: bytes) -> None:
    dataset.write(MERGED, last + b"\n")
    assert named(dataset) == {MERGED}


# Files that are missing or too many


@pytest.mark.parametrize("name", [SHARD, f"{CUBE}/scl/zarr.json", "parcels.parquet"])
def test_a_deleted_file_is_found(dataset: Folder, name: str) -> None:
    dataset.remove(name)
    (finding,) = verify(dataset)
    kind = "shard" if name == SHARD else "file"
    assert str(finding) == f"{name}: {kind} is missing"


def test_a_file_that_was_cut_short_is_found(dataset: Folder) -> None:
    data = dataset.read(SHARD)
    dataset.write(SHARD, data[:-3])
    assert verify(dataset) == [Finding(SHARD, f"shard has {len(data) - 3} bytes, {len(data)} were written")]


def test_a_file_that_does_not_belong_there_is_found(dataset: Folder) -> None:
    dataset.write(f"{CUBE}/quality/c/0/7/7", b"a shard of another build")
    dataset.write("notes.txt", b"mine")
    assert named(dataset) == {f"{CUBE}/quality/c/0/7/7", "notes.txt"}


def test_a_leftover_of_an_interrupted_write_is_found(dataset: Folder) -> None:
    dataset.write(f"{CUBE}/quality/c/0/0/0.9f.partial", b"half")
    assert verify(dataset) == [Finding(f"{CUBE}/quality/c/0/0/0.9f.partial", "is left over from an interrupted write")]


def test_everything_that_is_wrong_is_named_at_once(dataset: Folder) -> None:
    flip(dataset, SHARD)
    flip(dataset, f"{CUBE}/zarr.json", 5)
    flip(dataset, "parcels.parquet")
    dataset.remove(f"{CUBE}/scl/c/0/0/0")
    assert named(dataset) == {SHARD, f"{CUBE}/zarr.json", "parcels.parquet", f"{CUBE}/scl/c/0/0/0"}


# Datasets that are not finished, stale or of another version


def change_root(folder: Folder, change: Callable[[JsonObject], None]) -> None:
    name = f"{CUBE}/zarr.json"
    document = json.loads(folder.read(name))
    change(document["attributes"]["sits_cube"])
    folder.write(name, json.dumps(document).encode())


def test_where_no_dataset_is_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no dataset in .*: it has no cube\.zarr; give the folder that holds it"
    ):
        verify(Folder(str(tmp_path)))


def test_a_build_that_has_not_finished_is_found(dataset: Folder) -> None:
    dataset.write("journal/000001.jsonl", encode_line({"kind": "plan"}))
    (finding,) = verify(dataset)
    assert str(finding) == "journal: the build has not finished; run the same sits-build command to go on"
    dataset.remove("journal/000001.jsonl")
    dataset.remove(MERGED)
    assert named(dataset) == {"journal"}


def test_a_cube_of_another_version_is_found(dataset: Folder) -> None:
    change_root(dataset, lambda cube: cube.update(version="2.0"))
    (finding,) = verify(dataset)
    assert str(finding) == (
        "cube.zarr/zarr.json: was written as sits-cube 2.0; this program knows 1.0: use the matching release"
    )


def test_a_group_that_is_no_cube_is_found(dataset: Folder) -> None:
    dataset.write(f"{CUBE}/zarr.json", b'{"attributes":{},"zarr_format":3,"node_type":"group"}')
    assert Finding(f"{CUBE}/zarr.json", "cannot be read: it is no metadata of a sits-cube") in verify(dataset)


def test_the_journal_of_another_configuration_is_stale(dataset: Folder) -> None:
    change_root(dataset, lambda cube: cube.update(config_sha256="6" * 64))
    findings = verify(dataset)
    assert Finding(MERGED, "is stale: it belongs to a build with another configuration than the cube") in findings


def test_the_journal_of_an_earlier_state_is_stale(finished: Path, tmp_path: Path) -> None:
    """A cell was computed again and its shards replaced, but the journal is the old one."""
    shutil.copytree(finished, tmp_path / "herault")
    folder, layout = Folder(str(tmp_path / "herault")), layout_of_dataset()
    window = next(cells_of(SHAPE, 512))
    again = write_cell(folder, window, random_blocks(layout, window, 1).items())
    assert named(folder) == {f"{CUBE}/{key}" for key in again}


def test_a_journal_without_one_of_the_cells_is_found(dataset: Folder) -> None:
    entries = [json.loads(line) for line in dataset.read(MERGED).splitlines()[:-2]]
    merge_with_hashes(dataset, entries)
    assert verify(dataset) == [Finding(MERGED, "lists 3 cells, the cube has 4: it is stale or the build was cut short")]


def test_a_cube_with_unread_sources_is_not_complete(dataset: Folder) -> None:
    entries = [json.loads(line) for line in dataset.read(MERGED).splitlines()[:-1]]
    failure = {"day": "2018-01-03", "item": "a", "band": "B02", "error": "cut short"}
    entries[1]["failures"] = [failure]
    change_root(dataset, lambda cube: cube.update(complete=False))
    merge_with_hashes(dataset, entries)
    assert verify(dataset) == [
        Finding(
            MERGED,
            "the cube is not complete: 1 cells have sources that could not be read; build again to fill them",
            incomplete=True,
        )
    ]


def test_a_later_line_of_a_cell_replaces_an_earlier_one(dataset: Folder) -> None:
    entries = [json.loads(line) for line in dataset.read(MERGED).splitlines()[:-1]]
    old = {**entries[1], "failures": [{"item": "a"}], "shards": {"quality/c/0/0/0": [1, "0" * 64]}}
    merge_with_hashes(dataset, [entries[0], old, *entries[1:]])
    assert verify(dataset) == []
