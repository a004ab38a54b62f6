"""A disk that is full, read-only or away for a while: one sentence, nothing torn, and the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.end_to_end.archives import (
    SmallArchive,
    build_arguments,
    cells_in_journal,
    command,
    environment,
    leftovers,
    promised,
    remote_archive,
    run,
    run_here,
    wait_for,
)
from tests.pipeline.sources.range_server import RangeServer

PAGE = 4096

needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount file systems; run it as root")


def bytes_of(dataset: Path, *, cells: bool) -> int:
    """What the cells' shards, or the files of the finish, take of a file system, in whole pages."""
    files = [path for path in dataset.rglob("*") if path.is_file()]
    shards = [path for path in files if (path.name.isdigit() and path.parent.parent.name != "cube.zarr")]
    chosen = shards if cells else [path for path in dataset.iterdir() if path.is_file()]
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in chosen)


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A file system of its own in memory."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(place: Path, how: str) -> bool:
    return (
        subprocess.run(["mount", "-o", f"remount,{how}", str(place)], capture_output=True, check=False).returncode == 0
    )


def assert_one_sentence(ended: subprocess.CompletedProcess[str], *says: str, code: int = 1) -> None:
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    (sentence,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    for part in says:
        assert part in sentence


def assert_ends_equal(archive: SmallArchive, undisturbed: Path, dataset: Path, *, built: int | None) -> None:
    """The same command, now that there is room."""
    ended = run("sits-build", *build_arguments(archive, dataset.parent))
    assert ended.returncode == 0, ended.stderr
    if built is not None:
        assert json.loads(ended.stdout)[0]["built"] == built
    assert promised(dataset) == promised(undisturbed)
    assert leftovers(dataset.parent) == []
    assert run_here("sits-cube", "verify", dataset).code == 0


# Full


@pytest.mark.soak
@needs_mounts
@pytest.mark.parametrize(
    ("moment", "room"),
    [("metadata", 0.0), ("first cell", 0.05), ("cells", 0.3), ("last cell", 0.95)],
)
def test_a_disk_that_is_full_while_cells_are_written(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path, moment: str, room: float
) -> None:
    with small_disk(tmp_path / "disk", max(PAGE, int(room * bytes_of(undisturbed, cells=True)))) as disk:
        dataset = disk / "out" / "small"
        started = time.monotonic()
        ended = run("sits-build", *build_arguments(archive, disk / "out"))
        assert_one_sentence(ended, f"{dataset} cannot be written: no space is left on its disk (", "MB are free)")
        assert "and this build writes about" in ended.stderr
        assert "tried again" not in ended.stderr
        done = len(cells_in_journal(dataset))
        print(f"{moment}: {done} of 9 cells, {time.monotonic() - started:.1f} s; {ended.stderr.splitlines()[-1]}")
        plan = run_here("sits-build", "--region", archive.region, "--out", disk / "out", "--plan")
        assert plan.code == 0
        assert remount(disk, "size=100M")
        assert_ends_equal(archive, undisturbed, dataset, built=9 - done)


@pytest.mark.soak
@needs_mounts
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 0.9])
def test_a_disk_that_is_full_while_the_build_is_finished(
    archive: SmallArchive, undisturbed: Path, unfinished: Path, tmp_path: Path, share: float
) -> None:
    """Filled by another program when the last cell is in the journal, but for a share of what finish writes."""
    with small_disk(tmp_path / "disk", 100 * 2**20) as disk:
        dataset = disk / "out" / "small"
        shutil.copytree(unfinished, dataset)
        left = int(share * bytes_of(undisturbed, cells=False))
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        with (disk / "other").open("wb") as file:
            file.write(bytes(free - left))
        ended = run("sits-build", *build_arguments(archive, disk / "out"))
        assert_one_sentence(ended, "cannot be written: no space is left on its disk (")
        print(f"{share}: {ended.stderr.splitlines()[-1]}")
        assert run_here("sits-cube", "verify", dataset).code == 3
        (disk / "other").unlink()
        assert_ends_equal(archive, undisturbed, dataset, built=0)


@pytest.mark.soak
@needs_mounts
@pytest.mark.parametrize("room", [16, 200])
def test_a_full_disk_of_the_cache_ends_the_build_and_no_scene_is_called_unread(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path, room: int
) -> None:
    """Room for so many pages: not for one block, or for those of some bands."""
    server = RangeServer(archive.folder)
    remote = remote_archive(archive, server.url, tmp_path / "remote")
    dataset = tmp_path / "out" / "small"
    with closing(server), small_disk(tmp_path / "disk", room * PAGE) as disk:
        arguments = build_arguments(remote, dataset.parent, "--cache", disk / "cache")
        ended = run("sits-build", *arguments)
        assert_one_sentence(
            ended, f"{disk / 'cache'} cannot be written: no space is left on its disk (", "run the same"
        )
        assert not dataset.exists() or cells_in_journal(dataset) == []
        assert remount(disk, "size=100M")
        ended = run("sits-build", *arguments)
    assert ended.returncode == 0, ended.stderr
    assert promised(dataset) == promised(undisturbed)


@pytest.mark.soak
@needs_mounts
def test_a_plan_says_that_the_room_does_not_suffice(archive: SmallArchive, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2**20) as disk:
        plan = run_here("sits-build", "--region", archive.region, "--out", disk / "out", "--plan")
        (line,) = [line for line in plan.stdout.splitlines() if line.startswith("  to write ")]
        assert line.endswith(f" GB, and {disk / 'out' / 'small'} has room for 0.00 GB")


# Read-only


@pytest.mark.soak
@needs_mounts
def test_a_disk_that_can_only_be_read_is_refused_before_anything_is_asked_for(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 100 * 2**20) as disk:
        assert remount(disk, "ro")
        ended = run("sits-build", *build_arguments(archive, disk / "out"))
        assert_one_sentence(ended, f"{disk / 'out'} cannot be written ({disk} may only be read)", code=2)
        assert "auditing" not in ended.stderr
        # What is there can be looked at.
        assert remount(disk, "rw")
        shutil.copytree(undisturbed, disk / "out" / "small")
        assert remount(disk, "ro")
        assert run_here("sits-cube", "verify", disk / "out" / "small").code == 0
        assert run_here("sits-cube", "info", disk / "out" / "small").code == 0
        plan = run_here("sits-build", "--region", archive.region, "--out", disk / "out", "--plan")
        assert "this dataset is complete there" in plan.stdout


def as_others(arguments: list[str]) -> list[str]:
    """A command for which the permissions of files count, as they do not for root."""
    if os.geteuid() != 0:
        return arguments
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to take that away")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *arguments]


def start_as_others(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        as_others(arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end_of(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    stdout, stderr = process.communicate(timeout=120)
    return subprocess.CompletedProcess([], process.returncode, stdout, stderr)


@contextmanager
def read_only(top: Path) -> Iterator[None]:
    """Folders into which nothing can be written."""
    folders = [top, *(path for path in top.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.soak
def test_a_folder_that_may_not_be_written_is_refused_before_anything_is_asked_for(
    archive: SmallArchive, tmp_path: Path
) -> None:
    with read_only(tmp_path):
        ended = end_of(start_as_others(command("sits-build", *build_arguments(archive, tmp_path / "out"))))
    assert_one_sentence(ended, f"{tmp_path / 'out'} cannot be written ({tmp_path} may only be read)", code=2)
    assert ended.stderr.count("\n") == 1


@pytest.mark.soak
def test_a_folder_that_becomes_read_only_in_mid_build_ends_it_with_one_sentence(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "out" / "small"
    process = start_as_others(command("sits-build", *build_arguments(archive, tmp_path / "out")))
    wait_for(lambda: len(cells_in_journal(dataset)) >= 2 or process.poll() is not None)
    with read_only(dataset):
        ended = end_of(process)
    assert_one_sentence(ended, f"{dataset} cannot be written: this user may not write there; change that")
    assert "tried again" not in ended.stderr
    # The line of a cell that was done just then may still stand in the journal, which was open.
    done = len(cells_in_journal(dataset))
    assert 2 <= done < 9
    assert_ends_equal(archive, undisturbed, dataset, built=9 - done)
