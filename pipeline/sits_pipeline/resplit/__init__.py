"""Other splits for datasets that are built, and the proof that no split leaks into another."""

from sits_pipeline.resplit.carry_out import Resplit
from sits_pipeline.resplit.check import Leak, Proof, check_splits
from sits_pipeline.resplit.check_patches import check_patches
from sits_pipeline.resplit.run import split_by_year, split_region

__all__ = ["Leak", "Proof", "Resplit", "check_patches", "check_splits", "split_by_year", "split_region"]
