"""A parcel source: where agricultural parcels are read from and what its columns mean."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ParcelSource"]


@dataclass(frozen=True, kw_only=True)
class ParcelSource:
    """Parcels as a file or URL with the meaning of its columns; or a shipped source by name and year."""

    path: str | None = None
    """A vector file that GDAL opens, GeoParquet, or a URL of one."""
    layer: str | None = None
    id: str | None = None
    """Column with the source's own parcel key; without one, keys are content hashes."""
    code: str | None = None
    """Column with the crop code."""
    name: str | None = None
    """Column with the crop name."""
    crs: str | None = None
    """CRS for a file that states none; it never overrides a stated one."""
    encoding: str | None = None
    labelled_area: str = "parcels"
    """`region`: what no parcel covers is background; `parcels`: nothing is known between the parcels;
    or the path of a polygon file inside of which everything is declared."""
    source: str | None = None
    """Name of a shipped parcel source."""
    year: int | None = None

    def __post_init__(self) -> None:
        if self.path is None and self.source is None:
            raise ValueError("parcels need a path, or the name of a shipped source under `source`")
