"""Backbones: a satellite image time series in, one embedding a pixel out."""

from __future__ import annotations

from sits_catalog.documents import did_you_mean
from sits_models.backbones.base import Backbone
from sits_models.backbones.biconvrnn import BiConvGRU, BiConvLSTM
from sits_models.backbones.deeplab import DeepLabResNet18, DeepLabResNet50
from sits_models.backbones.resnet import ResNet18, ResNet50
from sits_models.backbones.tsvit import TSViT, TSViTParcel
from sits_models.backbones.unet2d_clstm import UNet2DCLSTM
from sits_models.backbones.unet3d import UNet3D, UNet3Df
from sits_models.backbones.utae import UTAE
from sits_models.recipe import BackboneRecipe, TransformerRecipe

__all__ = ["Backbone", "backbone_class", "build_backbone", "list_backbones"]

_BACKBONES: dict[str, type[Backbone]] = {
    "biconvgru": BiConvGRU,
    "biconvlstm": BiConvLSTM,
    "deeplab_resnet18": DeepLabResNet18,
    "deeplab_resnet50": DeepLabResNet50,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
    "tsvit": TSViT,
    "tsvit_parcel": TSViTParcel,
    "unet2d_clstm": UNet2DCLSTM,
    "unet3d": UNet3D,
    "unet3df": UNet3Df,
    "utae": UTAE,
}
_TRANSFORMERS = ("tsvit", "tsvit_parcel")
"""Those whose sizes a recipe gives under `transformer`."""


def list_backbones() -> tuple[str, ...]:
    """Names of all backbones, sorted."""
    return tuple(sorted(_BACKBONES))


def backbone_class(name: str) -> type[Backbone]:
    """The class of that name; ValueError names those there are."""
    if name not in _BACKBONES:
        known = list_backbones()
        raise ValueError(f"no backbone named {name!r}{did_you_mean(name, known)}; there is: {', '.join(known)}")
    return _BACKBONES[name]


def build_backbone(
    recipe: BackboneRecipe, *, bands: int, dates: int, size: int | None = None, outputs: int | None = None
) -> Backbone:
    """The backbone of a recipe, its weights drawn anew.

    `dates` and `size` are the T and the side in pixels of the chips of training (None: the published side); `outputs`
    the channels of the embedding (None: the published number times width). Raises ValueError for sizes of a transformer
    given to a backbone that is none.
    """
    kind = backbone_class(recipe.name)
    further: dict[str, TransformerRecipe] = {}
    if recipe.transformer is not None:
        if recipe.name not in _TRANSFORMERS:
            raise ValueError(
                f"backbone.transformer is of {' and '.join(_TRANSFORMERS)}; {recipe.name} has no such sizes: leave it "
                "out"
            )
        further["transformer"] = recipe.transformer
    return kind(
        bands,
        dates=dates,
        size=size,
        width=recipe.width,
        variant=recipe.variant,
        time_channels=recipe.time_channels,
        outputs=outputs,
        **further,
    )
