"""What each objective sees of a batch: dates, geometry and colours, told by values that say where they come from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.pretraining import BATCH, DATES, METHODS, SIZE, objective_of, recipe_of, series
from tests.models.samples import make_sample
from torch import Tensor

from sits_models.data.draws import Draws
from sits_models.objectives.embedding_earth import MatchedViews
from sits_models.objectives.glcnet import RegionViews
from sits_models.objectives.inpainting import HiddenBlocks
from sits_models.objectives.jigsaw import Puzzle
from sits_models.objectives.seco import KeyViews
from sits_models.objectives.simclr import ChipViews
from sits_models.recipe import Augmentation, DateSubset, Geometry, Photometry, Recipe
from sits_models.sample import Sample

COLOURED = Photometry(gain=0.3)
"""A factor a band, which leaves no value as it is."""


def clear_series() -> Sample:
    """Of each date one value in all pixels and bands, 1000 times its number from 1; all of it is clear."""
    sample = make_sample(batch=BATCH, dates=DATES, bands=("B02", "B03", "B04", "B08"), size=SIZE)
    values = 1000 * (1 + torch.arange(DATES)).view(1, DATES, 1, 1, 1).expand(sample.image.shape)
    number = torch.arange(DATES, dtype=torch.int32).expand(BATCH, DATES).contiguous()
    place = torch.arange(BATCH)[:, None].expand(BATCH, 3).contiguous()
    return sample.replace(image=values.to(torch.uint16), day=number, clear=torch.ones_like(sample.clear), place=place)


def numbered(sample: Sample) -> Sample:
    """Of each pixel its number, from 1, in all bands and on all dates."""
    pixels = torch.arange(1, SIZE**2 + 1).view(1, 1, 1, SIZE, SIZE)
    return sample.replace(image=pixels.expand(sample.image.shape).to(torch.uint16))


def coloured(recipe: Recipe, **changes: object) -> Recipe:
    section = replace(getattr(recipe, recipe.objective), **changes)
    return replace(recipe, **{recipe.objective: section})


def views_of(recipe: Recipe, sample: Sample, *, seed: int = 0) -> Any:
    draws = Draws.of(torch.Generator().manual_seed(seed), chips=len(sample.place))
    return objective_of(recipe, frozen=False).views(sample, Augmentation(), draws)


def date_of(view: Sample) -> list[int]:
    """The date of each chip, of which there is one."""
    assert view.image.shape[1] == 1
    return view.day[:, 0].tolist()


def is_coloured(view: Sample) -> bool:
    """Whether values are others than those of their dates; either all chips are so, or none."""
    stored = 1000.0 * (1 + view.day.float())[:, :, None, None, None]
    same = ((view.image - stored).abs() < 0.01).flatten(1).all(dim=1)
    assert bool(same.all()) or not bool(same.any())
    return not bool(same.any())


# --- SeCo -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_seco_holds_a_date_to_another_in_other_colours_to_another_and_to_itself_in_other_colours(seed: int) -> None:
    views = views_of(coloured(recipe_of("seco"), photometry=COLOURED), clear_series(), seed=seed)
    assert isinstance(views, KeyViews)
    t0, (k0, k1, k2) = date_of(views.query), [date_of(key) for key in views.keys]
    assert k2 == t0
    assert all(len({a, b, c}) == 3 for a, b, c in zip(t0, k0, k1, strict=True))
    assert [is_coloured(view) for view in (views.query, *views.keys)] == [False, True, False, True]
    assert views.deal.shape == (BATCH,)
    assert len(set(views.deal.tolist())) == BATCH


@pytest.mark.parametrize(("name", "dates"), [("seco-moco", 1), ("seco-moco_tp", 2)])
def test_moco_sees_one_date_or_two_both_in_other_colours(name: str, dates: int) -> None:
    views = views_of(coloured(recipe_of(name), photometry=COLOURED), clear_series())
    (key,) = views.keys
    for one, other in zip(date_of(views.query), date_of(key), strict=True):
        assert len({one, other}) == dates
    assert is_coloured(views.query)
    assert is_coloured(key)
    assert not torch.equal(views.query.image, key.image)


def test_seco_flips_what_it_colours_alone() -> None:
    ramp = numbered(clear_series())
    still = Geometry(sides=(SIZE,), flips=(0.0, 0.0, 0.0), turns=0.0)
    recipe = coloured(recipe_of("seco"), geometry=still, flips=(1.0, 0.0, 0.0), photometry=Photometry())
    views = views_of(recipe, ramp)
    whole = ramp.image[:, :1].float()
    assert torch.equal(views.query.image, whole)
    assert torch.equal(views.keys[1].image, whole)
    assert torch.equal(views.keys[0].image, whole.flip(-1))
    assert torch.equal(views.keys[2].image, whole.flip(-1))


@pytest.mark.parametrize(("name", "least"), [("seco", 3), ("seco-moco", 1), ("seco-moco_tp", 2), ("simclr", 1)])
def test_chips_with_too_few_clear_dates_are_left_out(name: str, least: int) -> None:
    sample = clear_series()
    clear = sample.clear.clone()
    for chip in range(BATCH):  # chip k has k clear dates
        clear[chip, chip:] = False
    views = views_of(recipe_of(name), sample.replace(clear=clear))
    query = views.first if isinstance(views, ChipViews) else views.query
    assert query.place[:, 0].tolist() == list(range(least, BATCH))
    assert (query.day[:, 0] < query.place[:, 0]).all()  # one of the clear ones


# --- GLCNet, SimCLR, inpainting, jigsaw -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["glcnet", "simclr"])
def test_two_views_of_one_date_the_second_in_other_colours(name: str) -> None:
    views = views_of(coloured(recipe_of(name), photometry=COLOURED), clear_series())
    assert date_of(views.first) == date_of(views.second)
    assert (is_coloured(views.first), is_coloured(views.second)) == (False, True)
    assert len(set(date_of(views.first))) > 1  # each chip its own


@given(seed=st.integers(0, 10_000), side=st.sampled_from([7, 12]))
@settings(max_examples=15)
def test_regions_of_both_views_have_the_same_ground_in_their_middle(seed: int, side: int) -> None:
    nearest = Geometry(sides=(40,), scale=(0.4, 1.0), interpolation="nearest")
    recipe = coloured(recipe_of("glcnet"), region=side, first=nearest, second=nearest, photometry=Photometry())
    views = views_of(recipe, numbered(clear_series()), seed=seed)
    assert isinstance(views, RegionViews)
    assert views.counted.any()
    centres = []
    for sample, regions in ((views.first, views.first_regions), (views.second, views.second_regions)):
        chip = torch.arange(BATCH)[:, None]
        rows, columns = regions[..., 0] + side // 2, regions[..., 2] + side // 2
        centres.append(sample.image[chip, 0, 0, rows, columns][views.counted])
    assert torch.equal(*centres)


def test_inpainting_and_jigsaw_see_one_date_as_it_is() -> None:
    hidden = views_of(recipe_of("inpainting"), clear_series())
    assert isinstance(hidden, HiddenBlocks)
    assert not is_coloured(hidden.sample)
    assert hidden.hidden.flatten(1).sum(dim=1).tolist() == pytest.approx([3 * 64] * BATCH, abs=2 * 64)
    puzzle = views_of(recipe_of("jigsaw"), clear_series())
    assert isinstance(puzzle, Puzzle)
    assert not is_coloured(puzzle.sample)
    assert recipe_of("jigsaw").sides == (puzzle.side,)


# --- Embedding Earth --------------------------------------------------------------------------------------------------


def pixels_of(sample: Sample, pixels: Tensor) -> Tensor:
    """(B, T, n): what lies in the first band of pixels (B, n)."""
    flat = sample.image[:, :, 0].flatten(2)
    return flat.gather(2, pixels[:, None].expand(-1, flat.shape[1], -1))


@given(
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([None, (0.3, 1.0)]),
    apart=st.sampled_from([0, 3]),
    sides=st.sampled_from([(16,), (16, 24)]),
)
@settings(max_examples=15)
def test_pairs_of_embedding_earth_show_the_same_ground(
    seed: int, scale: tuple[float, float] | None, apart: int, sides: tuple[int, ...]
) -> None:
    geometry = Geometry(sides=sides, scale=scale, interpolation="nearest")
    recipe = coloured(recipe_of("earth"), geometry=geometry, apart=apart, photometry=Photometry())
    views = views_of(recipe, numbered(clear_series()), seed=seed)
    assert isinstance(views, MatchedViews)
    number = 1 + views.ground[..., 0] * SIZE + views.ground[..., 1]
    for sample, pixels in ((views.first, views.first_pixel), (views.second, views.second_pixel)):
        found = pixels_of(sample, pixels)
        wanted = number[:, None].expand_as(found).float()
        there = views.counted[:, None].expand_as(found) & sample.valid[:, :, None]
        assert torch.equal(found[there], wanted[there])
    for chip in range(BATCH):
        ground = views.ground[chip][views.counted[chip]].double()
        assert (torch.pdist(ground) >= max(1, apart)).all()


def test_both_views_of_embedding_earth_have_dates_geometry_and_values_of_their_own() -> None:
    recipe = coloured(recipe_of("earth"), photometry=COLOURED, dates=DateSubset(most=4))
    views = views_of(recipe, clear_series())
    assert views.first.image.shape[1] == views.second.image.shape[1] == 4
    assert not torch.equal(views.first.day, views.second.day)
    assert bool((views.first.day[:, 1:] > views.first.day[:, :-1]).all())
    assert is_coloured(views.first)
    assert is_coloured(views.second)


# --- Nothing left -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*METHODS, "seco-moco"])
def test_where_nothing_is_left_the_loss_and_its_gradients_are_0_and_no_queue_changes(name: str) -> None:
    sample = series(0)
    none = torch.zeros_like(sample.valid) if name == "earth" else sample.valid
    clouded = sample.replace(clear=torch.zeros_like(sample.clear), valid=none, image=_hidden(sample, name))
    objective = objective_of(recipe_of(name), frozen=False)
    before = {key: tensor.clone() for key, tensor in objective.state_dict().items()}
    draws = Draws.of(torch.Generator().manual_seed(0), chips=BATCH)
    loss = objective.loss(objective.views(clouded, Augmentation(), draws))
    loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert loss.value.item() == loss.count.item() == 0.0
    assert all(not found.requires_grad and found.item() == 0.0 for found in loss.monitors.values())
    assert not any(weight.grad.any() for weight in objective.parameters() if weight.grad is not None)
    for key, tensor in objective.state_dict().items():
        if "queues." in key or (name != "earth" and "running_" in key):
            assert torch.equal(tensor, before[key]), key
        assert tensor.isfinite().all(), key


def _hidden(sample: Sample, name: str) -> Tensor:
    return torch.zeros_like(sample.image) if name == "earth" else sample.image
