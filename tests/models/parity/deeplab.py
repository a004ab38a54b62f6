"""DeepLabV3+ against the network with which GLCNet is finetuned: logits, and the statistics that a batch moves."""

from __future__ import annotations

import torch
from tests.models.parity.case import Case
from torch import Tensor, nn

from sits_models.backbones.deeplab import DeepLabResNet50, from_reference, rename
from sits_models.encoder import Encoder
from sits_models.objectives import Segmentation
from sits_models.recipe import SegmentationRecipe
from sits_models.sample import IGNORE_INDEX, Sample

OUTPUTS = {"logits", "running_stats_head"}


def check(case: Case) -> None:
    assert set(case.output_names) <= OUTPUTS, f"unknown outputs: {set(case.output_names) - OUTPUTS}"
    configuration = case.configuration
    assert configuration["arch"] == "resnet50", f"{case.name}: {configuration['arch']} is not built here"
    assert configuration.get("output_stride", 16) == 16, f"{case.name}: no such stride here"
    model = build(case)
    with torch.no_grad():
        case.compare("logits", model(sample_of(torch.from_numpy(case.input("x")))))
    if "running_stats_head" in case.output_names:
        state = model.state_dict()
        names = [name for name, *_ in case.facts["state_dict"] if name.rpartition(".")[2].startswith("running_")]
        found = torch.cat([state[rename(name)][:2] for name in names])
        case.compare("running_stats_head", found)


def build(case: Case) -> Segmentation:
    """Our model with the reference's weights; nothing may be missing but our normalisation, and nothing left over."""
    configuration = case.configuration
    bands = band_names(configuration["in_channels"])
    backbone = DeepLabResNet50(len(bands), dates=1)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.momentum == configuration["bn_momentum"]
    encoder = Encoder(backbone, bands=bands, mean=[0.0] * len(bands), std=[1.0] * len(bands), magnification=1)
    classes = configuration["num_classes"]
    model = Segmentation(encoder, classes=classes, recipe=SegmentationRecipe(), class_weights=None)
    assert sum(p.numel() for p in model.parameters()) == case.facts["n_parameters"]
    report = model.load_state_dict(from_reference(case.weights()), strict=False)
    assert set(report.missing_keys) == {"encoder.mean", "encoder.std"}
    assert report.unexpected_keys == []
    model.train(case.in_train_mode)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return model


def band_names(channels: int) -> tuple[str, ...]:
    return tuple(f"c{i}" for i in range(channels))


def sample_of(frames: Tensor) -> Sample:
    """Single dates of images (B, C, H, W)."""
    b, c, h, w = frames.shape
    crop = torch.full((b, h, w), IGNORE_INDEX)
    return Sample(
        image=frames[:, None],
        valid=torch.ones(b, 1, dtype=torch.bool),
        day=torch.full((b, 1), 18_500, dtype=torch.int32),
        clear=torch.ones(b, 1, h, w, dtype=torch.bool),
        crop=crop,
        counted=torch.ones_like(crop, dtype=torch.bool),
        parcel=torch.zeros_like(crop),
        boundary=torch.zeros(b, h, w, dtype=torch.int16),
        place=torch.zeros(b, 3, dtype=torch.int64),
        bands=band_names(c),
    )
