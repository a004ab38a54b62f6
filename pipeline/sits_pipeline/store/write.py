"""A cell into the store: one NumPy block an array, whole shards, each with its SHA-256."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.buffer import Buffer
from zarr.storage import WrapperStore

from sits_catalog.cube import OVERVIEW_FACTOR
from sits_pipeline.folder import Folder
from sits_pipeline.store.group import store_of
from sits_pipeline.values import Window

__all__ = ["FUSED_PIPELINE", "HashingStore", "Written", "write_cell"]


class _FusedPipeline:
    """While any thread is inside: zarr's codec pipeline without a coroutine a chunk, which gives the same bytes.

    It takes a third of the time for the small label arrays. zarr's configuration is the process's, so that the last
    thread that leaves puts back what the first one found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = zarr.config.get(_SETTING)
                zarr.config.set({_SETTING: "zarr.core.codec_pipeline.FusedCodecPipeline"})
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                zarr.config.set({_SETTING: self._before})


_SETTING = "codec_pipeline.path"
FUSED_PIPELINE = _FusedPipeline()


@dataclass(frozen=True)
class Written:
    """One stored shard."""

    size: int
    sha256: str


class HashingStore(WrapperStore[Store]):
    """Remembers size and SHA-256 of what passes through on its way to the store."""

    def __init__(self, store: Store, written: dict[str, Written] | None = None) -> None:
        super().__init__(store)
        self.written = {} if written is None else written

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self.written)

    async def set(self, key: str, value: Buffer) -> None:
        """Store a value."""
        view = value.as_buffer_like()
        digest = (await asyncio.to_thread(hashlib.sha256, view)).hexdigest()
        await self._store.set(key, value)
        self.written[key] = Written(size=len(value), sha256=digest)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Store a value."""
        digest = hashlib.sha256(value.as_buffer_like()).hexdigest()
        super().set_sync(key, value)
        self.written[key] = Written(size=len(value), sha256=digest)


def write_cell(folder: Folder, window: Window, blocks: Iterable[tuple[str, NDArray[Any]]]) -> dict[str, Written]:
    """Write blocks of a cell: (array path, values whose last two dims are the cell's y and x at the array's scale).

    Returns what was stored, by key inside of `cube.zarr`. A shard that is all fill value is not stored; one that was
    there before is removed. Raises ValueError where a block does not cover whole shards.
    """
    store = HashingStore(store_of(folder, read_only=False))
    with FUSED_PIPELINE, folder.writing():
        group = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        for path, block in blocks:
            array = group[path]
            if not isinstance(array, zarr.Array):
                raise TypeError(f"{path} is a group of the cube, not an array")
            array[_selection(array, path, window, block)] = block
    return dict(sorted(store.written.items()))


def _selection(array: zarr.Array[Any], path: str, window: Window, block: NDArray[Any]) -> tuple[slice, ...]:
    """Where a block goes; checks that it covers the cell and is made of whole shards."""
    scale = _scale_of(path)
    shard = array.shards or array.chunks
    selection: list[slice] = [slice(None)] * (array.ndim - 2)
    for axis, start, size in ((-2, window.row, window.height), (-1, window.column, window.width)):
        first = start * scale[0] // scale[1]
        last = -(-(start + size) * scale[0] // scale[1])
        if block.shape[axis] != last - first:
            raise ValueError(f"a block of {path} must have the cell's {last - first} px; got {block.shape[axis]}")
        whole_end = last % shard[axis] == 0 or last == array.shape[axis]
        if first % shard[axis] or not whole_end:
            raise ValueError(
                f"a cell must cover whole shards of {shard[axis]} px in {path}; got pixels {first} to {last} "
                f"of {array.shape[axis]}"
            )
        selection.append(slice(first, last))
    return tuple(selection)


def _scale_of(path: str) -> tuple[int, int]:
    """Pixels of an array a cube pixel, as a fraction."""
    group = path.rpartition("/")[0]
    if group == "overview":
        return 1, OVERVIEW_FACTOR
    if group:
        return int(group.removeprefix("labels_x")), 1
    return 1, 1
