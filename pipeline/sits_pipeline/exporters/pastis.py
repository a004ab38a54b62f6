"""The layout of PASTIS, which U-TAE's and torchgeo's loaders read.

Format and the way normalization is computed: github.com/VSainteuf/utae-paps (src/dataset.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from sits_pipeline.exporters.encode import BandPlan, ClassNumbers, as_in_file, dates_of, int16_of
from sits_pipeline.exporters.formats import PASTIS_BANDS, SIDES
from sits_pipeline.exporters.views import View, ViewFacts, Views, open_views
from sits_pipeline.exporters.whole import (
    Exported,
    Progress,
    Tally,
    check_dates,
    kept_views,
    summary,
    whole_folder,
    write_manifest,
)
from sits_pipeline.folder import Folder
from sits_pipeline.store import read_attributes
from sits_pipeline.values import JsonObject

__all__ = ["FoldPlan", "check_labels", "export_pastis"]

_FOLDS = (1, 2, 3, 4, 5)
_NOTES = (
    "TARGET has the classes in channel 0; the other two channels are 0.",
    "INSTANCE_ANNOTATIONS are not written: they are for panoptic models alone.",
)


@dataclass
class FoldPlan:
    """The fold of each view: its own, or by its split, so that 1, 2, 3 train, 4 validates and 5 tests."""

    facts: ViewFacts
    trained: int = 0

    @property
    def by_split(self) -> bool:
        """Whether folds are made here; the folds of a dataset are never mixed with such."""
        return not self.facts.has_folds

    def unfit(self, view: View) -> str:
        """Why a view has no place in the folds; empty: it has one."""
        if self.facts.has_folds:
            if view.fold is None:
                return "no fold, though others have one"
            return "" if view.fold in _FOLDS else f"fold {view.fold}, and the layout has folds 1 to 5"
        # Fold 1 is trained with: what is in no split must not enter it.
        return "no split, though others have one" if self.facts.has_splits and view.split == "none" else ""

    def fold_of(self, view: View) -> int:
        """Fold 1..5 of a view that is fit; without folds and splits all is 1."""
        if view.fold is not None:
            return view.fold
        if view.split == "validation":
            return 4
        if view.split == "test":
            return 5
        if view.split == "none":
            return 1
        self.trained += 1
        return (self.trained - 1) % 3 + 1

    @property
    def note(self) -> str:
        """What folds mean here."""
        if not self.by_split:
            return "Folds are the dataset's own."
        if self.facts.has_splits:
            return "Folds 1, 2, 3 hold the train split by turns, 4 validation, 5 test: train with 1, 2, 3 alone."
        return "The dataset has neither folds nor splits: everything is in fold 1."


@dataclass
class _Norms:
    """Means and deviations of the patches of each fold, over observed pixels."""

    means: dict[int, list[NDArray[np.float64]]] = field(default_factory=dict)
    stds: dict[int, list[NDArray[np.float64]]] = field(default_factory=dict)

    def add(self, fold: int, image: NDArray[np.int16], observed: NDArray[np.bool_]) -> None:
        """Count a patch, (time, band, y, x), in; one with fewer than two observed pixels says nothing."""
        values = np.moveaxis(image, 1, -1)[observed].astype(np.float64)  # (pixel, band)
        if len(values) > 1:
            self.means.setdefault(fold, []).append(values.mean(axis=0))
            self.stds.setdefault(fold, []).append(values.std(axis=0, ddof=1))

    def document(self, *, by_split: bool) -> JsonObject:
        """`NORM_S2_patch.json`: mean of the patches' means and deviations, a fold.

        The published loader normalizes each split by its own folds. Where folds are made of splits, every fold has
        what the train folds say, so that nothing of validation and test enters.
        """
        train = [fold for fold in (1, 2, 3) if fold in self.means]
        found = {}
        for fold in _FOLDS if by_split else sorted(self.means):
            of = train if by_split else [fold]
            if not of:
                continue
            mean, std = (
                np.mean([value for one in of for value in values[one]], axis=0) for values in (self.means, self.stds)
            )
            found[f"Fold_{fold}"] = {"mean": mean.tolist(), "std": std.tolist()}
        return found


def export_pastis(folder: Folder, out: Path, *, overwrite: bool, incomplete: bool, progress: Progress) -> Exported:
    """Write a dataset into `out` in the layout of PASTIS: patches as they are, a region in windows of 128 px.

    Raises FileExistsError where `out` may not be written, FileNotFoundError where there is no dataset, and ValueError
    where it is not complete or has no labels, lacks a band, or has lost the years of its dates.
    """
    attributes = read_attributes(folder) or {}
    side = None if attributes.get("profile") == "patches" else SIDES["pastis"]
    views = open_views(folder, side=side, training=True, incomplete=incomplete)
    check_labels(views.facts)
    check_dates(views.facts, "pastis")
    with whole_folder(out, dataset=folder, overwrite=overwrite) as partial:
        exported = _write(views, partial, out, progress)
        write_manifest(partial, views.facts, exported)
    return exported


def check_labels(facts: ViewFacts) -> None:
    """Raises ValueError for a dataset without labels."""
    if "crop_type" not in facts.labels:
        raise ValueError(f"{facts.name} has no labels, which this layout is made of; export it as geotiff")


def _write(views: Views, partial: Path, out: Path, progress: Progress) -> Exported:
    facts, tally, folds, norms = views.facts, Tally(), FoldPlan(views.facts), _Norms()
    plan, numbers = BandPlan.of(facts, PASTIS_BANDS, "pastis"), ClassNumbers.consecutive(facts)
    for name in ("DATA_S2", "ANNOTATIONS"):
        (partial / name).mkdir()
    features = []
    for view in kept_views(views, tally, progress, unfit=folds.unfit):
        frames, number, fold = as_in_file(view, facts, "pastis"), _id_of(view, facts), folds.fold_of(view)
        image = int16_of(np.stack(plan.images(view), axis=1), tally)[frames]  # (time, band, y, x)
        norms.add(fold, image, view.observed[frames])
        np.save(partial / f"DATA_S2/S2_{number}.npy", image)
        target = numbers.encode(view.labels["crop_type"])
        np.save(partial / f"ANNOTATIONS/TARGET_{number}.npy", np.stack([target, 0 * target, 0 * target]))
        if "parcel_id" in view.labels:
            np.save(partial / f"ANNOTATIONS/ParcelIDs_{number}.npy", view.labels["parcel_id"])
        features.append(_feature(view, number, fold, view.days[frames]))
    collection = {"type": "FeatureCollection", "features": features}
    for name, document in {
        "metadata.geojson": collection,
        "NORM_S2_patch.json": norms.document(by_split=folds.by_split),
        "label_names.json": numbers.document(),
    }.items():
        (partial / name).write_text(json.dumps(document, indent=None if name.startswith("meta") else 1) + "\n")
    return summary("pastis", out, tally, *plan.note, folds.note, *_NOTES)


def _id_of(view: View, facts: ViewFacts) -> int:
    """ID_PATCH: the original's, or the running number."""
    return int(view.original["ID_PATCH"]) if facts.imported == "pastis" else view.number


def _feature(view: View, number: int, fold: int, days: NDArray[np.int32]) -> JsonObject:
    """The record of a patch in the metadata."""
    dates = {str(frame): int(f"{day:%Y%m%d}") for frame, day in enumerate(dates_of(days))}
    properties = {**view.original} if "ID_PATCH" in view.original else dict(_counts(view))
    return {
        "type": "Feature",
        "geometry": None if view.outline is None else json.loads(shapely.to_geojson(view.outline)),
        "properties": {**properties, "ID_PATCH": number, "Fold": fold, "dates-S2": dates},
    }


def _counts(view: View) -> Iterator[tuple[str, float]]:
    """What PASTIS says of the parcels of a patch."""
    ids = view.labels.get("parcel_id")
    if ids is not None:
        yield "N_Parcel", len(np.unique(ids[ids > 0]))
        yield "Parcel_Cover", round(float((ids > 0).mean()), 4)
