"""Collections of the catalogue, a family of datasets each or the splits of one dataset, and the catalog over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sits_catalog.catalogue.entries import split_collection_id
from sits_catalog.catalogue.folder import MARK, Entry
from sits_catalog.stac import ML_AOI

__all__ = ["family_collection", "root_catalog", "split_collection"]

JsonObject = dict[str, Any]

_JSON, _GEOJSON = "application/json", "application/geo+json"
_WORLD = [-180.0, -90.0, 180.0, 90.0]
_SUMMARIES = ("constellation", "instruments", "gsd", "sits_cube:profile", "sits_cube:level", "sits_cube:simulated")
_ITEM_ASSET = ("title", "type", "roles")


def root_catalog(families: Sequence[str]) -> JsonObject:
    """`catalog.json`: one child a family."""
    return {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": "sits-cubes",
        "title": "Datasets of satellite image time series",
        "description": "Sentinel-2 time series cubes with crop labels: a collection a family, an item a dataset.",
        MARK: "1.0",
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": _JSON},
            {"rel": "alternate", "href": "./index.html", "type": "text/html", "title": "For people"},
            *({"rel": "child", "href": f"./{name}/collection.json", "type": _JSON, "title": name} for name in families),
        ],
    }


def family_collection(family: str, entries: Sequence[Entry]) -> JsonObject:
    """The collection of a family: extent, summaries and assets of its datasets."""
    items = [entry.item for entry in entries]
    n = len(items)
    links = [
        {"rel": "root", "href": "../catalog.json", "type": _JSON},
        {"rel": "parent", "href": "../catalog.json", "type": _JSON},
    ]
    for entry in entries:
        title = entry.item["properties"].get("title") or entry.id
        links.append({"rel": "item", "href": f"./{entry.id}/{entry.id}.json", "type": _GEOJSON, "title": title})
        if entry.splits:
            href = f"./{entry.id}/splits/collection.json"
            links.append({"rel": "child", "href": href, "type": _JSON, "title": f"Splits of {entry.id}"})
    nowhere = sum("bbox" not in item for item in items)
    known = "" if not nowhere else f" Nobody knows the place of {nowhere} of them; if of all, the extent is the world."
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": family,
        "title": family,
        "description": f"{n} {'dataset' if n == 1 else 'datasets'} of the family {family}.{known}",
        "license": _licence(items),
        "extent": _extent(items),
        "summaries": _summaries(items),
        "item_assets": _item_assets(items),
        "links": links,
    }


def split_collection(item: JsonObject, splits: Sequence[JsonObject]) -> JsonObject:
    """The collection of the splits of one dataset: the training input that ml-aoi asks a collection to be.

    One a dataset, because the ground of items of one such collection must not overlap, and datasets of a family do.
    """
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [ML_AOI],
        "id": split_collection_id(item["id"]),
        "title": f"Splits of {item['properties'].get('title') or item['id']}",
        "description": f"Where the dataset {item['id']} is for training, validation and test; buffers are in none.",
        "license": _licence([item]),
        "extent": _extent(splits),
        "summaries": {"ml-aoi:split": [one["properties"]["ml-aoi:split"] for one in splits]},
        "links": [
            {"rel": "root", "href": "../../../catalog.json", "type": _JSON},
            {"rel": "parent", "href": "../../collection.json", "type": _JSON},
            *({"rel": "item", "href": f"./{one['id']}.json", "type": _GEOJSON} for one in splits),
        ],
    }


def _licence(items: Iterable[JsonObject]) -> str:
    """The one licence of all; `other` where they differ or state none."""
    found = {item["properties"].get("license") or "other" for item in items}
    return str(found.pop()) if len(found) == 1 else "other"


def _extent(items: Sequence[JsonObject]) -> JsonObject:
    boxes = [item["bbox"] for item in items if item.get("bbox")]
    crosses = any(box[0] > box[2] for box in boxes)
    box = _WORLD
    if boxes:
        wests, souths, easts, norths = zip(*boxes, strict=True)
        box = [-180.0 if crosses else min(wests), min(souths), 180.0 if crosses else max(easts), max(norths)]
    return {
        "spatial": {"bbox": [box]},
        "temporal": {"interval": [[_time(items, "start_datetime", min), _time(items, "end_datetime", max)]]},
    }


def _time(items: Sequence[JsonObject], key: str, pick: Callable[[Iterable[str]], str]) -> str | None:
    """RFC 3339 in UTC, so that texts sort as times do; `datetime` where an item has no interval."""
    found = [item["properties"].get(key) or item["properties"].get("datetime") for item in items]
    known = [str(one) for one in found if one]
    return pick(known) if known else None


def _summaries(items: Sequence[JsonObject]) -> JsonObject:
    summaries: JsonObject = {}
    for key in (*_SUMMARIES, "sits_cube:bands"):
        values: list[Any] = []
        for item in items:
            value = item["properties"].get(key)
            every = value if isinstance(value, list) else [value]
            values += [one for one in every if isinstance(one, str | int | float)]
        if values:
            summaries[key] = sorted(set(values), key=lambda one: (isinstance(one, str), one))
    crops = {
        str(row["name"])
        for item in items
        for row in item["properties"].get("sits_cube:classes", ())
        if row["index"] != 0
    }
    return {**summaries, "sits_cube:crops": sorted(crops)} if crops else summaries


def _item_assets(items: Sequence[JsonObject]) -> JsonObject:
    assets: JsonObject = {}
    for item in items:
        for name, asset in item["assets"].items():
            assets.setdefault(name, {key: asset[key] for key in _ITEM_ASSET if key in asset})
    # The core schema asks for two fields or more.
    return {name: asset for name, asset in sorted(assets.items()) if len(asset) > 1}
