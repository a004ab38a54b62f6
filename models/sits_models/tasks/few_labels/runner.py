"""The runs that are not done yet, in this process or in several side by side; each leaves its row when it is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from sits_models.folder import lock_folder
from sits_models.tasks.few_labels.plan import Run
from sits_models.tasks.few_labels.pool import in_processes
from sits_models.tasks.few_labels.rows import Row, append_row, done_of, read_rows

__all__ = ["ROWS", "run_all", "run_folder"]

ROWS = "rows.jsonl"
_DECODED_MB = 2000
"""What a process keeps of the pixels of the cubes from run to run."""


def run_folder(out: Path, run: Run) -> Path:
    """Where a run trains."""
    return out / "runs" / run.key


def run_all(runs: Sequence[Run], out: Path, *, jobs: int, say: Callable[[str], None]) -> dict[Run, Row]:
    """Carry out what has no row yet, `jobs` runs at a time with one thread each, and give the rows of all.

    One at a time runs in this process, more in processes of their own, each of which keeps the pixels that it decoded.
    Raises BlockingIOError where another process adds to these rows, and whatever a run raises, after those that had
    begun beside it have left their rows.
    """
    out.mkdir(parents=True, exist_ok=True)
    with lock_folder(out):
        done = done_of(read_rows(out / ROWS), runs)
        for run in done:
            _tidy(out, run)
        left = [run for run in runs if run not in done]
        for number, (run, row) in enumerate(_rows(left, out, jobs=jobs), 1):
            append_row(out / ROWS, row)
            done[run] = row
            _tidy(out, run)
            say(f"{number} of {len(left)}: {run.title}: {_in_words(row)}, {row['seconds']:.0f} s")
    return {run: done[run] for run in runs}


def _in_words(row: Row) -> str:
    found = [(unit, row.get(f"{unit}_miou")) for unit in ("pixels", "parcels") if f"{unit}_miou" in row]
    return ", ".join(f"mIoU of {unit} {'undefined' if miou is None else f'{100 * miou:.1f} %'}" for unit, miou in found)


def _tidy(out: Path, run: Run) -> None:
    from sits_models.tasks.few_labels.work import tidy

    tidy(run_folder(out, run))


def _rows(runs: Sequence[Run], out: Path, *, jobs: int) -> Iterator[tuple[Run, Row]]:
    if not runs:
        return
    if jobs == 1:
        with _one_thread(), ExitStack() as held:
            _keep_decoded(held)
            for run in runs:
                yield run, _row(run, out)
        return
    yield from in_processes(partial(_row, out=out), runs, jobs=jobs, begin=_begin)


def _row(run: Run, out: Path) -> Row:
    from sits_models.tasks.few_labels.work import carry_out  # torch, where it is needed

    return carry_out(run, run_folder(out, run))


_HELD = ExitStack()
"""Until the process ends."""


def _begin() -> None:
    """In a process of its own."""
    from sits_models.data.cubes import calm_worker

    calm_worker()
    _keep_decoded(_HELD)


def _keep_decoded(held: ExitStack) -> None:
    from sits_models.data.decoded import keep_decoded

    held.enter_context(keep_decoded(_DECODED_MB))
    # What is to be said of the cubes was said when the runs were planned.
    log = logging.getLogger("sits_models.data")
    held.callback(log.setLevel, log.level)
    log.setLevel(logging.ERROR)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
