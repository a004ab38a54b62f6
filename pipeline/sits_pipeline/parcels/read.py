"""From a file of parcels to the numbered, repaired parcels of a cube."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.parcels.columns import CodePattern, check_columns, code_pattern, recognise
from sits_pipeline.parcels.depth import check_depth
from sits_pipeline.parcels.features import Features
from sits_pipeline.parcels.files import VectorFile, open_vector
from sits_pipeline.parcels.flags import flags_of
from sits_pipeline.parcels.geoparquet_file import GeoParquetFile
from sits_pipeline.parcels.keys import content_keys, repeated, source_keys
from sits_pipeline.parcels.repair import polygons, reproject
from sits_pipeline.parcels.table import NEAR_M, Dropped, ParcelTable
from sits_pipeline.parcels.where import box_around, elsewhere
from sits_pipeline.plan.lattice import project
from sits_pipeline.values import Parcels, epsg_of

__all__ = ["read_parcels"]

_WHOLE_ROWS = 200_000
"""Files of up to so many rows are searched whole for ids that repeat; docs/decisions/0011-large-parcel-files.md."""


def read_parcels(
    source: ParcelSource, path: str, taxonomy: Taxonomy | None, *, area: shapely.Geometry, extents: Sequence[GeoBox]
) -> tuple[ParcelTable, ...]:
    """The parcels within 110 m of each cube of a region, one table a cube; `area` is the region, lon/lat.

    Without a `taxonomy` each code of the whole file is a class, so that two regions of one file agree. Keys, ids
    and codes do not depend on which part of the file is read; in a file of more than 200 000 rows ids that repeat are
    sought among the rows that are read, and a note says so. Raises FileNotFoundError or ValueError, in one sentence,
    for a file, layer, column or CRS that is not there, and for parcels that all lie elsewhere.
    """
    file = open_vector(path, member=source.member, layer=source.layer, crs=source.crs, encoding=source.encoding)
    with closing(file):
        source, recognised = recognise(file, source)
        check_columns(file, source)
        return _tables(file, source, taxonomy, recognised, area=area, extents=extents)


def _tables(
    file: VectorFile,
    source: ParcelSource,
    taxonomy: Taxonomy | None,
    notes: tuple[str, ...],
    *,
    area: shapely.Geometry,
    extents: Sequence[GeoBox],
) -> tuple[ParcelTable, ...]:
    assert file.crs is not None
    pattern = code_pattern(source.code_pattern)
    wanted = [name for name in (source.id, source.code, source.name) if name is not None]
    features = file.read(wanted, box_around(file, extents))
    rows = _rows(file, source, pattern, features)
    zones = [_in_zone(rows, file.crs, extent) for extent in extents]
    met = np.any([zone.near for zone in zones], axis=0)
    if not met.any():
        raise ValueError(elsewhere(file, extents))
    for zone, extent in zip(zones, extents, strict=True):
        check_depth(zone.geometry[zone.near], extent, file.path)
    crops = Taxonomy.from_codes(_all_codes(file, source, pattern)) if taxonomy is None else taxonomy
    notes += () if source.code is None else pattern.notes(file.path, features.columns[source.code])
    shared = _Shared(
        rows=rows,
        number=_numbers(rows.key, met),
        taxonomy=crops,
        unknown_codes=_unknown(crops, rows.code[met]),
        dropped=rows.dropped + tuple(lost for zone in zones for lost in zone.dropped),
        notes=notes + _notes(file, source, with_taxonomy=taxonomy is not None),
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


def _rows(file: VectorFile, source: ParcelSource, pattern: CodePattern, features: Features) -> _Rows:
    """Repair, key and name what was read."""
    assert file.crs is not None
    whole = polygons(features.geometry)
    good = np.flatnonzero(~shapely.is_missing(whole.geometry))
    nothing = np.full(len(good), None, dtype=object)
    code = nothing if source.code is None else pattern.codes(features.columns[source.code][good])
    content = content_keys(features.geometry[good], code, crs=file.crs)
    if source.id is None:
        key = source_keys(None, content, repeats=frozenset())
    else:
        sought = features.columns[source.id] if _is_large(file) else file.texts(source.id)
        key = source_keys(features.columns[source.id][good], content, repeats=repeated(sought))
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


def _is_large(file: VectorFile) -> bool:
    return file.n_rows is None or file.n_rows > _WHOLE_ROWS


def _all_codes(file: VectorFile, source: ParcelSource, pattern: CodePattern) -> list[str]:
    """The different codes of the whole file, sorted."""
    if source.code is None:
        return []
    texts = np.array(sorted(file.distinct(source.code)), dtype=object)
    return sorted({text for text in pattern.codes(texts) if text is not None})


def _unknown(taxonomy: Taxonomy, code: NDArray[np.object_]) -> dict[str, int]:
    """Codes that the taxonomy does not know, sorted, with the number of parcels."""
    unknown = frozenset(taxonomy.unknown_codes(code))
    return dict(sorted(Counter(text for text in code if text in unknown).items()))


def _notes(file: VectorFile, source: ParcelSource, *, with_taxonomy: bool) -> tuple[str, ...]:
    assert file.crs is not None
    notes = []
    if source.crs is not None and CRS.from_user_input(source.crs) != file.crs:
        notes.append(
            f"{file.path} states the CRS {file.crs.name}, so the {source.crs} of the region file was not used: "
            "a given CRS never overrides a stated one"
        )
    if isinstance(file, GeoParquetFile):
        for key, value, why in (
            ("layer", source.layer, "which has no layers"),
            ("encoding", source.encoding, "whose text is UTF-8"),
        ):
            if value is not None:
                notes.append(f"{file.path} is Parquet, {why}, so parcels: {key} ({value}) was not used")
    size = "a large file" if file.n_rows is None else f"a file of {file.n_rows} rows"
    if _is_large(file) and source.id is not None:
        notes.append(
            f"{file.path} is {size}: only the rows near the region were searched for ids that repeat, so that an id "
            "that another row far away has too stays the key of its parcel"
        )
    if _is_large(file) and source.code is not None and not with_taxonomy:
        notes.append(
            f"{file.path} is {size}, and all of its crop codes were read to make classes of them; "
            "name a taxonomy, and only the rows near the region are read"
        )
    return tuple(notes)


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
        flags=flags_of(
            zone.geometry[index],
            repaired=(rows.repaired | zone.repaired)[index],
            content=rows.content[index],
            area=area,
        ),
        taxonomy=taxonomy,
        unknown_codes=shared.unknown_codes,
        dropped=shared.dropped,
        notes=shared.notes,
    )
