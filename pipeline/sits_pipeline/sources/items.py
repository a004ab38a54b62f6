"""From a STAC item of any provider to a `Scene`: band names, radiometry rule, checked addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import shapely

from sits_catalog.cube import lattice_anchor_y
from sits_catalog.sentinel2 import BANDS, BOA_OFFSET, baseline_key, has_boa_offset
from sits_pipeline.values import JsonObject, Scene

__all__ = ["ASSET_KEYS", "check_id", "declared_offset", "footprint_of", "parse_time", "scene_from_item", "sensed_of"]

ASSET_KEYS: Mapping[str, Mapping[str, str]] = {
    "earth-search": {
        "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red",
        "B05": "rededge1", "B06": "rededge2", "B07": "rededge3",
        "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22", "SCL": "scl",
    },
    "planetary-computer": {band: band for band in (*BANDS, "SCL")},
    "cdse": {**{name: f"{name}_{band.resolution_m}m" for name, band in BANDS.items()}, "SCL": "SCL_20m"},
}  # fmt: skip
"""Band to asset key, a naming style a provider."""

_MAX_ID = 200
_BASELINE = re.compile(r"_N(\d{4})_")
_ORBIT = re.compile(r"_R(\d{3})_")
_TILE = re.compile(r"(?:MGRS-|_T|^T?)(\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?=_|$)")


def scene_from_item(item: JsonObject, resolve: Callable[[object], str]) -> Scene:
    """The scene that a STAC item describes; `resolve` turns an href into an address or raises ValueError.

    Raises ValueError with one sentence where the item is no Sentinel-2 L2A scene or lacks what a build needs.
    """
    identifier = check_id(item.get("id"))
    properties = _object(item, "properties")
    assets = _object(item, "assets")
    collection = _text(item, "collection") or ""
    product = _text(properties, "s2:product_uri", "sentinel:product_id", "sentinel2:product_id", "title") or identifier
    _check_product(properties, collection, f"{product} {identifier}")
    baseline = _baseline(properties, product)
    style, keys = _asset_keys(assets)
    provider = _provider(properties, collection, style)
    offset, firm = declared_offset(provider, collection, baseline, properties)
    return Scene(
        id=identifier,
        provider=provider,
        collection=collection,
        sensed=sensed_of(item),
        platform=(_text(properties, "platform") or "").lower(),
        orbit=_orbit(properties, product),
        mgrs_tile=_mgrs_tile(properties, product),
        epsg=_epsg(properties, assets),
        baseline=baseline,
        cloud_cover=_number(properties, "eo:cloud_cover"),
        footprint=footprint_of(item),
        datatake=_text(properties, "s2:datatake_id", "eopf:datatake_id"),
        datastrip=_text(properties, "s2:datastrip_id", "eopf:datastrip_id"),
        generated=parse_time(_text(properties, "processing:datetime", "s2:generation_time")),
        assets={band: _address(assets, key, resolve) for band, key in keys.items()},
        declared_offset=offset,
        offset_is_firm=firm,
        item=item,
    )


def check_id(identifier: object) -> str:
    """An item's id, which must be harmless wherever it is printed; raises ValueError."""
    if not isinstance(identifier, str) or not 0 < len(identifier) <= _MAX_ID:
        raise ValueError(f"an item's id is a text of 1 to {_MAX_ID} characters")
    if not identifier.isprintable() or "/" in identifier or "\\" in identifier or ".." in identifier:
        raise ValueError("an item's id has no '/', no '..' and no control characters")
    return identifier


def declared_offset(provider: str, collection: str, baseline: str, properties: JsonObject) -> tuple[int, bool]:
    """Offset the provider's rule asks for, in DN, and whether that rule is certain.

    Everyone serves ESA's DN as they are, but Earth Search, which took the offset out of most of `sentinel-2-l2a`
    and whose metadata are wrong about which (Element84/earth-search#66, #71): there the pixels decide, and
    `raster:offset` is never looked at.
    """
    by_baseline = BOA_OFFSET if has_boa_offset(baseline) else 0
    if collection == "sentinel-2-c1-l2a" and not by_baseline:
        raise ValueError(f"collection sentinel-2-c1-l2a starts at baseline 04.00; this item says {baseline}")
    if provider != "earth-search" or collection == "sentinel-2-c1-l2a":
        return by_baseline, True
    applied = properties.get("earthsearch:boa_offset_applied", properties.get("sentinel:boa_offset_applied", False))
    return (0 if applied is True else by_baseline), False


def _check_product(properties: JsonObject, collection: str, names: str) -> None:
    platform = (_text(properties, "platform", "constellation") or "sentinel-2").lower()
    if not platform.startswith("sentinel-2"):
        raise ValueError(f"not a Sentinel-2 scene but one of {platform[:40]}")
    kind = _text(properties, "s2:product_type", "product:type") or ""
    if "1C" in kind or "MSIL1C" in names or collection.lower().endswith("l1c"):
        raise ValueError("a Level-1C scene; cubes are built from Level-2A")


def _asset_keys(assets: JsonObject) -> tuple[str, dict[str, str]]:
    """Naming style with most hits and band to asset key; else by band and common names; never by position."""
    best, keys = "stac", _keys_by_bands(assets)
    for name, style in ASSET_KEYS.items():
        hits = {band: found for band, key in style.items() if (found := _cog_first(key, assets)) is not None}
        if len(hits) > (0 if best == "stac" else len(keys)):
            best, keys = name, hits
    if not keys.keys() & BANDS.keys():
        raise ValueError(f"no band among its assets ({', '.join(sorted(assets)[:20]) or 'it has none'})")
    return best, keys


def _cog_first(key: str, assets: JsonObject) -> str | None:
    return next((name for name in (key, f"{key}-jp2") if name in assets), None)


def _keys_by_bands(assets: JsonObject) -> dict[str, str]:
    """By the name or the common name of an asset's only band; JPEG 2000 twins last."""
    common = {band.common_name: name for name, band in BANDS.items()}
    keys: dict[str, str] = {}
    for key in sorted(assets, key=lambda key: (key.endswith("-jp2"), key)):
        bands = assets[key].get("bands") or assets[key].get("eo:bands") if isinstance(assets[key], dict) else None
        if isinstance(bands, list) and len(bands) == 1 and isinstance(bands[0], dict):
            name = _text(bands[0], "name") or ""
            shared = _text(bands[0], "eo:common_name", "common_name") or ""
            band = name if name in BANDS else common.get(shared)
            if band is not None:
                keys.setdefault(band, key)
        elif key.lower().startswith("scl"):
            keys.setdefault("SCL", key)
    return keys


def _provider(properties: JsonObject, collection: str, style: str) -> str:
    """Whose rule applies; names other than earth-search are for people to read."""
    if properties.get("simulated") is True and not _is_earth_search(properties, collection, style):
        return "simulated"
    if _is_earth_search(properties, collection, style):
        return "earth-search"
    return style if collection == "sentinel-2-l2a" else "stac"


def _is_earth_search(properties: JsonObject, collection: str, style: str) -> bool:
    return (
        any(key.startswith("earthsearch:") for key in properties)
        or collection in ("sentinel-2-c1-l2a", "sentinel-s2-l2a-cogs")
        or (collection == "sentinel-2-l2a" and style == "earth-search")
    )


def _address(assets: JsonObject, key: str, resolve: Callable[[object], str]) -> str:
    asset = assets[key]
    try:
        return resolve(asset.get("href") if isinstance(asset, dict) else None)
    except ValueError as error:
        raise ValueError(f"asset {key}: {error}") from None


def _baseline(properties: JsonObject, product: str) -> str:
    text = _text(properties, "s2:processing_baseline", "processing:version")
    if text is None and (match := _BASELINE.search(product)):
        text = match[1]
    if text is None:
        raise ValueError("no processing baseline (s2:processing_baseline or processing:version)")
    major, minor = baseline_key(text)
    return f"{major:02d}.{minor:02d}"


def _epsg(properties: JsonObject, assets: JsonObject) -> int:
    """From the item, or from its assets where they all agree."""
    holders = [properties, *(asset for asset in assets.values() if isinstance(asset, dict))]
    found = {code for holder in holders if (code := _epsg_code(holder)) is not None}
    if not found:
        raise ValueError("no CRS (proj:code or proj:epsg)")
    if len(found) > 1:
        raise ValueError(f"its assets are in several CRSs: {', '.join(f'EPSG:{code}' for code in sorted(found))}")
    epsg = found.pop()
    lattice_anchor_y(epsg)
    return epsg


def _epsg_code(holder: JsonObject) -> int | None:
    code = holder.get("proj:code")
    if isinstance(code, str) and (match := re.fullmatch(r"EPSG:(\d{4,6})", code)):
        return int(match[1])
    epsg = holder.get("proj:epsg")
    return epsg if isinstance(epsg, int) and not isinstance(epsg, bool) else None


def sensed_of(item: JsonObject) -> datetime:
    """Sensing time of an item, UTC; raises ValueError."""
    sensed = parse_time(_text(_object(item, "properties"), "datetime", "start_datetime"))
    if sensed is None:
        raise ValueError("no datetime")
    return sensed


def parse_time(text: str | None) -> datetime | None:
    """A time of the metadata, in UTC, which stands for a missing zone; raises ValueError."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"a time looks like 2018-04-18T10:40:21Z; got {text[:40]!r}") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _orbit(properties: JsonObject, product: str) -> int | None:
    number = _number(properties, "sat:relative_orbit")
    if number is not None:
        return int(number)
    match = _ORBIT.search(product)
    return int(match[1]) if match else None


def _mgrs_tile(properties: JsonObject, product: str) -> str:
    zone = _number(properties, "mgrs:utm_zone", "sentinel:utm_zone")
    band = _text(properties, "mgrs:latitude_band", "sentinel:latitude_band")
    square = _text(properties, "mgrs:grid_square", "sentinel:grid_square")
    parts = f"{int(zone)}{band}{square}" if zone is not None and band and square else None
    for text in (_text(properties, "grid:code"), _text(properties, "s2:mgrs_tile", "s2:tile"), parts, product):
        if text is not None and (match := _TILE.search(text)):
            return match[1].zfill(5)
    raise ValueError("no MGRS tile (grid:code)")


def footprint_of(item: JsonObject) -> shapely.Geometry:
    """Where an item holds data, lon/lat; raises ValueError."""
    geometry = item.get("geometry")
    try:
        if isinstance(geometry, dict):
            shape = shapely.make_valid(shapely.force_2d(shapely.geometry.shape(geometry)))
        else:
            shape = shapely.box(*_flat_bbox(item.get("bbox")))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, shapely.errors.ShapelyError) as error:
        raise ValueError(f"no footprint: {error}") from None
    if shape.is_empty:
        raise ValueError("no footprint: its geometry is empty")
    return shape


def _flat_bbox(bbox: object) -> tuple[float, float, float, float]:
    if not isinstance(bbox, list) or len(bbox) not in (4, 6):
        raise ValueError("neither a geometry nor a bbox")
    half = len(bbox) // 2
    return float(bbox[0]), float(bbox[1]), float(bbox[half]), float(bbox[half + 1])


def _object(holder: JsonObject, key: str) -> JsonObject:
    value = holder.get(key)
    if isinstance(value, dict):
        return value
    raise ValueError(f"no {key}")


def _text(holder: JsonObject, *keys: str) -> str | None:
    values: list[Any] = [holder.get(key) for key in keys]
    return next((value for value in values if isinstance(value, str) and value), None)


def _number(holder: JsonObject, *keys: str) -> float | None:
    values: list[Any] = [holder.get(key) for key in keys]
    return next((value for value in values if isinstance(value, int | float) and not isinstance(value, bool)), None)
