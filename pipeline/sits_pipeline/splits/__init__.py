"""Train, validation and test: spatial blocks, the split of each, and the buffer between them."""

from sits_pipeline.splits.blocks import BlockGrid, SplitPlan
from sits_pipeline.splits.choose import plan_splits
from sits_pipeline.splits.raster import block_raster, split_raster

__all__ = ["BlockGrid", "SplitPlan", "block_raster", "plan_splits", "split_raster"]
