"""U-TAE against UTAE of utae-paps: logits and attention, with and without padded dates."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from tests.models.parity.case import Case
from torch import Tensor, nn

from sits_models.backbones.utae import UTAE, UTAELayout, from_reference, rename
from sits_models.encoder import Encoder
from sits_models.objectives import Segmentation
from sits_models.recipe import SegmentationRecipe

PUBLISHED = {
    "str_conv_k": 4,
    "str_conv_s": 2,
    "str_conv_p": 1,
    "encoder_norm": "group",
    "pad_value": 0,
    "padding_mode": "reflect",
}
"""What our U-TAE does not offer to change."""


def check(case: Case) -> None:
    configuration = case.configuration
    for key, value in PUBLISHED.items():
        assert configuration.get(key, value) == value, f"{case.name}: {key} {configuration[key]} is not built"
    layout = UTAELayout(
        encoder=tuple(configuration["encoder_widths"]),
        decoder=tuple(configuration["decoder_widths"]),
        heads=configuration["n_head"],
        keys=configuration["d_k"],
        values=configuration["d_model"],
        aggregation=configuration["agg_mode"],
    )
    hidden, classes = configuration["out_conv"]
    assert hidden == layout.decoder[0], f"{case.name}: an output block of {hidden} channels is not built"
    x, valid = padded_input(case)
    bands = tuple(f"c{i}" for i in range(configuration["input_dim"]))
    backbone = UTAE(len(bands), dates=x.shape[1], layout=layout)
    encoder = Encoder(backbone, bands=bands, mean=[0.0] * len(bands), std=[1.0] * len(bands), magnification=1)
    model = Segmentation(encoder, classes=classes, recipe=SegmentationRecipe(), class_weights=None)
    report = model.load_state_dict(from_reference(case.weights()), strict=False)
    assert set(report.missing_keys) == {"encoder.mean", "encoder.std"}
    assert report.unexpected_keys == []
    model.train(case.in_train_mode)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    embedding, attention = backbone.embed_positions(x, valid, torch.from_numpy(case.input("positions")))
    case.compare("logits", model.head(embedding))
    if "attention" in case.output_names:
        case.compare("attention", attention)
    if "running_stats_head" in case.output_names:
        state = model.state_dict()
        heads = [state[rename(name)][:4] for name in case.facts["running_stats_names"]]
        case.compare("running_stats_head", torch.cat(heads))


def padded_input(case: Case) -> tuple[Tensor, Tensor]:
    """The image and which of its dates are not padding: those with any value other than 0."""
    x = case.input("x").copy()
    entry = next(entry for entry in case.facts["inputs"] if entry["name"] == "x")
    if "then" in entry and entry["npz_key"] is None:
        for series, padded in zip(x, case.facts["n_pad"], strict=True):
            series[len(series) - padded :] = 0
    if "sha256_final" in entry:
        assert hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest() == entry["sha256_final"]
    return torch.from_numpy(x), torch.from_numpy((x != 0).any(axis=(2, 3, 4)))
