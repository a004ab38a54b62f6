from __future__ import annotations

import os
import pickle
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from sits_pipeline.folder import Folder


@pytest.fixture(params=["local", "file-url", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    """An empty folder of each kind."""
    if request.param == "local":
        yield Folder(str(tmp_path / "data"))
    elif request.param == "file-url":
        yield Folder(f"file://{tmp_path / 'data'}")
    else:
        name = f"test-{uuid.uuid4().hex}"
        yield Folder(f"memory://{name}")
        memory = fsspec.filesystem("memory")
        if memory.exists(f"/{name}"):
            memory.rm(f"/{name}", recursive=True)


@pytest.fixture
def local(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "data"))


# One contract for every kind of folder


def test_what_is_written_is_read_back(folder: Folder) -> None:
    folder.write("a.bin", b"one")
    folder.write("deep/er/b.bin", b"")
    assert folder.read("a.bin") == b"one"
    assert folder.read("deep/er/b.bin") == b""


def test_writing_again_replaces_the_file(folder: Folder) -> None:
    folder.write("a.bin", b"a long first version")
    folder.write("a.bin", b"short")
    assert folder.read("a.bin") == b"short"
    assert list(folder.files()) == ["a.bin"]


def test_a_missing_file_has_no_size_does_not_exist_and_cannot_be_read(folder: Folder) -> None:
    assert not folder.exists("a.bin")
    assert folder.size("a.bin") is None
    with pytest.raises(FileNotFoundError):
        folder.read("a.bin")


def test_sizes_are_in_bytes(folder: Folder) -> None:
    folder.write("a.bin", b"12345")
    assert folder.exists("a.bin")
    assert folder.size("a.bin") == 5


def test_removing_is_harmless_when_repeated(folder: Folder) -> None:
    folder.write("a.bin", b"1")
    folder.remove("a.bin")
    folder.remove("a.bin")
    assert not folder.exists("a.bin")


def test_files_are_listed_relative_to_the_folder_and_sorted(folder: Folder) -> None:
    for name in ("b", "journal/000002.jsonl", "journal/000001.jsonl", "a/c/d"):
        folder.write(name, b"x")
    assert list(folder.files()) == ["a/c/d", "b", "journal/000001.jsonl", "journal/000002.jsonl"]
    assert list(folder.files("journal")) == ["journal/000001.jsonl", "journal/000002.jsonl"]


def test_a_folder_that_is_not_there_has_no_files(folder: Folder) -> None:
    assert list(folder.files()) == []
    assert list(folder.files("journal")) == []


def test_a_folder_inside_shares_the_files(folder: Folder) -> None:
    folder.sub("inner").write("a", b"1")
    assert folder.read("inner/a") == b"1"
    assert list(folder.sub("inner").files()) == ["a"]


def test_a_folder_travels_to_another_process_as_its_location(folder: Folder) -> None:
    folder.write("a", b"1")
    copy = pickle.loads(pickle.dumps(folder))
    assert copy == folder
    assert copy.read("a") == b"1"
    assert len(pickle.dumps(folder)) < 300


# Local folders


def test_a_write_that_fails_leaves_the_old_file_and_no_leftover(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    local.write("a.bin", b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        local.write("a.bin", b"new")
    assert local.read("a.bin") == b"old"
    assert list(local.files()) == ["a.bin"]


def test_a_reader_sees_the_old_or_the_new_bytes_and_nothing_between(local: Folder) -> None:
    versions = [bytes([digit]) * 200_000 for digit in (1, 2)]
    local.write("a.bin", versions[0])
    stop = threading.Event()

    def write() -> None:
        for turn in range(1, 40):
            local.write("a.bin", versions[turn % 2])
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not stop.is_set():
        seen.add(local.read("a.bin"))
    writer.join()
    assert seen <= set(versions)


def test_partial_files_of_a_killed_writer_are_removed_at_any_depth(local: Folder) -> None:
    local.write("kept", b"1")
    for name in ("a.partial", "cube.zarr/scl/c/0/0.4f2.partial"):
        path = local.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    local.remove_partials()
    assert list(local.files()) == ["kept"]


def test_removing_partial_files_where_there_is_nothing_is_harmless(local: Folder) -> None:
    local.remove_partials()


# Other folders


def test_a_url_has_no_local_path() -> None:
    with pytest.raises(ValueError, match="a local folder is needed here, got memory://x"):
        _ = Folder("memory://x").path


def test_a_trailing_slash_of_a_url_makes_no_difference() -> None:
    name = uuid.uuid4().hex
    Folder(f"memory://{name}/").write("a", b"1")
    assert Folder(f"memory://{name}").read("a") == b"1"
    assert list(Folder(f"memory://{name}/").files()) == ["a"]
    assert Folder(f"memory://{name}/").sub("b").location == f"memory://{name}/b"


def test_listings_are_not_remembered_since_other_processes_write_too() -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed; only stores that keep listings need this")
    folder = Folder("s3://bucket/prefix")
    assert folder._fs.dircache.use_listings_cache is False
