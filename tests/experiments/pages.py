"""What an experiment writes of a page of the documentation, between its two marks."""

from __future__ import annotations

import re

__all__ = ["replaced"]


def replaced(page: str, text: str, *, begin: str, end: str) -> str:
    """The page with everything between its two marks replaced. Raises ValueError where they are not there once."""
    found = rf"{re.escape(begin)}.*{re.escape(end)}"
    changed, times = re.subn(found, lambda _: f"{begin}\n\n{text}\n{end}", page, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"the page has the marks {begin} and {end} once; found them {times} times")
    return changed
