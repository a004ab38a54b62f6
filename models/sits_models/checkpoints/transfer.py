"""A model that starts from the weights of another."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from sits_models.backbones import backbone_class, build_backbone, list_backbones
from sits_models.checkpoints.card import Card
from sits_models.checkpoints.files import read_weights
from sits_models.checkpoints.fitting import LoadReport, load_into
from sits_models.objectives.base import Objective

__all__ = ["transfer"]


def transfer(objective: Objective, folder: str | Path, *, part: Literal["encoder", "all"] = "encoder") -> LoadReport:
    """Start a model from the weights of another: by default all but what belongs to the task, as published for CSCL.

    The encoder (backbone, magnification, normalization) must match to the last tensor; the similarity of a
    pretraining, both heads, and what of a backbone belongs to the outputs of a task are left out. Tarasiou et al. 2022
    (`partial_restore` of the official code).

    Raises ValueError, naming every tensor, where one is missing, unknown or of another shape, or where the bands or
    the backbone (architecture, variant, channels of time) differ; the model is then as it was.
    """
    card, tensors = read_weights(folder)
    if card.bands != objective.encoder.bands:
        raise ValueError(
            f"the weights in {folder} take the bands {', '.join(card.bands)}, this model "
            f"{', '.join(objective.encoder.bands)}; give the recipe data.bands=[{', '.join(card.bands)}]"
        )
    differing = _other_backbone(card, objective)
    if differing:
        raise ValueError(
            f"the weights in {folder} are of another backbone: {'; '.join(differing)}; "
            "change backbone of the recipe, or start from other weights"
        )
    backbone = objective.encoder.backbone
    of_task = tuple(f"encoder.backbone.{name}" for name in backbone.of_task) if part == "encoder" else ()
    report = load_into(objective, tensors, part="encoder." if part == "encoder" else "", but=of_task)
    if not report.whole:
        raise ValueError(f"the weights in {folder} do not fit this model: {report}")
    return report


def _other_backbone(card: Card, objective: Objective) -> list[str]:
    """How the backbone of a card computes otherwise than that of a model; shapes of tensors do not tell."""
    theirs, ours = card.recipe.backbone, objective.encoder.backbone
    if backbone_class(theirs.name) is not type(ours):
        here = [name for name in list_backbones() if backbone_class(name) is type(ours)]
        return [f"name is {theirs.name} there, {', '.join(here)} here"]
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # nothing is drawn or stored
        other = build_backbone(theirs, bands=len(card.bands), dates=card.dates)
    return [
        f"{key} is {_spelt(getattr(other, key))} there, {_spelt(getattr(ours, key))} here"
        for key in ("variant", "time_channels", *(("heads",) if theirs.name in ("tsvit", "tsvit_parcel") else ()))
        if getattr(other, key) != getattr(ours, key)
    ]


def _spelt(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
