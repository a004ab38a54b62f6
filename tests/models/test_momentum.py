from __future__ import annotations

import pytest
import torch
from torch import nn

from sits_models.objectives.momentum import follow, follower


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def test_weights_become_a_running_mean_and_running_statistics_do_not() -> None:
    first = network()
    second = follower(first)
    with torch.no_grad():
        second[0].weight.fill_(2.0)
        first[0].weight.fill_(4.0)
        first[1].running_mean.fill_(7.0)
    follow(second, first, momentum=0.75)
    assert second[0].weight.flatten().tolist() == [2.5, 2.5]
    assert second[1].running_mean.tolist() == [0.0, 0.0]
    assert first[0].weight.flatten().tolist() == [4.0, 4.0]


def test_no_gradient_reaches_the_second() -> None:
    first = network()
    second = follower(first)
    (first(torch.ones(2, 1, 2, 2)).sum() + second(torch.ones(2, 1, 2, 2)).sum()).backward()
    follow(second, first, momentum=0.9)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in second.parameters())
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in first.parameters())


def test_many_steps_of_a_constant_end_at_it() -> None:
    first = nn.Linear(1, 1)
    second = follower(first)
    with torch.no_grad():
        second.weight.fill_(100.0)
    for _ in range(2000):
        follow(second, first, momentum=0.99)
    torch.testing.assert_close(second.weight, first.weight)


def test_another_network_or_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in bias"):
        follow(nn.Linear(1, 1), nn.Linear(1, 1, bias=False), momentum=0.9)
    with pytest.raises(ValueError, match=r"from 0 to 1; got 1\.5"):
        follow(nn.Linear(1, 1), nn.Linear(1, 1), momentum=1.5)
