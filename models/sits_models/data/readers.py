"""Readers side by side, threads or processes, that give batches in the order of their plans."""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from sits_models.data.chips import ChipReader
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube, calm_worker
from sits_models.data.sampling import BatchPlan, EpochPlan
from sits_models.recipe import DateRule
from sits_models.sample import Sample

__all__ = ["Plans", "ReaderSettings", "Workers", "read_in_threads"]

_AHEAD = 2
"""Batches that a reader prepares before the first of them is taken."""
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class ReaderSettings:
    """All that a reader is made from; it pickles."""

    cubes: tuple[Cube, ...]
    table: ClassTable | None
    bands: tuple[str, ...]
    dates: DateRule
    labels: int
    cache_mb: float
    pad_to: int
    known: tuple[NDArray[np.bool_], ...] | None = None
    """Of each cube, by parcel id, whose labels are known in the train split; None: all."""

    def open(self) -> ChipReader:
        """A reader with an empty cache."""
        return ChipReader(
            self.cubes,
            table=self.table,
            bands=self.bands,
            dates=self.dates,
            labels=self.labels,
            cache_mb=self.cache_mb,
            known=self.known,
        )

    def read(self, reader: ChipReader, plan: BatchPlan) -> Sample:
        """The batch that a plan asks for."""
        return reader.read(
            plan.places,
            size=plan.size,
            seeds=plan.seeds,
            pad_to=self.pad_to,
            around=plan.around,
            last=plan.last,
            split=plan.split,
            keep=plan.keep,
            shown=plan.shown,
        )


class Plans(Sequence[BatchPlan]):
    """The batches of an epoch from one on, made when they are asked for."""

    def __init__(self, plan: EpochPlan, start: int = 0) -> None:
        self._plan = plan
        self._numbers = range(start, len(plan))

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, number: int) -> BatchPlan: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[BatchPlan]: ...
    def __getitem__(self, number: int | slice) -> BatchPlan | Sequence[BatchPlan]:
        if isinstance(number, slice):
            return [self._plan[k] for k in self._numbers[number]]
        return self._plan[self._numbers[number]]


def read_in_threads(
    plans: Sequence[BatchPlan], read: Callable[[BatchPlan], Sample], *, threads: int
) -> Generator[Sample]:
    """The batches of the plans, in order; thread i reads every plan whose number is i modulo `threads`.

    An error in a thread is raised here, in place of its batch. When the iteration ends early the threads end too.
    """
    stop = threading.Event()
    queues = [queue.Queue[Sample | Exception](maxsize=_AHEAD) for _ in range(threads)]

    def work(first: int) -> None:
        for number in range(first, len(plans), threads):
            try:
                result: Sample | Exception = read(plans[number])
            except Exception as error:  # noqa: BLE001  # raised again where the batch is taken
                result = error
            if not _put(queues[first], result, stop) or isinstance(result, Exception):
                return

    workers = [threading.Thread(target=work, args=(i,), name=f"chips-{i}", daemon=True) for i in range(threads)]
    for worker in workers:
        worker.start()
    try:
        for number in range(len(plans)):
            result = queues[number % threads].get()
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def _put(into: queue.Queue[Sample | Exception], result: Sample | Exception, stop: threading.Event) -> bool:
    """Wait for room; False when nobody wants it any more."""
    while not stop.is_set():
        try:
            into.put(result, timeout=_POLL_S)
        except queue.Full:
            continue
        return True
    return False


class Workers:
    """Reader processes that stay for all epochs; process i reads every plan whose number is i modulo their number."""

    def __init__(
        self,
        settings: ReaderSettings,
        *,
        processes: int,
        start: Literal["forkserver", "spawn", "fork"],
        pin: bool = False,
    ) -> None:
        self.pin = pin
        """Whether batches come in page-locked memory."""
        self._plans = _Plans()
        self._batches: _BaseDataLoaderIter | None = None
        self._turn = 0
        self._loader: DataLoader[Sample | Exception] | None = DataLoader(
            _Batches(settings),
            batch_size=None,
            sampler=self._plans,
            collate_fn=_as_it_is,  # type: ignore[arg-type]  # without a batch size it gets one sample
            num_workers=processes,
            prefetch_factor=_AHEAD,
            multiprocessing_context=start,
            persistent_workers=True,
            worker_init_fn=_begin,
            pin_memory=pin,
        )

    def read(self, plans: Sequence[BatchPlan]) -> Iterator[Sample]:
        """The batches of the plans, in order; what is left of an earlier call is given up.

        An error in a process is raised here, in place of its batch; RuntimeError where a process is gone.
        """
        if self._loader is None:
            raise ValueError("these readers were closed; open the data again")
        self._plans.plans = plans
        self._turn += 1
        # The processes begin now, not with the first batch that is taken.
        with _gone_is_said():
            self._batches = iter(self._loader)
        return self._take(self._batches, self._turn)

    def _take(self, batches: _BaseDataLoaderIter, turn: int) -> Iterator[Sample]:
        while True:
            if self._loader is None or turn != self._turn:
                raise ValueError("the readers of this epoch were closed or began another one; begin the epoch again")
            try:
                with _gone_is_said():
                    result = next(batches)
            except StopIteration:
                return
            except BaseException:
                self.close()
                raise
            if isinstance(result, Exception):
                raise result
            yield result

    @property
    def is_closed(self) -> bool:
        """Whether the processes have ended, by `close` or by a fault."""
        return self._loader is None

    def close(self) -> None:
        """End the processes."""
        batches, self._batches, self._loader = self._batches, None, None
        if batches is not None:
            # The iterator ends them when it is collected, but whoever holds it may keep it alive.
            shutdown: Callable[[], None] = getattr(batches, "_shutdown_workers")  # noqa: B009  # not in its types
            shutdown()


@contextmanager
def _gone_is_said() -> Iterator[None]:
    """What a process that was killed leaves behind, an end of file or a word of DataLoader, becomes one sentence."""
    gone = "a reader process ended before its batch was there (out of memory?); use fewer data.readers or cache_mb"
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise RuntimeError(gone) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RuntimeError(gone) from error


class _Plans(Sampler[BatchPlan]):
    """What DataLoader takes its indices from: here they are the plans themselves."""

    def __init__(self) -> None:
        self.plans: Sequence[BatchPlan] = ()

    def __iter__(self) -> Iterator[BatchPlan]:
        return (self.plans[number] for number in range(len(self.plans)))

    def __len__(self) -> int:
        return len(self.plans)


class _Batches(Dataset[Sample | Exception]):
    """Reads a plan, with a reader that each process makes for itself: caches and locks do not travel."""

    def __init__(self, settings: ReaderSettings) -> None:
        self._settings = settings
        self._reader: ChipReader | None = None

    def __getitem__(self, plan: BatchPlan) -> Sample | Exception:
        """The batch, or the error: DataLoader would raise one whose message is a traceback."""
        try:
            if self._reader is None:
                self._reader = self._settings.open()
            return self._settings.read(self._reader, plan)
        except Exception as error:  # noqa: BLE001  # raised again where the batch is taken
            return _that_travels(error)


def _that_travels(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # written in the line
    except Exception:  # noqa: BLE001  # an error may hold anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _as_it_is(sample: Sample | Exception) -> Sample | Exception:
    return sample


def _begin(_worker: int) -> None:
    torch.set_num_threads(1)
    calm_worker()
