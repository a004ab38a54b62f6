"""A program beside a test: started, written down, and ended with the block."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["running_program"]


@contextmanager
def running_program(command: Sequence[object], log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """It runs in the folder of its log, in this environment with these variables, until the block ends."""
    with log.open("ab") as said:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env={**os.environ, **variables},
        )
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
