"""TSViT: where its values go, which day a date is, and its sizes. Equality with the original: test_parity.py."""

from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.samples import make_sample
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones import transformer, tsvit
from sits_models.backbones.transformer import Transformer
from sits_models.backbones.tsvit import TSViT, TSViTParcel, exact_rows, from_reference, published_rows
from sits_models.checkpoints import Card, save_weights, transfer
from sits_models.checkpoints import from_reference as model_of
from sits_models.data.cubes import CropEntry
from sits_models.objectives import Classification, Objective, build_objective
from sits_models.recipe import BackboneRecipe, ContrastRecipe, Recipe, TransformerRecipe, Variant, load_recipe

BANDS = 3
SMALL = TransformerRecipe(patch=2, temporal_depth=2, spatial_depth=1, heads=2, head_channels=4)
SHIFTED = [13, 26, 52, 59, 104, 105, 118, 119, 183, 208, 209, 210, 211, 235, 236, 237, 238, 239, 366]
"""Days of the year that come out of float32 one too small."""
LEAP_YEAR = 729
"""Plus a day of the year: that day of 1972."""


def small(
    kind: type[TSViT] | type[TSViTParcel], variant: Variant, *, seed: int = 0, size: int = 8
) -> TSViT | TSViTParcel:
    torch.manual_seed(seed)
    return kind(BANDS, dates=5, size=size, width=1 / 8, variant=variant, outputs=3, transformer=SMALL).eval()


def series(batch: int, dates: int, *, seed: int, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Image, valid (all) and days of 1972, each once."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, dates, BANDS, size, size, generator=generator)
    day = torch.stack([torch.randperm(366, generator=generator)[:dates] for _ in range(batch)]) + LEAP_YEAR + 1
    return image, torch.ones(batch, dates, dtype=torch.bool), day.to(torch.int32)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def through(layer: object, tokens: Tensor) -> Tensor:
    return layer(tokens)  # type: ignore[operator,no-any-return]


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_parameter_counts_are_the_published_ones() -> None:
    wide = TransformerRecipe(head_channels=64)
    france = TransformerRecipe(patch=3, temporal_depth=8, head_channels=64)
    assert count(TSViT(10, dates=60, outputs=19)) == 1_657_476
    assert count(TSViT(10, dates=60, outputs=19, width=0.5, transformer=TransformerRecipe(head_channels=16))) == 435_524
    assert count(TSViT(13, dates=16, outputs=17, transformer=wide)) == 2_183_044
    assert count(TSViT(13, dates=16, outputs=20, size=48, transformer=france)) == 3_260_425
    assert count(TSViTParcel(10, dates=60, outputs=19, transformer=france)) == 3_231_233
    assert count(TSViTParcel(10, dates=60, outputs=19)) == 3_231_233
    short = replace(france, spatial_depth=2)
    assert count(TSViTParcel(13, dates=24, outputs=18, size=48, transformer=short)) == 2_732_289


def test_recipes_have_the_published_sizes() -> None:
    sizes = {
        "tsvit-pastis": (60, 10, 19, 1_657_476),
        "tsvit-germany": (16, 13, 17, 2_183_044),
        "tsvit-france": (16, 13, 20, 3_260_425),
        "tsvit-parcel-pastis": (60, 10, 19, 3_231_233),
    }
    for name, (dates, bands, classes, parameters) in sizes.items():
        assert count(objective_of(load_recipe(name), bands=bands, dates=dates, classes=classes)) == parameters


def test_a_side_is_a_multiple_of_the_patch_and_24_px_or_the_next_by_itself() -> None:
    assert TSViT(BANDS, dates=5, width=1 / 8, transformer=replace(SMALL, patch=5)).needs.size == 25
    assert TSViT(BANDS, dates=5, width=1 / 8, transformer=SMALL).tile_size == 24
    with pytest.raises(
        ValueError, match=r"TSViT cuts a chip into patches of 3 px.*got 32: change data\.size or backbone"
    ):
        TSViT(BANDS, dates=5, size=32, transformer=replace(SMALL, patch=3))


def test_chips_of_another_side_are_refused() -> None:
    with pytest.raises(ValueError, match=r"this TSViT was built for chips of 8 x 8 px; got 12 x 12: set data\.size=8"):
        small(TSViT, "paper")(*series(1, 2, seed=0, size=12))


@pytest.mark.parametrize("width", [1 / 64, 0.05, 1 / 8, 0.25])
def test_an_embedding_of_any_width_is_shared_among_tokens(width: float) -> None:
    backbone = TSViT(BANDS, dates=5, size=8, width=width, transformer=SMALL)
    assert (backbone.head, backbone.channels) == ("linear", max(2, 2 * round(64 * width)))
    assert backbone(*series(1, 2, seed=0)).shape == (1, backbone.channels, 8, 8)
    assert len(backbone.over_time.tokens) == {1 / 64: 2, 0.05: 2, 1 / 8: 16, 0.25: 16}[width]


# --- the raster -----------------------------------------------------------------------------------------------------


def numbered(variant: Variant) -> Tensor:
    """The map of a model of 3 x 3 patches of 2 x 2 px, element e of patch n being 10 n + e."""
    backbone = TSViT(1, dates=1, size=6, width=1 / 16, variant=variant, outputs=1, transformer=SMALL)
    values = torch.tensor([[[10.0 * patch + element for element in range(4)] for patch in range(9)]])
    backbone.last = nn.Sequential(nn.Flatten(0), nn.Identity())
    backbone.last.forward = lambda _: values  # type: ignore[method-assign,assignment]
    found: Tensor = backbone(torch.zeros(1, 1, 1, 6, 6), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1))[0, 0]
    return found.to(torch.int64)


def test_values_go_to_their_patch_when_fixed_and_in_a_row_as_published() -> None:
    assert numbered("fixed").tolist() == [
        [0, 1, 10, 11, 20, 21],
        [2, 3, 12, 13, 22, 23],
        [30, 31, 40, 41, 50, 51],
        [32, 33, 42, 43, 52, 53],
        [60, 61, 70, 71, 80, 81],
        [62, 63, 72, 73, 82, 83],
    ]
    assert numbered("paper").tolist() == [
        [0, 1, 2, 3, 10, 11],
        [12, 13, 20, 21, 22, 23],
        [30, 31, 32, 33, 40, 41],
        [42, 43, 50, 51, 52, 53],
        [60, 61, 62, 63, 70, 71],
        [72, 73, 80, 81, 82, 83],
    ]


@pytest.mark.parametrize("outputs", [3, None])
def test_both_variants_give_the_same_values_in_another_order(outputs: int | None) -> None:
    torch.manual_seed(0)
    made = {
        variant: TSViT(BANDS, dates=2, size=8, width=1 / 8, variant=variant, outputs=outputs, transformer=SMALL).eval()
        for variant in ("paper", "fixed")
    }
    state = made["paper"].state_dict()
    state["over_time.days.weight"] = state["over_time.days.weight"].roll(-1, dims=0)  # row d - 1 for day d
    made["fixed"].load_state_dict(state)
    image, valid, _ = series(2, 2, seed=1)
    day = torch.tensor([[100, 200], [300, 1]]) + LEAP_YEAR
    with torch.no_grad():
        paper, fixed = (made[variant](image, valid, day) for variant in ("paper", "fixed"))
    channels = made["paper"].channels
    rows = paper.reshape(2, channels, 4, 4, 2, 2)  # patch row and column, row and column in it
    torch.testing.assert_close(fixed, rows.transpose(3, 4).reshape(2, channels, 8, 8))


# --- days -----------------------------------------------------------------------------------------------------------


def test_days_that_float32_shifts_as_published_and_none_when_fixed() -> None:
    paper = published_rows(366)
    assert [day for day, row in enumerate(paper) if row != day] == SHIFTED
    assert all(paper[day] == day - 1 for day in SHIFTED)
    torch_way = ((torch.arange(367).float() / 365.0001) * 365.0001).to(torch.int64)
    assert list(paper) == torch_way.tolist()
    assert published_rows(365)[364:] == (364, 364, 364)  # the days 365 and 366 have none there
    assert exact_rows()[1:] == tuple(range(366))


@pytest.mark.parametrize("kind", [TSViT, TSViTParcel])
def test_every_day_has_its_own_embedding_when_fixed(kind: type[TSViT] | type[TSViTParcel]) -> None:
    image = series(1, 1, seed=2)[0]
    valid = torch.ones(1, 1, dtype=torch.bool)

    def gap(variant: Variant, a: int, b: int) -> float:
        backbone = small(kind, variant)
        with torch.no_grad():
            one, other = (backbone(image, valid, torch.tensor([[LEAP_YEAR + day]])) for day in (a, b))
        return float((one - other).abs().max())

    assert gap("paper", 12, 13) == 0  # 13 is one of those that are shifted
    assert min(gap("fixed", 12, 13), gap("fixed", 364, 365), gap("fixed", 365, 366)) > 1e-4
    assert (gap("paper", 364, 366) == 0) == (kind is TSViTParcel)


def test_the_same_day_of_another_year_is_the_same() -> None:
    image, valid, day = series(1, 3, seed=3)
    backbone = small(TSViT, "fixed")
    day = day.clamp(max=LEAP_YEAR + 59)  # before 29 February
    with torch.no_grad():
        assert torch.equal(backbone(image, valid, day), backbone(image, valid, day + 366))


def test_padding_is_a_black_image_of_a_day_0_as_published() -> None:
    image, valid, day = series(1, 3, seed=4)
    valid[0, 1] = False
    backbone = small(TSViT, "paper")
    seen: list[Tensor] = []
    backbone.over_time.days.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.no_grad():
        backbone(image, valid, day)
    assert seen[0][0, 1] == 0
    assert (seen[0][0, [0, 2]] > 0).all()


def test_padding_of_a_whole_batch_is_not_computed_when_fixed() -> None:
    image, valid, day = series(2, 6, seed=5)
    valid[0, [0, 3, 4]], valid[1, [1, 2, 3, 5]] = False, False
    backbone = small(TSViT, "fixed")
    shapes: list[tuple[int, ...]] = []
    backbone.over_time.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        backbone(image, valid, day)
    assert shapes == [(2, 16, 3, 12)]  # three of six dates


# --- the transformer ------------------------------------------------------------------------------------------------


def oracle(layers: Transformer, tokens: Tensor, seen: Tensor) -> Tensor:
    """Every product of every row written out, from the formulas."""
    rows = []
    for row, known in zip(tokens, seen, strict=True):
        x = row
        for layer in layers.layers:
            assert isinstance(layer, transformer.Layer)
            q, k, v = (layer.attention_norm(x) @ layer.qkv.weight.T).chunk(3, dim=1)
            heads = []
            for a, b, c in zip(*(part.chunk(layer.heads, dim=1) for part in (q, k, v)), strict=True):
                scores = (a @ b.T / a.shape[1] ** 0.5).masked_fill(~known, -torch.inf)
                heads.append(scores.softmax(dim=1) @ c)
            x = x + layer.out(torch.cat(heads, dim=1))
            x = x + layer.down(functional.gelu(layer.up(layer.mlp_norm(x))))
        rows.append(layers.norm(x))
    return torch.stack(rows)


@settings(max_examples=10)
@given(
    seed=st.integers(0, 1000), kept=st.none() | st.integers(1, 3), rows_at_once=st.integers(1, 5), masked=st.booleans()
)
def test_a_transformer_is_its_formula_however_few_tokens_are_kept_and_rows_taken_at_a_time(
    seed: int, kept: int | None, rows_at_once: int, masked: bool
) -> None:
    torch.manual_seed(seed)
    layers = Transformer(6, depth=2, heads=2, head_channels=5, hidden=9, dropout=0.0).double()
    tokens, seen = torch.randn(4, 7, 6, dtype=torch.float64), torch.ones(4, 7, dtype=torch.bool)
    if masked:
        seen[:, 3:] = torch.rand(4, 4) > 0.5
    expected = oracle(layers, tokens, seen)[:, :kept]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformer, "SLICE", 7 * rows_at_once)
        found = layers(tokens, run=through, kept=kept, seen=seen if masked else None)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("exporting", "largest"), [(False, 3), (True, 7)])
def test_compiled_rows_are_taken_a_kernels_number_at_a_time_and_exported_ones_all_at_once(
    monkeypatch: pytest.MonkeyPatch, exporting: bool, largest: int
) -> None:
    layers = Transformer(6, depth=1, heads=2, head_channels=5, hidden=9, dropout=0.0)
    tokens = torch.randn(7, 4, 6)
    expected = layers(tokens, run=through)
    rows: list[int] = []

    def watched(layer: object, part: Tensor) -> Tensor:
        rows.append(len(part))
        return through(layer, part)

    monkeypatch.setattr(transformer, "ROWS", 3)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    torch.testing.assert_close(layers(tokens, run=watched), expected)
    assert (max(rows), sum(rows)) == (largest, 7)


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    backbone = TSViT(BANDS, dates=3, size=8, width=1 / 8, outputs=3, transformer=replace(SMALL, dropout=0.5))
    batch = series(1, 3, seed=6)
    assert not torch.equal(backbone(*batch), backbone(*batch))
    backbone.eval()
    assert torch.equal(backbone(*batch), backbone(*batch))


@pytest.mark.parametrize("variant", ["paper", "fixed"])
@pytest.mark.parametrize("kind", [TSViT, TSViTParcel])
def test_activations_computed_again_give_the_same_gradients(
    kind: type[TSViT] | type[TSViTParcel], variant: Variant
) -> None:
    image, valid, day = series(2, 4, seed=7)
    valid[0, 2:] = False
    gradients, calls = [], []
    for again in (False, True):
        backbone = small(kind, variant).train()
        backbone.checkpointing = again
        seen: list[object] = []
        for layer in (*backbone.over_time.transformer.layers, *backbone.over_space.layers):
            layer.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))  # type: ignore[misc]
        value = backbone(image, valid, day).square().mean()
        forwards = len(seen)
        value.backward()
        calls.append((forwards, len(seen) - forwards))
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    # A call a layer, two over time and one over space; each once more for the gradients.
    assert calls == [(3, 0), (3, 3)]
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "variant"), [(TSViT, "fixed"), (TSViTParcel, "paper")])
def test_an_export_gives_the_same_for_any_padding(kind: type[TSViT] | type[TSViTParcel], variant: Variant) -> None:
    backbone, (image, valid, day) = small(kind, variant), series(2, 4, seed=8)
    exported = torch.export.export(backbone, (image, valid, day)).module()
    for padded in (0, 2):
        valid[0, 4 - padded :] = False
        with torch.no_grad():
            torch.testing.assert_close(exported(image, valid, day), backbone(image, valid, day), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["paper", "fixed"])
@pytest.mark.parametrize("kind", [TSViT, TSViTParcel])
def test_a_model_of_float64_is_exact_throughout(kind: type[TSViT] | type[TSViTParcel], variant: Variant) -> None:
    """A step of a millionth moves it by its gradient: what float32 rounds anywhere would move it more."""
    image, valid, day = series(1, 3, seed=9)
    backbone = small(kind, variant).double()
    image, along = image.double().requires_grad_(), torch.randn(image.shape, dtype=torch.float64)
    whole = backbone(image, valid, day).square().mean()
    (slope,) = torch.autograd.grad(whole, image)
    with torch.no_grad():
        ahead, behind = (backbone(image + sign * 1e-6 * along, valid, day).square().mean() for sign in (1, -1))
    assert ((ahead - behind) / 2e-6).item() == pytest.approx((slope * along).sum().item(), rel=1e-5)


# --- objectives and weights -----------------------------------------------------------------------------------------


def objective_of(recipe: Recipe, *, bands: int = BANDS, dates: int = 4, classes: int = 5) -> Objective:
    names = ("B02", "B03", "B04", *(f"X{i}" for i in range(bands - BANDS)))
    return build_objective(
        recipe, bands=names, dates=dates, classes=classes, mean=[1500.0] * bands, std=[900.0] * bands
    )


def with_size(recipe: Recipe, size: int) -> Recipe:
    return replace(recipe, data=replace(recipe.data, size=size))


@pytest.mark.parametrize("name", ["tsvit-laptop", "tsvit-parcel-laptop"])
def test_every_parameter_of_a_laptop_recipe_learns(name: str) -> None:
    torch.manual_seed(0)
    objective = objective_of(with_size(load_recipe(name), 12))
    sample = make_sample(size=12, padded=1)
    found = objective.loss(sample)
    found.value.backward()
    assert found.count > 0
    for key, parameter in objective.named_parameters():
        assert parameter.grad is not None, key
        if key == "encoder.backbone.last.1.bias" and parameter.numel() == 1:
            continue  # what is added to all classes changes no probability: its gradient is rounding, or 0
        assert parameter.grad.abs().max() > 0, key


def test_a_classifier_gives_a_class_a_chip_and_is_refused_where_pixels_are_asked_for() -> None:
    recipe = with_size(load_recipe("tsvit-parcel-laptop"), 12)
    objective = objective_of(recipe)
    assert isinstance(objective, Classification)
    assert objective(make_sample(size=12)).shape == (2, 5)
    dense = replace(load_recipe("tsvit-laptop"), backbone=recipe.backbone)
    with pytest.raises(
        ValueError, match=r"TSViTParcel gives one class a chip and none a pixel: .* section classification"
    ):
        objective_of(dense)


def test_a_dense_one_classifies_chips_by_the_mean_of_its_maps() -> None:
    recipe = replace(with_size(load_recipe("tsvit-parcel-laptop"), 12), backbone=load_recipe("tsvit-laptop").backbone)
    objective, sample = objective_of(recipe).eval(), make_sample(size=12)
    torch.testing.assert_close(objective(sample), objective.encoder(sample).mean(dim=(2, 3)))


def contrast_of(recipe: Recipe) -> Recipe:
    return replace(recipe, segmentation=None, contrast=ContrastRecipe())


def saved(folder: Path, recipe: Recipe) -> Objective:
    torch.manual_seed(1)
    objective = objective_of(recipe)
    bands = objective.encoder.bands
    classes = tuple(CropEntry(index=i, code=f"c{i}", name="", hcat=None, colour="#000000") for i in range(5))
    card = Card(
        recipe=recipe, bands=bands, dates=4, classes=classes, radiometry={}, mean=(1500.0,) * 3, std=(900.0,) * 3
    )
    save_weights(folder, objective, card)
    return objective


def test_weights_of_a_pretraining_start_all_but_the_tokens_and_the_last_layer(tmp_path: Path) -> None:
    recipe = with_size(load_recipe("tsvit-laptop"), 12)
    pretrained = saved(tmp_path, contrast_of(recipe))
    assert pretrained.loss(make_sample(size=12)).value.isfinite()
    started = objective_of(recipe)
    report = transfer(started, tmp_path)
    ours, theirs = started.encoder.backbone.state_dict(), pretrained.encoder.backbone.state_dict()
    anew = {name for name, tensor in ours.items() if tensor.shape != theirs[name].shape}
    assert anew == {"over_time.tokens", "last.1.weight", "last.1.bias"}
    assert report.whole
    anew |= {"last.0.weight", "last.0.bias"}
    left_out = {name for name in report.left_out if name.startswith("encoder.")}
    assert left_out == {f"encoder.backbone.{name}" for name in anew}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() - anew)


def test_weights_of_a_segmentation_start_a_pretraining_but_for_the_same(tmp_path: Path) -> None:
    recipe = with_size(load_recipe("tsvit-laptop"), 12)
    saved(tmp_path, recipe)
    report = transfer(objective_of(contrast_of(recipe)), tmp_path)
    assert report.whole
    assert {name.removeprefix("encoder.backbone.") for name in report.left_out if name.startswith("encoder.")} == {
        "over_time.tokens",
        *(f"last.{layer}.{kind}" for layer in (0, 1) for kind in ("weight", "bias")),
    }


def test_weights_of_a_pretraining_start_all_of_an_encoder_that_gives_an_embedding_too(tmp_path: Path) -> None:
    recipe = with_size(load_recipe("tsvit-laptop"), 12)
    recipe = replace(recipe, data=replace(recipe.data, labels=2))
    pretrained = saved(tmp_path, contrast_of(recipe))
    started = objective_of(recipe)
    report = transfer(started, tmp_path)
    ours, theirs = started.state_dict(), pretrained.state_dict()
    encoder = {name for name in ours if name.startswith("encoder.")}
    assert set(report.loaded) == encoder
    assert "encoder.backbone.over_time.tokens" in encoder
    assert all(torch.equal(ours[name], theirs[name]) for name in encoder)


def test_weights_of_another_number_of_heads_are_refused(tmp_path: Path) -> None:
    recipe = with_size(load_recipe("tsvit-laptop"), 12)
    saved(tmp_path, contrast_of(recipe))
    assert recipe.backbone.transformer is not None
    sizes = replace(recipe.backbone.transformer, heads=2, head_channels=16)
    with pytest.raises(ValueError, match="of another backbone: heads is 4 there, 2 here"):
        transfer(objective_of(replace(recipe, backbone=replace(recipe.backbone, transformer=sizes))), tmp_path)


def test_labels_finer_than_the_image_are_learnt_from_an_embedding() -> None:
    recipe = with_size(load_recipe("tsvit-laptop"), 12)
    objective = objective_of(replace(recipe, data=replace(recipe.data, labels=2)))
    assert objective(make_sample(size=12, magnification=2)).shape == (2, 5, 24, 24)


def test_sizes_of_a_transformer_are_refused_for_another_backbone() -> None:
    recipe = replace(load_recipe("tsvit-laptop"), backbone=BackboneRecipe(name="utae", transformer=SMALL))
    with pytest.raises(ValueError, match=r"backbone\.transformer is of tsvit and tsvit_parcel; utae has no such sizes"):
        objective_of(recipe)


REFERENCE_LAYER = {
    "attention_norm.": "0.norm.",
    "qkv.": "0.fn.to_qkv.",
    "out.": "0.fn.to_out.0.",
    "mlp_norm.": "1.norm.",
    "up.": "1.fn.net.0.",
    "down.": "1.fn.net.3.",
}
REFERENCE = {
    "over_time.tokens": "temporal_token",
    "over_time.patches.": "to_patch_embedding.1.",
    "over_time.days.": "to_temporal_embedding_input.",
    "over_time.transformer.": "temporal_transformer.",
    "over_space.": "space_transformer.",
    "places": "space_pos_embedding",
    "chip": "space_token",
    "last.": "mlp_head.",
}


def reference_of(backbone: TSViT | TSViTParcel) -> dict[str, Tensor]:
    """Its weights as the official code would save them."""
    state = {}
    for name, tensor in backbone.state_dict().items():
        ours = next(key for key in REFERENCE if name.startswith(key))
        rest = name.removeprefix(ours)
        if rest.startswith("layers."):
            _, number, part = rest.split(".", 2)
            inner = next(key for key in REFERENCE_LAYER if part.startswith(key))
            rest = f"layers.{number}.{REFERENCE_LAYER[inner]}{part.removeprefix(inner)}"
        if name == "over_time.days.weight":
            tensor = tensor.T
        state[REFERENCE[ours] + rest] = tensor[None] if ours in ("over_time.tokens", "chip", "places") else tensor
    return state


@pytest.mark.parametrize(("kind", "architecture"), [(TSViT, "tsvit"), (TSViTParcel, "tsvit_parcel")])
def test_weights_in_the_layout_of_the_authors_make_the_model_they_came_from(
    kind: type[TSViT] | type[TSViTParcel], architecture: str
) -> None:
    backbone = small(kind, "paper")
    state = reference_of(backbone)
    bands = ("B02", "B03", "B04")
    found = model_of(state, architecture=architecture, bands=bands, dates=5, heads=2)
    assert found.encoder.backbone.needs == backbone.needs
    batch = series(2, 5, seed=10)
    with torch.no_grad():
        assert torch.equal(found.encoder.backbone(*batch), backbone(*batch))
    assert model_of(state, architecture=architecture, bands=bands, dates=5).encoder.backbone.heads == 4
    with pytest.raises(ValueError, match="8 channels in all heads, which 3 heads do not share evenly"):
        model_of(state, architecture=architecture, bands=bands, dates=5, heads=3)
    with pytest.raises(ValueError, match="12 values a patch, which is no square patch of 2 bands"):
        model_of(state, architecture=architecture, bands=bands[:2], dates=5)
    del state["mlp_head.0.bias"]
    with pytest.raises(ValueError, match=rf"not the weights of a {architecture} of 5 dates: .*last\.0\.bias"):
        model_of(state, architecture=architecture, bands=bands, dates=5)


def test_foreign_weights_are_named() -> None:
    for name in ("fc.weight", "temporal_transformer.layers.0.2.norm.weight"):
        with pytest.raises(ValueError, match=rf"a TSViT of DeepSatModels has no entry '{name}'"):
            from_reference({name: torch.zeros(1)})
    with pytest.raises(ValueError, match=r"no weights of a TSViT: over_time\.patches\.weight is missing"):
        model_of({"temporal_token": torch.zeros(1, 2, 4)}, architecture="tsvit", bands=("B02",), dates=5)
    vector = {"temporal_token": torch.zeros(1, 2, 4), "to_patch_embedding.1.weight": torch.zeros(4)}
    with pytest.raises(ValueError, match=r"no weights of a TSViT: over_time\.patches\.weight has the shape \(4,\)"):
        model_of(vector, architecture="tsvit", bands=("B02",), dates=5)
    with pytest.raises(ValueError, match=r"a tsvit take at least one band; give bands in the order of its training"):
        model_of(vector, architecture="tsvit", bands=(), dates=5)
    with pytest.raises(ValueError, match="at least a band and a head; got 1 bands and 0 heads"):
        model_of(vector, architecture="tsvit", bands=("B02",), dates=5, heads=0)
    assert list(from_reference({"module.mlp_head.1.bias": torch.zeros(4)})) == ["encoder.backbone.last.1.bias"]


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(tsvit).failed == 0
