"""The parcels that farmers declare on a simulated landscape, with what is wrong in real declarations."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from sits_pipeline.simulate.crops import COVERS
from sits_pipeline.simulate.fields import generator
from sits_pipeline.simulate.landscape import Landscape

__all__ = ["Declarations", "declare", "write_parcels"]

_IGNORED = ("other", "Other agricultural use")
_UNKNOWN = (("quinoa", "Quinoa"), ("hops", "Hops"))
_REACH_M = 250.0
_LARGEST_M2 = 150_000.0


@dataclass(frozen=True, kw_only=True)
class Declarations:
    """Declared parcels as aligned arrays, in file order; geometry in the landscape's CRS."""

    geometry: NDArray[np.object_]
    code: NDArray[np.object_]
    """Crop code, one None."""
    name: NDArray[np.object_]
    oddity: NDArray[np.object_]
    """"", multipolygon, sliver, overlap, invalid or duplicate."""

    def __len__(self) -> int:
        return len(self.geometry)


def declare(landscape: Landscape, bounds: tuple[float, float, float, float], seed: int) -> Declarations:
    """Declared parcels that come within 250 m of `bounds` (west, south, east, north)."""
    rng = generator(seed, "declarations")
    box = shapely.box(*bounds).buffer(_REACH_M, join_style="mitre")
    rows = np.flatnonzero(landscape.field & shapely.intersects(landscape.geometry, box))
    rows = rows[rng.random(len(rows)) > 0.03]  # some fields are never declared
    geometry = landscape.geometry[rows].copy()
    code = np.array([COVERS[i].code for i in landscape.cover[rows]], dtype=object)
    name = np.array([COVERS[i].name for i in landscape.cover[rows]], dtype=object)
    oddity = np.full(len(rows), "", dtype=object)
    _odd_codes(code, name, rng)
    geometry, kept = _multipolygons(geometry, code, oddity, rng)
    geometry, code, name, oddity = geometry[kept], code[kept], name[kept], oddity[kept]
    _overlaps(geometry, oddity, rng)
    _bow_ties(geometry, oddity, rng)
    strips = _slivers(geometry, rng)
    twice = rng.permutation(np.flatnonzero(oddity == ""))[: len(geometry) // 500]
    extra = np.full(len(strips), "", dtype=object)
    order = rng.permutation(len(geometry) + len(strips) + len(twice))
    return Declarations(
        geometry=np.concatenate([geometry, strips, geometry[twice]])[order],
        code=np.concatenate([code, np.full_like(extra, "grassland"), code[twice]])[order],
        name=np.concatenate([name, np.full_like(extra, "Permanent grassland"), name[twice]])[order],
        oddity=np.concatenate([oddity, np.full_like(extra, "sliver"), np.full(len(twice), "duplicate", dtype=object)])[
            order
        ],
    )


def _odd_codes(code: NDArray[np.object_], name: NDArray[np.object_], rng: np.random.Generator) -> None:
    """The ignored code on 1.5 % of the parcels, unknown codes on a few, no code on one; in place."""
    order = rng.permutation(len(code))
    ignored = order[: max(1, round(0.015 * len(code)))]
    code[ignored], name[ignored] = _IGNORED
    rest = order[len(ignored) :]
    if len(code) < 40:
        return
    for number, (unknown, title) in enumerate(_UNKNOWN):
        code[rest[number :: len(_UNKNOWN)][: 1 + len(code) // 800]] = unknown
        name[rest[number :: len(_UNKNOWN)][: 1 + len(code) // 800]] = title
    code[rest[-1]], name[rest[-1]] = None, None


def _multipolygons(
    geometry: NDArray[np.object_], code: NDArray[np.object_], oddity: NDArray[np.object_], rng: np.random.Generator
) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """Some fields of one crop on both sides of a track are declared as one parcel; and which rows are left."""
    first, second = shapely.STRtree(geometry).query(geometry, predicate="dwithin", distance=60.0)
    apart = (first < second) & (code[first] == code[second]) & ~shapely.intersects(geometry[first], geometry[second])
    apart &= shapely.area(geometry[first]) + shapely.area(geometry[second]) < _LARGEST_M2
    pairs = np.stack([first[apart], second[apart]], axis=1)
    kept = np.ones(len(geometry), np.bool_)
    used = np.zeros(len(geometry), np.bool_)
    left = max(1, len(geometry) // 70)
    for i, j in pairs[rng.permutation(len(pairs))]:
        if left and not used[i] and not used[j]:
            parts = [*shapely.get_parts(geometry[i]), *shapely.get_parts(geometry[j])]
            geometry[i] = shapely.multipolygons(parts)
            oddity[i] = "multipolygon"
            used[[i, j]] = True
            kept[j] = False
            left -= 1
    return geometry, kept


def _overlaps(geometry: NDArray[np.object_], oddity: NDArray[np.object_], rng: np.random.Generator) -> None:
    """Some parcels were drawn 2 to 4 m too large; in place."""
    plain = rng.permutation(np.flatnonzero(oddity == ""))[: max(1, len(geometry) // 50)]
    geometry[plain] = shapely.buffer(geometry[plain], rng.uniform(2, 4, len(plain)), join_style="mitre")
    oddity[plain] = "overlap"


def _bow_ties(geometry: NDArray[np.object_], oddity: NDArray[np.object_], rng: np.random.Generator) -> None:
    """A few outlines have two vertices in the wrong order, which makes them cross themselves; in place."""
    left = 1 + len(geometry) // 600
    for i in rng.permutation(np.flatnonzero(oddity == "")):
        ring = shapely.get_coordinates(geometry[i])
        if shapely.get_num_interior_rings(geometry[i]) or not 5 <= len(ring) <= 8:
            continue
        ring[[1, 2]] = ring[[2, 1]]
        crossed = shapely.polygons(ring)
        if not shapely.is_valid(crossed):
            geometry[i], oddity[i] = crossed, "invalid"
            left -= 1
        if not left:
            return


def _slivers(geometry: NDArray[np.object_], rng: np.random.Generator) -> NDArray[np.object_]:
    """Grass strips a few metres wide between a parcel and the road."""
    sound = np.flatnonzero(shapely.is_valid(geometry))
    tree = shapely.STRtree(geometry[sound])
    strips: list[BaseGeometry] = []
    for i in rng.permutation(sound)[: max(1, len(geometry) // 60)]:
        around = shapely.buffer(geometry[i], rng.uniform(2.5, 5.0), join_style="mitre")
        taken = shapely.union_all(geometry[sound[tree.query(around)]])
        parts = shapely.get_parts(shapely.difference(around, taken))
        long = [part for part in parts if 150 < part.area < 4000]
        if long:
            strips.append(max(long, key=lambda part: part.area))
    return np.array(strips, dtype=object) if strips else np.zeros(0, dtype=object)


def write_parcels(path: Path, declarations: Declarations, source_crs: str, crs: str) -> None:
    """GeoParquet with the columns id, crop_code, crop_name, simulated and geometry, vertices moved to `crs`."""
    import geopandas

    frame = geopandas.GeoDataFrame(
        {
            "id": [f"SIM-{number:06d}" for number in range(1, len(declarations) + 1)],
            "crop_code": declarations.code,
            "crop_name": declarations.name,
            "simulated": np.ones(len(declarations), np.bool_),
        },
        geometry=declarations.geometry,
        crs=source_crs,
    ).to_crs(crs)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    frame.to_parquet(partial, index=False, compression="zstd")
    partial.replace(path)
