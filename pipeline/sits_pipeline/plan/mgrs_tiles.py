"""Sentinel-2's tiles: squares of 109.8 km that hang on the 100 km squares of the military grid (MGRS).

The upper left corner of a tile is that of its square, moved outwards to the zone's lattice of 60 m; so each reaches
9.8 km into its eastern and southern neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import shapely

from sits_catalog.cube import LATTICE_M, lattice_anchor_y
from sits_pipeline.plan.lattice import strip_of
from sits_pipeline.transformers import transformer_between

__all__ = ["TILE_M", "MgrsTile", "square_code", "tile_at", "tiles_that_meet"]

TILE_M = 109_800
_SQUARE_M = 100_000
_COLUMNS = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")
_ROWS = "ABCDEFGHJKLMNPQRSTUV"
_BANDS = "CDEFGHJKLMNPQRSTUVWX"


@dataclass(frozen=True, kw_only=True)
class MgrsTile:
    """A tile of Sentinel-2's layout."""

    code: str
    """"31UEP"."""
    epsg: int
    ulx: int
    uly: int
    """Upper left corner in the zone's CRS, metres."""

    @property
    def square(self) -> shapely.Geometry:
        """What its scenes cover, in the zone's CRS."""
        return shapely.box(self.ulx, self.uly - TILE_M, self.ulx + TILE_M, self.uly)


def square_code(epsg: int, column: int, row: int) -> str:
    """MGRS name of the 100 km square that starts at column * 100 km, row * 100 km; the band is that of its centre."""
    zone = epsg % 100
    _, latitude = transformer_between(epsg, 4326).transform((column + 0.5) * _SQUARE_M, (row + 0.5) * _SQUARE_M)
    band = _BANDS[min(max(int((latitude + 80) // 8), 0), 19)]
    letter = _COLUMNS[zone % 3][column - 1]
    return f"{zone:02d}{band}{letter}{_ROWS[(row + (5 if zone % 2 == 0 else 0)) % 20]}"


def tile_at(epsg: int, column: int, row: int) -> MgrsTile:
    """The tile of the 100 km square that starts at column * 100 km (1 to 8), row * 100 km."""
    anchor = lattice_anchor_y(epsg)
    ulx = column * _SQUARE_M // LATTICE_M * LATTICE_M
    uly = math.ceil(((row + 1) * _SQUARE_M - anchor) / LATTICE_M) * LATTICE_M + anchor
    return MgrsTile(code=square_code(epsg, column, row), epsg=epsg, ulx=ulx, uly=uly)


def tiles_that_meet(ground: shapely.Geometry, epsg: int) -> tuple[MgrsTile, ...]:
    """Tiles of a zone that share ground with a geometry in its CRS, sorted by code.

    Squares that do not touch the zone's 6 degree strip have no tile; one that only grazes it may have none either.
    """
    left, bottom, right, top = shapely.bounds(ground)
    columns = range(max(1, int(left // _SQUARE_M) - 1), min(8, int(right // _SQUARE_M)) + 1)
    # A tile hangs 9.8 km below its square.
    rows = range(int(bottom // _SQUARE_M) - 1, int(top // _SQUARE_M) + 2)
    candidates = [(column, row) for column in columns for row in rows if _touches_strip(epsg, column, row)]
    tiles = [tile_at(epsg, column, row) for column, row in candidates]
    meeting = [tile for tile in tiles if shapely.area(shapely.intersection(tile.square, ground)) > 0]
    return tuple(sorted(meeting, key=lambda tile: tile.code))


def _touches_strip(epsg: int, column: int, row: int) -> bool:
    """Whether a 100 km square has ground in the zone's strip and hemisphere."""
    if not (0 <= row < 95 if epsg < 32700 else 0 < row < 100):
        return False
    west, east = strip_of(epsg)
    corners = [(column + dx, row + dy) for dx in (0, 1) for dy in (0, 1)]
    longitude, _ = transformer_between(epsg, 4326).transform(
        [x * _SQUARE_M for x, _ in corners], [y * _SQUARE_M for _, y in corners]
    )
    return bool(min(longitude) < east and max(longitude) > west)
