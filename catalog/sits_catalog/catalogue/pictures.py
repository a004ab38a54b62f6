"""Previews of a dataset, taken from its report: the catalogue reads no pixels."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from html.parser import HTMLParser

__all__ = ["Picture", "pictures_of"]

_PNG = b"\x89PNG\r\n\x1a\n"
_URI = "data:image/png;base64,"
_MAX_BYTES = 4_000_000
"""Of one picture."""
_MAX_PICTURES = 6
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Picture:
    """A PNG with what is seen on it."""

    png: bytes
    caption: str
    clear: float | None
    """Clear share of its date, 0..1, where the report says."""


def pictures_of(report: str) -> tuple[Picture, ...]:
    """The pictures that `report.html` marks with `data-role="preview"`, in their order, six at most.

    A report from before there was such a mark gives its first pictures, whose text says the day they were taken.
    """
    reader = _Reader()
    reader.feed(report)
    marked = [picture for is_marked, picture in reader.found if is_marked]
    dated = [picture for _, picture in reader.found if _DAY.search(picture.caption)]
    return tuple((marked or dated)[:_MAX_PICTURES])


class _Reader(HTMLParser):
    """Collects pictures, and nothing else of what may stand in the file of a stranger."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[bool, Picture]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "img":
            return
        values = {name: value or "" for name, value in attrs}
        png = _png(values.get("src", ""))
        if png is not None:
            picture = Picture(png, values.get("alt", "")[:200], _share(values.get("data-clear", "")))
            self.found.append((values.get("data-role") == "preview", picture))


def _png(uri: str) -> bytes | None:
    if not uri.startswith(_URI) or len(uri) > _MAX_BYTES * 4 // 3:
        return None
    try:
        data = base64.b64decode(uri.removeprefix(_URI), validate=True)
    except binascii.Error:
        return None
    return data if data.startswith(_PNG) else None


def _share(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[01](\.\d+)?", text) else None
