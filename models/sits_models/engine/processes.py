"""Processes that train together: how they find each other, what they exchange, and who speaks of an error."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed import all_gather_object, all_reduce, broadcast, destroy_process_group, init_process_group

from sits_models.device import Rank
from sits_models.recipe import Recipe

__all__ = ["SAID", "Processes", "check_devices", "joined"]

SAID = "the first process says so"
"""Note on an error that all processes raise: those after the first need not say it again."""


class Processes:
    """The processes that train together, as one of them sees them; one that is alone exchanges nothing.

    All of them call the same methods in the same order.
    """

    def __init__(self, rank: Rank | None = None) -> None:
        self.rank = rank or Rank()

    @property
    def alone(self) -> bool:
        """Whether there is one process only."""
        return self.rank.of == 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes of tensors of one shape, on the device where they lie."""
        if self.alone:
            return tensor
        total = tensor.clone()
        all_reduce(total)
        return total

    def gather[T](self, value: T) -> list[T]:
        """What each process has, in their order; values that pickle."""
        if self.alone:
            return [value]
        every: list[T] = [value] * self.rank.of
        all_gather_object(every, value)
        return every

    def of_first[T](self, value: T) -> T:
        """What the first process has."""
        return self.gather(value)[0]

    def take_buffers(self, module: nn.Module) -> None:
        """Give all processes the first one's buffers, such as running statistics of batch norms."""
        if not self.alone:
            for buffer in module.buffers():
                sent = buffer.contiguous()
                broadcast(sent, src=0)
                buffer.copy_(sent)

    def agree[T](self, work: Callable[[], T]) -> T:
        """What `work` gives in this process, or the error of the first process where it fails, raised in all of them.

        Its kind is that of the error, or the built-in one that this derives from. `work` exchanges nothing.
        """
        if self.alone:
            return work()
        result, error = None, None
        try:
            result = work()
        except Exception as caught:  # noqa: BLE001  # raised below, in every process
            error = caught
        failed = [(n, found) for n, found in enumerate(self.gather(_travelling(error))) if found is not None]
        if not failed:
            return result  # type: ignore[return-value]  # without an error it is what work gave
        number, (kind, text) = failed[0]
        if number > 0:
            text = f"process {number} of {self.rank.of}: {text}"
        raise self.said(_made(kind, text)) from error

    def said[E: Exception](self, error: E) -> E:
        """An error that all processes raise, marked so that the first one alone speaks of it."""
        if not self.rank.first:
            error.add_note(SAID)
        return error


@contextmanager
def joined(rank: Rank) -> Iterator[Processes]:
    """The processes of which this is one, while they can reach each other: by gloo, and by NCCL between GPUs."""
    if rank.of == 1:
        yield Processes(rank)
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    init_process_group(backend, rank=rank.number, world_size=rank.of)
    yield Processes(rank)
    # Not after an error: others may wait for what this process will not send, and its end is what tells them.
    destroy_process_group()


def check_devices(recipe: Recipe, rank: Rank) -> None:
    """Raises ValueError where the processes are more than the chips of a batch, or than the GPUs of a machine."""
    if rank.of > recipe.data.batch:
        raise ValueError(
            f"{rank.of} processes cannot share a batch of {recipe.data.batch} chips; start as many as that at most, or "
            f"set data.batch={rank.of}"
        )
    here, gpus = rank.of // rank.machines, torch.cuda.device_count()
    if here > gpus > 0:
        raise ValueError(
            f"{here} processes on a machine with {gpus} GPUs; start one a GPU, or hide the GPUs with "
            "CUDA_VISIBLE_DEVICES= to compute on the CPU"
        )


def _travelling(error: Exception | None) -> tuple[type[Exception], str] | None:
    """Kind and text of an error, without what does not pickle."""
    if error is None:
        return None
    kinds = (kind for kind in type(error).__mro__ if kind.__module__ == builtins.__name__)
    return next(kind for kind in kinds if issubclass(kind, Exception)), str(error)


def _made(kind: type[Exception], text: str) -> Exception:
    try:
        return kind(text)
    except TypeError:  # such as a UnicodeDecodeError, which takes five values
        return ValueError(text) if issubclass(kind, ValueError) else RuntimeError(text)
