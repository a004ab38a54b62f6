"""How gradients and batch norms of several processes become those of one."""

# Annotations are not postponed here: DDP reads those of its hook.
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, override

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.distributed import GradBucket, all_gather, all_reduce, get_rank, get_world_size  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from sits_models.backbones.unet2d_clstm import StepBatchNorm
from sits_models.engine.processes import Processes
from sits_models.objectives.base import Objective
from sits_models.objectives.gathering import as_it_is
from sits_models.objectives.seco import SeasonalContrast
from sits_models.objectives.shuffling import Shuffled, here

__all__ = ["Together", "synchronized"]


class Together(DDPStrategy):
    """Gradients averaged by DDP while they are made; a validation in which a process may have fewer batches."""

    @override
    def on_train_start(self) -> None:
        # A signal ends the process, as it ends all of them, and the next start goes on after the last whole epoch.
        # Lightning's handler would exchange something, in the midst of whatever else is exchanged.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @override
    def configure_ddp(self) -> None:
        super().configure_ddp()
        if self.root_device.type == "cpu":
            assert isinstance(self.model, DistributedDataParallel)
            self.model.register_comm_hook(None, _mean_in_order)

    @override
    def validation_step(self, *args: Any, **kwargs: Any) -> None:
        # Not through DDP, whose forward pass waits for all processes.
        assert self.lightning_module is not None
        with self.precision_plugin.val_step_context():
            self.lightning_module.validation_step(*args, **kwargs)


def _mean_in_order(_: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """The mean of a bucket's gradients, added up in the order of the processes.

    Gloo adds in an order that depends on where in its bucket a gradient lies, and DDP lays the buckets out anew after
    the first step: after a restart the bits would be others.
    """
    mine = bucket.buffer()
    parts = [torch.empty_like(mine) for _ in range(get_world_size())]

    def mean(_: object) -> Tensor:
        total = parts[0]
        for part in parts[1:]:
            total += part
        return total.div_(len(parts))

    future: torch.futures.Future[Any] = all_gather(parts, mine, async_op=True).get_future()
    return future.then(mean)


@contextmanager
def synchronized(objective: Objective, processes: Processes) -> Iterator[None]:
    """Losses compare with what all processes have; and the batch norms of a recurrence, which torch does not know,
    normalise by the batch of all GPUs, as the others.

    Those of a second network, too, which encodes the keys. Not those of a backbone that leaves padded dates out: its
    steps are as many as the longest series of a part has dates. Without GPUs batch norms see a part alone, and the keys
    of a seasonal contrast are encoded in another process than their queries (MoCo, section 3.3); with them all see the
    whole batch, wherever a chip is.
    """
    backbone = objective.encoder.backbone
    together = not processes.alone and torch.cuda.is_available() and not backbone.ignores_padding
    norms = [module for module in objective.modules() if together and isinstance(module, StepBatchNorm)]
    for norm in norms:
        norm.summed = _summed
    # With batch norms of whole batches it makes no difference where a chip is encoded.
    shuffled = None
    if not processes.alone:
        objective.gathered = _gathered
        if isinstance(objective, SeasonalContrast) and not torch.cuda.is_available():
            shuffled, objective.apart = objective, Shuffled(_gathered)
    try:
        yield
    finally:
        for norm in norms:
            norm.summed = None
        objective.gathered = as_it_is
        if shuffled is not None:
            shuffled.apart = here


def _gathered(own: Tensor) -> Tensor:
    result: Tensor = _Gathered.apply(own)
    return result


class _Gathered(torch.autograd.Function):
    """What all processes have, along the first dimension; each gets the gradients of all by its part."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        rank, of = get_rank(), get_world_size()
        lengths = [torch.zeros((), dtype=torch.int64, device=own.device) for _ in range(of)]
        all_gather(lengths, torch.tensor(len(own), device=own.device))
        ctx.counts = [int(length) for length in lengths]
        ctx.rank = rank
        longest = max(ctx.counts)
        # Parts of one length are what all backends exchange.
        padded = torch.cat([own, own.new_zeros(longest - len(own), *own.shape[1:])])
        parts = [torch.empty_like(padded) for _ in range(of)]
        all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, ctx.counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, by_every: Tensor) -> Tensor:
        by_every = by_every.contiguous().clone()
        all_reduce(by_every)
        part: Tensor = torch.split(by_every, ctx.counts)[ctx.rank]
        return part


def _summed(values: Tensor) -> Tensor:
    result: Tensor = _Summed.apply(values)
    return result


class _Summed(torch.autograd.Function):
    """The sum over all processes; each gets the gradients of all."""

    @staticmethod
    def forward(_: object, values: Tensor) -> Tensor:
        total = values.clone()
        all_reduce(total)
        return total

    @staticmethod
    def backward(_: object, by_total: Tensor) -> Tensor:
        by_values = by_total.clone()
        all_reduce(by_values)
        return by_values
