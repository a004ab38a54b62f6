"""UNet2D-CLSTM against FCN_CRNN of DeepSatModels: both stages, gradients and running statistics."""

from __future__ import annotations

import re

import numpy as np
import torch
from tests.models.parity.case import Case
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones.unet2d_clstm import UNet2DCLSTM, from_reference, rename, unused_in_reference
from sits_models.encoder import Encoder
from sits_models.objectives import Segmentation
from sits_models.objectives.cscl import ContextContrast, Pairs, Window, window_loss, windows_of
from sits_models.recipe import ContrastRecipe, SegmentationRecipe
from sits_models.sample import IGNORE_INDEX

ZERO = 1e-12
"""Gradients whose float64 norm is below this share of the largest are 0: those of biases in front of a batch norm."""


def embed(encoder: Encoder, x: Tensor) -> Tensor:
    """(N, T, H, W, C) to (N, 128, H, W)."""
    backbone = encoder.backbone
    assert isinstance(backbone, UNet2DCLSTM)
    return backbone.embed_series(x.permute(0, 1, 4, 2, 3))


def check(case: Case) -> None:
    configuration = case.configuration
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
        labels = torch.from_numpy(case.input("labels").astype(np.int64))
        loss = model.loss_of(logits, labels.masked_fill(labels == masked_class(case), IGNORE_INDEX))
        check_backward(case, model, x, loss)
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
    if "loss" in case.output_names:
        labels = torch.from_numpy(case.input("labels").astype(np.int64))
        if "cscl_labels" in case.output_names:
            case.compare("cscl_labels", targets(labels, model.similarity.window))
        pairs = Pairs(identity=labels, counted=torch.ones_like(labels, dtype=torch.bool))
        loss, _ = window_loss(embedded, model.similarity, pairs, rule=model.rule)
        check_backward(case, model, x, loss)
    check_statistics(case, model)


def targets(labels: Tensor, window: Window) -> Tensor:
    """(B, H', W', k, k): 1 where a neighbour has the class of the centre; nothing outside of the image has it."""
    thinned = window.thin(labels)
    neighbours = windows_of(functional.pad(thinned, (window.reach,) * 4, value=-1), window)
    return (neighbours == thinned[..., :: window.step, :: window.step, None, None]).to(torch.uint8)


def masked_class(case: Case) -> int:
    """The class that the case leaves out of its loss, as its description says; IGNORE_INDEX if none."""
    text = " ".join([*(str(entry["recipe"]) for entry in case.facts["inputs"]), *case.facts["notes"]])
    found = re.search(r"class (\d+) is masked out", text) or re.search(r"label is not (\d+)", text)
    return int(found[1]) if found else IGNORE_INDEX


def check_backward(case: Case, model: nn.Module, x: Tensor, loss: Tensor) -> None:
    case.compare("loss", loss)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert x.grad is not None
    if "grad_x" in case.output_names:
        case.compare("grad_x", x.grad)
        case.compare_direction("grad_x", x.grad)
    parameters = dict(model.named_parameters())
    norms, exact = case.facts["grad_norms"], case.facts["grad_norms_float64"]
    largest = max(exact.values())
    for name, norm in norms.items():
        gradient = parameters[rename(name)].grad
        assert gradient is not None, name
        ours = float(gradient.norm())
        if exact[name] > ZERO * largest:
            assert abs(ours - norm) <= 0.01 * norm, (
                f"{case.name}: the gradient of {name} is {ours:.4g} long, not {norm:.4g}"
            )
        else:
            assert ours <= 1e-4 * largest, f"{case.name}: the gradient of {name} is {ours:.4g} long, not 0"


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
