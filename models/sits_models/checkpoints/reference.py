"""Weights that official codes saved."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sits_models.backbones import biconvrnn, deeplab, resnet, tsvit, unet2d_clstm, unet3d, utae
from sits_models.checkpoints.fitting import load_into
from sits_models.objectives import build_objective
from sits_models.objectives.base import Objective
from sits_models.recipe import (
    BackboneRecipe,
    ClassificationRecipe,
    ContrastRecipe,
    DataRecipe,
    Recipe,
    SegmentationRecipe,
)

__all__ = ["from_reference", "read_reference"]

_DATE_CHANNELS: tuple[Literal["day_of_year", "year"], ...] = ("day_of_year", "year")
"""The channels that DeepSatModels puts behind the bands: the first in France, both in Germany."""

_REFERENCES = {
    "biconvgru": biconvrnn.from_reference,
    "biconvlstm": biconvrnn.from_reference,
    "deeplab_resnet50": deeplab.from_reference,
    "resnet18": resnet.from_reference,
    "resnet50": resnet.from_reference,
    "tsvit": tsvit.from_reference,
    "tsvit_parcel": tsvit.from_reference,
    "unet2d_clstm": unet2d_clstm.from_reference,
    "unet3d": unet3d.from_reference,
    "unet3df": unet3d.from_reference,
    "utae": utae.from_reference,
}

_DATELESS = ("deeplab_resnet50", "resnet18", "resnet50", "utae")
"""Those that publish no channel of dates."""

_CLASSIFIERS = ("resnet18", "resnet50")
"""Those that publish one class a chip."""

_SIDES = {"deeplab_resnet50": 256, "resnet18": 224, "resnet50": 224, "utae": 128}
"""Of published chips, pixels; 128 is PASTIS."""


def from_reference(
    source: str | Path | Mapping[str, Tensor],
    *,
    architecture: str,
    bands: tuple[str, ...],
    dates: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    heads: int = 4,
) -> Objective:
    """The model of weights that an official code saved, in evaluation mode; stage, classes and finer labels are theirs.

    `source` is a file or a state dict of michaeltrs/DeepSatModels (unet3d, unet3df, unet2d_clstm, biconvgru,
    biconvlstm, tsvit, tsvit_parcel), of VSainteuf/utae-paps (utae), of GeoX-Lab/G-RSIM (deeplab_resnet50) or of
    torchvision (resnet18 and resnet50, with their last layer), `bands` the image bands in the order of its training
    (date channels not counted) and `dates` its T. `mean` and `std` are of stored reflectance (x 10000); None:
    reflectance in [0, 1], as DeepSatModels. `heads` are those of each layer of a TSViT, which its tensors do not tell.

    A file is read as tensors and plain values only. Raises ValueError for anything else in it, for an architecture
    that is not known, for no band, and where a tensor is missing, unknown or of another shape.
    """
    if architecture not in _REFERENCES:
        known = ", ".join(_REFERENCES)
        raise ValueError(f"no reference architecture {architecture!r}; weights of these can be read: {known}")
    if not bands:
        raise ValueError(f"weights of a {architecture} take at least one band; give bands in the order of its training")
    state = source if isinstance(source, Mapping) else read_reference(source)
    tensors = _REFERENCES[architecture](state)
    if architecture in ("tsvit", "tsvit_parcel"):
        recipe = _recipe_of_tsvit(tensors, architecture, bands, heads)
    else:
        recipe = _recipe_of_reference(tensors, architecture, bands)
    objective = build_objective(
        recipe,
        bands=bands,
        dates=dates,
        classes=_classes_of_reference(tensors),
        mean=[0.0] * len(bands) if mean is None else mean,
        std=[10000.0] * len(bands) if std is None else std,
    )
    own = {f"encoder.{name}": getattr(objective.encoder, name) for name in ("mean", "std")}
    report = load_into(objective, {**own, **tensors}, part="")
    if not report.whole:
        raise ValueError(f"these are not the weights of a {architecture} of {dates} dates: {report}")
    return objective.eval()


def read_reference(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a .pth or .ckpt file, read without running anything that it says."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that are refused anyway
            data = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values, or is broken, and is not loaded: "
            "save its state_dict() alone where you trust it"
        ) from error
    state = data.get("state_dict", data) if isinstance(data, dict) else data
    if not isinstance(state, dict) or not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path} holds no state dict: a mapping from names to tensors was expected")
    return {str(name): tensor for name, tensor in state.items()}


def _recipe_of_reference(tensors: Mapping[str, Tensor], architecture: str, bands: tuple[str, ...]) -> Recipe:
    channels = next((t.shape[1] for name, t in tensors.items() if name.startswith("encoder.") and t.ndim >= 4), 0)
    extra = channels - len(bands)
    if not 0 <= extra <= len(_DATE_CHANNELS):
        raise ValueError(
            f"these weights take {channels} channels, which is not {len(bands)} bands with 0, 1 or 2 channels of dates"
        )
    labels: Literal[1, 2, 4] = 1
    if any(name.startswith("encoder.magnify.x2.") for name in tensors):
        labels = 4 if any(name.startswith("encoder.magnify.x4.") for name in tensors) else 2
    offsets = tensors.get("similarity.rel_h")  # (channels / 2, 1, 1, window, 1)
    pretraining = any(name.startswith("similarity.") for name in tensors)
    return Recipe(
        name=f"{architecture}-reference",
        data=DataRecipe(bands=bands, labels=labels, size=_size_of_reference(architecture, extra)),
        backbone=BackboneRecipe(
            name=architecture, time_channels=None if architecture in _DATELESS else _DATE_CHANNELS[:extra]
        ),
        contrast=ContrastRecipe(window=3 if offsets is None else offsets.shape[3]) if pretraining else None,
        segmentation=None if pretraining or architecture in _CLASSIFIERS else SegmentationRecipe(),
        classification=ClassificationRecipe() if architecture in _CLASSIFIERS else None,
    )


def _recipe_of_tsvit(tensors: Mapping[str, Tensor], architecture: str, bands: tuple[str, ...], heads: int) -> Recipe:
    sizes, width, side = tsvit.sizes_of(tensors, bands=len(bands), heads=heads)
    dense = architecture == "tsvit"
    return Recipe(
        name=f"{architecture}-reference",
        data=DataRecipe(bands=bands, size=side),
        backbone=BackboneRecipe(name=architecture, width=width, transformer=sizes),
        segmentation=SegmentationRecipe() if dense else None,
        classification=None if dense else ClassificationRecipe(),
    )


def _size_of_reference(architecture: str, extra: int) -> int:
    """Side of the published chips, pixels; of DeepSatModels: MTLCC, which alone gives the year, or T31TFM."""
    if architecture in _SIDES:
        return _SIDES[architecture]
    return 24 if extra == len(_DATE_CHANNELS) else 48


def _classes_of_reference(tensors: Mapping[str, Tensor]) -> int:
    """Length of the last vector before the logits, of UNet3D's last convolution, or of TSViT's tokens."""
    head = [tensor for name, tensor in tensors.items() if name.startswith("head.") and tensor.ndim >= 1]
    last = head[-1] if head else tensors.get("encoder.backbone.final.bias", tensors.get(tsvit.CLASS_TOKENS))
    return 1 if last is None else last.shape[0]
