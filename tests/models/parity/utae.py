"""U-TAE against UTAE of utae-paps: logits and attention, with and without padded dates."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.models.parity.case import Case
from torch import Tensor, nn

from sits_models.backbones.utae import UTAE, UTAELayout, from_reference, rename
from sits_models.encoder import Encoder
from sits_models.heads import _convolution
from sits_models.objectives import Segmentation
from sits_models.recipe import SegmentationRecipe

PUBLISHED = {
    "str_conv_k": 4,
    "str_conv_s": 2,
    "str_conv_p": 1,
    "encoder_norm": "group",
    "padding_mode": "reflect",
}
"""What our U-TAE does not offer to change."""
OUTPUTS = {"logits", "attention", "running_stats_head"}


def check(case: Case) -> None:
    assert set(case.output_names) <= OUTPUTS, f"unknown outputs: {set(case.output_names) - OUTPUTS}"
    configuration = case.configuration
    # Features of padded dates have this value in the reference, and 0 in ours.
    pad_value = configuration.get("pad_value", 0)
    assert pad_value in (0, None), f"{case.name}: padding by {pad_value} is not built"
    for key, value in PUBLISHED.items():
        assert configuration.get(key, value) == value, f"{case.name}: {key} {configuration[key]} is not built"
    layout = UTAELayout(
        encoder=tuple(configuration["encoder_widths"]),
        decoder=tuple(configuration["decoder_widths"] or configuration["encoder_widths"]),
        heads=configuration["n_head"],
        keys=configuration["d_k"],
        values=configuration["d_model"],
        aggregation=configuration["agg_mode"],
    )
    x = case.input("x")
    widths = (layout.decoder[0], *configuration["out_conv"])
    bands = tuple(f"c{i}" for i in range(configuration["input_dim"]))
    backbone = UTAE(len(bands), dates=x.shape[1], layout=layout)
    encoder = Encoder(backbone, bands=bands, mean=[0.0] * len(bands), std=[1.0] * len(bands), magnification=1)
    model = Segmentation(encoder, classes=widths[-1], recipe=SegmentationRecipe(), class_weights=None)
    if widths[1:-1] != widths[:1]:  # ours has two convolutions, and between them as many channels as the embedding
        layers = [layer for inputs, outputs in pairwise(widths) for layer in _convolution(inputs, outputs)]
        model.head = nn.Sequential(*layers)
    assert sum(p.numel() for p in model.parameters()) == case.facts["n_parameters"]
    report = model.load_state_dict(from_reference(case.weights()), strict=False)
    assert set(report.missing_keys) == {"encoder.mean", "encoder.std"}
    assert report.unexpected_keys == []
    model.train(case.in_train_mode)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    valid, positions = valid_dates(x, pad_value), torch.from_numpy(case.input("positions"))
    embedding, attention = backbone.embed_positions(torch.from_numpy(x), valid, positions)
    case.compare("logits", model.head(embedding))
    if "attention" in case.output_names:
        case.compare("attention", attention)
    if "running_stats_head" in case.output_names:
        state = model.state_dict()
        heads = [state[rename(name)][:4] for name in case.facts["running_stats_names"]]
        case.compare("running_stats_head", torch.cat(heads))


def valid_dates(x: NDArray[Any], pad_value: float | None) -> Tensor:
    """(B, T): where any value is not that of padding; all without such a value."""
    return torch.from_numpy(np.ones(x.shape[:2], bool) if pad_value is None else (x != pad_value).any(axis=(2, 3, 4)))
