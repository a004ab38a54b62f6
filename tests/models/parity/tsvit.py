"""TSViT and its classifier against TSViT and TSViTcls of DeepSatModels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.models.parity.case import Case, _draw, _sha256

from sits_models.backbones.tsvit import TSViT, TSViTParcel, from_reference
from sits_models.encoder import Encoder
from sits_models.objectives import Classification, Segmentation
from sits_models.recipe import SegmentationRecipe, TransformerRecipe

KINDS = {"TSViT": TSViT, "TSViTcls": TSViTParcel}
FIRST_DAY = 730
"""1972-01-01, in days since 1970-01-01: a year with all days of the year, 366 too."""


def check(case: Case) -> None:
    kind = case.facts["reference"]["object"]
    assert kind in KINDS, f"{case.name}: {kind} of {case.facts['reference']['file']} is not built"
    assert set(case.output_names) == {"output"}, f"{case.name}: unknown outputs: {case.output_names}"
    configuration = case.configuration
    assert configuration.get("pool", "cls") == "cls", f"{case.name}: pool {configuration['pool']} is not built"
    assert configuration["dim"] % 2 == 0, (
        f"{case.name}: an odd number of channels ({configuration['dim']}) is not built"
    )
    bands = tuple(f"c{i}" for i in range(configuration["num_channels"] - 1))  # the last channel is the day of the year
    classes = configuration["num_classes"]
    backbone = KINDS[kind](
        len(bands),
        dates=configuration["max_seq_len"],
        size=configuration["img_res"],
        width=configuration["dim"] / 128,
        outputs=classes,
        transformer=TransformerRecipe(
            patch=configuration["patch_size"],
            temporal_depth=configuration["temporal_depth"],
            spatial_depth=configuration["spatial_depth"],
            heads=configuration["heads"],
            head_channels=configuration["dim_head"],
        ),
        expansion=configuration.get("scale_dim", 4),
    )
    encoder = Encoder(backbone, bands=bands, mean=[0.0] * len(bands), std=[1.0] * len(bands), magnification=1)
    model = objective_of(encoder, classes)
    assert sum(p.numel() for p in model.parameters()) == case.facts["n_parameters"]
    report = model.load_state_dict(from_reference(case.weights()), strict=False)
    assert set(report.missing_keys) == {"encoder.mean", "encoder.std"}
    assert report.unexpected_keys == []
    model.train(case.in_train_mode)  # dropout of 0 or left out: the same in both modes
    days = torch.from_numpy(case.input("days").astype(np.int64))
    series = torch.from_numpy(series_of(case))[..., :-1].permute(0, 1, 4, 2, 3)  # (N, T, H, W, C) there
    with torch.no_grad():
        logits = model.head(backbone(series, days > 0, FIRST_DAY - 1 + days))
    case.compare("output", logits if kind == "TSViT" else logits[:, :, 0, 0])


def objective_of(encoder: Encoder, classes: int) -> Segmentation | Classification:
    if encoder.backbone.stride == 0:
        return Classification(encoder, classes=classes, class_weights=None)
    return Segmentation(encoder, classes=classes, recipe=SegmentationRecipe(), class_weights=None)


def series_of(case: Case) -> NDArray[Any]:
    """The input x, its last channel the day of the year, 0 throughout in padded frames."""
    facts = next(entry for entry in case.facts["inputs"] if entry["name"] == "x")
    expected = "last channel := doy_channel[b,t] tiled over H,W; then frames with day 0 set to 0 in all channels"
    assert facts["then"] == expected, f"{case.name}: nothing here knows this change of an input: {facts['then']}"
    series = _draw(facts["recipe"])
    assert _sha256(series) == facts["sha256"], f"{case.name}: the draw of x is not the one meant"
    series[..., -1] = case.input("doy_channel")[:, :, None, None]
    series[case.input("days") == 0] = 0
    assert _sha256(series) == facts["sha256_final"], f"{case.name}: x is not the one meant"
    return series
