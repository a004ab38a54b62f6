"""How a command speaks: progress with an ETA on a terminal, plain lines elsewhere, one sentence for an error."""

from __future__ import annotations

import errno
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sits_catalog.printable import one_line, printable, printable_output

__all__ = ["DONE", "FAILED", "INCOMPLETE", "WRONG_USE", "Narrator", "guarded"]

DONE, FAILED, WRONG_USE, INCOMPLETE = 0, 1, 2, 3
_PLAIN_EVERY_S = 10.0
_WRONG_USE = (
    ValueError,
    BlockingIOError,
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
"""What a user can set right."""
_NO_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)
"""Of paths that are none: too long, or links that go around."""


class Narrator:
    """Tells on standard error what a command is doing."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._text = ""
        self._said = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def stage(self, text: str) -> None:
        """A new stage begins."""
        text = one_line(text)
        self._text, self._said = text, time.monotonic()
        if self._progress is None:
            self._console.print(text, soft_wrap=True, markup=False)
            return
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(text, total=None)

    def progress(self, done: int, total: int) -> None:
        """So many parts of the stage are done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._said > _PLAIN_EVERY_S:
            self._said = time.monotonic()
            self._console.print(f"{self._text}: {done} of {total}", soft_wrap=True, markup=False)


def guarded(work: Callable[[], int], *, debug: bool) -> NoReturn:
    """Run a command and leave with its exit code; an error becomes one sentence, with a traceback only for `debug`."""
    try:
        with printable_output():
            code = work()
    except _WRONG_USE as error:
        code = _say(error, WRONG_USE, debug=debug)
    except (OSError, MemoryError, RuntimeError) as error:
        code = _say(error, WRONG_USE if getattr(error, "errno", None) in _NO_NAMES else FAILED, debug=debug)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command to go on\n")
        code = FAILED
    except Exception as error:  # noqa: BLE001  # the last line of defence: a person is at the other end
        text = f"{type(error).__name__}: {error}; this is a fault of the program: run again with --debug and report it"
        code = _say(RuntimeError(text).with_traceback(error.__traceback__), FAILED, debug=debug)
    sys.stdout.flush()
    sys.exit(code)


def _say(error: BaseException, code: int, *, debug: bool) -> int:
    if debug:
        sys.stderr.write(printable("".join(traceback.format_exception(error))))
    text = one_line(error) or type(error).__name__
    sys.stderr.write(f"error: {text}\n")
    return code
