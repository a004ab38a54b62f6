"""Chips straight from cubes: opened, joined by class and band, drawn, read and changed."""

from __future__ import annotations

from sits_models.data.chips import ChipReader
from sits_models.data.classes import ClassTable, join_classes
from sits_models.data.cubes import CropEntry, Cube, CubeFacts, open_cube
from sits_models.data.loader import EvaluationData, TrainingData
from sits_models.data.patch_data import PatchData
from sits_models.data.patch_sets import open_patch_set

__all__ = [
    "ChipReader",
    "ClassTable",
    "CropEntry",
    "Cube",
    "CubeFacts",
    "EvaluationData",
    "PatchData",
    "TrainingData",
    "join_classes",
    "open_cube",
    "open_patch_set",
]
