"""Weights that others can use: found by name, pulled, pushed and verified."""

from __future__ import annotations

from pathlib import Path

__all__ = ["find_weights"]


def find_weights(text: str) -> Path:
    """The folder of weights that `text` names: a folder of weights, or of a run."""
    return Path(text)
