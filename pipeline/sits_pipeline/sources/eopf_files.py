"""The files of a group of an EOPF product, by key: local ones, or remote ones through an opener."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from sits_pipeline.sources.remote import Opener
from sits_pipeline.sources.web import is_web

__all__ = ["AXES", "GroupFiles", "split_address"]

AXES = ("y", "x")
"""Names of the coordinates beside the arrays of a group."""

_METADATA = (".zarray", ".zattrs", ".zgroup", "zarr.json")
_KEPT_GROUPS = 1024

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
    """Metadata and coordinates of the remote groups that this process read last, so that they are asked for once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[str, dict[str, bytes | None]] = OrderedDict()

    def of(self, group: str) -> dict[str, bytes | None]:
        """What is known of a group by key; None: it does not hold that key."""
        with self._lock:
            known = self._groups.pop(group, {})
            self._groups[group] = known
            if len(self._groups) > _KEPT_GROUPS:
                self._groups.popitem(last=False)
            return known

    def forget(self, group: str) -> None:
        """Ask for everything anew."""
        with self._lock:
            self._groups.pop(group, None)


_KEPT = _Kept()


class GroupFiles:
    """The files of one group."""

    def __init__(self, group: str, opener: Opener | None) -> None:
        self.group = group
        self._opener = opener
        self._known = _KEPT.of(group) if is_web(group) else {}
        self._read: set[str] = set()
        self.absent: set[str] = set()
        """Keys of chunks that were asked for and that the group does not hold."""
        self.fault: RuntimeError | None = None
        """What went wrong here, or in the cluster, rather than with a file."""

    @property
    def known(self) -> tuple[str, ...]:
        """Keys that the group was found to hold, of those that are kept."""
        return tuple(key for key, content in list(self._known.items()) if content is not None)

    def read(self, key: str, bounds: Bounds | None) -> bytes | None:
        """The bytes of a key, all of them where `bounds` is None; None where there is no such key. Raises OSError."""
        if bounds is None and key in self._known:
            return self._known[key]
        try:
            content = self._local(key, bounds) if not is_web(self.group) else self._remote(key, bounds)
        except FileNotFoundError:
            content = None
        except RuntimeError as error:
            self.fault = error
            raise
        if key.rpartition("/")[2] in _METADATA or key.partition("/")[0] in AXES:
            if bounds is None:
                self._known[key] = content
        elif content is None:
            self.absent.add(key)
        return content

    def read_anew(self, key: str) -> bytes | None:
        """The bytes of a key as the server has them now, whatever is kept of it; else as `read`."""
        self._known.pop(key, None)
        if is_web(self.group) and self._opener is not None:
            with suppress(OSError):
                self._opener(self._url(key)).forget()
        content = self.read(key, None)
        if content is None:
            self.forget()
        return content

    def forget(self) -> None:
        """Keep nothing of what was read here, so that whoever reads it next asks the server anew."""
        _KEPT.forget(self.group)
        if self._opener is not None:
            for url in self._read:
                with suppress(OSError):
                    self._opener(url).forget()

    def _url(self, key: str) -> str:
        parts = urlsplit(self.group)
        return urlunsplit(parts._replace(path=f"{parts.path}/{key}"))

    def _local(self, key: str, bounds: Bounds | None) -> bytes:
        content = (Path(self.group) / key).read_bytes()
        return content if bounds is None else content[slice(*bounds(len(content)))]

    def _remote(self, key: str, bounds: Bounds | None) -> bytes:
        url = self._url(key)
        if self._opener is None:
            raise OSError(f"{key}: a remote array is read through an opener; this source has none")
        file = self._opener(url)
        self._read.add(url)
        try:
            size = file.seek(0, os.SEEK_END)
            start, stop = (0, size) if bounds is None else bounds(size)
            (content,) = file.get_byte_ranges([start], [stop - start])
        finally:
            file.close()
        if len(content) != stop - start:
            raise OSError(f"{key} is cut: {stop - start} bytes from {start} were asked for, {len(content)} came")
        return content
