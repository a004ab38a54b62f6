"""From what an evaluation counted to the facts of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import fsspec
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from sits_catalog.cube import CHIP, PIXEL_M
from sits_models.checkpoints import Card
from sits_models.data.cubes import Cube
from sits_models.metrics import (
    ParcelVotes,
    RegionMatrices,
    Regions,
    bootstrap_interval,
    bootstrap_scores,
    scores_of,
    size_table,
)
from sits_models.report.facts import ClassName, EvaluationFacts, Group, ParcelGroup
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["DISTANCES_DM", "SIZES_HA", "DatasetNotes", "EvaluationCounts", "find_facts", "read_notes"]

DISTANCES_DM = (100, 200, 500)
"""Upper limits of the bands by distance to the nearest parcel edge, decimetres."""
SIZES_HA = (0.5, 1.0, 2.0, 5.0)
"""Upper limits of the classes of parcel size, hectares."""

_RESAMPLES, _LEVEL, _SEED = 1000, 0.95, 0


# What a dataset says of itself


@dataclass(frozen=True, kw_only=True)
class DatasetNotes:
    """What the configuration of a dataset tells beyond its pixels."""

    block_m: int
    parcels: str
    """Who made the parcels; "" where it does not say."""


def read_notes(cube: Cube) -> DatasetNotes:
    """Those of a dataset; where it has no configuration, a block is a grid chip."""
    try:
        with fsspec.open(f"{cube.facts.path}/config.yaml", "rt") as file:
            config = _mapping(yaml.safe_load(file))
    except FileNotFoundError:
        config = {}
    block_m = _mapping(config.get("splits")).get("block_m")
    return DatasetNotes(
        block_m=block_m if isinstance(block_m, int) else CHIP * PIXEL_M,
        parcels=str(_mapping(config.get("parcels")).get("attribution") or ""),
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


# Counting


@dataclass(frozen=True, kw_only=True)
class EvaluationCounts:
    """All that is counted while the chips stream by."""

    overall: RegionMatrices
    boundary: RegionMatrices
    interior: RegionMatrices
    votes: ParcelVotes
    sizes: tuple[NDArray[np.int64], ...]
    """Size class by parcel id, one table a cube."""

    @classmethod
    def of(cls, cubes: Sequence[Cube], *, classes: int, block_px: int) -> EvaluationCounts:
        """Nothing counted yet; a block of the bootstrap has a side of `block_px` pixels of 10 m."""
        regions = Regions(distances_dm=DISTANCES_DM, sizes_ha=SIZES_HA, block_px=block_px)
        sizes = tuple(_sizes(cube) for cube in cubes)
        return cls(
            overall=RegionMatrices(classes=classes, regions=regions, sizes=sizes),
            boundary=RegionMatrices(classes=classes, regions=regions),
            interior=RegionMatrices(classes=classes, regions=regions),
            votes=ParcelVotes(classes=classes),
            sizes=sizes,
        )

    def add(self, sample: Sample, predicted: Tensor, edges: Tensor) -> None:
        """Count a batch."""
        self.overall.add(sample, predicted, edges=edges)
        for part, where in ((self.boundary, edges), (self.interior, ~edges)):
            crop = torch.where(where, sample.crop, IGNORE_INDEX)
            part.add(sample.replace(crop=crop), predicted, edges=edges)
        self.votes.add(predicted, target=sample.crop, parcel=sample.parcel, cube=sample.place[:, 0])


def _sizes(cube: Cube) -> NDArray[np.int64]:
    parcels = cube.parcels(["parcel_id", "area_ha"])
    return size_table(parcels["parcel_id"].to_numpy(np.int64), parcels["area_ha"].to_numpy(np.float64), SIZES_HA)


# From counts to facts


def find_facts(
    card: Card,
    weights: str,
    cubes: Sequence[Cube],
    notes: Sequence[DatasetNotes],
    counts: EvaluationCounts,
    *,
    split: str,
) -> EvaluationFacts:
    """All that the page tells, intervals drawn with a fixed seed."""
    overall = _group("all", counts.overall)
    blocks = counts.overall.blocks
    parcels = counts.votes.confusion()
    return EvaluationFacts(
        title=card.recipe.name,
        model=_model_rows(card, weights, cubes),
        regions=tuple(dict.fromkeys(cube.facts.region for cube in cubes)),
        split=split,
        simulated=any(cube.facts.simulated for cube in cubes),
        classes=tuple(ClassName(entry.code, entry.name, entry.colour) for entry in card.classes),
        overall=overall,
        boundary=_group("boundary", counts.boundary),
        interior=_group("interior", counts.interior),
        class_intervals=tuple(_class_interval(blocks, k) for k in range(len(card.classes))),
        distances=tuple(
            _plain_group(name, matrix) for name, matrix in counts.overall.distance_bands.items() if matrix.any()
        ),
        parcels=_plain_group("parcels", parcels) if parcels.any() else None,
        sizes=_size_groups(counts),
        blocks=len(blocks),
        block_m=counts.overall.regions.block_px * PIXEL_M,
        resamples=_RESAMPLES,
        level=_LEVEL,
        credits=_credits(cubes, notes),
        software=f"sits-cubes {version('sits-cubes')}",
    )


def _plain_group(name: str, matrix: NDArray[np.int64]) -> Group:
    return Group(name=name, matrix=matrix, scores=scores_of(matrix))


def _group(name: str, matrices: RegionMatrices) -> Group:
    """A group with intervals; without, where nothing was counted."""
    plain = _plain_group(name, matrices.overall)
    if not plain.n:
        return plain
    intervals = bootstrap_scores(matrices.blocks, resamples=_RESAMPLES, seed=_SEED, level=_LEVEL)
    known = {key: ends for key, ends in intervals.items() if not np.isnan(ends).any()}
    return Group(name=name, matrix=plain.matrix, scores=plain.scores, intervals=known)


def _class_interval(blocks: NDArray[np.int64], k: int) -> tuple[float, float] | None:
    if not blocks.any():
        return None
    # A class against the rest: hits, misses, false alarms; the bootstrap then sums 2 x 2 matrices and not K x K.
    hits, truth, guess = blocks[:, k, k], blocks[:, k, :].sum(1), blocks[:, :, k].sum(1)
    rest = blocks.sum((1, 2)) - truth - guess + hits
    small = np.stack([hits, truth - hits, guess - hits, rest], axis=1).reshape(-1, 2, 2)
    ends = bootstrap_interval(small, _first_iou, resamples=_RESAMPLES, seed=_SEED, level=_LEVEL)
    return None if np.isnan(ends).any() else ends


def _first_iou(matrix: NDArray[np.int64]) -> float | None:
    union = int(matrix[0, 0] + matrix[0, 1] + matrix[1, 0])
    return int(matrix[0, 0]) / union if union else None


def _size_groups(counts: EvaluationCounts) -> tuple[ParcelGroup, ...]:
    pixels = counts.overall.size_classes
    parcels = counts.votes.confusion_by_size(counts.sizes, groups=len(SIZES_HA) + 1)
    return tuple(
        ParcelGroup(name=name, parcels=_plain_group(name, matrix), pixels=_plain_group(name, pixels[name]))
        for name, matrix in zip(pixels, parcels, strict=True)
        if matrix.any()
    )


def _model_rows(card: Card, weights: str, cubes: Sequence[Cube]) -> dict[str, str]:
    recipe = card.recipe
    rows = {
        "Weights": f"{weights}, SHA-256 {card.sha256}",
        "Recipe": f"{recipe.name}: {recipe.title}" if recipe.title else recipe.name,
        "Backbone": f"{recipe.backbone.name}, width {recipe.backbone.width:g}, variant {recipe.backbone.variant}",
        "Started from": f"weights with SHA-256 {card.parent}" if card.parent else "random values",
        "Bands": " ".join(card.bands),
        "Dates": f"{card.dates} a chip ({recipe.data.dates.pick})",
        "Labels": f"{PIXEL_M / card.magnification:g} m a pixel",
    }
    for number, cube in enumerate(cubes, 1):
        key = "Cube" if len(cubes) == 1 else f"Cube {number}"
        rows[key] = f"{cube.facts.path}, configuration {cube.facts.config_sha256}"
    known = {entry.code for entry in card.classes}
    strange = {entry.code for cube in cubes for entry in cube.facts.classes} - known
    if strange:
        rows["Not counted"] = f"pixels of classes that the model does not know: {', '.join(sorted(strange))}"
    return rows


def _credits(cubes: Sequence[Cube], notes: Sequence[DatasetNotes]) -> tuple[str, ...]:
    lines = []
    for cube, note in zip(cubes, notes, strict=True):
        if cube.facts.simulated:
            lines.append("Imagery: simulated. It holds no Copernicus data and says nothing about any real place.")
        else:
            years = sorted(
                {1970 + int(np.datetime64(day, "D").astype("datetime64[Y]").astype(int)) for day in cube.facts.days}
            )
            span = f"{years[0]}–{years[-1]}" if years[0] != years[-1] else f"{years[0]}"
            lines.append(f"Imagery: contains modified Copernicus Sentinel data {span}.")
        if note.parcels:
            lines.append(f"Parcels: {note.parcels}.")
    return tuple(dict.fromkeys(lines))
