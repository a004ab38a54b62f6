from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.models.meeting import Gather, together
from torch import Tensor

from sits_models.objectives.gathering import as_it_is, own_rows

CPU = torch.device("cpu")


@given(counts=st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_each_process_finds_its_own_rows_however_many_there_are(counts: list[int]) -> None:
    def work(gathered: Gather, *, rows: int) -> slice:
        return own_rows(rows, gathered, device=CPU)

    found = together([partial(work, rows=rows) for rows in counts])
    starts = [sum(counts[:number]) for number in range(len(counts))]
    for one, start, rows in zip(found, starts, counts, strict=True):
        assert one == (slice(start, start + rows) if rows else slice(0, 0))


def test_one_that_is_alone_asks_nobody() -> None:
    assert own_rows(3, as_it_is, device=CPU) == slice(0, 3)


def test_rows_that_are_not_there_one_after_the_other_are_refused() -> None:
    def apart(own: Tensor) -> Tensor:
        return torch.cat([own[:1], own[:1] + 1, own[1:]])

    with pytest.raises(
        ValueError, match=r"the 2 rows of this process, .*; got them at \[0, 2\]: gather them unchanged"
    ):
        own_rows(2, apart, device=CPU)
    with pytest.raises(ValueError, match=r"got them at \[\]: gather them unchanged"):
        own_rows(2, lambda own: own + 1, device=CPU)
