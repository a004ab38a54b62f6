"""An imported dataset: what decides all of it but the pixels."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from importlib.metadata import version
from typing import Self

import numpy as np
import shapely
import yaml
from numpy.typing import NDArray

from sits_catalog.cube import LABEL_ARRAYS, NO_DAY, VERSION, patches_a_shard
from sits_catalog.sentinel2 import bands_of
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.folder import Folder
from sits_pipeline.importers.original import OriginalFacts, OriginalPatch
from sits_pipeline.journal import encode_line
from sits_pipeline.store import CUBE
from sits_pipeline.store.patches import PatchLayout, patch_metadata
from sits_pipeline.values import JsonObject

__all__ = ["EPOCH", "ImportedDataset", "check_facts", "check_index", "chronology_in_words"]

EPOCH = date(1970, 1, 1)
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_LAYOUT_VERSION = 2
"""Part of the configuration's hash: raise it where the same original would be written otherwise."""

_CHRONOLOGY = {
    "kept": "Frames have the dates of the original, in the order of the calendar.",
    "restored": (
        "The original has the frames by day of the year; their dates were put right from the metadata of the set it "
        "was made from."
    ),
    "day-of-year": (
        "The original has the frames by day of the year and no years, so that their order in time is lost: days tell "
        "the day of the year alone, in the year that the season ends in."
    ),
}


def chronology_in_words(chronology: str) -> str:
    """What the days of a set say, one sentence."""
    return _CHRONOLOGY[chronology]


@dataclass(frozen=True, kw_only=True)
class ImportedDataset:
    """A dataset that is being imported: where, from what, and its store without pixels."""

    folder: Folder
    facts: OriginalFacts
    patches: tuple[OriginalPatch, ...]
    layout: PatchLayout

    @classmethod
    def of(cls, folder: Folder, facts: OriginalFacts, patches: Sequence[OriginalPatch], created: datetime) -> Self:
        """The dataset as this run would write it. Raises ValueError where facts and index are not fit to be written."""
        check_facts(facts)
        check_index(patches)
        n_dates = max(len(patch.days) for patch in patches)
        days = np.full((len(patches), n_dates), NO_DAY, np.int32)
        for row, patch in zip(days, patches, strict=True):
            row[: len(patch.days)] = patch.days
        layout = PatchLayout(
            days=days,
            bands=facts.bands,
            height=facts.height,
            width=facts.width,
            attributes=_attributes(facts, patches, days, created),
            labels=_labels(facts, patches),
            classes=_classes(facts.taxonomy),
        )
        return cls(folder=folder, facts=facts, patches=tuple(patches), layout=layout)

    def with_attributes(self, changes: JsonObject) -> Self:
        """The dataset with these entries of `sits_cube` changed."""
        return replace(self, layout=self.layout.with_attributes(changes))

    @property
    def config_sha256(self) -> str:
        """Hash of all that decides what is written but the pixels of the original's files."""
        return str(self.layout.attributes["config_sha256"])

    @property
    def has_splits(self) -> bool:
        """Whether any patch is for training: statistics are then of those alone."""
        return any(patch.split == "train" for patch in self.patches)

    def shards(self) -> list[tuple[int, int]]:
        """First patch and number of patches of every shard."""
        n, size = self.layout.n_patches, self.layout.shard
        return [(first, min(size, n - first)) for first in range(0, n, size)]

    @property
    def plan_line(self) -> JsonObject:
        """The journal's first line, and one of every run's segments."""
        return {
            "kind": "plan",
            "config_sha256": self.config_sha256,
            "cells": len(self.shards()),
            "patches": len(self.patches),
        }

    @cached_property
    def metadata(self) -> dict[str, bytes]:
        """The files of the empty store by name; the root's is another one once the dataset is concluded."""
        return {f"{CUBE}/{key}": data for key, data in patch_metadata(self.layout).items()}

    @cached_property
    def config(self) -> bytes:
        """`config.yaml`."""
        attributes = self.layout.attributes
        whole = {
            "id": self.facts.id,
            "title": self.facts.title,
            "season": attributes["season"],
            "imported": {**attributes["imported"], "notes": list(self.facts.notes)},
            "radiometry": {"level": self.facts.level},
            "bands": list(self.facts.bands),
            "labels": {"arrays": list(self.layout.labels), "taxonomy": self.facts.taxonomy.id},
            "patches": attributes["patches"],
        }
        head = "# What was imported; its patches are in patches.parquet.\n"
        return (head + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)).encode()


def check_facts(facts: OriginalFacts) -> None:
    """Raises ValueError for a name, bands or label arrays that no dataset may have."""
    if not _ID.fullmatch(facts.id):
        raise ValueError(
            f"a dataset is named with lower case letters, digits, '.', '_' and '-', at most 63; got {facts.id!r}"
        )
    unknown = [name for name in facts.bands if name not in bands_of(facts.level)]
    if unknown or len(set(facts.bands)) != len(facts.bands) or not facts.bands:
        raise ValueError(
            f"bands of {facts.level} must be distinct names out of {', '.join(bands_of(facts.level))}; got "
            f"{', '.join(facts.bands) or 'none'}"
        )
    wrong = [name for name in facts.labels if name not in LABEL_ARRAYS]
    if wrong or "crop_type" not in facts.labels:
        raise ValueError(f"label arrays are crop_type and others of {', '.join(LABEL_ARRAYS)}; got {facts.labels}")


def check_index(patches: Sequence[OriginalPatch]) -> None:
    """Raises ValueError for patches that are none, share a name, or whose days do not ascend."""
    if not patches:
        raise ValueError("the original has no patches")
    seen: set[str] = set()
    for patch in patches:
        if patch.name in seen:
            raise ValueError(f"two patches of the original are called {patch.name!r}; a name should be one patch's")
        seen.add(patch.name)
        if len(patch.days) == 0:
            raise ValueError(f"patch {patch.name} has no dates; every patch should have one at least")
        if np.any(np.diff(patch.days) < 0):
            raise ValueError(f"the days of patch {patch.name} should ascend; they are {patch.days.tolist()}")
        if sorted(patch.order.tolist()) != list(range(len(patch.days))):
            raise ValueError(
                f"patch {patch.name} has {len(patch.days)} days, and the places of their frames should be each of 0 to "
                f"{len(patch.days) - 1} once; they are {patch.order.tolist()}"
            )


def _labels(facts: OriginalFacts, patches: Sequence[OriginalPatch]) -> tuple[str, ...]:
    """Label arrays: the original's, and the split where patches belong to one."""
    names = {*facts.labels, *(["split"] if any(patch.split != "none" for patch in patches) else [])}
    return tuple(name for name in LABEL_ARRAYS if name in names)


def _classes(taxonomy: Taxonomy) -> tuple[JsonObject, ...]:
    return tuple(asdict(crop) for crop in sorted(taxonomy.classes, key=lambda crop: crop.index))


def _attributes(
    facts: OriginalFacts, patches: Sequence[OriginalPatch], days: NDArray[np.int32], created: datetime
) -> JsonObject:
    """The root attribute `sits_cube` of an empty store."""
    first, last = (EPOCH + timedelta(days=int(day)) for day in (days[days != NO_DAY].min(), days.max()))
    shard = patches_a_shard(days.shape[1], len(facts.bands), facts.height, facts.width)
    return {
        "version": VERSION,
        "profile": "patches",
        "region": facts.id,
        "season": {"start": first.isoformat(), "end": last.isoformat()},
        "radiometry": {"level": facts.level, "scale": 0.0001, "offset_removed": True, "clamp": 1, "baselines": []},
        "imported": {
            "format": facts.format,
            "chronology": facts.chronology,
            "order": "days ascend; patches.parquet has the position of each frame in the original",
            "parcel_id": "numbers of the original, unique in a patch at least",
            "licence": facts.licence,
            "attribution": facts.attribution,
        },
        "created": created.isoformat().replace("+00:00", "Z"),
        "software": f"sits-cubes {version('sits-cubes')}",
        "complete": False,
        "config_sha256": _config_sha256(facts, patches),
        "cells": {"patches": shard, "count": -(-len(patches) // shard)},
        "patches": {
            "count": len(patches),
            "built": len(patches),
            "dates": int(days.shape[1]),
            "side": facts.width,
        },
        "statistics": None,
    }


def _config_sha256(facts: OriginalFacts, patches: Sequence[OriginalPatch]) -> str:
    """SHA-256 of facts and index, patch by patch; texts that decide no pixel are left out."""
    plain = {
        name: getattr(facts, name)
        for name in ("id", "format", "variant", "level", "bands", "height", "width", "labels")
    }
    classes = _classes(facts.taxonomy)
    digest = hashlib.sha256(
        encode_line({**plain, "chronology": facts.chronology, "classes": classes, "layout": _LAYOUT_VERSION})
    )
    for patch in patches:
        outline = None if patch.outline is None else shapely.to_wkb(patch.outline, hex=True, output_dimension=2)
        place = [outline, patch.epsg, patch.transform]
        row = [patch.name, patch.days.tolist(), patch.order.tolist(), patch.split, patch.fold, *place]
        digest.update(json.dumps([*row, dict(patch.original)], sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
