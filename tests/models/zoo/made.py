"""Tiny weights, published and not, made by the code under test from models with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tests.models.test_checkpoints import card_of
from tests.models.training import objective_of, recipe_of

from sits_models.checkpoints import save_weights
from sits_models.objectives import build_objective
from sits_models.recipe import Recipe
from sits_models.zoo import Registry
from sits_models.zoo.push import Pushed, Wishes, push

CREATED = "2026-01-02T03:04:05Z"


def wishes(**changes: object) -> Wishes:
    values: dict[str, object] = {"name": "tiny", "licence": "CC-BY-4.0", "created": CREATED, **changes}
    return Wishes(**values)  # type: ignore[arg-type]


def save_run(folder: Path, recipe: Recipe | None = None, *, seed: int = 1) -> Path:
    """A folder as a run leaves it: weights and card in `weights/`."""
    recipe = recipe or recipe_of()
    objective = objective_of(recipe, seed=seed).eval()
    cubes = [{"region": "tiny", "version": "1.0", "config_sha256": "a" * 64, "simulated": True}]
    save_weights(folder / "weights", objective, replace(card_of(recipe, objective), data={"cubes": cubes}))
    return folder


def save_pretrained(folder: Path, recipe: Recipe, *, dates: int) -> Path:
    """The same of a recipe without labels, or of a change, where `dates` were read."""
    torch.manual_seed(1)
    bands, flat = recipe.data.bands or ("B02", "B03", "B04", "B08"), {"mean": (1500.0,) * 4, "std": (900.0,) * 4}
    classes = 2 if recipe.change is not None else 0
    objective = build_objective(recipe, bands=bands, dates=dates, classes=classes, **flat).eval()
    card = card_of(recipe, objective)
    card = replace(card, bands=bands, dates=recipe.dates_of(dates), classes=card.classes[:classes])
    save_weights(folder / "weights", objective, card)
    return folder


def push_tiny(folder: Path, registry: Path, *, seed: int = 1, **changes: object) -> Pushed:
    """Tiny weights in a registry."""
    return push(str(save_run(folder / f"run-{seed}", seed=seed)), wishes(**changes), registry=str(registry))


def shared_weights(folder: Path) -> Path:
    """The folder of tiny weights that were pushed."""
    pushed = push_tiny(folder, folder / "zoo")
    return Registry(folder / "zoo").folder_of(pushed.entry)
