from __future__ import annotations

import copy
import doctest
from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.meeting import Gather, together
from tests.models.samples import make_sample
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones import build_backbone
from sits_models.backbones.deeplab import DeepLab, DeepLabResNet18, DeepLabResNet50
from sits_models.data.regions import Regions
from sits_models.encoder import Encoder
from sits_models.objectives import glcnet
from sits_models.objectives.base import Loss
from sits_models.objectives.glcnet import (
    GlobalLocalContrast,
    Mode,
    RegionViews,
    from_reference,
    style_of,
)
from sits_models.objectives.region_means import region_means
from sits_models.recipe import BackboneRecipe, GLCNetRecipe
from sits_models.sample import Sample

BANDS = ("B02", "B03", "B04", "B08", "B11")
MODES: tuple[Mode, ...] = get_args(Mode)
REGIONS = torch.tensor([[[0, 8, 4, 12], [20, 33, 7, 8]], [[1, 2, 32, 33], [5, 25, 3, 30]]])
"""Of two chips of 33 px."""


def encoder_of(backbone: DeepLab, *, bands: tuple[str, ...] = BANDS) -> Encoder:
    return Encoder(backbone, bands=bands, mean=[5000.0] * len(bands), std=[2900.0] * len(bands), magnification=1)


def small(**options: object) -> GlobalLocalContrast:
    torch.manual_seed(0)
    backbone = DeepLabResNet18(len(BANDS), dates=1, width=0.0625)
    return GlobalLocalContrast(encoder_of(backbone), options=GLCNetRecipe(**options))  # type: ignore[arg-type]


def sample_of(*, seed: int, batch: int = 2, size: int = 33) -> Sample:
    return make_sample(batch=batch, dates=1, bands=BANDS, size=size, seed=seed)


def two(*, regions: Tensor = REGIONS, second: Tensor | None = None) -> RegionViews:
    return RegionViews(
        first=sample_of(seed=0),
        second=sample_of(seed=1),
        first_regions=regions,
        second_regions=regions.flip(1) if second is None else second,
        counted=torch.ones(regions.shape[:2], dtype=torch.bool),
    )


def in_loops(first: Tensor, second: Tensor, *, temperature: float, decoupled: bool) -> Tensor:
    """NT-Xent, query by query and key by key."""
    both, n = torch.cat([first, second]), len(first)
    total = both.new_zeros(())
    for i, query in enumerate(both):
        others = both.new_zeros(())
        for j, key in enumerate(both):
            similarity = (query @ key / query.norm() / key.norm() / temperature).exp()
            if j == (i + n) % (2 * n):
                positive = similarity
            elif j != i:
                others = others + similarity
        total = total - (positive / (others + (1e-8 if decoupled else positive))).log()
    return total / (2 * n)


def plain_loss(model: GlobalLocalContrast, views: RegionViews, *, weight: float, decoupled: bool) -> Tensor:
    """Step by step, with the map resized to pixels and every region cut out of it."""
    sides = []
    for sample, regions in ((views.first, views.first_regions), (views.second, views.second_regions)):
        backbone = model.encoder.backbone
        assert isinstance(backbone, DeepLab)
        fine, context = backbone.encode(model.encoder.normalize(sample.image)[:, 0])
        pixels = context.flatten(2)
        mean = pixels.sum(dim=2) / pixels.shape[2]
        variance = (pixels - mean[:, :, None]).square().sum(dim=2) / (pixels.shape[2] - 1)
        chips = model.style_head(torch.cat([mean, variance], dim=1))
        mapped = model.region_map(model.decoder(fine, context))
        resized = functional.interpolate(mapped, size=(33, 33), mode="bilinear", align_corners=True)
        cut = [
            resized[chip, :, top:bottom, left:right].mean(dim=(1, 2))
            for chip, rectangles in enumerate(regions.tolist())
            for top, bottom, left, right in rectangles
        ]
        sides.append((chips, model.region_head(torch.stack(cut))))
    losses = [in_loops(one, other, temperature=0.5, decoupled=decoupled) for one, other in zip(*sides, strict=True)]
    return weight * losses[0] + (1 - weight) * losses[1]


@pytest.mark.parametrize("decoupled", [True, False])
def test_loss_and_gradients_are_those_of_loops_over_chips_and_cut_regions(*, decoupled: bool) -> None:
    model, views = small(weight=0.3, decoupled=decoupled).double().eval(), two()
    ours, theirs = model.loss(views).value, plain_loss(model, views, weight=0.3, decoupled=decoupled)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for one, other in zip(*(torch.autograd.grad(loss, parameters) for loss in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()) + 1e-9)


@settings(max_examples=40)
@given(
    cells=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    pixels=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    data=st.data(),
)
def test_region_means_are_those_of_slices_of_the_resized_map(
    cells: tuple[int, int], pixels: tuple[int, int], data: st.DataObject
) -> None:
    features = torch.randn(2, 3, *cells, dtype=torch.float64, requires_grad=True)
    rows, columns = (st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True).map(sorted) for side in pixels)
    drawn = [[[*data.draw(rows), *data.draw(columns)] for _ in range(3)] for _ in range(2)]
    found = region_means(features, torch.tensor(drawn), size=pixels)
    resized = functional.interpolate(features, size=pixels, mode="bilinear", align_corners=True)
    expected = torch.stack(
        [
            torch.stack([resized[chip, :, t:b, x0:x1].mean(dim=(1, 2)) for t, b, x0, x1 in regions])
            for chip, regions in enumerate(drawn)
        ]
    )
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(means.square().sum(), features)[0] for means in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_a_region_of_a_map_of_pixels_by_hand() -> None:
    features = torch.arange(12.0).reshape(1, 1, 3, 4)  # rows 0-3, 4-7, 8-11
    regions = torch.tensor([[[0, 3, 0, 4], [1, 2, 2, 3], [1, 3, 0, 2]]])
    assert region_means(features, regions, size=(3, 4)).tolist() == [[[5.5], [6.0], [6.5]]]
    # Resized to 7 columns from 0, 1, 2, 3: 0, 0.5, 1, 1.5, 2, 2.5, 3; its columns 1 and 2 have the mean 0.75.
    assert region_means(features[:, :, :1], torch.tensor([[[0, 1, 1, 3]]]), size=(1, 7)).item() == 0.75


def test_a_style_by_hand() -> None:
    context = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[5.0, 5.0], [5.0, 5.0]]]])  # deviations -2, -1, 0, 3
    expected = torch.tensor([[3.0, 5.0, 14 / 3, 0.0]])
    torch.testing.assert_close(style_of(context, variance=True), expected)
    torch.testing.assert_close(style_of(context, variance=False), expected[:, :2])
    coarse = style_of(context.to(torch.bfloat16), variance=True)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, expected)


@pytest.mark.slow
def test_shapes_of_the_published_network() -> None:
    """Acceptance vector 7: two images of 4 bands and 224 px, 4 regions of 48 px each."""
    bands = BANDS[:4]
    model = GlobalLocalContrast(encoder_of(DeepLabResNet50(4, dates=1), bands=bands), options=GLCNetRecipe()).eval()
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 40_522_464
    assert sum(p.numel() for p in model.decoder.parameters()) + 256 * 64 + 64 == 1_320_096
    assert sum(p.numel() for p in model.style_head.parameters()) == 147_776
    assert sum(p.numel() for p in model.region_head.parameters()) == 8_320
    corners = torch.tensor([[0, 0], [10, 100], [176, 176], [60, 30]])
    regions = torch.stack([corners[:, 0], corners[:, 0] + 48, corners[:, 1], corners[:, 1] + 48], dim=1)
    sample = make_sample(batch=2, dates=1, bands=bands, size=224)
    with torch.no_grad():
        chips, matched = model.embed(sample, regions.expand(2, 4, 4), counted=torch.ones(2, 4, dtype=torch.bool))
    assert chips is not None
    assert matched is not None
    assert (chips.shape, matched.shape) == ((2, 64), (8, 64))


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_trains_all_that_it_has_and_nothing_else(mode: Mode) -> None:
    model = small(mode=mode)
    loss = model.loss(two())
    assert loss.count.item() == (8.0 if mode == "no_global" else 4.0)
    kinds = {"no_global": ("local",), "no_local": ("global",)}.get(mode, ("global", "local"))
    assert set(loss.monitors) == {f"{name}_{kind}" for kind in kinds for name in ("loss", "accuracy", "effective_rank")}
    losses = [loss.monitors[f"loss_{kind}"] for kind in kinds]
    torch.testing.assert_close(loss.value.detach(), torch.stack(losses).mean())
    loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad == (not name.startswith("encoder.backbone.decoder.")), name
    if mode != "no_global":
        assert model.style_head[0].in_features == (1 if mode == "no_style" else 2) * 16
    assert hasattr(model, "decoder") == (mode != "no_local")


def test_without_a_variance_the_style_is_the_means() -> None:
    model, views = small(mode="no_style").eval(), two()
    with torch.no_grad():
        chips, _ = model.embed(views.first, views.first_regions, counted=views.counted)
        _, context = model.encoder.backbone.encode(model.encoder.normalize(views.first.image)[:, 0])  # type: ignore[operator]
        torch.testing.assert_close(chips, model.style_head(context.mean(dim=(2, 3))))


def test_the_views_may_be_of_two_sizes_and_a_chip_of_one_region() -> None:
    model = small()
    views = RegionViews(
        first=sample_of(seed=0, size=33),
        second=sample_of(seed=1, size=20),
        first_regions=torch.tensor([[[0, 33, 0, 33]], [[10, 20, 10, 20]]]),
        second_regions=torch.tensor([[[0, 20, 0, 20]], [[4, 5, 19, 20]]]),
        counted=torch.ones(2, 1, dtype=torch.bool),
    )
    assert model.loss(views).value.isfinite()


def test_a_few_steps_draw_the_views_of_a_batch_together() -> None:
    model = small()
    views = RegionViews(
        first=sample_of(seed=0, batch=4),
        second=sample_of(seed=0, batch=4),
        first_regions=torch.cat([REGIONS] * 2),
        second_regions=torch.cat([REGIONS] * 2),
        counted=torch.ones(4, 2, dtype=torch.bool),
    )
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    values = []
    for _ in range(8):
        loss = model.loss(views).value
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0] - 0.1


def test_negatives_of_other_processes_count() -> None:
    model = trained_alike(small(decoupled=False))
    alone = model.loss(two()).value

    def behind(own: Tensor) -> Tensor:
        return torch.cat([torch.randn_like(own) if own.is_floating_point() else own + 1, own])

    model.gathered = behind
    assert model.loss(two()).value > alone


def test_a_region_that_does_not_count_is_as_if_it_were_not_there() -> None:
    model = small().eval()
    views = two()
    views = replace(views, counted=torch.tensor([[True, False], [True, True]]))
    _, matched = model.embed(views.first, views.first_regions, counted=views.counted)
    assert matched is not None
    assert matched.shape == (3, 64)
    loss = model.loss(views)
    other = REGIONS.clone()
    other[0, 1] = torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(model.loss(replace(views, first_regions=other)).value, loss.value)
    assert loss.count.item() == 4.0
    assert loss.over["accuracy_local"].item() == 6.0
    torch.testing.assert_close(
        loss.value, (loss.monitors["loss_global"] + loss.monitors["loss_local"]) / 2, check_dtype=False
    )
    for counted in (torch.zeros(2, 2, dtype=torch.bool), torch.tensor([[True, False], [False, False]])):
        few = model.loss(replace(views, counted=counted))  # without two regions there is nothing to compare
        torch.testing.assert_close(few.value, few.monitors["loss_global"] / 2)
        assert few.over["accuracy_local"].item() == 0.0
        few.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


@pytest.mark.parametrize("mode", MODES)
def test_processes_with_unequal_chips_and_regions_have_the_loss_of_the_whole_batch(mode: Mode) -> None:
    model = trained_alike(small(mode=mode))
    counted = torch.tensor([[True, True], [True, False], [False, False]])
    regions = torch.cat([REGIONS, REGIONS[:1]])
    whole = RegionViews(
        first=sample_of(seed=0, batch=3),
        second=sample_of(seed=1, batch=3),
        first_regions=regions,
        second_regions=regions.flip(1),
        counted=counted,
    )

    def work(gathered: Gather, *, chips: slice) -> Loss:
        own = copy.deepcopy(model)
        own.gathered = gathered
        return own.loss(part_of(whole, chips))

    losses = together([partial(work, chips=chips) for chips in (slice(0, 1), slice(1, 1), slice(1, 3))])
    total = torch.stack([loss.count for loss in losses]).sum()
    mean = torch.stack([loss.value * loss.count / total for loss in losses]).sum()
    torch.testing.assert_close(mean, model.loss(whole).value)


def trained_alike(model: GlobalLocalContrast) -> GlobalLocalContrast:
    """In training, without what the parts of a batch see otherwise than the whole: statistics and dropout."""
    for module in model.modules():
        module.training = not isinstance(module, nn.BatchNorm2d | nn.Dropout)
    return model


def test_an_evaluation_exchanges_nothing() -> None:
    model = small().eval()

    def never(_: Tensor) -> Tensor:
        raise AssertionError("a process may have fewer batches of a validation than others")

    model.gathered = never
    assert model.loss(two()).value.isfinite()


def part_of(views: RegionViews, chips: slice) -> RegionViews:
    def cut(sample: Sample) -> Sample:
        return sample.take(torch.arange(len(sample.place))[chips])

    return RegionViews(
        first=cut(views.first),
        second=cut(views.second),
        first_regions=views.first_regions[chips],
        second_regions=views.second_regions[chips],
        counted=views.counted[chips],
    )


def test_squares_matched_in_two_views_become_regions() -> None:
    squares = Regions(
        first=torch.tensor([[[1, 2], [0, 0]], [[7, 3], [4, 5]]]),
        second=torch.tensor([[[3, 1], [0, 0]], [[9, 9], [0, 8]]]),
        ground=torch.tensor([[70, -1], [300, 5]]),
        found=torch.tensor([[True, False], [True, True]]),
        side=4,
    )
    views = RegionViews.of(sample_of(seed=0), sample_of(seed=1), squares)
    assert views.first_regions.tolist() == [[[1, 5, 2, 6], [0, 4, 0, 4]], [[7, 11, 3, 7], [4, 8, 5, 9]]]
    assert views.second_regions.tolist() == [[[3, 7, 1, 5], [0, 4, 0, 4]], [[9, 13, 9, 13], [0, 4, 8, 12]]]
    assert views.counted is squares.found
    assert small().loss(views).over["accuracy_local"].item() == 6.0


# --- What is refused ------------------------------------------------------------------------------------------------


def test_a_backbone_without_the_two_maps_is_refused() -> None:
    backbone = build_backbone(BackboneRecipe(name="resnet18", width=0.0625), bands=5, dates=1)
    with pytest.raises(ValueError, match=r"two maps of a DeepLab; ResNet18 has not both: choose deeplab_resnet50"):
        GlobalLocalContrast(encoder_of(backbone), options=GLCNetRecipe())  # type: ignore[arg-type]


def test_finer_labels_are_refused() -> None:
    backbone = DeepLabResNet18(5, dates=1, width=0.0625)
    finer = Encoder(backbone, bands=BANDS, mean=[0.0] * 5, std=[1.0] * 5, magnification=2)
    with pytest.raises(ValueError, match=r"has no labels, so that ones 2 times finer .* set data\.labels=1"):
        GlobalLocalContrast(finer, options=GLCNetRecipe())


@pytest.mark.parametrize("wrong", [[0, 34, 0, 5], [-1, 5, 0, 5], [5, 5, 0, 5], [0, 5, 3, 34], [0, 5, 7, 6]])
def test_a_region_outside_of_the_view_is_refused(wrong: list[int]) -> None:
    regions = REGIONS.clone()
    regions[1, 0] = torch.tensor(wrong)
    message = rf"inside of a view of 33 x 33 px, and not empty; got \[{', '.join(map(str, wrong))}\]"
    with pytest.raises(ValueError, match=message):
        small().loss(two(regions=regions))


def test_regions_of_another_shape_are_refused() -> None:
    for first, second in ((REGIONS[:1], None), (REGIONS[..., :3], None), (REGIONS, REGIONS[:, :1])):
        with pytest.raises(ValueError, match=r"2 chips have regions \(B, n, 4\), as many in both views; got"):
            two(regions=first, second=second)
    with pytest.raises(ValueError, match=r"of regions \(2, 2, 4\) these count, \(2, 2\); got \(2, 3\)"):
        replace(two(), counted=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="two views show the same chips; got 2 and 3"):
        RegionViews(
            first=sample_of(seed=0),
            second=sample_of(seed=0, batch=3),
            first_regions=REGIONS,
            second_regions=REGIONS,
            counted=torch.ones(2, 2, dtype=torch.bool),
        )


def test_regions_are_asked_for_where_they_are_compared_alone() -> None:
    none = torch.zeros(2, 0, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="the mode no_style compares regions; got none"):
        small(mode="no_style").loss(two(regions=none))
    assert small(mode="no_local").loss(two(regions=none)).value.isfinite()


def test_a_single_chip_is_refused_by_batch_norms_and_counts_nothing_without_their_statistics() -> None:
    model = small()
    one = sample_of(seed=0, batch=1)
    views = RegionViews(
        first=one,
        second=one,
        first_regions=REGIONS[:1],
        second_regions=REGIONS[:1],
        counted=torch.ones(1, 2, dtype=torch.bool),
    )
    with pytest.raises(ValueError, match=r"give data\.batch at least 2 chips"):
        model.loss(views)
    loss = trained_alike(model).loss(views)
    loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert loss.value.item() == loss.count.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)


def test_the_variance_of_a_single_pixel_is_refused() -> None:
    sample = sample_of(seed=0, size=16)
    regions = torch.tensor([[[0, 4, 0, 4]]] * 2)
    views = RegionViews(
        first=sample,
        second=sample,
        first_regions=regions,
        second_regions=regions,
        counted=torch.ones(2, 1, dtype=torch.bool),
    )
    with pytest.raises(ValueError, match=r"got 1 pixel: give data\.size above 16, or choose the mode no_style"):
        small().loss(views)
    assert small(mode="no_style").loss(views).value.isfinite()


def test_a_weight_outside_of_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lies from 0 to 1; got 1\.5"):
        GLCNetRecipe(weight=1.5)


def test_other_bands_are_refused() -> None:
    sample = make_sample(batch=2, dates=1, bands=BANDS[::-1], size=33)
    with pytest.raises(ValueError, match="takes the bands B02, B03, B04, B08, B11; got B11, B08"):
        small().embed(sample, REGIONS, counted=torch.ones(2, 2, dtype=torch.bool))


# --- Weights --------------------------------------------------------------------------------------------------------

_ORIGINAL = {
    "encoder.backbone.trunk.": "backbone.",
    **{f"encoder.backbone.pyramid.branches.{i}.": f"encoder.ASPP._atrous_convolution{i + 1}." for i in range(4)},
    "encoder.backbone.pyramid.branches.4.0.": "encoder.ASPP._image_pool.1.",
    "encoder.backbone.pyramid.branches.4.1.": "encoder.ASPP._image_pool.2.",
    "encoder.backbone.pyramid.join.0.": "encoder.conv1.",
    "encoder.backbone.pyramid.join.1.": "encoder.bn1.",
    "decoder.reduce.0.": "decoder.conv1.",
    "decoder.reduce.1.": "decoder.bn1.",
    "decoder.join.0.": "decoder.conv2.",
    "decoder.join.1.": "decoder.bn2.",
    "decoder.join.4.": "decoder.conv3.",
    "decoder.join.5.": "decoder.bn3.",
    "region_map.": "decoder.conv41.",
    "style_head.": "proj.",
    "region_head.": "proj1.",
}
"""Our beginnings of names, and those of GLCNet's network for pretraining."""


def test_entries_of_the_original_are_all_known_and_others_are_named() -> None:
    with torch.device("meta"):
        state = GlobalLocalContrast(encoder_of(DeepLabResNet50(5, dates=1)), options=GLCNetRecipe()).state_dict()
    ours = ("encoder.mean", "encoder.std", "encoder.backbone.decoder.")
    names = [name for name in state if not name.startswith(ours)]
    theirs = {}
    for name in names:
        (start,) = (start for start in _ORIGINAL if name.startswith(start))
        theirs[f"module.{_ORIGINAL[start]}{name.removeprefix(start)}"] = state[name]
    found = from_reference(theirs)
    assert list(found) == names
    assert all(found[name] is state[name] for name in names)
    assert len(names) == 382
    for name in ("decoder_ft.conv1.weight", "queue"):
        with pytest.raises(ValueError, match=f"network for pretraining has no entry '{name}'"):
            from_reference({name: torch.zeros(1)})


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(glcnet).failed == 0
