"""One cell of a cube, from source pixels to stored shards: the plain function that every worker runs."""

from sits_pipeline.cell.shards import build_cell, merge_entries, shards_of
from sits_pipeline.cell.task import CellTask, build_whole, split_counts, split_of_cell
from sits_pipeline.imagery import Day, Visit

__all__ = [
    "CellTask",
    "Day",
    "Visit",
    "build_cell",
    "build_whole",
    "merge_entries",
    "shards_of",
    "split_counts",
    "split_of_cell",
]
