"""How large the documents of a search may be: each item in depth and in bytes, and all of them together in bytes."""

from __future__ import annotations

import json
import threading

from sits_catalog.nesting import check_nesting
from sits_pipeline.sources.base import SourceError
from sits_pipeline.values import JsonObject

__all__ = ["Ration", "check_item"]

MAX_ITEM_BYTES = 2**20
"""Of one item; those of the catalogues that are known have 10 to 60 KB."""
MAX_BYTES = 2**31
"""Of all documents of a search: twenty thousand items of 60 KB, twice over."""


class Ration:
    """Counts the bytes of a search's documents, whichever thread reads them."""

    def __init__(self, whose: str, advice: str) -> None:
        self._whose = whose
        self._advice = advice
        self._lock = threading.Lock()
        self._bytes = 0

    def spend(self, n_bytes: int) -> None:
        """Count a document; raises SourceError where all of them together have too many bytes."""
        with self._lock:
            self._bytes += n_bytes
            if self._bytes > MAX_BYTES:
                raise SourceError(f"{self._whose} has documents of more than {MAX_BYTES} bytes; {self._advice}")


def check_item(item: JsonObject, whose: str) -> str:
    """An item as JSON; raises SourceError where it is too deep or too large to be one."""
    try:
        check_nesting(item)
    except ValueError as error:
        raise SourceError(f"{whose} holds an item that is none: {error}") from None
    text = json.dumps(item, sort_keys=True)
    if len(text) > MAX_ITEM_BYTES:
        raise SourceError(f"{whose} holds an item of {len(text)} bytes; up to {MAX_ITEM_BYTES} are read")
    return text
