"""The Zarr tree of a cube against the contract: the metadata of every node, and the coordinates' values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_catalog.conventions import georeference
from sits_catalog.cube import (
    ARRAYS,
    FINER_ARRAYS,
    IGNORE,
    LABEL_ARRAYS,
    LATTICE_M,
    OVERVIEW_FACTOR,
    PIXEL_M,
    ArraySpec,
    Conflict,
    Quality,
    Split,
    inner_chunk,
    lattice_anchor_y,
    shard_side,
)
from sits_catalog.sentinel2 import BANDS, Scl

__all__ = [
    "WANTED",
    "Grid",
    "check_arrays",
    "check_classes",
    "check_storage",
    "differences",
    "guarded",
    "read_grid",
    "read_node",
    "read_values",
]

JsonObject = dict[str, Any]

_COORDINATES = ("time", "sensing_time", "band", "x", "y", "spatial_ref")
_DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What the arrays of a cube must fit."""

    epsg: int
    transform: tuple[float, ...]
    """Affine [a, b, c, d, e, f] of pixel corners."""
    shape: tuple[int, int]
    """Height and width, pixels."""
    bands: tuple[str, ...]
    n_dates: int
    season: tuple[str, str]
    has_labels: bool

    def scaled(self, up: int, down: int) -> tuple[tuple[float, ...], tuple[int, int]]:
        """Transform and shape of a lattice with `up` / `down` pixels a pixel of the cube."""
        a, b, c, d, e, f = self.transform
        height, width = (-(-size * up // down) for size in self.shape)
        return (a * down / up, b, c, d, e * down / up, f), (height, width)


def guarded(name: str, findings: Iterable[str]) -> Iterator[str]:
    """The findings, and one more where metadata are so broken that a check itself fails."""
    try:
        yield from findings
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OSError, OverflowError) as error:
        yield f"{name}: cannot be understood ({type(error).__name__}: {error})"


def read_node(cube: Path, node: str) -> JsonObject:
    """`zarr.json` of a node. Raises ValueError where it is no JSON object of Zarr v3, OSError where it is missing."""
    value = json.loads((cube / node / "zarr.json").read_bytes())
    if not isinstance(value, dict) or value.get("zarr_format") != 3 or not isinstance(value.get("attributes"), dict):
        raise ValueError("should be the metadata of a Zarr v3 node with attributes")
    return value


# Grid


def read_grid(cube: Path, root: JsonObject, *, has_labels: bool | None) -> tuple[Grid | None, list[str]]:
    """The grid that the root group states, and what is wrong with it; None where nothing can be checked against it.

    `has_labels` None: whether any label array is there.
    """
    where, attributes = "cube.zarr/zarr.json", root["attributes"]
    code = str(attributes.get("proj:code"))
    match = re.fullmatch(r"EPSG:(32[67](?:0[1-9]|[1-5]\d|60))", code)
    if match is None:
        return None, [f"{where}: proj:code should be a WGS 84 / UTM zone, got {code!r}"]
    bands = attributes.get("band_names")
    if not bands or not isinstance(bands, list) or set(bands) - BANDS.keys() or len(set(bands)) != len(bands):
        return None, [f"{where}: band_names should list bands out of {', '.join(BANDS)}; got {bands!r}"]
    try:
        transform = tuple(float(value) for value in attributes["spatial:transform"])
        height, width = (int(size) for size in attributes["spatial:shape"])
        n_dates = int(read_node(cube, "time")["shape"][0])
        shard_side(n_dates, len(bands))
    except (KeyError, TypeError, ValueError, IndexError, OSError) as error:
        return None, [f"{where}: the grid cannot be understood ({type(error).__name__}: {error})"]
    season = attributes["sits_cube"].get("season", {})
    grid = Grid(
        epsg=int(match[1]),
        transform=transform,
        shape=(height, width),
        bands=tuple(bands),
        n_dates=n_dates,
        season=(str(season.get("start")), str(season.get("end"))),
        has_labels=any((cube / name).exists() for name in LABEL_ARRAYS) if has_labels is None else has_labels,
    )
    findings = [*_check_lattice(where, grid), *_check_georeference(where, attributes, grid.epsg, transform, grid.shape)]
    if not str(attributes.get("Conventions", "")).startswith("CF-"):
        findings.append(f"{where}: Conventions should name the CF version, got {attributes.get('Conventions')!r}")
    return grid, findings


def _check_lattice(where: str, grid: Grid) -> Iterator[str]:
    a, b, left, d, e, top = grid.transform
    if (a, b, d, e) != (PIXEL_M, 0, 0, -PIXEL_M):
        yield f"{where}: pixels should be {PIXEL_M} m, north up; spatial:transform is {list(grid.transform)}"
    anchor = lattice_anchor_y(grid.epsg)
    if left % LATTICE_M or top % LATTICE_M != anchor:
        yield (
            f"{where}: the corner ({left:.12g}, {top:.12g}) is not on the lattice: "
            f"x must be a multiple of {LATTICE_M} m, y {anchor} modulo {LATTICE_M}"
        )
    if any(size <= 0 or size * PIXEL_M % LATTICE_M for size in grid.shape):
        yield f"{where}: the extent must be a multiple of {LATTICE_M} m, spatial:shape is {list(grid.shape)}"


def _check_georeference(
    where: str, attributes: JsonObject, epsg: int, transform: Sequence[float], shape: tuple[int, int]
) -> Iterator[str]:
    """The `proj:` and `spatial:` conventions of one node."""
    wanted = georeference(epsg, transform, shape)
    conventions = wanted.pop("zarr_conventions")
    found = attributes.get("zarr_conventions")
    # A convention is known by its UUID; its name has changed before.
    uuids = {entry.get("uuid") for entry in found} if isinstance(found, list) else set()
    for convention in conventions:
        if convention["uuid"] not in uuids:
            yield f"{where}: zarr_conventions should list {convention['name']!r} with uuid {convention['uuid']}"
    for key, value in wanted.items():
        if attributes.get(key) != value:
            yield f"{where}: {key} should be {value!r}, got {attributes.get(key)!r}"


# Arrays


def check_arrays(cube: Path, grid: Grid) -> Iterator[str]:
    """All groups and arrays below the root."""
    labels = set(LABEL_ARRAYS)
    specs = [spec for spec in ARRAYS.values() if grid.has_labels or spec.name not in labels]
    shard = shard_side(grid.n_dates, len(grid.bands))
    yield from _check_group(cube, "", grid, specs, (1, 1), shard)
    yield from _check_group(
        cube,
        "overview",
        grid,
        [ARRAYS["reflectance"], ARRAYS["quality"]],
        (1, OVERVIEW_FACTOR),
        shard // OVERVIEW_FACTOR,
    )
    finer = sorted(path.name for path in cube.glob("labels_x*") if path.is_dir())
    for name in finer:
        if name not in ("labels_x2", "labels_x4"):
            yield f"cube.zarr/{name}: finer labels are labels_x2 or labels_x4"
            continue
        factor = int(name[-1])
        yield from _check_group(cube, name, grid, [ARRAYS[n] for n in FINER_ARRAYS], (factor, 1), shard * factor)
    known = {*_COORDINATES, *(spec.name for spec in specs), "overview", *finer}
    for path in sorted(cube.iterdir()):
        if path.is_dir() and path.name not in known:
            yield f"cube.zarr/{path.name}: the contract knows no such array or group"


def _check_group(
    cube: Path, group: str, grid: Grid, specs: Sequence[ArraySpec], scale: tuple[int, int], shard: int
) -> Iterator[str]:
    where, prefix = f"cube.zarr/{group}".rstrip("/"), f"{group}/" if group else ""
    transform, shape = grid.scaled(*scale)
    if group:
        yield from guarded(f"{where}/zarr.json", _check_subgroup(cube, group, grid, transform, shape))
    for spec in specs:
        found = _check_array(cube, prefix + spec.name, spec, grid, transform, shape, shard)
        yield from guarded(f"{where}/{spec.name}/zarr.json", found)
    names = [n for n in _COORDINATES if not (group.startswith("labels") and n in ("time", "sensing_time", "band"))]
    for name in names:
        found = _COORDINATE_CHECKS[name](cube, prefix + name, grid, transform, shape)
        yield from guarded(f"{where}/{name}/zarr.json", found)


def _check_subgroup(
    cube: Path, group: str, grid: Grid, transform: Sequence[float], shape: tuple[int, int]
) -> Iterator[str]:
    node = read_node(cube, group)
    where = f"cube.zarr/{group}/zarr.json"
    if node.get("node_type") != "group":
        yield f"{where}: should be a group"
    yield from _check_georeference(where, node["attributes"], grid.epsg, transform, shape)


def _check_array(
    cube: Path,
    path: str,
    spec: ArraySpec,
    grid: Grid,
    transform: Sequence[float],
    shape: tuple[int, int],
    shard: int,
) -> Iterator[str]:
    where, node = f"cube.zarr/{path}/zarr.json", read_node(cube, path)
    sizes = {"time": grid.n_dates, "band": len(grid.bands), "y": shape[0], "x": shape[1]}
    dates, bands, side, _ = inner_chunk(grid.n_dates, len(grid.bands))
    whole = -(-grid.n_dates // dates) * dates
    if path.startswith("overview/"):
        dates, side, whole = 1, shard, grid.n_dates
    inner = {"time": dates, "band": bands, "y": side, "x": side}
    outer = {"time": whole, "band": bands, "y": shard, "x": shard}
    yield from differences(
        where,
        node,
        {
            "node_type": "array",
            "dimension_names": list(spec.dims),
            "data_type": spec.dtype,
            "fill_value": spec.fill,
            "shape": [sizes[dim] for dim in spec.dims],
        },
    )
    yield from check_storage(where, node, [inner[dim] for dim in spec.dims], [outer[dim] for dim in spec.dims])
    yield from _check_georeference(where, node["attributes"], grid.epsg, transform, shape)
    yield from _check_attributes(where, node["attributes"], spec.name, grid)


def differences(where: str, found: JsonObject, wanted: JsonObject) -> Iterator[str]:
    """Each key of `wanted` whose value is another one in `found`."""
    for key, value in wanted.items():
        if found.get(key) != value:
            yield f"{where}: {key} should be {value!r}, got {found.get(key)!r}"


def check_storage(where: str, node: JsonObject, inner: list[int], outer: list[int]) -> Iterator[str]:
    """Shard, inner chunk and codecs."""
    shards = node["chunk_grid"]["configuration"]["chunk_shape"]
    if node["chunk_grid"]["name"] != "regular" or shards != outer:
        yield f"{where}: a shard should be {outer}, got {shards}"
    codecs = node["codecs"]
    if [codec["name"] for codec in codecs] != ["sharding_indexed"]:
        yield f"{where}: codecs should be sharding_indexed alone, got {[codec['name'] for codec in codecs]}"
        return
    sharding = codecs[0]["configuration"]
    if sharding["chunk_shape"] != inner:
        yield f"{where}: an inner chunk should be {inner}, got {sharding['chunk_shape']}"
    names = [codec["name"] for codec in sharding["codecs"]]
    blosc = sharding["codecs"][-1].get("configuration", {})
    if names != ["bytes", "blosc"] or (blosc.get("cname"), blosc.get("shuffle")) != ("zstd", "bitshuffle"):
        yield f"{where}: inner chunks should be bytes, then blosc with zstd and bitshuffle; got {sharding['codecs']}"
    index = [codec["name"] for codec in sharding.get("index_codecs", ())]
    if index != ["bytes", "crc32c"]:
        yield f"{where}: the shard index should end with crc32c, got {index}"


def _check_attributes(where: str, attributes: JsonObject, name: str, grid: Grid) -> Iterator[str]:
    """CF attributes, flags and classes."""
    if attributes.get("grid_mapping") != "spatial_ref":
        yield f"{where}: grid_mapping should be 'spatial_ref', got {attributes.get('grid_mapping')!r}"
    wanted = WANTED.get(name, {})
    if name == "reflectance":
        wanted = {**wanted, "band_names": list(grid.bands)}
    else:
        for key in ("_FillValue", "scale_factor", "add_offset"):
            if key in attributes:
                yield f"{where}: has {key}, which makes xarray turn {name} into floats; it belongs on reflectance only"
    yield from differences(where, attributes, wanted)
    if name == "crop_type" and "/labels_x" not in where:
        yield from check_classes(where, attributes.get("classes"))


def _flags(kind: type[IntFlag] | type[IntEnum], key: str) -> JsonObject:
    return {
        key: [int(flag) for flag in kind],
        "flag_meanings": " ".join(str(flag.name).lower() for flag in kind),
    }


WANTED: dict[str, JsonObject] = {
    "reflectance": {"_FillValue": 0, "scale_factor": 0.0001, "add_offset": 0.0, "units": "1"},
    "quality": _flags(Quality, "flag_masks"),
    "conflict": _flags(Conflict, "flag_masks"),
    "scl": _flags(Scl, "flag_values"),
    "split": _flags(Split, "flag_values"),
    "boundary_distance": {"units": "dm"},
}
"""Attributes of an array, by its name."""


def check_classes(where: str, classes: Any) -> Iterator[str]:
    """The class table of `crop_type`."""
    if not isinstance(classes, list):
        yield f"{where}: the class table `classes` is missing"
        return
    indices = [row["index"] for row in classes]
    if len(set(indices)) != len(indices) or any(not 0 < index < IGNORE for index in indices):
        yield f"{where}: the indices of the classes should be distinct and in 1..{IGNORE - 1}, got {indices}"
    for row in classes:
        if set(row) != {"index", "code", "name", "hcat", "colour"}:
            yield f"{where}: a class should have index, code, name, hcat and colour; got {sorted(row)}"
        elif not re.fullmatch(r"#[0-9a-fA-F]{6}", str(row["colour"])):
            yield f"{where}: the colour of class {row['index']} should look like #1a2b3c, got {row['colour']!r}"


# Coordinates


def read_values(cube: Path, path: str, node: JsonObject) -> NDArray[Any]:
    """A coordinate that is stored as one uncompressed chunk. Raises ValueError where it is not."""
    codecs = [codec["name"] for codec in node["codecs"]]
    shape = [int(size) for size in node["shape"]]
    if codecs != ["bytes"] or node["chunk_grid"]["configuration"]["chunk_shape"] != shape:
        raise ValueError(f"a coordinate should be one uncompressed chunk, got {codecs}")
    dtype = np.dtype(node["data_type"]).newbyteorder("<")
    key = cube / path / "c" / "/".join("0" for _ in shape)
    data = key.read_bytes()
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"its chunk has {len(data)} bytes, {math.prod(shape) * dtype.itemsize} were expected")
    return np.frombuffer(data, dtype).reshape(shape)


def _check_x(cube: Path, path: str, grid: Grid, transform: Sequence[float], shape: tuple[int, int]) -> Iterator[str]:
    del grid
    yield from _check_axis(cube, path, transform[2], transform[0], shape[1], "x")


def _check_y(cube: Path, path: str, grid: Grid, transform: Sequence[float], shape: tuple[int, int]) -> Iterator[str]:
    del grid
    yield from _check_axis(cube, path, transform[5], transform[4], shape[0], "y")


def _check_axis(cube: Path, path: str, first_edge: float, step: float, size: int, name: str) -> Iterator[str]:
    where, node = f"cube.zarr/{path}", read_node(cube, path)
    wanted = {"data_type": "float64", "dimension_names": [name], "shape": [size]}
    yield from differences(f"{where}/zarr.json", node, wanted)
    attributes = {"standard_name": f"projection_{name}_coordinate", "units": "m", "axis": name.upper()}
    yield from differences(f"{where}/zarr.json", node["attributes"], attributes)
    found, centres = read_values(cube, path, node), first_edge + (np.arange(size) + 0.5) * step
    if found.shape == centres.shape and not np.array_equal(found, centres):
        at = int(np.flatnonzero(found != centres)[0])
        yield (
            f"{where}: should hold pixel centres, {'ascending' if step > 0 else 'descending'} by {abs(step):g} m; "
            f"value {at} is {found[at]!r}, expected {centres[at]!r}"
        )


def _check_spatial_ref(
    cube: Path, path: str, grid: Grid, transform: Sequence[float], shape: tuple[int, int]
) -> Iterator[str]:
    del shape
    where, attributes = f"cube.zarr/{path}/zarr.json", read_node(cube, path)["attributes"]
    wkt = str(attributes.get("crs_wkt"))
    if f'ID["EPSG",{grid.epsg}]' not in wkt:
        yield f"{where}: crs_wkt should be that of EPSG:{grid.epsg}, got {wkt[:60]!r}"
    if attributes.get("spatial_ref") != attributes.get("crs_wkt"):
        yield f"{where}: spatial_ref and crs_wkt should be the same text"
    if attributes.get("grid_mapping_name") != "transverse_mercator":
        yield f"{where}: grid_mapping_name should be 'transverse_mercator'"
    a, b, c, d, e, f = transform
    geotransform = [float(value) for value in str(attributes.get("GeoTransform")).split()]
    if geotransform != [c, a, b, f, d, e]:
        yield f"{where}: GeoTransform should be {[c, a, b, f, d, e]}, got {geotransform}"


def _check_time(cube: Path, path: str, grid: Grid, transform: Sequence[float], shape: tuple[int, int]) -> Iterator[str]:
    del transform, shape
    where, node = f"cube.zarr/{path}", read_node(cube, path)
    wanted = {"data_type": "int32", "dimension_names": ["time"], "shape": [grid.n_dates]}
    yield from differences(f"{where}/zarr.json", node, wanted)
    attributes = {"standard_name": "time", "axis": "T", "units": "days since 1970-01-01"}
    yield from differences(f"{where}/zarr.json", node["attributes"], attributes)
    days = read_values(cube, path, node)
    if np.any(np.diff(days) <= 0):
        yield f"{where}: the days should ascend and each stand once, got {days.tolist()}"
    dates = np.datetime_as_string(days.astype("datetime64[D]"))
    outside = [str(day) for day in dates if not grid.season[0] <= day <= grid.season[1]]
    if outside:
        yield f"{where}: {', '.join(outside)} lie outside of the season {grid.season[0]} to {grid.season[1]}"


def _check_sensing_time(
    cube: Path, path: str, grid: Grid, transform: Sequence[float], shape: tuple[int, int]
) -> Iterator[str]:
    del transform, shape
    where, node = f"cube.zarr/{path}", read_node(cube, path)
    wanted = {"data_type": "int64", "dimension_names": ["time"], "shape": [grid.n_dates]}
    yield from differences(f"{where}/zarr.json", node, wanted)
    if node["attributes"].get("units") != "seconds since 1970-01-01":
        yield f"{where}/zarr.json: units should be 'seconds since 1970-01-01', got {node['attributes'].get('units')!r}"
    days_path = f"{path.removesuffix('sensing_time')}time"
    days = read_values(cube, days_path, read_node(cube, days_path)).astype(np.int64)
    # A solar day differs from the UTC day by half a day at most.
    apart = np.abs(read_values(cube, path, node) - (days * _DAY_S + _DAY_S // 2))
    if np.any(apart > _DAY_S):
        yield f"{where}: sensing times should lie on the days of `time`, {int(np.argmax(apart))} does not"


def _check_band(cube: Path, path: str, grid: Grid, transform: Sequence[float], shape: tuple[int, int]) -> Iterator[str]:
    del transform, shape
    node = read_node(cube, path)
    wanted = {"data_type": "string", "dimension_names": ["band"], "shape": [len(grid.bands)]}
    yield from differences(f"cube.zarr/{path}/zarr.json", node, wanted)


_COORDINATE_CHECKS = {
    "time": _check_time,
    "sensing_time": _check_sensing_time,
    "band": _check_band,
    "x": _check_x,
    "y": _check_y,
    "spatial_ref": _check_spatial_ref,
}
