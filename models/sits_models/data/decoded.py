"""Decoded pixels that outlive their reader, for processes that train on the same cubes again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from sits_models.data.chunks import ChunkCache, ChunksRead
from sits_models.data.cubes import CubeFacts

__all__ = ["cache_of", "keep_decoded"]


@dataclass
class _Kept:
    limit: int
    """Bytes of a cache."""
    caches: dict[object, ChunkCache] = field(default_factory=dict)


_KEPT: ContextVar[_Kept | None] = ContextVar("decoded", default=None)


def cache_of(cubes: Sequence[CubeFacts], what: Sequence[ChunksRead], *, limit: int) -> ChunkCache:
    """A cache for the decoded chunks of these cubes: a new one of `limit` bytes, or, within `keep_decoded`, the one
    that was made there for the same chunks of the same cubes."""
    kept = _KEPT.get()
    if kept is None:
        return ChunkCache(limit)
    key = tuple((facts.path, facts.config_sha256, one) for facts, one in zip(cubes, what, strict=True))
    return kept.caches.setdefault(key, ChunkCache(max(limit, kept.limit)))


@contextmanager
def keep_decoded(megabytes: float) -> Iterator[None]:
    """While inside, readers of this thread share what they decode of the same cubes, of each set of cubes so much."""
    token = _KEPT.set(_Kept(int(megabytes * 1e6)))
    try:
        yield
    finally:
        _KEPT.reset(token)
