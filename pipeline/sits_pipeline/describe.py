"""What the STAC item of a dataset says, gathered from the plan, the parcels and the journal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import shapely

from sits_catalog.addresses import without_secrets
from sits_catalog.region import Region
from sits_catalog.stac import ClassCount, CubeFacts, StoredFile
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.plan import ZonePlan
from sits_pipeline.plan.lattice import to_lonlat
from sits_pipeline.transformers import transformer_between
from sits_pipeline.values import JsonObject, Scene

__all__ = ["class_pixels", "cube_facts"]

_REPEATED = ("version", "profile", "complete", "config_sha256", "simulated")


def cube_facts(
    *,
    plan: ZonePlan,
    region: Region,
    taxonomy: Taxonomy | None,
    cells: Sequence[JsonObject],
    attributes: JsonObject,
    files: Mapping[str, StoredFile],
) -> CubeFacts:
    """The facts of one dataset; `attributes` is `sits_cube`, `taxonomy` None means a cube without labels."""
    box, code = plan.zone.geobox, plan.zone.epsg
    outline = _lonlat_outline(plan)
    west, south, east, north = (round(float(value), 7) for value in shapely.bounds(outline))
    scenes = [scene for acquisition in plan.acquisitions for scene in acquisition.scenes]
    pixels = class_pixels(cells)
    name, _, version = str(attributes["software"]).partition(" ")
    simulated = bool(attributes.get("simulated"))
    a = box.affine
    middle = transformer_between(code, 4326).transform(a.c + a.a * box.shape[1] / 2, a.f + a.e * box.shape[0] / 2)
    return CubeFacts(
        id=plan.zone.name,
        title=region.title or region.id,
        description=_description(region, plan, simulated=simulated),
        epsg=code,
        transform=(a.a, a.b, a.c, a.d, a.e, a.f),
        shape=(int(box.shape[0]), int(box.shape[1])),
        geometry=json.loads(shapely.to_geojson(outline)),
        bbox=(west, south, east, north),
        centroid=(round(middle[1], 7), round(middle[0], 7)),
        days=tuple(acquisition.day for acquisition in plan.acquisitions),
        start=min(scene.sensed for scene in scenes),
        end=max(scene.sensed for scene in scenes),
        created=datetime.fromisoformat(str(attributes["created"])),
        bands=plan.bands,
        platforms=tuple(sorted({scene.platform for scene in scenes})),
        classes=None if taxonomy is None else tuple(_class_counts(taxonomy, pixels)),
        finer=region.labels.finer,
        files=files,
        source_links=tuple(_links(scenes)),
        n_source_items=len(scenes),
        software={name: version or "unknown"},
        lineage=_lineage(region, plan),
        sits_cube={key: attributes[key] for key in _REPEATED if key in attributes},
    )


def class_pixels(cells: Iterable[JsonObject]) -> Counter[int]:
    """Pixels a value of `crop_type`, over all cells."""
    counts: Counter[int] = Counter()
    for entry in cells:
        counts.update({int(value): int(pixels) for value, pixels in entry["classes"].items()})
    return counts


def _class_counts(taxonomy: Taxonomy, pixels: Mapping[int, int]) -> Iterable[ClassCount]:
    yield ClassCount(index=0, name="background", n_pixels=pixels.get(0, 0))
    for crop in taxonomy.classes:
        yield ClassCount(index=crop.index, name=crop.name, n_pixels=pixels.get(crop.index, 0))


def _lonlat_outline(plan: ZonePlan) -> shapely.Geometry:
    """The cube's extent in lon/lat to about 0.1 m, counter-clockwise."""
    outline = to_lonlat(shapely.box(*plan.zone.geobox.boundingbox.bbox), plan.zone.epsg)
    return shapely.orient_polygons(shapely.set_precision(shapely.simplify(outline, 1e-6), 1e-7))


def _description(region: Region, plan: ZonePlan, *, simulated: bool) -> str:
    what = "SIMULATED Sentinel-2 surface reflectance" if simulated else "Sentinel-2 Level-2A surface reflectance"
    labels = " with crop labels drawn from parcels" if region.parcels is not None else ""
    return (
        f"{what} at 10 m, {len(plan.acquisitions)} dates from {region.season.start} to {region.season.end}, "
        f"{len(plan.bands)} bands{labels}."
    )


def _links(scenes: Iterable[Scene]) -> Iterable[tuple[str, str]]:
    """Title and address of the items that say where they live."""
    for scene in scenes:
        links = scene.item.get("links")
        for link in links if isinstance(links, list) else ():
            if isinstance(link, dict) and link.get("rel") == "self":
                yield scene.id, without_secrets(str(link.get("href")))
                break


def _lineage(region: Region, plan: ZonePlan) -> str:
    labels = f" Labels by the {region.labels.rule} rule." if region.parcels is not None else ""
    return (
        "Scenes grouped by solar day; BOA offset audited on the pixels of each item and removed once; "
        f"20 m and 60 m bands brought to 10 m by {region.imagery.resampling}; one item a pixel and date, by cloud "
        f"cover, baseline and id; nothing warped (EPSG:{plan.zone.epsg}).{labels}"
    )
