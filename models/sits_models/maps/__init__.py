"""Maps of a region: computed a block at a time, stored in Zarr, GeoTIFF and GeoParquet, and drawn."""

from __future__ import annotations

from sits_models.maps.cog import write_cogs
from sits_models.maps.compute import BlockMap, Computation, compute_blocks
from sits_models.maps.parcels import count_parcels, write_parcels
from sits_models.maps.picture import draw_map, thin_map
from sits_models.maps.store import MapLayout, create_map, read_block, write_block
from sits_models.maps.work import Work, lock_folder, open_work, refuse_another

__all__ = [
    "BlockMap",
    "Computation",
    "MapLayout",
    "Work",
    "compute_blocks",
    "count_parcels",
    "create_map",
    "draw_map",
    "lock_folder",
    "open_work",
    "read_block",
    "refuse_another",
    "thin_map",
    "write_block",
    "write_cogs",
    "write_parcels",
]
