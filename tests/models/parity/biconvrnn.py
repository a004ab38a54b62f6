"""BiConvGRU and BiConvLSTM against BiRNNSequentialEncoder of DeepSatModels, whose output is the log-softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.models.parity.case import Case

from sits_models.backbones.biconvrnn import BiConvGRU, BiConvLSTM, from_reference
from sits_models.encoder import Encoder
from sits_models.objectives import Segmentation
from sits_models.recipe import SegmentationRecipe

OUTPUTS = {"output"}
BACKBONES = {"ConvGRU": BiConvGRU, "ConvLSTM": BiConvLSTM}
PUBLISHED = {
    "inconv_avgpool_kernel": [None, None],
    "conv3d_dim": 64,
    "inconv_xtimes": 1,
    "inconv_kernel": [1, 3, 3],
    "conv_xtimes": 1,
    "conv_kernel": [3, 3],
    "conv_kernel_dilation": [1],
    "outconv_xtimes": 1,
    "outconv_kernel": [3, 3],
    "outconv_type": "conv2d",
}
"""What a configuration may say, but not change."""


class Ragged(Case):
    """A case whose series end at their `seq_lengths`."""

    def _changed(self, values: NDArray[Any], then: str) -> NDArray[Any]:
        if then != "frames with index >= seq_length of the sample are set to 0":
            return super()._changed(values, then)
        changed = values.copy()
        for sample, length in zip(changed, self.input("seq_lengths").tolist(), strict=True):
            sample[length:] = 0
        return changed


def check(case: Case) -> None:
    case = Ragged(case.name, case.facts, case.arrays)
    assert set(case.output_names) <= OUTPUTS, f"unknown outputs: {set(case.output_names) - OUTPUTS}"
    model = build(case)
    x = torch.from_numpy(case.input("x")).permute(0, 1, 4, 2, 3)  # (N, T, C, H, W)
    lengths = torch.from_numpy(case.input("seq_lengths").astype(np.int64))
    valid = torch.arange(x.shape[1]) < lengths[:, None]
    backbone = model.encoder.backbone
    assert isinstance(backbone, BiConvGRU | BiConvLSTM)
    with torch.no_grad():
        logits = model.head(backbone.embed_series(x, valid))
    case.compare("output", torch.log_softmax(logits, dim=1))


def build(case: Case) -> Segmentation:
    """Our model with the reference's weights; nothing may be missing but our normalisation, and nothing left over."""
    configuration = case.configuration
    other = {key: configuration[key] for key, value in PUBLISHED.items() if configuration.get(key, value) != value}
    assert not other, f"{case.name}: not built here: {other}"
    layers = configuration.get("rnn_hidden_dim", [256])
    assert len(layers) == 1, f"{case.name}: {len(layers)} recurrent layers are not built here"
    bands = tuple(f"c{i}" for i in range(configuration["num_channels"]))
    backbone = BACKBONES[configuration["backbone"]](len(bands), dates=1, time_channels=(), outputs=2 * layers[0])
    encoder = Encoder(backbone, bands=bands, mean=[0.0] * len(bands), std=[1.0] * len(bands), magnification=1)
    classes = configuration["num_classes"]
    model = Segmentation(encoder, classes=classes, recipe=SegmentationRecipe(), class_weights=None)
    assert sum(p.numel() for p in model.parameters()) == case.facts["n_parameters"]
    report = model.load_state_dict(from_reference(case.weights()), strict=False)
    assert set(report.missing_keys) == {"encoder.mean", "encoder.std"}
    assert report.unexpected_keys == []
    return model.train(case.in_train_mode)
