"""Which workers have room for a cell: a bound a worker, since memory that is free on one is of no use to another."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from distributed import Client

from sits_pipeline.cluster.link import Link
from sits_pipeline.plan import CellMemory

__all__ = ["AnyWorker", "Room", "Rooms", "WorkerRooms"]

_SILENT_S = 60.0
"""A worker is taken to hang when nothing is heard of it for so long: it says something every second or few, but a step
that holds Python's lock keeps it from that for seconds."""
_STRIDE_S = 5.0
"""Between two looks a worker is silent for no longer than this: it may have been the scheduler, or this process."""
_ANSWER_S = 10.0
"""How long the scheduler may take to say which workers there are."""

_UNDER_WAY = ("executing", "long-running", "cancelled", "resumed")
"""A worker's tasks that a thread of it computes; one that was cancelled meanwhile cannot be stopped."""


@dataclass(frozen=True)
class Room:
    """Where one cell may be computed."""

    address: str | None
    """A worker's; None: whichever the scheduler chooses."""
    process: str = ""
    """Tells the worker from another one that is started at the same address."""


class Rooms(Protocol):
    """What a cluster can hold."""

    def look(self) -> None:
        """Ask which workers there are now. Raises OSError where the scheduler does not answer."""
        ...

    def forget(self) -> None:
        """Whatever was known of workers is no longer."""
        ...

    def has(self, room: Room) -> bool:
        """Whether the worker of a room is still there."""
        ...

    def is_silent(self, room: Room) -> bool:
        """Whether nothing is heard of the worker of a room."""
        ...

    def abandon(self, room: Room) -> None:
        """A cell that is no longer waited for may still be computed there."""
        ...

    def addresses(self) -> Sequence[str | None]:
        """Where cells may be computed now."""
        ...

    def free(self, used: Sequence[Room]) -> Iterator[Room]:
        """A room for each cell that can be sent now, where `used` are taken."""
        ...


@dataclass(frozen=True)
class AnyWorker:
    """So many cells for workers that were made alike, one thread a cell that fits."""

    n_cells: int

    def look(self) -> None:
        """Nothing to see: our own workers stay."""

    def forget(self) -> None:
        """Nothing is known."""

    def has(self, room: Room) -> bool:
        """All rooms stay."""
        return room.address is None

    def is_silent(self, room: Room) -> bool:
        """Threads of this process are heard while it lives."""
        return room.address is not None

    def abandon(self, room: Room) -> None:
        """The scheduler knows which threads are free."""

    def addresses(self) -> Sequence[str | None]:
        """Any."""
        return (None,)

    def free(self, used: Sequence[Room]) -> Iterator[Room]:
        """Rooms that any worker may take."""
        for _ in range(self.n_cells - len(used)):
            yield Room(None)


@dataclass(frozen=True, kw_only=True)
class _Worker:
    """What was last heard of a worker."""

    process: str
    fits: int
    """Cells that it has memory and threads for."""
    is_running: bool
    """It is neither paused nor about to leave."""
    last_seen: float
    """When the scheduler heard of it, by the scheduler's clock."""
    silent_s: float
    """For how long it has not changed."""
    patience_s: float
    """When it is taken to hang."""
    unwanted: int
    """Tasks beyond those that anybody waits for, as it last said."""
    orphans: int
    """The same, as it has said twice: what it says is older than what the scheduler knows."""

    @property
    def is_silent(self) -> bool:
        """Whether nothing was heard of it for too long."""
        return self.silent_s >= self.patience_s

    @property
    def offers(self) -> int:
        """Cells of ours that it may hold."""
        return self.fits - self.orphans if self.is_running and not self.is_silent else 0

    def heard_again(self, before: _Worker | None, waited_s: float) -> Self:
        """This, with what was heard `before`, so long ago."""
        if before is None or before.process != self.process:
            return self
        if before.last_seen == self.last_seen:
            # What it said then is compared with what is waited for then, not with what has been sent since.
            silent_s = before.silent_s + min(waited_s, _STRIDE_S)
            return replace(self, silent_s=silent_s, unwanted=before.unwanted, orphans=before.orphans)
        return replace(self, orphans=min(before.unwanted, self.unwanted))


class WorkerRooms:
    """The workers of a scheduler, each with as many cells as it has memory and threads for.

    Each look asks the scheduler what it heard of them. Times are those between our looks: clocks of several machines
    are never compared.
    """

    def __init__(self, link: Link, cell: CellMemory, *, patience_s: float | None = None) -> None:
        """`patience_s`: when a worker of which nothing is heard is taken to hang; None: after a minute.

        Raises OSError where there is no worker, MemoryError where none can hold a single cell, shard by shard.
        """
        self._link, self._cell_bytes = link, cell.first
        self._patience_s = _SILENT_S if patience_s is None else patience_s
        self._workers: dict[str, _Worker] = {}
        self._looked = time.monotonic()
        found, _ = self._ask()
        if not found:
            raise OSError("the Dask scheduler has no workers; start some with `dask worker ADDRESS` and try again")
        if not any(map(self._fits, found.values())):
            self._cell_bytes = cell.least
        if not any(map(self._fits, found.values())):
            largest = max(worker["memory_limit"] for worker in found.values())
            raise MemoryError(
                f"{cell.name} needs {cell.least / 1e9:.1f} GB of memory even shard by shard, the largest worker has "
                f"{largest / 1e9:.1f} GB; start workers with a larger --memory-limit, or choose fewer dates or bands"
            )
        self.look()

    @property
    def cell_bytes(self) -> int:
        """What each cell is taken to need: all of it, or of its shards where no worker can hold it whole."""
        return self._cell_bytes

    @property
    def capacity(self) -> int:
        """Cells that all workers together can hold."""
        return sum(worker.fits for worker in self._workers.values())

    def look(self) -> None:
        """Ask the scheduler which workers there are now. Raises OSError where it does not answer."""
        found, wanted = self._ask()
        waited_s, self._looked = time.monotonic() - self._looked, time.monotonic()
        self._workers = {
            address: self._heard(worker, len(wanted.get(address, ()))).heard_again(self._workers.get(address), waited_s)
            for address, worker in found.items()
        }

    def forget(self) -> None:
        """Look at all workers for the first time: what they compute now is not ours."""
        self._workers = {}
        self._looked = time.monotonic()

    def has(self, room: Room) -> bool:
        """Whether the scheduler knows this worker and hears of it."""
        worker = self._workers.get(room.address or "")
        return worker is not None and worker.process == room.process and not worker.is_silent

    def is_silent(self, room: Room) -> bool:
        """Whether it is known and not heard of."""
        worker = self._workers.get(room.address or "")
        return worker is not None and worker.process == room.process and worker.is_silent

    def abandon(self, room: Room) -> None:
        """Count one more task that takes memory there, until the worker says otherwise."""
        worker = self._workers.get(room.address or "")
        if worker is not None and worker.process == room.process:
            counted = replace(worker, unwanted=worker.unwanted + 1, orphans=worker.orphans + 1)
            self._workers[room.address or ""] = counted

    def addresses(self) -> Sequence[str | None]:
        """Workers that take cells at all."""
        return [address for address, worker in self._workers.items() if worker.offers > 0]

    def free(self, used: Sequence[Room]) -> Iterator[Room]:
        """Rooms, those of the worker with most of them first, so that cells spread over workers."""
        taken = Counter(room.address for room in used)
        left = {address: worker.offers - taken[address] for address, worker in self._workers.items()}
        while left and left[address := max(left, key=lambda worker: left[worker])] > 0:
            left[address] -= 1
            yield Room(address, self._workers[address].process)

    def _ask(self) -> tuple[Mapping[str, Mapping[str, Any]], Mapping[str, Sequence[object]]]:
        """The workers by address, and what is waited for at each."""
        client = self._link.client
        if not self._link.is_up:
            raise ConnectionError("there is no connection to the Dask scheduler")
        found, wanted = client.sync(_ask, client, asynchronous=False, callback_timeout=_ANSWER_S)
        return found, wanted

    def _heard(self, worker: Mapping[str, Any], n_wanted: int) -> _Worker:
        counts = worker["metrics"].get("task_counts", {})
        unwanted = max(0, sum(counts.get(state, 0) for state in _UNDER_WAY) - n_wanted)
        return _Worker(
            process=str(worker["local_directory"]),
            fits=self._fits(worker),
            is_running=worker["status"] == "running",
            last_seen=worker["last_seen"],
            silent_s=0.0,
            patience_s=self._patience_s,
            unwanted=unwanted,
            orphans=unwanted,
        )

    def _fits(self, worker: Mapping[str, Any]) -> int:
        """Cells that a worker can hold."""
        # A limit of 0 is none.
        by_memory = worker["memory_limit"] // self._cell_bytes if worker["memory_limit"] else worker["nthreads"]
        return int(min(worker["nthreads"], by_memory))


async def _ask(client: Client) -> tuple[Any, Any]:
    scheduler = client.scheduler
    if scheduler is None:
        raise ConnectionError("there is no connection to the Dask scheduler")
    identity = await scheduler.identity(n_workers=-1)
    return identity["workers"], await scheduler.processing(workers=None)
