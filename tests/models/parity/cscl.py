"""CSCL against the authors' code: similarities, targets, losses and gradients, of both ways that we compute them."""

from __future__ import annotations

import torch
from tests.models.parity.case import Case
from torch import Tensor

from sits_models.losses import pair_costs
from sits_models.objectives.cscl import ContextSimilarity, PairRule, Pairs, Window, pairs_in_windows, window_loss

_CONFIGURATION = {"in_channels", "attn_channels", "kernel_size", "stride", "dilation", "groups", "bias", "norm_emb"}


def check(case: Case) -> None:
    """Compare every output of a case; one that is not known fails."""
    rule = PairRule(positive_weight=float(case.facts["loss"]["pos_weight"]))
    pairs = _pairs(case)
    ours = _by_windows(case, pairs, rule)
    assert set(case.output_names) <= set(ours), f"unknown outputs: {set(case.output_names) - set(ours)}"
    for name in case.output_names:
        case.compare(name, ours[name])
    quick = _by_sweep(case, pairs, rule)
    for name in set(case.output_names) & set(quick):
        case.compare(name, quick[name])
    assert "loss" in quick


def _module(case: Case) -> ContextSimilarity:
    facts = case.configuration
    assert set(facts) <= _CONFIGURATION, f"unknown configuration: {set(facts) - _CONFIGURATION}"
    assert not facts.get("bias"), "our convolutions have no bias"
    module = ContextSimilarity(
        facts["in_channels"],
        channels=facts["attn_channels"],
        window=Window(size=facts["kernel_size"], stride=facts["stride"], dilation=facts["dilation"]),
        groups=facts["groups"],
        cosine=facts["norm_emb"],
        relative_position=True,
    )
    module.load_state_dict(case.weights())
    return module


def _embedding(case: Case) -> Tensor:
    return torch.from_numpy(case.input("e")).requires_grad_()


def _pairs(case: Case) -> Pairs:
    labels = torch.from_numpy(case.input("labels")).to(torch.int64)
    labels = labels.reshape(labels.shape[:3])
    return Pairs(identity=labels, counted=torch.ones_like(labels, dtype=torch.bool))


def _by_windows(case: Case, pairs: Pairs, rule: PairRule) -> dict[str, Tensor]:
    module, embedded = _module(case), _embedding(case)
    similarity = module(embedded)
    same, kept = pairs_in_windows(pairs, module.window, rule=rule)
    assert kept.all()
    costs = pair_costs(similarity, same, loss="contrast", positive_weight=rule.positive_weight)
    # The masked form drops every third element and divides by all of them.
    dropped = (torch.arange(costs.numel()) % 3 == 0).view_as(costs)
    outputs = {"similarity": similarity, "cscl_labels": same.to(torch.float32), "loss": costs.mean()}
    outputs["loss_masked"] = costs.masked_fill(dropped, 0).mean()
    return outputs | _gradients(outputs["loss"], module, embedded)


def _by_sweep(case: Case, pairs: Pairs, rule: PairRule) -> dict[str, Tensor]:
    module, embedded = _module(case), _embedding(case)
    loss, _ = window_loss(embedded, module, pairs, rule=rule)
    return {"loss": loss, **_gradients(loss, module, embedded)}


def _gradients(loss: Tensor, module: ContextSimilarity, embedded: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    by_embedding, *rest = torch.autograd.grad(loss, [embedded, *parameters])
    by_name = {f"grad_{name.replace('.', '_')}": gradient for name, gradient in zip(names, rest, strict=True)}
    return {"grad_e": by_embedding, **by_name}
