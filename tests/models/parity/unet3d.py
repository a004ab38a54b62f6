"""UNet3D and UNet3Df against the official code: all layers of a stage, from raw channels to logits or similarities."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from tests.models.parity.case import Case
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from sits_models.backbones.unet3d import UNet3D, UNet3Df, from_reference
from sits_models.encoder import Encoder
from sits_models.objectives import ContextContrast, Segmentation
from sits_models.objectives.cscl import OUTSIDE, Pairs, window_loss, windows_of
from sits_models.recipe import ContrastRecipe, SegmentationRecipe
from sits_models.sample import IGNORE_INDEX

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
        labels = torch.from_numpy(case.input("labels")).to(torch.int64).reshape(output.shape[0], *embedded.shape[-2:])
        if isinstance(objective, Segmentation):
            loss = objective.loss_of(output, _ignored(labels, case))
        else:
            case.compare("cscl_labels", _targets(objective, labels))
            pairs = Pairs(identity=labels, counted=torch.ones_like(labels, dtype=torch.bool))
            loss, _ = window_loss(embedded, objective.similarity, pairs, rule=objective.rule)
        case.compare("loss", loss)
        loss.backward()
        _check_gradients(objective, x.grad, layout, case)


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


def _targets(objective: ContextContrast, labels: Tensor) -> Tensor:
    window = objective.similarity.window
    thinned = window.thin(labels)
    neighbours = windows_of(F.pad(thinned, (window.reach,) * 4, value=OUTSIDE), window)
    centres = thinned[..., :: window.step, :: window.step, None, None]
    return (neighbours == centres).to(torch.uint8)


def _ignored(labels: Tensor, case: Case) -> Tensor:
    """Labels with the class that the case leaves out of its loss, if it does, as IGNORE_INDEX."""
    text = " ".join([*(str(entry["recipe"]) for entry in case.facts["inputs"]), *case.facts["notes"]])
    classes = {
        int(number)
        for number in re.findall(r"class (\d+) is masked out|label is not (\d+)", text)
        for number in number
        if number
    }
    assert len(classes) <= 1, text
    for unknown in classes:
        labels = labels.masked_fill(labels == unknown, IGNORE_INDEX)
    return labels


def _check_gradients(objective: torch.nn.Module, by_x: Tensor | None, layout: str, case: Case) -> None:
    if "grad_x" in case.output_names:
        assert by_x is not None
        by_x = by_x.permute(["NTCHW".index(axis) for axis in layout])
        case.compare("grad_x", by_x)
        case.compare_direction("grad_x", by_x)
    norms: dict[str, Any] = case.facts.get("grad_norms", {})
    found = {name: parameter.grad for name, parameter in objective.named_parameters()}
    largest = max(norms.values(), default=0.0)
    for name, norm in norms.items():
        gradient = found[_our_name(name)]
        ours = 0.0 if gradient is None else float(gradient.norm())
        # The gradient of a convolution's bias in front of batch normalisation is 0 but for rounding.
        if case.facts["grad_norms_float64"][name] > 1e-12 * largest:
            np.testing.assert_allclose(ours, norm, rtol=0.01, err_msg=f"{case.name}: gradient of {name}")
        else:
            assert ours < 1e-4 * largest, f"{case.name}: gradient of {name}"
