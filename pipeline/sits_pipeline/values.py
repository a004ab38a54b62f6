"""The values that travel between the steps of a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

__all__ = [
    "Acquisition",
    "AuditSample",
    "BandWindow",
    "Frame",
    "Labels",
    "Parcels",
    "Raster",
    "ReadFailure",
    "Refusal",
    "Scene",
    "Verdict",
    "Window",
    "epsg_of",
    "shape_of",
]

JsonObject = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One L2A product over one MGRS tile: its metadata and where its pixels lie."""

    id: str
    provider: str
    """"earth-search", "simulated", "safe", ...: whose radiometry rule applies."""
    collection: str
    sensed: datetime
    """Sensing time, UTC."""
    platform: str
    orbit: int | None
    """Relative orbit, 1..143."""
    mgrs_tile: str
    epsg: int
    baseline: str
    """"05.09"."""
    cloud_cover: float | None
    """Per cent, of the whole scene."""
    footprint: shapely.Geometry
    """Where the scene holds data, lon/lat."""
    datatake: str | None
    datastrip: str | None
    """Two scenes of one tile and pass with different datastrips are halves of a split granule."""
    generated: datetime | None
    assets: Mapping[str, str]
    """Band name ("B02", ..., "SCL") to a local path or http(s) URL that was found harmless."""
    declared_offset: int
    """What the provider's rule says is still to be added to the DN: -1000 or 0."""
    offset_is_firm: bool
    """Whether that rule is certain, so that pixels which contradict it mean a broken item."""
    item: JsonObject
    """The STAC item as found or, for a SAFE product, as written for it."""
    twin: Scene | None = None
    """The same product at a second provider of the same radiometry rule, read where the first does not answer."""
    web_host: str = ""
    """Host on the web through which a document on this machine led to the item: its files lead there and to public
    hosts alone. Empty where the source itself says how far they may lead."""


@dataclass(frozen=True, kw_only=True)
class AuditSample:
    """DN of a whole scene, thinned alike for every band: overviews or fixed blocks, never a part of the region."""

    dn: Mapping[str, NDArray[np.uint16]]
    """B02, B04 and, where needed, B8A and B11: 1-D arrays of one length."""
    scl: NDArray[np.uint8] | None
    """Scene classification at the same pixels, None where the scene has none."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What an audit found out about an item's BOA offset."""

    declared: int
    """Offset the provider's rule asks for, in DN."""
    audited: int | None
    """Offset the pixels ask for; None: undecided."""
    applied: int | None
    """Offset that is added; None: the sample could not be read, and the rule is not firm or the files are remote, so
    that the item is unread."""
    medians: Mapping[str, float]
    """Median DN a band behind the verdict."""
    n_pixels: int
    refused: bool
    """Pixels contradict a firm rule: the item is not used."""
    reason: str
    """One sentence; empty where metadata and pixels agree."""
    sample: str = ""
    """12 digits of the SHA-256 of the pixels that were looked at; empty where none were."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A scene that is not used, and why."""

    scene: Scene
    status: Literal["superseded", "cloudy", "outside", "failed"]
    reason: str
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """All scenes of one solar day, in the order in which they fill a pixel."""

    day: date
    """Solar day at the central meridian of the cube's zone."""
    scenes: tuple[Scene, ...]
    verdicts: tuple[Verdict, ...]
    """One a scene."""

    @property
    def sensing_time(self) -> datetime:
        """Mean sensing time of the merged scenes."""
        seconds = [scene.sensed.timestamp() for scene in self.scenes]
        return datetime.fromtimestamp(round(sum(seconds) / len(seconds)), UTC)


@dataclass(frozen=True, kw_only=True)
class BandWindow:
    """A band's source pixels around a geobox, on the source's own grid."""

    dn: NDArray[np.uint16] | NDArray[np.uint8]
    """(y, x); 0 where the file has no pixel."""
    factor: int
    """Cube pixels a source pixel: 1, 2 and 6 for 10, 20 and 60 m; others for coarser files that nest."""
    row: int
    """Cube pixels from the top of `dn` to the top of the geobox, >= 0."""
    column: int
    """Cube pixels from the left of `dn` to the left of the geobox, >= 0."""


@dataclass(frozen=True, kw_only=True)
class ReadFailure:
    """A source that covers a cell but could not be read."""

    item: str
    band: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Raster:
    """What a scene holds around a geobox: a window a band that was read, a failure a band that was not."""

    bands: Mapping[str, BandWindow]
    """Keyed by band name; `SCL` beside the spectral bands where the scene has one."""
    failures: tuple[ReadFailure, ...] = ()
    note: str = ""
    """What lineage should say of this read, one sentence; empty: nothing out of the ordinary."""
    processing_units: float = 0.0
    """What the service charged for this read."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A pixel rectangle of the cube."""

    row: int
    column: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """Rows as a slice of the cube."""
        return slice(self.row, self.row + self.height)

    @property
    def columns(self) -> slice:
        """Columns as a slice of the cube."""
        return slice(self.column, self.column + self.width)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One day of a cell, after mosaicking."""

    reflectance: NDArray[np.uint16]
    """(band, y, x); 0 = not observed."""
    scl: NDArray[np.uint8]
    """(y, x)"""
    quality: NDArray[np.uint8]
    """(y, x), bits of `sits_catalog.cube.Quality`."""
    source_index: NDArray[np.uint8]
    """(y, x); 255 = none."""


@dataclass(frozen=True, kw_only=True)
class Parcels:
    """Parcels in one CRS, as aligned arrays in the order of `parcel_id`."""

    epsg: int
    parcel_id: NDArray[np.uint32]
    """1..N by `source_key`; a subset keeps its numbers."""
    source_row: NDArray[np.int64]
    """Position in the source: later rows win under the rules `center` and `all_touched`."""
    crop_type: NDArray[np.uint16]
    """Class index, or IGNORE."""
    geometry: NDArray[np.object_]
    """shapely Polygon or MultiPolygon, valid; vertices reprojected once, edges densified, never clipped."""

    def __len__(self) -> int:
        return len(self.parcel_id)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Parcels:
        """The parcels at these positions."""
        return Parcels(
            epsg=self.epsg,
            parcel_id=self.parcel_id[index],
            source_row=self.source_row[index],
            crop_type=self.crop_type[index],
            geometry=self.geometry[index],
        )


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Label rasters of one geobox, each (y, x)."""

    crop_type: NDArray[np.uint16]
    parcel_id: NDArray[np.uint32]
    coverage: NDArray[np.uint8]
    boundary_distance: NDArray[np.int16]
    conflict: NDArray[np.uint8]


def epsg_of(geobox: GeoBox) -> int:
    """EPSG code of a grid's CRS. Raises ValueError for a CRS without one."""
    code = None if geobox.crs is None else geobox.crs.epsg
    if code is None:
        raise ValueError(f"a grid in a CRS with an EPSG code is needed, got {geobox.crs}")
    return int(code)


def shape_of(geobox: GeoBox) -> tuple[int, int]:
    """Height and width of a grid in pixels."""
    height, width = geobox.shape
    return int(height), int(width)
