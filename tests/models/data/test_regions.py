from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.data.test_views import STILL, draws, make_sample
from torch import Tensor

from sits_models.data.regions import Regions, match_regions
from sits_models.data.views import View, draw_view, whole_view
from sits_models.recipe import Geometry

quick = settings(deadline=None, max_examples=30)
PUBLISHED = Geometry(sides=(20,), scale=(0.4, 1.0), flips=(0.2, 0.2, 0.2), turns=0.8)


def shown(view: View, chip: int, corner: Tensor, side: int) -> Tensor:
    """The ground in a square."""
    row, column = corner.tolist()
    box = view.ground[chip, row : row + side, column : column + side]
    assert box.shape == (side, side)
    return box


def check(a: View, b: View, found: Regions, n: int, side: int) -> None:
    for chip in range(len(a.ground)):
        good = found.found[chip]
        assert found.found[chip].tolist() == sorted(found.found[chip].tolist(), reverse=True)
        centres = found.ground[chip][good].tolist()
        assert len(set(centres)) == len(centres)
        for view, corners in ((a, found.first), (b, found.second)):
            for centre, corner in zip(centres, corners[chip][good], strict=True):
                box = shown(view, chip, corner, side)
                assert int(box[side // 2, side // 2]) == centre
        assert not found.first[chip][~good].any()
        assert bool((found.ground[chip][~good] == -1).all())
        candidates = inner(a, chip, side) & inner(b, chip, side)
        assert len(centres) == min(n, len(candidates))
        # A centre lies in no square before it, unless too few centres were left outside.
        for number in range(len(centres)):
            box = set(shown(a, chip, found.first[chip, number], side).flatten().tolist())
            left = candidates - box
            candidates = left if len(left) >= n - number - 1 else candidates - {centres[number]}
            assert set(centres[number + 1 :]) <= candidates


def inner(view: View, chip: int, side: int) -> set[int]:
    """Ground around which a square fits in."""
    size, half = view.ground.shape[1], side // 2
    pixels = view.ground[chip, half : size - side + half + 1, half : size - side + half + 1]
    return set(pixels.flatten().tolist())


@quick
@given(seed=st.integers(0, 2**32), n=st.integers(1, 6), side=st.integers(1, 12))
def test_regions_lie_inside_both_views_around_the_same_ground(seed: int, n: int, side: int) -> None:
    numbers = draws(seed, 3)
    sample = make_sample(height=24, width=24)
    a, b = draw_view(sample, PUBLISHED, numbers), draw_view(sample, PUBLISHED, numbers)
    check(a, b, match_regions(a, b, n, side, numbers), n, side)


def test_views_that_are_alike_give_the_same_regions_which_do_not_hold_each_others_centres() -> None:
    view = whole_view(make_sample(chips=50, height=40, width=40))
    found = match_regions(view, view, 4, 6, draws(0, 50))
    assert bool(found.found.all())
    assert torch.equal(found.first, found.second)
    for chip in range(50):
        for number in range(4):
            box = shown(view, chip, found.first[chip, number], 6)
            assert not set(found.ground[chip, number + 1 :].tolist()) & set(box.flatten().tolist())


def test_centres_are_any_as_likely() -> None:
    view = whole_view(make_sample(chips=5000, dates=1, height=6, width=6))
    found = match_regions(view, view, 1, 4, draws(0, 5000))
    counts = torch.bincount(found.ground[:, 0], minlength=36).view(6, 6)
    assert int(counts[2:5, 2:5].sum()) == 5000
    assert float((counts[2:5, 2:5] - 5000 / 9).abs().max()) < 5 * (5000 / 9) ** 0.5


def test_where_too_few_centres_are_left_squares_overlap_and_where_there_are_none_regions_are_fewer() -> None:
    view = whole_view(make_sample(chips=1, height=5, width=5))
    # A square of 4 fits around 4 pixels, all of which any of them covers.
    found = match_regions(view, view, 6, 4, draws(0, 1))
    assert found.found.tolist() == [[True] * 4 + [False] * 2]
    assert sorted(found.ground[0].tolist()) == [-1, -1, 12, 13, 17, 18]
    other = View(view.sample, view.ground + 25, 5)
    assert not match_regions(view, other, 2, 4, draws(0, 1)).found.any()


def test_ground_that_was_never_observed_is_no_centre() -> None:
    image = torch.full((1, 1, 1, 3, 3), 500.0)
    image[..., 1, 1] = 0
    view = whole_view(make_sample(image=image))
    found = match_regions(view, view, 9, 1, draws(0, 1))
    assert sorted(found.ground[0].tolist()) == [-1, 0, 1, 2, 3, 5, 6, 7, 8]


def test_squares_of_the_publication_overlap_as_measured_there() -> None:
    # Of its own code: a mean overlap of 0.71 of the ground of paired squares of 48 of 224 pixels, 0.45 at least.
    options = {"sides": (224,), "scale": (0.4, 1.0), "interpolation": "nearest"}
    first = Geometry(**options, flips=STILL, turns=0.0)  # type: ignore[arg-type]
    second = Geometry(**options, flips=(0.2, 0.2, 0.2), turns=0.8)  # type: ignore[arg-type]
    sample, numbers = make_sample(chips=20, dates=1, height=256, width=256), draws(0, 20)
    a, b = draw_view(sample, first, numbers), draw_view(sample, second, numbers)
    found = match_regions(a, b, 4, 48, numbers)
    assert bool(found.found.all())
    overlaps = []
    for chip in range(20):
        for number in range(4):
            mine, other = (
                set(shown(view, chip, corners[chip, number], 48).flatten().tolist())
                for view, corners in ((a, found.first), (b, found.second))
            )
            overlaps.append(len(mine & other) / len(mine | other))
    assert 0.66 < sum(overlaps) / len(overlaps) < 0.76
    assert min(overlaps) > 0.3


@pytest.mark.slow
@quick
@given(seed=st.integers(0, 2**32), cut=st.integers(1, 4))
def test_a_part_of_a_batch_is_matched_as_in_the_whole(seed: int, cut: int) -> None:
    def matched(part: slice) -> Regions:
        numbers, sample = draws(seed, 5, part), make_sample(chips=len(range(5)[part]), height=24, width=24)
        a, b = (draw_view(sample, PUBLISHED, numbers) for _ in range(2))
        return match_regions(a, b, 3, 5, numbers)

    whole = matched(slice(0, 5))
    for part in (slice(0, cut), slice(cut, 5)):
        for name in ("first", "second", "ground", "found"):
            assert torch.equal(getattr(matched(part), name), getattr(whole, name)[part])


def test_what_cannot_be_is_said() -> None:
    view = whole_view(make_sample())
    with pytest.raises(ValueError, match="a region of 13 px lies inside a view; got views of 12 x 12 px"):
        match_regions(view, view, 1, 13, draws(0, 3))
    with pytest.raises(ValueError, match="regions are 1 or more, of 1 pixel or more; got 0 of 4"):
        match_regions(view, view, 0, 4, draws(0, 3))
