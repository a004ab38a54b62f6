"""`index.html` of a catalogue: a map, a list and what each dataset is, in one file that asks for nothing elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from sits_catalog.catalogue.folder import Entry

__all__ = ["MAX_OUTLINES_A_PAGE", "render_page"]

JsonObject = dict[str, Any]

MAX_OUTLINES_A_PAGE = 40_000
"""Parcels and patches of all datasets together; each gives its largest."""
_DECIMALS = 5
_MAX_DATES = 1000
_OWN_PICTURE = re.compile(r"\./preview-\d\.png")

_SHOWN = {
    "title": "title",
    "description": "description",
    "created": "created",
    "lineage": "processing:lineage",
    "software": "processing:software",
    "licence": "sits_cube:licence",
    "attribution": "sits_cube:attribution",
    "level": "sits_cube:level",
    "season": "sits_cube:season",
    "profile": "sits_cube:profile",
    "complete": "sits_cube:complete",
    "simulated": "sits_cube:simulated",
    "config": "sits_cube:config_sha256",
    "journal": "sits_cube:journal_sha256",
    "bytes": "sits_cube:bytes",
    "address": "sits_cube:address",
    "bands": "sits_cube:bands",
    "classes": "sits_cube:classes",
    "splits": "sits_cube:splits",
    "folds": "sits_cube:folds",
    "sources": "sits_cube:sources",
    "crs": "proj:code",
    "shape": "proj:shape",
}
"""Names in the page of properties of an item."""


def render_page(entries: Sequence[Entry]) -> bytes:
    """The page. Its data are one JSON block that holds no character HTML could read as markup.

    A content security policy lets nothing but its own style and script work, by their hashes; whatever the name of a
    dataset or a class is, it stays text.
    """
    style, script = _web("page.css"), _web("page.js")
    policy = (
        "default-src 'none'; img-src 'self' file:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    share = MAX_OUTLINES_A_PAGE // max(1, len(entries))
    data = {"datasets": [_dataset(entry, share) for entry in entries]}
    parts = {
        "{{policy}}": escape(policy),
        "{{style}}": style,
        "{{script}}": script,
        "{{plain}}": "".join(_plain(entry) for entry in entries),
        "{{data}}": _inert(data),
    }
    page = _web("page.html")
    # Each mark stands once in the page and is found before anything is put in, so that no content is taken for a mark.
    for mark, text in sorted(parts.items(), key=lambda part: -page.index(part[0])):
        at = page.index(mark)
        page = page[:at] + text + page[at + len(mark) :]
    return page.encode()


def _web(name: str) -> str:
    return (files("sits_catalog.catalogue") / "web" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inert(data: JsonObject) -> str:
    """JSON without `<`, `>`, `&` and the two line ends that JSON allows and scripts did not."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plain(entry: Entry) -> str:
    """For who reads without scripts."""
    properties = entry.item["properties"]
    simulated = " (SIMULATED)" if properties.get("sits_cube:simulated") else ""
    said = f"{properties.get('title') or entry.id}{simulated}: {properties.get('description') or ''}"
    item = f"{entry.family}/{entry.id}/{entry.id}.json"
    return f'<li><a href="{escape(item)}">{escape(entry.id)}</a>: {escape(said)}</li>'


def _dataset(entry: Entry, n_outlines: int) -> JsonObject:
    item, properties = entry.item, entry.item["properties"]
    outlines = entry.outlines
    return {
        "id": entry.id,
        "family": entry.family,
        **{key: properties[name] for key, name in _SHOWN.items() if properties.get(name) is not None},
        "labels": "label:type" in properties,
        "start": str(properties.get("start_datetime") or properties.get("datetime"))[:10],
        "end": str(properties.get("end_datetime") or properties.get("datetime"))[:10],
        **_time(properties),
        "geometry": _rounded(item.get("geometry")),
        "pictures": [
            {
                "href": f"{entry.family}/{entry.id}/{asset['href'].removeprefix('./')}",
                "caption": asset["title"],
                "best": "thumbnail" in asset["roles"],
            }
            for name, asset in sorted(item["assets"].items())
            if name.startswith("preview_") and _OWN_PICTURE.fullmatch(asset["href"])
        ],
        "outlines": {**outlines, "rows": outlines["rows"][:n_outlines]} if outlines else None,
    }


def _time(properties: JsonObject) -> JsonObject:
    """Days of a cube, or numbers of dates and patches of a set."""
    dimensions = properties.get("cube:dimensions") or {}
    time, patch = dimensions.get("time") or {}, dimensions.get("patch")
    days = [str(value)[:10] for value in time.get("values") or ()]
    if days:
        return {"dates": len(days), "days": days[:_MAX_DATES]}
    found = {"dates": int(time["extent"][1]) + 1} if time.get("extent") else {}
    return {**found, **({"patches": int(patch["extent"][1]) + 1} if patch and patch.get("extent") else {})}


def _rounded(geometry: Any) -> Any:
    if isinstance(geometry, dict):
        return {key: _rounded(value) if key == "coordinates" else value for key, value in geometry.items()}
    if isinstance(geometry, list):
        return [_rounded(value) for value in geometry]
    return round(geometry, _DECIMALS) if isinstance(geometry, float) else geometry
