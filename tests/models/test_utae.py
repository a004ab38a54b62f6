"""U-TAE: what it ignores, what it gathers over time, and its sizes. Equality with the original: test_parity.py."""

from __future__ import annotations

import datetime
import doctest
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sits_models.backbones import utae
from sits_models.backbones.utae import (
    UTAE,
    SeriesNorm,
    UTAELayout,
    _gather,
    _pack,
    encode_positions,
    from_reference,
    season_start,
)
from sits_models.heads import build_head

BANDS, SIZE = 3, 16
Variant = Literal["paper", "fixed"]


def model(variant: Variant, *, seed: int = 0, layout: UTAELayout | None = None) -> UTAE:
    """A quarter of the published width, with running statistics that are not those of a new model."""
    torch.manual_seed(seed)
    made = UTAE(BANDS, dates=5, width=0.25, variant=variant, layout=layout)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return made.eval()


def series(batch: int, dates: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image, valid (all) and ascending days from 2020-10-01."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, dates, BANDS, SIZE, SIZE, generator=generator)
    day = 18536 + torch.randint(1, 30, (batch, dates), generator=generator).cumsum(1)
    return image, torch.ones(batch, dates, dtype=torch.bool), day.to(torch.int32)


@torch.no_grad()
def embed(backbone: UTAE, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
    return backbone(image, valid, day)  # type: ignore[no-any-return]


def days(*dates: str) -> Tensor:
    epoch = datetime.date(1970, 1, 1)
    return torch.tensor([[(datetime.date.fromisoformat(date) - epoch).days for date in dates]], dtype=torch.int32)


def date_of(day: Tensor) -> str:
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day))).isoformat()


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), padded=st.integers(1, 6), data=st.data())
def test_padded_dates_anywhere_with_anything_in_them_change_nothing_when_fixed(
    seed: int, padded: int, data: st.DataObject
) -> None:
    image, valid, day = series(2, 3, seed=seed)
    places = data.draw(st.permutations(range(3 + padded))).copy()[:3]
    wide = torch.full((2, 3 + padded, BANDS, SIZE, SIZE), torch.nan)
    wide_valid = torch.zeros(2, 3 + padded, dtype=torch.bool)
    wide_day = torch.full((2, 3 + padded), 99999, dtype=torch.int32)
    for source, place in enumerate(sorted(places)):
        wide[:, place], wide_valid[:, place], wide_day[:, place] = image[:, source], True, day[:, source]
    backbone = model("fixed")
    torch.testing.assert_close(
        embed(backbone, wide, wide_valid, wide_day), embed(backbone, image, valid, day), atol=1e-5, rtol=1e-5
    )


def test_padding_changes_the_published_output() -> None:
    image, valid, day = series(2, 3, seed=1)
    pad = (0, 0, 0, 0, 0, 0, 0, 3)
    wide = nn.functional.pad(image, pad), nn.functional.pad(valid, (0, 3)), nn.functional.pad(day, (0, 3))
    backbone = model("paper")
    assert not backbone.ignores_padding
    assert (embed(backbone, *wide) - embed(backbone, image, valid, day)).abs().max() > 1e-3


@pytest.mark.parametrize("variant", ["paper", "fixed"])
@settings(max_examples=5)
@given(seed=st.integers(0, 1000), order=st.permutations(range(5)))
def test_the_order_of_the_dates_changes_nothing(variant: Variant, seed: int, order: list[int]) -> None:
    image, valid, day = series(2, 5, seed=seed)
    valid[1, 3:] = False
    backbone = model(variant)
    assert backbone.ignores_order
    mixed = embed(backbone, image[:, order], valid[:, order], day[:, order])
    torch.testing.assert_close(mixed, embed(backbone, image, valid, day), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["paper", "fixed"])
def test_a_series_gives_the_same_alone_and_in_a_batch(variant: Variant) -> None:
    image, valid, day = series(3, 4, seed=2)
    valid[0, 2:] = False
    backbone = model(variant)
    alone = torch.cat([embed(backbone, image[i : i + 1], valid[i : i + 1], day[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(embed(backbone, image, valid, day), alone, atol=1e-5, rtol=1e-5)


def test_other_days_give_another_embedding() -> None:
    image, valid, day = series(1, 4, seed=3)
    backbone = model("fixed")
    later = day + torch.tensor([[0, 0, 30, 60]], dtype=torch.int32)
    assert (embed(backbone, image, valid, day) - embed(backbone, image, valid, later)).abs().max() > 1e-4


def test_one_season_is_as_another_when_fixed_and_not_as_published() -> None:
    image, valid, day = series(1, 4, seed=4)
    assert date_of(day[0, 0]) >= "2020-10-01"
    a_year_later = day + 365  # 2020-09-01 to 2021-09-01 has no 29 February in it
    for variant, same in (("fixed", True), ("paper", False)):
        backbone = model(variant)  # type: ignore[arg-type]
        gap = (embed(backbone, image, valid, day) - embed(backbone, image, valid, a_year_later)).abs().max()
        assert (gap < 1e-6) == same


@pytest.mark.parametrize("variant", ["paper", "fixed"])
def test_a_series_without_a_valid_date_is_finite_and_leaves_the_others_alone(variant: Variant) -> None:
    image, valid, day = series(2, 3, seed=5)
    backbone = model(variant)
    whole = embed(backbone, image, valid, day)
    valid[1] = False
    found = embed(backbone, image, valid, day)
    assert found.isfinite().all()
    torch.testing.assert_close(found[0], whole[0], atol=1e-5, rtol=1e-5)
    assert embed(backbone, image, torch.zeros_like(valid), day).isfinite().all()


@pytest.mark.parametrize("variant", ["paper", "fixed"])
def test_attention_sums_to_one_over_valid_dates(variant: Variant) -> None:
    image, valid, day = series(2, 5, seed=6)
    valid[1, [1, 4]] = False
    with torch.no_grad():
        embedding, attention = model(variant).embed_positions(image, valid, day)
    assert embedding.shape == (2, 8, SIZE, SIZE)
    assert attention.shape == (4, 2, 5, SIZE // 8, SIZE // 8)
    torch.testing.assert_close(attention.sum(2), torch.ones(4, 2, 2, 2))
    assert (attention[:, 1, [1, 4]] == 0).all()


def test_every_aggregation_of_a_single_date_takes_that_date() -> None:
    image, valid, day = series(2, 3, seed=7)
    valid[:, 1:] = False
    sizes = {"encoder": (16, 16, 32), "decoder": (8, 8, 32), "heads": 4, "values": 64}
    found = [
        embed(model("fixed", layout=UTAELayout(**sizes, aggregation=aggregation)), image, valid, day)  # type: ignore[arg-type]
        for aggregation in ("att_group", "att_mean", "mean")
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[0], found[2], atol=1e-5, rtol=1e-5)


def test_aggregations_of_two_dates_by_hand() -> None:
    valid = torch.tensor([[True, True, False]])
    skip = torch.tensor([[1.0, 10.0], [3.0, 30.0], [0.0, 0.0]])[None, :, :, None, None].expand(1, 3, 2, 4, 4)
    # Two heads: the first looks at the first date, the second a quarter at the first and three quarters at the second.
    attention = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0]])[:, None, :, None, None].expand(2, 1, 3, 2, 2)
    expected = {
        "att_group": [1.0, 25.0],
        "att_mean": [0.625 * 1 + 0.375 * 3, 0.625 * 10 + 0.375 * 30],
        "mean": [2.0, 20.0],
    }
    for aggregation, values in expected.items():
        layout = UTAELayout(encoder=(8, 8), decoder=(8, 8), heads=2, values=8, aggregation=aggregation)  # type: ignore[arg-type]
        places, lengths = _pack(valid)
        weights = model("fixed", layout=layout)._weights(attention, valid)[places]
        gathered = _gather(skip.flatten(0, 1)[places], weights, lengths)
        torch.testing.assert_close(gathered, torch.tensor(values)[None, :, None, None].expand(1, 2, 4, 4))


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), kept=st.lists(st.booleans(), min_size=4, max_size=4).filter(any))
def test_the_norm_of_a_series_is_the_group_norm_of_its_valid_dates(seed: int, kept: list[bool]) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 4, 6, 2, 3, generator=generator)
    norm, oracle = SeriesNorm(3, 6), nn.GroupNorm(3, 6)
    with torch.no_grad():
        for ours, theirs in zip(norm.parameters(), oracle.parameters(), strict=True):
            ours.copy_(torch.randn(6, generator=generator))
            theirs.copy_(ours)
    mask = torch.tensor([kept])
    found = norm(x, mask)
    pixels = x[0, mask[0]].permute(2, 3, 1, 0).flatten(0, 1)  # (h*w, C, valid dates)
    expected = oracle(pixels).unflatten(0, (2, 3)).permute(3, 2, 0, 1)
    torch.testing.assert_close(found[0, mask[0]], expected, atol=1e-5, rtol=1e-5)
    assert (found[0, ~mask[0]] == 0).all()


def test_positions_are_sines_and_cosines_of_periods_up_to_a_thousand() -> None:
    found = encode_positions(torch.tensor([[0, 7, 364]]), 6)[0]
    for row, position in zip(found, (0, 7, 364), strict=True):
        angles = [position / 1000 ** (2 * k / 6) for k in range(3)]
        expected = [f(angle) for angle in angles for f in (np.sin, np.cos)]
        np.testing.assert_allclose(row.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("dates", "start"),
    [
        (("2018-09-17", "2019-10-21"), "2018-09-01"),  # the series of PASTIS: the published origin
        (("2021-01-03", "2021-12-29"), "2020-09-01"),  # a calendar year
        (("2021-03-01", "2021-10-31"), "2020-09-01"),  # a summer
        (("2019-10-05", "2020-02-29"), "2019-09-01"),  # the beginning of a winter crop, in a leap year
        (("2020-09-01", "2020-09-01"), "2020-09-01"),
        (("2020-08-31", "2020-08-31"), "2019-09-01"),
    ],
)
def test_seasons_start_on_the_first_of_september(dates: tuple[str, str], start: str) -> None:
    assert date_of(season_start(days(*dates), torch.tensor([[True, True]]))) == start


def test_one_more_date_before_september_does_not_move_the_start_by_a_year() -> None:
    day = days("2020-08-29", "2020-09-03", "2021-03-01", "2021-08-20")
    all_of_them = season_start(day, torch.tensor([[True, True, True, True]]))
    without_first = season_start(day, torch.tensor([[False, True, True, True]]))
    assert date_of(all_of_them) == date_of(without_first) == "2020-09-01"


def test_padded_dates_do_not_move_the_start() -> None:
    day = days("2018-09-17", "2019-10-21", "1970-01-01", "2050-01-01")
    assert date_of(season_start(day, torch.tensor([[True, True, False, False]]))) == "2018-09-01"


def test_the_published_model_has_the_published_number_of_parameters() -> None:
    backbone = UTAE(10, dates=60)
    head = build_head("double_conv", channels=backbone.channels, classes=20, variant="paper")
    counts = [sum(p.numel() for p in part.parameters()) for part in (backbone, head)]
    assert counts == [1_087_260 - 15_132, 15_132]
    parts = [
        sum(p.numel() for p in part.parameters())
        for part in (backbone.stem, backbone.down, backbone.temporal, backbone.up)
    ]
    assert parts == [43_008, 567_360, 83_200, 378_560]


def test_width_scales_whole_heads() -> None:
    assert UTAELayout.scaled(1.0) == UTAELayout()
    quarter = UTAELayout.scaled(0.25)
    assert (quarter.encoder, quarter.decoder) == ((16, 16, 16, 32), (8, 8, 16, 32))
    assert (quarter.heads, quarter.keys, quarter.values) == (4, 4, 64)
    assert UTAE(BANDS, dates=5, width=0.25, outputs=20).channels == 20


def test_scales_that_do_not_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="equal channels at the coarsest"):
        UTAELayout(encoder=(64, 128), decoder=(32, 64))


@pytest.mark.parametrize("size", [8, 20])
def test_chips_too_small_to_reflect_or_to_halve_are_refused(size: int) -> None:
    valid = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="at least 16 px whose sides are multiples of 8"):
        model("paper")(torch.zeros(1, 2, BANDS, size, size), valid, torch.zeros(1, 2, dtype=torch.int32))


@pytest.mark.parametrize("variant", ["paper", "fixed"])
def test_every_parameter_learns(variant: Variant) -> None:
    image, valid, day = series(2, 4, seed=8)
    valid[1, 3:] = False
    backbone = model(variant).train()
    backbone(image, valid, day).square().mean().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias of the keys shifts all scores of a head alike, which softmax does not see.
        assert name == "temporal.keys.bias" or parameter.grad.abs().max() > 0, name


def test_time_channels_are_more_bands() -> None:
    backbone = UTAE(BANDS, dates=5, width=0.25, time_channels=("day_of_year", "year"))
    assert backbone.stem[0].weight.shape == (16, BANDS + 2, 3, 3)
    image, valid, day = series(1, 2, seed=9)
    assert backbone(image, valid, day).shape == (1, 8, SIZE, SIZE)


@pytest.mark.parametrize("variant", ["paper", "fixed"])
def test_a_model_of_float64_is_exact_throughout(variant: Variant) -> None:
    """A step of a millionth moves it by its gradient: what float32 rounds anywhere would move it more."""
    image, valid, day = series(1, 3, seed=11)
    backbone = model(variant).double()
    image, along = image.double().requires_grad_(), torch.randn(image.shape, dtype=torch.float64)
    whole = backbone(image, valid, day).square().mean()
    assert whole.dtype == torch.float64
    (slope,) = torch.autograd.grad(whole, image)
    ahead, behind = (embed(backbone, image + sign * 1e-6 * along, valid, day).square().mean() for sign in (1, -1))
    assert ((ahead - behind) / 2e-6).item() == pytest.approx((slope * along).sum().item(), rel=1e-5)


def test_bfloat16_stays_near_float32() -> None:
    image, valid, day = series(1, 3, seed=10)
    backbone = model("fixed")
    with torch.autocast("cpu", torch.bfloat16):
        half = embed(backbone, image, valid, day)
    whole = embed(backbone, image, valid, day)
    assert (half.float() - whole).abs().max() < 0.1 * whole.abs().max()


def test_foreign_weights_are_named() -> None:
    with pytest.raises(ValueError, match=r"no entry 'fc\.weight'"):
        from_reference({"fc.weight": torch.zeros(1)})


def test_weights_of_several_gpus_lose_their_prefix() -> None:
    assert list(from_reference({"module.out_conv.conv.conv.0.bias": torch.zeros(32)})) == ["head.0.bias"]


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(utae).failed == 0
