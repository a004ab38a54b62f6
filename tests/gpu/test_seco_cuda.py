"""On a CUDA machine: a step of SeCo is that of the processor, and its queues never wait for the device."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from tests.models.samples import make_sample
from torch.nn import functional

from sits_models.backbones.resnet import ResNet18
from sits_models.encoder import Encoder
from sits_models.objectives.info_nce import Contrast, info_nce
from sits_models.objectives.queues import Queue
from sits_models.objectives.seco import KeyViews, SeasonalContrast
from sits_models.recipe import SeCoRecipe

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="this machine has no CUDA device; these tests compare one with the processor"
)


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """Convolutions without TF32, whose products have 10 bits; of matrices it is off by itself."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def test_a_step_is_that_of_the_processor() -> None:
    torch.manual_seed(0)
    bands = ("B04", "B03", "B02")
    backbone = ResNet18(3, dates=1, width=0.25)
    encoder = Encoder(backbone, bands=bands, mean=[5000.0] * 3, std=[2900.0] * 3, magnification=1)
    here = SeasonalContrast(encoder, SeCoRecipe(channels=16, queue=50))
    there = copy.deepcopy(here).cuda()
    drawn = [make_sample(batch=6, dates=1, bands=bands, size=64, seed=seed) for seed in range(4)]
    losses = []
    for objective, device in ((here, "cpu"), (there, "cuda")):
        views = [sample.to(device) for sample in drawn]
        loss = objective.loss(KeyViews(views[0], tuple(views[1:])))
        loss.value.backward()
        losses.append(loss.value.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for ours, theirs in zip(here.queues, there.queues, strict=True):
        torch.testing.assert_close(theirs.keys.cpu(), ours.keys, rtol=1e-3, atol=1e-4)
        assert int(theirs.pointer) == 6
    for (name, one), other in zip(here.named_parameters(), there.parameters(), strict=True):
        if one.grad is not None:
            cosine = functional.cosine_similarity(one.grad.flatten(), other.grad.cpu().flatten(), dim=0)
            assert cosine > 0.999, name


def test_queue_and_loss_do_not_wait_for_the_device() -> None:
    queue = Queue(37, channels=8).cuda()
    query = functional.normalize(torch.randn(10, 8, device="cuda"), dim=1).requires_grad_()
    keys = query.detach().clone()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            loss, _ = info_nce(Contrast(query, keys, (queue.keys, keys)), temperature=0.07)
            loss.backward()
            queue.enqueue(keys)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert (int(queue.pointer), int(queue.filled)) == (50 % 37, 37)
