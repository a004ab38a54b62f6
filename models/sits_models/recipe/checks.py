"""Bounds of a recipe's values, each said in one sentence."""

from __future__ import annotations

__all__ = ["check_above_zero", "check_at_least", "check_probability"]


def check_at_least(least: int, section: str, **values: float | None) -> None:
    """Raises ValueError for a value below `least`; None is none."""
    for key, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"{section}.{key} is at least {least}; got {value}")


def check_above_zero(section: str, **values: float | None) -> None:
    """Raises ValueError for a value of 0 or less; None is none."""
    for key, value in values.items():
        if value is not None and value <= 0:
            raise ValueError(f"{section}.{key} is above 0; got {value}")


def check_probability(name: str, value: float) -> None:
    """Raises ValueError unless it lies from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a probability in [0, 1]; got {value}")
