from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.data.test_views import draws, make_sample
from torch import Tensor

from sits_models.data.dates import draw_dates, draw_single_dates
from sits_models.recipe import DateSubset, SingleDates
from sits_models.sample import Sample

quick = settings(deadline=None, max_examples=40)
ALWAYS = 1 - 1e-9
"""A probability below 1 that no draw of float32 reaches."""


def series(valid: Tensor, clear: Tensor | None = None, *, stored: bool = False) -> Sample:
    """All values of a date are 100 + its number, its day 1000 + its number."""
    b, t = valid.shape
    number = torch.arange(t)
    image = (100 + number).view(1, t, 1, 1, 1).expand(b, t, 2, 2, 2)
    sample = make_sample(image=image.to(torch.uint16) if stored else image.float())
    day = (1000 + number).to(torch.int32).expand(b, t).clone()
    sample = sample.replace(valid=valid, day=day)
    return sample if clear is None else sample.replace(clear=clear)


def numbers_of(sample: Sample) -> list[list[int]]:
    """Of each chip the dates that it holds, in order, of which image and day must agree."""
    found = []
    for chip in range(len(sample.valid)):
        good = sample.valid[chip]
        days, values = sample.day[chip][good] - 1000, sample.image[chip][good].float() - 100
        assert torch.equal(values, days.float().view(-1, 1, 1, 1).expand_as(values))
        assert not sample.image[chip].float()[~good].any()
        assert not sample.day[chip][~good].any()
        assert not sample.clear[chip][~good].any()
        found.append(days.tolist())
    return found


VALID = st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=3, max_size=3).map(torch.tensor)


@quick
@given(
    valid=VALID,
    seed=st.integers(0, 2**32),
    most=st.none() | st.integers(1, 8),
    drop=st.sampled_from([0.0, 0.5, ALWAYS]),
    stored=st.booleans(),
)
def test_a_view_holds_a_part_of_the_dates_in_order_and_padding_behind(
    valid: Tensor, seed: int, most: int | None, drop: float, stored: bool
) -> None:
    sample = series(valid, stored=stored)
    found = draw_dates(sample, DateSubset(most=most, drop=drop), draws(seed, 3))
    assert found.image.dtype == sample.image.dtype
    assert found.valid.shape[1] == (5 if most is None else most)
    for chip, dates in enumerate(numbers_of(found)):
        assert dates == sorted(set(dates))
        assert set(dates) <= set(valid[chip].nonzero()[:, 0].tolist())
        assert found.valid[chip].tolist() == sorted(found.valid[chip].tolist(), reverse=True)
        available = int(valid[chip].sum())
        if drop == 0:
            assert len(dates) == min(available, 5 if most is None else most)
        if drop == ALWAYS:
            assert len(dates) == min(1, available)


def test_any_subset_is_drawn_alike_often() -> None:
    valid = torch.tensor([True, True, False, True, True]).expand(6000, 5)
    found = numbers_of(draw_dates(series(valid), DateSubset(most=2), draws(0, 6000)))
    counts = [found.count(pair) for pair in ([0, 1], [0, 3], [0, 4], [1, 3], [1, 4], [3, 4])]
    assert sum(counts) == 6000
    assert max(abs(count - 1000) for count in counts) < 150


def test_dates_are_dropped_as_often_as_asked() -> None:
    found = draw_dates(series(torch.ones(2000, 10, dtype=torch.bool)), DateSubset(drop=0.3), draws(0, 2000))
    assert abs(float(found.valid.float().mean()) - 0.7) < 0.02


def test_how_many_dates_is_drawn_once_for_a_batch() -> None:
    sample = series(torch.ones(3, 5, dtype=torch.bool))
    lengths = [draw_dates(sample, DateSubset(least=2, most=4), draws(seed, 3)).valid for seed in range(60)]
    assert {valid.shape[1] for valid in lengths} == {2, 3, 4}
    assert all(bool(valid.all()) for valid in lengths)


@quick
@given(valid=VALID, seed=st.integers(0, 2**32), n=st.integers(1, 7), clear=st.sampled_from([0.0, 0.5, 1.0]))
def test_single_dates_are_distinct_clear_enough_and_as_many_as_there_are(
    valid: Tensor, seed: int, n: int, clear: float
) -> None:
    shares = torch.rand(3, 5, 2, 2, generator=torch.Generator().manual_seed(seed)) > 0.4
    found = draw_single_dates(series(valid, shares), SingleDates(n=n, clear=clear), draws(seed, 3))
    assert len(found) == n
    assert all(one.image.shape == (3, 1, 2, 2, 2) for one in found)
    for chip in range(3):
        choice = {date for date in range(5) if valid[chip, date] and float(shares[chip, date].float().mean()) >= clear}
        dates = [numbers_of(one)[chip] for one in found]
        drawn = [date[0] for date in dates if date]
        assert len(set(drawn)) == len(drawn) == min(n, len(choice))
        assert set(drawn) <= choice
        assert all(dates[: len(drawn)])


def test_dates_that_may_come_again_all_differ_as_seldom_as_published() -> None:
    sample = series(torch.ones(5000, 5, dtype=torch.bool))
    found = draw_single_dates(sample, SingleDates(n=3, again=True), draws(0, 5000))
    first, second, third = (one.day[:, 0] for one in found)
    assert all(bool(one.valid.all()) for one in found)
    distinct = (first != second) & (second != third) & (first != third)
    assert abs(float(distinct.float().mean()) - 0.48) < 0.03
    assert abs(float((first == third).float().mean()) - 0.2) < 0.03


def test_a_date_that_may_come_again_is_clear_and_there_is_none_where_no_date_is() -> None:
    clear = torch.zeros(2, 5, 2, 2, dtype=torch.bool)
    clear[0, 3] = True
    sample = series(torch.ones(2, 5, dtype=torch.bool), clear)
    for one in draw_single_dates(sample, SingleDates(n=3, clear=0.9, again=True), draws(0, 2)):
        assert numbers_of(one) == [[3], []]


@pytest.mark.parametrize("cut", [1, 3])
def test_a_part_of_a_batch_has_the_dates_that_it_has_in_the_whole(cut: int) -> None:
    sample = series(torch.ones(5, 6, dtype=torch.bool))

    def drawn(part: slice) -> list[list[list[int]]]:
        numbers, mine = draws(7, 5, part), series(sample.valid[part])
        singles = draw_single_dates(mine, SingleDates(n=2), numbers)
        again = draw_single_dates(mine, SingleDates(n=2, again=True), numbers)
        several = draw_dates(mine, DateSubset(least=1, most=5, drop=0.2), numbers)
        return [numbers_of(one) for one in (*singles, *again, several)]

    whole = drawn(slice(0, 5))
    for part in (slice(0, cut), slice(cut, 5)):
        assert drawn(part) == [one[part] for one in whole]


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="least = 2 dates go with a number most"):
        DateSubset(least=2)
    with pytest.raises(ValueError, match="got 4, 3"):
        DateSubset(least=4, most=3)
    with pytest.raises(ValueError, match=r"drop is a probability below 1; got 1.0"):
        DateSubset(drop=1.0)
    with pytest.raises(ValueError, match="n is 1 or more, clear a share"):
        SingleDates(n=0)
