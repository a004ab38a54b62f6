"""Remote files as seekable streams whose blocks are kept on disk, shared by all workers of a host.

fsspec's caching file systems were looked at and not taken: `blockcache` notes in one JSON file, loaded and rewritten
whole, which blocks of a sparse file are there, so two processes lose each other's notes; neither it nor `filecache`
has a bound in bytes; and a response to a range request is taken as it comes. Here a block is a file of its own, named
by what it holds and moved into place when complete, so there is nothing to note; what was not used for longest goes
first; and a response that is not exactly the range asked for, of the version first seen, is an error.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from sits_catalog.reach import Reach
from sits_pipeline.folder import write_errors_in_words
from sits_pipeline.sources.web import Answer, Web, is_web

__all__ = ["CachedFile", "RangeCache", "open_cached", "own_cache", "temporary_cache"]

BLOCK = 64 * 1024
"""Bytes a block: a sixth of a usual source block of a COG and more than its head, so that little is fetched in vain."""
MAX_REQUEST = 256 * BLOCK
MAX_GAP = 2
"""Blocks that are fetched in vain rather than asking twice."""

_MAX_FILE = 2**29
"""Bytes; the pixels of a tile at 10 m are 241 MB, and a third more with overviews, before they are compressed."""
_TRUST_S = 3600.0
"""How long a file is taken to be the one seen last; one without ETag and Last-Modified is fetched anew after it."""
_LOCK = "lock"
_INNER = "inner"
"""Key beside a version: the file came from an address that is not public."""
_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
_ANSWERED: set[tuple[Reach, str]] = set()
"""Hosts that answered whoever may go so far."""


@dataclass(frozen=True)
class _Version:
    """What tells one state of a remote file from another."""

    size: int
    etag: str
    modified: str

    @property
    def is_told_apart(self) -> bool:
        """Whether more than its size tells it from another."""
        return bool(self.etag or self.modified)

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:32]


class RangeCache:
    """A folder of blocks of remote files, bounded in bytes; made anew in each process, on the same folder."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._written = max_bytes  # so that the first write of a process looks at what others left
        self._lock = threading.Lock()

    def place(self, url: str) -> Path:
        """The folder of one remote file, whoever asks for it.

        By its address as it is before it is signed, so that a new signature finds what an earlier one fetched. A query
        counts: where it was not added by a signer, it may say which file is meant.
        """
        parts = urlsplit(url)
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        key = hashlib.sha256(bare.encode()).hexdigest()
        return self.folder / key[:2] / key

    def write(self, path: Path, content: bytes) -> None:
        """Put a file in place atomically, and make room from time to time. Raises CannotWrite."""
        partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
        with write_errors_in_words(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(content)
                partial.replace(path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
        with self._lock:
            self._written += len(content)
            full = self._written > self.max_bytes // 50
            if full:
                self._written = 0
        if full:
            self.evict()

    def evict(self) -> None:
        """Remove the blocks that were not used for longest until nine tenths of the bound are left.

        What is left of a file without its last block goes with it: it may have been one of millions of small ones.
        """
        blocks = []
        for path in self.folder.glob("*/*/*.block"):
            with suppress(FileNotFoundError):
                status = path.stat()
                blocks.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in blocks)
        full = total > self.max_bytes
        for _, size, path in sorted(blocks):
            if not full or total <= 0.9 * self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
        for place in self.folder.glob(f"{'[0-9a-f]' * 2}/{'[0-9a-f]' * 64}"):
            if next(place.glob("*.block"), None) is None:
                _remove(place)


def _remove(place: Path) -> None:
    """Remove the folder of a remote file that has no block; one that somebody is about to fill is left alone."""
    try:
        with _lock(place, wait=False):
            if next(place.glob("*.block"), None) is None:
                for path in (place / "version.json", *place.glob("*.partial")):
                    path.unlink(missing_ok=True)
                # The lock goes last; who waits for it sees that it went, and makes another.
                (place / _LOCK).unlink()
                place.rmdir()
    except OSError:
        return  # it is held, or another process was quicker


@contextmanager
def _lock(place: Path, *, wait: bool) -> Iterator[None]:
    """Alone with a remote file among all threads and processes of the host; raises BlockingIOError without `wait`."""
    while True:
        if wait:
            place.mkdir(parents=True, exist_ok=True)
        try:
            lock = (place / _LOCK).open("wb")
        except FileNotFoundError:
            if wait:
                continue  # its folder was removed just now
            raise
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            try:
                is_there = os.path.samestat(os.fstat(lock.fileno()), (place / _LOCK).stat())
            except FileNotFoundError:
                is_there = False
            if is_there:
                yield
                return


@lru_cache(maxsize=8)
def _cache(folder: Path, max_bytes: int) -> RangeCache:
    return RangeCache(folder, max_bytes)


def temporary_cache() -> Path:
    """Name of a folder for remote bytes in each host's folder for temporary files; here it goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="sits-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder.name)


@lru_cache(maxsize=1)
def own_cache() -> Path:
    """This process's own temporary folder for remote bytes, for sources that were given none."""
    return temporary_cache()


def open_cached(
    url: str, *, folder: Path, max_bytes: int, web: Web, whole: bool = False, max_file: int = _MAX_FILE
) -> CachedFile:
    """A remote file through the cache in `folder`; raises OSError where the server has no such file.

    The folder is made where it is missing; a relative one lies in this host's own folder for temporary files. `whole`
    fetches all of the file by one request when it is opened for the first time: for JPEG 2000 without an index of its
    tiles (TLM markers), of which reading any window touches nearly all. One of more than `max_file` bytes is refused.
    """
    cache = _cache(Path(tempfile.gettempdir(), folder), max_bytes)
    return CachedFile(url, cache, web, whole=whole, max_file=max_file)


class CachedFile(io.RawIOBase):
    """A remote file as a seekable stream of bytes."""

    def __init__(
        self, url: str, cache: RangeCache, web: Web, *, whole: bool = False, max_file: int = _MAX_FILE
    ) -> None:
        super().__init__()
        self._max_file = max_file
        self._web = web
        self._whole = whole
        self._url = url
        self._cache = cache
        self._place = cache.place(url)
        self._position = 0
        self._last: tuple[int, bytes] = (-1, b"")
        self._version = self._known_version() or self._look()

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._version.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        """The byte that is read next."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from here on; raises OSError where they cannot be had, CannotWrite where not kept."""
        stop = self._version.size if size < 0 else min(self._position + size, self._version.size)
        (content,) = self.get_byte_ranges([self._position], [max(0, stop - self._position)])
        self._position += len(content)
        return content

    def get_byte_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """The bytes of several ranges; what is missing of them is fetched in as few requests as is sensible."""
        needed = sorted({block for offset, size in zip(offsets, sizes, strict=True) for block in _blocks(offset, size)})
        blocks = self._blocks(needed)
        return [self._cut(blocks, offset, size) for offset, size in zip(offsets, sizes, strict=True)]

    def forget(self) -> None:
        """Drop the version and the blocks that were kept, so that whoever opens the file next asks the server anew."""
        (self._place / "version.json").unlink(missing_ok=True)
        self._drop_blocks()

    def _drop_blocks(self) -> None:
        self._last = (-1, b"")
        for path in self._place.glob("*.block"):
            path.unlink(missing_ok=True)

    def _cut(self, blocks: dict[int, bytes], offset: int, size: int) -> bytes:
        content = b"".join(blocks[block] for block in _blocks(offset, size))
        return content[offset % BLOCK : offset % BLOCK + size]

    def _blocks(self, needed: Sequence[int]) -> dict[int, bytes]:
        if len(needed) == 1 and needed[0] == self._last[0]:
            return {needed[0]: self._last[1]}
        found = {block: content for block in needed if (content := self._stored(block)) is not None}
        if len(found) < len(needed):
            with self._locked():
                missing = [block for block in needed if block not in found]
                found |= {block: content for block in missing if (content := self._stored(block)) is not None}
                for first, last in _runs(block for block in needed if block not in found):
                    found |= self._fetch(first, last)
        if needed:
            self._last = (needed[-1], found[needed[-1]])
        return found

    def _path(self, block: int) -> Path:
        return self._place / f"{self._version.key}-{block}.block"

    def _stored(self, block: int) -> bytes | None:
        path = self._path(block)
        try:
            content = path.read_bytes()
            with write_errors_in_words(self._cache.folder):
                os.utime(path)
        except FileNotFoundError:
            return None
        return content if len(content) == min(BLOCK, self._version.size - block * BLOCK) else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with this remote file among all threads and processes of the host: nothing is fetched twice."""
        with ExitStack() as stack:
            with write_errors_in_words(self._cache.folder):
                stack.enter_context(_lock(self._place, wait=True))
            yield

    def _known_version(self) -> _Version | None:
        try:
            path = self._place / "version.json"
            # A time to come, after a clock was put back, says nothing.
            if not -1 <= time.time() - path.stat().st_mtime <= _TRUST_S:
                return None
            noted = json.loads(path.read_text())
            # What one reach fetched from this network is no other's: the server is asked anew, or out of its reach.
            return None if noted.pop(_INNER, False) and not self._may_ask() else _Version(**noted)
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return None

    def _may_ask(self) -> bool:
        """Whether the server may be asked, wherever it is, as far as is known without asking."""
        reach, host = self._web.reach, urlsplit(self._url).hostname or ""
        return reach is None or not is_web(self._url) or reach.knows(host) or (reach, host) in _ANSWERED

    def _look(self) -> _Version:
        """Ask the server which version it has; the first block comes with the answer, or the whole file."""
        with self._locked():
            known = self._known_version()
            if known is not None:
                return known
            # Of a file that was seen before, no more than its version may be needed.
            whole = self._whole and not (self._place / "version.json").exists()
            headers = {} if whole else {"Range": f"bytes=0-{BLOCK - 1}"}
            answer = self._web.fetch(self._url, max_bytes=_MAX_FILE, headers=headers)
            self._version = self._version_of(answer)
            if not self._version.is_told_apart:
                # Its size alone does not say that it is still what it was.
                self._drop_blocks()
            self._keep(0, answer.body)
            if self._web.reach is not None:
                _ANSWERED.add((self._web.reach, urlsplit(self._url).hostname or ""))
            noted = asdict(self._version) | ({_INNER: True} if answer.is_inner else {})
            self._cache.write(self._place / "version.json", json.dumps(noted).encode())
            return self._version

    def _fetch(self, first: int, last: int) -> dict[int, bytes]:
        start, stop = first * BLOCK, min((last + 1) * BLOCK, self._version.size)
        answer = self._web.fetch(self._url, max_bytes=_MAX_FILE, headers={"Range": f"bytes={start}-{stop - 1}"})
        if self._version_of(answer) != self._version:
            (self._place / "version.json").unlink(missing_ok=True)
            raise OSError("it changed on the server while it was read; try again")
        if answer.status == 200:
            return self._keep(0, answer.body)
        if _content_range(answer)[:2] != (start, stop):
            raise OSError(f"bytes {start} to {stop} were asked for, the server sent others")
        return self._keep(first, answer.body)

    def _version_of(self, answer: Answer) -> _Version:
        size = len(answer.body) if answer.status == 200 else _content_range(answer)[2]
        if size > self._max_file:
            raise OSError(f"the server says that it has {size} bytes; {self._max_file} are read at most")
        return _Version(size, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""))

    def _keep(self, first: int, content: bytes) -> dict[int, bytes]:
        """Store the blocks of a response that starts with block `first`."""
        kept = {}
        for start in range(0, len(content), BLOCK):
            block = first + start // BLOCK
            kept[block] = content[start : start + BLOCK]
            self._cache.write(self._path(block), kept[block])
        return kept


def _blocks(offset: int, size: int) -> range:
    return range(offset // BLOCK, -(-(offset + size) // BLOCK))


def _runs(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """First and last block of each request: neighbours together, small gaps filled, no request too large.

    >>> _runs([0, 1, 2, 5, 9])
    [(0, 5), (9, 9)]
    """
    ordered = sorted(blocks)
    runs: list[tuple[int, int]] = [(block, block) for block in ordered[:1]]
    for before, block in pairwise(ordered):
        first = runs[-1][0]
        if block - before <= MAX_GAP + 1 and (block - first + 1) * BLOCK <= MAX_REQUEST:
            runs[-1] = (first, block)
        else:
            runs.append((block, block))
    return runs


def _content_range(answer: Answer) -> tuple[int, int, int]:
    """Start, stop and size of the whole that a partial response states; raises OSError where the body is another."""
    match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status != 206 or match is None:
        raise OSError(f"the server answered a range request with status {answer.status} and no valid Content-Range")
    start, stop, size = int(match[1]), int(match[2]) + 1, int(match[3])
    if stop - start != len(answer.body):
        raise OSError(f"the server announced {stop - start} bytes and sent {len(answer.body)}")
    return start, stop, size
