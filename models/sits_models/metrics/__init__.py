"""How good predictions are: confusion matrices, and all scores from them alone; rankings, of several labels a chip."""

from __future__ import annotations

from sits_models.metrics.average_precision import AveragePrecision, average_precision, rank_classes
from sits_models.metrics.bootstrap import Intervals, bootstrap_scores
from sits_models.metrics.boundary import boundary_map, boundary_window, distance_bands, name_bands
from sits_models.metrics.confusion import (
    Counted,
    Margins,
    Scores,
    confusion_matrix,
    kappa,
    macro_f1,
    margins_of,
    mean_iou,
    overall_accuracy,
    scores_of,
)
from sits_models.metrics.parcels import ParcelMajority, ParcelVotes, decide, size_table
from sits_models.metrics.regions import RegionMatrices, Regions, block_keys

__all__ = [
    "AveragePrecision",
    "Counted",
    "Intervals",
    "Margins",
    "ParcelMajority",
    "ParcelVotes",
    "RegionMatrices",
    "Regions",
    "Scores",
    "average_precision",
    "block_keys",
    "bootstrap_scores",
    "boundary_map",
    "boundary_window",
    "confusion_matrix",
    "decide",
    "distance_bands",
    "kappa",
    "macro_f1",
    "margins_of",
    "mean_iou",
    "name_bands",
    "overall_accuracy",
    "rank_classes",
    "scores_of",
    "size_table",
]
