"""The parcels of a cube as a table: arrays for the pipeline, and `parcels.parquet` for everybody."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from sits_catalog.cube import Split
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.geoparquet import geo_table
from sits_pipeline.values import Parcels

__all__ = [
    "NEAR_M",
    "Dropped",
    "Flag",
    "ParcelTable",
    "content_sha256",
    "parcels_table",
    "select_near",
]

NEAR_M = 110.0
"""Parcels count for a cube, and for a cell, when their bounds come this near: buffer and boundary distance end at
100 m, the rest is the diagonal of a pixel."""


class Flag(IntFlag):
    """What is special about a parcel."""

    INVALID_REPAIRED = 1
    MULTIPART = 2
    OVERLAPS = 4
    """It shares more than 1 m2 with another parcel of the table."""
    OUTSIDE = 8
    """It does not touch the region itself, only the cube or its surroundings."""
    DUPLICATE = 16
    """A parcel of a smaller id has the same geometry and code."""


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A row of the file that makes no parcel."""

    row: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class ParcelTable:
    """The parcels within 110 m of one cube; all arrays in the order of `parcel_id`.

    Ids are given once for a region of several zones, so that those of one zone may have gaps.
    """

    parcels: Parcels
    source_key: NDArray[np.object_]
    source_code: NDArray[np.object_]
    """str, or None where the source has none."""
    crop_name: NDArray[np.object_]
    """The source's name where it has a column of names, else the class's; or None."""
    hcat_code: NDArray[np.object_]
    flags: NDArray[np.uint8]
    """Bits of `Flag`."""
    taxonomy: Taxonomy
    unknown_codes: Mapping[str, int]
    """Codes that the taxonomy does not know, with the number of parcels; all of the region's zones together."""
    dropped: tuple[Dropped, ...]
    """Rows that make no parcel; all of the region's zones together."""
    notes: tuple[str, ...]
    """Sentences for the report."""

    def __len__(self) -> int:
        return len(self.parcels)

    @property
    def area_ha(self) -> NDArray[np.float64]:
        """Area in the cube's CRS, hectares."""
        return np.asarray(shapely.area(self.parcels.geometry) / 1e4)


def parcels_table(table: ParcelTable, *, n_pixels: NDArray[np.int64], split: NDArray[np.uint8]) -> Any:
    """`parcels.parquet` as a pyarrow Table; `n_pixels` and `split` (codes of `Split`) have one entry a parcel.

    `split` is written as a word, `flags` as a list of words.
    """
    import pyarrow as pa

    parcels = table.parcels
    words = {int(code): code.name.lower() for code in Split}
    columns = {
        "parcel_id": pa.array(parcels.parcel_id, pa.uint32()),
        "source_key": pa.array(table.source_key, pa.string()),
        "source_code": pa.array(table.source_code, pa.string()),
        "crop_type": pa.array(parcels.crop_type, pa.uint16()),
        "crop_name": pa.array(table.crop_name, pa.string()),
        "hcat_code": pa.array(table.hcat_code, pa.string()),
        "area_ha": pa.array(table.area_ha, pa.float64()),
        "n_pixels": pa.array(n_pixels, pa.uint32()),
        "split": pa.array([words[int(code)] for code in split], pa.string()),
        "flags": pa.array([_words(bits) for bits in table.flags], pa.list_(pa.string())),
    }
    return geo_table(columns, geometry=parcels.geometry, epsg=parcels.epsg)


def _words(bits: np.uint8) -> list[str]:
    return [str(flag.name).lower() for flag in Flag if int(bits) & flag]


def content_sha256(tables: Sequence[ParcelTable]) -> str:
    """SHA-256 over what decides label pixels: keys, codes, geometries, and which of two rows is the later one."""
    digest = hashlib.sha256()
    for table in tables:
        parcels = table.parcels
        digest.update(f"EPSG:{parcels.epsg} {len(table)}\n".encode())
        for key, code in zip(table.source_key, table.source_code, strict=True):
            digest.update(f"{key}\x1f{'' if code is None else code}\x1e".encode())
        digest.update(np.argsort(parcels.source_row, kind="stable").astype("<i8").tobytes())
        for shape in shapely.to_wkb(parcels.geometry, byte_order=1):
            digest.update(shape)
    return digest.hexdigest()


def select_near(parcels: Parcels, tree: shapely.STRtree, geobox: GeoBox, *, distance_m: float = NEAR_M) -> Parcels:
    """The parcels whose bounds come within `distance_m` of `geobox`; `tree` is built over `parcels.geometry`."""
    west, south, east, north = geobox.boundingbox.bbox
    box = shapely.box(west - distance_m, south - distance_m, east + distance_m, north + distance_m)
    return parcels.take(np.sort(tree.query(box)))
