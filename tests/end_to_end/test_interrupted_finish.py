"""A finish that is cut short at each of its files: the next run ends it, byte for byte as one that never was."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.end_to_end.archives import (
    SmallArchive,
    build_arguments,
    build_here,
    environment,
    leftovers,
    promised,
    run_here,
)

pytestmark = pytest.mark.soak

FILES = (
    *("chips.parquet", "sources.parquet", "config.yaml", "parcels.parquet", "report.html", "item.json"),
    *("cube.zarr/zarr.json", "journal.jsonl", "journal/000001.jsonl", "journal/000002.jsonl"),
)
"""What finish writes, in its order, and the segments that it removes at last."""

_DRIVER = """
import os, signal, sys
from pathlib import Path
name, moment = sys.argv[1], sys.argv[2]
sys.argv = ["sits-build", *sys.argv[3:]]
target = Path(sys.argv[sys.argv.index("--out") + 1]) / "small" / name

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def replace(self, other, _replace=Path.replace):
    if Path(other) == target and moment == "before":
        die()
    _replace(self, other)
    if Path(other) == target:
        die()

def unlink(self, missing_ok=False, _unlink=Path.unlink):
    if self == target and moment == "before":
        die()
    _unlink(self, missing_ok=missing_ok)
    if self == target:
        die()

Path.replace, Path.unlink = replace, unlink
from sits_pipeline.cli import build_main
build_main()
"""
"""`sits-build` that kills itself right before or right after one file is in its place, or is removed."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", FILES)
def test_a_finish_that_is_cut_short_is_done_again(
    archive: SmallArchive, undisturbed: Path, tmp_path: Path, name: str, moment: str
) -> None:
    """Begun where all cells are in the journal and nothing of the finish is there."""
    dataset = Path(shutil.copytree(undisturbed, tmp_path / "out" / "small"))
    lines = (dataset / "journal.jsonl").read_text().splitlines(keepends=True)
    for path in dataset.iterdir():
        if path.is_file():
            path.unlink()
    (dataset / "journal").mkdir()
    (dataset / "journal" / "000001.jsonl").write_text("".join(lines[:-1]))
    build = build_arguments(archive, dataset.parent)
    killed = subprocess.run(
        [sys.executable, "-c", _DRIVER, name, moment, *build], env=environment(), capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    ended = build_here(archive, dataset.parent)
    assert (ended.code, ended.outcome["built"], ended.outcome["complete"]) == (0, 0, True)
    assert promised(dataset) == promised(undisturbed)
    assert leftovers(dataset.parent) == []
    for same in ("sources.parquet", "item.json", "config.yaml"):
        assert (dataset / same).read_bytes() == (undisturbed / same).read_bytes()
    assert run_here("sits-cube", "verify", dataset).code == 0
