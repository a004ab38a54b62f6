"""Answers that were paid for, kept in the bounded cache of a host, so that a cell that was killed pays once."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sits_pipeline.sources.cache import RangeCache

__all__ = ["Keep"]


@lru_cache(maxsize=8)
def _cache(folder: Path, max_bytes: int) -> RangeCache:
    return RangeCache(folder, max_bytes)


@dataclass(frozen=True)
class Keep:
    """A folder of answers; what was not used for longest goes first. A relative one lies among temporary files."""

    folder: Path
    max_bytes: int

    def get(self, name: str) -> bytes | None:
        """The answer of a name, None where it is not there."""
        path = self._path(name)
        try:
            content = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        return content

    def put(self, name: str, content: bytes) -> None:
        """Keep an answer."""
        self._cache.write(self._path(name), content)

    def drop(self, name: str) -> None:
        """Remove an answer that cannot be read."""
        self._path(name).unlink(missing_ok=True)

    @property
    def _cache(self) -> RangeCache:
        return _cache(Path(tempfile.gettempdir(), self.folder), self.max_bytes)

    def _path(self, name: str) -> Path:
        return self._cache.place(name) / "answer.block"
