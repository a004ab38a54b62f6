"""A dataset in an S3 store is split as one on a disk is, under the lock of its build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.end_to_end.archives import SmallArchive, run_here
from tests.end_to_end.test_object_store import InStore, archive, arguments, store
from tests.services.moto import Moto, forget_stores

pytestmark = [pytest.mark.slow, pytest.mark.soak]
__all__ = ["archive", "store"]

RULE = ("--block", "640", "--folds", "3", "--fold", "2")


def test_a_dataset_in_a_store_is_split_as_one_on_a_disk(
    archive: SmallArchive, store: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    forget_stores()
    there = InStore(store, "split")
    assert run_here("sits-build", *arguments(archive, there.url)).code == 0
    assert run_here("sits-build", *arguments(archive, str(tmp_path))).code == 0
    done = run_here("sits-cube", "split", f"{there.url}/small/", *RULE, "--json")
    assert done.code == 0, done.stderr
    assert [one["built"] for one in json.loads(done.stdout)] == [4]
    assert run_here("sits-cube", "split", tmp_path / "small", *RULE).code == 0
    for name in (name.removeprefix("small/") for name in there.keys):
        if not name.endswith(".jsonl"):
            assert there.read(f"small/{name}") == (tmp_path / "small" / name).read_bytes(), name
    assert run_here("sits-cube", "verify", f"{there.url}/small").code == 0
    assert run_here("sits-cube", "check-splits", f"{there.url}/small").code == 0
    assert not [name for name in there.keys if name.endswith(".lock") or "/journal/" in name]
    forget_stores()
