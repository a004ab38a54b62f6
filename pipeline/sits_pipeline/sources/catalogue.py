"""Reads static STAC catalogues whose links are hostile until checked.

A local catalogue may point into its own folder or to http(s); a remote one to http(s) alone. Nothing else is opened:
no other scheme, no GDAL prefix (`/vsi...`), no way out of the folder by `..` or a symbolic link, and from a remote one
no way into this machine's network (`sits_catalog.reach`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from sits_catalog.addresses import without_secrets
from sits_catalog.reach import Reach, Refused
from sits_pipeline.sources.base import ServiceDown, SourceError
from sits_pipeline.sources.documents import Ration, check_item
from sits_pipeline.sources.web import Web, is_web
from sits_pipeline.values import JsonObject

__all__ = ["FoundItem", "Spot", "read_items", "resolve_remote"]

MAX_DEPTH = 10
MAX_ITEMS = 100_000
MAX_JSON_BYTES = 50 * 2**20

_REMOTE_READERS = 8
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_STORED = re.compile(r"s3://[A-Za-z0-9._-]+/[^\x00-\x1f\x7f]{1,8000}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class Spot:
    """Where a document was found, and so what its relative links mean and how far they may reach."""

    location: str
    """Absolute local path or http(s) URL."""
    root: Path | None
    """Folder that local links must stay in; None for a remote document."""
    reach: Reach
    """How far http(s) links may lead."""

    @property
    def web_host(self) -> str:
        """The host that `reach` trusts; empty for a document on this machine."""
        return next(iter(self.reach.hosts), "")

    def resolve(self, href: object) -> Spot:
        """Where a link of this document leads; raises ValueError where it may not lead there."""
        if not isinstance(href, str) or not href or len(href) > 8192 or _CONTROL.search(href):
            raise ValueError("a link must be a text without control characters")
        if is_web(href):
            return self._on_the_web(href)
        scheme = urlsplit(href).scheme if _SCHEME.match(href) else ""
        if scheme == "s3":
            raise ValueError(
                f"{_short(href)}: objects of a store are read by the source that has its keys (cdse), or over http(s)"
            )
        if self.root is None:
            return self._resolve_remote(href, scheme)
        return self._resolve_local(href, scheme, self.root)

    def _resolve_remote(self, href: str, scheme: str) -> Spot:
        url = urljoin(self.location, href)
        if scheme or href.startswith("/vsi") or not is_web(url):
            raise ValueError(f"{_short(href)}: a remote catalogue may point to http(s) only")
        return self._on_the_web(url)

    def _on_the_web(self, url: str) -> Spot:
        try:
            self.reach.check_url(url)
        except Refused as error:
            raise ValueError(f"{_short(url)}: {error}") from None
        # What a document on this machine names it may ask of this network; what a server then names may not.
        return Spot(url, None, self.reach.past(url))

    def _resolve_local(self, href: str, scheme: str, root: Path) -> Spot:
        if scheme == "file":
            href = unquote(urlsplit(href).path)
        elif scheme:
            raise ValueError(f"{_short(href)}: a link leads to http(s) or to a file, not to {scheme}:")
        try:
            path = (Path(self.location).parent / href).resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, before Python 3.13
            raise ValueError(f"{_short(href)}: {error}") from None
        if not path.is_relative_to(root) or str(path).startswith("/vsi") or href.startswith("/vsi"):
            raise ValueError(f"{_short(href)}: leads out of the catalogue's folder")
        return Spot(str(path), root, self.reach)


def _short(href: str) -> str:
    """An address for a message: without anything that may be a secret, also where it is relative."""
    shown = without_secrets(href).partition("?")[0][:200]
    return shown if shown.isprintable() else ascii(shown)[1:-1]


def resolve_remote(item: JsonObject, href: object, *, stores: bool, reach: Reach) -> str:
    """The http(s) address that an href of an item means which was not found in a file beside its assets.

    A relative one starts from the item's own address, its link `self`. With `stores` it may lead to s3:// as well.
    Raises ValueError where it leads elsewhere or out of reach, or has nothing to start from.
    """
    if stores and isinstance(href, str) and _STORED.fullmatch(href):
        return href
    listed = item.get("links")
    links = listed if isinstance(listed, list) else []
    own = next((link.get("href") for link in links if isinstance(link, dict) and link.get("rel") == "self"), None)
    if isinstance(own, str) and is_web(own):
        return Spot(own, None, reach).resolve(href).location
    if isinstance(href, str) and not is_web(href) and not _SCHEME.match(href):
        raise ValueError(f"{_short(href)}: a relative address, and the item has no link `self` that it starts from")
    return Spot("", None, reach).resolve(href).location


@dataclass(frozen=True)
class FoundItem:
    """An item as found, unchecked."""

    spot: Spot
    item: JsonObject


def read_items(location: str) -> Iterator[FoundItem]:
    """Every item of a catalogue, a collection, an ItemCollection or an item; each document once.

    `location` is a local path or an http(s) URL. Raises SourceError.
    """
    spots: dict[str, Spot] = {}
    ration = Ration("the catalogue", "give a part of it")
    for count, document in enumerate(_walk(_start(location), (), set(), spots, ration), start=1):
        _check_count(count)
        yield document
    yield from _read_all(list(spots.values()), ration)


def _check_count(count: int) -> None:
    if count > MAX_ITEMS:
        raise SourceError(f"the catalogue holds more than {MAX_ITEMS} items; give a part of it")


def _start(location: str) -> Spot:
    if is_web(location):
        return Spot(location, None, Reach.of(location))
    if "://" in location or location.startswith("/vsi"):
        raise SourceError(f"a catalogue is a local path or an http(s) URL; got {_short(location)}")
    path = Path(location).resolve()
    if path.is_dir():
        path /= "catalog.json"
    if not path.is_file():
        raise SourceError(f"no STAC catalogue at {location}; give a catalog.json, a collection or an ItemCollection")
    return Spot(str(path.resolve()), path.resolve().parent, Reach.of(location))


def _walk(
    spot: Spot, above: tuple[str, ...], seen: set[str], items: dict[str, Spot], ration: Ration
) -> Iterator[FoundItem]:
    """Items that stand in the documents themselves; those behind links are noted in `items`."""
    if spot.location in above:
        raise SourceError(f"the catalogue links back to itself at {_short(spot.location)}")
    if len(above) > MAX_DEPTH:
        raise SourceError(f"the catalogue is deeper than {MAX_DEPTH} levels at {_short(spot.location)}")
    if spot.location in seen:
        return
    seen.add(spot.location)
    _check_count(len(seen))
    document = _read_json(spot, ration)
    kind = document.get("type")
    if kind == "Feature":
        yield _found(spot, document)
        return
    if kind == "FeatureCollection":
        yield from (_found(spot, feature) for feature in _features(document, spot))
        return
    if "stac_version" not in document and "links" not in document:
        raise SourceError(f"{_short(spot.location)} is not a STAC catalogue, collection, item or ItemCollection")
    for kind, target in _children(document, spot):
        if kind == "item":
            items[target.location] = target
            _check_count(len(items))
        else:
            yield from _walk(target, (*above, spot.location), seen, items, ration)


def _children(document: JsonObject, spot: Spot) -> Iterator[tuple[str, Spot]]:
    links = document.get("links", [])
    if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
        raise SourceError(f"the links of {_short(spot.location)} are not a list of objects")
    for link in links:
        if link.get("rel") in ("child", "item"):
            try:
                yield link["rel"], spot.resolve(link.get("href"))
            except ValueError as error:
                raise SourceError(f"a link in {_short(spot.location)} is not followed: {error}") from None


def _features(document: JsonObject, spot: Spot) -> list[JsonObject]:
    features = document.get("features")
    if not isinstance(features, list) or not all(isinstance(feature, dict) for feature in features):
        raise SourceError(f"the features of {_short(spot.location)} are not a list of objects")
    _check_count(len(features))
    return features


def _found(spot: Spot, item: JsonObject) -> FoundItem:
    check_item(item, _short(spot.location))
    return FoundItem(spot, item)


def _read_all(spots: list[Spot], ration: Ration) -> Iterator[FoundItem]:
    """Items behind links: local ones one by one, remote ones a few at a time."""
    read = partial(_item_at, ration=ration)
    if any(spot.root is None for spot in spots):
        with ThreadPoolExecutor(_REMOTE_READERS) as readers:
            yield from readers.map(read, spots)
    else:
        yield from map(read, spots)


def _item_at(spot: Spot, ration: Ration) -> FoundItem:
    return _found(spot, _read_json(spot, ration))


def _read_json(spot: Spot, ration: Ration) -> JsonObject:
    try:
        content = _fetch(spot) if spot.root is None else _read_file(spot.location)
    except ConnectionError as error:
        raise ServiceDown(f"{_short(spot.location)} cannot be read: {error}") from error
    except OSError as error:
        raise SourceError(f"{_short(spot.location)} cannot be read: {error.strerror or error}") from error
    ration.spend(len(content))
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{_short(spot.location)} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SourceError(f"{_short(spot.location)} holds no JSON object")
    return document


def _fetch(spot: Spot) -> bytes:
    return Web(reach=spot.reach).fetch(spot.location, max_bytes=MAX_JSON_BYTES).body


def _read_file(location: str) -> bytes:
    path = Path(location)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path.name}")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise OSError(f"larger than the {MAX_JSON_BYTES} bytes that are read at most")
    return path.read_bytes()
