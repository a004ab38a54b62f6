from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sits_models.data.transforms import augment
from sits_models.recipe import Augmentation
from sits_models.sample import Sample

quick = settings(deadline=None, max_examples=40)
ALWAYS = 1 - 1e-9
"""A probability below 1 that no draw of float32 reaches."""
NOTHING = Augmentation(flips=False)
MAPS = ("image", "clear", "crop", "parcel", "boundary")


def make_sample(
    *, chips: int = 3, dates: int = 4, bands: int = 2, side: int = 6, m: int = 1, width: int | None = None
) -> Sample:
    """Every map says of every pixel where it was: 1 + row * width + column, at 10 m; clear is its parity."""
    width = side if width is None else width
    place = 1 + torch.arange(side * width).reshape(side, width)
    fine = place.repeat_interleave(m, 0).repeat_interleave(m, 1)
    # Within a pixel of 10 m, which of its finer ones it is.
    rows, columns = torch.arange(m * side) % m, torch.arange(m * width) % m
    parcel = fine * m * m + rows[:, None] * m + columns
    return Sample(
        image=place.expand(chips, dates, bands, side, width).to(torch.int32).to(torch.uint16),
        valid=torch.ones(chips, dates, dtype=torch.bool),
        day=torch.arange(dates, dtype=torch.int32).expand(chips, dates).clone(),
        clear=(place % 2 == 0).expand(chips, dates, side, width).clone(),
        crop=fine.expand(chips, -1, -1).clone(),
        counted=fine.expand(chips, -1, -1) % 3 > 0,
        parcel=parcel.expand(chips, -1, -1).clone(),
        boundary=place.to(torch.int16).expand(chips, side, width).clone(),
        place=torch.arange(3 * chips).reshape(chips, 3),
        bands=tuple(f"B{number:02d}" for number in range(2, 2 + bands)),
    )


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coarse(fine: Tensor, m: int) -> Tensor:
    return fine[..., ::m, ::m]


@quick
@given(seed=st.integers(0, 2**32), m=st.sampled_from([1, 2, 4]), flips=st.booleans(), rotations=st.booleans())
def test_image_and_labels_move_together(seed: int, m: int, flips: bool, rotations: bool) -> None:
    sample = make_sample(m=m)
    found = augment(sample, Augmentation(flips=flips, rotations=rotations), generator=generator(seed))
    place = coarse(found.crop, m)
    assert found.image.dtype == torch.float32
    assert torch.equal(found.image, place[:, None, None].expand_as(found.image).float())
    assert torch.equal(found.boundary.long(), place)
    assert torch.equal(found.clear, (place % 2 == 0)[:, None].expand_as(found.clear))
    assert torch.equal(found.crop, place.repeat_interleave(m, -2).repeat_interleave(m, -1))
    assert torch.equal(found.parcel // (m * m), found.crop)
    for chip in range(3):  # nothing lost, nothing twice: the finest map is a permutation
        assert torch.equal(found.parcel[chip].flatten().sort().values, sample.parcel[chip].flatten().sort().values)


@quick
@given(seed=st.integers(0, 2**32), m=st.sampled_from([1, 2, 4]))
def test_each_chip_is_one_of_the_symmetries_of_the_square_and_turns_back(seed: int, m: int) -> None:
    sample = make_sample(m=m)
    found = augment(sample, Augmentation(rotations=True), generator=generator(seed))
    for chip in range(3):
        fits = [
            (turns, flip)
            for turns in range(4)
            for flip in (False, True)
            if torch.equal(undone(found.parcel[chip], turns, flip), sample.parcel[chip])
        ]
        assert len(fits) == 1
        for name in MAPS:
            back = undone(getattr(found, name)[chip], *fits[0])
            assert torch.equal(back.float(), getattr(sample, name)[chip].float()), name


def undone(maps: Tensor, turns: int, flip: bool) -> Tensor:
    turned = torch.rot90(maps, turns, (-2, -1))
    return turned.flip(-1) if flip else turned


def test_flips_alone_never_turn_and_all_four_are_drawn_alike_often() -> None:
    sample = make_sample(chips=4000, dates=1, bands=1, side=2)
    found = augment(sample, Augmentation(), generator=generator(0)).crop
    counts = {}
    for name, flipped in {"no": [], "left-right": [-1], "up-down": [-2], "both": [-2, -1]}.items():
        counts[name] = int((found == sample.crop.flip(flipped)).all((-2, -1)).sum())
    assert sum(counts.values()) == 4000
    assert min(counts.values()) > 900


def test_all_four_rotations_are_drawn_alike_often() -> None:
    sample = make_sample(chips=4000, dates=1, bands=1, side=2)
    found = augment(sample, Augmentation(flips=False, rotations=True), generator=generator(0)).crop
    counts = [int((found == torch.rot90(sample.crop, turns, (-2, -1))).all((-2, -1)).sum()) for turns in range(4)]
    assert sum(counts) == 4000
    assert min(counts) > 900


def test_chips_that_are_not_square_flip_but_do_not_turn() -> None:
    sample = make_sample(side=4, width=6)
    found = augment(sample, Augmentation(), generator=generator(1))
    assert found.image.shape == sample.image.shape
    with pytest.raises(ValueError, match="rotations need square chips; got 4 x 6 px"):
        augment(sample, Augmentation(rotations=True), generator=generator(1))


def test_nothing_asked_for_changes_nothing_but_the_type() -> None:
    sample = make_sample()
    found = augment(sample, NOTHING, generator=generator(0))
    assert found.image.dtype == torch.float32
    for name in (*MAPS, "valid", "day", "place"):
        assert torch.equal(getattr(found, name).float(), getattr(sample, name).float()), name


ALL = Augmentation(flips=True, rotations=True, drop_dates=0.3, gain=0.1, noise=0.02)


@quick
@given(seed=st.integers(0, 2**32))
def test_a_seed_gives_its_batch_and_the_input_stays(seed: int) -> None:
    sample, before = make_sample(), make_sample()
    first, second = (augment(sample, ALL, generator=generator(seed)) for _ in range(2))
    for name in (*MAPS, "valid", "day", "place"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
        assert torch.equal(getattr(sample, name).float(), getattr(before, name).float()), name
    assert torch.equal(first.place, sample.place)
    assert torch.equal(first.day, sample.day)


def test_another_seed_and_another_chip_give_another_draw() -> None:
    sample = make_sample(chips=8)
    first, second = (augment(sample, ALL, generator=generator(seed)).image for seed in (1, 2))
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


@quick
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.1, 0.5, ALWAYS]), data=st.data())
def test_dropped_dates_are_padding_and_one_date_stays(seed: int, share: float, data: st.DataObject) -> None:
    valid = torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=3, max_size=3)))
    sample = make_sample().replace(valid=valid)
    found = augment(sample, Augmentation(flips=False, drop_dates=share), generator=generator(seed))
    assert not (found.valid & ~valid).any()
    assert torch.equal(found.valid.any(1), valid.any(1))
    if share == ALWAYS:
        assert torch.equal(found.valid.sum(1), valid.any(1).long())
    assert not found.image[~found.valid].any()
    assert not found.clear[~found.valid].any()
    assert torch.equal(found.image[found.valid], sample.image[found.valid].float())
    assert torch.equal(found.clear[found.valid], sample.clear[found.valid])


def test_dates_are_dropped_as_often_as_asked_and_any_may_be_the_last() -> None:
    sample = make_sample(chips=2000, bands=1, side=2, dates=10)
    kept = augment(sample, Augmentation(flips=False, drop_dates=0.3), generator=generator(0)).valid
    assert abs(float(kept.float().mean()) - 0.7) < 0.02
    last = augment(sample, Augmentation(flips=False, drop_dates=ALWAYS), generator=generator(0)).valid.sum(0)
    assert int(last.sum()) == 2000
    assert int(last.min()) > 130


def test_gain_is_one_factor_a_band_for_all_dates_and_pixels() -> None:
    sample = make_sample(chips=500)
    factor = augment(sample, Augmentation(flips=False, gain=0.01), generator=generator(0)).image / sample.image.float()
    seen = factor[:, :, :, 1:, :]  # without the smallest values, which clamp at 1
    assert float((seen - seen[:, :1, :, :1, :1]).abs().max()) < 1e-5
    assert 0.008 < float(seen[:, 0, :, 0, 0].std()) < 0.012
    assert abs(float(seen[:, 0, :, 0, 0].mean()) - 1) < 0.002


def test_noise_has_the_deviation_asked_for_in_reflectance() -> None:
    sample = make_sample(chips=50).replace(image=torch.full((50, 4, 2, 6, 6), 3000.0))
    change = augment(sample, Augmentation(flips=False, noise=0.01), generator=generator(0)).image - 3000
    assert 97 < float(change.std()) < 103
    assert abs(float(change.mean())) < 3
    assert not torch.equal(change[:, 0], change[:, 1])


@quick
@given(seed=st.integers(0, 2**32))
def test_what_is_not_observed_stays_0_and_nothing_else_becomes_it(seed: int) -> None:
    values = torch.tensor([0, 1, 2, 9000, 65535, 0])
    image = values.expand(3, 4, 2, 6, 6).to(torch.int32).to(torch.uint16)
    strong = Augmentation(flips=False, gain=2.0, noise=1.0)
    found = augment(make_sample().replace(image=image), strong, generator=generator(seed)).image
    observed = image.to(torch.int32) > 0
    assert not found[~observed].any()
    assert float(found[observed].min()) >= 1
    assert float(found.max()) <= 65535


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_as_the_cpu_does_but_for_noise() -> None:
    options = Augmentation(rotations=True, drop_dates=0.3, gain=0.1)
    here = augment(make_sample(m=2), options, generator=generator(3))
    there = augment(make_sample(m=2).to("cuda"), options, generator=generator(3))
    for name in (*MAPS, "valid"):
        assert getattr(there, name).device.type == "cuda"
        torch.testing.assert_close(getattr(there, name).cpu(), getattr(here, name))
    noisy = augment(make_sample().to("cuda"), ALL, generator=generator(3)).image
    assert torch.equal(noisy, augment(make_sample().to("cuda"), ALL, generator=generator(3)).image)
