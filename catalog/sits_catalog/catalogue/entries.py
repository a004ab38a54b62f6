"""A dataset as an item of the catalogue, and its splits as items of the ml-aoi extension: values in, JSON out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sits_catalog.catalogue.dataset import Finding
from sits_catalog.catalogue.folder import check_name
from sits_catalog.catalogue.pictures import Picture
from sits_catalog.catalogue.tables import SplitShare, Tables
from sits_catalog.stac import EXTENSIONS, ML_AOI, ClassCount, label_properties

__all__ = [
    "ML_AOI_SPLITS",
    "SPLITS_SUFFIX",
    "Place",
    "best_picture",
    "entry_item",
    "family_of",
    "split_collection_id",
    "split_items",
]

JsonObject = dict[str, Any]

ML_AOI_SPLITS = {"train": "train", "validation": "validate", "test": "test"}
"""Our word for a split to the extension's; what lies in a buffer or in no split is in none of its items."""
SPLITS_SUFFIX = "-splits"
"""Of the collection of the splits of a dataset; no dataset and no family ends so."""
_JSON, _GEOJSON, _PNG = "application/json", "application/geo+json", "image/png"
_ZARR = "application/vnd.zarr; version=3"
_LICENCE_ID = re.compile(r"[\w.+-]+")
_ZONE = re.compile(r"-32[67]\d\d$")
_YEAR = re.compile(r"-(19|20)\d\d$")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an entry stands."""

    catalogue: Path
    """Folder of the catalogue, absolute."""
    family: str
    id: str

    @property
    def folder(self) -> Path:
        """Of the entry."""
        return self.catalogue / self.family / self.id


def family_of(dataset_id: str) -> str:
    """The family of a dataset of which nobody said: its id without UTM zone and year.

    >>> family_of("t31tfm-2017"), family_of("demo-32631"), family_of("demo-south")
    ('t31tfm', 'demo', 'demo-south')
    """
    return _YEAR.sub("", _ZONE.sub("", dataset_id)) or dataset_id


def split_collection_id(dataset_id: str) -> str:
    """The id of the collection that holds the splits of a dataset."""
    return dataset_id + SPLITS_SUFFIX


# The dataset


def entry_item(finding: Finding, tables: Tables, pictures: Sequence[Picture], place: Place) -> JsonObject:
    """The item: the dataset's own, its links and assets pointing to the dataset in place, with lineage added."""
    check_name("the id", place.id, "name the dataset with --id")
    base = _base(finding, place.folder)
    counts = _class_counts(finding)
    labels = label_properties(counts) if counts and "label:type" not in finding.item["properties"] else {}
    classes = _classes(finding, tables, counts)
    used = list(finding.item.get("stac_extensions", ()))
    if labels and EXTENSIONS["label"] not in used:
        used.append(EXTENSIONS["label"])
    has_splits = bool(_used_splits(tables)) and ("label:type" in finding.item["properties"] or bool(labels))
    geometry, box = finding.item.get("geometry"), finding.item.get("bbox")
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": used,
        "id": place.id,
        "collection": place.family,
        "geometry": geometry,
        **({"bbox": box} if geometry is not None and box is not None else {}),
        "properties": {
            **finding.item["properties"],
            **labels,
            **_rights(finding),
            **_lineage(finding, tables, place),
            "sits_cube:bands": _bands(finding.item),
            **({"sits_cube:classes": classes} if classes else {}),
            **({"sits_cube:splits": [_share(one) for one in tables.splits]} if tables.splits else {}),
            **({"sits_cube:folds": {str(fold): n for fold, n in tables.folds.items()}} if tables.folds else {}),
        },
        "links": [*_own_links(has_splits=has_splits), *_dataset_links(finding, base)],
        "assets": {**_assets(finding.item, base), **_picture_assets(pictures)},
    }


def _base(finding: Finding, start: Path) -> str:
    """The dataset's folder as seen from `start`, escaped for a link."""
    if not finding.files.is_local:
        return finding.files.location.rstrip("/")
    return quote(Path(os.path.relpath(finding.files.path, start)).as_posix())


def address_of(finding: Finding, catalogue: Path) -> str:
    """Where the dataset lies: a path from the catalogue's folder, or an address."""
    if not finding.files.is_local:
        return finding.files.location.rstrip("/")
    return Path(os.path.relpath(finding.files.path, catalogue)).as_posix()


def _lineage(finding: Finding, tables: Tables, place: Place) -> JsonObject:
    attributes = finding.attributes
    season = attributes.get("season")
    found = {
        "sits_cube:address": address_of(finding, place.catalogue),
        "sits_cube:item_sha256": finding.item_sha256,
        "sits_cube:journal_sha256": finding.journal_sha256,
        "sits_cube:bytes": finding.size_bytes,
        "sits_cube:n_files": finding.n_files,
        "sits_cube:region": attributes.get("region"),
        "sits_cube:season": season if isinstance(season, dict) else None,
        "sits_cube:level": (attributes.get("radiometry") or {}).get("level"),
        "sits_cube:simulated": bool(attributes.get("simulated")),
        "sits_cube:sources": tables.sources or None,
    }
    if place.id != finding.item["id"]:
        found["sits_cube:original_id"] = finding.item["id"]
    return {key: value for key, value in found.items() if value is not None}


def _rights(finding: Finding) -> JsonObject:
    """Licence and attribution, as the parcel source or the original states them."""
    told = [finding.attributes.get("imported"), finding.config.get("parcels")]
    licence = next((one["licence"] for one in told if isinstance(one, dict) and one.get("licence")), None)
    who = next((one["attribution"] for one in told if isinstance(one, dict) and one.get("attribution")), None)
    rights: JsonObject = {}
    if licence:
        rights["sits_cube:licence"] = str(licence)
        # The core schema takes an identifier alone; SPDX ids have no blanks.
        rights["license"] = str(licence) if _LICENCE_ID.fullmatch(str(licence)) else "other"
    if who:
        rights["sits_cube:attribution"] = str(who)
    return rights


def _bands(item: JsonObject) -> list[str]:
    cube = item["assets"].get("cube")
    bands = cube.get("bands", ()) if isinstance(cube, dict) else ()
    return [str(band["name"]) for band in bands if isinstance(band, dict) and "name" in band]


def _class_counts(finding: Finding) -> tuple[ClassCount, ...]:
    """Classes with their pixels; those that the item counts, by name."""
    counted = _counted(finding.item["properties"])
    rows = [{"index": 0, "name": "background"}, *finding.class_table] if finding.class_table else []
    return tuple(
        ClassCount(index=row["index"], name=str(row.get("name")), n_pixels=counted.get(str(row.get("name")), 0))
        for row in rows
    )


def _counted(properties: JsonObject) -> dict[str, int]:
    found: dict[str, int] = {}
    for overview in properties.get("label:overviews") or ():
        for row in overview.get("counts") or ():
            found[str(row.get("name"))] = int(row.get("count") or 0)
    return found


def _classes(finding: Finding, tables: Tables, counts: Sequence[ClassCount]) -> list[JsonObject]:
    """Class table with pixels and parcels; the background is in it, what is ignored is no class."""
    table: Mapping[int, JsonObject] = {row["index"]: row for row in finding.class_table}
    return [
        {
            "index": count.index,
            "name": count.name,
            "code": str(table.get(count.index, {}).get("code") or ""),
            "hcat": str(table.get(count.index, {}).get("hcat") or ""),
            "colour": str(table.get(count.index, {}).get("colour") or ""),
            "pixels": count.n_pixels,
            "parcels": tables.parcels.get(count.index, 0),
        }
        for count in counts
    ]


def _share(split: SplitShare) -> JsonObject:
    numbers = {"parcels": split.parcels, "pixels": split.pixels, "patches": split.patches}
    ground = {} if split.n_parts is None else {"ground": f"not given, as it has {split.n_parts} parts"}
    return {"name": split.name, **{key: value for key, value in numbers.items() if value is not None}, **ground}


# Links and assets


def _own_links(*, has_splits: bool) -> Iterator[JsonObject]:
    yield {"rel": "root", "href": "../../catalog.json", "type": _JSON}
    yield {"rel": "parent", "href": "../collection.json", "type": _JSON}
    yield {"rel": "collection", "href": "../collection.json", "type": _JSON}
    if has_splits:
        title = "Splits of this dataset, an item each (ml-aoi)"
        yield {"rel": "related", "href": "./splits/collection.json", "type": _JSON, "title": title}


def _dataset_links(finding: Finding, base: str) -> Iterator[JsonObject]:
    yield {"rel": "canonical", "href": f"{base}/item.json", "type": _GEOJSON, "title": "The dataset's own item"}
    for link in finding.item["links"]:
        if isinstance(link, dict) and link.get("rel") in ("store", "derived_from", "license", "cite-as"):
            yield {**link, "href": _from(base, str(link.get("href", "")))}


def _from(base: str, href: str) -> str:
    """An address that starts from the dataset's item, as it is from ours."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|/", href):
        return href
    return f"{base}/{href.removeprefix('./')}"


def _assets(item: JsonObject, base: str) -> dict[str, JsonObject]:
    return {
        name: {**asset, "href": _from(base, asset["href"])}
        for name, asset in item["assets"].items()
        if isinstance(asset, dict) and isinstance(asset.get("href"), str)
    }


def _picture_assets(pictures: Sequence[Picture]) -> dict[str, JsonObject]:
    best = best_picture(pictures)
    return {
        f"preview_{number}": {
            "href": f"./preview-{number}.png",
            "type": _PNG,
            "title": picture.caption or "Preview",
            "roles": ["thumbnail" if number - 1 == best else "overview"],
        }
        for number, picture in enumerate(pictures, 1)
    }


def best_picture(pictures: Sequence[Picture]) -> int | None:
    """Position of the clearest picture; of those as clear, the one in the middle, where fields are green.

    Where the report does not say how clear they are, the one with most bytes: clouds compress to little.
    """
    if not pictures:
        return None
    known = [picture.clear for picture in pictures if picture.clear is not None]
    if len(known) < len(pictures):
        return max(range(len(pictures)), key=lambda i: len(pictures[i].png))
    ties = [i for i, clear in enumerate(known) if clear >= max(known) - 0.01]
    return ties[len(ties) // 2]


# Splits


def split_items(item: JsonObject, tables: Tables, place: Place, finding: Finding) -> list[JsonObject]:
    """An item a split that the extension knows and whose ground is known; none where there are no labels.

    ml-aoi scopes one label item and its imagery by geometry: each of these links to the dataset's item twice, as the
    one that has the labels and as the one that has the imagery, because a cube holds both.
    """
    if "label:type" not in item["properties"]:
        return []
    base = _base(finding, place.folder / "splits")
    return [_split_item(item, split, split.geometry or {}, base) for split in _used_splits(tables)]


def _used_splits(tables: Tables) -> list[SplitShare]:
    return [split for split in tables.splits if split.name in ML_AOI_SPLITS and split.geometry is not None]


def _split_item(item: JsonObject, split: SplitShare, geometry: JsonObject, base: str) -> JsonObject:
    import shapely

    name, properties = ML_AOI_SPLITS[split.name], item["properties"]
    bounds = shapely.bounds(shapely.geometry.shape(geometry))
    kept = ("start_datetime", "end_datetime", "created", "constellation", "license", "sits_cube:simulated")
    amount = f"{split.patches} patches" if split.patches is not None else f"{split.parcels} parcels"
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [ML_AOI],
        "id": f"{item['id']}-{name}",
        "collection": split_collection_id(item["id"]),
        "geometry": geometry,
        "bbox": [float(value) for value in bounds],
        "properties": {
            "title": f"{properties.get('title') or item['id']}: {split.name}",
            "description": f"Ground of the split {split.name} of {item['id']}: {amount}.",
            "datetime": None,
            **{key: properties[key] for key in kept if key in properties},
            "ml-aoi:split": name,
            "sits_cube:split": split.name,
            **{f"sits_cube:{key}": value for key, value in _share(split).items() if key != "name"},
        },
        "links": list(_split_links(item)),
        "assets": _split_assets(base, "parcels" in item["assets"]),
    }


def _split_links(item: JsonObject) -> Iterator[JsonObject]:
    yield {"rel": "root", "href": "../../../catalog.json", "type": _JSON}
    yield {"rel": "parent", "href": "./collection.json", "type": _JSON}
    yield {"rel": "collection", "href": "./collection.json", "type": _JSON}
    for role in ("label", "feature"):
        link = {"rel": "derived_from", "href": f"../{item['id']}.json", "type": _GEOJSON}
        yield {**link, "title": f"The dataset, as the item with the {role}s", "ml-aoi:role": role}


def _split_assets(base: str, has_parcels: bool) -> dict[str, JsonObject]:
    assets: dict[str, JsonObject] = {
        "cube": {
            "href": f"{base}/cube.zarr",
            "type": _ZARR,
            "title": "Time series cube",
            "roles": ["data"],
            "ml-aoi:role": "feature",
            "ml-aoi:reference-grid": True,
        },
        "labels": {
            "href": f"{base}/cube.zarr/crop_type",
            "type": _ZARR,
            "title": "Crop class of each pixel, an array of the cube on its grid",
            "roles": ["data", "labels"],
            "ml-aoi:role": "label",
        },
    }
    if has_parcels:
        assets["parcels"] = {
            "href": f"{base}/parcels.parquet",
            "type": "application/vnd.apache.parquet",
            "title": "Parcels, one row each (GeoParquet)",
            "roles": ["data", "labels"],
            "ml-aoi:role": "label",
        }
    return assets
