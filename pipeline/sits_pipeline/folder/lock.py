"""One writer a dataset: a locked file on this machine, an object with a lease in a store.

A store has no locks, but it can refuse to create what is there (`If-None-Match: *`) and to replace what has changed
(`If-Match`): the lock is an object that says who holds it, created so, and renewed so while the work lasts. Its age is
told by the store's clock alone, so that no clock of a builder matters.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

import fsspec

from sits_pipeline.folder.disk import write_errors_in_words
from sits_pipeline.folder.remote import errors_in_words

__all__ = [
    *("LEASE_S", "RENEW_S", "Holder", "check_held", "held_file", "held_object", "is_gone", "is_over", "sync_folder"),
]

RENEW_S = 20.0
LEASE_S = 90.0
"""A lock that was not renewed for so long is nobody's."""


@contextmanager
def held_file(path: Path, held: str) -> Iterator[None]:
    """Hold a locked file; the system lets go of it when the process ends, however it ends.

    Raises BlockingIOError with the sentence `held` where another process holds it, CannotWrite where there can be none.
    """
    with write_errors_in_words(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path, held)
    try:
        yield
    finally:
        with suppress(OSError):  # on a disk that can no longer be written it stays, and is no lock
            path.unlink(missing_ok=True)
        os.close(descriptor)


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


# In a store


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock."""

    host: str
    """Name of the machine."""
    machine: str
    """What tells machines and containers of one name apart: only on the same one does a process id mean anything."""
    pid: int
    started: str
    """When that process was started, in ticks since the machine was; empty where nothing says so."""
    token: str
    """Of this one holding of the lock."""

    @classmethod
    def here(cls) -> Self:
        """This process, about to hold a lock."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            pid=pid,
            started=_started(pid) or "",
            token=uuid.uuid4().hex,
        )

    @classmethod
    def of_metadata(cls, metadata: dict[str, str]) -> Self | None:
        """The holder that an object's metadata name; None where they name none."""
        try:
            texts = {name: metadata[name] for name in ("host", "machine", "started", "token")}
            return cls(pid=int(metadata["pid"]), **texts)
        except (KeyError, ValueError):
            return None

    def as_metadata(self) -> dict[str, str]:
        """The same as metadata of an object."""
        texts = {"host": self.host, "machine": self.machine, "started": self.started, "token": self.token}
        return {**texts, "pid": str(self.pid)}


def _machine() -> str:
    """This boot of this machine, and the container that the process is in."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return f"{uuid.getnode():x}"


def _started(pid: int) -> str | None:
    """When a process of this machine was started, in ticks since the machine was; None where there is none.

    proc(5): fields 3, the state, and 22. Ids are used again; this pair is not, whatever happens to the clock.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


def is_gone(holder: Holder) -> bool:
    """Whether the holder was a process of this machine that has ended; never where the system does not tell."""
    return holder.machine == _machine() and holder.started != "" and _started(holder.pid) != holder.started


def is_over(holder: Holder | None, age: timedelta) -> bool:
    """Whether a lock that was renewed so long ago may be taken over."""
    return age > timedelta(seconds=LEASE_S) or (holder is not None and is_gone(holder))


@dataclass(frozen=True)
class _Found:
    """A lock that is there."""

    holder: Holder | None
    etag: str
    age: timedelta


@contextmanager
def held_object(filesystem: fsspec.AbstractFileSystem, url: str, held: str) -> Iterator[None]:
    """Hold an object of an S3 store as a lock, renewed by a thread; `check_held` asks for it in between.

    Raises BlockingIOError with the sentence `held` where it is held by a builder that lives; at the end, RuntimeError
    where the lock was lost to another one because it could not be renewed in time.
    """
    lease = _Lease(filesystem, url, held)
    lease.acquire()
    _LEASES.add(lease)
    stop = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(stop,), name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        _LEASES.discard(lease)
        stop.set()
        keeper.join(10)
        lease.release()
    if lease.lost:
        raise RuntimeError(f"{lease.taken_over}; verify it")


def check_held(location: str) -> None:
    """Ask the store whether this process still holds the locks it has taken for what is written to `location`.

    A process that was stopped for longer than its lease, and goes on, hears here that it has lost it, before it writes.
    Raises BlockingIOError where another builder has taken over; does nothing where no lock was taken.
    """
    for lease in tuple(_LEASES):
        if lease.covers(location):
            lease.check()


class _Lease:
    """An object that says who holds it."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, url: str, held: str) -> None:
        self.lost = False
        """Whether another holder has taken over."""
        self._fs, self._url, self._held = filesystem, url, held
        self._one_at_a_time = threading.Lock()
        bucket, key, _ = filesystem.split_path(url)
        self._at = {"Bucket": bucket, "Key": key}
        self._mine = Holder.here()
        self._etag = ""

    @property
    def taken_over(self) -> str:
        """What to say where it is lost."""
        return f"{self._held.split(';')[0]}: it took over while this one could not reach the store"

    def covers(self, location: str) -> bool:
        """Whether a dataset is under this lock, whose name is what the names of a region's datasets begin with."""
        return location.startswith(self._url.removesuffix(".lock"))

    def check(self) -> None:
        """Renew the object. Raises BlockingIOError where it is another's."""
        with errors_in_words(self._url):
            self._renew()
        if self.lost:
            raise BlockingIOError(f"{self.taken_over}; nothing more was written, wait for it and run this again")

    def _renew(self) -> None:
        with self._one_at_a_time:
            self.lost = self.lost or not self._put({"IfMatch": self._etag})

    def acquire(self) -> None:
        """Create the object, or replace one whose holder is gone. Raises BlockingIOError."""
        with errors_in_words(self._url):
            found = self._found()
            if found is not None and not is_over(found.holder, found.age):
                raise BlockingIOError(_with_holder(self._held, found))
            condition = {"IfNoneMatch": "*"} if found is None else {"IfMatch": found.etag}
            if not self._put(condition):
                # Somebody was quicker.
                raise BlockingIOError(_with_holder(self._held, self._found()))

    def keep(self, stop: threading.Event) -> None:
        """Renew the object until `stop`; a store that does not answer is asked again."""
        while not stop.wait(RENEW_S) and not self.lost:
            with suppress(OSError, RuntimeError), errors_in_words(self._url):
                self._renew()

    def release(self) -> None:
        """Remove the object if it is still ours; one that stays is over when its lease is."""
        with suppress(OSError, RuntimeError), errors_in_words(self._url):
            found = self._found()
            if found is not None and found.holder == self._mine:
                self._fs.call_s3("delete_object", **self._at)

    def _put(self, condition: dict[str, str]) -> bool:
        """Write the object; whether the condition held. One whose answer was lost on the way is known by its token."""
        body = json.dumps({**self._mine.as_metadata(), "renewed": datetime.now(UTC).isoformat()}).encode()
        try:
            answer = self._fs.call_s3(
                "put_object", **self._at, **condition, Body=body, Metadata=self._mine.as_metadata()
            )
        except FileNotFoundError:
            return False
        except OSError as error:
            if not _is_refused(error):
                raise
            found = self._found()
            if found is None or found.holder != self._mine:
                return False
            self._etag = found.etag
            return True
        self._etag = str(answer["ETag"])
        return True

    def _found(self) -> _Found | None:
        try:
            head: dict[str, Any] = self._fs.call_s3("head_object", **self._at)
        except FileNotFoundError:
            return None
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        return _Found(Holder.of_metadata(head["Metadata"]), str(head["ETag"]), now - head["LastModified"])


def _is_refused(error: OSError) -> bool:
    """Whether the store did not write because the condition did not hold: 412, or 409 where two came at once."""
    response = getattr(error.__cause__, "response", None) or {}
    codes = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
    return isinstance(error, FileExistsError) or response.get("Error", {}).get("Code") in codes


def _with_holder(held: str, found: _Found | None) -> str:
    """The sentence with the holder in it."""
    if found is None or found.holder is None:
        return held
    what, _, advice = held.partition("; ")
    who = f"{what} (host {found.holder.host}, process {found.holder.pid}, seen {max(0, found.age.seconds)} s ago)"
    return f"{who}; {advice}"


_LEASES: set[_Lease] = set()
"""Those that this process holds."""
