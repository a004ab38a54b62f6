"""On a CUDA machine: a step of a pretraining without labels is that of the processor, and finite in half precision."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.models.pretraining import BATCH, objective_of, recipe_of, series
from torch.nn import functional

from sits_models.data.draws import Draws
from sits_models.objectives import Objective
from sits_models.objectives.base import Loss
from sits_models.recipe import Augmentation

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="this machine has no CUDA device; these tests compare one with the processor"
)
CASES = ("earth", "earth-shared", "glcnet", "simclr", "inpainting", "jigsaw", "seco")


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """Convolutions without TF32, whose products have 10 bits; of matrices it is off by itself."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def step(objective: Objective[Any], number: int, *, device: str, half: bool = False) -> Loss:
    """Views, loss and gradients of a batch, of which clouds leave all, two chips or one by its number."""
    draws = Draws.of(torch.Generator().manual_seed(number), chips=BATCH)
    views = objective.views(series(number).to(device), Augmentation(), draws)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
        loss = objective.loss(views)
    loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return loss


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_step_is_that_of_the_processor(name: str, number: int) -> None:
    here = objective_of(recipe_of(name))
    there = copy.deepcopy(here).cuda()
    ours, theirs = step(here, number, device="cpu"), step(there, number, device="cuda")
    assert theirs.value.item() == pytest.approx(ours.value.item(), rel=1e-3, abs=1e-5)
    assert theirs.count.item() == ours.count.item()
    for (key, one), other in zip(here.named_parameters(), there.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), key
        if one.grad is not None and other.grad is not None and one.grad.norm() > 1e-4:
            cosine = functional.cosine_similarity(one.grad.flatten(), other.grad.cpu().flatten(), dim=0)
            assert cosine > 0.999, key


@pytest.mark.parametrize("name", CASES)
def test_half_precision_gives_finite_losses_and_gradients(name: str) -> None:
    objective = objective_of(recipe_of(name), frozen=False).cuda()
    for number in range(3):
        loss = step(objective, number, device="cuda", half=True)
        assert math.isfinite(loss.value.item())
    assert all(weight.grad.isfinite().all() for weight in objective.parameters() if weight.grad is not None)
    assert all(buffer.isfinite().all() for buffer in objective.buffers())
