"""The Zarr store of a cube: created empty with all its metadata, then written a cell at a time in whole shards.

Shards are never written through dask arrays, which loses data (zarr-python#3682, dask#12583): a cell is one NumPy block
an array, aligned with its shards, and no shard belongs to two cells. zarr's local store writes a partial file and
renames it; on an object store a PUT is atomic.
"""

from sits_pipeline.store.group import (
    CUBE,
    check_readable,
    check_version,
    create_cube,
    open_cube,
    read_attributes,
    repair_metadata,
    update_attributes,
)
from sits_pipeline.store.layout import COMPRESSOR, ROOT, CubeLayout, array_paths, metadata_files
from sits_pipeline.store.read import read_layout, read_overview, read_shards, read_window
from sits_pipeline.store.write import FUSED_PIPELINE, Written, write_cell

__all__ = [
    "COMPRESSOR",
    "CUBE",
    "FUSED_PIPELINE",
    "ROOT",
    "CubeLayout",
    "Written",
    "array_paths",
    "check_readable",
    "check_version",
    "create_cube",
    "metadata_files",
    "open_cube",
    "read_attributes",
    "read_layout",
    "read_overview",
    "read_shards",
    "read_window",
    "repair_metadata",
    "update_attributes",
    "write_cell",
]
