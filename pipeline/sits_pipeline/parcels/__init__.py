"""Parcels: read from any vector file, repaired, keyed, and in the cube's CRS."""

from sits_pipeline.parcels.areas import known_area, parcel_bounds, read_area
from sits_pipeline.parcels.read import read_parcels
from sits_pipeline.parcels.table import (
    NEAR_M,
    Dropped,
    Flag,
    ParcelTable,
    content_sha256,
    parcels_table,
    select_near,
)

__all__ = [
    "NEAR_M",
    "Dropped",
    "Flag",
    "ParcelTable",
    "content_sha256",
    "known_area",
    "parcel_bounds",
    "parcels_table",
    "read_area",
    "read_parcels",
    "select_near",
]
