"""A dataset against the contract: its files, its item, and that they agree with each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sits_catalog.checking.patches import PatchGrid, check_patch_arrays, read_patch_grid
from sits_catalog.checking.tables import check_chips, check_parcels, check_patches, check_sources
from sits_catalog.checking.zarr_tree import Grid, check_arrays, guarded, read_grid, read_node
from sits_catalog.cube import PROFILES, VERSION

__all__ = ["check"]

JsonObject = dict[str, Any]

_CUBE = "cube.zarr"
_FINISHED = ("chips.parquet", "sources.parquet", "item.json", "config.yaml", "report.html")
_FINISHED_PATCHES = ("patches.parquet", "sources.parquet", "item.json", "config.yaml", "report.html")
_SITS_CUBE = {
    "version": str,
    "profile": str,
    "region": str,
    "season": dict,
    "radiometry": dict,
    "created": str,
    "software": str,
    "complete": bool,
    "config_sha256": str,
    "cells": dict,
}
_RADIOMETRY = {"level": str, "scale": float, "offset_removed": bool, "clamp": int, "baselines": list}


def check(path: str | Path) -> list[str]:
    """What of the dataset in the local folder `path` breaks the contract, a sentence each; empty: nothing.

    Reads JSON, coordinates and Parquet footers, never pixels: whether those are what was written is for
    `sits-cube verify`. Raises FileNotFoundError where there is no dataset.
    """
    folder = Path(path)
    if not (folder / _CUBE / "zarr.json").is_file():
        raise FileNotFoundError(f"no dataset in {folder}: it has no {_CUBE}/zarr.json; give the folder that holds it")
    return list(guarded(f"{_CUBE}/zarr.json", _check(folder)))


def _check(folder: Path) -> Iterator[str]:
    cube = folder / _CUBE
    root = read_node(cube, "")
    facts = root["attributes"].get("sits_cube")
    if not isinstance(facts, dict):
        yield f"{_CUBE}/zarr.json: the attribute sits_cube is missing, so that this is no sits-cube"
        return
    if facts.get("version") != VERSION:
        yield f"{_CUBE}/zarr.json: was written as sits-cube {facts.get('version')}; this program knows {VERSION}"
        return
    if facts.get("profile") not in PROFILES:
        yield f"{_CUBE}/zarr.json: the profile {facts.get('profile')!r} is none of {', '.join(PROFILES)}"
        return
    yield from guarded(f"{_CUBE}/zarr.json", _check_facts(facts))
    if facts["profile"] == "patches":
        yield from _check_patches(folder, root, facts)
        return
    grid, findings = read_grid(cube, root, has_labels=(folder / "parcels.parquet").exists() or None)
    yield from findings
    if grid is None:
        return
    yield from check_arrays(cube, grid)
    yield from _check_files(folder, facts, grid)


def _check_patches(folder: Path, root: JsonObject, facts: JsonObject) -> Iterator[str]:
    """A dataset of the profile `patches`."""
    grid, findings = read_patch_grid(folder / _CUBE, root)
    yield from findings
    if grid is None:
        return
    yield from check_patch_arrays(folder / _CUBE, grid)
    finished, sentence = _is_finished(folder, facts)
    yield from sentence
    if not finished:
        return
    for name in _FINISHED_PATCHES:
        # What was imported has no source items.
        if not (folder / name).is_file() and not (grid.imported and name == "sources.parquet"):
            yield f"{name}: missing"
    if (folder / "patches.parquet").is_file():
        found = check_patches(folder / "patches.parquet", grid.n_patches, grid.n_dates, imported=grid.imported)
        yield from guarded("patches.parquet", found)
    if (folder / "sources.parquet").is_file():
        yield from guarded("sources.parquet", check_sources(folder / "sources.parquet", grid.n_dates))
    item = _read_item(folder)
    if isinstance(item, str):
        yield item
    elif item is not None:
        yield from guarded("item.json", _check_patches_item(folder, item, grid, facts))


def _check_facts(facts: JsonObject) -> Iterator[str]:
    """The attribute `sits_cube`."""
    where = f"{_CUBE}/zarr.json: sits_cube"
    yield from _check_types(where, facts, _SITS_CUBE)
    yield from _check_types(f"{where}.radiometry", facts.get("radiometry", {}), _RADIOMETRY)
    season = facts.get("season", {})
    if not str(season.get("start")) <= str(season.get("end")):
        yield f"{where}.season: starts on {season.get('start')}, after it ends on {season.get('end')}"
    digest = str(facts.get("config_sha256"))
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        yield f"{where}.config_sha256: {digest!r} is no SHA-256 in hex digits"
    if facts.get("complete") is True and not isinstance(facts.get("statistics"), dict):
        yield f"{where}.statistics: missing, although the cube is said to be complete"


def _check_types(where: str, values: JsonObject, wanted: dict[str, type]) -> Iterator[str]:
    for key, kind in wanted.items():
        if key not in values:
            yield f"{where}.{key}: missing"
        elif not isinstance(values[key], kind) and not (kind is float and isinstance(values[key], int)):
            yield f"{where}.{key}: should be {kind.__name__}, got {values[key]!r}"


# Files


def _check_files(folder: Path, facts: JsonObject, grid: Grid) -> Iterator[str]:
    finished, sentence = _is_finished(folder, facts)
    yield from sentence
    if not finished:
        return
    wanted = [*_FINISHED, *(["parcels.parquet"] if grid.has_labels else [])]
    for name in sorted(wanted):
        if not (folder / name).is_file():
            yield f"{name}: missing"
    item = _read_item(folder)
    region = str(facts.get("region"))
    # A region over several zones numbers its parcels once for all of them, so that one zone's may have gaps.
    one_zone = not isinstance(item, dict) or item.get("id") == region
    if (folder / "chips.parquet").is_file():
        yield from guarded("chips.parquet", check_chips(folder / "chips.parquet", grid))
    if (folder / "sources.parquet").is_file():
        yield from guarded("sources.parquet", check_sources(folder / "sources.parquet", grid.n_dates))
    if grid.has_labels and (folder / "parcels.parquet").is_file():
        yield from guarded("parcels.parquet", check_parcels(folder / "parcels.parquet", grid, dense=one_zone))
    if isinstance(item, str):
        yield item
    elif item is not None:
        yield from guarded("item.json", _check_item(folder, item, grid, facts))


def _is_finished(folder: Path, facts: JsonObject) -> tuple[bool, list[str]]:
    """Whether the files beside the cube are to be looked at, and what there is to say where its journal is missing."""
    if (folder / "journal.jsonl").is_file():
        return True, []
    if facts.get("complete") is True:
        return True, ["journal.jsonl: missing, although the cube is said to be complete"]
    return False, ["journal.jsonl: missing, the build has not finished; run the same sits-build command to go on"]


def _read_item(folder: Path) -> JsonObject | str | None:
    """The item; a sentence where it is damaged; None where it is missing."""
    try:
        item = json.loads((folder / "item.json").read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        return f"item.json: is no JSON ({error})"
    return item if isinstance(item, dict) else "item.json: should be a JSON object"


def _check_patches_item(folder: Path, item: JsonObject, grid: PatchGrid, facts: JsonObject) -> Iterator[str]:
    for key, wanted in (("type", "Feature"), ("stac_version", "1.1.0"), ("id", facts.get("region"))):
        if item.get(key) != wanted:
            yield f"item.json: {key} should be {wanted!r}, got {item.get(key)!r}"
    dimensions = item["properties"]["cube:dimensions"]
    if dimensions["band"].get("values") != list(grid.bands):
        yield "item.json: cube:dimensions lists other bands than the cube has"
    if dimensions["patch"].get("extent") != [0, grid.n_patches - 1]:
        yield f"item.json: cube:dimensions does not span the {grid.n_patches} patches"
    yield from _check_assets(folder, item["assets"])


def _check_item(folder: Path, item: JsonObject, grid: Grid, facts: JsonObject) -> Iterator[str]:
    for key, text in (("type", "Feature"), ("stac_version", "1.1.0")):
        if item.get(key) != text:
            yield f"item.json: {key} should be {text!r}, got {item.get(key)!r}"
    region, id_ = str(facts.get("region")), str(item.get("id"))
    if id_ not in (region, f"{region}-{grid.epsg}"):
        yield f"item.json: the id {id_!r} is not that of region {region!r}"
    properties = item["properties"]
    expected = {
        "proj:code": f"EPSG:{grid.epsg}",
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.transform),
    }
    for key, value in expected.items():
        if properties.get(key) != value:
            yield f"item.json: {key} is {properties.get(key)!r}, the cube's is {value!r}"
    if properties.get("cube:dimensions", {}).get("band", {}).get("values") != list(grid.bands):
        yield "item.json: cube:dimensions lists other bands than the cube has"
    if len(properties.get("cube:dimensions", {}).get("time", {}).get("values", ())) != grid.n_dates:
        yield f"item.json: cube:dimensions does not list the cube's {grid.n_dates} dates"
    yield from _check_assets(folder, item["assets"])


def _check_assets(folder: Path, assets: JsonObject) -> Iterator[str]:
    if "cube" not in assets:
        yield "item.json: the asset 'cube' is missing"
    for name, asset in sorted(assets.items()):
        yield from _check_asset(folder, name, asset)


def _check_asset(folder: Path, name: str, asset: JsonObject) -> Iterator[str]:
    href = str(asset["href"])
    target = (folder / href).resolve()
    if "://" in href or not target.is_relative_to(folder.resolve()):
        yield f"item.json: the asset {name!r} lies outside of the dataset: {href}"
    elif not target.exists():
        yield f"item.json: the asset {name!r} points to {href}, which does not exist"
    elif "file:size" in asset and target.stat().st_size != asset["file:size"]:
        yield f"item.json: {href} has {target.stat().st_size} bytes, the item says {asset['file:size']}"
