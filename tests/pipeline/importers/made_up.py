"""A made-up original dataset: simulated numbers that are written down through the same door as real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import shapely

from sits_catalog.taxonomy import CropClass, Taxonomy
from sits_pipeline.importers.original import OriginalFacts, OriginalPatch, PatchPixels

TAXONOMY = Taxonomy(
    id="two",
    classes=(CropClass(index=1, code="wheat", name="wheat"), CropClass(index=2, code="maize", name="maize")),
)
FACTS = OriginalFacts(
    id="made-up",
    title="A made-up set (simulated)",
    format="pastis",
    level="L2A",
    bands=("B02", "B8A"),
    height=6,
    width=6,
    taxonomy=TAXONOMY,
    chronology="kept",
    licence="CC-BY-4.0",
    attribution="nobody",
    labels=("crop_type", "parcel_id"),
    notes=("Numbers are simulated.",),
)


def made_patch(name: str, days: Sequence[int], **changes: object) -> OriginalPatch:
    """A patch with these days, in the order of its frames."""
    found = np.array(days, np.int32)
    order = np.argsort(found, kind="stable").astype(np.int32)
    patch = OriginalPatch(name=name, days=found[order], order=order, original={"file": f"{name}.npy"})
    return replace(patch, **changes)  # type: ignore[arg-type]


def made_patches(n: int) -> tuple[OriginalPatch, ...]:
    """Patches with two or three dates each; the first trains, the second tests, the others have no split."""
    splits = {0: "train", 1: "test"}
    outline = shapely.box(3.0, 43.0, 3.1, 43.1)
    return tuple(
        made_patch(
            f"p{index}",
            [17800, 17805, 17805][: 2 + index % 2],
            split=splits.get(index, "none"),
            fold=index + 1 if index < 2 else None,
            outline=outline if index == 0 else None,
        )
        for index in range(n)
    )


@dataclass
class MadeUp:
    """An original that computes its pixels from the names of its patches."""

    patches: Sequence[OriginalPatch] = field(default_factory=lambda: made_patches(3))
    facts: OriginalFacts = FACTS
    reads: list[str] = field(default_factory=list)
    """Names of the patches that were read."""
    folder: Path | None = None
    """Has a file a patch, which the pixels depend on in tests that change them."""

    def index(self) -> Sequence[OriginalPatch]:
        return self.patches

    def files(self, patch: OriginalPatch) -> Mapping[str, Path]:
        return {} if self.folder is None else {f"{patch.name}.npy": self.folder / f"{patch.name}.npy"}

    def read(self, patch: OriginalPatch) -> PatchPixels:
        self.reads.append(patch.name)
        facts = self.facts
        rng = np.random.default_rng([ord(letter) for letter in patch.name])
        size = (facts.height, facts.width)
        dn = rng.integers(100, 5000, (len(patch.days), len(facts.bands), *size)).astype(np.int32)
        dn[0, :, 0, 0] = 0  # not observed
        dn[0, 0, 0, 1] = -7  # dark, but observed in the other band
        labels = {
            "crop_type": rng.choice(np.array([0, 1, 2, 65535], np.uint16), size),
            "parcel_id": rng.integers(0, 9, size).astype(np.uint32),
        }
        return PatchPixels(dn=dn, labels={name: labels[name] for name in facts.labels})


class Silent:
    """A listener that says nothing."""

    def stage(self, text: str) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        pass
