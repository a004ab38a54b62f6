"""The tiles that the service holds: products of a folder of .SAFE, read from their names, metadata and images."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

__all__ = ["Deployment", "Image", "Tile", "read_tiles"]

Deployment = Literal["cdse", "aws"]

_NAME = re.compile(r"(S2[A-D])_MSIL2A_(\d{8}T\d{6})_N(\d{4})_R(\d{3})_T(\d{2}[A-Z]{3})_(\d{8}T\d{6})\.SAFE")


@dataclass(frozen=True)
class Image:
    """A whole band on its own grid."""

    dn: NDArray[np.uint16]
    """(y, x)"""
    left: float
    top: float
    resolution: float

    def at(self, eastings: NDArray[np.float64], northings: NDArray[np.float64]) -> NDArray[np.uint16]:
        """Values of the pixels in which points lie, (northing, easting); 0 outside of the image."""
        columns = np.floor((eastings - self.left) / self.resolution).astype(int)
        rows = np.floor((self.top - northings) / self.resolution).astype(int)
        height, width = self.dn.shape
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None, :]
        values = self.dn[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)[None, :]]
        return np.where(inside, values, 0).astype(np.uint16)


@dataclass(frozen=True)
class Tile:
    """One product, as the service knows it."""

    product: str
    """With .SAFE."""
    item_id: str
    """What the Catalog calls it."""
    path: str
    """`dataPath` of a scene; where the deployment keeps it."""
    href: str
    """`assets.data.href` of its item."""
    sh_id: int
    platform: str
    sensed: datetime
    """Sensing time of the granule."""
    generated: datetime
    baseline: tuple[int, int]
    cloud_cover: float
    epsg: int
    footprint: shapely.Polygon
    """Where it holds data, lon/lat."""
    images: Mapping[str, Path]
    bounds: tuple[float, float, float, float]
    """West, south, east, north of its images, in metres."""

    @functools.cached_property
    def footprint_m(self) -> shapely.Polygon:
        """The footprint in metres."""
        mover = Transformer.from_crs(4326, self.epsg, always_xy=True)
        return shapely.transform(self.footprint, lambda xy: np.column_stack(mover.transform(xy[:, 0], xy[:, 1])))

    @functools.cached_property
    def _images(self) -> dict[str, Image]:
        return {}

    def image(self, band: str) -> Image:
        """A band, read once."""
        if band not in self._images:
            with rasterio.open(self.images[band]) as file:
                affine = file.transform
                self._images[band] = Image(file.read(1).astype(np.uint16), affine.c, affine.f, affine.a)
        return self._images[band]


def read_tiles(folder: Path, deployment: Deployment) -> tuple[Tile, ...]:
    """The products of a folder, by name.

    Copernicus Data Space (`cdse`) calls and keeps them by ESA's name; the other deployments (`aws`) name items without
    .SAFE and keep tiles by place and day, with a number for each of a day. Both as in recorded answers.
    """
    paths = sorted(folder.glob("*.SAFE"))
    return tuple(_read_tile(path, number, paths, deployment) for number, path in enumerate(paths, 1))


def _read_tile(root: Path, number: int, all_: Sequence[Path], deployment: Deployment) -> Tile:
    match = _NAME.fullmatch(root.name)
    assert match is not None, root.name
    platform, start, baseline, _, place, generated = match.groups()
    (granule,) = (root / "GRANULE").iterdir()
    metadata, product = _texts(granule / "MTD_TL.xml"), _texts(root / "MTD_MSIL2A.xml")
    numbers = [float(text) for text in product["EXT_POS_LIST"].split()]
    images = {path.stem.split("_")[-2]: path for path in granule.glob("IMG_DATA/R*/*.jp2")}
    with rasterio.open(images["SCL"]) as file:
        bounds = tuple(file.bounds)
    sensed = datetime.fromisoformat(metadata["SENSING_TIME"])
    path = f"s3://EODATA/Sentinel-2/MSI/L2A_N{baseline}/{sensed:%Y/%m/%d}/{root.name}"
    item_id, href = root.name, path
    if deployment == "aws":
        same = [other for other in all_ if f"_{start}_" in other.name and f"_T{place}_" in other.name]
        day = f"{sensed.year}/{sensed.month}/{sensed.day}"
        path = f"s3://sentinel-s2-l2a/tiles/{int(place[:2])}/{place[2]}/{place[3:]}/{day}/{same.index(root)}"
        item_id, href = root.stem, f"{path}/"
    return Tile(
        product=root.name,
        item_id=item_id,
        path=path,
        href=href,
        sh_id=21_000_000 + number,
        platform=platform,
        sensed=sensed,
        generated=datetime.strptime(generated, "%Y%m%dT%H%M%S").replace(tzinfo=UTC),
        baseline=(int(baseline[:2]), int(baseline[2:])),
        # The real Catalog rounds to two decimals; here the order of a day's tiles must be the archive's own.
        cloud_cover=float(product["Cloud_Coverage_Assessment"]),
        epsg=int(metadata["HORIZONTAL_CS_CODE"].removeprefix("EPSG:")),
        footprint=shapely.Polygon(list(zip(numbers[1::2], numbers[::2], strict=True))),
        images=images,
        bounds=bounds,
    )


def _texts(path: Path) -> dict[str, str]:
    """Texts of a file's elements by name; the first of each."""
    texts: dict[str, str] = {}
    for element in ElementTree.parse(path).getroot().iter():
        if element.text and element.text.strip():
            texts.setdefault(element.tag.rpartition("}")[2], element.text.strip())
    return texts
