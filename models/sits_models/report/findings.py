"""From what an evaluation counted to the facts of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypedDict

import fsspec
import numpy as np
import yaml
from numpy.typing import NDArray
from torch import Tensor

from sits_catalog.cube import CHIP, PIXEL_M
from sits_models.checkpoints import Card
from sits_models.data.cubes import Cube
from sits_models.metrics import (
    Counted,
    Intervals,
    ParcelVotes,
    RegionMatrices,
    Regions,
    block_keys,
    bootstrap_scores,
    scores_of,
    size_table,
)
from sits_models.metrics.confusion import count_by_block
from sits_models.report.facts import ClassName, EvaluationFacts, Group, ParcelGroup, UnknownClass
from sits_models.sample import Sample

__all__ = [
    "ClassifiedParcels",
    "DatasetNotes",
    "EvaluationCounts",
    "find_facts",
    "find_parcel_facts",
    "read_notes",
]

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

    pixels: RegionMatrices
    votes: ParcelVotes
    sizes: tuple[NDArray[np.int64], ...]
    """Size class by parcel id, one table a cube."""
    unknown: dict[tuple[str, str], int]
    """Labelled pixels by code and name of the classes that the model does not know."""

    @classmethod
    def of(cls, cubes: Sequence[Cube], *, classes: int, block_px: int) -> EvaluationCounts:
        """Nothing counted yet; a block of the bootstrap has a side of `block_px` pixels of 10 m."""
        regions = Regions(block_px=block_px)
        sizes = tuple(_sizes(cube, regions) for cube in cubes)
        return cls(
            pixels=RegionMatrices(classes=classes, regions=regions, sizes=sizes),
            votes=ParcelVotes(classes=classes),
            sizes=sizes,
            unknown={},
        )

    def add(self, sample: Sample, predicted: Tensor, edges: Tensor) -> None:
        """Count a batch; `predicted` and `edges` are as `RegionMatrices.add` takes them."""
        self.pixels.add(sample, predicted, edges=edges)
        blocks = block_keys(sample, self.pixels.regions.block_px)
        self.votes.add(predicted, target=sample.crop, parcel=sample.parcel, cube=sample.place[:, 0], block=blocks)

    def add_unknown(self, pixels: Mapping[tuple[str, str], int]) -> None:
        """Count labelled pixels of classes that the model does not know, by code and name."""
        for crop, n in pixels.items():
            self.unknown[crop] = self.unknown.get(crop, 0) + n


@dataclass(frozen=True, kw_only=True)
class ClassifiedParcels:
    """N parcels, each given a class by a model that sees it in the middle of a chip."""

    cube: NDArray[np.int64]
    """(N,): number of the cube."""
    parcel: NDArray[np.int64]
    """(N,): row key in the cube's table."""
    row: NDArray[np.int64]
    """(N,): row in the cube of the pixel in the middle of its chip."""
    column: NDArray[np.int64]
    target: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float32]
    """(N,): of the predicted class."""

    def counted(self, kept: NDArray[np.bool_], *, classes: int, block_px: int) -> Counted:
        """The parcels that are kept, each in the block of its middle."""
        blocks = self.cube << 40 | self.row // block_px << 20 | self.column // block_px
        return count_by_block(self.target[kept], self.predicted[kept], blocks[kept], classes=classes)


def _sizes(cube: Cube, regions: Regions) -> NDArray[np.int64]:
    """The `size_table` of a cube."""
    parcels = cube.parcels(["parcel_id", "area_ha"])
    ids, areas = parcels["parcel_id"].to_numpy(np.int64), parcels["area_ha"].to_numpy(np.float64)
    return size_table(ids, areas, regions.sizes_ha)


# From counts to facts


def find_facts(
    card: Card,
    weights: str,
    cubes: Sequence[Cube],
    notes: Sequence[DatasetNotes],
    counts: EvaluationCounts,
    *,
    split: str,
    window: int,
    halo: int,
) -> EvaluationFacts:
    """All that the page tells, intervals drawn with a fixed seed."""
    pixels, parcels = counts.pixels, counts.votes.counted()
    intervals = _intervals(pixels.overall)
    return EvaluationFacts(
        **_common(card, weights, cubes, notes, intervals, counts.unknown),
        split=split,
        overall=_group_with("all", pixels.overall, intervals),
        boundary=_group("boundary", pixels.boundary),
        interior=_group("interior", pixels.interior),
        distances=tuple(
            _group(name, counted) for name, counted in pixels.distance_bands.items() if counted.matrix.any()
        ),
        parcels=_group("parcels", parcels) if parcels.matrix.any() else None,
        sizes=_size_groups(counts),
        blocks=len(pixels.block_keys),
        block_m=pixels.regions.block_px * PIXEL_M,
        halo=halo,
        window=window,
    )


def find_parcel_facts(
    card: Card,
    weights: str,
    cubes: Sequence[Cube],
    notes: Sequence[DatasetNotes],
    found: ClassifiedParcels,
    unknown: Mapping[tuple[str, str], int],
    *,
    unobserved: int,
    split: str,
    window: int,
) -> EvaluationFacts:
    """As `find_facts`, of a model that gives one class to a parcel: nothing is known of pixels.

    `unknown` are parcels by code and name of the classes that the model does not know, `unobserved` those of known
    classes that were never observed.
    """
    regions = Regions(block_px=max(note.block_m for note in notes) // PIXEL_M)
    every = np.ones(len(found.parcel), np.bool_)
    counted = found.counted(every, classes=len(card.classes), block_px=regions.block_px)
    intervals = _intervals(counted)
    return EvaluationFacts(
        **_common(card, weights, cubes, notes, intervals, unknown),
        split=split,
        overall=None,
        boundary=None,
        interior=None,
        distances=(),
        parcels=_group_with("parcels", counted, intervals),
        sizes=_parcel_sizes(found, cubes, regions, classes=len(card.classes)),
        unobserved=unobserved,
        blocks=len(counted.blocks.truth),
        block_m=regions.block_px * PIXEL_M,
        halo=0,
        window=window,
    )


class _Common(TypedDict):
    """What the facts of both kinds of model share."""

    title: str
    model: Mapping[str, str]
    regions: tuple[str, ...]
    cubes: tuple[str, ...]
    simulated: bool
    classes: tuple[ClassName, ...]
    class_intervals: tuple[tuple[float, float] | None, ...]
    unknown: tuple[UnknownClass, ...]
    resamples: int
    level: float
    credits: tuple[str, ...]
    software: str


def _common(
    card: Card,
    weights: str,
    cubes: Sequence[Cube],
    notes: Sequence[DatasetNotes],
    intervals: Intervals | None,
    unknown: Mapping[tuple[str, str], int],
) -> _Common:
    return _Common(
        title=card.recipe.name,
        model=_model_rows(card, weights, cubes),
        regions=tuple(dict.fromkeys(cube.facts.region for cube in cubes)),
        cubes=tuple(cube.facts.config_sha256 for cube in cubes),
        simulated=any(cube.facts.simulated for cube in cubes),
        classes=tuple(ClassName(entry.code, entry.name, entry.colour) for entry in card.classes),
        class_intervals=_class_intervals(intervals, len(card.classes)),
        unknown=_unknown_classes(unknown),
        resamples=_RESAMPLES,
        level=_LEVEL,
        credits=_credits(cubes, notes),
        software=f"sits-cubes {version('sits-cubes')}",
    )


def _parcel_sizes(
    found: ClassifiedParcels, cubes: Sequence[Cube], regions: Regions, *, classes: int
) -> tuple[ParcelGroup, ...]:
    size = np.full(len(found.parcel), -1)
    for number, cube in enumerate(cubes):
        here = found.cube == number
        size[here] = _sizes(cube, regions)[found.parcel[here]]
    groups = [
        (name, found.counted(size == group, classes=classes, block_px=regions.block_px))
        for group, name in enumerate(regions.size_names)
    ]
    return tuple(
        ParcelGroup(name=name, parcels=_group(name, counted), pixels=None)
        for name, counted in groups
        if counted.matrix.any()
    )


def _unknown_classes(unknown: Mapping[tuple[str, str], int]) -> tuple[UnknownClass, ...]:
    found = sorted(unknown.items(), key=lambda found: (-found[1], found[0]))
    return tuple(UnknownClass(code, name, n) for (code, name), n in found)


def _intervals(counted: Counted) -> Intervals | None:
    """None where nothing was counted."""
    if not counted.matrix.any():
        return None
    return bootstrap_scores(counted.blocks, resamples=_RESAMPLES, seed=_SEED, level=_LEVEL)


def _group(name: str, counted: Counted) -> Group:
    return _group_with(name, counted, _intervals(counted))


def _group_with(name: str, counted: Counted, intervals: Intervals | None) -> Group:
    known = {} if intervals is None else intervals.headline
    return Group(
        name=name,
        matrix=counted.matrix,
        scores=scores_of(counted.matrix),
        intervals={key: ends for key, ends in known.items() if not np.isnan(ends).any()},
    )


def _class_intervals(intervals: Intervals | None, classes: int) -> tuple[tuple[float, float] | None, ...]:
    if intervals is None:
        return (None,) * classes
    return tuple(None if np.isnan(ends).any() else ends for ends in intervals.iou)


def _size_groups(counts: EvaluationCounts) -> tuple[ParcelGroup, ...]:
    pixels = counts.pixels.size_classes
    parcels = counts.votes.counted_by_size(counts.sizes, groups=len(pixels))
    return tuple(
        ParcelGroup(name=name, parcels=_group(name, counted), pixels=_group(name, pixels[name]))
        for name, counted in zip(pixels, parcels, strict=True)
        if counted.matrix.any()
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
