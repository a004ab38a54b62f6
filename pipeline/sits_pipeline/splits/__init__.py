"""Train, validation and test: spatial blocks or drawn areas, the split of each, and the buffer between them."""

from sits_pipeline.splits.areas import SplitAreas, areas_sha256, check_apart
from sits_pipeline.splits.blocks import BlockGrid, SplitPlan
from sits_pipeline.splits.choose import CODES, fold_codes, lacking, least_m2, plan_splits
from sits_pipeline.splits.raster import area_raster, block_raster, keep_labels_apart, split_of_window, split_raster

__all__ = [
    "CODES",
    "BlockGrid",
    "SplitAreas",
    "SplitPlan",
    "area_raster",
    "areas_sha256",
    "block_raster",
    "check_apart",
    "fold_codes",
    "keep_labels_apart",
    "lacking",
    "least_m2",
    "plan_splits",
    "split_of_window",
    "split_raster",
]
