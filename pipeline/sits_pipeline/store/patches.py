"""The Zarr store of many small places: arrays with a leading dimension `patch`, whole shards of a few patches each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.storage import MemoryStore

from sits_catalog.cube import (
    ARRAYS,
    BACKGROUND,
    IGNORE,
    LABEL_ARRAYS,
    NO_DAY,
    Conflict,
    Quality,
    Split,
    patches_a_shard,
)
from sits_catalog.sentinel2 import L1C_BANDS, Scl
from sits_pipeline.folder import Folder
from sits_pipeline.store.group import CUBE, check_readable, open_cube, read_attributes, store_of
from sits_pipeline.store.layout import COMPRESSOR, ROOT
from sits_pipeline.store.write import FUSED_PIPELINE, HashingStore, Written
from sits_pipeline.values import JsonObject

__all__ = [
    "IMAGES",
    "PatchLayout",
    "conclude_patches",
    "create_patches",
    "patch_metadata",
    "read_patch_layout",
    "read_patches",
    "write_patches",
]

IMAGES = ("reflectance", "scl", "quality", "source_index")
"""Arrays of every set, each with a leading dimension `patch`."""


@dataclass(frozen=True, kw_only=True)
class PatchLayout:
    """All that decides the metadata of an empty store of patches."""

    days: NDArray[np.int32]
    """(patch, time): days since 1970-01-01, NO_DAY for padding."""
    bands: tuple[str, ...]
    height: int
    """Pixels of every patch."""
    width: int
    attributes: JsonObject
    """The root attribute `sits_cube`."""
    labels: tuple[str, ...] = ()
    """Label arrays that there are, names of LABEL_ARRAYS."""
    classes: tuple[JsonObject, ...] = ()
    """Rows {index, code, name, hcat, colour} of the class table of `crop_type`."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.labels if name not in LABEL_ARRAYS]
        if unknown or len(set(self.labels)) != len(self.labels):
            raise ValueError(
                f"label arrays must be distinct names out of {', '.join(LABEL_ARRAYS)}; got {', '.join(self.labels)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """All pixel arrays, in the order of the contract."""
        return tuple(name for name in ARRAYS if name in {*IMAGES, *self.labels})

    @property
    def n_patches(self) -> int:
        """Patches, those without a date included."""
        return int(self.days.shape[0])

    @property
    def n_dates(self) -> int:
        """Dates a patch at most."""
        return int(self.days.shape[1])

    @property
    def shard(self) -> int:
        """Patches in a shard."""
        return patches_a_shard(self.n_dates, len(self.bands), self.height, self.width)

    def with_attributes(self, changes: Mapping[str, Any]) -> PatchLayout:
        """The layout with these entries of `sits_cube` changed."""
        return replace(self, attributes={**self.attributes, **changes})


def patch_metadata(layout: PatchLayout) -> dict[str, bytes]:
    """Every file of an empty store by its key inside of `cube.zarr`: metadata, days and names of the bands."""
    store = MemoryStore()
    root = {
        "Conventions": "CF-1.12",
        "band_names": list(layout.bands),
        "coordinates": "day",
        "sits_cube": layout.attributes,
    }
    zarr.create_group(store, attributes=root)
    for name in layout.names:
        _create_array(store, name, layout)
    _create_coordinates(store, layout)
    with warnings.catch_warnings():
        # Not in the Zarr v3 specification yet; readers that do not know it ignore it.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(store)
    return {key: value.to_bytes() for key, value in store._store_dict.items()}


def _create_array(store: Store, name: str, layout: PatchLayout) -> None:
    spec = ARRAYS[name]
    sizes = {"time": layout.n_dates, "band": len(layout.bands), "y": layout.height, "x": layout.width}
    inner = tuple(sizes[dim] for dim in spec.dims)
    zarr.create_array(
        store,
        name=name,
        shape=(layout.n_patches, *inner),
        chunks=(1, *inner),
        shards=(layout.shard, *inner),
        dtype=spec.dtype,
        fill_value=spec.fill,
        compressors=COMPRESSOR,
        dimension_names=("patch", *spec.dims),
        attributes={"long_name": _meaning(name, layout), **_attributes(name, layout)},
    )


def _meaning(name: str, layout: PatchLayout) -> str:
    """What an array holds."""
    meaning = ARRAYS[name].meaning
    if _level(layout) == "L1C":
        meaning = meaning.replace("bottom-of-atmosphere", "top-of-atmosphere")
    if name == "parcel_id" and "imported" in layout.attributes:
        return "number of the parcel in the original dataset"
    return meaning


def _attributes(name: str, layout: PatchLayout) -> JsonObject:
    """CF attributes; `_FillValue` on reflectance alone, since xarray turns integers that have one into floats."""
    kinds: dict[str, JsonObject] = {
        "reflectance": {
            "_FillValue": 0,
            "scale_factor": 0.0001,
            "add_offset": 0.0,
            "units": "1",
            "standard_name": _STANDARD_NAMES[_level(layout)],
            "band_names": list(layout.bands),
        },
        "scl": _flags("flag_values", Scl),
        "quality": {**_flags("flag_masks", Quality), "standard_name": "quality_flag"},
        "crop_type": {"classes": list(layout.classes), "ignore": IGNORE, "background": BACKGROUND},
        "coverage": {"comment": "share of the pixel x 255, rounded up from 0"},
        "boundary_distance": {"units": "dm", "comment": "positive inside parcels; saturates at +-1000"},
        "conflict": _flags("flag_masks", Conflict),
        "split": _flags("flag_values", Split),
    }
    return kinds.get(name, {})


def _flags(key: str, kind: type[IntEnum] | type[IntFlag]) -> JsonObject:
    return {key: [int(flag) for flag in kind], "flag_meanings": " ".join(str(flag.name).lower() for flag in kind)}


def _level(layout: PatchLayout) -> str:
    return str(layout.attributes.get("radiometry", {}).get("level", "L2A"))


_STANDARD_NAMES = {"L2A": "surface_bidirectional_reflectance", "L1C": "toa_bidirectional_reflectance"}
"""CF standard names by level."""


def _create_coordinates(store: Store, layout: PatchLayout) -> None:
    # Without CF units: xarray would decode padding into a date that does not exist.
    meaning: JsonObject = {"long_name": "solar day of the pass, days since 1970-01-01", "padding": NO_DAY}
    days = zarr.create_array(
        store,
        name="day",
        shape=layout.days.shape,
        dtype="int32",
        chunks=layout.days.shape,
        compressors=None,
        fill_value=NO_DAY,
        dimension_names=("patch", "time"),
        attributes=meaning,
        config={"write_empty_chunks": True},
    )
    days[...] = layout.days
    wavelengths = [L1C_BANDS[name].centre_nm for name in layout.bands]
    bands = zarr.create_array(
        store,
        name="band",
        shape=(len(layout.bands),),
        dtype="str",
        chunks=(len(layout.bands),),
        compressors=None,
        dimension_names=("band",),
        attributes={"long_name": "band", "central_wavelength_nm": wavelengths},
        config={"write_empty_chunks": True},
    )
    bands[...] = np.array(layout.bands, dtype=np.dtypes.StringDType())


def create_patches(folder: Folder, layout: PatchLayout) -> None:
    """Write the metadata of an empty store; until all of it is there the root group says `creating`."""
    for name in folder.files(CUBE):
        if name != f"{CUBE}/{ROOT}":
            folder.remove(name)
    creating = {"zarr_format": 3, "node_type": "group", "attributes": {"sits_cube": {"creating": True}}}
    folder.write(f"{CUBE}/{ROOT}", json.dumps(creating).encode())
    files = patch_metadata(layout)
    for key in sorted(files.keys() - {ROOT}):
        folder.write(f"{CUBE}/{key}", files[key])
    folder.write(f"{CUBE}/{ROOT}", files[ROOT])


def conclude_patches(folder: Folder, layout: PatchLayout) -> bytes:
    """Write the root metadata of `layout` in place of those that are there; returns what was written."""
    root = patch_metadata(layout)[ROOT]
    folder.write(f"{CUBE}/{ROOT}", root)
    return root


def write_patches(folder: Folder, first: int, blocks: Iterable[tuple[str, NDArray[Any]]]) -> dict[str, Written]:
    """Write blocks of one shard, its patches from `first` on: (name of the array, values with `patch` leading).

    Returns what was stored, by key inside of `cube.zarr`; a shard that is all fill value is not stored, and one that
    was there before is removed. Raises ValueError where a block is not one whole shard.
    """
    store = HashingStore(store_of(folder, read_only=False))
    with FUSED_PIPELINE, folder.errors_in_words():
        group = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        for name, block in blocks:
            array = _array(group, name)
            shard = (array.shards or array.chunks)[0]
            if first % shard or len(block) != min(shard, array.shape[0] - first):
                raise ValueError(
                    f"a block of {name} must be one whole shard of {shard} patches; got {len(block)} from {first} on "
                    f"of {array.shape[0]}"
                )
            array[first : first + len(block)] = block
    return dict(sorted(store.written.items()))


def read_patches(folder: Folder, name: str, patches: slice) -> NDArray[Any]:
    """Values of an array for some patches, (patch, ...); what was never written is the fill value."""
    with folder.errors_in_words():
        return np.asarray(_array(open_cube(folder), name)[patches])


def read_patch_layout(folder: Folder) -> PatchLayout:
    """What the metadata and coordinates of a store say: days, bands, size, label arrays, classes.

    Raises FileNotFoundError where there is none, ValueError for one of another profile.
    """
    attributes = read_attributes(folder)
    if attributes is None:
        raise FileNotFoundError(f"no dataset in {folder.location}: it has no {CUBE}; give the folder that holds it")
    check_readable(folder, attributes)
    if attributes.get("profile") != "patches":
        raise ValueError(
            f"{folder.location} is of the profile {attributes.get('profile')!r}; this works on the profile 'patches'"
        )
    with folder.errors_in_words():
        group = open_cube(folder)
        reflectance = _array(group, "reflectance")
        labels = tuple(name for name in LABEL_ARRAYS if name in group)
        classes = _array(group, "crop_type").attrs.get("classes", []) if "crop_type" in labels else []
        return PatchLayout(
            days=np.asarray(_array(group, "day")[...], np.int32),
            bands=tuple(str(name) for name in group.attrs["band_names"]),  # type: ignore[union-attr]
            height=reflectance.shape[3],
            width=reflectance.shape[4],
            attributes=attributes,
            labels=labels,
            classes=tuple(dict(row) for row in classes),  # type: ignore[arg-type,union-attr]
        )


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is a group of the cube, not an array")
    return array
