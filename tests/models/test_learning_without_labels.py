"""Each pretraining without labels learns, on chips made up here: its loss falls, its embeddings spread, and a linear
probe on a few labelled chips tells more than on an encoder whose weights are drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.models.pretraining import BANDS, recipe_of
from torch import Tensor
from torch.nn import functional

from sits_models.data.dates import take_dates
from sits_models.data.draws import Draws
from sits_models.objectives import Objective, build_objective
from sits_models.objectives.chip_embeddings import embed_chips
from sits_models.objectives.collapse import effective_rank
from sits_models.recipe import Augmentation, BackboneRecipe, DateSubset, Geometry, Jitter, Photometry, Recipe
from sits_models.sample import IGNORE_INDEX, Sample

DATES, SIZE, CLASSES = 4, 32, 6


def chips_of(number: int, *, seed: int) -> tuple[Sample, Tensor]:
    """Chips of one crop each, and which: it decides how four bands compare; how bright it is, everywhere and on each
    date, and a slope across the chip, say nothing about it."""
    draw = torch.Generator().manual_seed(seed)
    crop = torch.randint(0, CLASSES, (number,), generator=draw)
    angle = 2 * math.pi * crop / CLASSES
    ratios = torch.stack(
        [1 + 0.25 * angle.cos(), 1 + 0.25 * angle.sin(), 1 - 0.25 * angle.cos(), torch.ones(number)], 1
    )
    bright = 700 * (4 ** torch.rand(number, DATES, generator=draw))
    slope = torch.linspace(-0.5, 0.5, SIZE) * torch.randn(number, 1, generator=draw)
    texture = 1 + 0.1 * torch.randn(number, DATES, len(BANDS), SIZE, SIZE, generator=draw)
    image = bright[:, :, None, None, None] * ratios[:, None, :, None, None] * texture
    image = image * (1 + slope[:, None, None, None, :]).clamp(min=0.2)
    none = torch.full((number, SIZE, SIZE), IGNORE_INDEX)
    sample = Sample(
        image=image.clamp(1, 60_000).to(torch.uint16),
        valid=torch.ones(number, DATES, dtype=torch.bool),
        day=(18_900 + 40 * torch.arange(DATES, dtype=torch.int32)).expand(number, DATES).contiguous(),
        clear=torch.ones(number, DATES, SIZE, SIZE, dtype=torch.bool),
        crop=none,
        counted=torch.zeros_like(none, dtype=torch.bool),
        parcel=torch.zeros_like(none),
        boundary=torch.full((number, SIZE, SIZE), -32768, dtype=torch.int16),
        place=torch.zeros(number, 3, dtype=torch.int64),
        bands=BANDS,
    )
    return sample, crop


def learnable(name: str) -> Recipe:
    """A recipe whose views differ in brightness, and in nothing that tells the crops."""
    recipe = recipe_of(name)
    section, brighter = (
        getattr(recipe, recipe.objective),
        Photometry(jitter=Jitter(brightness=0.6, visible=BANDS), noise=0.01),
    )
    changes: dict[str, Any] = {"photometry": brighter}
    view = Geometry(sides=(SIZE,), scale=(0.5, 1.0))
    changes |= dict.fromkeys(("first", "second") if hasattr(section, "first") else ("geometry",), view)
    if recipe.objective == "embedding_earth":
        changes |= {"geometry": Geometry(sides=(16,)), "dates": DateSubset(most=2), "negatives": "other_images"}
        changes |= {"momentum": 0.9, "hidden": 64, "channels": 32}
    if recipe.objective == "seco":
        changes |= {"queue": 64, "channels": 16}
    if recipe.objective == "glcnet":
        changes |= {"region": 10}
    backbone, width = {"earth": ("utae", 0.5), "glcnet": ("deeplab_resnet18", 0.125)}.get(name, ("resnet18", 0.125))
    return replace(
        recipe,
        data=replace(recipe.data, size=SIZE),
        backbone=BackboneRecipe(name=backbone, width=width, variant="fixed"),
        **{recipe.objective: replace(section, **changes)},
    )


@torch.no_grad()
def embedded(objective: Objective[Any], sample: Sample) -> Tensor:
    """(B, C) of a date in the middle, or of the series."""
    if objective.encoder.backbone.stride > 1:
        one = torch.full((len(sample.place), 1), 1)
        sample = take_dates(sample, one, torch.ones_like(one, dtype=torch.bool))
    return embed_chips(objective.encoder, sample)


def probe(objective: Objective[Any]) -> tuple[float, float]:
    """Share of chips that a ridge regression on 60 others tells, and the effective rank of their embeddings."""
    objective.eval()
    (few, labels), (many, truth) = chips_of(60, seed=7), chips_of(300, seed=8)
    train, test = embedded(objective, few).double(), embedded(objective, many).double()
    mean, std = train.mean(dim=0), train.std(dim=0) + 1e-9
    a, b = ((part - mean) / std for part in (train, test))
    wanted = functional.one_hot(labels, CLASSES).double()
    weights = torch.linalg.solve(a.T @ a + 1.0 * torch.eye(a.shape[1]), a.T @ (wanted - wanted.mean(dim=0)))
    return float(((b @ weights).argmax(dim=1) == truth).float().mean()), effective_rank(b).item()


@pytest.mark.soak
@pytest.mark.parametrize(
    # The last one's score goes up and down by some hundredths on its way.
    ("name", "steps"),
    [("earth", 50), ("glcnet", 60), ("seco", 100), ("simclr", 100), ("seco-moco_tp", 300)],
)
def test_a_probe_tells_more_than_on_weights_that_are_drawn(name: str, steps: int) -> None:
    torch.manual_seed(0)
    recipe = learnable(name)
    objective = build_objective(recipe, bands=BANDS, dates=DATES, classes=0, mean=(1500.0,) * 4, std=(1000.0,) * 4)
    drawn, _ = probe(objective)
    optimizer = torch.optim.Adam(
        [p for p in objective.parameters() if p.requires_grad], lr=5e-3 if name == "earth" else 2e-3
    )
    losses = []
    objective.train()
    for step in range(steps):
        sample, _ = chips_of(16, seed=100 + step)
        views = objective.views(sample, Augmentation(), Draws.of(torch.Generator().manual_seed(step), chips=16))
        loss = objective.loss(views).value
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        losses.append(loss.item())
    learnt, rank = probe(objective)
    begun = losses[10:20] if recipe.seco is not None else losses[:10]  # with keys in its queues, not random vectors
    said = f"loss {sum(begun):.2f} to {sum(losses[-10:]):.2f}, told {drawn:.3f} and {learnt:.3f}, rank {rank:.1f}"
    assert sum(losses[-10:]) < sum(begun), said
    assert learnt > drawn + 0.05, said
    assert rank > 4, said
