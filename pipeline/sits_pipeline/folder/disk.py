"""A local disk: what it refuses, and what to do, in one sentence; how much room a folder has, and what lies in it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CannotWrite", "check_local", "files_below", "free_bytes", "write_errors_in_words"]


class CannotWrite(OSError):  # noqa: N818  # a state of the disk
    """A folder takes no more, so that every further attempt would fail alike until somebody changes that."""


_CAUSES = {
    errno.ENOSPC: "no space is left on its disk",
    errno.EDQUOT: "this user's quota on its disk is used up",
    errno.EFBIG: "a file would be larger than its disk or this process's limit (`ulimit -f`) allows",
    errno.EROFS: "its disk can only be read",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
}


@contextmanager
def write_errors_in_words(folder: Path) -> Iterator[None]:
    """Inside of it, what a disk refuses becomes CannotWrite with one sentence; other errors go through as they are."""
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        cause = _CAUSES.get(error.errno or 0)
        if cause is None:
            raise
        raise CannotWrite(
            f"{folder} cannot be written: {cause}{_left(folder, error.errno)}; change that and run the same command "
            "again, which goes on where this one stopped"
        ) from None


def _left(folder: Path, code: int | None) -> str:
    """What is left of a full disk, as far as it can be told."""
    if code != errno.ENOSPC:
        return ""
    try:
        found = os.statvfs(_standing(folder))
    except OSError:
        return ""
    if found.f_files and not found.f_favail:
        return " (it holds as many files as it can)"
    free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    return f" ({free / 1e6:.1f} of {size / 1e6:.0f} MB are free)"


def free_bytes(folder: Path) -> int | None:
    """Bytes that can still be written where a folder is or is to be; None where the system does not tell."""
    try:
        return shutil.disk_usage(_standing(folder)).free
    except OSError:
        return None


def check_local(folder: Path) -> None:
    """Raises PermissionError where nothing can be written into a folder that is or is to be; nothing is written."""
    standing = _standing(folder)
    if standing.is_dir() and not os.access(standing, os.W_OK | os.X_OK):
        what = "" if standing == folder.absolute() else f" ({standing} may only be read)"
        raise PermissionError(
            f"{folder} cannot be written{what}: its disk can only be read, or this user may not write there; choose "
            "another --out, or change that"
        )


def files_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The files in a folder and in those below it, in no order; none where it is no folder.

    A country has millions, for which `Path.rglob` takes ten times as long. A link to a folder is not followed.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                entries = list(found)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        yield from (entry for entry in entries if entry.is_file())


def _standing(folder: Path) -> Path:
    """The folder or, as long as it is not there, the nearest one above it."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
