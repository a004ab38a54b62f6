"""UNet3D and UNet3Df against the official code: all layers of a stage, from raw channels to logits or similarities."""

from __future__ import annotations

import numpy as np
import torch
from tests.models.parity.case import Case
from tests.models.parity.gradients import check_gradients
from torch import Tensor

from sits_models.backbones.unet3d import UNet3D, UNet3Df, from_reference
from sits_models.encoder import Encoder
from sits_models.objectives import ContextContrast, Segmentation
from sits_models.objectives.cscl import Pairs, pairs_in_windows, window_loss
from sits_models.recipe import ContrastRecipe, SegmentationRecipe

OUTPUTS = {"output", "cscl_labels", "loss", "grad_x", "running_stats_head"}


def check(case: Case) -> None:
    assert set(case.output_names) <= OUTPUTS, f"unknown outputs: {set(case.output_names) - OUTPUTS}"
    objective = _objective(case)
    assert sum(p.numel() for p in objective.parameters()) == case.facts["n_parameters"]
    _load(objective, case.weights())
    objective.train(case.in_train_mode)

    layout = case.configuration.get("shape_pattern", "NTHWC")
    x = torch.from_numpy(case.input("x")).permute([layout.index(axis) for axis in "NTCHW"]).requires_grad_()
    with torch.set_grad_enabled("loss" in case.output_names):
        embedded = objective.encoder.magnify(objective.encoder.backbone.embed_series(x))
        output = objective.head(embedded) if isinstance(objective, Segmentation) else objective.similarity(embedded)
    case.compare("output", output)
    if "running_stats_head" in case.output_names:
        case.compare("running_stats_head", _running_statistics(objective, case.facts["running_stats_names"]))
    if {"loss", "cscl_labels"} & set(case.output_names):
        grid = (output.shape[0], *embedded.shape[-2:])
        if isinstance(objective, Segmentation):
            loss = objective.loss_of(output, case.labels_in_loss().reshape(grid))
        else:
            labels = torch.from_numpy(case.input("labels").astype(np.int64)).reshape(grid)
            pairs = Pairs(identity=labels, counted=torch.ones_like(labels, dtype=torch.bool))
            same, _ = pairs_in_windows(pairs, objective.similarity.window, rule=objective.rule)
            if "cscl_labels" in case.output_names:
                case.compare("cscl_labels", same.to(torch.uint8))
            loss, _ = window_loss(embedded, objective.similarity, pairs, rule=objective.rule)
        if "loss" in case.output_names:
            case.compare("loss", loss)
            loss.backward()
            by_x = None if x.grad is None else x.grad.permute(["NTCHW".index(axis) for axis in layout])
            check_gradients(case, objective, by_x, rename=_our_name, unused=())


def _objective(case: Case) -> Segmentation | ContextContrast:
    settings, stage = case.configuration, case.configuration.get("train_stage")
    channels, dates, classes = settings["num_channels"], settings["max_seq_len"], settings["num_classes"]
    backbone: UNet3D | UNet3Df
    if case.name.startswith("unet3d_"):
        assert stage is None
        backbone = UNet3D(channels, dates=dates, time_channels=(), outputs=classes)
    else:
        assert stage in (0, 2), f"no such stage here: {stage}"
        backbone = UNet3Df(channels, dates=dates, time_channels=())
    encoder = Encoder(
        backbone,
        bands=tuple(f"channel {i}" for i in range(channels)),
        mean=[0.0] * channels,
        std=[1.0] * channels,
        magnification=settings.get("output_magnification") or 1,
    )
    if stage == 0:
        recipe = ContrastRecipe(
            window=settings["cscl_win_size"],
            stride=settings["cscl_win_stride"],
            dilation=settings["cscl_win_dilation"],
            channels=settings["attn_channels"],
            groups=settings["attn_groups"],
            similarity="cosine" if settings["norm_emb"] else "dot",
        )
        return ContextContrast(encoder, recipe=recipe)
    return Segmentation(encoder, classes=classes, recipe=SegmentationRecipe(), class_weights=None)


def _load(objective: torch.nn.Module, state: dict[str, Tensor]) -> None:
    missing, unexpected = objective.load_state_dict(from_reference(state), strict=False)
    assert (missing, unexpected) == (["encoder.mean", "encoder.std"], [])


def _running_statistics(objective: torch.nn.Module, names: list[str]) -> Tensor:
    ours = objective.state_dict()
    return torch.cat([ours[_our_name(name)].flatten()[:4] for name in names])


def _our_name(name: str) -> str:
    (ours,) = from_reference({name: torch.zeros(1, 1)})
    return ours
