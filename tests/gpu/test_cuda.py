"""On a CUDA machine: every model gives there what it gives on the processor, from samples as the cube stores them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from sits_models.backbones import backbone_class, list_backbones
from sits_models.backbones.trunk import SingleDate
from sits_models.objectives import Objective, build_objective
from sits_models.recipe import (
    BackboneRecipe,
    ClassificationRecipe,
    ContrastRecipe,
    DataRecipe,
    Recipe,
    SegmentationRecipe,
)
from sits_models.sample import IGNORE_INDEX, Sample

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="this machine has no CUDA device; these tests compare one with the processor"
)

BANDS, CLASSES, DATES, SIZE = ("B02", "B04", "B08"), 4, 8, 48
Variant = Literal["paper", "fixed"]
each_backbone = pytest.mark.parametrize("backbone", list_backbones())
each_dense_backbone = pytest.mark.parametrize(
    "backbone", [name for name in list_backbones() if backbone_class(name).stride == 1]
)
each_variant = pytest.mark.parametrize("variant", ["paper", "fixed"])


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """Convolutions without TF32, whose products have 10 bits; of matrices it is off by itself."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def dates_of(backbone: str) -> int:
    return 1 if issubclass(backbone_class(backbone), SingleDate) else DATES


def sample(dates: int = DATES) -> Sample:
    """Two chips as a cube stores them: uint16, 0 where nothing was observed, the second with padded dates."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 10000, (2, dates, len(BANDS), SIZE, SIZE), generator=generator)
    image[:, :, :, :3, :3] = 0
    valid = torch.ones(2, dates, dtype=torch.bool)
    valid[1, dates - dates // 4 :] = False
    crop = torch.randint(0, CLASSES, (2, SIZE // 8, SIZE // 8), generator=generator).repeat_interleave(8, 1)
    crop = crop.repeat_interleave(8, 2)
    crop[:, 0] = IGNORE_INDEX
    return Sample(
        image=image.to(torch.uint16),
        valid=valid,
        day=(18536 + 10 * torch.arange(dates, dtype=torch.int32)).expand(2, dates).contiguous(),
        clear=(image > 0).all(2),
        crop=crop,
        counted=torch.ones_like(crop, dtype=torch.bool),
        parcel=crop + 2,
        boundary=torch.full((2, SIZE, SIZE), 100, dtype=torch.int16),
        place=torch.zeros(2, 3, dtype=torch.int64),
        bands=BANDS,
    )


def objective(backbone: str, variant: Variant, *, contrast: bool) -> Objective:
    """The model of a recipe at a quarter of the width, its weights always the same."""
    torch.manual_seed(0)
    of_chips = backbone_class(backbone).stride == 0
    recipe = Recipe(
        name="gpu",
        data=DataRecipe(size=SIZE),
        backbone=BackboneRecipe(name=backbone, width=0.25, variant=variant),
        contrast=ContrastRecipe() if contrast else None,
        segmentation=None if contrast or of_chips else SegmentationRecipe(),
        classification=ClassificationRecipe() if of_chips else None,
    )
    built = build_objective(
        recipe,
        bands=BANDS,
        dates=dates_of(backbone),
        classes=CLASSES,
        mean=[5000.0] * len(BANDS),
        std=[2900.0] * len(BANDS),
    )
    for module in built.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return built


def loss_and_gradients(model: Objective, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
    value = model.loss(batch).value
    value.backward()
    gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    return value.detach().cpu(), gradients


def assert_same_direction(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Gradients of all parameters as one vector: the same length within 1 % and the same direction."""
    assert ours.keys() == theirs.keys()
    a = torch.cat([ours[name].double().flatten() for name in ours])
    b = torch.cat([theirs[name].double().flatten() for name in ours])
    assert float(a @ b / (a.norm() * b.norm())) > 0.999
    assert float(a.norm() / b.norm()) == pytest.approx(1.0, abs=0.01)


@each_variant
@each_backbone
def test_the_embedding_is_that_of_the_processor(backbone: str, variant: Variant) -> None:
    model, batch = objective(backbone, variant, contrast=False).eval(), sample(dates_of(backbone))
    with torch.no_grad():
        expected = model.encoder(batch)
        found = model.cuda().encoder(batch.to("cuda"))
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


@each_variant
@each_backbone
def test_a_training_step_is_that_of_the_processor(backbone: str, variant: Variant) -> None:
    here, there = (objective(backbone, variant, contrast=False).train() for _ in range(2))
    batch = sample(dates_of(backbone))
    expected, gradients = loss_and_gradients(here, batch)
    found, gradients_there = loss_and_gradients(there.cuda(), batch.to("cuda"))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert_same_direction(gradients_there, gradients)


@each_variant
@each_dense_backbone
def test_the_contrast_is_that_of_the_processor(backbone: str, variant: Variant) -> None:
    here, there = (objective(backbone, variant, contrast=True).train() for _ in range(2))
    expected, gradients = loss_and_gradients(here, sample())
    found, gradients_there = loss_and_gradients(there.cuda(), sample().to("cuda"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert_same_direction(gradients_there, gradients)


@pytest.mark.parametrize("contrast", [False, True])
@each_variant
@each_backbone
def test_bfloat16_trains(backbone: str, variant: Variant, contrast: bool) -> None:
    if contrast and backbone_class(backbone).stride != 1:
        pytest.skip("a contrast of pixels needs an embedding of each")
    model = objective(backbone, variant, contrast=contrast).train().cuda()
    batch = sample(dates_of(backbone)).to("cuda")
    with torch.no_grad():
        whole = model.loss(batch).value
    with torch.autocast("cuda", torch.bfloat16):
        value = model.loss(batch).value
    value.backward()
    torch.testing.assert_close(value.detach().float(), whole, atol=0.1, rtol=0)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@each_variant
@each_backbone
def test_bfloat16_sees_the_same_classes(backbone: str, variant: Variant) -> None:
    model, batch = objective(backbone, variant, contrast=False).cuda(), sample(dates_of(backbone)).to("cuda")
    learn(model, batch, steps=20)
    model.eval()
    with torch.no_grad():
        exact = model(batch)
        with torch.autocast("cuda", torch.bfloat16):
            rough = model(batch)
    a, b = exact.double().flatten(), rough.double().flatten()
    assert float(a @ b / (a.norm() * b.norm())) > 0.99
    assert float((exact.argmax(1) == rough.argmax(1)).double().mean()) > 0.85


def learn(model: Objective, batch: Sample, *, steps: int) -> None:
    """Steps of a training that tell the classes of one batch apart, so that a class is no toss-up."""
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(batch).value.backward()
        optimizer.step()


@each_variant
@each_backbone
def test_checkpointing_changes_no_step(backbone: str, variant: Variant) -> None:
    kept, again = (objective(backbone, variant, contrast=False).train().cuda() for _ in range(2))
    again.encoder.backbone.checkpointing = True
    batch = sample(dates_of(backbone)).to("cuda")
    expected, gradients = loss_and_gradients(kept, batch)
    found, gradients_again = loss_and_gradients(again, batch)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert_same_direction(gradients_again, gradients)
    for name, buffer in kept.named_buffers():
        torch.testing.assert_close(again.get_buffer(name), buffer, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("backbone", ["unet3df", "unet2d_clstm", "utae", "tsvit"])
def test_checkpointing_takes_less_memory(backbone: str) -> None:
    batch = sample(dates_of(backbone)).to("cuda")
    peaks = []
    for checkpointing in (False, True):
        model = objective(backbone, "paper", contrast=False).train().cuda()
        model.encoder.backbone.checkpointing = checkpointing
        model.loss(batch).value.backward()  # libraries take memory of their own
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        model.loss(batch).value.backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        del model
    assert peaks[1] < 0.8 * peaks[0]


def test_stored_samples_cross_unchanged_and_are_normalised_there() -> None:
    model, batch = objective("utae", "fixed", contrast=False), sample()
    expected = model.encoder.normalize(batch.image)
    crossed = batch.pin_memory().to("cuda", non_blocking=True)
    assert crossed.image.dtype == torch.uint16
    assert torch.equal(crossed.image.cpu().to(torch.int32), batch.image.to(torch.int32))
    found = model.cuda().encoder.normalize(crossed.image)
    assert found.is_cuda
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu(), expected, atol=1e-6, rtol=1e-6)
    assert (found[:, :, :, :3, :3] == 0).all()
