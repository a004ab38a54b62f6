from __future__ import annotations

from functools import partial

import pytest
import torch
from tests.models.meeting import Gather, together
from tests.models.samples import make_sample
from tests.models.sharing import part_of
from torch import Tensor

from sits_models.device import Rank
from sits_models.objectives.shuffling import Shuffled, here
from sits_models.sample import Sample


def first_value(sample: Sample) -> Tensor:
    """Of each chip a pixel and its first day, (B, 2)."""
    return torch.stack([sample.image[:, 0, 0, 0, 0].float(), sample.day[:, 0].float()], dim=1)


@pytest.mark.parametrize(("chips", "processes"), [(4, 1), (6, 2), (5, 3), (3, 3)])
def test_each_gets_its_own_back_and_encodes_what_it_is_dealt(chips: int, processes: int) -> None:
    whole = make_sample(batch=chips, size=4)
    order = torch.randperm(chips, generator=torch.Generator().manual_seed(3))

    def work(gathered: Gather, *, number: int) -> tuple[Tensor, Tensor]:
        rank, seen = Rank(number=number, of=processes), []

        def encode(sample: Sample) -> Tensor:
            seen.append(first_value(sample))
            return seen[-1]

        apart = Shuffled(gathered, order, rank.part(chips))
        return apart(encode, part_of(whole, rank)), seen[0]

    found = together([partial(work, number=number) for number in range(processes)])
    expected = here(first_value, whole)
    assert torch.equal(torch.cat([own for own, _ in found]), expected)
    assert torch.equal(torch.cat([seen for _, seen in found]), expected[order])


def test_another_number_of_chips_is_refused() -> None:
    sample = make_sample(batch=3, size=4)
    with pytest.raises(
        ValueError, match=r"an order of 4 chips and the part .* were announced; got 3 chips, 3 of them here"
    ):
        Shuffled(lambda tensor: tensor, torch.arange(4), slice(3))(first_value, sample)
    with pytest.raises(ValueError, match="got 3 chips, 3 of them here"):
        Shuffled(lambda tensor: tensor, torch.arange(3), slice(2))(first_value, sample)
