"""Seasonal contrast against SeCo's module: a training step without the optimizer, and the layout of checkpoints."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.models.parity.case import Case, _fill, _sha256
from tests.models.parity.deeplab import band_names, sample_of
from torch import Tensor, nn

from sits_models.backbones.resnet import ResNet18
from sits_models.encoder import Encoder
from sits_models.objectives.seco import KeyViews, SeasonalContrast
from sits_models.objectives.seco_checkpoint import objective_from_published, objective_to_published, published_layout
from sits_models.recipe import SeCoRecipe

OUR_OWN = {f"{encoder}.{name}" for encoder in ("encoder", "key_encoder") for name in ("mean", "std")}


@dataclass(frozen=True)
class SecoCase(Case):
    """A case whose weights hold a queue, and whose keys are made of its query."""

    def weights(self) -> dict[str, Tensor]:
        arrays = {
            name: _fill(name, tuple(shape), kind, self.facts["fill_rule"])
            for name, shape, kind in self.facts["state_dict"]
        }
        lengths = np.sqrt((arrays["queue"].astype(np.float64) ** 2).sum(1, keepdims=True))
        arrays["queue"] = (arrays["queue"] / lengths).astype(np.float32)
        assert _sha256(*arrays.values()) == self.facts["fill_sha256"], f"{self.name}: the weights are not those meant"
        arrays["queue_ptr"] = self.input("queue_ptr")  # not of the sum
        np.testing.assert_array_equal(arrays["queue"], self.input("queue"))
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _changed(self, values: NDArray[Any], then: str) -> NDArray[Any]:
        found = re.fullmatch(r"(k\d) := float32\(([\d.]+)\)\*q \+ float32\(([\d.]+)\)\*\1 in float32", then)
        assert found, f"{self.name}: nothing here knows this change of an input: {then}"
        return np.asarray(np.float32(found[2]) * self.input("q") + np.float32(found[3]) * values)


def check(case: Case) -> None:
    case = SecoCase(case.name, case.facts, case.arrays)
    assert case.configuration["base_encoder"] == "resnet18"
    if not case.output_names:
        _check_layout(case)
        return
    model, views = build(case), views_of(case)
    found: dict[str, Tensor] = {}
    apart = copy.deepcopy(model)
    apart.follow(momentum=apart.options.momentum)
    for i, contrast in enumerate(apart.contrasts(views)[1]):
        found[f"logits{i}"] = contrast.logits(apart.options.temperature)
    loss = model.loss(views)
    loss.value.backward()
    found |= {"loss": loss.value, "grad_q": _gradient(views.query.image)[:, 0]}
    after = objective_to_published(model.state_dict())
    found |= {"queue_after": after["queue"], "queue_ptr_after": after["queue_ptr"]}
    found |= {"key_conv1_after": after["encoder_k.0.weight"], "key_head0_first_bias_after": after["heads_k.0.0.bias"]}
    gradients = {name: _gradient(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad}
    found["grad_head0_last_bias"] = gradients["heads.0.2.bias"]
    found["grad_conv1"] = gradients["encoder.backbone.conv1.weight"]
    for side in "qk":
        for name in ("mean", "var"):
            found[f"bn1_running_{name}_{side}_after"] = after[f"encoder_{side}.1.running_{name}"]
    assert set(case.output_names) <= set(found)
    for name in case.output_names:
        case.compare(name, found[name])
        if name == "grad_q":
            case.compare_direction(name, found[name])
    _check_norms(case, model, gradients)


def build(case: Case) -> SeasonalContrast:
    """Our model with the reference's weights and queues; nothing may be left over or missing but our normalization."""
    configuration, bands = case.configuration, band_names(3)
    encoder = Encoder(ResNet18(3, dates=1), bands=bands, mean=[0.0] * 3, std=[1.0] * 3, magnification=1)
    options = SeCoRecipe(
        mode="seco",
        channels=configuration["emb_dim"],
        queue=configuration["num_negatives"],
        momentum=configuration["encoder_momentum"],
        temperature=configuration["softmax_temperature"],
    )
    assert configuration["emb_spaces"] == 3
    model = SeasonalContrast(encoder, options)
    assert sum(p.numel() for p in model.parameters()) == case.facts["n_parameters"]
    weights = case.weights()
    ours = objective_from_published(weights)
    report = model.load_state_dict(ours, strict=False)
    assert set(report.missing_keys) == OUR_OWN
    assert report.unexpected_keys == []
    back = objective_to_published(model.state_dict())
    assert list(back) == [name for name, *_ in case.facts["state_dict"]]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in back.items())
    model.train()
    if not case.in_train_mode:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    return model


def views_of(case: Case) -> KeyViews:
    query, *keys = (sample_of(torch.from_numpy(case.input(name))) for name in ("q", "k0", "k1", "k2"))
    query.image.requires_grad_()
    return KeyViews(query, tuple(keys))


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def _check_norms(case: Case, model: SeasonalContrast, gradients: dict[str, Tensor]) -> None:
    """Of the gradient of every parameter, within 1 %."""
    named = objective_to_published({**model.state_dict(), **gradients})
    for name, norm in case.facts["grad_norms"].items():
        found = float(named[name].norm())
        assert abs(found - norm) <= 0.01 * norm, f"{case.name}: the gradient of {name} has norm {found}, not {norm}"


def _check_layout(case: Case) -> None:
    """Names, order and shapes of a whole checkpoint, to our model of that size and back."""
    configuration = case.configuration
    sizes = {"channels": configuration["emb_dim"], "length": configuration["num_negatives"]}
    listed = {name: tuple(shape) for name, shape, _ in case.facts["state_dict"]}
    layout = published_layout(18, bands=3, spaces=configuration["emb_spaces"], **sizes)
    assert list(layout.items()) == list(listed.items())
    assert len(layout) == case.facts["n_entries"]
    zeros = partial(torch.zeros, dtype=torch.int64)
    state = {
        name: torch.zeros(shape) if kind.startswith("float") else zeros(shape)
        for name, shape, kind in case.facts["state_dict"]
    }
    with torch.device("meta"):
        encoder = Encoder(ResNet18(3, dates=1), bands=band_names(3), mean=[0.0] * 3, std=[1.0] * 3, magnification=1)
        model = SeasonalContrast(encoder, SeCoRecipe(channels=sizes["channels"], queue=sizes["length"]))
    ours = objective_from_published(state)
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    assert {name: (t.shape, t.dtype) for name, t in ours.items()} == {
        name: facts for name, facts in expected.items() if name not in OUR_OWN
    }
    assert {name: t.dtype for name, t in objective_to_published(ours).items()} == {
        name: getattr(torch, kind) for name, _, kind in case.facts["state_dict"]
    }
