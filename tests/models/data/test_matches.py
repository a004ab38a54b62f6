from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.data.test_views import STILL, draws, geometries, make_sample, positions
from torch import Tensor

from sits_models.data.dates import draw_dates, draw_single_dates
from sits_models.data.matches import match_pixels
from sits_models.data.photometry import vary
from sits_models.data.regions import match_regions
from sits_models.data.views import View, draw_view, whole_view
from sits_models.recipe import Blur, DateSubset, Geometry, Jitter, Photometry, SingleDates
from sits_models.sample import Sample

quick = settings(deadline=None, max_examples=30)


def naive_common(a: View, b: View, chip: int) -> set[int]:
    """What both views show, by sets."""
    return (set(a.ground[chip].flatten().tolist()) & set(b.ground[chip].flatten().tolist())) - {-1}


def spread(ids: Tensor, width: int) -> float:
    """The least distance between two of them, by all pairs."""
    places = torch.stack([ids // width, ids % width], dim=1).double()
    return float(torch.pdist(places).min()) if len(ids) > 1 else torch.inf


@quick
@given(
    geometry=st.tuples(geometries(), geometries()),
    seed=st.integers(0, 2**32),
    n=st.integers(1, 40),
    apart=st.integers(0, 4),
)
def test_paired_pixels_are_the_same_ground_pixel_to_half_a_pixel(
    geometry: tuple[Geometry, Geometry], seed: int, n: int, apart: int
) -> None:
    sample, numbers = make_sample(height=14, width=13), draws(seed, 3)
    a, b = (draw_view(sample, options, numbers) for options in geometry)
    found = match_pixels(a, b, n, numbers, apart=apart)
    for chip in range(3):
        good = found.found[chip]
        ground = found.ground[chip][good]
        common = naive_common(a, b, chip)
        assert set(ground.tolist()) <= common
        assert len(set(ground.tolist())) == len(ground)
        if apart < 2:
            assert len(ground) == min(n, len(common))
        assert (len(ground) > 0) == (len(common) > 0)
        assert spread(ground, 13) >= apart
        assert found.ground[chip][~good].tolist() == [-1] * int((~good).sum())
        for view, pixels in ((a, found.first), (b, found.second)):
            pixel = pixels[chip][good]
            rows, columns = (place[chip].flatten()[pixel] for place in positions(view))
            assert torch.equal(view.ground[chip].flatten()[pixel], ground)
            # The image itself says where the pixel lies.
            for place, wanted in ((rows, ground // 13), (columns, ground % 13)):
                assert bool(((place - wanted).abs() <= 0.5 + 1e-4).all())


@quick
@given(geometry=st.tuples(geometries(), geometries()), seed=st.integers(0, 2**32))
def test_of_the_pixels_that_show_a_ground_pixel_the_nearest_is_taken(
    geometry: tuple[Geometry, Geometry], seed: int
) -> None:
    numbers = draws(seed, 3)
    a, b = (draw_view(make_sample(), options, numbers) for options in geometry)
    found = match_pixels(a, b, 144, numbers)
    for view, pixels in ((a, found.first), (b, found.second)):
        if view.distance is None:
            continue
        for chip in range(3):
            for ground, pixel in zip(found.ground[chip].tolist(), pixels[chip].tolist(), strict=True):
                if ground >= 0:
                    shows = view.ground[chip].flatten() == ground
                    assert view.distance[chip].flatten()[pixel] == view.distance[chip].flatten()[shows].min()


def test_a_pixel_four_times_as_large_is_shown_best_by_one_of_its_middle_ones() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 1, 1, 2, 2)
    large = Geometry(sides=(6,), scale=(1.0, 1.0), aspect=(1.0, 1.0), flips=STILL, turns=0.0)
    view = draw_view(make_sample(image=image), large, draws(0, 1))
    found = match_pixels(view, whole_view(make_sample(image=image)), 5, draws(1, 1))
    assert found.found.tolist() == [[True] * 4 + [False]]
    pairs = sorted(zip(found.ground[0].tolist(), found.first[0].tolist(), found.second[0].tolist(), strict=True))
    # Of 3 x 3 pixels that show each, the one in the middle, in rows of 6.
    assert pairs == [(-1, 0, 0), (0, 7, 0), (1, 10, 1), (2, 25, 2), (3, 28, 3)]


def test_all_common_ground_is_drawn_alike_often_and_in_any_order() -> None:
    sample = make_sample(chips=6000, dates=1, height=3, width=4)
    view = whole_view(sample)
    hidden = View(view.sample, view.ground.masked_fill(view.ground == 5, -1), 4)
    found = match_pixels(view, hidden, 3, draws(0, 6000))
    assert bool(found.found.all())
    for column in range(3):
        counts = torch.bincount(found.ground[:, column], minlength=12)
        assert int(counts[5]) == 0
        expected = 6000 / 11
        assert float((counts[torch.arange(12) != 5] - expected).abs().max()) < 5 * expected**0.5


def test_where_fewer_pixels_apart_are_found_there_is_no_other() -> None:
    view = whole_view(make_sample(chips=5, height=40, width=40))
    found = match_pixels(view, view, 100, draws(0, 5), apart=4)
    for chip in range(5):
        ground = found.ground[chip][found.found[chip]]
        assert 40 < len(ground) < 100
        assert spread(ground, 40) >= 4
        rows, columns = torch.arange(1600) // 40, torch.arange(1600) % 40
        apart = (rows[:, None] - ground // 40) ** 2 + (columns[:, None] - ground % 40) ** 2
        assert int(apart.min(dim=1).values.max()) < 16


def test_ground_that_a_view_never_observed_is_no_match() -> None:
    image = torch.full((1, 2, 2, 2, 2), 700.0)
    image[0, :, :, 0, 1] = 0  # on no date
    image[0, 0, :, 1, 1] = 0  # on the second alone
    view = whole_view(make_sample(image=image))
    found = match_pixels(view, view, 4, draws(0, 1))
    assert sorted(found.ground[0].tolist()) == [-1, 0, 2, 3]
    assert found.found[0].tolist() == [True, True, True, False]


def test_views_of_different_ground_have_no_match() -> None:
    view = whole_view(make_sample(height=2, width=2))
    other = View(view.sample, view.ground + 4, 2)
    for apart in (0, 2):
        found = match_pixels(view, other, 3, draws(0, 3), apart=apart)
        assert not found.found.any()
        assert not found.first.any()
        assert bool((found.ground == -1).all())


@quick
@given(seed=st.integers(0, 2**32), cut=st.integers(1, 4), apart=st.sampled_from([0, 2]))
def test_a_part_of_a_batch_is_matched_as_in_the_whole(seed: int, cut: int, apart: int) -> None:
    options = Geometry(sides=(8, 9), scale=(0.3, 1.0))

    def matched(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        numbers = draws(seed, 5, part)
        sample = make_sample(chips=len(range(5)[part]))
        a, b = (draw_view(sample, options, numbers) for _ in range(2))
        found = match_pixels(a, b, 10, numbers, apart=apart)
        return found.ground, found.first, found.second

    whole = matched(slice(0, 5))
    for part in (slice(0, cut), slice(cut, 5)):
        for mine, all_ in zip(matched(part), whole, strict=True):
            assert torch.equal(mine, all_[part])


def test_what_cannot_be_is_said() -> None:
    view = whole_view(make_sample())
    unknown = View(view.sample, view.ground)
    assert bool(match_pixels(unknown, view, 3, draws(0, 3)).found.all())
    with pytest.raises(ValueError, match="a view that knows the width of its original"):
        match_pixels(unknown, view, 3, draws(0, 3), apart=2)
    other = whole_view(make_sample(height=12, width=13))
    with pytest.raises(
        ValueError, match="both views are of one sample; got views of 3 and 3 chips that are 12 and 13 px"
    ):
        match_pixels(view, other, 3, draws(0, 3))
    with pytest.raises(ValueError, match="1 pixel or more is matched, 0 or more apart; got 0 and 0"):
        match_pixels(view, view, 0, draws(0, 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_as_the_cpu_does() -> None:
    def changed(device: str) -> tuple[Sample, list[Tensor]]:
        numbers = draws(0, 8)
        sample = draw_dates(make_sample(chips=8, dates=6, height=40, width=40).to(device), DateSubset(most=4), numbers)
        options = Geometry(sides=(32,), scale=(0.3, 1.0))
        a, b = (draw_view(sample, options, numbers) for _ in range(2))
        pixels, regions = match_pixels(a, b, 64, numbers, apart=2), match_regions(a, b, 4, 6, numbers)
        (single,) = draw_single_dates(a.sample, SingleDates(n=1), numbers)
        photometry = Photometry(
            gain=0.1, contrast=0.2, jitter=Jitter(brightness=0.4, visible=("B02", "B03")), grey=0.5,
            blur=Blur(sigma=(0.1, 2.0)), drop_bands=0.2,
        )  # fmt: skip
        found = [a.ground, b.ground, pixels.ground, pixels.first, pixels.second, regions.first, regions.second]
        return vary(single, photometry, numbers), found

    (here, on_cpu), (there, on_gpu) = changed("cpu"), changed("cuda")
    assert there.image.device.type == "cuda"
    torch.testing.assert_close(there.image.cpu(), here.image, rtol=1e-4, atol=1e-2)
    for mine, other in zip(on_gpu, on_cpu, strict=True):
        assert torch.equal(mine.cpu(), other)
