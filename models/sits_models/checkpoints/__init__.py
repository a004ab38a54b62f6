"""Weights to share and to start from: a safetensors file and one card that rebuilds the model from it alone."""

from __future__ import annotations

from sits_models.checkpoints.card import Card, Probe, Publication
from sits_models.checkpoints.files import (
    CARD,
    WEIGHTS,
    LoadedModel,
    check_tensors,
    hash_tensors,
    load_model,
    read_card,
    save_weights,
    weights_folder,
)
from sits_models.checkpoints.fitting import LoadReport
from sits_models.checkpoints.reference import from_reference, read_reference
from sits_models.checkpoints.transfer import transfer

__all__ = [
    "CARD",
    "WEIGHTS",
    "Card",
    "LoadReport",
    "LoadedModel",
    "Probe",
    "Publication",
    "check_tensors",
    "from_reference",
    "hash_tensors",
    "load_model",
    "read_card",
    "read_reference",
    "save_weights",
    "transfer",
    "weights_folder",
]
