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
    deal = torch.rand(chips, generator=torch.Generator().manual_seed(3))

    def work(gathered: Gather, *, number: int) -> tuple[Tensor, Tensor]:
        rank, seen = Rank(number=number, of=processes), []

        def encode(sample: Sample) -> Tensor:
            seen.append(first_value(sample))
            return seen[-1]

        apart = Shuffled(gathered)
        return apart(encode, part_of(whole, rank), deal[rank.part(chips)]), seen[0]

    found = together([partial(work, number=number) for number in range(processes)])
    expected = here(first_value, whole, deal)
    assert torch.equal(torch.cat([own for own, _ in found]), expected)
    assert torch.equal(torch.cat([seen for _, seen in found]), expected[deal.argsort()])


def test_chips_of_equal_draws_stay_and_a_process_may_have_none() -> None:
    whole = make_sample(batch=3, size=4)
    parts = [slice(0, 0), slice(0, 2), slice(2, 3)]

    def work(gathered: Gather, *, part: slice) -> tuple[Tensor, Tensor]:
        seen = []

        def encode(sample: Sample) -> Tensor:
            seen.append(first_value(sample))
            return seen[-1]

        own = part_of(whole, Rank(), part)
        return Shuffled(gathered)(encode, own, torch.zeros(len(own.place))), seen[0]

    for (back, seen), part in zip(together([partial(work, part=part) for part in parts]), parts, strict=True):
        assert torch.equal(back, first_value(whole)[part])
        assert torch.equal(seen, back)
