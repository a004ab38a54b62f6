"""The two MGRS tiles whose scenes cover a simulated region, and the part of each that is written."""

from __future__ import annotations

from dataclasses import dataclass

from affine import Affine
from odc.geo.geobox import GeoBox

from sits_catalog.cube import LATTICE_M, lattice_anchor_y
from sits_pipeline.plan.mgrs_tiles import TILE_M, square_code, tile_at
from sits_pipeline.values import epsg_of

__all__ = ["MARGIN_PX", "SceneTile", "bounds_of", "canvas_of", "point_at", "scene_tiles"]

MARGIN_PX = 24
"""Pixels of 10 m that scenes reach beyond the region on every side; a multiple of 6."""


@dataclass(frozen=True, kw_only=True)
class SceneTile:
    """A tile's part of the canvas, in canvas pixels of 10 m; all four are multiples of 6."""

    code: str
    """"31UEP"."""
    top: int
    bottom: int
    left: int
    right: int

    def slices(self, resolution_m: int) -> tuple[slice, slice]:
        """Rows and columns of the canvas at a resolution."""
        factor = resolution_m // 10
        return slice(self.top // factor, self.bottom // factor), slice(self.left // factor, self.right // factor)

    def geobox(self, canvas: GeoBox, resolution_m: int) -> GeoBox:
        """Grid of the tile's files at a resolution."""
        factor = resolution_m // 10
        a = canvas.affine
        affine = Affine(resolution_m, 0, a.c + 10 * self.left, 0, -resolution_m, a.f - 10 * self.top)
        return GeoBox(((self.bottom - self.top) // factor, (self.right - self.left) // factor), affine, canvas.crs)


def canvas_of(extent: GeoBox) -> GeoBox:
    """The extent with its margin. Raises ValueError for an extent that is no 10 m grid on the tiles' lattice."""
    epsg, a = epsg_of(extent), extent.affine
    if (a.a, a.b, a.d, a.e) != (10, 0, 0, -10):
        raise ValueError(f"an archive's extent is a 10 m grid in a UTM zone; got {extent.crs} and {tuple(a)[:6]}")
    anchor = lattice_anchor_y(epsg)
    height, width = extent.shape
    if a.c % LATTICE_M or a.f % LATTICE_M != anchor or height % 6 or width % 6:
        raise ValueError(
            f"an archive's extent starts and ends on the lattice of {LATTICE_M} m (x a multiple of 60 m, y {anchor} "
            f"modulo 60); got the corner ({a.c:.12g}, {a.f:.12g}) and {height} x {width} pixels"
        )
    shape = (height + 2 * MARGIN_PX, width + 2 * MARGIN_PX)
    return GeoBox(shape, Affine(10, 0, a.c - 10 * MARGIN_PX, 0, -10, a.f + 10 * MARGIN_PX), extent.crs)


def bounds_of(canvas: GeoBox) -> tuple[float, float, float, float]:
    """West, south, east, north in metres."""
    box = canvas.boundingbox
    return box.left, box.bottom, box.right, box.top


def point_at(canvas: GeoBox, column: float, row: float) -> tuple[float, float]:
    """Easting and northing of a place in canvas pixels of 10 m."""
    return canvas.affine.c + 10 * column, canvas.affine.f - 10 * row


def scene_tiles(canvas: GeoBox) -> tuple[SceneTile, SceneTile]:
    """Two tiles that overlap inside the region and cover it together.

    Sentinel-2's own layout where two of its tiles meet and one of them ends in the canvas; elsewhere a made-up
    boundary: the tile of the centre holds the western 60 %, its eastern neighbour the eastern 60 %.
    """
    height, width = canvas.shape
    enough = [tile for tile in _real_tiles(canvas) if _size(tile) > 0.2 * height * width]
    if len(enough) == 2 and min(map(_size, enough)) < 0.8 * height * width and _cover(enough, height, width):
        return enough[0], enough[1]
    whole = {"top": 0, "bottom": height}
    x, y = point_at(canvas, 0.5 * width, 0.5 * height)
    west, east = _codes_of(canvas, x, y)
    overlap = max(6, round(0.2 * width / 6) * 6)
    first = (width - overlap) // 12 * 6
    return (
        SceneTile(code=west, left=0, right=first + overlap, **whole),
        SceneTile(code=east, left=first, right=width, **whole),
    )


def _size(tile: SceneTile) -> int:
    return (tile.bottom - tile.top) * (tile.right - tile.left)


def _cover(tiles: list[SceneTile], height: int, width: int) -> bool:
    first, second = tiles
    if all(tile.left == 0 and tile.right == width for tile in tiles):
        return min(first.top, second.top) == 0 and max(first.bottom, second.bottom) == height
    if all(tile.top == 0 and tile.bottom == height for tile in tiles):
        return min(first.left, second.left) == 0 and max(first.right, second.right) == width
    return False


def _real_tiles(canvas: GeoBox) -> list[SceneTile]:
    """Parts of the canvas that lie in tiles of Sentinel-2's own layout."""
    epsg = epsg_of(canvas)
    height, width = canvas.shape
    west, north = canvas.affine.c, canvas.affine.f
    found: list[SceneTile] = []
    for column in range(int(west // 100_000) - 1, int((west + 10 * width) // 100_000) + 1):
        for row in range(
            int((north - 10 * height) // 100_000) - 1, int(north // 100_000) + 2
        ):  # a tile hangs 9.8 km below its square
            if not 1 <= column <= 8:
                continue
            tile = tile_at(epsg, column, row)
            left, top = round((tile.ulx - west) / 10), round((north - tile.uly) / 10)
            box = (max(top, 0), min(top + TILE_M // 10, height), max(left, 0), min(left + TILE_M // 10, width))
            if box[0] < box[1] and box[2] < box[3]:
                found.append(SceneTile(code=tile.code, top=box[0], bottom=box[1], left=box[2], right=box[3]))
    return sorted(found, key=lambda tile: tile.code)


def _codes_of(canvas: GeoBox, x: float, y: float) -> tuple[str, str]:
    column = min(max(int(x // 100_000), 1), 7)
    row = int(y // 100_000)
    epsg = epsg_of(canvas)
    return square_code(epsg, column, row), square_code(epsg, column + 1, row)
