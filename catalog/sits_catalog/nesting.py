"""How deep a JSON document may be nested: Python's parser takes a thousand levels, and few that walk it do."""

from __future__ import annotations

__all__ = ["check_nesting"]

_DEEPEST = 100
"""Levels; an item of STAC has about ten."""


def check_nesting(document: object) -> None:
    """Raise ValueError where a JSON value is nested deeper than any document that is meant to be read.

    >>> check_nesting([{"a": [1, 2]}])
    """
    level = [document]
    for _ in range(_DEEPEST):
        level = [
            value
            for holder in level
            for value in (holder.values() if isinstance(holder, dict) else holder if isinstance(holder, list) else ())
            if isinstance(value, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {_DEEPEST} levels, which no document is that is meant to be read")
