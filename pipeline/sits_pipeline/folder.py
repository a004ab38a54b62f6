"""A dataset's folder, on this machine or behind an fsspec URL: small files, written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import fsspec

__all__ = ["Folder"]


@dataclass(frozen=True)
class Folder:
    """A folder by path or URL (`s3://bucket/prefix`, `memory://x`); small and picklable."""

    location: str

    @cached_property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine's file system."""
        return "://" not in self.location or self.location.startswith("file://")

    @property
    def path(self) -> Path:
        """The local path. Raises ValueError for a URL."""
        if not self.is_local:
            raise ValueError(f"a local folder is needed here, got {self.location}")
        return Path(self.location.removeprefix("file://"))

    def sub(self, name: str) -> Folder:
        """A folder inside of this one."""
        return Folder(str(self.path / name) if self.is_local else f"{self.location.rstrip('/')}/{name}")

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError."""
        if self.is_local:
            return (self.path / name).read_bytes()
        return bytes(self._fs.cat_file(self._url(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole: locally to a partial file that is synced and renamed, elsewhere in one PUT."""
        self.write_parts(name, (data,))

    def write_parts(self, name: str, parts: Iterable[bytes]) -> None:
        """The same for a file that comes in parts; a local one is never held in memory as a whole."""
        if not self.is_local:
            self._fs.pipe_file(self._url(name), b"".join(parts))
            return
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)

    def exists(self, name: str) -> bool:
        """Whether a file of this name is there."""
        if self.is_local:
            return (self.path / name).exists()
        return bool(self._fs.exists(self._url(name)))

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None where there is none."""
        try:
            if self.is_local:
                return (self.path / name).stat().st_size
            return int(self._fs.info(self._url(name))["size"])
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""
        if self.is_local:
            (self.path / name).unlink(missing_ok=True)
        elif self.exists(name):
            self._fs.rm_file(self._url(name))

    def files(self, below: str = "") -> Iterator[str]:
        """Names, relative to this folder, of all files below a sub-folder (or of the file of this name), sorted."""
        if self.is_local:
            top = self.path / below
            found = [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
            names = [str(PurePosixPath(path.relative_to(self.path))) for path in found]
        else:
            root = self._fs._strip_protocol(self.location).rstrip("/")
            found = self._fs.find(f"{root}/{below}".rstrip("/"))
            names = [name.removeprefix(root).lstrip("/") for name in found]
        yield from sorted(names)

    def remove_partials(self) -> None:
        """Remove what a killed writer left behind."""
        if self.is_local:
            for path in self.path.rglob("*.partial"):
                path.unlink(missing_ok=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold `<name>.lock` in this folder, so that there is one writer; object stores know no locks.

        The system lets go of it when the process ends, however it ends. Raises BlockingIOError where it is held.
        """
        if not self.is_local:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / f"{name}.lock"
        descriptor = _locked(
            path, f"another build is writing {self.location}/{name}; wait for it, or choose another --out"
        )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    @cached_property
    def _fs(self) -> fsspec.AbstractFileSystem:
        # Other processes write here too: a listing that was remembered would miss their files.
        return fsspec.core.url_to_fs(self.location, use_listings_cache=False)[0]

    def _url(self, name: str) -> str:
        return f"{self.location.rstrip('/')}/{name}"

    def __getstate__(self) -> dict[str, str]:
        return {"location": self.location}


def _locked(path: Path, held: str) -> int:
    """A descriptor of the locked file at `path`. Raises BlockingIOError with the sentence `held`."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BlockingIOError(held) from None
        except OSError as error:
            # Some network file systems have no locks; a build there goes on without.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                os.close(descriptor)
                raise
        # An earlier holder may have removed the file between our open and our lock: then the lock is on nothing.
        if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make a rename in a local folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
