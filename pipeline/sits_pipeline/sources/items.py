"""From a STAC item of any provider to a `Scene`: band names, radiometry rule, checked addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sits_catalog.cube import lattice_anchor_y
from sits_catalog.sentinel2 import BANDS, BOA_OFFSET, baseline_key, has_boa_offset
from sits_pipeline.sources.footprints import footprint_of
from sits_pipeline.sources.providers import PROVIDERS, Provider
from sits_pipeline.values import JsonObject, Scene

__all__ = ["check_id", "declared_offset", "finite_number", "parse_time", "scene_from_item", "sensed_of"]

_MAX_ID = 200
_BASELINE = re.compile(r"_N(\d{4})_")
_ORBIT = re.compile(r"_R(\d{3})_")
_TILE = re.compile(r"(?:MGRS-|_T|^T?)(\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?=_|$)")


def href_of(asset: JsonObject) -> object:
    """The href of an asset, unchecked."""
    return asset.get("href")


def scene_from_item(
    item: JsonObject,
    resolve: Callable[[object], str],
    *,
    provider: Provider | None = None,
    choose: Callable[[JsonObject], object] = href_of,
) -> Scene:
    """The scene that a STAC item describes.

    Args:
        item: as found
        resolve: turns an href into an address or raises ValueError
        provider: whose API listed the item, so that its asset keys are known; None: found by the names of all
        choose: the href of an asset that offers several

    Raises:
        ValueError: with one sentence, where it is no Sentinel-2 L2A scene or lacks what a build needs
    """
    identifier = check_id(item.get("id"))
    properties = _object(item, "properties")
    assets = _object(item, "assets")
    collection = _text(item, "collection") or ""
    product = _text(properties, "s2:product_uri", "sentinel:product_id", "sentinel2:product_id", "title") or identifier
    _check_product(properties, collection, f"{product} {identifier}")
    baseline = _baseline(properties, product)
    style, keys = _asset_keys(assets, provider)
    rule = _provider(properties, collection, style)
    offset, firm = declared_offset(rule, collection, baseline, properties)
    return Scene(
        id=identifier,
        provider=rule,
        collection=collection,
        sensed=sensed_of(item),
        platform=(_text(properties, "platform") or "").lower(),
        orbit=_orbit(properties, product),
        mgrs_tile=_mgrs_tile(properties, product),
        epsg=_epsg(properties, assets),
        baseline=baseline,
        cloud_cover=finite_number(properties, "eo:cloud_cover"),
        footprint=footprint_of(item),
        datatake=_text(properties, "s2:datatake_id", "eopf:datatake_id"),
        datastrip=_text(properties, "s2:datastrip_id", "eopf:datastrip_id"),
        generated=parse_time(_text(properties, "processing:datetime", "s2:generation_time")),
        assets={band: _address(assets, key, resolve, choose) for band, key in keys.items()},
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


def _asset_keys(assets: JsonObject, provider: Provider | None) -> tuple[str, dict[str, str]]:
    """Naming style and band to asset key: by the provider's table, else by the style with most hits, else by band and
    common names; never by position."""
    style, keys = _best_style(assets)
    if provider is not None and provider.assets:
        style = provider.name if provider.name in PROVIDERS else style
        keys = _hits(assets, provider.assets)
    if not keys.keys() & BANDS.keys():
        raise ValueError(f"no band among its assets ({', '.join(sorted(assets)[:20]) or 'it has none'})")
    return style, keys


def _best_style(assets: JsonObject) -> tuple[str, dict[str, str]]:
    best, keys = "stac", _keys_by_bands(assets)
    for name, provider in PROVIDERS.items():
        hits = _hits(assets, provider.assets)
        if len(hits) > (0 if best == "stac" else len(keys)):
            best, keys = name, hits
    return best, keys


def _hits(assets: JsonObject, table: Mapping[str, str]) -> dict[str, str]:
    return {band: found for band, key in table.items() if (found := _cog_first(key, assets)) is not None}


def _cog_first(key: str, assets: JsonObject) -> str | None:
    """The key under which an asset is there; of an array inside of a group's asset, the group's decides."""
    return next((name for name in (key, f"{key}-jp2") if name.partition("/")[0] in assets), None)


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


def _address(
    assets: JsonObject, key: str, resolve: Callable[[object], str], choose: Callable[[JsonObject], object]
) -> str:
    name, _, array = key.partition("/")
    asset = assets[name]
    try:
        address = resolve(choose(asset) if isinstance(asset, dict) else None)
    except ValueError as error:
        raise ValueError(f"asset {name}: {error}") from None
    return f"{address.rstrip('/')}/{array}" if array else address


def _baseline(properties: JsonObject, product: str) -> str:
    """ESA's, by the property or else by the product's name: `processing:version` may be another processor's."""
    text = _text(properties, "s2:processing_baseline", "processing:version")
    named = _BASELINE.search(product)
    if text is None and named is None:
        raise ValueError("no processing baseline (s2:processing_baseline or processing:version)")
    try:
        major, minor = baseline_key(text or "")
    except ValueError:
        if named is None:
            raise
        major, minor = baseline_key(named[1])
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
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter before the year 1 and after 9999
        raise ValueError(f"a time looks like 2018-04-18T10:40:21Z; got {text[:40]!r}") from None


def _orbit(properties: JsonObject, product: str) -> int | None:
    number = finite_number(properties, "sat:relative_orbit")
    if number is not None:
        return int(number)
    match = _ORBIT.search(product)
    return int(match[1]) if match else None


def _mgrs_tile(properties: JsonObject, product: str) -> str:
    zone = finite_number(properties, "mgrs:utm_zone", "sentinel:utm_zone")
    band = _text(properties, "mgrs:latitude_band", "sentinel:latitude_band")
    square = _text(properties, "mgrs:grid_square", "sentinel:grid_square")
    parts = f"{int(zone)}{band}{square}" if zone is not None and band and square else None
    for text in (_text(properties, "grid:code"), _text(properties, "s2:mgrs_tile", "s2:tile"), parts, product):
        if text is not None and (match := _TILE.search(text)):
            return match[1].zfill(5)
    raise ValueError("no MGRS tile (grid:code)")


def _object(holder: JsonObject, key: str) -> JsonObject:
    value = holder.get(key)
    if isinstance(value, dict):
        return value
    raise ValueError(f"no {key}")


def _text(holder: JsonObject, *keys: str) -> str | None:
    values: list[Any] = [holder.get(key) for key in keys]
    return next((value for value in values if isinstance(value, str) and value), None)


def finite_number(holder: JsonObject, *keys: str) -> float | None:
    """The first of these keys that holds a finite number."""
    values: list[Any] = [holder.get(key) for key in keys]
    return next((value for value in values if _is_finite(value)), None)


def _is_finite(value: object) -> bool:
    """Whether it is a number, and no infinity, NaN or integer beyond all floats, which JSON can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
