"""The runs that are not done yet, in processes side by side; each leaves its row as soon as it is finished."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from pathlib import Path

from tests.experiments.plan import Run
from tests.experiments.rows import append_row, done_of, read_rows

from sits_catalog.cube import Split
from sits_models.folder import lock_folder

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
        # As many processes as there are, each of which keeps the region of its last run in memory.
        os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported there
        context = get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(left)), mp_context=context, initializer=_begin) as pool:
            waiting = {pool.submit(_row, run, cubes, split): run for run in left}
            try:
                for number, future in enumerate(as_completed(waiting), 1):
                    row = future.result()
                    append_row(rows, {**row, "commit": commit})
                    say(f"{number} of {len(left)}: {waiting[future].title}, {row['cpu_seconds']} s of a core")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


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


def _begin() -> None:
    """In a process of its own: one thread, and no life after the process that started it."""
    from tests.experiments.work import use_threads

    use_threads(1)
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


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
