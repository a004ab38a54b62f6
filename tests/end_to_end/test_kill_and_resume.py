"""A build that is killed, taken up, doubled or damaged: promises 5 and 6 of the cube, on real processes and files."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from tests.end_to_end.archives import (
    Ended,
    SmallArchive,
    build_arguments,
    build_here,
    cells_in_journal,
    command,
    journal_lines,
    kill,
    leftovers,
    promised,
    region_document,
    run,
    run_here,
    stamps,
    start,
    wait_for,
)
from tests.services.file_size import files_of_at_most

Stamps = dict[str, tuple[int, int]]


@pytest.fixture
def dataset(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the finished dataset, for tests that damage it."""
    return Path(shutil.copytree(undisturbed, tmp_path / "out" / "small"))


def assert_as_undisturbed(dataset: Path, undisturbed: Path) -> None:
    assert promised(dataset) == promised(undisturbed)
    assert leftovers(dataset.parent) == []
    assert sorted(p.name for p in dataset.iterdir()) == sorted(p.name for p in undisturbed.iterdir())
    assert timeless(dataset) == timeless(undisturbed)
    assert run_here("sits-cube", "verify", dataset).code == 0


def timeless(dataset: Path) -> list[str]:
    """Lines of the journal but the last, without their times."""
    lines = [line for line in journal_lines(dataset) if line["kind"] != "files"]
    return [json.dumps({key: value for key, value in line.items() if key != "seconds"}) for line in lines]


def shards_in_journal(dataset: Path) -> Stamps:
    """Stamps of the shards of cells that are finished."""
    there = stamps(dataset)
    names = {f"cube.zarr/{key}" for cell in cells_in_journal(dataset).values() for key in cell["shards"]}
    return {name: there[name] for name in names}


# Instants


def after_seconds(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def after_more_cells(dataset: Path, more: int) -> Callable[[], bool]:
    before = len(cells_in_journal(dataset))
    return lambda: len(cells_in_journal(dataset)) >= before + more


def after_written(path: Path) -> Callable[[], bool]:
    def stamp() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    before = stamp()
    return lambda: stamp() != before


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_a_build_killed_again_and_again_ends_as_one_never_killed(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path, kills: int
) -> None:
    """Five kills meet each part of a build once: start, cells, tables, metadata, journal; a hundred repeat them."""
    dataset, rng = tmp_path / "out" / "small", random.Random(2)
    arguments = command("sits-build", *build_arguments(archive, tmp_path / "out"))
    finishing = rng.sample(["chips.parquet", "parcels.parquet", "sources.parquet", "config.yaml"], 2)
    instants: list[Callable[[], Callable[[], bool]]] = [
        lambda: after_seconds(rng.uniform(0.0, 1.0)),
        lambda: after_seconds(rng.uniform(0.0, 4.0)),
        lambda: after_written(dataset / "cube.zarr" / "zarr.json"),
        lambda: after_more_cells(dataset, 1),
        lambda: after_seconds(rng.uniform(0.0, 4.0)),
        lambda: after_more_cells(dataset, 1),
        lambda: after_more_cells(dataset, 2),
        lambda: after_written(dataset / finishing[0]),
        lambda: after_written(dataset / finishing[1]),
        lambda: after_written(dataset / "cube.zarr" / "zarr.json"),
        lambda: after_written(dataset / "journal.jsonl"),
    ]
    order = range(len(instants)) if kills > 5 else (1, 3, 7, 9, 10)
    finished: Stamps = {}
    landed = attempts = 0
    while landed < kills:
        assert attempts < 6 * kills, f"only {landed} kills of {attempts} met a running build"
        number = order[attempts % len(order)]
        come = instants[number]()
        process = start(arguments)
        wait_for(lambda come=come, process=process: come() or process.poll() is not None)
        # A little later, where nothing that could be seen has just been done.
        time.sleep(rng.uniform(0.0, 0.3) if number < 7 else rng.uniform(0.0, 0.02))
        attempts += 1
        killed = kill(process)
        landed += killed
        now = stamps(dataset)
        assert {name: now.get(name) for name in finished} == finished, "a finished cell was written again"
        finished = shards_in_journal(dataset) if dataset.exists() else {}
        if not killed:  # The build was quicker than its kill: it is compared, and the next begins from nothing.
            assert_as_undisturbed(dataset, undisturbed)
            shutil.rmtree(dataset.parent)
            finished = {}
    ended = run("sits-build", *build_arguments(archive, tmp_path / "out"))
    assert ended.returncode == 0, ended.stderr
    now = stamps(dataset)
    assert {name: now[name] for name in finished} == finished
    assert_as_undisturbed(dataset, undisturbed)


@pytest.mark.slow
def test_no_worker_process_outlives_a_killed_build(archive: SmallArchive, undisturbed: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "out" / "small"
    process = start(command("sits-build", *build_arguments(archive, tmp_path / "out", "--kind", "processes")))
    wait_for(lambda: len(cells_in_journal(dataset)) >= 1 or process.poll() is not None)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    assert kill(process)
    gone, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
    assert len(gone) == len(workers)
    ended = build_here(archive, tmp_path / "out")
    assert ended.code == 0
    assert ended.outcome["built"] < 9
    assert_as_undisturbed(dataset, undisturbed)


@pytest.mark.slow
def test_a_build_outlives_a_killed_worker_process(archive: SmallArchive, undisturbed: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "out" / "small"
    process = start(command("sits-build", *build_arguments(archive, tmp_path / "out", "--kind", "processes")))
    wait_for(lambda: len(cells_in_journal(dataset)) >= 1 or process.poll() is not None)
    worker = next(
        child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
    )
    worker.kill()
    assert process.wait(120) == 0
    assert_as_undisturbed(dataset, undisturbed)


@pytest.mark.slow
def test_a_second_build_of_the_same_datasets_refuses_while_the_first_goes_on(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "out" / "small"
    first = start(command("sits-build", *build_arguments(archive, tmp_path / "out")))
    wait_for(lambda: len(cells_in_journal(dataset)) >= 1 or first.poll() is not None)
    second = build_here(archive, tmp_path / "out")
    assert first.poll() is None
    assert second.code == 2
    assert "another build is writing" in second.stderr
    assert first.wait(120) == 0
    assert_as_undisturbed(dataset, undisturbed)


# States that a kill leaves for an instant only


@pytest.mark.slow
def test_segments_that_a_kill_left_beside_the_merged_journal_are_merged_again(
    archive: SmallArchive, undisturbed: Path, dataset: Path
) -> None:
    lines = (dataset / "journal.jsonl").read_text().splitlines(keepends=True)
    (dataset / "journal").mkdir()
    (dataset / "journal" / "000002.jsonl").write_text("".join(lines[1:-1]))
    before = stamps(dataset)
    assert run_here("sits-cube", "verify", dataset).code == 3
    ended = build_here(archive, dataset.parent)
    assert (ended.code, ended.outcome["built"]) == (0, 0)
    assert stamps(dataset) == before
    assert_as_undisturbed(dataset, undisturbed)


@pytest.mark.slow
def test_a_cube_whose_creation_was_cut_short_is_created_again(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path
) -> None:
    cube = tmp_path / "out" / "small" / "cube.zarr"
    (cube / "B99").mkdir(parents=True)
    (cube / "B99" / "zarr.json").write_text("{")
    (cube / "zarr.0123.partial").write_text("")
    root = {"zarr_format": 3, "node_type": "group", "attributes": {"sits_cube": {"creating": True}}}
    (cube / "zarr.json").write_text(json.dumps(root))
    ended = build_here(archive, tmp_path / "out")
    assert (ended.code, ended.outcome["built"]) == (0, 9)
    assert_as_undisturbed(cube.parent, undisturbed)


@pytest.mark.slow
def test_a_torn_journal_line_costs_its_cell_and_leftovers_go(
    archive: SmallArchive, undisturbed: Path, dataset: Path
) -> None:
    lines = (dataset / "journal.jsonl").read_text().splitlines(keepends=True)
    (dataset / "journal.jsonl").unlink()
    (dataset / "journal").mkdir()
    (dataset / "journal" / "000001.jsonl").write_text(lines[0])
    (dataset / "journal" / "000002.jsonl").write_text("".join(lines[1:5]) + lines[5][:100])
    (dataset / "journal" / "000003.jsonl").write_text("")
    shard = next(iter(stamps(dataset)))
    for partial in (f"{shard}.ab.partial", "chips.parquet.cd.partial", "cube.zarr/zarr.ef.partial"):
        (dataset / partial).write_text("half of it")
    finished = shards_in_journal(dataset)
    ended = build_here(archive, dataset.parent)
    assert (ended.code, ended.outcome["built"]) == (0, 5)
    assert {name: stamps(dataset)[name] for name in finished} == finished
    assert_as_undisturbed(dataset, undisturbed)


@pytest.mark.slow
def test_a_journal_that_outlived_its_cube_is_not_believed(
    archive: SmallArchive, undisturbed: Path, dataset: Path
) -> None:
    shutil.rmtree(dataset / "cube.zarr")
    ended = build_here(archive, dataset.parent)
    assert (ended.code, ended.outcome["built"]) == (0, 9)
    assert_as_undisturbed(dataset, undisturbed)


@pytest.mark.slow
def test_a_run_restores_what_was_deleted_or_damaged_and_blesses_nothing(
    archive: SmallArchive, undisturbed: Path, dataset: Path
) -> None:
    cube = dataset / "cube.zarr"
    shutil.rmtree(cube / "scl" / "c")
    (cube / "x" / "c" / "0").unlink()
    (cube / "scl" / "zarr.json").unlink()
    (cube / "y" / "c" / "0").write_bytes(bytes((cube / "y" / "c" / "0").stat().st_size))
    ended = build_here(archive, dataset.parent)
    assert (ended.code, ended.outcome["built"]) == (0, 9)
    assert "restored metadata of small: scl/zarr.json, x/c/0, y/c/0" in ended.stderr
    assert_as_undisturbed(dataset, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scl/zarr.json", "x/c/0", "zarr.json", "overview/zarr.json"])
def test_damaged_metadata_of_a_finished_cube_are_restored(
    archive: SmallArchive, undisturbed: Path, dataset: Path, name: str
) -> None:
    path = dataset / "cube.zarr" / name
    path.write_bytes(path.read_bytes().replace(b"B04", b"B03").replace(b"uint8", b"uint4").replace(b"A", b"B"))
    assert run_here("sits-cube", "verify", dataset).code == 1
    ended = build_here(archive, dataset.parent)
    assert (ended.code, ended.outcome["built"]) == (0, 0)
    assert f"restored metadata of small: {name}\n" in ended.stderr
    assert_as_undisturbed(dataset, undisturbed)


@pytest.mark.slow
def test_damage_that_a_run_does_not_see_is_still_found_after_it(archive: SmallArchive, dataset: Path) -> None:
    """A flipped byte in a shard or a table: a run looks at sizes, and hashes nothing that it has not written."""
    for name in ("cube.zarr/quality/c/0/2/0", "parcels.parquet"):
        flip(dataset / name, 40)
    (dataset / "config.yaml").unlink()
    assert build_here(archive, dataset.parent).code == 0
    ended = run_here("sits-cube", "verify", dataset)
    assert ended.code == 1
    assert ended.stdout.startswith("cube.zarr/quality/c/0/2/0: ")


@pytest.mark.slow
def test_files_of_an_earlier_dataset_go_and_others_stay_and_are_named(
    archive: SmallArchive, undisturbed: Path, dataset: Path
) -> None:
    shutil.rmtree(dataset / "cube.zarr")
    (dataset / "notes.txt").write_text("mine")
    region = archive.folder / "without-parcels.yaml"
    region.write_text(yaml.safe_dump(region_document(parcels=None)))
    ended = run_here("sits-build", "--region", region, "--out", dataset.parent, "--cell", "512")
    assert ended.code == 0, ended.stderr
    assert not (dataset / "parcels.parquet").exists()
    assert (dataset / "notes.txt").read_text() == "mine"
    ended = run_here("sits-cube", "verify", dataset)
    assert (ended.code, ended.stdout.count("\n")) == (1, 1)
    assert ended.stdout.startswith("notes.txt: is not listed")


@pytest.mark.slow
def test_another_title_is_written_without_a_cell(archive: SmallArchive, undisturbed: Path, dataset: Path) -> None:
    region = archive.folder / "titled.yaml"
    region.write_text(yaml.safe_dump(region_document(title="Fields of the south")))
    ended = run_here("sits-build", "--region", region, "--out", dataset.parent, "--json")
    assert (ended.code, ended.outcome["built"]) == (0, 0)
    assert json.loads((dataset / "item.json").read_text())["properties"]["title"] == "Fields of the south"
    assert "Fields of the south" in (dataset / "config.yaml").read_text()
    assert promised(dataset) == promised(undisturbed)
    assert run_here("sits-cube", "verify", dataset).code == 0


@pytest.mark.slow
def test_a_cube_that_was_begun_without_a_cell_is_begun_anew_with_other_cells(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "out" / "small"
    process = start(command("sits-build", *build_arguments(archive, tmp_path / "out", "--cell", "1024")))
    wait_for(lambda: (dataset / "journal" / "000001.jsonl").exists())
    kill(process)
    shutil.rmtree(dataset / "journal")
    ended = build_here(archive, tmp_path / "out")
    assert (ended.code, ended.outcome["built"]) == (0, 9)
    assert_as_undisturbed(dataset, undisturbed)


@pytest.mark.slow
def test_a_finished_build_does_nothing_again(archive: SmallArchive, dataset: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    ended = build_here(archive, dataset.parent)
    assert (ended.code, ended.outcome["complete"], ended.outcome["built"]) == (0, True, 0)
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


# Disks that take no more; full and read-only ones are in test_disk_faults.py


@pytest.mark.slow
def test_a_file_that_may_not_grow_ends_the_build_with_one_sentence_and_costs_its_cell(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path
) -> None:
    """As a full disk does, without one: this process may write no file as large as the largest shard."""
    dataset = tmp_path / "out" / "small"
    largest = max(path.stat().st_size for path in undisturbed.rglob("*") if path.is_file())
    with files_of_at_most(largest - 1):
        ended = build_here(archive, tmp_path / "out")
    assert (ended.code, ended.stdout) == (1, "")
    assert f"error: {dataset} cannot be written: a file would be larger" in ended.stderr
    assert ended.stderr.endswith("run the same command again, which goes on where this one stopped\n")
    assert [path for path in dataset.rglob("*") if path.name.endswith(".partial")] == []
    done = len(cells_in_journal(dataset))
    assert done < 9
    assert run_here("sits-cube", "verify", dataset).code == 3
    again = build_here(archive, tmp_path / "out")
    assert (again.code, again.outcome["built"]) == (0, 9 - done)
    assert_as_undisturbed(dataset, undisturbed)


# Verify


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "cube.zarr/reflectance/c/0/0/1/1",
        "cube.zarr/quality/c/0/2/0",
        "cube.zarr/crop_type/c/0/1",
        "cube.zarr/overview/reflectance/c/0/0/0/0",
        "cube.zarr/x/c/0",
        "cube.zarr/zarr.json",
        "cube.zarr/reflectance/zarr.json",
        "cube.zarr/overview/zarr.json",
        "parcels.parquet",
        "chips.parquet",
        "sources.parquet",
        "config.yaml",
        "journal.jsonl",
        "item.json",
        "report.html",
    ],
)
def test_verify_names_a_file_of_which_one_byte_is_flipped(dataset: Path, name: str) -> None:
    path, rng = dataset / name, random.Random(name)
    for position in {0, *(rng.randrange(path.stat().st_size) for _ in range(4)), path.stat().st_size - 1}:
        flip(path, position)
        ended = run_here("sits-cube", "verify", dataset)
        assert ended.code == 1, f"byte {position}"
        assert ended.stdout.startswith(f"{name}: ") or f"\n{name}: " in ended.stdout
        flip(path, position)
    assert run_here("sits-cube", "verify", dataset).code == 0


@pytest.mark.slow
def test_verify_names_a_missing_shard_and_the_build_restores_it(
    archive: SmallArchive, undisturbed: Path, dataset: Path
) -> None:
    shard = "cube.zarr/reflectance/c/0/0/1/2"
    (dataset / shard).unlink()
    ended = run_here("sits-cube", "verify", dataset, "--json")
    assert ended.code == 1
    assert [finding["file"] for finding in json.loads(ended.stdout)] == [shard]
    again = build_here(archive, dataset.parent)
    assert (again.code, again.outcome["built"]) == (0, 1)
    assert_as_undisturbed(dataset, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chips.parquet", "parcels.parquet", "sources.parquet"])
def test_a_table_that_is_missing_is_named_and_written_again(
    archive: SmallArchive, undisturbed: Path, dataset: Path, name: str
) -> None:
    (dataset / name).unlink()
    ended = run_here("sits-cube", "verify", dataset)
    assert ended.code == 1
    assert ended.stdout.startswith(f"{name}: ")
    before = stamps(dataset)
    again: Ended = build_here(archive, dataset.parent)
    assert (again.code, again.outcome["built"]) == (0, 0)
    assert stamps(dataset) == before
    assert_as_undisturbed(dataset, undisturbed)


@pytest.mark.slow
def test_verify_names_a_file_that_does_not_belong_to_the_dataset(dataset: Path) -> None:
    (dataset / "cube.zarr" / "reflectance" / "c" / "0" / "0" / "9").mkdir()
    (dataset / "cube.zarr" / "reflectance" / "c" / "0" / "0" / "9" / "9").write_bytes(b"x")
    ended = run_here("sits-cube", "verify", dataset)
    assert ended.code == 1
    assert "cube.zarr/reflectance/c/0/0/9/9" in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.9", "1.1", "2.0"])
def test_each_command_says_that_another_version_wrote_a_cube(
    archive: SmallArchive, dataset: Path, tmp_path: Path, version: str
) -> None:
    """A cube of other rules is read by nobody; one of 1.1 has something new in it, which its readers may pass over."""
    root = dataset / "cube.zarr" / "zarr.json"
    document = json.loads(root.read_text())
    facts = document["attributes"]["sits_cube"]
    facts["version"] = version
    readable = version.startswith("1.")
    if not readable:
        facts["cells"] = "laid out in another way"
    root.write_text(json.dumps(document))
    verify = run_here("sits-cube", "verify", dataset)
    assert (verify.code, verify.stdout) == (
        1,
        f"cube.zarr/zarr.json: was written as sits-cube {version}; this program knows 1.0: use the matching release\n",
    )
    build = build_here(archive, dataset.parent)
    assert build.code == 2
    sentence = f"error: {dataset} was written as sits-cube {version}, this program writes 1.0; use the matching release"
    assert build.stderr.startswith(sentence), "said before anything is asked for"
    split = run_here("sits-cube", "split", dataset, "--seed", "3")
    assert split.code == 2
    assert f"error: {dataset} was written as sits-cube {version}" in split.stderr
    reads = f"error: {dataset} was written as sits-cube {version}, this program reads 1.0; use the matching release\n"
    for arguments in (["info", dataset], ["preview", dataset, "--out", tmp_path / "a.png"]):
        ended = run_here("sits-cube", *arguments)
        assert ended.code == (0 if readable else 2)
        assert ended.stderr == ("" if readable else reads)
        if arguments[0] == "info" and readable:
            assert "state    of a version that this program does not know (1.0)" in ended.stdout
    for arguments in (["export", "cog", dataset, "--out", tmp_path / "cog"],):
        ended = run_here("sits-cube", *arguments)
        assert ended.code == (0 if readable else 2)
        assert reads in ended.stderr or readable


@pytest.mark.slow
def test_a_dataset_that_was_moved_is_proved_read_and_taken_up_at_its_new_place(
    archive: SmallArchive, undisturbed: Path, dataset: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "small"
    moved.parent.mkdir()
    dataset.rename(moved)
    assert run_here("sits-cube", "verify", moved).code == 0
    assert "sits-cube 1.0, complete" in run_here("sits-cube", "info", moved).stdout
    again = build_here(archive, moved.parent)
    assert (again.code, again.outcome["built"], again.outcome["location"]) == (0, 0, str(moved))
    # Moved in mid-build, with a shard and the finish still to come.
    lines = (moved / "journal.jsonl").read_text().splitlines(keepends=True)
    (moved / "journal.jsonl").unlink()
    (moved / "journal").mkdir()
    (moved / "journal" / "000001.jsonl").write_text("".join(lines[:-2]))
    once_more = moved.rename(tmp_path / "once-more")
    (tmp_path / "out").mkdir(exist_ok=True)
    back = once_more.rename(tmp_path / "out" / "small")
    ended = build_here(archive, back.parent)
    assert (ended.code, ended.outcome["built"]) == (0, 1)
    assert_as_undisturbed(back, undisturbed)


@pytest.mark.slow
def test_verify_names_a_journal_of_another_state_of_the_cube(
    undisturbed: Path, archive: SmallArchive, dataset: Path, tmp_path: Path
) -> None:
    """The journal of a build that could not read a scene, put beside the complete cube."""
    asset = archive.asset("31TEJ", "2023-05-20", "B04")
    hidden = asset.rename(asset.with_suffix(".away"))
    try:
        assert build_here(archive, tmp_path / "other").code == 3
    finally:
        hidden.rename(asset)
    shutil.copy(tmp_path / "other" / "small" / "journal.jsonl", dataset / "journal.jsonl")
    ended = run_here("sits-cube", "verify", dataset)
    assert ended.code == 1
    assert "journal" in ended.stdout
