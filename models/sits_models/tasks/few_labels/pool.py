"""Runs side by side, each in a process of its own with one thread that ends with the process which started it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process

__all__ = ["in_processes"]


def in_processes[T, R](
    work: Callable[[T], R], items: Sequence[T], *, jobs: int, begin: Callable[[], None] | None = None
) -> Iterator[tuple[T, R]]:
    """Each item with what `work` makes of it, as soon as it is made, of `jobs` items at a time.

    `work` and `begin`, which each process calls first, are functions of modules. Whatever `work` raises is raised here,
    after all that had begun by then have been given; the others are not begun.
    """
    with _environment(OMP_NUM_THREADS="1"):  # before torch is imported there
        context = get_context("spawn")
        with ProcessPoolExecutor(
            min(jobs, len(items)), mp_context=context, initializer=_begin, initargs=(begin,)
        ) as pool:
            waiting = {pool.submit(work, item): item for item in items}
            error: BaseException | None = None
            try:
                for future in as_completed(tuple(waiting)):
                    item, error = waiting.pop(future), future.exception()
                    if error is not None:
                        break
                    yield item, future.result()
                # One that cannot be cancelled has begun.
                begun = {future: item for future, item in waiting.items() if not future.cancel()}
                for future in as_completed(begun):
                    if future.exception() is None:
                        yield begun[future], future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            if error is not None:
                raise error


def _begin(begin: Callable[[], None] | None) -> None:
    """In a process of its own: one thread, and no life after the process that started it."""
    import torch

    torch.set_num_threads(1)
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    if begin is not None:
        begin()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """These variables, for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
