"""UNet2D-CLSTM against FCN_CRNN of DeepSatModels: both stages, gradients and running statistics."""

from __future__ import annotations

import numpy as np
import torch
from tests.models.parity.case import Case
from tests.models.parity.gradients import check_gradients
from torch import Tensor, nn

from sits_models.backbones.unet2d_clstm import UNet2DCLSTM, from_reference, rename, unused_in_reference
from sits_models.encoder import Encoder
from sits_models.objectives import Segmentation
from sits_models.objectives.cscl import ContextContrast, Pairs, pairs_in_windows, window_loss
from sits_models.recipe import ContrastRecipe, SegmentationRecipe

OUTPUTS = {"output", "cscl_labels", "loss", "grad_x", "running_stats_head"}


def embed(encoder: Encoder, x: Tensor) -> Tensor:
    """(N, T, H, W, C) to (N, 128, H, W)."""
    backbone = encoder.backbone
    assert isinstance(backbone, UNet2DCLSTM)
    return backbone.embed_series(x.permute(0, 1, 4, 2, 3))


def check(case: Case) -> None:
    assert set(case.output_names) <= OUTPUTS, f"unknown outputs: {set(case.output_names) - OUTPUTS}"
    configuration = case.configuration
    assert configuration.get("output_magnification") in (None, 1), f"{case.name}: a magnified map is not built here"
    assert configuration["train_stage"] in (0, 2), f"{case.name}: no such stage here"
    bands = tuple(f"c{i}" for i in range(configuration["num_channels"]))
    backbone = UNet2DCLSTM(len(bands), dates=configuration["max_seq_len"], time_channels=())
    encoder = Encoder(backbone, bands=bands, mean=[0.0] * len(bands), std=[1.0] * len(bands), magnification=1)
    if configuration["train_stage"] == 0:
        check_contrast(case, encoder)
    else:
        check_segmentation(case, encoder)


def load(model: nn.Module, case: Case) -> None:
    """Load the reference's weights; everything but our normalisation must be there, and nothing may be left."""
    state = case.weights()
    assert set(unused_in_reference(state)) == {
        name for name in state if name.startswith("main_finalconv") and case.configuration["train_stage"] == 0
    }
    unused = sum(state[name].numel() for name in unused_in_reference(state))
    assert sum(p.numel() for p in model.parameters()) + unused == case.facts["n_parameters"]
    report = model.load_state_dict(from_reference(state), strict=False)
    assert set(report.missing_keys) == {"encoder.mean", "encoder.std"}
    assert report.unexpected_keys == []
    model.train(case.in_train_mode)


def check_segmentation(case: Case, encoder: Encoder) -> None:
    classes = case.configuration["num_classes"]
    model = Segmentation(encoder, classes=classes, recipe=SegmentationRecipe(), class_weights=None)
    load(model, case)
    x = torch.from_numpy(case.input("x")).requires_grad_(case.in_train_mode)
    logits = model.head(embed(encoder, x))
    case.compare("output", logits)
    if "loss" in case.output_names:
        check_backward(case, model, x, model.loss_of(logits, case.labels_in_loss()))
    check_statistics(case, model)


def check_contrast(case: Case, encoder: Encoder) -> None:
    configuration = case.configuration
    recipe = ContrastRecipe(
        window=configuration["cscl_win_size"],
        stride=configuration["cscl_win_stride"],
        dilation=configuration["cscl_win_dilation"],
        channels=configuration["attn_channels"],
        groups=configuration["attn_groups"],
        similarity="cosine" if configuration["norm_emb"] else "dot",
    )
    model = ContextContrast(encoder, recipe=recipe)
    load(model, case)
    x = torch.from_numpy(case.input("x")).requires_grad_(case.in_train_mode)
    embedded = embed(encoder, x)
    case.compare("output", model.similarity(embedded))
    if {"loss", "cscl_labels"} & set(case.output_names):
        labels = torch.from_numpy(case.input("labels").astype(np.int64))
        pairs = Pairs(identity=labels, counted=torch.ones_like(labels, dtype=torch.bool))
        if "cscl_labels" in case.output_names:
            same, _ = pairs_in_windows(pairs, model.similarity.window, rule=model.rule)
            case.compare("cscl_labels", same.to(torch.uint8))
        if "loss" in case.output_names:
            loss, _ = window_loss(embedded, model.similarity, pairs, rule=model.rule)
            check_backward(case, model, x, loss)
    check_statistics(case, model)


def check_backward(case: Case, model: nn.Module, x: Tensor, loss: Tensor) -> None:
    case.compare("loss", loss)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    unused = unused_in_reference({name: torch.empty(0) for name, *_ in case.facts["state_dict"]})
    check_gradients(case, model, x.grad, rename=rename, unused=unused)


def check_statistics(case: Case, model: nn.Module) -> None:
    if "running_stats_head" not in case.output_names:
        return
    state = model.state_dict()
    heads = []
    for name in case.facts["running_stats_names"]:
        ours, step = rename(name), None
        if ours not in state:
            ours, _, step = ours.rpartition("_")
        heads.append((state[ours] if step is None else state[ours][int(step)])[:4])
    case.compare("running_stats_head", torch.cat(heads))
