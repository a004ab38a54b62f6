"""One shard of an import: from the pixels of an original's patches to blocks, and what the journal says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import ARRAYS, Quality, Split
from sits_catalog.sentinel2 import SATURATED
from sits_pipeline.importers.dataset import ImportedDataset
from sits_pipeline.importers.original import Original, OriginalPatch, PatchPixels
from sits_pipeline.importers.stamps import stamps_of
from sits_pipeline.steps.mask import clear_of
from sits_pipeline.steps.statistics import accumulate
from sits_pipeline.store.patches import PatchLayout, write_patches
from sits_pipeline.values import JsonObject

__all__ = ["StoredPatch", "check_pixels", "import_shard", "to_reflectance"]


@dataclass(frozen=True, kw_only=True)
class StoredPatch:
    """The images of one patch as they are stored."""

    reflectance: NDArray[np.uint16]
    """(time, band, y, x)"""
    quality: NDArray[np.uint8]
    """(time, y, x)"""
    clamped: int
    """Values of observed pixels that were 0 or less and are 1 now."""


def to_reflectance(pixels: PatchPixels) -> StoredPatch:
    """The DN of an original as the contract has them: observed pixels are 1 and more, others 0 in every band.

    Observed is what the original does not mark otherwise; where it has no mark, a pixel with any band above 0: dark
    bands and B10, whose values lie about 0, are no holes. Raises ValueError for a DN above 65535.
    """
    dn = pixels.dn
    top = int(dn.max(initial=0))
    if top > SATURATED:
        raise ValueError(f"a DN should be at most {SATURATED}, got {top}: reflectance x 10000 fits into 16 bits")
    observed = (dn > 0).any(axis=1) if pixels.unobserved is None else ~pixels.unobserved  # (time, y, x)
    low = (dn <= 0) & observed[:, None]
    reflectance = np.where(observed[:, None], np.maximum(dn, 1), 0).astype(np.uint16)
    quality = np.where(observed, Quality.OBSERVED, 0).astype(np.uint8)
    poor = (reflectance == SATURATED).any(axis=1)
    if pixels.defective is not None:
        poor |= pixels.defective & observed
    quality[poor] |= np.uint8(Quality.SATURATED_OR_DEFECTIVE)
    return StoredPatch(reflectance=reflectance, quality=quality, clamped=int(np.count_nonzero(low)))


def check_pixels(pixels: PatchPixels, patch: OriginalPatch, layout: PatchLayout, labels: Sequence[str]) -> None:
    """Raises ValueError where the pixels of a patch do not fit the store: shapes, names and types of label arrays."""
    size = (layout.height, layout.width)
    wanted = (len(patch.days), len(layout.bands), *size)
    if pixels.dn.shape != wanted or pixels.dn.dtype.kind not in "iu":
        raise ValueError(
            f"the pixels should be whole numbers (time, band, y, x) of {wanted}; got {pixels.dn.dtype} of "
            f"{pixels.dn.shape}"
        )
    if sorted(pixels.labels) != sorted(labels):
        raise ValueError(f"the label arrays should be {', '.join(sorted(labels))}; got {', '.join(pixels.labels)}")
    for name, array in pixels.labels.items():
        if array.shape != size or array.dtype != np.dtype(ARRAYS[name].dtype):
            raise ValueError(f"{name} should be {ARRAYS[name].dtype} of {size}; got {array.dtype} of {array.shape}")
    for what in ("unobserved", "defective"):
        mask = getattr(pixels, what)
        if mask is not None and mask.shape != (len(patch.days), *size):
            raise ValueError(f"{what} should be (time, y, x) of {(len(patch.days), *size)}; got {mask.shape}")


def import_shard(original: Original, dataset: ImportedDataset, first: int, count: int) -> JsonObject:
    """Read the patches of a shard, write it in every array and return its journal entry.

    Raises ValueError, with the name of the patch, where its pixels do not fit, and what `Original.read` raises.
    """
    layout = dataset.layout
    blocks, notes = _empty(layout, count), []
    # Before the pixels: a file that changes meanwhile is read again by the next run.
    files = stamps_of(original, dataset.patches[first : first + count])
    for index, patch in enumerate(dataset.patches[first : first + count]):
        pixels = original.read(patch)
        try:
            check_pixels(pixels, patch, layout, dataset.facts.labels)
            stored = to_reflectance(pixels)
        except ValueError as error:
            raise ValueError(f"patch {patch.name}: {error}") from error
        n_dates = len(patch.days)
        blocks["reflectance"][index, :n_dates] = stored.reflectance
        blocks["quality"][index, :n_dates] = stored.quality
        for name, array in pixels.labels.items():
            blocks[name][index] = array
        if "split" in layout.labels and "split" not in pixels.labels:
            blocks["split"][index] = Split[patch.split.upper()]
        notes.append(_notes(stored, pixels.labels["crop_type"]))
    bands = _statistics(dataset, first, blocks)
    written = write_patches(dataset.folder, first, blocks.items())
    return {
        "kind": "cell",
        "cell": [first, count],
        "empty": not any(any(note["observed"]) for note in notes),
        "failures": [],
        "files": files,
        "patches": notes,
        "bands": bands,
        "shards": {key: [shard.size, shard.sha256] for key, shard in written.items()},
    }


def _empty(layout: PatchLayout, count: int) -> dict[str, NDArray[Any]]:
    """Arrays of the shard that are written, all fill value; originals have no `scl` and no `source_index`."""
    sizes = {"time": layout.n_dates, "band": len(layout.bands), "y": layout.height, "x": layout.width}
    blocks = {}
    for name in ("reflectance", "quality", *layout.labels):
        spec = ARRAYS[name]
        blocks[name] = np.full((count, *(sizes[dim] for dim in spec.dims)), spec.fill, spec.dtype)
    return blocks


def _notes(stored: StoredPatch, crop_type: NDArray[Any]) -> JsonObject:
    """What finish needs to know of one patch."""
    classes, pixels = np.unique(crop_type, return_counts=True)
    saturated = (stored.quality & Quality.SATURATED_OR_DEFECTIVE) > 0
    return {
        "observed": ((stored.quality & Quality.OBSERVED) > 0).sum(axis=(1, 2)).tolist(),
        "clear": clear_of(stored.quality).sum(axis=(1, 2)).tolist(),
        "clamped": stored.clamped,
        "saturated": int(np.count_nonzero(saturated)),
        "classes": [[int(index), int(count)] for index, count in zip(classes, pixels, strict=True)],
    }


def _statistics(dataset: ImportedDataset, first: int, blocks: Mapping[str, NDArray[Any]]) -> list[JsonObject]:
    """Sums of each band over clear pixels of the train patches; of all patches where there is no split."""
    reflectance, quality = blocks["reflectance"], blocks["quality"]
    patches = dataset.patches[first : first + len(reflectance)]
    train = np.array([not dataset.has_splits or patch.split == "train" for patch in patches])
    if not train.all():
        reflectance, quality = reflectance[train], quality[train]
    every = reflectance.reshape(-1, *reflectance.shape[2:])  # (patch*time, band, y, x)
    return accumulate(every, clear_of(quality).reshape(-1, *quality.shape[2:]), None)
