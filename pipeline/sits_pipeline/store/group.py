"""A cube's root group: created, opened, its attributes read and changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from sits_catalog.cube import VERSION
from sits_pipeline.folder import Folder, storage_options
from sits_pipeline.store.layout import ROOT, CubeLayout, metadata_files
from sits_pipeline.values import JsonObject

__all__ = [
    *("CUBE", "check_readable", "check_version", "create_cube", "open_cube", "read_attributes", "repair_metadata"),
    *("store_of", "update_attributes"),
]

CUBE = "cube.zarr"
_ELSEWHERE = "choose another --out, or remove that folder"


def open_cube(folder: Folder, *, read_only: bool = True) -> zarr.Group:
    """The root group of a dataset's cube."""
    with folder.errors_in_words():
        try:
            store = store_of(folder, read_only=read_only)
            return zarr.open_group(store, mode="r" if read_only else "r+", zarr_format=3)
        except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:  # of metadata by others
            raise ValueError(f"{folder.location}/{CUBE} has metadata that are none of Zarr: {error}") from error


def read_attributes(folder: Folder) -> JsonObject | None:
    """The attribute `sits_cube` of a dataset's cube; None where there is no cube yet.

    Raises ValueError where something else is in its place, and as `Folder.check` for a store that does not let us in.
    """
    folder.check()
    if not folder.exists(f"{CUBE}/zarr.json"):
        if any(not name.endswith(".partial") for name in folder.files(CUBE)):
            raise ValueError(f"{folder.location}/{CUBE} is no sits-cube: it has no zarr.json; {_ELSEWHERE}")
        return None
    try:
        found = json.loads(folder.read(f"{CUBE}/zarr.json"))["attributes"]["sits_cube"]
        return None if found.get("creating") else dict(found)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            f"{folder.location}/{CUBE} is no sits-cube: its zarr.json does not say so; {_ELSEWHERE}"
        ) from None


def check_version(folder: Folder, attributes: JsonObject) -> None:
    """Raises ValueError where another release wrote the dataset; `attributes` is its `sits_cube`."""
    if attributes.get("version") != VERSION:
        raise ValueError(
            f"{folder.location} was written as sits-cube {attributes.get('version')}, this program writes {VERSION}; "
            "use the matching release, or choose another --out"
        )


def check_readable(folder: Folder, attributes: JsonObject) -> None:
    """Raises ValueError where a dataset is of a version with other rules: the number before the point is another."""
    found = str(attributes.get("version"))
    if found.partition(".")[0] != VERSION.partition(".")[0]:
        raise ValueError(
            f"{folder.location} was written as sits-cube {found}, this program reads {VERSION}; "
            "use the matching release"
        )


def update_attributes(folder: Folder, layout: CubeLayout, changes: Mapping[str, Any]) -> bytes:
    """Write the root metadata of `layout` with these entries of `sits_cube` changed; returns what was written.

    Nothing is taken over from the file that is there, so that damage to it ends here.
    """
    root = metadata_files(replace(layout, attributes={**layout.attributes, **changes}))[ROOT]
    folder.write(f"{CUBE}/{ROOT}", root)
    return root


def store_of(folder: Folder, *, read_only: bool) -> Store:
    """The Zarr store of a dataset's cube."""
    cube = folder.sub(CUBE)
    if cube.is_local:
        return LocalStore(cube.path, read_only=read_only)
    return FsspecStore.from_url(cube.location, storage_options=storage_options(cube.location), read_only=read_only)


def create_cube(folder: Folder, layout: CubeLayout) -> None:
    """Write the metadata of an empty cube; until all of it is there the root group says `creating`."""
    for name in folder.files(CUBE):
        # What an interrupted creation left goes first, its root last: as long as that stands, it says `creating`.
        if name != f"{CUBE}/{ROOT}":
            folder.remove(name)
    creating = {"zarr_format": 3, "node_type": "group", "attributes": {"sits_cube": {"creating": True}}}
    folder.write(f"{CUBE}/{ROOT}", json.dumps(creating).encode())
    files = metadata_files(layout)
    for key in sorted(files.keys() - {ROOT}):
        folder.write(f"{CUBE}/{key}", files[key])
    folder.write(f"{CUBE}/{ROOT}", files[ROOT])


def repair_metadata(folder: Folder, files: Mapping[str, bytes]) -> list[str]:
    """Write each of these `metadata_files`, but the root, that is missing or differs; returns their keys."""
    damaged = [key for key in sorted(files.keys() - {ROOT}) if not _holds(folder, f"{CUBE}/{key}", files[key])]
    for key in damaged:
        folder.write(f"{CUBE}/{key}", files[key])
    return damaged


def _holds(folder: Folder, name: str, data: bytes) -> bool:
    try:
        return folder.read(name) == data
    except FileNotFoundError:
        return False
