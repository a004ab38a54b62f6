"""What one of several processes reads of an epoch: of every batch its part, none lost and none twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sits_models.data.sampling import EpochPlan
from sits_models.device import Rank

__all__ = ["part_of"]


def part_of(plan: EpochPlan, rank: Rank, *, streams: int) -> EpochPlan:
    """The plan of a process: batch k holds its part of batch k, and `streams` readers take turns as before.

    The last batch may hold fewer chips than there are processes: then the plans of the last ones end before it.
    Raises ValueError where a whole batch holds fewer.
    """
    if rank.of == 1:
        return plan
    if plan.batch < rank.of:
        raise ValueError(
            f"a batch of {plan.batch} chips cannot be shared by {rank.of} processes; set data.batch={rank.of} or more, "
            "or start fewer"
        )
    chips = len(plan.places)
    firsts = range(0, chips, plan.batch)
    numbers = [np.arange(first, min(first + plan.batch, chips))[_part(rank, first, plan)] for first in firsts]
    rows = np.concatenate([np.zeros(0, np.int64), *numbers])
    mine = replace(
        plan,
        batch=len(range(plan.batch)[rank.part(plan.batch)]),
        places=plan.places[rows],
        seeds=None if plan.seeds is None else plan.seeds[rows],
        around=None if plan.around is None else plan.around[rows],
        keep=None if plan.keep is None else plan.keep[rows],
        last=None,
    )
    return mine if plan.last is None else replace(mine, last=_last(mine, streams=streams))


def _part(rank: Rank, first: int, plan: EpochPlan) -> slice:
    return rank.part(min(plan.batch, len(plan.places) - first))


def _last(plan: EpochPlan, *, streams: int) -> NDArray[np.bool_]:
    """(chips,): no later chip of this process and reader is of the same superblock, which may be forgotten then."""
    assert plan.around is not None  # a plan of training has both
    stream = np.arange(len(plan.places)) // plan.batch % streams
    keys = np.column_stack([stream, plan.places[:, 0], plan.around])
    _, from_end = np.unique(keys[::-1], axis=0, return_index=True)
    last = np.zeros(len(keys), np.bool_)
    last[len(keys) - 1 - from_end] = True
    return last
