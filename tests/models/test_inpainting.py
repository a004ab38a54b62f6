from __future__ import annotations

import pytest
import torch
from tests.models.samples import make_sample

from sits_models.backbones import build_backbone
from sits_models.data.draws import Draws
from sits_models.encoder import Encoder
from sits_models.objectives.inpainting import HiddenBlocks, Inpainting, hide_blocks
from sits_models.recipe import BackboneRecipe, InpaintingRecipe
from sits_models.sample import Sample

BANDS = ("B02", "B03", "B04")


def model_of(name: str = "deeplab_resnet18", **options: float) -> Inpainting:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneRecipe(name=name, width=0.0625), bands=3, dates=1, size=30)
    encoder = Encoder(backbone, bands=BANDS, mean=[5000.0] * 3, std=[2900.0] * 3, magnification=1)
    return Inpainting(encoder, options=InpaintingRecipe(**options))  # type: ignore[arg-type]


def sample_of(*, batch: int = 3, size: int = 32) -> Sample:
    return make_sample(batch=batch, dates=1, bands=BANDS, size=size)


def draws_of(chips: int, part: slice | None = None) -> Draws:
    return Draws(torch.Generator().manual_seed(3), slice(None) if part is None else part, chips)


def test_blocks_lie_inside_and_hide_squares() -> None:
    options = InpaintingRecipe(blocks=1, side=5)
    hidden = hide_blocks(sample_of(batch=40, size=8), options, draws=draws_of(40)).hidden
    assert hidden.sum(dim=(1, 2)).tolist() == [25] * 40
    places = {tuple(chip.nonzero()[0].tolist()) for chip in hidden}
    assert {place[0] for place in places} == {place[1] for place in places} == {0, 1, 2, 3}
    for chip in hidden:
        row, column = chip.nonzero()[0].tolist()
        assert chip[row : row + 5, column : column + 5].all()
    whole = hide_blocks(sample_of(size=16), InpaintingRecipe(), draws=draws_of(3)).hidden
    assert whole.all()


def test_a_part_of_a_batch_is_hidden_as_in_the_whole() -> None:
    sample = sample_of(batch=4)
    whole = hide_blocks(sample, InpaintingRecipe(side=4), draws=draws_of(4)).hidden
    last = sample.take(torch.arange(2, 4))
    part = hide_blocks(last, InpaintingRecipe(side=4), draws=draws_of(4, slice(2, 4))).hidden
    assert torch.equal(part, whole[2:])


def test_the_loss_is_that_of_loops_over_observed_values() -> None:
    model = model_of(weight=0.9).eval()
    views = hide_blocks(sample_of(), InpaintingRecipe(blocks=3, side=7), draws=draws_of(3))
    image = views.sample.image[:, 0].to(torch.float32)
    seen = torch.where(views.hidden[:, None], 0.0, image)
    with torch.no_grad():
        filled = model.filled(views.sample.replace(image=seen[:, None]))
        loss = model.loss(views)
    assert filled.shape == (3, 3, 32, 32)
    total = 0.0
    for chip in range(3):
        for inside, weight in ((True, 0.9), (False, 0.1)):
            counted = (views.hidden[chip] == inside) & (image[chip] != 0)
            errors = (filled[chip] - (image[chip] - 5000) / 2900)[counted].square()
            total += weight * errors.mean().item() / 3
    assert loss.value.item() == pytest.approx(total, rel=1e-5)
    assert loss.count.item() == 3.0
    expected = 0.9 * loss.monitors["error_hidden"] + 0.1 * loss.monitors["error_seen"]
    torch.testing.assert_close(loss.value, expected)


def test_what_is_hidden_is_not_seen() -> None:
    model = model_of().eval()
    views = hide_blocks(sample_of(), InpaintingRecipe(side=8), draws=draws_of(3))
    changed = views.sample.image.to(torch.int32)
    changed = torch.where(views.hidden[:, None, None] & (changed > 0), 7, changed).to(torch.uint16)
    other = HiddenBlocks(views.sample.replace(image=changed), views.hidden)
    with torch.no_grad():
        one, two = model.loss(views), model.loss(other)
    assert one.monitors["error_seen"] == two.monitors["error_seen"]
    assert one.monitors["error_hidden"] != two.monitors["error_hidden"]


def test_everything_learns_and_errors_of_a_batch_fall() -> None:
    model = model_of("deeplab_resnet18")
    views = hide_blocks(sample_of(), InpaintingRecipe(blocks=2, side=8), draws=draws_of(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    values = []
    for _ in range(6):
        loss = model.loss(views).value
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0]


def test_a_chip_without_an_observation_costs_nothing() -> None:
    sample = sample_of(batch=2)
    empty = HiddenBlocks(sample.replace(image=torch.zeros_like(sample.image)), torch.ones(2, 32, 32, dtype=torch.bool))
    assert model_of().loss(empty).value.item() == 0.0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fills in single dates; got 2: set data\.dates={pick: random, n: 1}"):
        model_of().loss(HiddenBlocks(make_sample(bands=BANDS, dates=2), torch.zeros(2, 16, 16, dtype=torch.bool)))
    with pytest.raises(ValueError, match=r"a block of 16 px does not fit into chips of 8 x 8 px: set data\.size=16"):
        hide_blocks(sample_of(size=8), InpaintingRecipe(), draws=draws_of(3))
    with pytest.raises(ValueError, match="of a batch of 2 chips was announced; got 3 chips"):
        hide_blocks(sample_of(), InpaintingRecipe(), draws=draws_of(2))
    with pytest.raises(ValueError, match=r"mask of the pixels, \(3, 32, 32\); got \(3, 32\)"):
        HiddenBlocks(sample_of(), torch.zeros(3, 32, dtype=torch.bool))
    with pytest.raises(
        ValueError, match="an inpainting needs an embedding map; TSViTParcel gives one embedding a chip"
    ):
        model_of("tsvit_parcel")
    with pytest.raises(ValueError, match="at least 1 block of at least 1 px is hidden; got 0 of 16 px"):
        InpaintingRecipe(blocks=0)
    with pytest.raises(ValueError, match="the weight of what is hidden lies from 0 to 1; got 2"):
        InpaintingRecipe(weight=2.0)
