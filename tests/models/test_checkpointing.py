"""Computing activations again for the gradients changes neither loss nor gradients nor statistics."""

from __future__ import annotations

import pytest
import torch
from tests.models.samples import make_sample
from torch import Tensor, nn

from sits_models.backbones import build_backbone, list_backbones
from sits_models.backbones.base import Backbone
from sits_models.recipe import BackboneRecipe, TransformerRecipe, Variant

VARIANTS: tuple[Variant, ...] = ("paper", "fixed")
ALL = [(name, variant) for name in list_backbones() for variant in VARIANTS]
SIZE, DATES = 16, 8


def build(name: str, variant: Variant, *, checkpointing: bool) -> Backbone:
    """A narrow backbone in train mode whose dropout, where it has one, leaves out much."""
    torch.manual_seed(3)
    sizes = TransformerRecipe(dropout=0.3) if name.startswith("tsvit") else None
    recipe = BackboneRecipe(name=name, variant=variant, width=0.125, transformer=sizes)
    dates = 1 if name.startswith(("resnet", "deeplab")) else DATES
    backbone = build_backbone(recipe, bands=3, dates=dates, size=SIZE)
    for module in backbone.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.3
    backbone.checkpointing = checkpointing
    return backbone.train()


def step(backbone: Backbone) -> tuple[Tensor, dict[str, Tensor], int]:
    """The loss of a batch with padded dates, gradients and buffers by name, and values that wait for the gradients."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    dates = backbone.needs.dates or DATES
    sample = make_sample(batch=2, dates=dates, size=SIZE, padded=dates // 4)
    torch.manual_seed(7)  # of dropout
    # Those of a part that is computed again are no business of these hooks.
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = backbone(sample.image.float() / 5000 - 1, sample.valid, sample.day).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    gradients = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    return loss.detach(), {**gradients, **dict(backbone.named_buffers())}, sum(kept.values())


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_a_step_is_the_same_and_keeps_less(name: str, variant: Variant) -> None:
    loss, values, kept = step(build(name, variant, checkpointing=False))
    loss_again, values_again, kept_again = step(build(name, variant, checkpointing=True))
    assert torch.equal(loss, loss_again)
    assert values.keys() == values_again.keys()
    for key, value in values.items():
        torch.testing.assert_close(values_again[key], value, rtol=1e-6, atol=1e-7, msg=key)
    assert kept_again < kept


def test_nothing_is_computed_again_outside_of_training() -> None:
    backbone = build("utae", "paper", checkpointing=True).eval()
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    next(module for module in backbone.modules() if isinstance(module, nn.Conv2d)).register_forward_hook(count)
    sample = make_sample(dates=DATES, size=SIZE)
    backbone(sample.image.float(), sample.valid, sample.day).sum().backward()
    assert calls == 1
