"""The plan of a build: what will be read and written, decided before anything is; pure, printable and hashable."""

from sits_pipeline.plan.begun import Begun, item_states, sample_digest, with_earlier_states
from sits_pipeline.plan.cells import CellMemory, cell_memory, cell_side, cells_of
from sits_pipeline.plan.zones import (
    Estimate,
    Zone,
    ZonePlan,
    config_sha256,
    deciding_sha256,
    split_decisions,
    what_decides,
    zones_of_region,
)

__all__ = [
    "Begun",
    "CellMemory",
    "Estimate",
    "Zone",
    "ZonePlan",
    "cell_memory",
    "cell_side",
    "cells_of",
    "config_sha256",
    "deciding_sha256",
    "item_states",
    "sample_digest",
    "split_decisions",
    "what_decides",
    "with_earlier_states",
    "zones_of_region",
]
