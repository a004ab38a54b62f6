"""The Catalog API 1.0.0: items of tiles, searched by place and time, in pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import shapely
from shapely.geometry import shape
from tests.services.sentinel_hub.errors import Refused, bad_payload
from tests.services.sentinel_hub.tiles import Tile

__all__ = ["COLLECTION", "Catalog"]

COLLECTION = "sentinel-2-l2a"
_KNOWN = {
    "collections", "datetime", "bbox", "intersects", "ids", "filter", "filter-lang", "filter-crs", "fields",
    "distinct", "limit", "next",
}  # fmt: skip
_CLOUD = re.compile(r"\s*eo:cloud_cover\s*(<=|<)\s*([0-9.]+)\s*")
_EXTENSIONS = ["eo/v1.0.0", "projection/v1.0.0"]

Json = dict[str, Any]


class Catalog:
    """Answers for tiles; a page holds `page` items at most, whatever limit is asked for (the real one: 100)."""

    def __init__(self, tiles: Sequence[Tile], *, page: int) -> None:
        # Latest first, as recorded answers are.
        self.tiles = sorted(tiles, key=lambda tile: (tile.sensed, tile.product), reverse=True)
        self.page = page

    def answer(self, path: str, root: str) -> Json:
        """The answer to a GET below the Catalog's root; `root` is its address, for links."""
        collection = {"id": COLLECTION, "type": "Collection", "stac_version": "1.0.0", "title": "Sentinel 2 L2A"}
        if path in ("", "/"):
            return {"type": "Catalog", "id": "sentinel-hub", "stac_version": "1.0.0"}
        if path == "/collections":
            return {"collections": [collection], "links": []}
        if path == f"/collections/{COLLECTION}":
            return collection
        prefix = f"/collections/{COLLECTION}/items/"
        for tile in self.tiles:
            if path == prefix + tile.item_id:
                return item_of(tile, root)
        raise Refused(404, "The requested resource could not be found.")

    def search(self, query: Json, root: str) -> Json:
        """The answer to a POST of a search. Raises Refused."""
        _check(query)
        limit = min(int(query.get("limit", 10)), self.page)
        found = list(self._matching(query))
        first = int(query.get("next", 0))
        chosen = found[first : first + limit]
        context: Json = {"limit": limit, "returned": len(chosen)}
        links: list[Json] = [{"href": f"{root}/search", "rel": "self", "type": "application/json"}]
        if first + limit < len(found):
            context["next"] = first + limit
            body = {"next": first + limit}
            link = {"href": f"{root}/search", "rel": "next", "type": "application/json", "method": "POST"}
            links.append({**link, "body": body, "merge": True})
        features = [_only(item_of(tile, root), query.get("fields")) for tile in chosen]
        return {"type": "FeatureCollection", "features": features, "links": links, "context": context}

    def _matching(self, query: Json) -> Iterator[Tile]:
        start, end = _interval(query["datetime"])
        place = shape(query["intersects"]) if "intersects" in query else shapely.box(*query["bbox"])
        ids = query.get("ids")
        cloud = _CLOUD.fullmatch(query["filter"]) if query.get("filter") else None
        for tile in self.tiles:
            if not start <= tile.sensed <= end or not shapely.intersects(tile.footprint, place):
                continue
            if ids is not None and tile.item_id not in ids:
                continue
            if (
                cloud is None
                or tile.cloud_cover < float(cloud[2])
                or (cloud[1] == "<=" and tile.cloud_cover == float(cloud[2]))
            ):
                yield tile


def item_of(tile: Tile, root: str) -> Json:
    """A tile's item, in the shape of recorded answers of Copernicus Data Space."""
    collection = f"{root}/collections/{COLLECTION}"
    box = shapely.box(*tile.bounds)
    return {
        "stac_version": "1.0.0",
        "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in _EXTENSIONS],
        "id": tile.item_id,
        "type": "Feature",
        "geometry": _geometry(tile.footprint, "urn:ogc:def:crs:OGC::CRS84"),
        "bbox": list(tile.footprint.bounds),
        "properties": {
            "datetime": f"{tile.sensed:%Y-%m-%dT%H:%M:%S}Z",
            "platform": f"sentinel-2{tile.platform[-1].lower()}",
            "instruments": ["msi"],
            "constellation": "sentinel-2",
            "gsd": 10,
            "eo:cloud_cover": tile.cloud_cover,
            "proj:epsg": tile.epsg,
            "proj:bbox": list(tile.bounds),
            "proj:geometry": _geometry(box, f"urn:ogc:def:crs:EPSG::{tile.epsg}"),
        },
        "assets": {"data": {"href": tile.href, "title": "s3", "type": "inode/directory"}},
        "collection": COLLECTION,
        "links": [
            {"href": f"{root}/", "rel": "root", "type": "application/json"},
            {"href": f"{collection}/items/{tile.item_id}", "rel": "self", "type": "application/geo+json"},
            {"href": collection, "rel": "parent", "type": "application/json"},
            {"href": collection, "rel": "collection", "type": "application/json"},
        ],
    }


def _geometry(polygon: shapely.Polygon, crs: str) -> Json:
    """GeoJSON with the crs member that the provider still writes."""
    document: Json = json.loads(shapely.to_geojson(shapely.MultiPolygon([polygon])))
    return {"type": document["type"], "crs": {"type": "name", "properties": {"name": crs}}, **document}


def _check(query: Json) -> None:
    unknown = set(query) - _KNOWN
    if unknown:
        raise bad_payload(", ".join(sorted(unknown)), "Unrecognized field")
    if query.get("collections") != [COLLECTION]:
        raise Refused(404, f"Collection not found: {query.get('collections')}")
    if not isinstance(query.get("datetime"), str):
        raise bad_payload("datetime", "must not be null")
    if ("bbox" in query) == ("intersects" in query):
        raise bad_payload("bbox, intersects", "exactly one of them must be given")
    limit = query.get("limit", 10)
    if not isinstance(limit, int) or not 1 <= limit <= 100:
        raise bad_payload("limit", "must be between 1 and 100", limit)
    if query.get("filter") and not (query.get("filter-lang") == "cql2-text" and _CLOUD.fullmatch(query["filter"])):
        raise bad_payload("filter", "this service knows `eo:cloud_cover < N` in cql2-text alone", query["filter"])
    if query.get("distinct"):
        raise bad_payload("distinct", "this service does not know it")


def _interval(text: str) -> tuple[datetime, datetime]:
    """Both ends of a closed interval, or a moment twice. Raises Refused."""
    start, _, end = text.partition("/")
    try:
        moments = datetime.fromisoformat(start), datetime.fromisoformat(end or start)
    except ValueError:
        raise bad_payload("datetime", "must be RFC 3339", text) from None
    if any(moment.tzinfo is None for moment in moments) or moments[1] < moments[0]:
        raise bad_payload("datetime", "must be RFC 3339 with a time zone, and not end before it begins", text)
    return moments


def _only(item: Json, fields: Json | None) -> Json:
    """The item with the fields that were asked for; no `fields`: all, an empty one: the default set."""
    if fields is None:
        return item
    kept = {name: item[name] for name in ("id", "type", "geometry", "bbox", "links", "assets")}
    for name in fields.get("include", ()):
        top, _, below = name.partition(".")
        if not below:
            kept[top] = item[top]
        elif below in item[top]:
            kept.setdefault(top, {})[below] = item[top][below]
    for name in fields.get("exclude", ()):
        top, _, below = name.partition(".")
        if not below:
            kept.pop(top, None)
        else:
            kept.get(top, {}).pop(below, None)
    return kept
