"""NT-Xent of two views against GLCNet's code, whose denominator leaves the positive out: value and gradients."""

from __future__ import annotations

import torch
from tests.models.parity.case import Case

from sits_models.objectives.nt_xent import two_views


def check(case: Case) -> None:
    assert case.configuration["cos_sim"]
    views = {name: torch.from_numpy(case.input(name)).requires_grad_() for name in ("zi", "zj")}
    loss = two_views(*views.values(), temperature=case.configuration["tau"], decoupled=True)
    gradients = torch.autograd.grad(loss, list(views.values()))
    found = {"loss": loss, **{f"grad_{name}": value for name, value in zip(views, gradients, strict=True)}}
    assert set(found) == set(case.output_names)
    for name, value in found.items():
        case.compare(name, value)
