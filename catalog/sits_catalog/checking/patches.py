"""The Zarr tree of the profile `patches` against the contract: every array, and the days."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sits_catalog.checking.zarr_tree import (
    WANTED,
    check_classes,
    check_storage,
    differences,
    guarded,
    read_node,
    read_values,
)
from sits_catalog.cube import ARRAYS, LABEL_ARRAYS, NO_DAY, ArraySpec, patches_a_shard
from sits_catalog.sentinel2 import bands_of

__all__ = ["PatchGrid", "check_patch_arrays", "read_patch_grid"]

JsonObject = dict[str, Any]

_COORDINATES = ("day", "band", "x", "y", "spatial_ref")
"""Arrays that are no pixels; the last three only where an imported set has them."""


_CHRONOLOGIES = ("kept", "restored", "day-of-year")
"""Of the frames of an imported set: as the original has it; put right from other files; lost."""


@dataclass(frozen=True, kw_only=True)
class PatchGrid:
    """What the arrays of a set of patches must fit."""

    n_patches: int
    n_dates: int
    bands: tuple[str, ...]
    height: int
    width: int
    season: tuple[str, str]
    names: tuple[str, ...]
    """Pixel arrays that are there, those of every set always."""
    imported: bool
    """Whether it was an original dataset, which may have two frames of one day."""


def read_patch_grid(cube: Path, root: JsonObject) -> tuple[PatchGrid | None, list[str]]:
    """The grid that `reflectance` states, and what is wrong; None where nothing can be checked against it."""
    where, attributes = "cube.zarr/zarr.json", root["attributes"]
    bands, facts = attributes.get("band_names"), attributes["sits_cube"]
    imported = "imported" in facts
    known = bands_of(str(facts.get("radiometry", {}).get("level")) if imported else "L2A")
    if not bands or not isinstance(bands, list) or set(bands) - known.keys() or len(set(bands)) != len(bands):
        return None, [f"{where}: band_names should list bands out of {', '.join(known)}; got {bands!r}"]
    try:
        n_patches, n_dates, _, height, width = (int(size) for size in read_node(cube, "reflectance")["shape"])
        patches_a_shard(n_dates, len(bands), height, width)
    except (KeyError, TypeError, ValueError, OSError, ZeroDivisionError) as error:
        return None, [f"cube.zarr/reflectance: the grid cannot be understood ({type(error).__name__}: {error})"]
    season = facts.get("season", {})
    grid = PatchGrid(
        n_patches=n_patches,
        n_dates=n_dates,
        bands=tuple(bands),
        height=height,
        width=width,
        season=(str(season.get("start")), str(season.get("end"))),
        names=tuple(name for name in ARRAYS if name not in LABEL_ARRAYS or (cube / name).exists()),
        imported=imported,
    )
    findings = list(_check_imported(where, facts["imported"])) if imported else []
    if not str(attributes.get("Conventions", "")).startswith("CF-"):
        findings.append(f"{where}: Conventions should name the CF version, got {attributes.get('Conventions')!r}")
    return grid, findings


def _check_imported(where: str, imported: Any) -> Iterator[str]:
    """What an imported set says of its original."""
    if not isinstance(imported, dict):
        yield f"{where}: sits_cube.imported should be an object, got {imported!r}"
        return
    for key in ("format", "chronology", "licence", "attribution"):
        if not isinstance(imported.get(key), str):
            yield f"{where}: sits_cube.imported.{key}: should be str, got {imported.get(key)!r}"
    if imported.get("chronology") not in _CHRONOLOGIES:
        yield (
            f"{where}: sits_cube.imported.chronology should be one of {', '.join(_CHRONOLOGIES)}, got "
            f"{imported.get('chronology')!r}"
        )


def check_patch_arrays(cube: Path, grid: PatchGrid) -> Iterator[str]:
    """All arrays below the root."""
    for name in grid.names:
        yield from guarded(f"cube.zarr/{name}/zarr.json", _check_array(cube, ARRAYS[name], grid))
    yield from guarded("cube.zarr/day/zarr.json", _check_days(cube, grid))
    wanted = {"data_type": "string", "dimension_names": ["band"], "shape": [len(grid.bands)]}
    yield from guarded("cube.zarr/band/zarr.json", _check_node(cube, "band", wanted))
    known = {*_COORDINATES, *grid.names}
    for path in sorted(cube.iterdir()):
        if path.is_dir() and path.name not in known:
            yield f"cube.zarr/{path.name}: the contract knows no such array or group"


def _check_node(cube: Path, name: str, wanted: JsonObject) -> Iterator[str]:
    yield from differences(f"cube.zarr/{name}/zarr.json", read_node(cube, name), wanted)


def _check_array(cube: Path, spec: ArraySpec, grid: PatchGrid) -> Iterator[str]:
    where, node = f"cube.zarr/{spec.name}/zarr.json", read_node(cube, spec.name)
    sizes = {"time": grid.n_dates, "band": len(grid.bands), "y": grid.height, "x": grid.width}
    inner = [sizes[dim] for dim in spec.dims]
    shard = patches_a_shard(grid.n_dates, len(grid.bands), grid.height, grid.width)
    wanted = {
        "node_type": "array",
        "dimension_names": ["patch", *spec.dims],
        "data_type": spec.dtype,
        "fill_value": spec.fill,
        "shape": [grid.n_patches, *inner],
    }
    yield from differences(where, node, wanted)
    yield from check_storage(where, node, [1, *inner], [shard, *inner])
    attributes = node["attributes"]
    if spec.name == "reflectance":
        yield from differences(where, attributes, {**WANTED["reflectance"], "band_names": list(grid.bands)})
        return
    for key in ("_FillValue", "scale_factor", "add_offset"):
        if key in attributes:
            yield f"{where}: has {key}, which makes xarray turn {spec.name} into floats; it belongs on reflectance only"
    yield from differences(where, attributes, WANTED.get(spec.name, {}))
    if spec.name == "crop_type":
        yield from check_classes(where, attributes.get("classes"))


def _check_days(cube: Path, grid: PatchGrid) -> Iterator[str]:
    """`day`: ascending in each patch, padding at the end, inside of the season; of imported sets, days may be equal."""
    where, node = "cube.zarr/day", read_node(cube, "day")
    wanted = {
        "data_type": "int32",
        "dimension_names": ["patch", "time"],
        "shape": [grid.n_patches, grid.n_dates],
        "fill_value": NO_DAY,
    }
    yield from differences(f"{where}/zarr.json", node, wanted)
    days = read_values(cube, "day", node).astype(np.int64)
    known = days != NO_DAY
    late = np.where(known, days, np.iinfo(np.int64).max // 2)
    steps = np.diff(late, axis=1)
    wrong = (steps < 0 if grid.imported else steps <= 0) & known[:, 1:]
    wrong |= known[:, 1:] & ~known[:, :-1]
    if wrong.any():
        patch = int(np.flatnonzero(wrong.any(axis=1))[0])
        once = "" if grid.imported else "each once, "
        yield (
            f"{where}: the days of a patch should ascend, {once}padding last; those of patch {patch} are "
            f"{days[patch].tolist()}"
        )
    dates = np.datetime_as_string(days[known].astype("datetime64[D]"))
    outside = [str(day) for day in dates if not grid.season[0] <= day <= grid.season[1]]
    if outside:
        yield f"{where}: {', '.join(outside[:5])} lie outside of the season {grid.season[0]} to {grid.season[1]}"
