"""Context-self contrast: vectors worked by hand, loops over pixels, and the sweep against the windows."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sits_models.backbones.base import Backbone, Needs
from sits_models.encoder import Encoder
from sits_models.losses import pair_costs
from sits_models.objectives.cscl import (
    ContextContrast,
    ContextSimilarity,
    PairRule,
    Pairs,
    PairSums,
    Window,
    pairs_in_windows,
    window_loss,
)
from sits_models.recipe import ContrastRecipe
from sits_models.sample import Sample

WINDOWS = [(1, 1, 1), (3, 1, 1), (5, 1, 1), (3, 1, 2), (7, 1, 4), (3, 2, 2), (3, 2, 4), (2, 1, 2)]
LARGER_STRIDES = [(3, 2, 1), (3, 4, 2), (5, 3, 1)]
"""Strides larger than the dilation, which the official code cannot run."""


def make_similarity(
    window: Window,
    *,
    inputs: int = 4,
    channels: int = 4,
    groups: int = 1,
    cosine: bool = True,
    relative_position: bool = True,
    seed: int = 0,
) -> ContextSimilarity:
    torch.manual_seed(seed)
    module = ContextSimilarity(
        inputs, channels=channels, window=window, groups=groups, cosine=cosine, relative_position=relative_position
    )
    return module.to(torch.float64)


def identity_similarity(channels: int, *, cosine: bool) -> ContextSimilarity:
    """1 x 1 convolutions that change nothing, no relative positions."""
    module = make_similarity(Window(), inputs=channels, channels=channels, cosine=cosine)
    with torch.no_grad():
        for conv in (module.key_conv, module.query_conv):
            conv.weight.copy_(torch.eye(channels)[:, :, None, None])
        module.rel_h.zero_()
        module.rel_w.zero_()
    return module


def all_counted(identity: Tensor) -> Pairs:
    return Pairs(identity=identity, counted=torch.ones_like(identity, dtype=torch.bool))


def mean_cost(
    embedded: Tensor, similarity: ContextSimilarity, pairs: Pairs, *, rule: PairRule
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss from all similarities, and these, which pairs are the same, and which are kept."""
    values = similarity(embedded)
    same, kept = pairs_in_windows(pairs, similarity.window, rule=rule)
    costs = pair_costs(values, same, loss=rule.loss, positive_weight=rule.positive_weight) * kept
    return costs.sum() / (kept.sum().clamp_min(1) if rule.mean == "kept" else kept.numel()), values, same, kept


def gradients(value: Tensor, embedded: Tensor, module: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, [embedded, *(p for p in module.parameters() if p.requires_grad)])


# Worked by hand


def test_a_constant_image_is_similar_inside_and_not_outside() -> None:
    module = identity_similarity(4, cosine=True)
    embedded = torch.ones(1, 4, 3, 3, dtype=torch.float64)
    expected = torch.tensor([[0, 0, 0], [0, 1, 1], [0, 1, 1]], dtype=torch.float64)
    torch.testing.assert_close(module(embedded)[0, 0, 0], expected)
    pairs = all_counted(torch.zeros(1, 3, 3, dtype=torch.int64))
    same, kept = pairs_in_windows(pairs, module.window, rule=PairRule())
    assert (int(same.sum()), int(kept.sum())) == (49, 81)
    loss, sums = window_loss(embedded, module, pairs, rule=PairRule())
    assert loss.item() == pytest.approx(-0.125 * 49 / 81)
    assert [sums.pairs.item(), sums.same.item(), sums.similarity.item()] == pytest.approx([81, 49, 49])


def test_two_classes_with_orthogonal_embeddings() -> None:
    module = identity_similarity(2, cosine=True)
    left = torch.tensor([1, 1, 0, 0]).expand(1, 4, 4)
    embedded = torch.stack([left, 1 - left], dim=1).to(torch.float64)
    loss, sums = window_loss(embedded, module, all_counted(left), rule=PairRule())
    assert (sums.pairs.item(), sums.same.item()) == (144, 80)
    assert (sums.mean_same.item(), sums.mean_different.item()) == pytest.approx((1, 0))
    assert loss.item() == pytest.approx(-0.0694444, abs=1e-7)


def test_rel_h_acts_on_rows_of_the_window_and_the_first_half_of_the_channels() -> None:
    module = identity_similarity(4, cosine=False)
    embedded = torch.zeros(1, 4, 3, 3, dtype=torch.float64)
    embedded[:, 0] = 1
    with torch.no_grad():
        module.rel_h[0, ..., 2, 0] = 5
    assert module(embedded)[0, 1, 1].tolist() == [[1, 1, 1], [1, 1, 1], [6, 6, 6]]
    with torch.no_grad():
        module.rel_h.zero_()
        module.rel_w[0, ..., 0] = 7  # on channel 2, where this query is 0
    assert module(embedded)[0, 1, 1].tolist() == [[1, 1, 1]] * 3


def test_parameters_bear_the_official_names_and_shapes() -> None:
    state = make_similarity(Window(size=5), inputs=6, channels=8).state_dict()
    assert {name: tuple(values.shape) for name, values in state.items()} == {
        "rel_h": (4, 1, 1, 5, 1),
        "rel_w": (4, 1, 1, 1, 5),
        "key_conv.weight": (8, 6, 1, 1),
        "query_conv.weight": (8, 6, 1, 1),
    }


def test_masks_drop_pairs_one_by_one() -> None:
    # 3 x 3: 81 pairs, 32 of them with a neighbour outside, 9 of a pixel with itself.
    pairs = all_counted(torch.zeros(1, 3, 3, dtype=torch.int64))
    for rule, kept_pairs in [
        (PairRule(), 81),
        (PairRule(mask_outside=True), 49),
        (PairRule(mask_self=True), 72),
        (PairRule(mask_outside=True, mask_self=True), 40),
    ]:
        _, kept = pairs_in_windows(pairs, Window(), rule=rule)
        assert int(kept.sum()) == kept_pairs
    # Without the pixel in the corner: 9 pairs of which it is the centre, 3 more of which it is a neighbour.
    pairs.counted[0, 0, 0] = False
    assert int(pairs_in_windows(pairs, Window(), rule=PairRule())[1].sum()) == 81 - 12


def test_the_published_mean_divides_by_masked_pairs_too() -> None:
    module = identity_similarity(4, cosine=True)
    embedded = torch.ones(1, 4, 3, 3, dtype=torch.float64)
    pairs = all_counted(torch.zeros(1, 3, 3, dtype=torch.int64))
    over_all, _ = window_loss(embedded, module, pairs, rule=PairRule(mask_outside=True))
    over_kept, _ = window_loss(embedded, module, pairs, rule=PairRule(mask_outside=True, mean="kept"))
    assert over_all.item() == pytest.approx(-0.125 * 49 / 81)
    assert over_kept.item() == pytest.approx(-0.125)


# Independent oracles and properties


def similarity_by_loops(module: ContextSimilarity, embedded: Tensor, *, stride: int, dilation: int) -> Tensor:
    """Pixel by pixel: centres are every stride-th pixel, neighbours every dilation-th."""
    size = module.window.size
    _, _, height, width = embedded.shape
    queries, keys = (conv.weight.detach()[:, :, 0, 0] for conv in (module.query_conv, module.key_conv))
    rows, columns = module.rel_h.detach().flatten(1), module.rel_w.detach().flatten(1)
    offsets = [n * dilation - (size - 1) * dilation // 2 for n in range(size)]
    result = []
    for image in embedded.detach():
        for y in range(0, height, stride):
            for x in range(0, width, stride):
                query = queries @ image[:, y, x]
                for i, dy in enumerate(offsets):
                    for j, dx in enumerate(offsets):
                        inside = 0 <= y + dy < height and 0 <= x + dx < width
                        key = torch.cat([rows[:, i], columns[:, j]])
                        if inside:
                            key = key + keys @ image[:, y + dy, x + dx]
                        parts = zip(query.chunk(module.groups), key.chunk(module.groups), strict=True)
                        result.append(sum(_similarity(q, k, cosine=module.cosine) for q, k in parts))
    grid = (len(embedded), -(-height // stride), -(-width // stride), size, size)
    return torch.tensor(result, dtype=torch.float64).view(grid)


def _similarity(query: Tensor, key: Tensor, *, cosine: bool) -> float:
    return float(query @ key / (query.norm() * key.norm() if cosine else 1))


@pytest.mark.parametrize(("size", "stride", "dilation"), WINDOWS + LARGER_STRIDES)
@pytest.mark.parametrize(("groups", "cosine"), [(1, True), (2, True), (2, False)])
def test_similarity_is_that_of_a_loop_over_pixels(
    size: int, stride: int, dilation: int, groups: int, cosine: bool
) -> None:
    module = make_similarity(Window(size=size, stride=stride, dilation=dilation), groups=groups, cosine=cosine)
    embedded = torch.randn(1, 4, 6, 5, dtype=torch.float64)
    expected = similarity_by_loops(module, embedded, stride=stride, dilation=dilation)
    torch.testing.assert_close(module(embedded), expected)


def test_cosines_of_groups_add_up() -> None:
    assert make_similarity(Window(), groups=2)(torch.randn(1, 4, 5, 5, dtype=torch.float64)).abs().max() > 1


@st.composite
def settings_of_a_loss(draw: st.DrawFn) -> dict[str, Any]:
    size, stride, dilation = draw(st.sampled_from(WINDOWS + LARGER_STRIDES))
    return {
        "window": Window(size=size, stride=stride, dilation=dilation),
        "groups": draw(st.sampled_from([1, 2, 4])),
        "cosine": draw(st.booleans()),
        "relative_position": draw(st.booleans()),
        "shape": (draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))),
        "classes": draw(st.integers(1, 3)),
        "counted": draw(st.sampled_from([0.0, 0.6, 1.0])),
        "seed": draw(st.integers(0, 99)),
        "rule": PairRule(
            loss=draw(st.sampled_from(["contrast", "cross_entropy"])),
            positive_weight=draw(st.sampled_from([0.125, 1.0, 2.5])),
            mask_self=draw(st.booleans()),
            mask_outside=draw(st.booleans()),
            mean=draw(st.sampled_from(["all", "kept"])),
        ),
    }


@settings(max_examples=60, deadline=None)
@given(settings_of_a_loss())
def test_the_sweep_gives_value_gradients_and_means_of_the_windows(setting: dict[str, Any]) -> None:
    module = make_similarity(
        setting["window"],
        channels=8,
        groups=setting["groups"],
        cosine=setting["cosine"],
        relative_position=setting["relative_position"],
        seed=setting["seed"],
    )
    b, h, w = setting["shape"]
    embedded = torch.randn(b, 4, h, w, dtype=torch.float64, requires_grad=True)
    pairs = Pairs(
        identity=torch.randint(-1, setting["classes"], (b, h, w)), counted=torch.rand(b, h, w) < setting["counted"]
    )
    expected, values, same, kept = mean_cost(embedded, module, pairs, rule=setting["rule"])
    found, sums = window_loss(embedded, module, pairs, rule=setting["rule"])
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    for ours, theirs in zip(
        gradients(3 * found, embedded, module), gradients(3 * expected, embedded, module), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    assert sums.pairs.item() == kept.sum()
    assert sums.same.item() == (kept & same).sum()
    if (kept & same).any():
        assert sums.mean_same.item() == pytest.approx(values[kept & same].mean().item(), abs=1e-9)
    if (kept & ~same).any():
        assert sums.mean_different.item() == pytest.approx(values[kept & ~same].mean().item(), abs=1e-9)


@pytest.mark.parametrize("loss", ["contrast", "cross_entropy"])
@pytest.mark.parametrize(("size", "stride", "dilation", "groups"), [(3, 1, 1, 1), (3, 2, 1, 2), (3, 1, 2, 2)])
def test_gradients_are_those_of_small_steps(loss: Any, size: int, stride: int, dilation: int, groups: int) -> None:
    module = make_similarity(Window(size=size, stride=stride, dilation=dilation), groups=groups)
    embedded = torch.randn(2, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    pairs = all_counted(torch.randint(0, 2, (2, 4, 3)))
    names = [name for name, _ in module.named_parameters()]

    def value(embedded: Tensor, *parameters: Tensor) -> Tensor:
        before = dict(module.named_parameters())
        for name, parameter in zip(names, parameters, strict=True):
            owner, _, last = name.rpartition(".")
            part = module.get_submodule(owner)
            del part._parameters[last]
            setattr(part, last, parameter)
        try:
            return window_loss(embedded, module, pairs, rule=PairRule(loss=loss))[0]
        finally:
            for name, parameter in before.items():
                owner, _, last = name.rpartition(".")
                part = module.get_submodule(owner)
                delattr(part, last)
                part.register_parameter(last, parameter)

    assert torch.autograd.gradcheck(
        value, (embedded, *(p.detach().clone().requires_grad_() for p in module.parameters()))
    )


def test_a_batch_of_several_chunks_is_the_sum_of_its_images() -> None:
    module = make_similarity(Window())
    embedded = torch.randn(5, 4, 40, 40, dtype=torch.float64, requires_grad=True)  # 2 images a chunk
    pairs = all_counted(torch.randint(0, 2, (5, 40, 40)))
    expected, *_ = mean_cost(embedded, module, pairs, rule=PairRule())
    found, _ = window_loss(embedded, module, pairs, rule=PairRule())
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    for ours, theirs in zip(gradients(found, embedded, module), gradients(expected, embedded, module), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-12)


def test_float32_is_as_exact_as_that_of_the_windows() -> None:
    module = make_similarity(Window(size=5), inputs=32, channels=32)
    exact = torch.randn(2, 32, 20, 20, dtype=torch.float64, requires_grad=True)
    pairs = all_counted(torch.randint(0, 2, (2, 20, 20)))
    expected = gradients(mean_cost(exact, module, pairs, rule=PairRule())[0], exact, module)
    module, rough = module.to(torch.float32), exact.detach().to(torch.float32).requires_grad_()
    swept = gradients(window_loss(rough, module, pairs, rule=PairRule())[0], rough, module)
    windows = gradients(mean_cost(rough, module, pairs, rule=PairRule())[0], rough, module)
    for true, ours, theirs in zip(expected, swept, windows, strict=True):
        gap, usual = (ours - true).abs().max(), (theirs - true).abs().max()
        assert gap <= 5 * usual + 1e-6 * true.abs().max()


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from([(128, 1), (16, 1), (32, 2), (64, 8), (16, 4), (8, 4), (16, 8), (32, 16), (8, 8)]),
    size=st.sampled_from([3, 7]),
    scale=st.sampled_from([0.05, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_float32_stays_within_the_noise_of_the_windows_for_any_groups(
    shape: tuple[int, int], size: int, scale: float, seed: int
) -> None:
    """Ten times what the windows themselves are off in float32, or a few units in the last place."""
    channels, groups = shape
    module = make_similarity(Window(size=size), inputs=channels, channels=channels, groups=groups, seed=seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_((scale * torch.randn(parameter.shape)).to(torch.float32))
    exact = torch.randn(2, channels, 12, 12).to(torch.float64).requires_grad_()
    pairs = all_counted(torch.randint(0, 3, (2, 12, 12)))
    expected = gradients(mean_cost(exact, module, pairs, rule=PairRule())[0], exact, module)
    module, rough = module.to(torch.float32), exact.detach().to(torch.float32).requires_grad_()
    swept = gradients(window_loss(rough, module, pairs, rule=PairRule())[0], rough, module)
    windows = gradients(mean_cost(rough, module, pairs, rule=PairRule())[0], rough, module)
    for true, ours, theirs in zip(expected, swept, windows, strict=True):
        noise, largest = (theirs - true).abs().max(), true.abs().max()
        assert (ours - true).abs().max() <= torch.maximum(10 * noise, 2e-6 * largest)


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: Any) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if address not in self.seen:
            self.seen.add(address)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self.seen.discard(address)
        self.now -= size


def peak_bytes(size: int, *, windows: bool) -> int:
    module = make_similarity(Window(size=size), inputs=32, channels=32).to(torch.float32)
    embedded = torch.randn(8, 32, 24, 24, requires_grad=True)
    pairs = all_counted(torch.zeros(8, 24, 24, dtype=torch.int64))
    with _Live() as live:
        if windows:
            value = mean_cost(embedded, module, pairs, rule=PairRule())[0]
        else:
            value = window_loss(embedded, module, pairs, rule=PairRule())[0]
        gradients(value, embedded, module)
    return live.most


def test_memory_does_not_grow_with_the_window() -> None:
    assert peak_bytes(7, windows=False) < 1.6 * peak_bytes(1, windows=False)
    assert peak_bytes(7, windows=True) > 10 * peak_bytes(1, windows=True)


def test_vectors_of_length_0_are_similar_to_nothing_and_leave_gradients_finite() -> None:
    module = identity_similarity(4, cosine=True)
    embedded = torch.zeros(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    pairs = all_counted(torch.zeros(1, 3, 3, dtype=torch.int64))
    assert module(embedded).abs().max() == 0
    loss, _ = window_loss(embedded, module, pairs, rule=PairRule())
    assert loss.item() == 0
    assert all(gradient.abs().max() == 0 for gradient in gradients(loss, embedded, module))


def test_a_key_that_its_position_cancels_is_similar_to_nothing() -> None:
    module = identity_similarity(4, cosine=True).to(torch.float32)
    with torch.no_grad():
        module.rel_h[:, ..., 0, 0] = -0.1
        module.rel_w[:, ..., 0] = -0.1
    embedded = torch.full((1, 4, 3, 3), 0.1, requires_grad=True)
    pairs = all_counted(torch.zeros(1, 3, 3, dtype=torch.int64))
    expected = mean_cost(embedded, module, pairs, rule=PairRule())[0]
    loss, _ = window_loss(embedded, module, pairs, rule=PairRule())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert all(gradient.abs().max() < 10 for gradient in gradients(loss, embedded, module))


def test_under_autocast_the_loss_is_computed_in_float32() -> None:
    module = make_similarity(Window()).to(torch.float32)
    embedded = torch.randn(1, 4, 6, 6).to(torch.bfloat16).requires_grad_()
    pairs = all_counted(torch.zeros(1, 6, 6, dtype=torch.int64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = window_loss(embedded, module, pairs, rule=PairRule())
    assert loss.dtype == torch.float32
    assert loss.item() == window_loss(embedded.to(torch.float32), module, pairs, rule=PairRule())[0].item()
    assert gradients(loss, embedded, module)[0].dtype == torch.bfloat16


def test_without_gradient_the_value_is_the_same() -> None:
    module = make_similarity(Window())
    embedded = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    pairs = all_counted(torch.zeros(2, 6, 6, dtype=torch.int64))
    with_gradient, _ = window_loss(embedded, module, pairs, rule=PairRule())
    with torch.no_grad():
        without, sums = window_loss(embedded, module, pairs, rule=PairRule())
    assert without.item() == with_gradient.item()
    assert not without.requires_grad
    assert not sums.similarity.requires_grad


def test_one_graph_may_be_walked_twice() -> None:
    module = make_similarity(Window())
    embedded = torch.randn(1, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    loss, _ = window_loss(embedded, module, all_counted(torch.zeros(1, 6, 6, dtype=torch.int64)), rule=PairRule())
    first, second = (torch.autograd.grad(loss, embedded, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


# The objective


class OneConvolution(Backbone):
    """The mean of the dates and a convolution."""

    def __init__(self, bands: int, channels: int) -> None:
        super().__init__()
        self.channels, self.needs = channels, Needs(dates=None, size_multiple=1)
        self.convolution = nn.Conv2d(bands, channels, 3, padding=1)

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        embedded: Tensor = self.convolution(image.mean(dim=1))
        return embedded


def make_objective(**recipe: Any) -> ContextContrast:
    torch.manual_seed(0)
    encoder = Encoder(OneConvolution(2, 4), bands=("B04", "B08"), mean=[1000] * 2, std=[500] * 2, magnification=1)
    return ContextContrast(encoder, recipe=ContrastRecipe(**recipe))


def make_sample(crop: list[list[int]], parcel: list[list[int]]) -> Sample:
    h, w = len(crop), len(crop[0])
    return Sample(
        image=torch.randint(1, 5000, (1, 3, 2, h, w), generator=torch.Generator().manual_seed(0)).to(torch.uint16),
        valid=torch.ones(1, 3, dtype=torch.bool),
        day=torch.arange(3, dtype=torch.int32)[None],
        clear=torch.ones(1, 3, h, w, dtype=torch.bool),
        crop=torch.tensor([crop]),
        counted=torch.ones((1, *torch.tensor(crop).shape), dtype=torch.bool),
        parcel=torch.tensor([parcel]),
        boundary=torch.zeros(1, h, w, dtype=torch.int16),
        place=torch.zeros(1, 3, dtype=torch.int64),
        bands=("B04", "B08"),
    )


TWO_PARCELS = make_sample(
    [[1, 1, 1, 1, 0, -1], [1, 1, 1, 1, 0, -1]],
    [[7, 7, 8, 8, 0, 0], [7, 7, 8, 8, 0, 0]],
)
"""Two parcels of one crop side by side, then background, then ground of which nothing is known."""


def similar_columns(objective: ContextContrast) -> list[bool]:
    """Whether each column's pixels are the same as those to their right."""
    pairs = objective.pairs(TWO_PARCELS)
    same, _ = pairs_in_windows(pairs, objective.similarity.window, rule=objective.rule)
    return same[0, 0, :, 1, 2].tolist()


def test_parcels_of_one_crop_are_the_same_by_class_and_not_by_parcel() -> None:
    assert similar_columns(make_objective()) == [True, True, True, False, False, False]
    # Ground without a parcel counts as one parcel, as background counts as one class.
    assert similar_columns(make_objective(same="parcel")) == [True, False, True, False, True, False]


def test_as_published_nothing_is_masked() -> None:
    assert make_objective().pairs(TWO_PARCELS).counted.all()


@pytest.mark.parametrize(
    ("recipe", "background", "counted"),
    [
        ({"mask_background": True}, True, [1, 1, 1, 1, 0, 1]),
        ({"mask_background": True}, False, [1, 1, 1, 1, 1, 1]),
        ({"mask_ignored": True}, True, [1, 1, 1, 1, 1, 0]),
        ({"mask_background": True, "same": "parcel"}, False, [1, 1, 1, 1, 0, 0]),
    ],
)
def test_background_and_ignored_pixels_are_left_out_on_request(
    recipe: dict[str, Any], background: bool, counted: list[int]
) -> None:
    objective = ContextContrast(make_objective().encoder, recipe=ContrastRecipe(**recipe), background=background)
    assert objective.pairs(TWO_PARCELS).counted[0].tolist() == [[bool(value) for value in counted]] * 2


@pytest.mark.parametrize("same_by", ["class", "parcel"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.0, 0.3, 0.9]))
def test_hidden_labels_change_no_pair_and_count_in_none(same_by: Any, seed: int, share: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    whole = make_sample([[0] * 7] * 6, [[0] * 7] * 6).replace(
        crop=torch.randint(-1, 2, (1, 6, 7), generator=draw), parcel=torch.randint(0, 3, (1, 6, 7), generator=draw)
    )
    seen = torch.rand(1, 6, 7, generator=draw) >= share
    hidden = whole.replace(
        crop=whole.crop.where(seen, torch.tensor(-1)), parcel=whole.parcel.where(seen, torch.tensor(0)), counted=seen
    )
    objective = make_objective(same=same_by)
    embedded, window = objective.encoder(whole), objective.similarity.window
    true, all_of_them = pairs_in_windows(objective.pairs(whole), window, rule=objective.rule)
    same, kept = pairs_in_windows(objective.pairs(hidden), window, rule=objective.rule)
    assert torch.equal(same & kept, true & kept)
    assert torch.equal(kept[..., 1, 1], seen)  # of a pixel with itself
    assert all_of_them.all()
    costs = pair_costs(objective.similarity(embedded), true, loss="contrast", positive_weight=0.125)
    found, sums = window_loss(embedded, objective.similarity, objective.pairs(hidden), rule=objective.rule)
    assert (sums.pairs.item(), sums.same.item()) == (kept.sum().item(), (true & kept).sum().item())
    # Divided by all pairs of the grid, hidden ones too.
    assert found.item() == pytest.approx((costs * kept).sum().item() / (6 * 7 * 9), abs=1e-6)


def test_the_objective_trains_its_encoder_and_watches_both_kinds_of_pairs() -> None:
    objective = make_objective(mask_self=True, mask_outside=True)
    loss = objective.loss(TWO_PARCELS)
    embedded = objective.encoder(TWO_PARCELS)
    expected, values, same, kept = mean_cost(
        embedded, objective.similarity, objective.pairs(TWO_PARCELS), rule=objective.rule
    )
    assert loss.value.item() == pytest.approx(expected.item(), abs=1e-6)
    assert loss.monitors["similarity_same"].item() == pytest.approx(values[same & kept].mean().item(), abs=1e-5)
    assert loss.monitors["similarity_different"].item() == pytest.approx(values[~same & kept].mean().item(), abs=1e-5)
    loss.value.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        objective.loss(TWO_PARCELS).value.backward()
        optimizer.step()
    after = objective.loss(TWO_PARCELS)
    assert after.value < loss.value
    spread = [m["similarity_same"] - m["similarity_different"] for m in (loss.monitors, after.monitors)]
    assert spread[1] > spread[0]


@pytest.mark.parametrize("mean", ["all", "kept"])
def test_a_batch_without_a_pixel_that_counts_has_no_loss_and_no_gradient(mean: str) -> None:
    objective = make_objective(mask_ignored=True, mean=mean)
    loss = objective.loss(TWO_PARCELS.replace(crop=torch.full_like(TWO_PARCELS.crop, -1)))
    assert loss.value.item() == 0
    assert [value.item() for value in loss.monitors.values()] == [0, 0]
    loss.value.backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in objective.parameters())


def test_similarities_of_an_objective_have_a_window_for_each_pixel() -> None:
    objective = make_objective(window=5)
    assert objective.similarity(objective.encoder(TWO_PARCELS)).shape == (1, 2, 6, 5, 5)


# What is refused


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ({"size": 4}, "a window of 4 has no centre; give an odd number"),
        ({"stride": 2, "dilation": 3}, "the smaller divides the larger; got 2 and 3: make one a multiple of the other"),
        ({"stride": 0}, "window, stride and dilation are at least 1; got 3, 0, 1"),
    ],
)
def test_a_window_that_cannot_be_is_refused(window: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Window(**window)


def test_channels_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="channels of queries are even and a multiple of groups; got 6 and 4"):
        make_similarity(Window(), channels=6, groups=4)


def test_labels_of_another_size_are_refused() -> None:
    pairs = all_counted(torch.zeros(1, 8, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"needs a label a pixel; got labels \(1, 8, 8\)"):
        window_loss(torch.zeros(1, 4, 4, 4, dtype=torch.float64), make_similarity(Window()), pairs, rule=PairRule())


def test_means_of_no_pairs_are_0() -> None:
    sums = PairSums(*torch.zeros(4, dtype=torch.float64))
    assert (sums.mean_same.item(), sums.mean_different.item()) == (0, 0)
