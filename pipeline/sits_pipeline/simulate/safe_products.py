"""Simulated scenes as ESA's `.SAFE` products: metadata and JPEG 2000 images without loss."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.shutil import copy

from sits_catalog.sentinel2 import BANDS, BOA_OFFSET, SATURATED
from sits_pipeline.simulate.scenes import Pixels, data_area
from sits_pipeline.simulate.schedule import Pass, Product
from sits_pipeline.simulate.stac_items import (
    NOTICE,
    datastrip_id,
    datatake_id,
    granule_id,
    product_uri,
    scl_shares,
    to_lonlat,
)
from sits_pipeline.values import epsg_of

__all__ = ["write_safe"]

_NEW_NAMES = date(2018, 4, 1)
"""Images are called L2A_T31TEJ_... before, T31TEJ_... after (some days around it are mixed in the real archive)."""
_OFFSET_IDS = 13
_PSD = "https://psd-14.sentinel2.eo.esa.int/PSD"


def write_safe(folder: Path, one: Pass, product: Product, pixels: Pixels, canvas: GeoBox) -> None:
    """Write `<folder>/<product>.SAFE` with MTD_MSIL2A.xml, MTD_TL.xml and the native images; always ESA's own DN."""
    root = folder / product_uri(one, product)
    granule = (
        root / "GRANULE" / f"L2A_T{product.tile.code}_A{one.absolute_orbit:06d}_{product.strip_start:%Y%m%dT%H%M%S}"
    )
    stem = f"T{product.tile.code}_{one.sensing_start:%Y%m%dT%H%M%S}"
    if one.day < _NEW_NAMES:
        stem = f"L2A_{stem}"
    names: list[str] = []
    images: dict[str, NDArray[np.uint16] | NDArray[np.uint8]] = {**pixels.dn, "SCL": pixels.scl}
    for band, values in images.items():
        resolution = 20 if band == "SCL" else BANDS[band].resolution_m
        path = granule / "IMG_DATA" / f"R{resolution}m" / f"{stem}_{band}_{resolution}m.jp2"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_jp2(path, values, product.tile.geobox(canvas, resolution))
        names.append(path.relative_to(root).with_suffix("").as_posix())
    _write_xml(granule / "MTD_TL.xml", _tile_metadata(one, product, pixels.scl, canvas))
    _write_xml(root / "MTD_MSIL2A.xml", _product_metadata(one, product, pixels.scl, names, canvas))


def _write_jp2(path: Path, values: NDArray[np.uint16] | NDArray[np.uint8], geobox: GeoBox) -> None:
    height, width = values.shape
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial")
    profile = {
        "driver": "MEM", "height": height, "width": width, "count": 1, "dtype": values.dtype.name,
        "crs": str(geobox.crs), "transform": geobox.affine,
    }  # fmt: skip
    # No side file: what it would say stands in the image, and it would keep the name of the partial file.
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.open("", "w", **profile) as memory:
        memory.write(values, 1)
        copy(
            memory,
            partial,
            driver="JP2OpenJPEG",
            CODEC="JP2",
            QUALITY=100,
            REVERSIBLE="YES",
            RESOLUTIONS=4,
            NUM_THREADS=1,
        )
    partial.replace(path)


def _product_metadata(
    one: Pass, product: Product, scl: NDArray[np.uint8], images: list[str], canvas: GeoBox
) -> Element:
    root = Element("n1:Level-2A_User_Product", {"xmlns:n1": f"{_PSD}/User_Product_Level-2A.xsd"})
    general = SubElement(root, "n1:General_Info")
    info = SubElement(general, "Product_Info")
    start = f"{one.sensing_start:%Y-%m-%dT%H:%M:%S}.000Z"
    for tag, text in (
        ("PRODUCT_START_TIME", start),
        ("PRODUCT_STOP_TIME", start),
        ("PRODUCT_URI", product_uri(one, product)),
        ("PROCESSING_LEVEL", "Level-2A"),
        ("PRODUCT_TYPE", "S2MSI2A"),
        ("PROCESSING_BASELINE", product.baseline),
        ("GENERATION_TIME", f"{product.generated:%Y-%m-%dT%H:%M:%S}.000000Z"),
        ("PREVIEW_IMAGE_URL", NOTICE),
    ):
        SubElement(info, tag).text = text
    take = SubElement(info, "Datatake", {"datatakeIdentifier": datatake_id(one, product)})
    for tag, text in (
        ("SPACECRAFT_NAME", f"Sentinel-{one.platform[1:]}"),
        ("DATATAKE_TYPE", "INS-NOBS"),
        ("DATATAKE_SENSING_START", start),
        ("SENSING_ORBIT_NUMBER", str(one.orbit)),
        ("SENSING_ORBIT_DIRECTION", "DESCENDING"),
    ):
        SubElement(take, tag).text = text
    ids = {
        "datastripIdentifier": datastrip_id(one, product),
        "granuleIdentifier": granule_id(one, product),
        "imageFormat": "JPEG2000",
    }
    listing = SubElement(SubElement(SubElement(info, "Product_Organisation"), "Granule_List"), "Granule", ids)
    for image in images:
        SubElement(listing, "IMAGE_FILE").text = image
    _image_characteristics(general, product)
    _footprint(root, one, product, canvas)
    quality = SubElement(root, "n1:Quality_Indicators_Info")
    shares = scl_shares(scl)
    SubElement(quality, "Cloud_Coverage_Assessment").text = str(shares["eo:cloud_cover"])
    _content(quality, shares)
    return root


def _image_characteristics(general: Element, product: Product) -> None:
    image = SubElement(general, "Product_Image_Characteristics")
    for text, index in (("NODATA", 0), ("SATURATED", SATURATED)):
        special = SubElement(image, "Special_Values")
        SubElement(special, "SPECIAL_VALUE_TEXT").text = text
        SubElement(special, "SPECIAL_VALUE_INDEX").text = str(index)
    values = SubElement(image, "QUANTIFICATION_VALUES_LIST")
    for name, value in (("BOA", "10000"), ("AOT", "1000.0"), ("WVP", "1000.0")):
        SubElement(values, f"{name}_QUANTIFICATION_VALUE", {"unit": "none"}).text = value
    if product.has_offset:
        offsets = SubElement(image, "BOA_ADD_OFFSET_VALUES_LIST")
        for band_id in range(_OFFSET_IDS):
            SubElement(offsets, "BOA_ADD_OFFSET", {"band_id": str(band_id)}).text = str(BOA_OFFSET)


def _footprint(root: Element, one: Pass, product: Product, canvas: GeoBox) -> None:
    area = to_lonlat(data_area(one, product, canvas), canvas.crs)
    ring = shapely.get_coordinates(area if isinstance(area, shapely.Polygon) else area.convex_hull)
    holder = root
    for tag in ("n1:Geometric_Info", "Product_Footprint", "Product_Footprint", "Global_Footprint"):
        holder = SubElement(holder, tag)
    SubElement(holder, "EXT_POS_LIST").text = " ".join(f"{latitude} {longitude}" for longitude, latitude in ring)


def _tile_metadata(one: Pass, product: Product, scl: NDArray[np.uint8], canvas: GeoBox) -> Element:
    root = Element("n1:Level-2A_Tile_ID", {"xmlns:n1": f"{_PSD}/S2_PDI_Level-2A_Tile_Metadata.xsd"})
    general = SubElement(root, "n1:General_Info")
    SubElement(general, "TILE_ID", {"metadataLevel": "Brief"}).text = granule_id(one, product)
    SubElement(general, "DATASTRIP_ID", {"metadataLevel": "Standard"}).text = datastrip_id(one, product)
    SubElement(
        general, "SENSING_TIME", {"metadataLevel": "Standard"}
    ).text = f"{product.sensed:%Y-%m-%dT%H:%M:%S}.000000Z"
    coding = SubElement(SubElement(root, "n1:Geometric_Info"), "Tile_Geocoding", {"metadataLevel": "Brief"})
    epsg = epsg_of(canvas)
    SubElement(coding, "HORIZONTAL_CS_NAME").text = f"WGS84 / UTM zone {epsg % 100}{'N' if epsg < 32700 else 'S'}"
    SubElement(coding, "HORIZONTAL_CS_CODE").text = f"EPSG:{epsg}"
    grids = {resolution: product.tile.geobox(canvas, resolution) for resolution in (10, 20, 60)}
    for resolution, grid in grids.items():
        size = SubElement(coding, "Size", {"resolution": str(resolution)})
        SubElement(size, "NROWS").text, SubElement(size, "NCOLS").text = (str(side) for side in grid.shape)
    for resolution, grid in grids.items():
        place = SubElement(coding, "Geoposition", {"resolution": str(resolution)})
        corner = (grid.affine.c, grid.affine.f, resolution, -resolution)
        for tag, value in zip(("ULX", "ULY", "XDIM", "YDIM"), corner, strict=True):
            SubElement(place, tag).text = str(int(value))
    _content(SubElement(root, "n1:Quality_Indicators_Info", {"metadataLevel": "Standard"}), scl_shares(scl))
    return root


def _content(parent: Element, shares: dict[str, float]) -> None:
    content = SubElement(parent, "Image_Content_QI")
    SubElement(content, "CLOUDY_PIXEL_PERCENTAGE").text = str(shares["eo:cloud_cover"])
    for name, value in shares.items():
        if name.startswith("s2:"):
            SubElement(content, name.removeprefix("s2:").upper()).text = str(value)


def _write_xml(path: Path, root: Element) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    indent(root)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    ElementTree(root).write(partial, encoding="UTF-8", xml_declaration=True)
    partial.replace(path)
