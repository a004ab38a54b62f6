"""`report.html` of an import: what came in, how it is divided, what was changed and what was left out."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files

import numpy as np

from sits_catalog.cube import IGNORE
from sits_catalog.taxonomy import distinct_colour
from sits_catalog.templates import compile_template
from sits_pipeline.importers.dataset import EPOCH, ImportedDataset, chronology_in_words
from sits_pipeline.importers.item import class_names
from sits_pipeline.importers.tally import ImportTally
from sits_pipeline.picture import colour_of, encode_png, limits_of, natural_bands, paint
from sits_pipeline.store.patches import read_patches

__all__ = ["render_import"]

_SPLITS = ("train", "validation", "test", "none")
_SHOWN = 4
"""Patches of which pictures are shown."""
_DATES = 4
"""Dates of each."""


def render_import(dataset: ImportedDataset, tally: ImportTally) -> str:
    """The report as one HTML document; the same dataset gives the same text. Names out of files are escaped."""
    template = compile_template(files(__package__).joinpath("page.html").read_text("utf-8"))
    attributes = dataset.layout.attributes
    n_dates = [len(patch.days) for patch in dataset.patches]
    splits = [name for name in _SPLITS if any(patch.split == name for patch in dataset.patches)]
    return template.render(
        style=files("sits_pipeline.report").joinpath("style.css").read_text("utf-8"),
        facts=dataset.facts,
        attributes=attributes,
        layout=dataset.layout,
        chronology=chronology_in_words(dataset.facts.chronology),
        dates=(min(n_dates), max(n_dates)),
        located=sum(patch.outline is not None for patch in dataset.patches),
        splits=splits,
        divided=_divided(dataset),
        classes=_classes(dataset, tally, splits),
        clamped=_Clamped.of(tally),
        rows=_pictures(dataset),
        statistics=list((attributes["statistics"] or {}).items()),
        over="train patches" if dataset.has_splits else "all patches",
    )


def _divided(dataset: ImportedDataset) -> list[tuple[str, str, int]]:
    """Split, fold and number of patches."""
    counts = Counter((patch.split, patch.fold) for patch in dataset.patches)
    ordered = sorted(counts.items(), key=lambda pair: (_SPLITS.index(pair[0][0]), pair[0][1] or 0))
    return [(split, "" if fold is None else str(fold), count) for (split, fold), count in ordered]


@dataclass(frozen=True, kw_only=True)
class _ClassRow:
    """A value of `crop_type` with its pixels, in all and a split."""

    index: int
    name: str
    colour: str
    n_pixels: int
    a_split: tuple[int, ...]


def _classes(dataset: ImportedDataset, tally: ImportTally, splits: list[str]) -> list[_ClassRow]:
    members = {split: [i for i, patch in enumerate(dataset.patches) if patch.split == split] for split in splits}
    counts = {split: tally.pixels_of(patches) for split, patches in members.items()}
    colours = {crop.index: crop.colour for crop in dataset.facts.taxonomy.classes}
    names = {**class_names(dataset), IGNORE: "ignored: unknown or void"}
    unnamed = {index for found in counts.values() for index in found} - names.keys()
    names |= {index: f"class {index}" for index in sorted(unnamed)}
    return [
        _ClassRow(
            index=index,
            name=name,
            colour=colours.get(index, "#ffffff"),
            n_pixels=sum(found[index] for found in counts.values()),
            a_split=tuple(counts[split][index] for split in splits),
        )
        for index, name in names.items()
    ]


@dataclass(frozen=True, kw_only=True)
class _Clamped:
    """Values that were not above 0 in observed pixels."""

    values: int
    patches: int
    saturated: int

    @classmethod
    def of(cls, tally: ImportTally) -> _Clamped:
        return cls(
            values=tally.clamped,
            patches=sum(patch.clamped > 0 for patch in tally.patches),
            saturated=sum(patch.saturated for patch in tally.patches),
        )


# Pictures


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A patch with pictures of a few dates and of its classes."""

    name: str
    pictures: tuple[tuple[str, str], ...]
    """Address of the picture and what stands below it."""


def _pictures(dataset: ImportedDataset) -> list[_Row]:
    """A few patches, evenly out of all."""
    step = max(1, len(dataset.patches) // _SHOWN)
    return [_row(dataset, index) for index in range(0, len(dataset.patches), step)][:_SHOWN]


def _row(dataset: ImportedDataset, index: int) -> _Row:
    patch, one = dataset.patches[index], slice(index, index + 1)
    bands = [dataset.layout.bands.index(name) for name in natural_bands(dataset.layout.bands)]
    every = max(1, len(patch.days) // _DATES)
    dates = list(range(0, len(patch.days), every))[:_DATES]
    images = read_patches(dataset.folder, "reflectance", one)[0][dates][:, bands]  # (time, 3, y, x)
    observed = (read_patches(dataset.folder, "quality", one)[0][dates] & 1) > 0
    limits = limits_of(list(images), list(observed))
    pictures = [
        (_uri(paint(image, seen, limits)), (EPOCH + timedelta(days=int(patch.days[date]))).isoformat())
        for date, image, seen in zip(dates, images, observed, strict=True)
    ]
    crop_type = read_patches(dataset.folder, "crop_type", one)[0]
    colours = {crop.index: crop.colour for crop in dataset.facts.taxonomy.classes}
    painted = np.zeros((*crop_type.shape, 4), np.uint8)
    for value in np.unique(crop_type).tolist():
        if value not in (0, IGNORE):
            painted[crop_type == value] = (*colour_of(colours.get(value, distinct_colour(value))), 255)
    return _Row(name=patch.name, pictures=(*pictures, (_uri(painted), "classes")))


def _uri(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(pixels)).decode()}"
