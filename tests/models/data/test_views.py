from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from sits_models.data.draws import Draws
from sits_models.data.views import View, draw_view, whole_view
from sits_models.recipe import Geometry
from sits_models.sample import IGNORE_INDEX, Sample

quick = settings(deadline=None, max_examples=30)
STILL = (0.0, 0.0, 0.0)


def make_sample(
    *, chips: int = 3, dates: int = 2, height: int = 12, width: int = 12, image: Tensor | None = None, m: int = 1
) -> Sample:
    """The two bands of a pixel are 1 + its row and 1 + its column, on all dates."""
    if image is None:
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        image = 1.0 + torch.stack([rows, columns]).expand(chips, dates, 2, height, width)
    b, t, c, h, w = image.shape
    return Sample(
        image=image,
        valid=torch.ones(b, t, dtype=torch.bool),
        day=torch.arange(t, dtype=torch.int32).expand(b, t).clone(),
        clear=torch.ones(b, t, h, w, dtype=torch.bool),
        crop=torch.ones(b, m * h, m * w, dtype=torch.int64),
        counted=torch.ones(b, m * h, m * w, dtype=torch.bool),
        parcel=torch.ones(b, m * h, m * w, dtype=torch.int64),
        boundary=torch.zeros(b, h, w, dtype=torch.int16),
        place=torch.arange(3 * b).reshape(b, 3),
        bands=tuple(f"B{number:02d}" for number in range(2, 2 + c)),
    )


def draws(seed: int, chips: int, part: slice | None = None) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), slice(None) if part is None else part, chips)


def positions(view: View) -> tuple[Tensor, Tensor]:
    """Row and column that the image of `make_sample` says a view's pixels are at, (B, H, W)."""
    assert torch.equal(view.sample.image[:, 0], view.sample.image[:, -1])
    return view.sample.image[:, 0, 0] - 1, view.sample.image[:, 0, 1] - 1


SHARES = st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(lambda pair: (min(pair), max(pair)))
PROBABILITY = st.sampled_from([0.0, 0.3, 1.0])
FLIPS = st.sampled_from([STILL, (0.25, 0.25, 0.25), (0.2, 0.2, 0.2), (0.5, 0.0, 0.0), (0.0, 0.0, 1.0)])


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    return Geometry(
        sides=tuple(draw(st.lists(st.integers(1, 11), min_size=1, max_size=3))),
        scale=draw(st.none() | SHARES),
        aspect=draw(st.sampled_from([(1.0, 1.0), (3 / 4, 4 / 3), (0.2, 0.5)])),
        shared=draw(st.booleans()),
        flips=draw(FLIPS),
        turns=draw(PROBABILITY),
        interpolation=draw(st.sampled_from(["bilinear", "nearest"])),
    )


@quick
@given(options=geometries(), seed=st.integers(0, 2**32), height=st.integers(11, 17), width=st.integers(11, 17))
def test_an_image_of_its_own_coordinates_says_that_the_ground_is_right_to_half_a_pixel(
    options: Geometry, seed: int, height: int, width: int
) -> None:
    sample = make_sample(height=height, width=width)
    view = draw_view(sample, options, draws(seed, 3))
    rows, columns = positions(view)
    side = view.ground.shape[-1]
    assert side in options.sides
    assert view.ground.shape == (3, side, side)
    assert view.width == width
    assert int(view.ground.min()) >= 0
    assert int(view.ground.max()) < height * width
    off_rows, off_columns = (rows - view.ground // width).abs(), (columns - view.ground % width).abs()
    assert float(torch.maximum(off_rows, off_columns).max()) <= 0.5 + 1e-4
    if view.distance is None:
        assert options.scale is None
        assert not off_rows.any()
        assert not off_columns.any()
    else:
        assert float(view.distance.max()) <= 0.5**0.5 + 1e-4
        # Where the box ends, values are those of its last pixels, and positions lie further out.
        assert float((torch.hypot(off_rows, off_columns) - view.distance).max()) <= 1e-4
        if options.interpolation == "bilinear":
            inside = torch.ones_like(view.distance, dtype=torch.bool)
            for place in (rows, columns):
                inside &= (place > place.amin((1, 2), keepdim=True) + 1e-3) & (
                    place < place.amax((1, 2), keepdim=True) - 1e-3
                )
            torch.testing.assert_close(
                torch.hypot(off_rows, off_columns)[inside], view.distance[inside], atol=1e-4, rtol=0
            )


@quick
@given(options=geometries(), seed=st.integers(0, 2**32))
def test_a_view_is_a_box_in_one_of_its_eight_orientations(options: Geometry, seed: int) -> None:
    view = draw_view(make_sample(), options, draws(seed, 3))
    for chip in view.ground:
        rows, columns = chip // 12, chip % 12
        if not bool((rows == rows[:, :1]).all()):
            rows, columns = rows.T, columns.T
        # Rows along one axis, columns along the other, each in steps of one sign.
        assert torch.equal(rows, rows[:, :1].expand_as(rows))
        assert torch.equal(columns, columns[:1].expand_as(columns))
        for steps in (rows[:, 0].diff(), columns[0].diff()):
            assert bool((steps >= 0).all() | (steps <= 0).all())


@quick
@given(options=geometries(), seed=st.integers(0, 2**32), gaps=st.floats(0, 1))
def test_no_value_mixes_with_a_gap_and_a_pixel_is_observed_where_its_ground_is(
    options: Geometry, seed: int, gaps: float
) -> None:
    numbers = torch.Generator().manual_seed(seed)
    observed = torch.rand(3, 2, 1, 12, 12, generator=numbers) >= gaps
    image = torch.where(observed, 5000.0, 0.0).expand(3, 2, 2, 12, 12)
    sample = make_sample(image=image).replace(clear=observed[:, :, 0])
    view = draw_view(sample, options, draws(seed, 3))
    for chip in range(3):
        for date in range(2):
            seen = observed[chip, date, 0].flatten()[view.ground[chip]]
            assert torch.equal(view.sample.clear[chip, date], seen)
            expected = torch.where(seen, 5000.0, 0.0).expand(2, -1, -1)
            torch.testing.assert_close(view.sample.image[chip, date], expected, atol=2e-3, rtol=0)
            assert torch.equal(view.sample.image[chip, date] > 0, seen.expand(2, -1, -1))


def test_a_mean_of_four_pixels_leaves_out_the_gap() -> None:
    # Of 3 pixels a side one in the middle is at the corner of none; the 2 x 2 view lies 1/4 pixel off their centres.
    image = torch.tensor([[100.0, 200.0, 0.0], [300.0, 400.0, 0.0], [700.0, 0.0, 900.0]]).expand(1, 1, 1, 3, 3)
    options = Geometry(sides=(2,), scale=(1.0, 1.0), aspect=(1.0, 1.0), flips=STILL, turns=0.0)
    view = draw_view(make_sample(image=image), options, draws(0, 1))
    # Centres at 1/4 and 7/4: weights 9/16, 3/16, 3/16 and 1/16 of pixel, neighbours and diagonal.
    assert view.ground.tolist() == [[[0, 2], [6, 8]]]
    upper_left = (9 * 100 + 3 * 200 + 3 * 300 + 400) / 16
    lower_left = (9 * 700 + 3 * 300 + 400) / 13
    lower_right = (9 * 900 + 400) / 10
    found = view.sample.image[0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([[upper_left, 0.0], [lower_left, lower_right]]))
    assert view.distance is not None
    torch.testing.assert_close(view.distance, torch.full((1, 2, 2), 2**0.5 / 4))


@pytest.mark.parametrize("side", [5, 12, 24, 31])
def test_resizing_is_that_of_torch(side: int) -> None:
    image = torch.rand(2, 3, 2, 12, 12, generator=torch.Generator().manual_seed(0)) * 9000 + 1
    still = Geometry(sides=(side,), scale=(1.0, 1.0), aspect=(1.0, 1.0), flips=STILL, turns=0.0)
    view = draw_view(make_sample(image=image), still, draws(1, 2))
    expected = functional.interpolate(image.flatten(0, 1), size=(side, side), mode="bilinear", align_corners=False)
    torch.testing.assert_close(view.sample.image.flatten(0, 1), expected, atol=0.02, rtol=0)
    numbers = torch.arange(144.0).view(1, 1, 12, 12)
    nearest = functional.interpolate(numbers, size=(side, side), mode="nearest-exact")[0, 0].long()
    assert torch.equal(view.ground[0], nearest)


def test_a_window_as_large_as_the_chip_has_each_of_the_eight_orientations_alike_often() -> None:
    sample = make_sample(chips=4000, dates=1, height=3, width=3)
    view = draw_view(sample, Geometry(sides=(3,)), draws(0, 4000))
    ground = torch.arange(9).view(3, 3)
    orientations = [torch.rot90(flipped, turns) for flipped in (ground, ground.flip(1)) for turns in range(4)]
    counts = [int((view.ground == one).all((1, 2)).sum()) for one in orientations]
    assert sum(counts) == 4000
    assert min(counts) > 420
    assert max(counts) < 580


@pytest.mark.parametrize(
    ("flips", "turns", "shares"),
    [
        ((0.5, 0.0, 0.0), 0.0, (0.5, 0.5, 0.0, 0.0)),
        ((0.0, 0.3, 0.0), 0.0, (0.7, 0.0, 0.3, 0.0)),
        ((0.2, 0.2, 0.2), 0.0, (0.4, 0.2, 0.2, 0.2)),
        (STILL, 1.0, (0.25, 0.0, 0.0, 0.25)),
        (STILL, 0.8, (0.4, 0.0, 0.0, 0.2)),
    ],
)
def test_flips_and_turns_come_as_often_as_asked(
    flips: tuple[float, float, float], turns: float, shares: tuple[float, ...]
) -> None:
    view = draw_view(
        make_sample(chips=4000, dates=1, height=2, width=2),
        Geometry(sides=(2,), flips=flips, turns=turns),
        draws(3, 4000),
    )
    ground = torch.arange(4).view(2, 2)
    for axes, share in zip(([], [1], [0], [0, 1]), shares, strict=True):
        found = float((view.ground == ground.flip(axes)).all((1, 2)).float().mean())
        assert abs(found - share) < 0.03, (axes, found)


def test_area_and_aspect_lie_in_their_ranges_and_corners_anywhere() -> None:
    sample = make_sample(chips=2000, dates=1, height=40, width=40)
    options = Geometry(sides=(40,), scale=(0.2, 0.6), flips=STILL, turns=0.0, interpolation="nearest")
    view = draw_view(sample, options, draws(5, 2000))
    rows, columns = positions(view)
    height = rows.amax((1, 2)) - rows.amin((1, 2)) + 1
    width = columns.amax((1, 2)) - columns.amin((1, 2)) + 1
    area, aspect = height * width / 1600, (width / height).log()
    assert 0.18 < float(area.min()) < 0.22
    assert 0.58 < float(area.max()) < 0.63
    assert abs(float(area.mean()) - 0.4) < 0.01
    assert float(aspect.exp().min()) > 0.71
    assert float(aspect.exp().max()) < 1.42
    assert abs(float(aspect.mean())) < 0.02
    seen = torch.bincount(view.ground.flatten(), minlength=1600)
    assert int(seen.min()) > 0


def test_a_batch_is_resized_alike_where_asked_and_lies_elsewhere() -> None:
    sample = make_sample(chips=50, height=30, width=30)
    options = Geometry(sides=(7, 8, 9), scale=(0.1, 1.0), shared=True, flips=STILL, turns=0.0)
    view = draw_view(sample, options, draws(1, 50))
    assert view.distance is not None
    assert torch.equal(view.distance, view.distance[:1].expand(50, -1, -1))
    assert len(view.ground[:, 0, 0].unique()) > 10
    sides = {draw_view(sample, options, draws(seed, 50)).ground.shape[1] for seed in range(20)}
    assert sides == {7, 8, 9}


def test_labels_are_hidden_and_dates_stay() -> None:
    sample = make_sample(m=2)
    for view in (draw_view(sample, Geometry(sides=(5,), scale=(0.5, 1.0)), draws(0, 3)), whole_view(sample)):
        assert view.sample.magnification == 1
        assert bool((view.sample.crop == IGNORE_INDEX).all())
        assert not view.sample.counted.any()
        assert not view.sample.parcel.any()
        assert bool((view.sample.boundary == -32768).all())
        for name in ("valid", "day", "place"):
            assert torch.equal(getattr(view.sample, name), getattr(sample, name))


def test_the_whole_view_shows_each_pixel_at_its_place() -> None:
    sample = make_sample(height=4, width=6)
    view = whole_view(sample)
    assert torch.equal(view.ground, torch.arange(24).view(4, 6).expand(3, 4, 6))
    assert torch.equal(view.sample.image, sample.image)
    assert (view.width, view.distance) == (6, None)


def test_stored_values_are_read_as_they_are() -> None:
    stored = torch.tensor([0, 1, 9000, 65535]).repeat(36).view(1, 1, 1, 12, 12)
    as_stored, as_floats = make_sample(image=stored.to(torch.uint16)), make_sample(image=stored.float())
    for options in (Geometry(sides=(9,)), Geometry(sides=(9,), scale=(0.5, 0.9))):
        first, second = (draw_view(one, options, draws(2, 1)).sample.image for one in (as_stored, as_floats))
        assert first.dtype == torch.float32
        assert torch.equal(first, second)
        assert float(first[first > 0].min()) >= 1
        assert float(first.max()) <= 65535


@quick
@given(options=geometries(), seed=st.integers(0, 2**32), cut=st.integers(1, 4))
def test_a_part_of_a_batch_changes_as_in_the_whole(options: Geometry, seed: int, cut: int) -> None:
    image = torch.rand(5, 1, 2, 12, 12, generator=torch.Generator().manual_seed(seed)) * 5000 + 1
    whole = draw_view(make_sample(image=image), options, draws(seed, 5))
    for part in (slice(0, cut), slice(cut, 5)):
        view = draw_view(make_sample(image=image[part]), options, draws(seed, 5, part))
        assert torch.equal(view.ground, whole.ground[part])
        assert torch.equal(view.sample.image, whole.sample.image[part])


def test_what_cannot_be_is_said() -> None:
    sample = make_sample()
    with pytest.raises(ValueError, match=r"a window of 13 px, not resized, needs chips of that side; got 12 x 12 px"):
        draw_view(sample, Geometry(sides=(13,)), draws(0, 3))
    with pytest.raises(ValueError, match=r"batch of 4 chips was announced; got 3 chips"):
        draw_view(sample, Geometry(sides=(5,)), draws(0, 4))
    with pytest.raises(
        ValueError, match=r"ground of a view of 3 chips of 12 x 12 px is \(3, 12, 12\); got \(3, 5, 5\)"
    ):
        View(sample, torch.zeros(3, 5, 5, dtype=torch.int64))
    for wrong, message in (
        ({"sides": (0,)}, "sides are numbers of pixels, each at least 1"),
        ({"sides": (4,), "scale": (0.5, 1.5)}, "scale is a least and a largest share"),
        ({"sides": (4,), "aspect": (2.0, 1.0)}, "aspect is a least"),
        ({"sides": (4,), "flips": (0.5, 0.5, 0.5)}, "flips are three probabilities"),
    ):
        with pytest.raises(ValueError, match=message):
            Geometry(**wrong)  # type: ignore[arg-type]


def test_the_ends_of_a_range_give_the_same_boxes_at_every_seed() -> None:
    # All of the chip cannot have an aspect of 1/2: the largest box that has one is shown.
    options = Geometry(sides=(12,), scale=(1.0, 1.0), aspect=(0.5, 0.5), flips=STILL, turns=0.0)
    for seed, chip in itertools.product(range(3), range(3)):
        ground = draw_view(make_sample(), options, draws(seed, 3)).ground[chip]
        assert len((ground // 12).unique()) == 12
        assert len((ground % 12).unique()) == 6
