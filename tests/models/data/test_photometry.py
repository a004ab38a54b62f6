from __future__ import annotations

import colorsys
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.data.test_views import draws, make_sample
from torch import Tensor

from sits_models.data.photometry import vary
from sits_models.recipe import Blur, Jitter, Photometry
from sits_models.sample import Sample

quick = settings(deadline=None, max_examples=40)
ALL = Photometry(
    gain=0.3,
    offset=0.1,
    contrast=0.8,
    jitter=Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8),
    grey=0.3,
    blur=Blur(sigma=(0.1, 2.0)),
    noise=0.2,
    drop_bands=0.2,
    bands=(2, 4),
)


def random_sample(seed: int, *, chips: int = 3, bands: int = 4, gaps: float = 0.2, side: int = 6) -> Sample:
    """Values from 500 to 6000, and pixels of dates that were not observed."""
    numbers = torch.Generator().manual_seed(seed)
    image = 500 + 5500 * torch.rand(chips, 2, bands, side, side, generator=numbers)
    observed = torch.rand(chips, 2, 1, side, side, generator=numbers) >= gaps
    return make_sample(image=image * observed)


def varied(image: Tensor, options: Photometry, seed: int = 0) -> Tensor:
    return vary(make_sample(image=image), options, draws(seed, len(image))).image


def flat(chips: int, values: list[float], side: int = 2) -> Tensor:
    """All pixels of all dates have one spectrum."""
    return torch.tensor(values).view(1, 1, -1, 1, 1).expand(chips, 2, len(values), side, side).contiguous()


@quick
@given(seed=st.integers(0, 2**32), gaps=st.floats(0, 1), stored=st.booleans())
def test_gaps_stay_gaps_and_what_is_seen_stays_in_the_range(seed: int, gaps: float, stored: bool) -> None:
    sample = random_sample(seed, gaps=gaps)
    before = sample.image.clone()
    if stored:
        sample = sample.replace(image=before.to(torch.int32).to(torch.uint16))
    found = vary(sample, ALL, draws(seed, 3)).image
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    seen = before > 0
    assert not found[~seen].any()
    assert float(found.max()) <= 65535
    for chip in range(3):
        for band in range(4):
            mine, here = found[chip, :, band], seen[chip, :, band]
            hidden = not mine.any()
            assert hidden or float(mine[here].min()) >= 1
        assert bool(found[chip].any()) == bool(seen[chip].any())
    assert torch.equal(sample.image.float(), before.to(torch.int32).float() if stored else before)


@quick
@given(seed=st.integers(0, 2**32), cut=st.integers(1, 4))
def test_a_part_of_a_batch_changes_as_in_the_whole(seed: int, cut: int) -> None:
    sample = random_sample(seed, chips=5)
    whole = vary(sample, ALL, draws(seed, 5)).image
    for part in (slice(0, cut), slice(cut, 5)):
        mine = vary(make_sample(image=sample.image[part]), ALL, draws(seed, 5, part)).image
        # Sums of a blur may be rounded otherwise for another number of chips.
        torch.testing.assert_close(mine, whole[part], atol=0.01, rtol=1e-5)


def test_nothing_asked_for_changes_nothing() -> None:
    sample = random_sample(0)
    assert torch.equal(vary(sample, Photometry(), draws(0, 3)).image, sample.image)


def test_gain_and_offset_are_one_of_each_a_band() -> None:
    image = torch.cat([flat(1000, [1000.0, 3000.0]), flat(1000, [2000.0, 6000.0])], dim=1)
    found = varied(image, Photometry(gain=0.05, offset=0.002))
    first, second = found[:, 0, :, 0, 0], found[:, 2, :, 0, 0]
    assert torch.equal(found[:, 0], first[:, :, None, None].expand(-1, -1, 2, 2))
    gain = (second - first) / torch.tensor([1000.0, 3000.0])
    offset = 2 * first - second
    assert 0.045 < float(gain.std()) < 0.055
    assert abs(float(gain.mean()) - 1) < 0.005
    assert 18.5 < float(offset.std()) < 21.5
    assert abs(float(offset.mean())) < 2
    assert abs(float(torch.corrcoef(gain.T)[0, 1])) < 0.1


def test_contrast_keeps_the_mean_of_what_is_observed() -> None:
    sample = random_sample(3, chips=200, gaps=0.3)
    sample = sample.replace(image=(sample.image + 5000) * (sample.image > 0))  # so far from 0 that none is clamped
    found = vary(sample, Photometry(contrast=0.4), draws(0, 200)).image
    observed = sample.image > 0

    def moments(image: Tensor) -> tuple[Tensor, Tensor]:
        count = observed.sum((1, 3, 4))
        mean = image.sum((1, 3, 4)) / count
        away = torch.where(observed, image - mean[:, None, :, None, None], 0.0)
        return mean, (away.square().sum((1, 3, 4)) / count).sqrt()

    (mean, deviation), (mean_after, deviation_after) = moments(sample.image), moments(found)
    torch.testing.assert_close(mean_after, mean, rtol=1e-4, atol=0)
    factor = deviation_after / deviation
    assert 0.6 <= float(factor.min()) < 0.62
    assert 1.38 < float(factor.max()) <= 1.4001


def test_brightness_and_saturation_by_hand() -> None:
    # Bands B02, B03, B04 and B05 of which the last is not visible.
    image = flat(2000, [1000.0, 2000.0, 6000.0, 4000.0])
    bright = varied(image, Photometry(jitter=Jitter(brightness=0.4)))[:, 0, :, 0, 0]
    factor = bright[:, :3] / torch.tensor([1000.0, 2000.0, 6000.0])
    torch.testing.assert_close(factor, factor[:, :1].expand(-1, 3))
    assert 0.6 <= float(factor.min()) < 0.61
    assert 1.39 < float(factor.max()) <= 1.4001
    assert bool((bright[:, 3] == 4000).all())
    vivid = varied(image, Photometry(jitter=Jitter(saturation=0.4)))[:, 0, :3, 0, 0]
    factor = (vivid - 3000) / torch.tensor([-2000.0, -1000.0, 3000.0])
    torch.testing.assert_close(factor, factor[:, :1].expand(-1, 3), rtol=1e-4, atol=1e-4)
    assert 0.6 <= float(factor.min()) < 0.61


def test_contrast_of_a_jitter_moves_bands_towards_the_chips_grey() -> None:
    image = flat(1, [1000.0, 2000.0, 3000.0])
    image[:, 1] *= 3  # greys of 2000 and 6000: 4000 in the mean
    found = varied(image, Photometry(jitter=Jitter(contrast=0.5)))
    factor = (found - 4000) / (image - 4000)
    torch.testing.assert_close(factor, factor[:, :1, :1, :1, :1].expand_as(factor), rtol=1e-4, atol=1e-4)
    assert 0.5 <= float(factor.mean()) <= 1.5
    assert abs(float(factor.mean()) - 1) > 1e-3


def test_a_turn_of_hue_keeps_the_mean_and_greys_and_is_no_more_than_asked() -> None:
    image = flat(3000, [3000.0, 3000.0, 6000.0])  # blue, green, red
    found = varied(image, Photometry(jitter=Jitter(hue=0.1)))[:, 0, :, 0, 0]
    torch.testing.assert_close(found.mean(dim=1), torch.full((3000,), 4000.0))
    away, before = found - 4000, torch.tensor([-1000.0, -1000.0, 2000.0])
    torch.testing.assert_close(away.norm(dim=1), before.norm().expand(3000))
    angle = torch.acos((away @ before / before.norm().square()).clamp(-1, 1)) / (2 * math.pi)
    assert 0.095 < float(angle.max()) <= 0.1001
    # On either side, and red to green by way of yellow as in any circle of colours.
    sign = (found[:, 1] - found[:, 0]).sign()
    assert 0.45 < float((sign > 0).float().mean()) < 0.55
    blue, green, red = (found[angle.argmax()] / 10000).tolist()
    hue = colorsys.rgb_to_hsv(red, green, blue)[0]
    assert 0.05 < min(hue, 1 - hue) < 0.15
    grey = varied(flat(50, [2500.0] * 3), Photometry(jitter=Jitter(hue=0.5, saturation=0.5)))
    torch.testing.assert_close(grey, torch.full_like(grey, 2500.0))


def test_a_jitter_leaves_out_the_bands_that_lack_and_says_where_all_do() -> None:
    image = flat(5, [1000.0, 2000.0])  # B02 and B03
    found = varied(image, Photometry(jitter=Jitter(saturation=0.5)))
    torch.testing.assert_close(found.mean(dim=2), torch.full_like(found[:, :, 0], 1500.0))
    with pytest.raises(ValueError, match="hue is of three visible bands; got B03, B02"):
        varied(image, Photometry(jitter=Jitter(hue=0.1)))
    with pytest.raises(ValueError, match="a jitter is of the bands red; the sample has B02, B03"):
        varied(image, Photometry(jitter=Jitter(visible=("red",))))


def test_a_jitter_comes_as_often_as_asked() -> None:
    found = varied(flat(3000, [1000.0] * 3), Photometry(jitter=Jitter(brightness=0.4, probability=0.8)))
    assert abs(float((found[:, 0, 0, 0, 0] != 1000).float().mean()) - 0.8) < 0.03


def test_grey_is_one_of_the_bands_or_the_mean_of_the_visible() -> None:
    image = flat(3000, [1000.0, 2000.0, 6000.0, 9000.0])
    found = varied(image, Photometry(grey=0.4))[:, 0, :, 0, 0]
    same = (found == found[:, :1]).all(dim=1)
    assert abs(float(same.float().mean()) - 0.4) < 0.03
    assert torch.equal(found[~same], image[~same][:, 0, :, 0, 0])
    shares = [float((found[same][:, 0] == value).float().mean()) for value in (1000, 2000, 6000, 9000)]
    assert sum(shares) == pytest.approx(1)
    assert max(abs(share - 0.25) for share in shares) < 0.05
    mean = varied(image, Photometry(grey=1.0, grey_of="visible"))
    torch.testing.assert_close(mean, torch.full_like(mean, 3000.0))


@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_blur_of_one_pixel_is_its_kernel(size: int) -> None:
    image = torch.full((1, 1, 1, 15, 15), 1000.0)
    image[..., 7, 7] = 11000
    found = varied(image, Photometry(blur=Blur(kernels=(size,), probability=1.0)))[0, 0, 0]
    # OpenCV's kernels: a deviation of 0.8 for 3 pixels, 1.1 for 5 and 1.4 for 7.
    sigma = {3: 0.8, 5: 1.1, 7: 1.4}[size]
    one = [math.exp(-(x**2) / (2 * sigma**2)) if abs(x) <= size // 2 else 0.0 for x in range(-7, 8)]
    line = torch.tensor([weight / sum(one) for weight in one])
    torch.testing.assert_close(found, 1000 + 10000 * line[:, None] * line, rtol=1e-5, atol=1e-2)


@quick
@given(seed=st.integers(0, 2**32), gaps=st.floats(0, 1))
def test_a_blur_mixes_no_value_with_a_gap_or_with_what_is_outside(seed: int, gaps: float) -> None:
    sample = random_sample(seed, gaps=gaps)
    level = torch.where(sample.image > 0, 4000.0, 0.0)
    found = varied(level, Photometry(blur=Blur(sigma=(0.1, 2.0), probability=1.0)), seed)
    torch.testing.assert_close(found, level, rtol=1e-5, atol=0)


def test_a_blur_with_gaps_is_a_weighted_mean_by_loops() -> None:
    sample = random_sample(1, chips=1, gaps=0.4, side=5)
    found = varied(sample.image, Photometry(blur=Blur(sigma=(1.0, 1.0), probability=1.0)))
    image, expected = sample.image[0, 0, 0].double(), torch.zeros(5, 5, dtype=torch.float64)
    for row, column in (image > 0).nonzero().tolist():
        total = weights = 0.0
        for i, j in (image > 0).nonzero().tolist():
            weight = (
                math.exp(-((row - i) ** 2 + (column - j) ** 2) / 2) if max(abs(row - i), abs(column - j)) < 4 else 0
            )
            total, weights = total + weight * float(image[i, j]), weights + weight
        expected[row, column] = total / weights
    torch.testing.assert_close(found[0, 0, 0], expected.float(), rtol=1e-4, atol=0)


def test_a_blur_comes_as_often_as_asked_and_is_drawn_in_its_range() -> None:
    image = torch.full((600, 1, 1, 9, 9), 1000.0)
    image[..., 4, 4] = 60000
    found = varied(image, Photometry(blur=Blur(sigma=(0.1, 2.0), probability=0.5)))[:, 0, 0, 4, 4]
    assert abs(float((found < 60000).float().mean()) - 0.5) < 0.15
    assert len(found.unique()) > 200
    # 1 / (2 pi sigma^2) of the peak at sigma = 2, and somewhat more where the kernel leaves the image.
    assert 0.035 < float((found.min() - 1000) / 59000) < 0.06


def test_noise_has_the_deviation_asked_for_in_reflectance() -> None:
    change = varied(flat(50, [3000.0, 3000.0], side=6), Photometry(noise=0.01)) - 3000
    assert 97 < float(change.std()) < 103
    assert not torch.equal(change[:, 0], change[:, 1])
    assert not torch.equal(change[0], change[1])


def test_bands_are_hidden_for_a_chip_as_often_as_asked_and_one_stays() -> None:
    image = flat(3000, [1000.0, 2000.0, 3000.0, 4000.0])
    shown = (varied(image, Photometry(drop_bands=0.3)) > 0).flatten(3).all(3).all(1)
    assert abs(float(shown.float().mean()) - 0.7) < 0.02
    last = (varied(image, Photometry(drop_bands=1.0)) > 0).flatten(3).all(3).all(1)
    assert bool((last.sum(dim=1) == 1).all())
    assert int(last.sum(dim=0).min()) > 650


def test_a_batch_shows_the_same_bands() -> None:
    image = flat(6, [1000.0, 2000.0, 3000.0, 4000.0])
    seen = set()
    for seed in range(60):
        shown = (varied(image, Photometry(bands=(1, 3)), seed) > 0)[:, 0, :, 0, 0]
        assert torch.equal(shown, shown[:1].expand(6, -1))
        seen.add(int(shown[0].sum()))
        both = (varied(image, Photometry(bands=(1, 3), drop_bands=0.9), seed) > 0)[:, 0, :, 0, 0]
        assert not bool((both & ~shown).any())
        assert bool(both.any(dim=1).all())
    assert seen == {1, 2, 3}
    with pytest.raises(ValueError, match="of 4 bands 2 to 5 were to stay"):
        varied(image, Photometry(bands=(2, 5)))


def test_what_cannot_be_is_said() -> None:
    for build, message in (
        (lambda: Photometry(gain=-1.0), "gain, offset, contrast and noise are 0 or more"),
        (lambda: Photometry(grey=1.5), r"grey is a probability in \[0, 1\]; got 1.5"),
        (lambda: Photometry(bands=(0, 2)), "bands are a least and a largest number"),
        (lambda: Jitter(brightness=1.5), "factors lie in"),
        (lambda: Jitter(hue=0.6), "its hue in"),
        (lambda: Blur(), "a range of sigma or sizes of kernels; got None and None"),
        (lambda: Blur(kernels=(4,)), "odd sizes"),
        (lambda: Blur(sigma=(0.0, 1.0)), "sigma is a least"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
