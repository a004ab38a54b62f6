"""A second network that follows the first one: its weights are a running mean of the first one's.

He et al., "Momentum contrast for unsupervised visual representation learning" (MoCo), CVPR 2020, equation 2.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["follow", "follower"]


def follower[M: nn.Module](module: M) -> M:
    """A copy that no gradient reaches; `follow` moves it."""
    return copy.deepcopy(module).requires_grad_(requires_grad=False)


@torch.no_grad()
def follow(second: nn.Module, first: nn.Module, *, momentum: float) -> None:
    """Parameters of the second become momentum x themselves + (1 - momentum) x the first's.

    Buffers stay its own: batch norms of the second network count what it sees itself, as in the published code of MoCo
    and SeCo. Raises ValueError for networks of other parameters, or a momentum outside of [0, 1].
    """
    theirs, ours = dict(first.named_parameters()), dict(second.named_parameters())
    if theirs.keys() != ours.keys():
        raise ValueError(f"a network follows one of its kind; these differ in {', '.join(theirs.keys() ^ ours.keys())}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"a momentum lies from 0 to 1; got {momentum}")
    for name, parameter in ours.items():
        parameter.mul_(momentum).add_(theirs[name], alpha=1 - momentum)
