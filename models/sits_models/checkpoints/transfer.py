"""A model that starts from the weights of another."""

from __future__ import annotations

from pathlib import Path

import torch

from sits_models.backbones import Backbone, backbone_class, build_backbone, list_backbones
from sits_models.backbones.tsvit import TSViT, TSViTParcel
from sits_models.checkpoints.card import Card
from sits_models.checkpoints.files import read_weights
from sits_models.checkpoints.fitting import LoadReport, load_into
from sits_models.objectives import gives_logits
from sits_models.objectives.base import Objective
from sits_models.objectives.chip_embeddings import leaves_decoder_out

__all__ = ["transfer"]


def transfer(objective: Objective, folder: str | Path) -> LoadReport:
    """Start a model from the weights of another: all but what belongs to the task, as published for CSCL.

    The encoder (backbone, magnification, normalization) must match to the last tensor; the similarity of a
    pretraining, all heads, second networks and queues, and what of either backbone belongs to the outputs of a task are
    left out, Tarasiou et al. 2022 (`partial_restore` of the official code); and the decoder of a DeepLab where the
    pretraining had another one or none (Li et al. 2022), so that it is new. What follows the encoder of `objective`
    starts where it does.

    Raises ValueError, naming every tensor, where one is missing, unknown or of another shape, or where the bands or
    the backbone (architecture, variant, channels of time) differ; the model is then as it was.
    """
    card, tensors = read_weights(folder)
    if card.bands != objective.encoder.bands:
        raise ValueError(
            f"the weights in {folder} take the bands {', '.join(card.bands)}, this model "
            f"{', '.join(objective.encoder.bands)}; give the recipe data.bands=[{', '.join(card.bands)}]"
        )
    other = _backbone_of(card)
    differing = _differences(other, objective.encoder.backbone)
    if differing:
        raise ValueError(
            f"the weights in {folder} are of another backbone: {'; '.join(differing)}; "
            "change backbone of the recipe, or start from other weights"
        )
    # The decoder of a DeepLab that was left as it was drawn.
    unlearnt = ("decoder.",) if leaves_decoder_out(card.recipe) else ()
    names = (*objective.encoder.backbone.of_task, *other.of_task, *unlearnt)
    of_task = tuple(f"encoder.backbone.{name}" for name in names)
    report = load_into(objective, tensors, part="encoder.", but=of_task)
    if not report.whole:
        raise ValueError(f"the weights in {folder} do not fit this model: {report}")
    objective.catch_up()
    return report


def _backbone_of(card: Card) -> Backbone:
    """That of the weights, without any values."""
    outputs = len(card.classes) if gives_logits(card.recipe) else None
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # nothing is drawn or stored
        return build_backbone(card.recipe.backbone, bands=len(card.bands), dates=card.dates, outputs=outputs)


def _differences(theirs: Backbone, ours: Backbone) -> list[str]:
    """How one computes otherwise than the other; shapes of tensors do not tell."""
    if type(theirs) is not type(ours):
        there, here = (
            ", ".join(name for name in list_backbones() if backbone_class(name) is type(one)) for one in (theirs, ours)
        )
        return [f"name is {there} there, {here} here"]
    return [
        f"{key} is {_spelt(getattr(theirs, key))} there, {_spelt(getattr(ours, key))} here"
        for key in ("variant", "time_channels", *(("heads",) if isinstance(ours, TSViT | TSViTParcel) else ()))
        if getattr(theirs, key) != getattr(ours, key)
    ]


def _spelt(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
