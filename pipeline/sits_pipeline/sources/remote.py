"""Between GDAL and our own remote files: GDAL's callbacks lose errors, so they are kept here."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlsplit

from rasterio.abc import MultiByteRangeResourceContainer

from sits_pipeline.folder import CannotWrite
from sits_pipeline.sources.base import ServiceDown

__all__ = ["Opener", "RemoteFile", "WatchedOpener"]


class RemoteFile(Protocol):
    """A remote file as a seekable stream of bytes."""

    def seek(self, offset: int, whence: int = ..., /) -> int:
        """Move to a byte."""
        ...

    def tell(self) -> int:
        """The byte that is read next."""
        ...

    def read(self, size: int = ..., /) -> bytes:
        """Bytes from here on; raises OSError."""
        ...

    def get_byte_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """The bytes of several ranges, each complete; raises OSError."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...

    def forget(self) -> None:
        """Keep nothing of it, so that whoever opens it next asks the server anew."""
        ...


Opener = Callable[[str], RemoteFile]
"""Opens a remote address: an http(s) URL, or s3:// where its signer knows that; raises OSError."""


class WatchedOpener(MultiByteRangeResourceContainer):  # type: ignore[misc]  # rasterio is not typed
    """What rasterio opens instead of one URL.

    An exception in a callback would be printed and dropped, and GDAL might take what stands in its buffer for data:
    whoever reads through this asks `error` before believing a pixel.
    """

    def __init__(self, url: str, opener: Opener) -> None:
        self.error: Exception | None = None
        """The first thing that went wrong; ServiceDown and CannotWrite before all else."""
        self.name = PurePosixPath(urlsplit(url).path).name or "file"
        """Of the file, without folder, host and query: what rasterio is to be told."""
        self._url = url
        self._opener = opener
        self._file: RemoteFile | None = None

    def forget(self) -> None:
        """Keep nothing of the file for the next read."""
        if self._file is not None:
            self._file.forget()

    def note(self, error: Exception) -> None:
        """Remember what went wrong first, or that no further read will do better."""
        lasting = ServiceDown | CannotWrite
        if self.error is None or (isinstance(error, lasting) and not isinstance(self.error, lasting)):
            self.error = error

    def open(self, _path: str, _mode: str = "r", **_options: Any) -> _WatchedFile:
        """The file; GDAL adds a prefix of its own to the path."""
        try:
            self._file = self._opener(self._url)
        except Exception as error:
            self.note(error)
            raise
        return _WatchedFile(self, self._file)

    def size(self, path: str) -> int:
        """Bytes of the file."""
        if path.rpartition("/")[2] != self.name:  # rasterio tries each opener on "test/test"
            raise FileNotFoundError(path)
        file = self.open(path)
        with file:
            return file.seek(0, os.SEEK_END)

    def isfile(self, _path: str) -> bool:
        """There is nothing but the file."""
        return True

    def isdir(self, _path: str) -> bool:
        """There is nothing but the file."""
        return False

    def ls(self, _path: str) -> list[str]:
        """There is nothing but the file."""
        return []

    def mtime(self, _path: str) -> int:
        """Unknown."""
        return 0

    def rm(self, _path: str) -> None:
        """Refused."""
        raise OSError("remote files are only read")


class _WatchedFile:
    """A file whose failed reads are short for GDAL and remembered for us."""

    def __init__(self, container: WatchedOpener, file: RemoteFile) -> None:
        self._container = container
        self._file = file

    def __enter__(self) -> _WatchedFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:  # noqa: BLE001  # raised by whoever reads: past GDAL it would be lost
            self._container.note(error)
            return b""

    def get_byte_ranges(self, offsets: list[int], sizes: list[int]) -> list[bytes]:
        try:
            parts = self._file.get_byte_ranges(offsets, sizes)
        except Exception as error:  # noqa: BLE001  # as above
            self._container.note(error)
            return [b"" for _ in sizes]
        for offset, size, part in zip(offsets, sizes, parts, strict=True):
            if len(part) < size:  # GDAL does not look: what stood in its buffer before would pass for the file's
                self._container.note(OSError(f"the file is cut: {size} bytes from {offset} were asked for"))
        return parts
