"""How good predictions are: confusion matrices, and all scores from them alone."""

from __future__ import annotations

from sits_models.metrics.bootstrap import bootstrap_interval, bootstrap_scores
from sits_models.metrics.boundary import boundary_map, boundary_window, distance_bands, name_bands
from sits_models.metrics.confusion import (
    Scores,
    confusion_matrix,
    kappa,
    macro_f1,
    mean_iou,
    overall_accuracy,
    scores_of,
)
from sits_models.metrics.parcels import ParcelMajority, ParcelVotes, majority_by_parcel, size_table
from sits_models.metrics.regions import RegionMatrices, Regions

__all__ = [
    "ParcelMajority",
    "ParcelVotes",
    "RegionMatrices",
    "Regions",
    "Scores",
    "bootstrap_interval",
    "bootstrap_scores",
    "boundary_map",
    "boundary_window",
    "confusion_matrix",
    "distance_bands",
    "kappa",
    "macro_f1",
    "majority_by_parcel",
    "mean_iou",
    "name_bands",
    "overall_accuracy",
    "scores_of",
    "size_table",
]
