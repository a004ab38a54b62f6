"""What a recipe learns from: cubes of regions, or patch sets, opened, checked and described by their kind."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import Split
from sits_models.checkpoints import Card
from sits_models.data.cubes import RADIOMETRY, Cube
from sits_models.data.grid import Grid, Ground
from sits_models.data.loader import TrainingData
from sits_models.data.patch_data import PatchData
from sits_models.data.patch_sets import are_patch_sets
from sits_models.device import Rank
from sits_models.objectives.base import Objective
from sits_models.objectives.change import DATES
from sits_models.recipe import DataRecipe, Recipe

__all__ = [
    "Learnt",
    "check_kind_of_labels",
    "describe_data",
    "is_simulated",
    "labels_drawn",
    "open_data",
    "parcels_in_words",
    "radiometry_of",
]

Learnt = TrainingData | PatchData
"""Both give the engine its batches."""


def open_data(recipe: Recipe, paths: Sequence[str], *, card: Card | None, rank: Rank) -> Learnt:
    """The data of these folders, with the bands of the weights in a `card` where the recipe leaves them open.

    Mean and deviation of patch sets are of the kind that the weights bring (`data.normalize`).

    Raises FileNotFoundError or ValueError, in one sentence, where folders hold something else than `data.layout` says,
    regions and patch sets are mixed, their labels are not of the kind that the recipe learns from, their bands are not
    those of the weights, or, of datasets of this project, their radiometry is not. The files of published datasets may
    mean something else than the weights learnt from (8 bits, say, or level L1C), as the published finetunings of SeCo
    do: see `Card.radiometry_differences`.
    """
    bands = recipe.data.bands if recipe.data.bands is not None or card is None else card.bands
    ground = _ground(recipe)
    if not are_patch_sets(paths, recipe.data.layout):
        if recipe.objective == "multilabel":
            raise ValueError(
                f"a multilabel recipe learns which classes a patch has, and {', '.join(paths)} are regions; give patch "
                "sets, such as data.layout=bigearthnet, or a recipe of segmentation"
            )
        regions = TrainingData.open(recipe.data, cubes=paths, bands=bands, rank=rank, ground=ground)
        for cube in regions.cubes if card is not None else ():
            assert card is not None
            card.check_cube(cube.facts)
        return regions
    data = PatchData.open(_normalized_as(recipe.data, card), sets=paths, bands=bands, rank=rank, ground=ground)
    for one in data.sets if card is not None and recipe.data.layout == "cube" else ():
        assert card is not None
        card.check_radiometry(one.facts)
    _check_labels(recipe, data)
    return data


def _ground(recipe: Recipe) -> Ground:
    """What a recipe learns from."""
    if not recipe.label_free:
        return "split"
    return "all" if recipe.data.transductive else "unsplit"


def _normalized_as(recipe: DataRecipe, card: Card | None) -> DataRecipe:
    """The recipe with the kind of normalization that weights bring."""
    return recipe if card is None else dataclasses.replace(recipe, normalize=card.recipe.data.normalize)


def _check_labels(recipe: Recipe, data: PatchData) -> None:
    """Raises ValueError where a recipe cannot learn from the labels of patch sets, or from so few dates."""
    if recipe.label_free:
        return
    check_kind_of_labels(recipe.objective, data)
    if recipe.objective == "classification":
        data.check_one_class()
    if recipe.objective == "change":
        data.check_dates(DATES)


def check_kind_of_labels(objective: str, data: PatchData) -> None:
    """Raises ValueError where labels are of patches, and not of pixels, or the other way round, as an objective, by its
    name in a recipe, does not take them; a classification takes both."""
    paths = ", ".join(one.facts.path for one in data.sets)
    if objective == "multilabel" and data.dense:
        raise ValueError(
            f"a multilabel recipe learns which classes a patch has, and the labels of {paths} are of pixels; take a "
            "recipe, or weights, of segmentation"
        )
    if objective in ("segmentation", "change") and not data.dense:
        raise ValueError(
            f"a {objective} learns from labels of pixels, and those of {paths} are of patches; take a recipe, or "
            "weights, of classification or multilabel"
        )


def labels_drawn(data: Learnt) -> NDArray[np.int64]:
    """(K,): how many of each class there are of what the chips are drawn by: parcels, or pixels, or patches."""
    if isinstance(data, TrainingData) and data.recipe.sampling == "middle":
        return data.train_parcels()
    return data.train_pixels()


def parcels_in_words(data: Learnt) -> str | None:
    """How many parcels are drawn one by one; None where chips are drawn otherwise."""
    if not isinstance(data, TrainingData) or data.recipe.sampling != "middle":
        return None
    drawn, left_out = data.parcels_in_epoch
    size = data.recipe.size
    near = f"; {left_out:,} are left out, whose chip of {size} px would touch ground of another split"
    return f"{drawn:,} parcels of the train split are drawn{near if left_out else ''}"


def is_simulated(data: Learnt) -> bool:
    """Whether a cube or a patch set is made up."""
    opened = data.cubes if isinstance(data, TrainingData) else data.sets
    return any(one.facts.simulated for one in opened)


def radiometry_of(data: Learnt) -> Mapping[str, object]:
    """What the integers mean; all cubes or sets of a training agree."""
    opened = data.cubes if isinstance(data, TrainingData) else data.sets
    return {key: opened[0].facts.radiometry.get(key) for key in RADIOMETRY}


def describe_data(data: Learnt, objective: Objective, *, parent: str | None) -> dict[str, object]:
    """data.json: what was learnt from, by hashes where that decides the weights."""
    pixels, encoder = data.train_pixels(), objective.encoder
    further: dict[str, object] = {}
    if isinstance(data, TrainingData) and data.recipe.sampling == "middle":
        drawn, left_out = data.parcels_in_epoch
        further["parcels"] = {"drawn": drawn, "left_out": left_out}
    if data.kept is not None:
        further["few"] = data.kept.described(data.table)
    return {
        "cubes": _regions_of(data) if isinstance(data, TrainingData) else data.described(),
        "bands": list(data.bands),
        "dates": data.dates,
        "classes": [
            {"index": entry.index, "code": entry.code, "name": entry.name, "train_pixels": int(n)}
            for entry, n in zip(data.table.classes, pixels.tolist(), strict=True)
        ],
        **further,
        # Those of the encoder: weights that training starts from bring their own.
        "statistics": {"mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()},
        "parent": parent,
    }


def _regions_of(data: TrainingData) -> list[dict[str, object]]:
    return [_describe_cube(cube, grid) for cube, grid in zip(data.cubes, data.grids, strict=True)]


def _describe_cube(cube: Cube, grid: Grid) -> dict[str, object]:
    shape = f"{grid.height} {grid.width} ".encode()
    counts = {split.name.lower(): int((grid.split == split).sum()) for split in Split if split is not Split.NONE}
    return {
        "path": cube.facts.path,
        "region": cube.facts.region,
        "version": cube.facts.version,
        "config_sha256": cube.facts.config_sha256,
        "split_sha256": hashlib.sha256(shape + grid.split.tobytes()).hexdigest(),
        "chips": {name: n for name, n in counts.items() if n},
        "complete": cube.facts.complete,
        "simulated": cube.facts.simulated,
    }
