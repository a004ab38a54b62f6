"""The simulated archive as a source: written once, then a static STAC catalogue like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from odc.geo.geobox import GeoBox

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.region import Region
from sits_catalog.sentinel2 import BANDS
from sits_pipeline.sources.stac import StacSource

__all__ = ["open_simulated"]


def open_simulated(
    region: Region, extent: GeoBox, folder: Path, progress: Callable[[int, int], None] | None
) -> tuple[StacSource, Region]:
    """The archive for a region, written to `folder` unless it is there already, and the region with its parcels.

    Raises ValueError where the folder holds something else, or the archive cannot be made as asked.
    """
    from sits_pipeline.simulate import write_archive  # brings SciPy's filters along

    imagery = region.imagery
    archive = write_archive(
        folder,
        extent,
        region.season,
        climate=imagery.climate,
        dates=imagery.dates,
        seed=imagery.seed,
        # The audit looks at B02 and B04, whatever bands are asked for.
        bands=[name for name in BANDS if name in {*imagery.bands, "B02", "B04"}],
        progress=progress,
    )
    if region.parcels is None:
        parcels = ParcelSource(
            path=str(archive.parcels.resolve()), id="id", code="crop_code", name="crop_name", labelled_area="region"
        )
        region = replace(region, parcels=parcels)
    return StacSource(str(archive.catalog)), region
