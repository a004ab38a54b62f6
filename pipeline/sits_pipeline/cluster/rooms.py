"""Which workers have room for a cell: a bound a worker, since memory that is free on one is of no use to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distributed import Client

__all__ = ["AnyWorker", "Room", "Rooms", "WorkerRooms"]


@dataclass(frozen=True)
class Room:
    """Where one cell may be computed."""

    address: str | None
    """A worker's; None: whichever the scheduler chooses."""


class Rooms(Protocol):
    """What a cluster can hold."""

    @property
    def may_change(self) -> bool:
        """Whether workers may join and leave, so that it is worth while to `look`."""
        ...

    def look(self) -> None:
        """Ask which workers there are now."""
        ...

    def has(self, room: Room) -> bool:
        """Whether the worker of a room is still there."""
        ...

    def free(self, used: Sequence[Room]) -> Iterator[Room]:
        """A room for each cell that can be sent now, where `used` are taken."""
        ...


@dataclass(frozen=True)
class AnyWorker:
    """So many cells for workers that were made alike, one thread a cell that fits."""

    n_cells: int

    @property
    def may_change(self) -> bool:
        """Our own workers stay."""
        return False

    def look(self) -> None:
        """Nothing to see."""

    def has(self, room: Room) -> bool:
        """All rooms stay."""
        return room.address is None

    def free(self, used: Sequence[Room]) -> Iterator[Room]:
        """Rooms that any worker may take."""
        for _ in range(self.n_cells - len(used)):
            yield Room(None)


class WorkerRooms:
    """The workers of a given scheduler, each with as many cells as it has memory and threads for."""

    def __init__(self, client: Client, cell_bytes: int) -> None:
        """Raises OSError where there is no worker, MemoryError where none can hold a single cell."""
        self._client, self._cell_bytes = client, cell_bytes
        workers = self._workers()
        if not workers:
            raise OSError("the Dask scheduler has no workers; start some with `dask worker ADDRESS` and try again")
        self._rooms = {address: self._fits(worker) for address, worker in workers.items()}
        if self.capacity < 1:
            largest = max(worker["memory_limit"] for worker in workers.values())
            raise MemoryError(
                f"one cell needs {cell_bytes / 1e9:.1f} GB of memory, the largest worker has {largest / 1e9:.1f} GB; "
                "choose smaller cells with --cell, or start workers with more memory"
            )

    @property
    def capacity(self) -> int:
        """Cells that all workers together can hold."""
        return sum(self._rooms.values())

    @property
    def may_change(self) -> bool:
        """Others start and stop them."""
        return True

    def look(self) -> None:
        """Ask the scheduler which workers there are now."""
        workers = self._workers()
        if workers is None:
            return
        # One that is paused, or about to leave, takes no cell now.
        self._rooms = {
            address: self._fits(worker) if worker["status"] == "running" else 0 for address, worker in workers.items()
        }

    def has(self, room: Room) -> bool:
        """Whether the scheduler knows this worker."""
        return room.address in self._rooms

    def free(self, used: Sequence[Room]) -> Iterator[Room]:
        """Rooms, those of the worker with most of them first, so that cells spread over workers."""
        taken = Counter(room.address for room in used)
        left = {address: fits - taken[address] for address, fits in self._rooms.items()}
        while left and left[address := max(left, key=lambda worker: left[worker])] > 0:
            left[address] -= 1
            yield Room(address)

    def _workers(self) -> Mapping[str, Mapping[str, Any]] | None:
        """The workers by address; None where the scheduler does not answer."""
        found: Mapping[str, Mapping[str, Any]] | None = self._client.scheduler_info(n_workers=-1).get("workers")
        return found

    def _fits(self, worker: Mapping[str, Any]) -> int:
        """Cells that a worker can hold."""
        # A limit of 0 is none.
        by_memory = worker["memory_limit"] // self._cell_bytes if worker["memory_limit"] else worker["nthreads"]
        return int(min(worker["nthreads"], by_memory))
