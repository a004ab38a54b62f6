"""A folder that runs and maps are written into: files that are whole or not there, and one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["lock_folder", "move_whole", "partial_of", "sync", "write_whole"]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EBADF)
"""What file systems without locks answer; EBADF is that of NFS, which locks only what is open for writing."""


def partial_of(path: Path) -> Path:
    """Where a file is written before it is whole; a killed process may leave it behind."""
    return path.with_name(f"{path.name}.partial")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, whenever the process or the machine stops."""
    partial = partial_of(path)
    try:
        partial.write_bytes(data)
        move_whole(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def move_whole(partial: Path, path: Path) -> None:
    """Put a file that was written beside its place into it; when this returns, the disk holds it."""
    sync(partial)
    partial.replace(path)
    sync(path.parent)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep a folder for this process, which the system lets go of however the process ends.

    Raises BlockingIOError where another one works in it. A file system that knows no locks keeps nobody out.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another process works in {folder}; wait until it is done") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Make what was written to a file, or renamed in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
