"""UNet2D-CLSTM: what it ignores, its recurrent norm and its sizes. Equality with the original: test_parity.py."""

from __future__ import annotations

import copy
import doctest
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones import unet2d_clstm
from sits_models.backbones.unet2d_clstm import (
    StepBatchNorm,
    UNet2DCLSTM,
    _pack,
    from_reference,
    momentum_of_passes,
    unused_in_reference,
)
from sits_models.encoder import Encoder
from sits_models.heads import build_head
from sits_models.objectives.cscl import ContextContrast
from sits_models.recipe import ContrastRecipe

BANDS, SIZE = 3, 8
Variant = Literal["paper", "fixed"]


def model(variant: Variant, *, dates: int = 4) -> UNet2DCLSTM:
    """A quarter of the published width, with running statistics that are not those of a new model."""
    torch.manual_seed(0)
    made = UNet2DCLSTM(BANDS, dates=dates, width=0.25, variant=variant)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d | StepBatchNorm):
            assert isinstance(module.running_mean, Tensor)
            assert isinstance(module.running_var, Tensor)
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
def embed(backbone: UNet2DCLSTM, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
    return backbone(image, valid, day)  # type: ignore[no-any-return]


def spread(image: Tensor, day: Tensor, places: list[int], dates: int) -> tuple[Tensor, Tensor, Tensor]:
    """The series at these places among `dates`, all others padding with something in them."""
    b = len(image)
    wide, wide_day = (
        torch.full((b, dates, BANDS, SIZE, SIZE), torch.nan),
        torch.full((b, dates), 30000, dtype=torch.int32),
    )
    valid = torch.zeros(b, dates, dtype=torch.bool)
    wide[:, places], wide_day[:, places], valid[:, places] = image, day, True
    return wide, valid, wide_day


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), places=st.sets(st.integers(0, 6), min_size=3, max_size=3))
def test_padded_dates_anywhere_with_anything_in_them_change_nothing_when_fixed(seed: int, places: set[int]) -> None:
    image, valid, day = series(2, 3, seed=seed)
    backbone = model("fixed")
    assert backbone.ignores_padding
    padded = embed(backbone, *spread(image, day, sorted(places), 7))
    torch.testing.assert_close(padded, embed(backbone, image, valid, day), atol=1e-5, rtol=1e-5)


def test_padded_dates_move_no_statistic_and_no_gradient_when_fixed() -> None:
    image, valid, day = series(2, 3, seed=1)
    tight, wide = model("fixed").train(), model("fixed").train()
    tight(image, valid, day).square().mean().backward()
    wide(*spread(image, day, [0, 2, 5], 6)).square().mean().backward()
    for (name, ours), theirs in zip(tight.state_dict().items(), wide.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)
    for (name, ours), theirs in zip(tight.named_parameters(), wide.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-2, msg=name)


def test_padding_at_the_end_changes_the_published_output() -> None:
    image, valid, day = series(2, 3, seed=2)
    backbone = model("paper")
    assert not backbone.ignores_padding
    padded = embed(backbone, *spread(image, day, [0, 1, 2], 5))
    assert (padded - embed(backbone, image, valid, day)).abs().max() > 1e-3


@pytest.mark.parametrize("variant", ["paper", "fixed"])
def test_a_series_gives_the_same_alone_and_in_a_batch(variant: Variant) -> None:
    image, valid, day = series(3, 4, seed=3)
    valid[0, 1:] = False
    valid[2, [0, 3]] = False
    backbone = model(variant)
    alone = torch.cat([embed(backbone, image[i : i + 1], valid[i : i + 1], day[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(embed(backbone, image, valid, day), alone, atol=1e-5, rtol=1e-5)


def test_the_order_of_the_dates_matters() -> None:
    image, valid, day = series(1, 3, seed=4)
    backbone = model("fixed")
    assert not backbone.ignores_order
    reverse = embed(backbone, image.flip(1), valid, day.flip(1))
    assert (reverse - embed(backbone, image, valid, day)).abs().max() > 1e-4


def test_the_variants_agree_where_nothing_is_padded() -> None:
    image, valid, day = series(2, 4, seed=5)
    torch.testing.assert_close(embed(model("paper"), image, valid, day), embed(model("fixed"), image, valid, day))


def test_a_series_without_a_valid_date_is_zero_when_fixed() -> None:
    image, valid, day = series(2, 3, seed=6)
    backbone = model("fixed")
    whole = embed(backbone, image, valid, day)
    valid[1] = False
    found = embed(backbone, image, valid, day)
    torch.testing.assert_close(found[0], whole[0], atol=1e-5, rtol=1e-5)
    assert (found[1] == 0).all()
    assert (embed(backbone, image, torch.zeros_like(valid), day) == 0).all()


def test_hidden_states_are_those_of_the_formula() -> None:
    """A loop over dates, sample by sample, from the equations: the mean of h = o * norm(tanh(c))."""
    image = series(2, 3, seed=7)[0]
    backbone = model("fixed", dates=2)
    with torch.no_grad():
        found = backbone.embed_series(torch.cat([image, torch.zeros(2, 3, 1, SIZE, SIZE)], dim=2))
        cell = backbone.lstm

        def norm(part: StepBatchNorm, x: Tensor, t: int) -> Tensor:
            row = min(t, 1)  # two steps have statistics, the third shares those of the second
            mean, var = part.running_mean[row, :, None, None], part.running_var[row, :, None, None]
            return (x - mean) / (var + 1e-5).sqrt() * part.weight[:, None, None]

        for sample in range(2):
            h = c = torch.zeros(1, 32, SIZE, SIZE)
            states = []
            for t in range(3):
                x = backbone.unet(functional.pad(image[sample, t : t + 1], (0, 0, 0, 0, 0, 1)))
                z = norm(cell.hidden_norm, cell.hidden_conv(h), t) + norm(cell.input_norm, cell.input_conv(x), t)
                i, f, o, g = z[:, :32].sigmoid(), z[:, 32:64].sigmoid(), z[:, 64:96].sigmoid(), z[:, 96:].tanh()
                c = f * c + i * g
                h = o * norm(cell.cell_norm, c.tanh(), t)
                states.append(h)
            torch.testing.assert_close(found[sample], torch.cat(states).mean(0), atol=1e-5, rtol=1e-5)


def test_one_step_moves_the_statistics_as_two_passes_do() -> None:
    torch.manual_seed(0)
    values = torch.randn(4, 5, 3, 3) + 2
    twice, once = StepBatchNorm(5, steps=2, passes=2).train(), StepBatchNorm(5, steps=2, passes=1).train()
    out = twice(values, 1, of=2)
    once(values, 1, of=2)
    torch.testing.assert_close(once(values, 1, of=2), out)
    torch.testing.assert_close(twice.running_mean, once.running_mean)
    torch.testing.assert_close(twice.running_var, once.running_var)
    # By hand: 0 to 0.1 m to 0.19 m; and the other step stays as it was.
    torch.testing.assert_close(twice.running_mean[1], 0.19 * values.mean((0, 2, 3)))
    assert (twice.running_mean[0] == 0).all()
    assert (twice.running_var[0] == 1).all()


@pytest.mark.parametrize(("steps", "dates"), [(1, 3), (8, 10), (3, 3)])
def test_steps_that_share_statistics_move_them_in_the_order_of_two_passes(steps: int, dates: int) -> None:
    """As the original: all dates, then all dates again, and not each date twice."""
    torch.manual_seed(0)
    series = torch.randn(dates, 4, 5, 3, 3) + torch.arange(dates)[:, None, None, None, None]
    ours, oracle = StepBatchNorm(5, steps=steps, passes=2).train(), StepBatchNorm(5, steps=steps, passes=1).train()
    for step, values in enumerate(series):
        ours(values, step, of=dates)
    for _ in range(2):
        for step, values in enumerate(series):
            oracle(values, step, of=dates)
    torch.testing.assert_close(ours.running_mean, oracle.running_mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.running_var, oracle.running_var, atol=1e-5, rtol=1e-5)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.integers(1, 3))
def test_a_running_mean_moves_as_after_all_passes(values: list[float], passes: int) -> None:
    expected = found = 1.0
    for value in values * passes:
        expected = 0.9 * expected + 0.1 * value
    for place, value in enumerate(values):
        momentum = momentum_of_passes(place, len(values), passes=passes)
        assert 0 < momentum < 1
        found = (1 - momentum) * found + momentum * value
    assert found == pytest.approx(expected, abs=1e-9)


def test_the_published_model_moves_its_statistics_as_two_passes_over_a_longer_series() -> None:
    image, valid, day = series(2, 5, seed=13)
    backbone, oracle = model("paper", dates=2).train(), model("paper", dates=2).train()
    for module in oracle.lstm.children():
        if isinstance(module, StepBatchNorm):
            module.passes = 1
    backbone(image, valid, day)
    oracle(image, valid, day)
    oracle(image, valid, day)
    for name, ours in backbone.lstm.state_dict().items():
        torch.testing.assert_close(ours, oracle.lstm.state_dict()[name], atol=1e-5, rtol=1e-4, msg=name)


def test_steps_beyond_the_last_share_its_statistics() -> None:
    norm = StepBatchNorm(2, steps=3, passes=1).eval()
    norm.running_mean.copy_(torch.arange(6.0).view(3, 2))
    values = torch.randn(1, 2, 4, 4)
    assert torch.equal(norm(values, 2, of=10), norm(values, 9, of=10))
    assert not torch.equal(norm(values, 1, of=10), norm(values, 2, of=10))


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4))
def test_packing_takes_every_valid_date_once_and_in_order(rows: list[list[bool]]) -> None:
    order, counts = _pack(torch.tensor(rows))
    lengths = [sum(row) for row in rows]
    assert counts == [n for t in range(4) if (n := sum(length > t for length in lengths))]
    taken: dict[int, list[int]] = {}
    for place in order.tolist():
        taken.setdefault(place // 4, []).append(place % 4)
    assert taken == {i: [t for t in range(4) if row[t]] for i, row in enumerate(rows) if any(row)}


def test_the_published_model_has_the_published_number_of_parameters() -> None:
    backbone = UNet2DCLSTM(13, dates=8)
    head = build_head("conv3", channels=backbone.channels, classes=20, variant="paper")
    assert sum(p.numel() for p in backbone.unet.parameters()) == 1_890_144
    assert sum(p.numel() for p in backbone.lstm.parameters()) == 1_181_824
    assert sum(p.numel() for p in [*backbone.parameters(), *head.parameters()]) == 3_095_028


def test_the_published_model_of_pretraining_has_the_published_number_of_parameters() -> None:
    encoder = Encoder(
        UNet2DCLSTM(13, dates=8), bands=tuple(map(str, range(13))), mean=[0.0] * 13, std=[1.0] * 13, magnification=1
    )
    objective = ContextContrast(encoder, recipe=ContrastRecipe())
    unused = 128 * 20 * 9 + 20  # its class convolution, which nothing trains
    assert sum(p.numel() for p in objective.parameters()) + unused == 3_128_180


def test_the_german_model_takes_day_and_year() -> None:
    backbone = UNet2DCLSTM(13, dates=16, time_channels=("day_of_year", "year"))
    head = build_head("conv3", channels=backbone.channels, classes=18, variant="paper")
    assert sum(p.numel() for p in [*backbone.parameters(), *head.parameters()]) == 3_093_298


@pytest.mark.parametrize(("width", "channels"), [(1.0, 128), (0.5, 64), (0.25, 32), (0.125, 16), (0.3, 38)])
def test_any_width_works(width: float, channels: int) -> None:
    backbone = UNet2DCLSTM(BANDS, dates=2, width=width)
    image, valid, day = series(1, 2, seed=8)
    assert backbone(image, valid, day).shape == (1, channels, SIZE, SIZE)
    assert UNet2DCLSTM(BANDS, dates=2, width=0.25, outputs=10).channels == 10


def test_sides_that_cannot_be_halved_twice_are_refused() -> None:
    image, valid, day = torch.zeros(1, 2, BANDS, 6, 8), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2).int()
    with pytest.raises(ValueError, match="multiples of 4; got 6 x 8"):
        model("paper")(image, valid, day)


@pytest.mark.parametrize("variant", ["paper", "fixed"])
def test_every_parameter_learns(variant: Variant) -> None:
    image, valid, day = series(2, 4, seed=9)
    valid[1, 2:] = False
    backbone = model(variant).train()
    backbone(image, valid, day).square().mean().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_one_pass_costs_one_pass() -> None:
    image, valid, day = series(1, 3, seed=10)
    backbone, calls = model("paper").train(), []
    backbone.lstm.register_forward_hook(lambda *_: calls.append(1))
    backbone(image, valid, day)
    assert len(calls) == 3


def test_bfloat16_stays_near_float32() -> None:
    image, valid, day = series(1, 3, seed=11)
    backbone = model("fixed")
    with torch.autocast("cpu", torch.bfloat16):
        half = embed(backbone, image, valid, day)
    whole = embed(backbone, image, valid, day)
    assert (half.float() - whole).abs().max() < 0.1 * whole.abs().max()


def test_statistics_of_the_original_become_rows() -> None:
    cell = "crnn_main.clstm.cell_list.0.cell_norm.running_mean_"
    found = from_reference({f"module.{cell}{t}": torch.full((2,), float(t)) for t in (10, 9, 0)})
    assert list(found) == ["encoder.backbone.lstm.cell_norm.running_mean"]
    assert found["encoder.backbone.lstm.cell_norm.running_mean"].tolist() == [[0, 0], [9, 9], [10, 10]]


def test_the_class_convolution_of_pretraining_is_left_out_and_named() -> None:
    state = {"main_finalconv.bias": torch.zeros(20), "attn_sim.rel_h": torch.zeros(64, 1, 1, 3, 1)}
    assert list(from_reference(state)) == ["similarity.rel_h"]
    assert unused_in_reference(state) == ("main_finalconv.bias",)
    del state["attn_sim.rel_h"]
    assert list(from_reference(state)) == ["head.bias"]
    assert unused_in_reference(state) == ()


def test_foreign_weights_are_named() -> None:
    with pytest.raises(ValueError, match=r"no entry 'fc\.weight'"):
        from_reference({"fc.weight": torch.zeros(1)})


def test_evaluation_moves_no_statistic() -> None:
    image, valid, day = series(2, 3, seed=12)
    backbone = model("fixed")
    before = copy.deepcopy(backbone.state_dict())
    embed(backbone, image, valid, day)
    assert all(torch.equal(ours, before[name]) for name, ours in backbone.state_dict().items())


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(unet2d_clstm).failed == 0
