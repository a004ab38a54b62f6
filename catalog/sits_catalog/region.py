"""A region: a named area with a season, its imagery, its parcels and the rules for labels and splits."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal, get_args

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.sentinel2 import BANDS, DEFAULT_BANDS, baseline_key

__all__ = ["IMAGERY_SOURCES", "Imagery", "ImagerySource", "LabelRule", "Place", "Region", "Season", "SplitRule"]

ImagerySource = Literal[
    "simulated",
    "stac",
    "safe",
    "earth-search",
    "planetary-computer",
    "cdse",
    "eopf",
    "stac-api",
    "sentinel-hub",
]
IMAGERY_SOURCES: tuple[str, ...] = get_args(ImagerySource)

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_FIRST_YEAR, _LAST_YEAR = 1970, 2200
"""Days count from 1970 on; Sentinel-2 began in 2015."""
_UTM = re.compile(r"EPSG:32[67](0[1-9]|[1-5]\d|60)")


@dataclass(frozen=True, kw_only=True)
class Season:
    """First and last day of a series, both included; it may cross New Year."""

    start: date
    end: date

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise ValueError(
                f"season ends on {self.end}, before it starts on {self.start}; swap start and end "
                "(a season that crosses New Year ends in the later year)"
            )
        if self.start.year < _FIRST_YEAR or self.end.year > _LAST_YEAR:
            raise ValueError(
                f"a season lies in the years {_FIRST_YEAR} to {_LAST_YEAR}, got {self.start} to {self.end}"
            )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a region lies: exactly one of `bbox`, `file` and `around`."""

    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees (WGS 84)."""
    file: str | None = None
    """A vector file whose polygons, dissolved, are the region."""
    around: Literal["parcels"] | None = None
    """The bounding box of the parcels, grown by `margin_m`."""
    margin_m: float = 500.0
    crs: str | None = None
    """Forces one UTM zone ("EPSG:32631") for a region that leaves the zone by less than 50 km."""

    def __post_init__(self) -> None:
        given = [name for name in ("bbox", "file", "around") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "place needs exactly one of bbox, file and around; "
                f"it has {' and '.join(given) if given else 'none of them'}"
            )
        if self.bbox is not None:
            _check_bbox(self.bbox)
        if not 0 <= self.margin_m < float("inf"):
            raise ValueError(f"margin_m must be 0 m or more, got {self.margin_m}")
        if self.crs is not None and not _UTM.fullmatch(self.crs):
            raise ValueError(f"place.crs forces a UTM zone, EPSG:32601..32660 or EPSG:32701..32760; got {self.crs!r}")


def _check_bbox(bbox: tuple[float, float, float, float]) -> None:
    west, south, east, north = bbox
    order = "the order is W,S,E,N: longitude, latitude, longitude, latitude in degrees"
    if not (_is_latitude(south) and _is_latitude(north)):
        swapped = _is_latitude(west) and _is_latitude(east) and -180 <= south <= 180 and -180 <= north <= 180
        hint = f"; latitude seems to come first: did you mean {south},{west},{north},{east}?" if swapped else ""
        raise ValueError(f"latitudes must lie in -90..90, got south {south} and north {north}; {order}{hint}")
    if not (-180 <= west <= 180 and -180 <= east <= 180):
        raise ValueError(f"longitudes must lie in -180..180, got west {west} and east {east}; {order}")
    if west > east:
        raise ValueError(
            f"west {west} is greater than east {east}; {order}, and a region across the antimeridian is not supported: "
            "build its two halves as two regions"
        )
    if south > north:
        raise ValueError(f"south {south} is greater than north {north}; {order}")
    if west == east or south == north:
        raise ValueError(f"the box {west},{south},{east},{north} has no area; {order}")
    if south < -80 or north > 84:
        raise ValueError(f"UTM zones reach from 80 S to 84 N, got south {south} and north {north}")


def _is_latitude(degrees: float) -> bool:
    return -90 <= degrees <= 90


@dataclass(frozen=True, kw_only=True)
class Imagery:
    """Where the scenes come from and which of them are used."""

    source: ImagerySource = "simulated"
    path: str | None = None
    """A static STAC catalogue, ItemCollection or stac-geoparquet (file or http(s) URL), a folder of .SAFE products, or
    the root of an API where it is not the provider's own (stac-api: always)."""
    collection: str | None = None
    """Of a STAC API: the collection to search; None: the provider's."""
    assets: dict[str, str] | None = None
    """stac-api only: band (B02, ..., SCL) to asset key; None: found by the names of usual providers."""
    min_baseline: str | None = None
    """Scenes of an older processing baseline ("05.00") are left out; None: all are taken."""
    fallback: ImagerySource | None = None
    """A second provider of the same radiometry rule, read where the first does not answer."""
    fallback_path: str | None = None
    """Root of the fallback's API where it is not the provider's own, or a table of its items (.parquet)."""
    deployment: Literal["cdse", "sentinel-hub", "sentinel-hub-uswest2"] = "cdse"
    """sentinel-hub only: whose service is asked."""
    mosaicking: Literal["tile", "orbit"] = "tile"
    """sentinel-hub only: `tile` merges by our own order and knows each pixel's item; `orbit` leaves both to the
    service and is cheaper where tiles overlap."""
    bands: tuple[str, ...] = DEFAULT_BANDS
    max_cloud: float = 100.0
    """Scenes whose metadata say more cloud than this, in per cent, are left out."""
    resampling: Literal["nearest", "bilinear"] = "nearest"
    """How 20 m and 60 m bands come to 10 m: repeated, or bilinear that never bleeds nodata."""
    climate: str = "temperate"
    """simulated only: the climate that the archive is written for."""
    dates: int = 24
    """simulated only: number of acquisitions in the season."""
    seed: int = 0
    """simulated only: seed of the archive."""

    def __post_init__(self) -> None:
        unknown = [band for band in self.bands if band not in BANDS]
        if unknown or not self.bands or len(set(self.bands)) != len(self.bands):
            raise ValueError(
                f"bands must be distinct names out of {', '.join(BANDS)}; got {', '.join(self.bands[:20])}"
            )
        if self.min_baseline is not None:
            baseline_key(self.min_baseline)
        if not 0 <= self.max_cloud <= 100:
            raise ValueError(f"max_cloud is a share in per cent, 0..100; got {self.max_cloud}")


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """How parcels become pixels."""

    rule: Literal["area", "center", "all_touched"] = "area"
    """`area`: the parcel that covers most of a pixel; `center` and `all_touched`: GDAL's rules, later rows win."""
    min_coverage: float = 0.5
    """Share of a pixel its best parcel must cover to win it (rule `area`)."""
    finer: tuple[Literal[2, 4], ...] = ()
    """Finer label lattices to write: 2 is 5 m, 4 is 2.5 m."""
    classes_at: str | None = None
    """Classes of the taxonomy's tree that codes are raised to: `level-N`, or names or codes of its nodes with commas
    between; None: as the taxonomy has them."""
    min_pixels: dict[Literal["train", "validation", "test"], int] = field(default_factory=dict, hash=False)
    """A class whose parcels cover less than so many pixels of 10 m in one of these splits becomes `other`
    (CSCL: 20 000 train, 2 000 test); empty: every class stays."""

    def __post_init__(self) -> None:
        if not 0 < self.min_coverage <= 1:
            raise ValueError(f"min_coverage must lie in (0, 1], got {self.min_coverage}")
        if len(set(self.finer)) != len(self.finer):
            raise ValueError(f"finer lists a lattice twice: {self.finer}")
        if any(pixels < 0 for pixels in self.min_pixels.values()):
            raise ValueError(f"min_pixels are pixels of a class in a split, 0 or more; got {self.min_pixels}")


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How the region is cut into train, validation and test."""

    block_m: int = 2560
    """Side of the square blocks that never straddle splits; a multiple of 640 m."""
    buffer_m: float = 100.0
    """Pixels nearer than this to another split's parcels belong to no split."""
    shares: dict[Literal["train", "validation", "test"], float] = field(
        default_factory=lambda: {"train": 0.6, "validation": 0.2, "test": 0.2}
    )
    seed: int = 0
    folds: int = 0
    """Cross-validation: blocks are shared out over so many folds of equal size, in place of `shares`; 0: none."""
    fold: int = 1
    """With `folds`: this one, counted from 1, is test, the next one (after the last, the first) validation, the others
    are train; of two folds the other one is train."""
    min_pixels: int = 1
    """Pixels of 10 m, by the area of its parcels, that a class should have in each split where that is possible."""
    whole: Literal["train", "validation", "test"] | None = None
    """All of the region in one split, as when years or regions are compared."""
    file: str | None = None
    """A vector file of polygons with a column `split` (train, validation, test) that decide in place of blocks; ground
    outside of them is in no split."""

    def __post_init__(self) -> None:
        if self.folds and not (2 <= self.folds <= 100 and 1 <= self.fold <= self.folds):
            raise ValueError(
                f"folds are 2 to 100, and fold is the one to test with, 1 to folds; got folds {self.folds}, "
                f"fold {self.fold}"
            )
        if self.fold != 1 and not self.folds:
            raise ValueError(f"fold {self.fold} is one of some folds; say how many folds there are")
        given = {"folds": bool(self.folds), "whole": self.whole is not None, "file": self.file is not None}
        ways = [name for name, is_given in given.items() if is_given]
        if len(ways) > 1:
            raise ValueError(f"splits come from one of folds, whole and file; got {' and '.join(ways)}")
        if self.seed < 0:
            raise ValueError(f"seed of splits is a whole number from 0 on, got {self.seed}")
        if self.min_pixels < 1:
            raise ValueError(f"min_pixels of a split is 1 or more, got {self.min_pixels}")
        if self.block_m <= 0 or self.block_m % 640:
            raise ValueError(f"block_m must be a multiple of 640 m (the side of a chip), got {self.block_m}")
        if not 0 <= self.buffer_m <= 100:
            raise ValueError(f"buffer_m must lie in 0..100 m (parcels are known within 110 m), got {self.buffer_m}")
        if any(share < 0 for share in self.shares.values()) or abs(sum(self.shares.values()) - 1) > 1e-9:
            raise ValueError(f"the shares of the splits must be positive and sum to 1, got {self.shares}")


@dataclass(frozen=True, kw_only=True)
class Region:
    """A named area with a season: what `sits-build --region` takes."""

    id: str
    season: Season
    place: Place
    title: str = ""
    imagery: Imagery = field(default_factory=Imagery)
    parcels: ParcelSource | None = None
    taxonomy: str | None = None
    """Name of a shipped taxonomy or path of a CSV; None: one class a crop code that occurs."""
    labels: LabelRule = field(default_factory=LabelRule)
    splits: SplitRule = field(default_factory=SplitRule)
    folder: Path = field(default_factory=Path)
    """Folder that relative paths of the region file start from; not a key of the file."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(
                f"a region's id names its folder: lower-case letters, digits, '.', '_' and '-' only; got {self.id!r}"
            )
        if self.place.around == "parcels" and self.parcels is None:
            raise ValueError("the place is `around: parcels`, but the region names no parcels")

    def resolve(self, path: str) -> str:
        """`path` as the region file means it: URLs and absolute paths as they are, others from its folder."""
        if "://" in path or Path(path).is_absolute():
            return path
        return str(self.folder / path)

    def replace(self, **changes: object) -> Region:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # checked by __post_init__
