"""From items of Sentinel Hub's Catalog to scenes: one item a tile and pass, known by ESA's product name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import shapely

from sits_catalog.addresses import without_secrets
from sits_catalog.cube import lattice_anchor_y
from sits_catalog.region import Season
from sits_catalog.sentinel2 import BANDS, has_boa_offset, parse_product_id
from sits_pipeline.sources.base import ServiceDown, SourceError
from sits_pipeline.sources.catalogue import MAX_ITEMS
from sits_pipeline.sources.documents import Ration, check_item
from sits_pipeline.sources.footprints import footprint_of
from sits_pipeline.sources.items import check_id, finite_number, sensed_of
from sits_pipeline.sources.sentinel_hub.evalscript import PlannedTile
from sits_pipeline.sources.sift import season_span
from sits_pipeline.values import JsonObject, Scene

if TYPE_CHECKING:
    from sits_pipeline.sources.sentinel_hub.client import ServiceClient

__all__ = ["COLLECTION", "PROVIDER", "find_items", "planned_tile", "scene_of"]

COLLECTION = "sentinel-2-l2a"
PROVIDER = "sentinel-hub"
"""`Scene.provider`: harmonized DN, so that no offset is ever left to add."""

_PAGE = 100
"""Items a page; the most that the Catalog gives."""


def find_items(client: ServiceClient, area: shapely.Geometry, season: Season) -> list[JsonObject]:
    """All items that the Catalog lists for the box of `area` (lon/lat) and `season` with a day more on both sides.

    By id; one that came on two pages is listed once. Raises SourceError, and ServiceDown where it does
    not answer.
    """
    from sentinelhub.api.catalog import SentinelHubCatalog
    from sentinelhub.constants import CRS
    from sentinelhub.geometry import BBox

    catalog = SentinelHubCatalog(config=client.config)
    catalog.client = client
    west, south, east, north = (float(side) for side in shapely.bounds(area))
    box = BBox((west, south, east, north), crs=CRS.WGS84)
    found: dict[str, JsonObject] = {}
    whose = f"the Catalog of {client.config.sh_base_url}"
    ration = Ration(whose, "build a smaller region")
    n_items = 0
    problem = ""
    try:
        for item in catalog.search(COLLECTION, bbox=box, time=season_span(season), limit=_PAGE):
            text = check_item(item, whose)
            ration.spend(len(text))
            found[f"{item['id']} {text}"] = item
            n_items += 1
            if len(found) > MAX_ITEMS:
                problem = f"it gives more than {MAX_ITEMS} items; build a smaller region"
                break
            if n_items > 2 * (len(found) + _PAGE):
                problem = "it gives the same page again and again"
                break
    except (AttributeError, KeyError, TypeError) as error:
        problem = f"it answered something that is no page of items ({error!r})"
    except ConnectionError as error:
        raise ServiceDown(str(error)) from None
    except OSError as error:
        raise SourceError(str(error)) from None
    if problem:
        raise SourceError(f"{whose} cannot be searched: {problem}")
    return [found[key] for key in sorted(found)]


def scene_of(item: JsonObject) -> Scene:
    """The scene that an item of the Catalog describes; raises ValueError with one sentence where it is none."""
    name = check_id(item.get("id")).removesuffix(".SAFE")
    product = parse_product_id(name)
    if product.level != "L2A":
        raise ValueError(f"a Level-{product.level[1:]} scene; cubes are built from Level-2A")
    href = _href(item)
    return Scene(
        id=name,
        provider=PROVIDER,
        collection=COLLECTION,
        sensed=sensed_of(item),
        platform=f"sentinel-2{product.platform[-1].lower()}",
        orbit=product.orbit,
        mgrs_tile=product.mgrs_tile,
        epsg=_epsg(item, product.mgrs_tile),
        baseline=product.baseline,
        cloud_cover=_cloud_cover(item),
        footprint=footprint_of(item),
        datatake=f"{product.platform}_{product.sensing:%Y%m%dT%H%M%S}",
        datastrip=None,
        generated=product.discriminator,
        assets=dict.fromkeys((*BANDS, "SCL"), href),
        declared_offset=0,
        offset_is_firm=True,
        item={**item, "id": name},
    )


def planned_tile(scene: Scene) -> PlannedTile:
    """What the evalscript must know of a scene."""
    return PlannedTile(
        product=scene.id,
        path=_in_bucket(scene.assets["SCL"]),
        is_clipped=has_boa_offset(scene.baseline),
    )


def _in_bucket(href: str) -> str:
    """The path of an address, without host or bucket."""
    return urlsplit(href).path.strip("/")


def _href(item: JsonObject) -> str:
    """Where the provider keeps the product; nobody reads it, but a tile without a product's name is known by it."""
    assets = item.get("assets")
    data = assets.get("data") if isinstance(assets, dict) else None
    href = data.get("href") if isinstance(data, dict) else None
    if not isinstance(href, str) or "://" not in href or not href.isprintable():
        raise ValueError("no asset `data` with the address of its product")
    return without_secrets(href)


def _epsg(item: JsonObject, mgrs_tile: str) -> int:
    """From the item, which must lie in a UTM zone; else that of its tile."""
    properties = item["properties"]
    code = properties.get("proj:code")
    match = re.fullmatch(r"EPSG:(\d{5})", code) if isinstance(code, str) else None
    epsg = int(match[1]) if match else properties.get("proj:epsg")
    if epsg is None:
        # Latitude bands from N on lie in the north.
        epsg = (32600 if mgrs_tile[2] >= "N" else 32700) + int(mgrs_tile[:2])
    if isinstance(epsg, float) and epsg.is_integer():
        epsg = int(epsg)  # as tables keep it in which others have none
    if not isinstance(epsg, int) or isinstance(epsg, bool):
        raise ValueError(f"proj:epsg is a number, got {str(epsg)[:40]!r}")  # noqa: TRY004  # an item's fault
    lattice_anchor_y(epsg)
    return epsg


def _cloud_cover(item: JsonObject) -> float | None:
    return finite_number(item["properties"], "eo:cloud_cover")
