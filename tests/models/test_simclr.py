from __future__ import annotations

import pytest
import torch
from tests.models.samples import make_sample

from sits_models.backbones import build_backbone, list_backbones
from sits_models.backbones.deeplab import DeepLab, DeepLabResNet50
from sits_models.encoder import Encoder
from sits_models.objectives.nt_xent import two_views
from sits_models.objectives.simclr import ChipContrast, ChipViews
from sits_models.recipe import BackboneRecipe, SimCLRRecipe, TransformerRecipe

BANDS = ("B02", "B03", "B04")
SIZE = 24


def encoder_of(name: str, *, magnification: int = 1, outputs: int | None = None) -> Encoder:
    torch.manual_seed(0)
    small = TransformerRecipe(temporal_depth=1, spatial_depth=1, heads=2, head_channels=8)
    recipe = BackboneRecipe(name=name, width=0.0625, transformer=small if name.startswith("tsvit") else None)
    dates = 1 if "resnet" in name else 4
    backbone = build_backbone(recipe, bands=3, dates=dates, size=SIZE, outputs=outputs)
    return Encoder(backbone, bands=BANDS, mean=[5000.0] * 3, std=[2900.0] * 3, magnification=magnification)


def views_of(name: str, *, batch: int = 4) -> ChipViews:
    dates = 1 if "resnet" in name else 4
    first, second = (make_sample(batch=batch, dates=dates, bands=BANDS, size=SIZE, seed=seed) for seed in (0, 1))
    return ChipViews(first=first, second=second)


@pytest.mark.parametrize("name", ["deeplab_resnet18", "resnet18", "tsvit_parcel", "tsvit", "unet2d_clstm"])
def test_a_backbone_of_chips_or_of_pixels_learns_by_all_that_it_has(name: str) -> None:
    model = ChipContrast(encoder_of(name), options=SimCLRRecipe())
    loss = model.loss(views_of(name))
    assert loss.count.item() == 8.0
    assert set(loss.monitors) == {"accuracy", "effective_rank"}
    loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.requires_grad == ("deeplab" not in name or ".decoder." not in key), key


@pytest.mark.parametrize("decoupled", [True, False])
def test_the_loss_is_that_of_projected_means(*, decoupled: bool) -> None:
    model = ChipContrast(
        encoder_of("deeplab_resnet18"), options=SimCLRRecipe(decoupled=decoupled, temperature=0.2)
    ).eval()
    views = views_of("deeplab_resnet18")
    backbone = model.encoder.backbone
    assert isinstance(backbone, DeepLab)
    with torch.no_grad():
        contexts = [
            backbone.encode(model.encoder.normalize(sample.image)[:, 0])[1] for sample in (views.first, views.second)
        ]
        heads = [model.head(context.sum(dim=(2, 3)) / 4) for context in contexts]  # 2 x 2 pixels
        torch.testing.assert_close(model.loss(views).value, two_views(*heads, temperature=0.2, decoupled=decoupled))


def test_the_published_head_is_256_256_64() -> None:
    with torch.device("meta"):
        encoder = Encoder(DeepLabResNet50(3, dates=1), bands=BANDS, mean=[0.0] * 3, std=[1.0] * 3, magnification=1)
        head = ChipContrast(encoder, options=SimCLRRecipe()).head
    assert [tuple(parameter.shape) for parameter in head.parameters()] == [(256, 256), (256,), (64, 256), (64,)]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a contrast of chips has no labels, .* set data\.labels=1"):
        ChipContrast(encoder_of("resnet18", magnification=2), options=SimCLRRecipe())
    with pytest.raises(ValueError, match="TSViT gives logits of classes: choose another backbone"):
        ChipContrast(encoder_of("tsvit", outputs=5), options=SimCLRRecipe())
    with pytest.raises(ValueError, match="two views show the same chips; got 4 and 3"):
        ChipViews(first=views_of("resnet18").first, second=views_of("resnet18", batch=3).second)


@pytest.mark.parametrize(
    ("name", "batch"), [*((name, 0) for name in list_backbones()), ("unet2d_clstm", 1), ("tsvit", 1), ("utae", 1)]
)
def test_without_another_chip_the_loss_and_its_gradients_are_0(name: str, batch: int) -> None:
    model = ChipContrast(encoder_of(name), options=SimCLRRecipe())
    whole = views_of(name, batch=2)
    few = torch.arange(batch)
    loss = model.loss(ChipViews(first=whole.first.take(few), second=whole.second.take(few)))
    loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert loss.value.item() == loss.count.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)
