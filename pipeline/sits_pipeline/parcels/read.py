"""From a file of parcels to the numbered, repaired parcels of a cube."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.parcels.files import Features, VectorFile, open_vector
from sits_pipeline.parcels.keys import content_keys, repeated, source_keys
from sits_pipeline.parcels.repair import polygons, reproject
from sits_pipeline.parcels.table import NEAR_M, Dropped, Flag, ParcelTable
from sits_pipeline.parcels.where import box_around, elsewhere
from sits_pipeline.plan.lattice import project
from sits_pipeline.values import Parcels, epsg_of

__all__ = ["read_parcels"]

_OVERLAP_M2 = 1.0
_PAIRS = 100_000


def read_parcels(
    source: ParcelSource, path: str, taxonomy: Taxonomy | None, *, area: shapely.Geometry, extents: Sequence[GeoBox]
) -> tuple[ParcelTable, ...]:
    """The parcels within 110 m of each cube of a region, one table a cube; `area` is the region, lon/lat.

    Without a `taxonomy` each code of the whole file is a class, so that two regions of one file agree. Keys, ids
    and codes do not depend on which part of the file is read. Raises FileNotFoundError or ValueError, in one
    sentence, for a file, layer, column or CRS that is not there, and for parcels that all lie elsewhere.
    """
    file = open_vector(path, layer=source.layer, crs=source.crs, encoding=source.encoding)
    assert file.crs is not None
    _check_columns(file, source)
    wanted = [name for name in (source.id, source.code, source.name) if name is not None]
    rows = _rows(file, source, file.read(wanted, box_around(file, extents)))
    zones = [_in_zone(rows, file.crs, extent) for extent in extents]
    met = np.any([zone.near for zone in zones], axis=0)
    if not met.any():
        raise ValueError(elsewhere(file, extents))
    crops = Taxonomy.from_codes(_all_codes(file, source)) if taxonomy is None else taxonomy
    shared = _Shared(
        rows=rows,
        number=_numbers(rows.key, met),
        taxonomy=crops,
        unknown_codes=_unknown(crops, rows.code[met]),
        dropped=rows.dropped + tuple(lost for zone in zones for lost in zone.dropped),
        notes=_notes(file, source),
    )
    return tuple(_table(shared, zone, project(area, zone.epsg)) for zone in zones)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Usable rows of the file, in its order and CRS."""

    row: NDArray[np.int64]
    geometry: NDArray[np.object_]
    repaired: NDArray[np.bool_]
    key: NDArray[np.object_]
    content: NDArray[np.object_]
    code: NDArray[np.object_]
    name: NDArray[np.object_]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, kw_only=True)
class _Zone:
    """The same rows in a cube's CRS."""

    epsg: int
    geometry: NDArray[np.object_]
    repaired: NDArray[np.bool_]
    near: NDArray[np.bool_]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What the tables of all zones are made from."""

    rows: _Rows
    number: NDArray[np.uint32]
    """`parcel_id` of each row; 0 where it is in no table."""
    taxonomy: Taxonomy
    unknown_codes: dict[str, int]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]


def _check_columns(file: VectorFile, source: ParcelSource) -> None:
    for key, name in (("id", source.id), ("code", source.code), ("name", source.name)):
        if name is not None and name not in file.names:
            raise ValueError(
                f"{file.path} has no column {name!r} (parcels: {key}); it has {', '.join(file.names) or 'no columns'}"
            )


def _rows(file: VectorFile, source: ParcelSource, features: Features) -> _Rows:
    """Repair, key and name what was read."""
    assert file.crs is not None
    whole = polygons(features.geometry)
    good = np.flatnonzero(~shapely.is_missing(whole.geometry))
    nothing = np.full(len(good), None, dtype=object)
    code = nothing if source.code is None else features.columns[source.code][good]
    content = content_keys(features.geometry[good], code, crs=file.crs)
    if source.id is None:
        key = source_keys(None, content, repeats=frozenset())
    else:
        repeats = repeated(file.read_columns([source.id])[source.id])
        key = source_keys(features.columns[source.id][good], content, repeats=repeats)
    return _Rows(
        row=features.row[good],
        geometry=whole.geometry[good],
        repaired=whole.repaired[good],
        key=key,
        content=content,
        code=code,
        name=nothing if source.name is None else features.columns[source.name][good],
        dropped=_dropped(features.row, whole.reason),
    )


def _dropped(row: NDArray[np.int64], reason: NDArray[np.object_]) -> tuple[Dropped, ...]:
    return tuple(
        Dropped(row=int(number), reason=str(text)) for number, text in zip(row, reason, strict=True) if text is not None
    )


def _in_zone(rows: _Rows, crs: CRS, extent: GeoBox) -> _Zone:
    epsg = epsg_of(extent)
    there = reproject(rows.geometry, crs=crs, epsg=epsg)
    west, south, east, north = extent.boundingbox.bbox
    low_x, low_y, high_x, high_y = shapely.bounds(there.geometry).reshape(-1, 4).T
    near = (low_x <= east + NEAR_M) & (low_y <= north + NEAR_M) & (high_x >= west - NEAR_M) & (high_y >= south - NEAR_M)
    return _Zone(
        epsg=epsg,
        geometry=there.geometry,
        repaired=there.repaired,
        near=near,
        dropped=_dropped(rows.row, there.reason),
    )


def _numbers(key: NDArray[np.object_], met: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """1..N in the order of the keys for the rows that count, 0 for the others."""
    chosen = np.flatnonzero(met)
    order = sorted(chosen, key=lambda index: str(key[index]))
    number = np.zeros(len(key), dtype=np.uint32)
    number[order] = np.arange(1, len(order) + 1)
    return number


def _all_codes(file: VectorFile, source: ParcelSource) -> NDArray[np.object_]:
    return np.empty(0, object) if source.code is None else file.read_columns([source.code])[source.code]


def _unknown(taxonomy: Taxonomy, code: NDArray[np.object_]) -> dict[str, int]:
    """Codes that the taxonomy does not know, sorted, with the number of parcels."""
    unknown = frozenset(taxonomy.unknown_codes(code))
    return dict(sorted(Counter(text for text in code if text in unknown).items()))


def _notes(file: VectorFile, source: ParcelSource) -> tuple[str, ...]:
    assert file.crs is not None
    if source.crs is None or CRS.from_user_input(source.crs) == file.crs:
        return ()
    return (
        f"{file.path} states the CRS {file.crs.name}, so the {source.crs} of the region file was not used: "
        "a given CRS never overrides a stated one",
    )


def _table(shared: _Shared, zone: _Zone, area: shapely.Geometry) -> ParcelTable:
    """The rows near one cube, by number; `area` is the region in the cube's CRS."""
    rows, taxonomy = shared.rows, shared.taxonomy
    near = np.flatnonzero(zone.near)
    index = near[np.argsort(shared.number[near], kind="stable")]
    code = rows.code[index]
    crop = np.array([taxonomy.classify(text) for text in code], dtype=np.uint16)
    classes = {item.index: item for item in taxonomy.classes}
    known = [classes.get(int(value)) for value in crop]
    names = [
        (item.name if item else None) if name is None else name
        for name, item in zip(rows.name[index], known, strict=True)
    ]
    return ParcelTable(
        parcels=Parcels(
            epsg=zone.epsg,
            parcel_id=shared.number[index],
            source_row=rows.row[index],
            crop_type=crop,
            geometry=zone.geometry[index],
        ),
        source_key=rows.key[index],
        source_code=code,
        crop_name=np.array(names, dtype=object),
        hcat_code=np.array([item.hcat if item else None for item in known], dtype=object),
        flags=_flags(rows, zone, index, area),
        taxonomy=taxonomy,
        unknown_codes=shared.unknown_codes,
        dropped=shared.dropped,
        notes=shared.notes,
    )


def _flags(rows: _Rows, zone: _Zone, index: NDArray[np.intp], area: shapely.Geometry) -> NDArray[np.uint8]:
    """Bits of `Flag` of the rows at `index`, which make one table."""
    geometry = zone.geometry[index]
    shapely.prepare(area)
    flags = (
        Flag.INVALID_REPAIRED * (rows.repaired | zone.repaired)[index]
        + Flag.MULTIPART * (shapely.get_num_geometries(geometry) > 1)
        + Flag.OVERLAPS * _overlapping(geometry)
        + Flag.OUTSIDE * ~shapely.intersects(area, geometry)
        + Flag.DUPLICATE * _repeating(rows.content[index])
    )
    return np.asarray(flags, np.uint8)


def _overlapping(geometry: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which polygons share more than 1 m2 with another."""
    first, second = shapely.STRtree(geometry).query(geometry, predicate="intersects")
    once = first < second
    first, second = first[once], second[once]
    result = np.zeros(len(geometry), dtype=bool)
    for start in range(0, len(first), _PAIRS):
        a, b = first[start : start + _PAIRS], second[start : start + _PAIRS]
        shared = shapely.area(shapely.intersection(geometry[a], geometry[b])) > _OVERLAP_M2
        result[a[shared]] = True
        result[b[shared]] = True
    return result


def _repeating(content: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which entries have occurred before."""
    again = np.ones(len(content), dtype=bool)
    again[np.unique(content.astype(str), return_index=True)[1]] = False
    return again
