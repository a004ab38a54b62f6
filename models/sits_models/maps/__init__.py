"""Maps of a region: computed a cell at a time, stored in Zarr, GeoTIFF and GeoParquet, and drawn."""

from __future__ import annotations

from sits_models.maps.cog import write_cogs
from sits_models.maps.compute import CellLogits, Computation, Strip, compute_cells
from sits_models.maps.parcels import ParcelCounts, count_parcels, write_parcels
from sits_models.maps.picture import draw_map, thin_map
from sits_models.maps.store import MapLayout, create_map, read_cell, write_cell
from sits_models.maps.work import Begun, Work, open_work, refuse_another

__all__ = [
    "Begun",
    "CellLogits",
    "Computation",
    "MapLayout",
    "ParcelCounts",
    "Strip",
    "Work",
    "compute_cells",
    "count_parcels",
    "create_map",
    "draw_map",
    "open_work",
    "read_cell",
    "refuse_another",
    "thin_map",
    "write_cell",
    "write_cogs",
    "write_parcels",
]
