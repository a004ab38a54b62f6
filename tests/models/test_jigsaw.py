from __future__ import annotations

import doctest
import math

import pytest
import torch
from tests.models.samples import make_sample

from sits_models.backbones import build_backbone
from sits_models.data.draws import Draws
from sits_models.encoder import Encoder
from sits_models.objectives import jigsaw
from sits_models.objectives.jigsaw import Jigsaw, Puzzle, draw_puzzle, orders_of_tiles
from sits_models.recipe import BackboneRecipe, JigsawRecipe
from sits_models.sample import IGNORE_INDEX, Sample

BANDS = ("B02", "B03", "B04")


def model_of(name: str, **options: float) -> Jigsaw:
    torch.manual_seed(0)
    dates = 1 if "resnet" in name else 4
    backbone = build_backbone(BackboneRecipe(name=name, width=0.0625), bands=3, dates=dates, size=8)
    encoder = Encoder(backbone, bands=BANDS, mean=[5000.0] * 3, std=[2900.0] * 3, magnification=1)
    return Jigsaw(encoder, options=JigsawRecipe(**options))  # type: ignore[arg-type]


def draws_of(chips: int, part: slice | None = None) -> Draws:
    return Draws(torch.Generator().manual_seed(3), slice(None) if part is None else part, chips)


def part_of(sample: Sample, chips: slice) -> Sample:
    return sample.take(torch.arange(len(sample.place))[chips])


def test_orders_are_permutations_that_lie_far_apart() -> None:
    orders = orders_of_tiles(1512)
    assert orders.sort(dim=1).values.eq(torch.arange(9)).all()
    differing = (orders[:, None] != orders).sum(dim=2)
    differing.fill_diagonal_(9)
    assert differing.min() == 6
    assert differing[:504, :504].min() == 7
    assert torch.equal(orders_of_tiles(1000), orders[:1000])
    with pytest.raises(ValueError, match="1512 orders of tiles differ in 6 places at least; got 1513"):
        orders_of_tiles(1513)


def test_tiles_are_cut_and_shuffled_as_drawn() -> None:
    model = model_of("resnet18", orders=7)
    sample = make_sample(batch=3, dates=1, bands=BANDS, size=20)
    puzzle = draw_puzzle(sample, JigsawRecipe(orders=7, gap=0.4), draws=draws_of(3))
    assert puzzle.side == 4  # of ninths of 6 px
    tiles = model.tiles(puzzle)
    assert tiles.image.shape == (27, 1, 3, 4, 4)
    assert tiles.image.dtype == torch.uint16
    assert (tiles.crop == IGNORE_INDEX).all()
    orders = orders_of_tiles(7)
    for chip in range(3):
        for place in range(9):
            tile = int(orders[puzzle.order[chip], place])
            row, column = puzzle.corner[chip, tile].tolist()
            assert 0 <= row - tile // 3 * 6 <= 2
            assert 0 <= column - tile % 3 * 6 <= 2
            shown, cut = 9 * chip + place, (slice(row, row + 4), slice(column, column + 4))
            for name in ("image", "clear"):
                assert torch.equal(getattr(tiles, name)[shown], getattr(sample, name)[chip][..., *cut])
            assert tiles.day[shown] == sample.day[chip]


def test_a_part_of_a_batch_is_shuffled_as_in_the_whole() -> None:
    sample = make_sample(batch=4, dates=1, bands=BANDS, size=20)
    whole = draw_puzzle(sample, JigsawRecipe(), draws=draws_of(4))
    part = draw_puzzle(part_of(sample, slice(2, 4)), JigsawRecipe(), draws=draws_of(4, slice(2, 4)))
    assert torch.equal(part.order, whole.order[2:])
    assert torch.equal(part.corner, whole.corner[2:])


def test_logits_see_the_tiles_in_their_new_places_alone() -> None:
    model = model_of("resnet18", orders=9).eval()
    sample = make_sample(batch=2, dates=1, bands=BANDS, size=24)
    puzzle = draw_puzzle(sample, JigsawRecipe(orders=9, gap=0), draws=draws_of(2))
    # The same, shuffled by hand and then in the order 0, which is none.
    tiles = model.tiles(puzzle).image.view(torch.int16).reshape(2, 3, 3, 1, 3, 8, 8)
    by_hand = tiles.permute(0, 3, 4, 1, 5, 2, 6).reshape(2, 1, 3, 24, 24).contiguous().view(torch.uint16)
    plain = Puzzle(
        sample=sample.replace(image=by_hand), order=torch.zeros(2, dtype=torch.int64), corner=puzzle.corner, side=8
    )
    with torch.no_grad():
        torch.testing.assert_close(model(plain), model(puzzle))


@pytest.mark.parametrize("name", ["deeplab_resnet18", "resnet18", "unet2d_clstm"])
def test_all_learns_and_the_loss_starts_near_that_of_chance(name: str) -> None:
    model = model_of(name, orders=1000 if name == "resnet18" else 20)
    orders = model.orders.shape[0]
    sample = make_sample(batch=2, dates=1 if "resnet" in name else 4, bands=BANDS, size=24)
    loss = model.loss(draw_puzzle(sample, JigsawRecipe(orders=orders, gap=0), draws=draws_of(2)))
    assert loss.count.item() == 2.0
    assert loss.value.item() == pytest.approx(math.log(orders), abs=1.0)
    assert "orders" not in model.state_dict()
    loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


def test_a_batch_of_puzzles_can_be_learnt() -> None:
    model = model_of("resnet18", orders=4)
    sample = make_sample(batch=4, dates=1, bands=BANDS, size=24)
    puzzle = draw_puzzle(sample, JigsawRecipe(orders=4, gap=0), draws=draws_of(4))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(15):
        loss = model.loss(puzzle)
        optimizer.zero_grad()
        loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    assert loss.monitors["accuracy"].item() == 1.0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="orders of tiles are 2 to 1512; got 1"):
        JigsawRecipe(orders=1)
    with pytest.raises(ValueError, match="from 0 to below 1; got 1"):
        JigsawRecipe(gap=1.0)
    with pytest.raises(ValueError, match="chips of 2 x 2 px cannot be cut into nine tiles"):
        draw_puzzle(make_sample(size=2), JigsawRecipe(), draws=draws_of(2))
    with pytest.raises(ValueError, match="of a batch of 3 chips was announced; got 2 chips"):
        draw_puzzle(make_sample(), JigsawRecipe(), draws=draws_of(3))


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(jigsaw).failed == 0
