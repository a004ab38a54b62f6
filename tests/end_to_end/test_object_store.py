"""A build into an S3 store, moto_server as a process: killed, taken up, doubled, damaged, disturbed, read, refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
import zarr
from rasterio.warp import transform_bounds
from tests.end_to_end.archives import (
    EPSG,
    INSET_M,
    LEFT,
    TOP,
    Ended,
    SmallArchive,
    build_here,
    command,
    environment,
    kill,
    promised,
    region_document,
    run,
    run_here,
    wait_for,
    write_small_archive,
)
from tests.end_to_end.readers import over_http, with_tensorstore, with_zarrs, zarrs_pipeline
from tests.services.fault_proxy import FaultProxy
from tests.services.moto import BUCKET, KEY, REGION, SECRET, Moto, forget_stores, free_port, moto_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> SmallArchive:
    """Four cells of it and two of its dates: a store is asked for each object by itself."""
    archive = write_small_archive(tmp_path_factory.mktemp("archive"))
    corner = (LEFT + INSET_M, TOP - 5_600, LEFT + 5_600, TOP - INSET_M)
    bbox = [round(v, 6) for v in transform_bounds(f"EPSG:{EPSG}", "EPSG:4326", *corner)]
    document = region_document(place={"bbox": bbox}, season={"start": "2023-04-01", "end": "2023-05-10"})
    archive.region.write_text(yaml.safe_dump(document, sort_keys=False))
    return archive


@pytest.fixture(scope="module")
def local(archive: SmallArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset as it is on a disk."""
    out = tmp_path_factory.mktemp("local")
    ended = build_here(archive, out)
    assert (ended.code, ended.outcome["built"]) == (0, 4), ended.stderr
    return out / "small"


@pytest.fixture(scope="module")
def store() -> Iterator[Moto]:
    with moto_server() as store:
        yield store


@dataclass(frozen=True)
class InStore:
    """A dataset in the store."""

    store: Moto
    prefix: str

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}"

    @property
    def keys(self) -> list[str]:
        """Names inside of the prefix."""
        return [key.removeprefix(f"{self.prefix}/") for key in self.store.keys(f"{self.prefix}/")]

    @property
    def promised(self) -> dict[str, str]:
        """SHA-256 of what `archives.promised` lists of a local dataset."""
        names = [name.removeprefix("small/") for name in self.keys]
        kept = [name for name in names if name.startswith("cube.zarr/") or name in ("parcels.parquet", "chips.parquet")]
        return {name: hashlib.sha256(self.read(f"small/{name}")).hexdigest() for name in kept}

    def read(self, name: str) -> bytes:
        return self.store.read(f"{self.prefix}/{name}")


def arguments(archive: SmallArchive, url: str, *more: str) -> list[str]:
    return ["--region", str(archive.region), "--out", url, "--cell", "512", "--workers", "2", "--json", *more]


@contextmanager
def started(
    archive: SmallArchive, there: InStore, endpoint: str, *, stderr: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """A build that goes on, until the end of the context at most."""
    process = subprocess.Popen(
        command("sits-build", *arguments(archive, there.url)),
        env={**environment(), **there.store.environment(), "AWS_ENDPOINT_URL": endpoint},
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )
    try:
        yield process
    finally:
        kill(process)


@dataclass
class Held:
    """Refuses requests for one object, as long as it is closed: a build stands still there and tries again."""

    name: str
    passed: int = 0
    """Requests for it that come through first."""
    closed: bool = True

    def __call__(self, path: str) -> str | None:
        if not self.closed or not path.endswith(f"/small/{self.name}"):
            return None
        self.passed -= 1
        return "503" if self.passed < 0 else None

    @property
    def is_reached(self) -> bool:
        """Whether it has refused one."""
        return self.passed < 0


def build(archive: SmallArchive, there: InStore, *more: str) -> Ended:
    return run_with(there.store.environment(), "sits-build", *arguments(archive, there.url, *more))


def cube(there: InStore, verb: str, *more: str) -> Ended:
    return run_with(there.store.environment(), "sits-cube", verb, f"{there.url}/small", *more)


def run_with(variables: Mapping[str, str], name: str, *words: object) -> Ended:
    """Run a command in this process with these variables; the next one finds nothing that this one has opened."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in variables.items():
            patch.setenv(key, value)
        try:
            return run_here(name, *words)
        finally:
            forget_stores()


def assert_as_local(there: InStore, local: Path) -> None:
    assert there.promised == promised(local)
    # Nothing else: no lock, no segment of the journal.
    files = sorted(str(path.relative_to(local)) for path in local.rglob("*") if path.is_file())
    assert sorted(there.keys) == [f"small/{name}" for name in files]
    assert there.store.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
    ended = cube(there, "verify")
    assert (ended.code, ended.stdout) == (0, f"{there.url}/small: every file is as it was written\n")


@pytest.fixture(scope="module")
def finished(archive: SmallArchive, store: Moto) -> InStore:
    """A finished dataset that tests only read."""
    there = InStore(store, "finished")
    ended = run("sits-build", *arguments(archive, there.url), **store.environment())
    assert ended.returncode == 0, ended.stderr
    return there


@pytest.fixture
def damaged(finished: InStore, request: pytest.FixtureRequest) -> InStore:
    """A copy of it, for tests that damage it."""
    there, client = InStore(finished.store, f"copy-{request.node.name}"), finished.store.client()
    for key in finished.keys:
        source = {"Bucket": BUCKET, "Key": f"{finished.prefix}/{key}"}
        client.copy_object(Bucket=BUCKET, Key=f"{there.prefix}/{key}", CopySource=source)
    return there


# Killed and taken up


MOMENTS = {
    "creating": ("cube.zarr/y/zarr.json", 0),
    "cells": ("cube.zarr/quality/c/0/1/1", 0),
    "finishing": ("item.json", 1),
}
"""The object before which a build is killed, and how many requests for it come earlier: a creation removes it."""


@pytest.mark.parametrize(
    "moment", ["cells", *(pytest.param(moment, marks=pytest.mark.soak) for moment in ("creating", "finishing"))]
)
def test_a_killed_build_is_taken_up_equals_a_local_one_and_shows_no_secret(
    archive: SmallArchive, store: Moto, local: Path, moment: str
) -> None:
    """No object, the lock included, and no output of a build holds a key, not even with --debug."""
    there, held = InStore(store, moment), Held(*MOMENTS[moment])
    with (
        FaultProxy(store.url, rates={}, seed=1, always=held) as proxy,
        started(archive, there, proxy.url) as process,
    ):
        wait_for(lambda: held.is_reached or process.poll() is not None, seconds=150)
        assert kill(process)
    keys = there.keys
    assert "small/cube.zarr/zarr.json" in keys
    assert ("small/chips.parquet" in keys) is (moment == "finishing")
    assert not {f"small/{held.name}", "small/journal.jsonl"} & set(keys)
    # What the killed one held is taken over at once, since its process is gone from this machine.
    lock = there.read("small.lock")
    assert json.loads(lock)["pid"] == str(process.pid)
    ended = build(archive, there, "--debug")
    assert ended.code == 0, ended.stderr
    assert_as_local(there, local)
    said = [ended.stdout.encode(), ended.stderr.encode(), lock, *(there.read(key) for key in there.keys)]
    for secret in (KEY, SECRET):
        assert not any(secret.encode() in text for text in said)


@pytest.mark.soak
def test_worker_processes_write_into_a_store_as_well(archive: SmallArchive, store: Moto, local: Path) -> None:
    there = InStore(store, "processes")
    ended = build(archive, there, "--kind", "processes")
    assert ended.code == 0, ended.stderr
    assert_as_local(there, local)


def test_a_second_build_is_refused_while_the_first_goes_on(archive: SmallArchive, store: Moto, local: Path) -> None:
    there, held = InStore(store, "doubled"), Held(*MOMENTS["cells"])
    with (
        FaultProxy(store.url, rates={}, seed=1, always=held) as proxy,
        started(archive, there, proxy.url) as first,
    ):
        wait_for(lambda: held.is_reached or first.poll() is not None, seconds=150)
        second = build(archive, there)
        held.closed = False
        assert second.code == 2
        assert f"error: another build is writing {there.url}/small (host " in second.stderr
        assert f"process {first.pid}, " in second.stderr
        assert "; wait for it, or choose another --out\n" in second.stderr
        assert first.wait(120) == 0
    assert_as_local(there, local)


def test_a_build_that_has_lost_its_lock_stops_and_leaves_the_dataset_to_its_new_holder(
    archive: SmallArchive, store: Moto
) -> None:
    """As after a machine that slept for longer than its lease, and wakes up."""
    there, held = InStore(store, "lost"), Held(*MOMENTS["cells"])
    with (
        FaultProxy(store.url, rates={}, seed=1, always=held) as proxy,
        started(archive, there, proxy.url, stderr=subprocess.PIPE) as process,
    ):
        wait_for(lambda: held.is_reached or process.poll() is not None, seconds=150)
        lock = {"host": "far-away", "machine": "another", "pid": "1", "started": "1", "token": "other"}
        store.client().put_object(Bucket=BUCKET, Key=f"{there.prefix}/small.lock", Metadata=lock)
        held.closed = False
        _, said = process.communicate(timeout=150)
        assert process.returncode == 2
    assert f"error: another build is writing {there.url}/small: it took over" in said.decode()
    assert "small.lock" in there.keys
    assert not {"small/journal.jsonl", "small/item.json", "small/report.html"} & set(there.keys)


@pytest.mark.soak
def test_a_store_that_fails_now_and_then_is_asked_again(archive: SmallArchive, store: Moto, local: Path) -> None:
    """2 % each of refusals, cut connections, pauses and cut bodies."""
    there, rates = InStore(store, "disturbed"), {"503": 0.02, "reset": 0.02, "slow": 0.02, "truncated": 0.02}
    with FaultProxy(store.url, rates=rates, seed=2) as proxy:
        disturbed = {**store.environment(), "AWS_ENDPOINT_URL": proxy.url}
        ended = run("sits-build", *arguments(archive, there.url), timeout=280, **disturbed)
        assert ended.returncode == 0, ended.stderr
        assert {fault for fault, times in proxy.injected.items() if times} == set(rates)
    assert_as_local(there, local)


def test_a_finished_build_does_nothing_again(archive: SmallArchive, finished: InStore) -> None:
    listed = finished.store.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{finished.prefix}/")["Contents"]
    ended = build(archive, finished)
    assert (ended.code, ended.outcome["built"]) == (0, 0)
    assert finished.store.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{finished.prefix}/")["Contents"] == listed


# Proved


def test_verify_names_a_flipped_and_a_deleted_object_and_the_build_restores_the_deleted(
    archive: SmallArchive, damaged: InStore, local: Path
) -> None:
    flipped, deleted = "cube.zarr/reflectance/c/0/0/1/1", "cube.zarr/quality/c/0/1/0"
    data = bytearray(damaged.read(f"small/{flipped}"))
    data[len(data) // 2] ^= 0x10
    damaged.store.write(f"{damaged.prefix}/small/{flipped}", bytes(data))
    damaged.store.client().delete_object(Bucket=BUCKET, Key=f"{damaged.prefix}/small/{deleted}")
    ended = cube(damaged, "verify", "--json")
    assert ended.code == 1
    assert {found["file"]: found["what"] for found in json.loads(ended.stdout)} == {
        flipped: "shard is damaged: its SHA-256 is not the one in the journal",
        deleted: "shard is missing",
    }
    again = build(archive, damaged)
    assert (again.code, again.outcome["built"]) == (0, 1)
    assert damaged.promised[deleted] == promised(local)[deleted]


def test_verify_names_an_object_that_does_not_belong_to_the_dataset(damaged: InStore) -> None:
    damaged.store.write(f"{damaged.prefix}/small/notes.txt", b"mine")
    damaged.store.write(f"{damaged.prefix}/small/", b"")  # a browser's mark for a folder
    ended = cube(damaged, "verify")
    assert (ended.code, ended.stdout.count("\n")) == (1, 1)
    assert ended.stdout.startswith("notes.txt: is not listed")


# Read


@pytest.mark.soak
def test_xarray_opens_it_from_the_store_with_the_same_pixels(
    finished: InStore, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in finished.store.environment().items():
        monkeypatch.setenv(name, value)
    options = {"client_kwargs": {"endpoint_url": finished.store.url}}
    with (
        xr.open_zarr(f"{finished.url}/small/cube.zarr", storage_options=options) as there,
        xr.open_zarr(local / "cube.zarr") as here,
    ):
        assert set(there.variables) == set(here.variables)
        for name, array in here.variables.items():
            np.testing.assert_array_equal(there[name].values, array.values, err_msg=str(name))
        assert there.attrs == here.attrs


def test_tensorstore_and_zarrs_read_the_same_pixels(
    finished: InStore, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tensorstore by its own client of S3; zarrs, which has none, over HTTP from a bucket that anyone may read."""
    for name, value in finished.store.environment().items():
        monkeypatch.setenv(name, value)
    for key in finished.keys:
        finished.store.client().put_object_acl(Bucket=BUCKET, Key=f"{finished.prefix}/{key}", ACL="public-read")
    here, below = zarr.open_group(local / "cube.zarr", mode="r"), f"{finished.prefix}/small/cube.zarr"
    in_s3 = {
        **{"driver": "s3", "bucket": BUCKET, "path": below, "endpoint": finished.store.url},
        **{"aws_region": REGION, "aws_credentials": {"type": "environment"}},
    }
    with over_http(f"{finished.store.url}/{BUCKET}/{below}") as http, zarrs_pipeline():
        for path in ("reflectance", "quality", "parcel_id", "x", "y", "time", "overview/reflectance"):
            expected = np.asarray(here[path][...])  # type: ignore[index]
            values, attributes, _ = with_tensorstore(in_s3, path)
            np.testing.assert_array_equal(values, expected, err_msg=path)
            np.testing.assert_array_equal(with_zarrs(http, path), expected, err_msg=path)
            assert attributes == here[path].attrs.asdict()


def test_info_preview_and_export_read_from_the_store(finished: InStore, local: Path, tmp_path: Path) -> None:
    facts, here = cube(finished, "info", "--json"), run_here("sits-cube", "info", local, "--json")
    assert {**json.loads(facts.stdout), "location": ""} == {**json.loads(here.stdout), "location": ""}
    assert cube(finished, "preview", "--out", str(tmp_path / "there.png")).code == 0
    assert run_here("sits-cube", "preview", local, "--out", tmp_path / "here.png").code == 0
    assert (tmp_path / "there.png").read_bytes() == (tmp_path / "here.png").read_bytes()
    exported = run_with(
        finished.store.environment(),
        *("sits-cube", "export", "cog", f"{finished.url}/small", "--array", "crop_type", "--out", tmp_path / "cog"),
    )
    assert exported.code == 0, exported.stderr
    assert (tmp_path / "cog" / "crop_type.tif").exists()


# Refused


@pytest.fixture(scope="module")
def strict() -> Iterator[tuple[Moto, dict[str, tuple[str, str]]]]:
    """A store that checks keys, signatures and rights, and its users."""
    with moto_server() as store:
        users = {
            "all": store.user("all", "s3:*"),
            "reader": store.user("reader", "s3:ListBucket", "s3:GetObject"),
            "nobody": store.user("nobody", "s3:ListAllMyBuckets"),
        }
        store.demand_credentials()
        yield store, users


def refusal(
    archive: SmallArchive, store: Moto, out: str = f"s3://{BUCKET}/refused", **variables: str
) -> tuple[int, str]:
    """Exit code and the one sentence; its secrets are in nothing that it says, not even with --debug."""
    given = {**store.environment(), **variables}
    with ThreadPoolExecutor(1) as pool:
        debugged = pool.submit(run, "sits-build", *arguments(archive, out, "--debug"), **given)
        plain = run_with(given, "sits-build", *arguments(archive, out))
    for printed, said in ((plain.stdout, plain.stderr), (debugged.result().stdout, debugged.result().stderr)):
        assert printed == ""
        for secret in filter(None, (given.get("AWS_SECRET_ACCESS_KEY"), given.get("AWS_ACCESS_KEY_ID"))):
            assert secret not in said
    assert "Traceback" not in plain.stderr
    assert "reading parcels" not in plain.stderr
    *_, last = plain.stderr.splitlines()
    assert last.startswith("error: ")
    return plain.code, last


def test_a_bucket_that_is_not_there_is_named(archive: SmallArchive, store: Moto) -> None:
    assert refusal(archive, store, "s3://no-such-bucket/out") == (
        2,
        "error: s3://no-such-bucket/out: the store has no bucket no-such-bucket; make it, or check the address "
        "and AWS_ENDPOINT_URL",
    )


def test_an_address_where_nobody_answers_is_named(archive: SmallArchive, store: Moto) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, said = refusal(archive, store, AWS_ENDPOINT_URL=url)
    assert code == 2
    assert f"no store answers at {url}; check AWS_ENDPOINT_URL" in said


def test_missing_credentials_say_what_to_set(archive: SmallArchive, store: Moto) -> None:
    code, said = refusal(archive, store, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert code == 2
    assert "there are no credentials that can be used" in said
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said


def test_a_profile_that_is_not_there_is_named(archive: SmallArchive, store: Moto) -> None:
    code, said = refusal(archive, store, AWS_PROFILE="of-somebody-else")
    assert code == 2
    assert "of-somebody-else" in said


def test_wrong_keys_are_refused(archive: SmallArchive, strict: tuple[Moto, dict[str, tuple[str, str]]]) -> None:
    store, users = strict
    assert "the store refuses the credentials (InvalidAccessKeyId)" in refusal(archive, store)[1]
    key, _ = users["all"]
    code, said = refusal(archive, store, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=SECRET)
    assert code == 2
    assert "the store refuses the credentials (SignatureDoesNotMatch)" in said


def test_credentials_without_rights_say_which_are_needed(
    archive: SmallArchive, strict: tuple[Moto, dict[str, tuple[str, str]]]
) -> None:
    store, users = strict
    key, secret = users["nobody"]
    code, said = refusal(archive, store, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret)
    assert code == 2
    assert "the store denies access (AccessDenied); these credentials need s3:ListBucket, s3:GetObject" in said


def test_credentials_that_may_only_read_are_refused_before_anything_is_written(
    archive: SmallArchive, strict: tuple[Moto, dict[str, tuple[str, str]]]
) -> None:
    store, users = strict
    key, secret = users["reader"]
    given = store.environment(key, secret)
    ended = run("sits-build", *arguments(archive, f"s3://{BUCKET}/refused"), **given)
    assert ended.returncode == 2
    assert "the store denies access (AccessDenied); these credentials need" in ended.stderr.splitlines()[-1]


def test_an_address_with_a_secret_in_it_is_refused_without_being_repeated(archive: SmallArchive, store: Moto) -> None:
    code, said = refusal(archive, store, f"s3://{KEY}:{SECRET}@{BUCKET}/out")
    assert code == 2
    assert f"for s3://{BUCKET}/out: set AWS_ACCESS_KEY_ID" in said
