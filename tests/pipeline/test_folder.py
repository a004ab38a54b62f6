from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest
from tests.services.file_size import files_of_at_most
from tests.services.moto import BUCKET, KEY, SECRET, Moto, forget_stores, free_port, moto_server

from sits_pipeline.folder import PART_BYTES, CannotWrite, Folder, storage_options
from sits_pipeline.folder import lock as locks
from sits_pipeline.folder.lock import Holder, is_over
from sits_pipeline.journal import Journal, read_journal


@pytest.fixture(scope="module")
def store() -> Iterator[Moto]:
    """An S3 store that the environment of these tests names."""
    with moto_server() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment().items():
            patch.setenv(name, value)
        forget_stores()
        yield store


@pytest.fixture
def bucket(store: Moto) -> Folder:
    """An empty folder in it."""
    return Folder(f"s3://{BUCKET}/{uuid.uuid4().hex}/data")


@pytest.fixture(params=["local", "file-url", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    """An empty folder of each kind."""
    if request.param == "local":
        yield Folder(str(tmp_path / "data"))
    elif request.param == "s3":
        yield request.getfixturevalue("bucket")
    elif request.param == "file-url":
        yield Folder(f"file://{tmp_path / 'data'}")
    else:
        name = f"test-{uuid.uuid4().hex}"
        yield Folder(f"memory://{name}")
        memory = fsspec.filesystem("memory")
        if memory.exists(f"/{name}"):
            memory.rm(f"/{name}", recursive=True)


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


def test_sizes_of_all_files_come_at_once(folder: Folder) -> None:
    for name, data in {"b": b"12", "a/c": b"", "a/d": b"123"}.items():
        folder.write(name, data)
    assert list(folder.sizes().items()) == [("a/c", 0), ("a/d", 3), ("b", 2)]
    assert folder.sizes("a") == {"a/c": 0, "a/d": 3}
    assert folder.sizes("b") == {"b": 2}
    assert folder.size("a") is None or folder.is_local  # a folder has no size of its own


def test_a_file_is_read_in_parts_of_a_known_size(folder: Folder) -> None:
    data = os.urandom(1000) * (PART_BYTES // 1000 + 1)
    folder.write("large", data)
    folder.write("empty", b"")
    parts = list(folder.read_parts("large", size=len(data)))
    assert [len(part) for part in parts] == [PART_BYTES, len(data) - PART_BYTES]
    assert b"".join(parts) == data
    assert b"".join(folder.read_parts("empty", size=0)) == b""
    with pytest.raises(FileNotFoundError):
        list(folder.read_parts("none", size=5))


def test_a_file_that_comes_in_parts_is_written_whole(folder: Folder) -> None:
    folder.write_parts("a", (bytes([digit]) * 3 for digit in range(3)))
    folder.write_parts("none", ())
    assert folder.read("a") == b"\0\0\0\1\1\1\2\2\2"
    assert folder.read("none") == b""


def test_parts_that_fail_leave_the_old_file(folder: Folder) -> None:
    def broken() -> Iterator[bytes]:
        yield b"new"
        raise ValueError("no more")

    folder.write("a", b"old")
    with pytest.raises(ValueError, match="no more"):
        folder.write_parts("a", broken())
    assert folder.read("a") == b"old"
    assert list(folder.files()) == ["a"]


def test_a_file_is_created_once(folder: Folder) -> None:
    folder.create("a", b"1")
    with pytest.raises(FileExistsError, match="is there already"):
        folder.create("a", b"2")
    assert folder.read("a") == b"1"


def test_checking_a_folder_leaves_nothing_behind(folder: Folder) -> None:
    folder.check()
    folder.check_writable()
    assert list(folder.files()) == []


# Local folders


def test_a_write_that_fails_leaves_the_old_file_and_no_leftover(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    local.write("a.bin", b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space is left on its disk"):
        local.write("a.bin", b"new")
    assert local.read("a.bin") == b"old"
    assert list(local.files()) == ["a.bin"]


def test_a_disk_that_takes_no_more_leaves_the_old_file_and_says_one_sentence(local: Folder) -> None:
    local.write("a.txt", b"old")
    with files_of_at_most(4096), pytest.raises(CannotWrite) as refused:
        local.write("a.txt", bytes(10_000))
    assert str(refused.value) == (
        f"{local.path} cannot be written: a file would be larger than its disk or this process's limit (`ulimit -f`) "
        "allows; change that and run the same command again, which goes on where this one stopped"
    )
    assert local.read("a.txt") == b"old"
    assert list(local.files()) == ["a.txt"]
    assert pickle.loads(pickle.dumps(refused.value)).args == refused.value.args


def test_a_journal_line_that_did_not_fit_is_torn_and_costs_itself_alone(local: Folder) -> None:
    journal = Journal(local)
    journal.append({"kind": "cell", "cell": 1})
    with files_of_at_most(4096), pytest.raises(CannotWrite, match="cannot be written"):
        journal.append({"kind": "cell", "cell": 2, "text": "x" * 10_000})
    assert local.size("journal/000001.jsonl") == 4096
    assert list(read_journal(local)) == [{"kind": "cell", "cell": 1}]
    journal.flush()
    again = Journal(local)
    again.append({"kind": "cell", "cell": 2})
    again.flush()
    assert [entry["cell"] for entry in read_journal(local)] == [1, 2]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, r"no space is left on its disk \([0-9.]+ of [0-9]+ MB are free\); change that"),
        (errno.EDQUOT, "this user's quota on its disk is used up; change that"),
        (errno.EROFS, "its disk can only be read; change that"),
        (errno.EACCES, "this user may not write there; change that"),
    ],
)
def test_what_a_disk_refuses_is_said_with_its_folder(local: Folder, code: int, says: str) -> None:
    with pytest.raises(CannotWrite, match=f"^{re.escape(str(local.path))} cannot be written: {says}"), local.writing():
        raise OSError(code, "as the system says it")


def test_other_errors_of_a_disk_go_through_as_they_are(local: Folder) -> None:
    with pytest.raises(OSError, match="as the system says it") as raised, local.writing():
        raise OSError(errno.EIO, "as the system says it")
    assert not isinstance(raised.value, CannotWrite)


def test_the_room_of_a_folder_is_that_of_its_disk_before_it_is_there(local: Folder) -> None:
    free = local.sub("not/yet/there").free_bytes()
    assert free is not None
    assert 0 <= free <= shutil.disk_usage(local.path.parent.parent).total
    assert Folder("memory://a").free_bytes() is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused_and_nothing_is_tried(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match=rf"cannot be written \({tmp_path} may only be read\)"):
            Folder(str(tmp_path / "a")).check_writable()
    finally:
        tmp_path.chmod(0o755)


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


# S3 stores


def test_listings_are_not_remembered_since_other_processes_write_too(bucket: Folder, store: Moto) -> None:
    assert list(bucket.files()) == []
    store.write(f"{bucket.location.removeprefix(f's3://{BUCKET}/')}/a", b"1")
    assert list(bucket.files()) == ["a"]
    assert storage_options(bucket.location)["use_listings_cache"] is False


def prefix_of(folder: Folder) -> str:
    return folder.location.removeprefix(f"s3://{BUCKET}/")


def test_a_mark_of_a_folder_is_no_file(bucket: Folder, store: Moto) -> None:
    bucket.write("a/b", b"1")
    for mark in ("", "a/"):
        store.write(f"{prefix_of(bucket)}/{mark}", b"")
    assert list(bucket.files()) == ["a/b"]


def test_an_upload_in_parts_that_was_never_completed_is_aborted(bucket: Folder, store: Moto) -> None:
    client = store.client()
    mine = client.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix_of(bucket)}/cube.zarr/c/0")
    other = client.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix_of(bucket)}-other/c/0")
    bucket.remove_partials()
    left = [found["UploadId"] for found in client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]]
    assert other["UploadId"] in left
    assert mine["UploadId"] not in left
    client.abort_multipart_upload(Bucket=BUCKET, Key=f"{prefix_of(bucket)}-other/c/0", UploadId=other["UploadId"])


@pytest.mark.slow
def test_a_large_file_is_uploaded_in_parts_and_appears_whole(bucket: Folder, store: Moto) -> None:
    block = os.urandom(2**20)
    bucket.write_parts("large", (block for _ in range(120)))
    assert bucket.size("large") == 120 * 2**20
    assert store.client().head_object(Bucket=BUCKET, Key=f"{prefix_of(bucket)}/large")["ETag"].endswith('-3"')
    assert store.read(f"{prefix_of(bucket)}/large")[-(2**20) :] == block


@pytest.mark.parametrize(
    ("location", "kind", "said"),
    [
        ("s3://no-such-bucket/x", FileNotFoundError, "s3://no-such-bucket/x: the store has no bucket no-such-bucket"),
        ("s3:///x", ValueError, "s3:///x is no address of a bucket; it is written s3://bucket/prefix"),
        ("s3://Not_A_Bucket!/x", ValueError, "is no address of a bucket"),
    ],
)
def test_a_wrong_address_is_one_sentence(store: Moto, location: str, kind: type[Exception], said: str) -> None:
    for use in (Folder.check, Folder.check_writable):
        with pytest.raises(kind) as raised:
            use(Folder(location))
        assert said in str(raised.value)
        assert raised.value.__suppress_context__


@pytest.mark.parametrize("location", [f"s3://{KEY}:{SECRET}@cubes/x", f"s3://cubes/x?key={SECRET}", "gs://me:pw@b/x"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(location: str) -> None:
    with pytest.raises(ValueError, match="an address of a dataset has no user, password or query") as raised:
        Folder(location)
    assert SECRET not in str(raised.value)
    assert "pw" not in str(raised.value)


@pytest.mark.slow
def test_where_nobody_answers_the_address_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    program = "from sits_pipeline.folder import Folder; Folder('s3://cubes/x').{}"
    given = {**os.environ, **Moto(url).environment(), "AWS_MAX_ATTEMPTS": "1"}
    for call, kind in (("check()", "ValueError"), ("read('a')", "ConnectionError")):
        command = [sys.executable, "-c", program.format(call)]
        ended = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
        last = ended.stderr.splitlines()[-1]
        assert (
            last
            == f"{kind}: s3://cubes/x: no store answers at {url}; check AWS_ENDPOINT_URL and the network, try again"
        )
        assert "botocore" not in ended.stderr


def test_an_address_of_no_file_system_is_named() -> None:
    with pytest.raises(ValueError, match=r"^nothing://x/y cannot be written \(.*\); check the address of --out$"):
        Folder("nothing://x/y").check_writable()


# Locks


def test_a_local_lock_is_held_once_and_goes_with_its_holder(local: Folder) -> None:
    said = f"another build is writing {local.location}/a; wait for it, or choose another --out"
    with local.lock("a"), local.lock("b"), pytest.raises(BlockingIOError) as raised, local.lock("a"):
        pass
    assert str(raised.value) == said
    assert list(local.files()) == []


def test_a_lock_in_a_store_says_who_holds_it_and_goes_with_its_holder(bucket: Folder) -> None:
    with bucket.lock("a"), bucket.lock("b"):
        assert json.loads(bucket.read("a.lock"))["pid"] == str(os.getpid())
        with pytest.raises(BlockingIOError) as raised, bucket.lock("a"):
            pass
    assert str(raised.value).startswith(f"another build is writing {bucket.location}/a (host ")
    assert f"process {os.getpid()}, seen " in str(raised.value)
    assert str(raised.value).endswith(" s ago); wait for it, or choose another --out")
    assert list(bucket.files()) == []


def leave_lock(store: Moto, folder: Folder, holder: Holder | None) -> None:
    metadata = {} if holder is None else holder.as_metadata()
    store.client().put_object(Bucket=BUCKET, Key=f"{prefix_of(folder)}/a.lock", Metadata=metadata)


def ended_process() -> Holder:
    """A holder that was a process of this machine."""
    program = (
        "from sits_pipeline.folder.lock import Holder; import json; print(json.dumps(Holder.here().as_metadata()))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    holder = Holder.of_metadata(json.loads(said))
    assert holder is not None
    return holder


def test_a_lock_of_a_process_of_this_machine_that_is_gone_is_taken_over_at_once(bucket: Folder, store: Moto) -> None:
    leave_lock(store, bucket, ended_process())
    with bucket.lock("a"):
        assert json.loads(bucket.read("a.lock"))["pid"] == str(os.getpid())
    assert list(bucket.files()) == []


def test_a_lock_of_another_machine_is_taken_over_when_its_lease_is_over(
    bucket: Folder, store: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_lock(store, bucket, dataclasses.replace(ended_process(), host="far-away", machine="another"))
    with pytest.raises(BlockingIOError, match=r"\(host far-away, process \d+, seen \d+ s ago\)"), bucket.lock("a"):
        pass
    monkeypatch.setattr(locks, "LEASE_S", -1.0)
    with bucket.lock("a"):
        assert json.loads(bucket.read("a.lock"))["host"] != "far-away"


def test_a_lock_that_names_no_holder_is_held_until_its_lease_is_over(bucket: Folder, store: Moto) -> None:
    leave_lock(store, bucket, None)
    with pytest.raises(BlockingIOError, match="another build is writing"), bucket.lock("a"):
        pass


def test_a_lease_is_over_after_90_s_or_with_its_process() -> None:
    mine = Holder.here()
    assert not is_over(mine, timedelta(seconds=90))
    assert is_over(mine, timedelta(seconds=91))
    assert not is_over(None, timedelta(seconds=90))
    assert is_over(None, timedelta(seconds=91))
    assert is_over(ended_process(), timedelta(0))
    # Another start of the same id on this machine, and the same id elsewhere.
    assert is_over(dataclasses.replace(mine, started="1"), timedelta(0))
    assert not is_over(dataclasses.replace(mine, started="1", machine="another"), timedelta(0))


def test_a_lock_is_renewed_while_it_is_held(bucket: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.02)
    with bucket.lock("a"):
        first = bucket.read("a.lock")
        for _ in range(500):
            if bucket.read("a.lock") != first:
                break
            threading.Event().wait(0.02)
        again = json.loads(bucket.read("a.lock"))
        assert again["renewed"] > json.loads(first)["renewed"]
        assert again["token"] == json.loads(first)["token"]


def test_a_lock_that_was_lost_is_told_and_left_to_its_new_holder(
    bucket: Folder, store: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.02)
    other = dataclasses.replace(Holder.here(), host="far-away", machine="another", token="other")

    def hold() -> None:
        with bucket.lock("a"):
            leave_lock(store, bucket, other)
            for _ in range(500):
                if not any(thread.name == "lease" for thread in threading.enumerate()):
                    return
                threading.Event().wait(0.02)

    with pytest.raises(RuntimeError, match="it took over while this one could not reach the store"):
        hold()
    head = store.client().head_object(Bucket=BUCKET, Key=f"{prefix_of(bucket)}/a.lock")
    assert head["Metadata"]["host"] == "far-away"


def test_a_build_that_has_lost_its_lock_writes_no_more_of_its_journal(bucket: Folder, store: Moto) -> None:
    """As after a machine that slept: the thread that renews has not noticed yet."""
    dataset = bucket.sub("a-32631")
    other = dataclasses.replace(Holder.here(), host="far-away", machine="another", token="other")

    def go_on() -> None:
        with bucket.lock("b"), bucket.lock("a"):
            journal = Journal(dataset)
            journal.append({"kind": "plan"})
            journal.flush()
            leave_lock(store, bucket, other)
            journal.append({"kind": "cell"})
            # Another dataset of this process is not concerned.
            Journal(bucket.sub("b")).flush()
            for write in (journal.flush, lambda: journal.merge([b"{}\n"])):
                with pytest.raises(BlockingIOError, match=r"/a: it took over while .*; nothing more was written"):
                    write()
            journal.flush()

    with pytest.raises(BlockingIOError, match="nothing more was written"):
        go_on()
    assert list(dataset.files()) == ["journal/000001.jsonl"]
    assert (
        store.client().head_object(Bucket=BUCKET, Key=f"{prefix_of(bucket)}/a.lock")["Metadata"]["host"] == "far-away"
    )


def test_of_two_that_come_at_once_one_gets_the_lock(bucket: Folder) -> None:
    start, held, refused = threading.Barrier(6), [], []
    done = threading.Barrier(6)

    def take() -> None:
        folder = Folder(bucket.location)
        start.wait()
        try:
            with folder.lock("a"):
                held.append(1)
                done.wait(60)
        except BlockingIOError:
            refused.append(1)
            done.wait(60)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)
