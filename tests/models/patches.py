"""Patch sets with made-up (simulated) numbers: held in memory, or written by the pipeline as any import is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.pipeline.importers.made_up import FACTS, Silent

from sits_catalog.cube import NO_DAY, Split
from sits_models.data.dataset import CropEntry
from sits_models.data.patch_sets import Patch, PatchSet, PatchSetFacts
from sits_pipeline.importers.original import OriginalFacts, OriginalPatch, PatchPixels
from sits_pipeline.importers.write import import_dataset

BANDS = ("B02", "B04", "B08")
SPLITS = ("train", "train", "train", "validation", "train", "test")
FIRST_DAY = 18_000
RADIOMETRY = {"level": "L2A", "scale": 0.0001, "offset_removed": True, "clamp": 1}
TRAIN, VALIDATION, TEST = Split.TRAIN, Split.VALIDATION, Split.TEST


def entries(*codes: str) -> tuple[CropEntry, ...]:
    return tuple(CropEntry(index=k, code=code, name=code, hcat=None, colour="#808080") for k, code in enumerate(codes))


class Held(PatchSet):
    """Patches in memory, of any sizes; a value says where it is from."""

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        *,
        dates: Sequence[int] | None = None,
        splits: Sequence[Split] | None = None,
        codes: Sequence[str] = (),
        crops: Sequence[NDArray[np.uint16]] | None = None,
        parcels: Sequence[NDArray[np.int64]] | None = None,
        present: Sequence[Sequence[bool]] | None = None,
        path: str = "held",
    ) -> None:
        n = len(sizes)
        dates = [2] * n if dates is None else dates
        days = np.full((n, max(dates)), NO_DAY, np.int32)
        for row, count in zip(days, dates, strict=True):
            row[:count] = FIRST_DAY + 10 * np.arange(count)
        self.crops, self.parcels, self.present, self.reads = crops, parcels, present, list[int]()
        self.facts = PatchSetFacts(
            path=path,
            name="held",
            bands=BANDS,
            sizes=np.array(sizes, np.int64),
            days=days,
            splits=np.array([TRAIN] * n if splits is None else splits, np.uint8),
            classes=entries(*codes),
            dense=present is None,
            radiometry=RADIOMETRY,
            identity=f"hash of {path}",
            simulated=True,
        )

    def image(self, number: int) -> NDArray[np.uint16]:
        """(T, C, H, W): date, band, row and column in the digits, 0 in the first pixel."""
        height, width = self.facts.sizes[number].tolist()
        dates = int((self.facts.days[number] != NO_DAY).sum())
        t, c, y, x = np.indices((dates, len(BANDS), height, width))
        values = 1 + 10_000 * t + 3_000 * c + width * y + x
        values[..., 0, 0] = 0
        return values.astype(np.uint16)

    def read(
        self,
        number: int,
        rows: slice,
        columns: slice,
        dates: NDArray[np.intp],
        bands: NDArray[np.intp] | None = None,
    ) -> Patch:
        self.reads.append(number)
        image = self.image(number)[dates][..., rows, columns]
        return Patch(
            image=image if bands is None else image[:, bands],
            clear=image[:, 0] > 0,
            crop=None if self.crops is None else self.crops[number][rows, columns],
            parcel=None if self.parcels is None else self.parcels[number][rows, columns],
            present=None if self.present is None else np.array(self.present[number]),
        )


@dataclass
class Fields:
    """An original of two halves a patch, each of one of three classes, told by the first band and how it changes."""

    splits: Sequence[str] = SPLITS
    side: int = 24
    dates: int = 4
    id: str = "fields"
    bands: tuple[str, ...] = BANDS

    @property
    def facts(self) -> OriginalFacts:
        names = {"id": self.id, "title": "Fields (simulated)", "bands": self.bands}
        return replace(FACTS, height=self.side, width=self.side, **names)  # type: ignore[arg-type]

    def index(self) -> Sequence[OriginalPatch]:
        found = []
        for number, split in enumerate(self.splits):
            n = self.dates - number % 2
            days = (FIRST_DAY + 5 * number + 30 * np.arange(n)).astype(np.int32)
            name = f"p{number}"
            found.append(OriginalPatch(name=name, days=days, order=np.arange(n, dtype=np.int32), split=split))  # type: ignore[arg-type]
        return found

    def files(self, patch: OriginalPatch) -> Mapping[str, Path]:
        return {}

    def read(self, patch: OriginalPatch) -> PatchPixels:
        rng = np.random.default_rng(int(patch.name[1:]))
        crop = np.empty((self.side, self.side), np.uint16)
        crop[:, : self.side // 2], crop[:, self.side // 2 :] = rng.permutation(3)[:2]
        dn = rng.integers(100, 3000, (len(patch.days), len(self.bands), self.side, self.side)).astype(np.int32)
        dn[:, 0] = 500 + 1000 * crop
        dn[0, :, 0, :2] = 0
        parcel = np.where(crop > 0, crop + 10, 0).astype(np.uint32)
        crop[1, :3] = 65535
        return PatchPixels(dn=dn, labels={"crop_type": crop, "parcel_id": parcel})


def write_fields(out: Path, original: Fields | None = None) -> str:
    """The dataset that the pipeline makes of it."""
    return import_dataset(original or Fields(), str(out), Silent(), threads=1).location
