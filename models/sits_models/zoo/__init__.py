"""Weights that others can use: found by name, pulled, pushed and verified."""

from __future__ import annotations

from sits_models.zoo.entry import Entry
from sits_models.zoo.registry import Registry, default_registry, find_weights, shipped

__all__ = ["Entry", "Registry", "default_registry", "find_weights", "shipped"]
