"""Scenes of a folder of ESA's `.SAFE` products (Level-2A), of every generation since December 2016."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import rasterio
import shapely
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from sits_catalog.region import Season
from sits_catalog.sentinel2 import BANDS, BOA_OFFSET, ProductId, baseline_key, has_boa_offset, parse_product_id
from sits_pipeline.sources.base import SearchResult, SourceError, UnusableItem
from sits_pipeline.sources.footprints import sound
from sits_pipeline.sources.items import parse_time
from sits_pipeline.sources.rasters import GDAL_OPTIONS, read_scene, sample_scene
from sits_pipeline.sources.stac import in_season
from sits_pipeline.values import AuditSample, JsonObject, Raster, Scene

__all__ = ["SafeSource"]

_EXTENSIONS = [
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/grid/v1.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/sat/v1.0.0/schema.json",
]
_MAX_XML_BYTES = 50 * 2**20
_NATIVE_M = {**{name: band.resolution_m for name, band in BANDS.items()}, "SCL": 20}
_IMAGE = re.compile(r"(?P<stem>(?:L2A_)?T\d{2}[A-Z]{3}_\d{8}T\d{6})_\w{3}_\d{2}m\.jp2")


@dataclass(frozen=True)
class SafeSource:
    """A folder that holds `.SAFE` products, or one such product."""

    folder: Path

    def search(self, area: shapely.Geometry, season: Season) -> SearchResult:
        """Products that meet `area` (lon/lat) in `season` or within a day of it; raises SourceError."""
        scenes: list[Scene] = []
        unusable: list[UnusableItem] = []
        products = _products(self.folder)
        bands = _bands(products)
        for product in products:
            name = product.name.removesuffix(".SAFE")
            try:
                identity = _identity(name)
                if not in_season(identity.sensing, season):
                    continue
                scene = _scene(product, identity, bands)
            except ValueError as error:
                unusable.append(UnusableItem(id=name, reason=str(error), item={}))
                continue
            if shapely.intersects(area, scene.footprint):
                scenes.append(scene)
        return SearchResult(scenes=tuple(scenes), unusable=tuple(unusable))

    def sample(self, scene: Scene) -> AuditSample:
        """Pixels for the audit, thinned over the whole scene; raises OSError."""
        return sample_scene(scene, opener=None)

    def read(self, scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int) -> Iterator[Raster]:
        """A window a band around `geobox` of each scene; a band that cannot be read is a ReadFailure in the result."""
        return (read_scene(scene, geobox, bands, pad=pad, opener=None) for scene in scenes)


def _products(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SourceError(f"no folder of .SAFE products at {folder}")
    if folder.name.endswith(".SAFE"):
        return [folder.resolve()]
    products = sorted(path for path in folder.resolve().glob("*.SAFE") if path.is_dir())
    if not products:
        packed = len(list(folder.glob("*.zip")))
        hint = f"; unpack its {packed} .zip files first" if packed else ""
        raise SourceError(f"{folder} holds no .SAFE product{hint}")
    return products


def _identity(name: str) -> ProductId:
    """The parts of a product's name; raises ValueError where it is no Level-2A product."""
    if re.match(r"S2[A-D]_\w+_PRD_MSI", name):
        raise ValueError("a product of the format before December 2016; download it again in today's format")
    identity = parse_product_id(name)
    if identity.level != "L2A":
        raise ValueError(f"a {identity.level} product; cubes are built from Level-2A (make it with Sen2Cor or get it)")
    return identity


def _bands(products: Sequence[Path]) -> tuple[str, ...]:
    """Bands, and SCL, of which a product here has a file at its native resolution.

    All of them where no product has an image at all: then nothing is known about what was kept.
    """
    names = {path.stem for product in products for path in product.glob("GRANULE/*/IMG_DATA/R*m/*.jp2")}
    found = tuple(band for band, m in _NATIVE_M.items() if any(name.endswith(f"_{band}_{m}m") for name in names))
    return found or tuple(_NATIVE_M)


def _scene(product: Path, identity: ProductId, bands: Sequence[str]) -> Scene:
    """The scene of a product; what its metadata do not tell comes from its name and its images.

    Raises ValueError with one sentence where those do not tell it either, or where the metadata tell of pixels that
    cannot be used.
    """
    granule = _granule(product)
    xml, gaps = _metadata(product / "MTD_MSIL2A.xml", ("PRODUCT_START_TIME", "PROCESSING_BASELINE"))
    # A tile's own metadata are often left out and hold nothing that must be there.
    tile, broken = _metadata(granule / "MTD_TL.xml", ()) if (granule / "MTD_TL.xml").exists() else ({}, [])
    gaps += broken
    assets = _assets(granule, identity, bands)
    baseline = "{:02d}.{:02d}".format(*baseline_key(_text(xml, "PROCESSING_BASELINE") or identity.baseline))
    offset, firm = _declared_offset(xml, baseline)
    cloud_cover = _text(xml, "Cloud_Coverage_Assessment")
    scene = Scene(
        id=product.name.removesuffix(".SAFE"),
        provider="safe",
        collection="sentinel-2-l2a",
        sensed=parse_time(_text(tile, "SENSING_TIME") or _text(xml, "PRODUCT_START_TIME")) or identity.sensing,
        platform=(_text(xml, "SPACECRAFT_NAME") or f"sentinel-2{identity.platform[-1]}").lower(),
        orbit=identity.orbit,
        mgrs_tile=identity.mgrs_tile,
        epsg=_epsg(tile, assets, identity.mgrs_tile),
        baseline=baseline,
        cloud_cover=None if cloud_cover is None else float(cloud_cover),
        footprint=_footprint(xml, assets),
        datatake=_attribute(xml, "Datatake", "datatakeIdentifier"),
        datastrip=_datastrip(xml, tile, granule),
        generated=parse_time(_text(xml, "GENERATION_TIME")),
        assets={band: str(path) for band, path in assets.items()},
        declared_offset=offset,
        offset_is_firm=firm,
        item={},
    )
    return replace(scene, item=_item(scene, product.parent, gaps))


def _granule(product: Path) -> Path:
    granules = sorted(path.parent for path in product.glob("GRANULE/*/IMG_DATA") if path.is_dir())
    if len(granules) != 1:
        raise ValueError(f"one folder GRANULE/*/IMG_DATA was expected, found {len(granules)}")
    return granules[0]


def _assets(granule: Path, identity: ProductId, bands: Sequence[str]) -> dict[str, Path]:
    """Band to file, whether it exists here or not: a file that this product lacks is a failed read."""
    stems = {match["stem"] for path in granule.glob("IMG_DATA/R*m/*.jp2") if (match := _IMAGE.fullmatch(path.name))}
    stem = min(stems, default=f"T{identity.mgrs_tile}_{identity.sensing:%Y%m%dT%H%M%S}")
    images = granule / "IMG_DATA"
    return {band: images / f"R{m}m" / f"{stem}_{band}_{m}m.jp2" for band in bands for m in (_NATIVE_M[band],)}


def _datastrip(xml: _Xml, tile: _Xml, granule: Path) -> str | None:
    """The datastrip's id, else the granule's name with the start of the datastrip marked as there.

    That start is what tells the halves of a split granule apart, and copies of one granule from others.
    """
    stated = (
        _attribute(xml, "Granule", "datastripIdentifier")
        or _attribute(xml, "Granules", "datastripIdentifier")
        or _text(tile, "DATASTRIP_ID")
    )
    named = re.fullmatch(r"(\w+)_(\d{8}T\d{6})", granule.name)
    return stated or (f"{named[1]}_S{named[2]}" if named else None)


def _declared_offset(xml: _Xml, baseline: str) -> tuple[int, bool]:
    """BOA_ADD_OFFSET as the product states it, else by baseline; and whether that is certain.

    Sen2Cor writes baseline 99.99 when users run it: without a stated offset the pixels have to tell.
    """
    quantification = _text(xml, "BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
    if quantification is not None and float(quantification) != 10_000:
        raise ValueError(f"its quantification value is {quantification}; 10000 was expected")
    stated = {int(element.text or 0) for element in xml.get("BOA_ADD_OFFSET", ())}
    if len(stated) > 1 or not stated <= {0, BOA_OFFSET}:
        raise ValueError(f"its BOA_ADD_OFFSET differs by band or is neither 0 nor {BOA_OFFSET}: {sorted(stated)}")
    if stated:
        return stated.pop(), True
    if baseline == "99.99":
        return 0, False
    return (BOA_OFFSET if has_boa_offset(baseline) else 0), True


def _epsg(tile: _Xml, assets: Mapping[str, Path], mgrs_tile: str) -> int:
    """From MTD_TL.xml, else from the images, else from the tile's name, which holds its zone and hemisphere."""
    stated = re.fullmatch(r"EPSG:(\d{5})", _text(tile, "HORIZONTAL_CS_CODE") or "")
    if stated:
        return int(stated[1])
    with _first_image(assets) as dataset:
        epsg = None if dataset is None or dataset.crs is None else dataset.crs.to_epsg()
    return epsg or (32600 if mgrs_tile[2] >= "N" else 32700) + int(mgrs_tile[:2])


def _footprint(xml: _Xml, assets: Mapping[str, Path]) -> shapely.Geometry:
    """Lon/lat, as the product states it, else around the pixels of an image."""
    numbers = [float(number) for number in (_text(xml, "EXT_POS_LIST") or "").split()]
    if len(numbers) >= 8 and len(numbers) % 2 == 0:
        with np.errstate(invalid="ignore"):  # of numbers that are none, which are refused
            return sound(shapely.Polygon(list(zip(numbers[1::2], numbers[::2], strict=True))))
    with _first_image(assets) as dataset:
        if dataset is None or dataset.crs is None:
            raise ValueError("where it lies is unknown: its metadata do not tell, and none of its images can be read")
        around: shapely.Geometry = shapely.box(
            *transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds, densify_pts=21)
        )
        return around


@contextmanager
def _first_image(assets: Mapping[str, Path]) -> Iterator[Any]:
    """The first image that opens, or None."""
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(**GDAL_OPTIONS))
        for path in assets.values():
            try:
                dataset = stack.enter_context(rasterio.open(path, driver="JP2OpenJPEG"))
            except RasterioError:
                continue
            yield dataset
            return
        yield None


_Xml = dict[str, list[Element]]


def _read_xml(path: Path) -> _Xml:
    """Elements by name without their namespace, which differs between baselines; raises ValueError."""
    if not path.is_file():
        raise ValueError(f"its {path.name} is missing")
    if path.stat().st_size > _MAX_XML_BYTES:
        raise ValueError(f"its {path.name} is larger than {_MAX_XML_BYTES} bytes")
    try:
        root = fromstring(path.read_bytes(), forbid_dtd=True)
    except (OSError, ParseError, DefusedXmlException) as error:
        raise ValueError(f"its {path.name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    elements: _Xml = {}
    for element in root.iter():
        elements.setdefault(element.tag.rpartition("}")[2], []).append(element)
    return elements


def _metadata(path: Path, needed: Sequence[str]) -> tuple[_Xml, list[str]]:
    """The elements of a file, none where it cannot be read, and what is missing, a sentence each."""
    try:
        xml = _read_xml(path)
    except ValueError as error:
        return {}, [str(error)]
    return xml, [f"its metadata hold no {name}" for name in needed if _text(xml, name) is None]


def _text(xml: _Xml, *names: str) -> str | None:
    texts = (element.text for name in names for element in xml.get(name, ()))
    return next((text.strip() for text in texts if text and text.strip()), None)


def _attribute(xml: _Xml, name: str, attribute: str) -> str | None:
    return next((value for element in xml.get(name, ()) if (value := element.get(attribute))), None)


def _item(scene: Scene, folder: Path, gaps: Sequence[str]) -> JsonObject:
    """The STAC item that stands for a product; hrefs are relative to the folder of products.

    `gaps` say what its metadata do not tell.
    """
    properties: JsonObject = {
        "description": f"{'; '.join(gaps)}; its name and its images stand for that" if gaps else None,
        "datetime": scene.sensed.isoformat().replace("+00:00", "Z"),
        "platform": scene.platform,
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": scene.cloud_cover,
        "proj:code": f"EPSG:{scene.epsg}",
        "grid:code": f"MGRS-{scene.mgrs_tile}",
        "sat:relative_orbit": scene.orbit,
        "processing:version": scene.baseline,
        "processing:datetime": None if scene.generated is None else scene.generated.isoformat().replace("+00:00", "Z"),
        "s2:product_uri": f"{scene.id}.SAFE",
        "s2:product_type": "S2MSI2A",
        "s2:datatake_id": scene.datatake,
        "s2:datastrip_id": scene.datastrip,
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": _EXTENSIONS,
        "id": scene.id,
        "geometry": json.loads(shapely.to_geojson(scene.footprint)),
        "bbox": shapely.bounds(scene.footprint).tolist(),
        "properties": {key: value for key, value in properties.items() if value is not None},
        "links": [],
        "assets": {
            band: {"href": f"./{Path(path).relative_to(folder).as_posix()}", "type": "image/jp2", "roles": ["data"]}
            for band, path in scene.assets.items()
        },
    }
