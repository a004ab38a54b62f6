"""The runs that are not done yet, in processes side by side; each leaves its row as soon as it is finished."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tests.experiments.plan import Run
from tests.experiments.rows import append_row, done_of, read_rows

from sits_catalog.cube import Split
from sits_models.folder import lock_folder
from sits_models.tasks.few_labels.pool import in_processes

__all__ = ["commit_of", "run_all"]


def run_all(
    runs: Sequence[Run],
    rows: Path,
    *,
    cubes: Path,
    split: Split,
    jobs: int,
    commit: str,
    say: Callable[[str], None],
) -> None:
    """Carry out what has no row yet, `jobs` runs at a time with one thread each.

    Raises BlockingIOError where another process adds to these rows, and whatever a run raises, after the others that
    had begun have left their rows.
    """
    rows.parent.mkdir(parents=True, exist_ok=True)
    with lock_folder(rows.parent):
        left = [run for run in runs if run not in done_of(read_rows(rows), runs)]
        if not left:
            return
        # Each process keeps the region of its last run in memory.
        done = in_processes(partial(_row, cubes=cubes, split=split), left, jobs=jobs)
        for number, (run, row) in enumerate(done, 1):
            append_row(rows, {**row, "commit": commit})
            say(f"{number} of {len(left)}: {run.title}, {row['cpu_seconds']} s of a core")


def commit_of(folder: Path) -> str:
    """What git calls the state of a checkout; "unknown" where it is none."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _row(run: Run, cubes: Path, split: Split) -> dict[str, object]:
    from tests.experiments.work import carry_out  # torch, where it is needed

    return {
        "key": run.key,
        **asdict(run),
        "steps": run.steps,
        **carry_out(run, cubes=cubes, split=split),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in ("torch", "sits-cubes")},
    }
