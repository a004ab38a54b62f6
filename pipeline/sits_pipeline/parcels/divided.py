"""A file that was divided into numbered parts (.001, .002, ...), read as one."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

__all__ = ["FIRST", "DividedFile", "parts_of"]

FIRST = ".001"
"""Suffix of the first part."""


def parts_of(first: str) -> tuple[Path, ...]:
    """The parts of the file whose first part is `first`, in order; ValueError where one between them is missing."""
    stem = Path(first.removesuffix(FIRST))
    numbered = {
        int(part.suffix[1:]): part
        for part in stem.parent.iterdir()
        if part.stem == stem.name and len(part.suffix) == len(FIRST) and part.suffix[1:].isdigit()
    }
    for number in range(1, max(numbered) + 1):
        if number not in numbered:
            raise ValueError(
                f"{first} is the first of {max(numbered)} parts, and part {number} ({stem.name}.{number:03d}) is not "
                "beside it; download it to the same folder"
            )
    return tuple(numbered[number] for number in sorted(numbered) if number)


class DividedFile(io.RawIOBase):
    """The bytes of several files, one after another, for reading and seeking."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._paths = tuple(paths)
        self._starts = [0, *accumulate(path.stat().st_size for path in paths)]
        self._at = 0
        self._open: tuple[int, io.FileIO] | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Position in bytes from the start of the first part."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position and return it."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # typeshed says Buffer, which 3.12 names
        """Fill `buffer` as far as the current part reaches; 0 at the end of the last part."""
        if self._at >= self._starts[-1]:
            return 0
        index = bisect_right(self._starts, self._at) - 1
        file = self._part(index)
        file.seek(self._at - self._starts[index])
        read = file.readinto(buffer) or 0
        self._at += read
        return read

    def _part(self, index: int) -> io.FileIO:
        if self._open is None or self._open[0] != index:
            if self._open is not None:
                self._open[1].close()
            self._open = index, io.FileIO(self._paths[index])
        return self._open[1]

    def close(self) -> None:
        """Close the part that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
        super().close()
