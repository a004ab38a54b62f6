"""The files of a group of an EOPF product, by key: local ones, or remote ones through an opener."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from sits_pipeline.sources.remote import Opener
from sits_pipeline.sources.web import is_web

__all__ = ["AXES", "GroupFiles", "split_address"]

AXES = ("y", "x")
"""Names of the coordinates beside the arrays of a group."""

_METADATA = (".zarray", ".zattrs", ".zgroup", "zarr.json")
_LARGEST = 2**22
"""Bytes of metadata, or of a chunk of coordinates: those of a product are some KB, and are parsed before they are
judged."""
_MOST_KEPT = 2**26
"""Bytes that a process keeps of all groups; of one they are some 50 KB."""
_A_KEY = 200
"""Bytes that a key takes beside what it is of."""

Bounds = Callable[[int], tuple[int, int]]
"""First byte and the one after the last that are wanted, given the size of a file."""


def split_address(address: str) -> tuple[str, str]:
    """An array's group, and the array's name in it; the group keeps the query of an address.

    >>> split_address("https://example.org/p.zarr/r10m/b02?sig=1")
    ('https://example.org/p.zarr/r10m?sig=1', 'b02')
    """
    if not is_web(address):
        return str(Path(address).parent), Path(address).name
    parts = urlsplit(address)
    group, _, name = parts.path.rstrip("/").rpartition("/")
    return urlunsplit(parts._replace(path=group)), name


class _Kept:
    """Metadata and coordinates of the groups that were read last, so that they are asked for once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[str, dict[str, bytes | None]] = OrderedDict()
        self._bytes = 0

    def of(self, group: str) -> dict[str, bytes | None]:
        """What is known of a group by key; None: it does not hold that key."""
        with self._lock:
            if group not in self._groups:
                return {}
            self._groups.move_to_end(group)
            return dict(self._groups[group])

    def keep(self, group: str, key: str, content: bytes | None) -> None:
        """Note what a key holds; groups make room that were read longer ago."""
        with self._lock:
            known = self._groups.setdefault(group, {})
            self._groups.move_to_end(group)
            if key in known:
                self._bytes -= _size(known[key])
            known[key] = content
            self._bytes += _size(content)
            while self._bytes > _MOST_KEPT:
                self._bytes -= _size(*self._groups.popitem(last=False)[1].values())

    def forget(self, group: str) -> None:
        """Ask for everything anew."""
        with self._lock:
            self._bytes -= _size(*self._groups.pop(group, {}).values())


def _size(*contents: bytes | None) -> int:
    return sum(_A_KEY + len(content or b"") for content in contents)


_KEPT = _Kept()
"""Of remote groups, for all of this process."""


class GroupFiles:
    """The files of one group."""

    def __init__(self, group: str, opener: Opener | None) -> None:
        self.group = group
        self._opener = opener
        self._kept = _KEPT if is_web(group) else _Kept()
        self._asked: set[str] = set()
        self.absent: set[str] = set()
        """Keys of chunks that were asked for and that the group does not hold."""
        self.fault: RuntimeError | None = None
        """What went wrong here, or in the cluster, rather than with a file."""

    @property
    def known(self) -> tuple[str, ...]:
        """Keys that the group was found to hold, of those that are kept."""
        return tuple(key for key, content in self._kept.of(self.group).items() if content is not None)

    def read(self, key: str, bounds: Bounds | None) -> bytes | None:
        """The bytes of a key, all of them where `bounds` is None; None where there is no such key. Raises OSError."""
        known = self._kept.of(self.group)
        if bounds is None and key in known:
            return known[key]
        return self._fetched(key, bounds)

    def _fetched(self, key: str, bounds: Bounds | None) -> bytes | None:
        is_kept = key.rpartition("/")[2] in _METADATA or key.partition("/")[0] in AXES
        limited = partial(_limited, key, bounds) if is_kept else bounds
        try:
            content = self._local(key, limited) if not is_web(self.group) else self._remote(key, limited)
        except FileNotFoundError:
            content = None
        except RuntimeError as error:
            self.fault = error
            raise
        if is_kept and bounds is None:
            self._kept.keep(self.group, key, content)
        elif content is None and not is_kept:
            self.absent.add(key)
        return content

    def read_anew(self, key: str) -> bytes | None:
        """The bytes of a key as the server has them now, whatever is kept of it; else as `read`."""
        if is_web(self.group) and self._opener is not None:
            with suppress(OSError):
                self._opener(self._url(key)).forget()
        content = self._fetched(key, None)
        if content is None:
            self.forget()
        return content

    def forget(self) -> None:
        """Keep nothing of what was read here, so that whoever reads it next asks the server anew."""
        self._kept.forget(self.group)
        if self._opener is not None:
            for url in self._asked:
                with suppress(OSError):
                    self._opener(url).forget()

    def _url(self, key: str) -> str:
        parts = urlsplit(self.group)
        return urlunsplit(parts._replace(path=f"{parts.path}/{key}"))

    def _local(self, key: str, bounds: Bounds | None) -> bytes:
        with (Path(self.group) / key).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, stop = (0, size) if bounds is None else bounds(size)
            file.seek(start)
            return file.read(stop - start)

    def _remote(self, key: str, bounds: Bounds | None) -> bytes:
        url = self._url(key)
        if self._opener is None:
            raise OSError(f"{key}: a remote array is read through an opener; this source has none")
        file = self._opener(url)
        self._asked.add(url)
        try:
            size = file.seek(0, os.SEEK_END)
            start, stop = (0, size) if bounds is None else bounds(size)
            (content,) = file.get_byte_ranges([start], [stop - start])
        finally:
            file.close()
        if len(content) != stop - start:
            raise OSError(f"{key} is cut: {stop - start} bytes from {start} were asked for, {len(content)} came")
        return content


def _limited(key: str, bounds: Bounds | None, size: int) -> tuple[int, int]:
    """First byte and the one after the last of a file that is small; raises OSError where it is not."""
    if size > _LARGEST:
        raise OSError(f"{key} has {size} bytes; up to {_LARGEST} are read of metadata and of coordinates")
    return (0, size) if bounds is None else bounds(size)
