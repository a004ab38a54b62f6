"""What stands for cells in tests of clusters."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sits_pipeline.plan import CellMemory


def of(cell_bytes: float, further: float = 1) -> CellMemory:
    """The memory of cells whose first thread, and each further one, needs so many bytes."""
    return CellMemory(first=int(cell_bytes), further=int(further))


class CellError(Exception):
    """An error of a task, as a step might raise it."""


def square(number: int) -> int:
    return number * number


KNOWN: dict[str, Callable[[Any], int]] = {}


def shared[T](function: Callable[[T], int]) -> Callable[[T], int]:
    """A task that sees the variables of its test.

    distributed pickles what it is given, even on its way into its own process: such a task travels as a name.
    """
    name = str(len(KNOWN))
    KNOWN[name] = function
    return partial(call, name)


def call(name: str, task: object) -> int:
    return KNOWN[name](task)


def log_times(folder: Path, seconds: float, number: int) -> tuple[int, int, float, float]:
    """A cell: its number, its process, when it began and ended. It leaves a file while it runs."""
    mark = folder / f"{number}-{os.getpid()}"
    began = time.time()
    mark.touch()
    time.sleep(seconds)
    mark.unlink()
    return number, os.getpid(), began, time.time()


def most_at_once(times: Sequence[tuple[int, int, float, float]]) -> dict[int, int]:
    """Cells that ran at the same time, by process."""
    return {
        process: max(
            sum(began <= moment < ended for _, other, began, ended in times if other == process)
            for _, other, moment, _ in times
            if other == process
        )
        for process in {process for _, process, _, _ in times}
    }


def numbers(times: Sequence[tuple[int, int, float, float]]) -> list[int]:
    return sorted(number for number, *_ in times)
