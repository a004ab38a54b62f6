"""Small folders of published datasets, written as their authors write them; the pixels are made up."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

SECO_FILES = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
SECO_SIDES = dict(zip(SECO_FILES, (44, 264, 264, 264, 132, 132, 132, 264, 132, 44, 132, 132), strict=True))
SECO_DATES = ("20190105", "20190330", "20190622", "20190914", "20191207")
BIG_SIDES = {
    **{"B01": 20, "B02": 120, "B03": 120, "B04": 120, "B05": 60, "B06": 60},
    **{"B07": 60, "B08": 120, "B8A": 60, "B09": 20, "B11": 60, "B12": 60},
}
OSCD_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
ONERA = "Onera Satellite Change Detection dataset - "


def write_raster(path: Path, values: NDArray[Any], **profile: Any) -> None:
    """(bands, H, W) as a GeoTIFF, or what the profile says, without a place on the ground unless it has one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n, height, width = values.shape
    descriptions = profile.pop("descriptions", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        options = {"driver": "GTiff", "dtype": values.dtype.name, **profile}
        with rasterio.open(path, "w", width=width, height=height, count=n, **options) as file:
            file.write(values)
            if descriptions:
                file.descriptions = descriptions


def read_whole(path: Path) -> NDArray[Any]:
    """(bands, H, W) as rasterio alone reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return np.asarray(file.read())


def smooth(side: int, seed: int, top: int) -> NDArray[np.int64]:
    """(side, side): a slope with some noise, from 0 to `top`."""
    g = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    values = (g.random() * rows + columns) / 2 * top + g.normal(0, top / 50, (side, side))
    return values.round().clip(0, top).astype(np.int64)


def seco_image(date: str) -> str:
    return f"{date}T103421_{date}T103422_T32TPT"


def write_seco(root: Path, *, locations: int = 2, dates: Sequence[str] = SECO_DATES) -> Path:
    place = {"crs": "EPSG:4326", "transform": from_origin(9, 45, 1e-4, 1e-4)}
    for location in range(locations):
        for number, date in enumerate(dates):
            folder = root / f"{location:06d}" / seco_image(date)
            for band, side in enumerate(SECO_SIDES.values()):
                values = smooth(side, 100 * location + 20 * number + band, 255).astype(np.uint8)
                write_raster(folder / f"{SECO_FILES[band]}.tif", values[None], compress="JPEG", **place)
            (folder / "metadata.json").write_text(json.dumps({"system:index": folder.name}))
        # A preview, as the authors' program writes with --preview.
        preview = np.zeros((3, 8, 8), np.uint8)
        write_raster(root / f"{location:06d}" / f"{seco_image(dates[0])}.tif", preview, **place)
    return root


def write_bigearthnet(root: Path, patches: Mapping[str, Sequence[str]], *, top: int = 6000) -> Path:
    """A patch of each name, with these labels."""
    for number, (name, labels) in enumerate(patches.items()):
        for band, side in BIG_SIDES.items():
            values = 1 + smooth(side, 50 * number + len(band) + side, top)
            write_raster(root / name / f"{name}_{band}.tif", values[None].astype(np.uint16))
        about = {"labels": list(labels), "acquisition_date": "2017-06-13 10:10:31"}
        (root / name / f"{name}_labels_metadata.json").write_text(json.dumps(about))
    return root


def write_eurosat(root: Path, counts: Mapping[str, int], *, suffix: str) -> Path:
    """So many patches of each class."""
    for folder, (name, n) in enumerate(counts.items()):
        for number in range(1, n + 1):
            path = root / name / f"{name}_{number}{suffix}"
            seeds = [1000 * folder + 20 * number + band for band in range(13)]
            if suffix == ".jpg":
                values = np.stack([smooth(64, seed, 255) for seed in seeds[:3]]).astype(np.uint8)
                write_raster(path, values, driver="JPEG")
            else:
                write_raster(path, np.stack([1 + smooth(64, seed, 4000) for seed in seeds]).astype(np.uint16))
    return root


def write_oscd(root: Path, cities: Mapping[str, str], *, short: bool = False) -> Path:
    """Cities of 30 x 40 px, whose maps are among those of the split that each has, "train" or "test"."""
    images = root / ("images" if short else f"{ONERA}Images")
    for number, (city, split) in enumerate(cities.items()):
        labels = root / (f"{split}_labels" if short else f"{ONERA}{split.title()} Labels")
        for date in (1, 2):
            for band, name in enumerate(OSCD_BANDS):
                values = 1 + smooth(40, 100 * number + 20 * date + band, 3000)[:30]
                write_raster(images / city / f"imgs_{date}_rect" / f"{name}.tif", values[None].astype(np.uint16))
        (images / city / "dates.txt").write_text("date_1: 20151211\ndate_2: 20180330\n")
        changes = np.ones((1, 30, 40), np.uint8)
        changes[0, 3:6, 4:9] = 2
        write_raster(labels / city / "cm" / f"{city}-cm.tif", changes)
    return root


def write_geotiffs(root: Path, sizes: Mapping[str, tuple[int, int]], *, dtype: str = "uint8", **profile: Any) -> Path:
    """Images of four bands and these heights and widths."""
    for number, (name, (height, width)) in enumerate(sizes.items()):
        g = np.random.default_rng(number)
        values = g.integers(0, np.iinfo(dtype).max, (4, height, width), dtype, endpoint=True)
        write_raster(root / "images" / f"{name}.tif", values, **profile)
    return root
