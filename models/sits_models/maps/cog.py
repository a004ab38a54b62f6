"""Cloud-optimised GeoTIFFs of a map, with colours and class names, a cell at a time so that memory stays flat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sits_models.folder import move_whole
from sits_models.maps.store import NO_CLASS, NOTHING, ONE, MapLayout, read_cell
from sits_models.tiling import Tiling

__all__ = ["write_cogs"]

_BLOCK = 512
_FILES = {"crop_type": "map.tif", "probability": "probability.tif", "uncertainty": "uncertainty.tif"}


def write_cogs(folder: Path, layout: MapLayout, tiling: Tiling, magnification: int) -> tuple[Path, ...]:
    """map.tif, probability.tif and uncertainty.tif beside `map.zarr`; each appears whole or not at all."""
    return tuple(_write(folder, name, folder / file, layout, tiling, magnification) for name, file in _FILES.items())


def _write(folder: Path, name: str, path: Path, layout: MapLayout, tiling: Tiling, m: int) -> Path:
    """A plain tiled GeoTIFF first, since the overviews of a COG stand before its pixels."""
    import rasterio
    from rasterio.shutil import copy
    from rasterio.windows import Window

    plain, partial = path.with_suffix(".plain.partial"), path.with_suffix(".partial")
    try:
        with rasterio.open(plain, "w", **_profile(name, layout)) as file:
            _describe(file, name, layout)
            for cell in tiling.cells():
                window = Window(m * cell.column, m * cell.row, m * cell.width, m * cell.height)
                file.write(read_cell(folder, name, cell, m), 1, window=window)
        copy(
            plain,
            partial,
            driver="COG",
            compress="DEFLATE",
            predictor="YES",
            blocksize=_BLOCK,
            overview_resampling="MODE" if name == "crop_type" else "AVERAGE",
            bigtiff="IF_SAFER",
            num_threads="ALL_CPUS",
        )
        move_whole(partial, path)
    finally:
        for leftover in (plain, partial):
            leftover.unlink(missing_ok=True)
    return path


def _profile(name: str, layout: MapLayout) -> dict[str, Any]:
    from affine import Affine

    height, width = layout.shape
    return {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": 1,
        "dtype": layout.arrays()[name][0],
        "crs": f"EPSG:{layout.epsg}",
        "transform": Affine(*layout.transform),
        "nodata": NO_CLASS if name == "crop_type" else NOTHING,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "compress": "zstd",
        "zstd_level": 1,
        "BIGTIFF": "IF_SAFER",
    }


def _describe(file: Any, name: str, layout: MapLayout) -> None:
    file.descriptions = (name,)
    tags = {"DESCRIPTION": layout.arrays()[name][2]}
    if layout.simulated:
        tags["SIMULATED"] = "YES"
    if name == "crop_type":
        tags |= {f"CLASS_{index}": crop.name for index, crop in enumerate(layout.classes)}
        # A palette of 16-bit pixels has 65536 entries; those that are no class are black.
        colours = {index: (*_bytes_of(crop.colour), 255) for index, crop in enumerate(layout.classes)}
        file.write_colormap(1, {**colours, NO_CLASS: (0, 0, 0, 0)})
    else:
        file.scales = [1 / ONE]
    file.update_tags(**tags)


def _bytes_of(colour: str) -> tuple[int, int, int]:
    """`#rrggbb` as three bytes."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
