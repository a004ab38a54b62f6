"""The training loop: Lightning around an objective, stopped at any time and resumed to the same bits."""

from __future__ import annotations

from sits_models.engine.keeper import CHECKPOINT, METRICS, Fitted
from sits_models.engine.loop import Batches, check_precision, fit
from sits_models.engine.processes import SAID, Processes, check_devices, joined
from sits_models.engine.schedule import derived_seed, learning_rate

__all__ = [
    "CHECKPOINT",
    "METRICS",
    "SAID",
    "Batches",
    "Fitted",
    "Processes",
    "check_devices",
    "check_precision",
    "derived_seed",
    "fit",
    "joined",
    "learning_rate",
]
