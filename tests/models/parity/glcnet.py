"""GLCNet against its authors' code: projections, losses, gradients, and the statistics that two batches move."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from tests.models.parity.case import Case
from tests.models.parity.deeplab import band_names, sample_of
from tests.models.parity.gradients import check_gradients
from torch import Tensor, nn

from sits_models.backbones.deeplab import DeepLabResNet50
from sits_models.encoder import Encoder
from sits_models.objectives.glcnet import GlobalLocalContrast, RegionViews, from_reference, rename, style_of
from sits_models.recipe import GLCNetRecipe


def check(case: Case) -> None:
    if case.name.startswith("glcnet_style_"):
        _check_style(case)
    else:
        _check_full(case)


def _check_style(case: Case) -> None:
    configuration, weights = case.configuration, case.weights()
    assert configuration["noLocal"]
    tensors = from_reference({name: value for name, value in weights.items() if name.startswith("proj.")})
    found: dict[str, Tensor] = {}
    for feat, number, projected in (("feat", 1, "q"), ("feat2", 2, "k")):
        style = style_of(torch.from_numpy(case.input(feat)), variance=not configuration["noStyle"])
        head = nn.Sequential(nn.Linear(style.shape[1], 256), nn.ReLU(), nn.Linear(256, configuration["num_classes"]))
        head.load_state_dict({name.removeprefix("style_head."): value for name, value in tensors.items()})
        found |= {f"style{number}": style, projected: head(style)}
    assert set(found) == set(case.output_names)
    for name, value in found.items():
        case.compare(name, value)


def _check_full(case: Case) -> None:
    model = build(case)
    images = [torch.from_numpy(image) for image in (case.input("view1"), _second_view(case))]
    images[0].requires_grad_(case.in_train_mode)
    rois = torch.from_numpy(case.input("rois"))
    views = RegionViews(
        first=sample_of(images[0]),
        second=sample_of(images[1]),
        first_regions=regions_of(rois[..., 1:5]),
        second_regions=regions_of(rois[..., 6:10]),
        counted=torch.ones(rois.shape[:2], dtype=torch.bool),
    )
    seen = {"style": _calls(model.style_head), "region": _calls(model.region_head)}
    with torch.set_grad_enabled(case.in_train_mode):
        loss = model.loss(views)
    found = {"loss": loss.value, **{name: loss.monitors[name] for name in ("loss_global", "loss_local")}}
    for number, names in enumerate((("q", "q1"), ("k", "k1")), start=1):
        for name, taken, (before, after) in zip(
            names, ("style", "region_mean"), (seen["style"][number - 1], seen["region"][number - 1]), strict=True
        ):
            found |= {f"{taken}_view{number}": before, name: after}
    if case.in_train_mode:
        found["running_stats_head"] = _statistics(case, model)
        loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        assert images[0].grad is not None
        found["grad_view1"] = images[0].grad
        case.compare_direction("grad_view1", images[0].grad)
        check_gradients(case, model, None, rename=rename, unused=())
    assert set(found) == set(case.output_names), set(found) ^ set(case.output_names)
    for name, value in found.items():
        case.compare(name, value)


def build(case: Case) -> GlobalLocalContrast:
    """Our model with the reference's weights; nothing may be missing but what is ours, and nothing left over."""
    configuration = case.configuration
    assert configuration["arch"] == "resnet50", f"{case.name}: {configuration['arch']} is not built here"
    bands = band_names(configuration["in_channels"])
    encoder = Encoder(
        DeepLabResNet50(len(bands), dates=1),
        bands=bands,
        mean=[0.0] * len(bands),
        std=[1.0] * len(bands),
        magnification=1,
    )
    model = GlobalLocalContrast(encoder, options=GLCNetRecipe(channels=configuration["num_classes"]))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == case.facts["n_parameters"]
    report = model.load_state_dict(from_reference(case.weights()), strict=False)
    ours = ("encoder.mean", "encoder.std", "encoder.backbone.decoder.")
    assert all(name.startswith(ours) for name in report.missing_keys)
    assert report.unexpected_keys == []
    model.train(case.in_train_mode)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
        if isinstance(module, nn.BatchNorm2d):
            assert module.momentum == configuration["bn_momentum"]
    return model


def _second_view(case: Case) -> NDArray[np.float32]:
    """A draw of its own, mixed with the first view so that both show the same."""
    entries = case.facts["inputs"]
    facts = next(entry for entry in entries if entry["name"] == "view2")
    assert facts["then"] == "view2 := float32(0.7)*view1 + float32(0.7)*view2 in float32", facts["then"]
    drawn = {key: value for key, value in facts.items() if key not in ("then", "sha256_final")}
    alone = replace(case, facts={**case.facts, "inputs": [drawn]}).input("view2")
    share = np.float32(0.7)
    mixed: NDArray[np.float32] = share * case.input("view1") + share * alone
    assert hashlib.sha256(mixed.tobytes()).hexdigest() == facts["sha256_final"]
    return mixed


def regions_of(corners: Tensor) -> Tensor:
    """Top, bottom, left and right, of x1, y1, x2, y2 that are inside themselves."""
    left, top, right, bottom = corners.long().unbind(dim=-1)
    return torch.stack([top, bottom + 1, left, right + 1], dim=-1)


def _calls(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """What goes into a module and comes out, call by call, from now on."""
    calls: list[tuple[Tensor, Tensor]] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((inputs[0], output))

    module.register_forward_hook(note)
    return calls


def _statistics(case: Case, model: nn.Module) -> Tensor:
    state = model.state_dict()
    names = [name for name, *_ in case.facts["state_dict"] if name.rpartition(".")[2].startswith("running_")]
    return torch.cat([state[rename(name)][:2] for name in names])
