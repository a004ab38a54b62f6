"""`sits-model` in this process, which saves the seconds that its imports take."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from sits_models.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def sits_model(*arguments: object) -> Ended:
    """Run the command with these arguments."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["sits-model", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
    return Ended(int(left.value.code or 0), stdout.getvalue(), stderr.getvalue())


def assert_refused(ended: Ended, *says: str, code: int = 2) -> None:
    """One sentence on standard error, nothing on standard output."""
    assert ended.code == code, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    (sentence,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.stderr.endswith(sentence + "\n")
    for part in says:
        assert part in sentence
