"""A build that is killed at one file of its finish, from within."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.archives import SmallArchive, build_arguments, environment

FINISH = (
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
    meant = self == target and self.exists()  # not where a build sees to it that nothing is there
    if meant and moment == "before":
        die()
    _unlink(self, missing_ok=missing_ok)
    if meant:
        die()

Path.replace, Path.unlink = replace, unlink
from sits_pipeline.cli import build_main
build_main()
"""
"""`sits-build` that kills itself right before or right after one file is in its place, or is removed."""


def killed_build(archive: SmallArchive, dataset: Path, name: str, moment: str) -> None:
    """A build that kills itself at one file."""
    build = build_arguments(archive, dataset.parent)
    killed = subprocess.run(
        [sys.executable, "-c", _DRIVER, name, moment, *build], env=environment(), capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()


def is_concluded(dataset: Path) -> bool:
    """Whether the cube's root says that all cells are there, and has the statistics of the finish."""
    facts = json.loads((dataset / "cube.zarr" / "zarr.json").read_text())["attributes"]["sits_cube"]
    assert facts["complete"] == (facts["statistics"] is not None)
    return bool(facts["complete"])
