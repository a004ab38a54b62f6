from __future__ import annotations

import calendar
import itertools
from functools import cache
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sits_models.backbones import backbone_class, build_backbone, list_backbones
from sits_models.backbones.base import Backbone, calendar_of, is_leap, scaled, with_time_channels
from sits_models.backbones.unet3d import UNet3D, UNet3Df, from_reference
from sits_models.recipe import BackboneRecipe, TransformerRecipe, Variant

VARIANTS: tuple[Variant, ...] = ("paper", "fixed")
ALL = [(name, variant) for name in list_backbones() for variant in VARIANTS]
SINGLE = ("deeplab_resnet18", "deeplab_resnet50", "resnet18", "resnet50")
"""Those that see one date."""
OF_ONE_SIZE = ("tsvit", "tsvit_parcel")
"""Those that take chips of the side alone that they were built for."""
Claim = Literal["ignores_padding", "ignores_order"]


def build(
    name: str, variant: Variant, *, bands: int = 3, dates: int = 8, width: float = 0.25, seed: int = 0
) -> Backbone:
    """A backbone whose statistics of batch normalisation are not those of a new one; of one date where it is of one."""
    dates = 1 if name in SINGLE else dates
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = TransformerRecipe() if name in OF_ONE_SIZE else None
        recipe = BackboneRecipe(name=name, variant=variant, width=width, transformer=sizes)
        backbone = build_backbone(recipe, bands=bands, dates=dates, size=8 if name in OF_ONE_SIZE else None)
        for key, buffer in backbone.named_buffers():
            if "running_mean" in key:
                buffer.normal_(0.0, 0.1)
            elif "running_var" in key:
                buffer.uniform_(0.5, 1.5)
    return backbone.eval()


def side(backbone: Backbone) -> int:
    """Of a small chip that the backbone takes."""
    multiple = backbone.needs.size_multiple
    return -(-max(backbone.needs.min_size, 8) // multiple) * multiple


def dates_of(backbone: Backbone) -> int:
    """Of a series that the backbone takes."""
    return backbone.needs.dates or 8


def draw_series(seed: int, *, b: int = 2, t: int = 8, c: int = 3, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    day = torch.stack([torch.randperm(360, generator=draw)[:t].sort().values + 17_800 for _ in range(b)])
    image = torch.randn(b, t, c, size, size, generator=draw)
    return image, torch.ones(b, t, dtype=torch.bool), day.to(torch.int32)


def claims(claim: Claim, *, kept: bool) -> list[tuple[str, Variant]]:
    return [given for given, backbone in default_backbones().items() if getattr(backbone, claim) is kept]


@cache
def default_backbones() -> dict[tuple[str, Variant], Backbone]:
    """One of each to ask what it claims; tests that run one build their own."""
    return {(name, variant): build(name, variant) for name, variant in ALL}


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    largest = max(1.0, float(theirs.abs().max()))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * largest)


def test_names_are_sorted_and_an_unknown_one_is_refused_with_a_proposal() -> None:
    assert list_backbones() == (
        "biconvgru",
        "biconvlstm",
        "deeplab_resnet18",
        "deeplab_resnet50",
        "resnet18",
        "resnet50",
        "tsvit",
        "tsvit_parcel",
        "unet2d_clstm",
        "unet3d",
        "unet3df",
        "utae",
    )
    with pytest.raises(ValueError, match=r"no backbone named 'unet3dff'.*unet3df.*there is: biconvgru, .*, unet3d"):
        backbone_class("unet3dff")


@pytest.mark.parametrize(("name", "variant"), ALL)
@pytest.mark.parametrize("bands", [3, 7])
def test_a_backbone_runs_forwards_and_backwards_and_series_with_missing_dates(
    name: str, variant: Variant, bands: int
) -> None:
    backbone = build(name, variant, bands=bands).train()
    size, dates = side(backbone), dates_of(backbone)
    image, valid, day = draw_series(1, t=dates, c=bands, size=size)
    known = 1 if name in SINGLE else 5
    assert (known < dates) == (name not in SINGLE)
    valid[0, known:] = False
    embedded = backbone(image.requires_grad_(), valid, day)
    rows = -(-size // backbone.stride) if backbone.stride else 1
    assert embedded.shape == (2, backbone.channels, rows, rows)
    assert embedded.dtype == torch.float32
    embedded.square().mean().backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert image.grad is not None
    assert image.grad[0, :known].abs().sum() > 0
    assert image.grad[0, known:].abs().sum() == 0
    assert embedded.isfinite().all()


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_what_stands_in_padded_dates_does_not_matter(name: str, variant: Variant) -> None:
    backbone = build(name, variant)
    image, valid, day = draw_series(2, t=dates_of(backbone), size=side(backbone))
    valid[0, 6:], valid[1, 0] = False, False  # of a single date the second chip has none at all
    other_day = torch.where(valid, day, 123)
    with torch.no_grad():
        expected = backbone(image, valid, day)
        for other in (1e4, torch.nan, torch.inf):
            other_image = torch.where(valid[:, :, None, None, None], image, other)
            assert torch.equal(expected, backbone(other_image, valid, other_day))


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_a_chip_without_any_date_gives_finite_values(name: str, variant: Variant) -> None:
    backbone = build(name, variant)
    image, valid, day = draw_series(3, t=dates_of(backbone), size=side(backbone))
    valid[0] = False
    with torch.no_grad():
        assert backbone(image, valid, day).isfinite().all()


@pytest.mark.parametrize(("name", "variant"), ALL)
@given(seed=st.integers(0, 2**32 - 1), padded=st.integers(0, 7))
@settings(max_examples=4)
def test_a_chip_gives_the_same_alone_and_in_a_batch(name: str, variant: Variant, seed: int, padded: int) -> None:
    backbone = build(name, variant)
    image, valid, day = draw_series(seed, b=3, t=dates_of(backbone), size=side(backbone))
    valid[0, 8 - padded :] = False
    with torch.no_grad():
        whole = backbone(image, valid, day)
        parts = [backbone(image[i : i + 1], valid[i : i + 1], day[i : i + 1]) for i in range(3)]
    assert_same(torch.cat(parts), whole)


@pytest.mark.parametrize(("name", "variant"), claims("ignores_padding", kept=True))
@given(seed=st.integers(0, 2**32 - 1), dates=st.integers(1, 9), added=st.integers(1, 6), data=st.data())
@settings(max_examples=10)
def test_padding_does_not_matter_where_a_backbone_says_so(
    name: str, variant: Variant, seed: int, dates: int, added: int, data: st.DataObject
) -> None:
    backbone = build(name, variant)
    image, valid, day = draw_series(seed, b=2, t=dates, size=side(backbone))
    # Anywhere for those that say that order does not matter either, else at the end.
    places = list(range(dates + added))
    if backbone.ignores_order:
        places = data.draw(st.permutations(places))
    filler = draw_series(seed + 1, b=2, t=added, size=image.shape[-1])
    longer = [
        torch.empty_like(torch.cat([ours, more], dim=1)) for ours, more in zip((image, valid, day), filler, strict=True)
    ]
    for tensor, ours, more in zip(longer, (image, valid, day), (filler[0], ~filler[1], filler[2]), strict=True):
        tensor[:, sorted(places[:dates])], tensor[:, sorted(places[dates:])] = ours, more
    with torch.no_grad():
        assert_same(backbone(*longer), backbone(image, valid, day))


@pytest.mark.parametrize(
    ("name", "variant"), [(name, variant) for name, variant in claims("ignores_order", kept=True) if name not in SINGLE]
)
@given(seed=st.integers(0, 2**32 - 1), dates=st.integers(2, 9), data=st.data())
@settings(max_examples=10)
def test_the_order_of_dates_does_not_matter_where_a_backbone_says_so(
    name: str, variant: Variant, seed: int, dates: int, data: st.DataObject
) -> None:
    backbone = build(name, variant, dates=dates) if backbone_takes_any_dates(name, variant) else build(name, variant)
    image, valid, day = draw_series(seed, b=2, t=backbone.needs.dates or dates, size=side(backbone))
    order = data.draw(st.permutations(range(image.shape[1])))
    with torch.no_grad():
        assert_same(backbone(image[:, order], valid[:, order], day[:, order]), backbone(image, valid, day))


def backbone_takes_any_dates(name: str, variant: Variant) -> bool:
    return build(name, variant).needs.dates is None


@pytest.mark.parametrize(("name", "variant"), claims("ignores_padding", kept=False))
def test_a_backbone_that_does_not_say_so_depends_on_padding(name: str, variant: Variant) -> None:
    backbone = build(name, variant)
    image, valid, day = draw_series(4, t=12, size=side(backbone))
    valid[:, 8:] = False
    if backbone.needs.dates is not None:
        says = "takes single dates; got 12" if name in SINGLE else "built for 8 dates; got 12: pad or sample the series"
        with pytest.raises(ValueError, match=says):
            backbone(image, valid, day)
        return
    with torch.no_grad():
        gap = (backbone(image, valid, day) - backbone(image[:, :8], valid[:, :8], day[:, :8])).abs().max()
    assert gap > 1e-5


@pytest.mark.parametrize(("name", "variant"), claims("ignores_order", kept=False))
def test_a_backbone_that_does_not_say_so_depends_on_the_order_of_dates(name: str, variant: Variant) -> None:
    backbone = build(name, variant)
    image, valid, day = draw_series(5, size=side(backbone))
    with torch.no_grad():
        gap = (backbone(image.flip(1), valid, day.flip(1)) - backbone(image, valid, day)).abs().max()
    assert gap > 1e-5


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_width_scales_the_embedding_and_outputs_sets_it(name: str, variant: Variant) -> None:
    recipes = [BackboneRecipe(name=name, variant=variant, width=width) for width in (0.5, 1.0)]
    dates = 1 if name in SINGLE else 8
    with torch.device("meta"):  # sizes alone
        half, whole = (build_backbone(recipe, bands=3, dates=dates) for recipe in recipes)
    assert half.channels * 2 == whole.channels
    sizes = [sum(parameter.numel() for parameter in backbone.parameters()) for backbone in (half, whole)]
    # The heads of a TSViT are as large at any width: 64 channels each in tsvit_parcel.
    assert 0.2 * sizes[1] < sizes[0] < (0.4 if name in OF_ONE_SIZE else 0.35) * sizes[1]
    assert build_backbone(recipes[0], bands=3, dates=dates, outputs=8).channels == 8


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_half_precision_gives_nearly_the_same(name: str, variant: Variant) -> None:
    backbone = build(name, variant)
    image, valid, day = draw_series(6, t=dates_of(backbone), size=side(backbone))
    with torch.no_grad():
        exact = backbone(image, valid, day)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = backbone(image, valid, day).float()
    assert (rough - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_a_chip_of_the_wrong_shape_is_refused(name: str, variant: Variant) -> None:
    backbone = build(name, variant)
    size = side(backbone) + 1
    if backbone.needs.size_multiple > 1:
        with pytest.raises(
            ValueError, match=f"takes chips of at least .* px whose sides are multiples of .*; got {size} x"
        ):
            backbone(*draw_series(7, t=dates_of(backbone), size=size))
    if backbone.needs.min_size > backbone.needs.size_multiple:
        with pytest.raises(ValueError, match="takes chips of at least"):
            backbone(*draw_series(7, t=dates_of(backbone), size=backbone.needs.size_multiple))


def test_channels_are_scaled_to_even_numbers() -> None:
    assert [scaled(64, 1.0), scaled(32, 0.25), scaled(64, 0.01), scaled(14, 0.5)] == [64, 8, 2, 8]
    with pytest.raises(ValueError, match="width is a factor above 0, 1 as published; got -1"):
        scaled(64, -1)


def test_dates_become_day_of_year_and_year_since_2016_and_0_in_padding() -> None:
    day = torch.tensor([[17531, 18321, 18322, 0]])  # 2017-12-31, 2020-02-29, 2020-03-01
    assert [x.tolist() for x in calendar_of(day[0])] == [[2017, 2020, 2020, 1970], [365, 60, 61, 1]]
    valid = torch.tensor([[True, True, True, False]])
    series = with_time_channels(torch.ones(1, 4, 1, 2, 2), valid, day, ("day_of_year", "year"))
    assert series.shape == (1, 4, 3, 2, 2)
    expected = torch.tensor([[1, 365 / 365.0001, 1], [1, 60 / 365.0001, 4], [1, 61 / 365.0001, 4], [0, 0, 0]])
    torch.testing.assert_close(series[0, :, :, 0, 0], expected)
    assert (series == series[..., :1, :1]).all()


def test_leap_years_are_those_of_the_calendar() -> None:
    years = torch.arange(1600, 2401)
    assert is_leap(years).tolist() == [int(calendar.isleap(year)) for year in years.tolist()]


# --- UNet3D and UNet3Df ---------------------------------------------------------------------------------------------


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_are_the_published_ones() -> None:
    two = ("day_of_year", "year")
    assert n_parameters(UNet3D(13, dates=16, outputs=20)) == 6_183_429
    assert n_parameters(UNet3D(13, dates=16, outputs=18, time_channels=two)) == 6_183_427
    assert n_parameters(UNet3D(10, dates=16, outputs=19)) == 6_177_380
    assert n_parameters(UNet3Df(13, dates=16)) == 7_217_361
    assert n_parameters(UNet3Df(13, dates=16, time_channels=two)) == 7_219_089


def test_summing_dates_before_the_last_convolution_equals_the_published_order() -> None:
    backbone = build("unet3df", "paper")
    assert isinstance(backbone, UNet3Df)
    series = torch.randn(2, 8, 4, 8, 8)
    with torch.no_grad():
        features = backbone._features(series.transpose(1, 2), None)
        published = backbone.fn(backbone.final(features).movedim(2, -1))[..., 0]
        torch.testing.assert_close(backbone.embed_series(series), published, rtol=1e-5, atol=1e-6)


def test_a_series_of_a_number_of_dates_that_pooling_cannot_halve_twice_is_refused_as_published_only() -> None:
    with pytest.raises(
        ValueError, match=r"UNet3Df as published takes .* a multiple of 4; got 10: .* to 12, or use the variant fixed"
    ):
        UNet3Df(3, dates=10)
    with pytest.raises(ValueError, match="got 0: sample or pad the series to 4"):
        UNet3D(3, dates=0)
    assert UNet3Df(3, dates=10, variant="fixed").needs.dates is None


def footprint(backbone: Backbone, row: int, column: int, size: int) -> tuple[int, int, int, int]:
    """Pixels above, below, left and right of an output pixel that it depends on."""
    image, valid, day = draw_series(0, b=1, t=4, size=size)
    image = image.double().abs().requires_grad_()
    backbone(image, valid, day)[0, 0, row, column].backward()
    assert image.grad is not None
    touched = image.grad.abs().sum(dim=(0, 1, 2)) > 0
    rows, columns = touched.any(dim=1).nonzero(), touched.any(dim=0).nonzero()
    return row - int(rows[0]), int(rows[-1]) - row, column - int(columns[0]), int(columns[-1]) - column


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["unet3d", "unet3df"])
def test_the_reach_is_what_gradients_reach(name: str, variant: Variant) -> None:
    backbone = build(name, variant, dates=4, width=1 / 32).double()
    # A gradient goes through one of the pixels that a maximum is taken of; a mean has the same footprint and hides
    # none. Positive weights cancel nothing.
    for module in backbone.modules():
        for pool in [key for key, child in module.named_children() if isinstance(child, nn.MaxPool3d)]:
            setattr(module, pool, nn.AvgPool3d(2))
    for parameter in backbone.parameters():
        nn.init.constant_(parameter, 0.1)
    found = {footprint(backbone, 28 + i, 28 + i, 64) for i in range(4)}
    assert found == {(22, 25, 22, 25), (23, 24, 23, 24), (24, 27, 24, 27), (21, 26, 21, 26)}
    assert max(itertools.chain(*found)) == backbone.reach


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["unet3d", "unet3df"])
def test_a_tile_equals_the_whole_beyond_the_reach_where_corners_lie_4_px_apart(name: str, variant: Variant) -> None:
    backbone = build(name, variant, dates=4, width=1 / 16).double()
    image, valid, day = draw_series(8, b=1, t=4, size=96)
    image, reach = image.double(), backbone.reach
    assert reach is not None
    with torch.no_grad():
        whole = backbone(image, valid, day)
        tile = backbone(image[..., 12:80, 12:80], valid, day)
        shifted = backbone(image[..., 13:81, 13:81], valid, day)
    inner = slice(reach, 68 - reach)
    gap = (tile - whole[..., 12:80, 12:80]).abs()
    assert gap[..., inner, inner].max() < 1e-12
    assert gap.max() > 1e-6
    assert (shifted - whole[..., 13:81, 13:81]).abs()[..., inner, inner].max() > 1e-6


def test_entries_of_the_official_code_get_the_names_of_a_whole_objective() -> None:
    one = torch.ones(2, 3)
    names = {
        "backbone.en3.0.weight": "encoder.backbone.en3.0.weight",
        "backbone.fn.bias": "encoder.backbone.fn.bias",
        "conv_out_x2.1.running_var": "encoder.magnify.x2.1.running_var",
        "conv_out_x4.0.bias": "encoder.magnify.x4.0.bias",
        "linear_out.bias": "head.bias",
        "attn_sim.rel_h": "similarity.rel_h",
    }
    assert list(from_reference(dict.fromkeys(names, one))) == list(names.values())
    assert from_reference({"backbone.fn.bias": one, "linear_out.weight": one})["head.weight"].shape == (2, 3, 1, 1)
    assert list(from_reference({"module.en3.0.weight": one, "module.fn.weight": one})) == [
        "encoder.backbone.en3.0.weight",
        "encoder.backbone.fn.weight",
    ]
    with pytest.raises(ValueError, match=r"has other entries: layer4\.0\.weight"):
        from_reference({"en3.0.weight": one, "layer4.0.weight": one})
    with pytest.raises(ValueError, match=r"has other entries: fc\.weight, backbone\.up\.weight"):
        from_reference({"backbone.en3.0.weight": one, "fc.weight": one, "backbone.up.weight": one})
