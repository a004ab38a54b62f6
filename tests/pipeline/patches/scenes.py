"""Scenes for the tests of location sets."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import shapely

from sits_catalog.locations import Location
from sits_pipeline.patches.place import Spot
from sits_pipeline.values import Acquisition, Scene, Verdict

BANDS = ("B02", "B04", "SCL")
HERE = Location("here", 3.36, 48.68)
SPOT = Spot.of(0, HERE, 276)
AROUND = shapely.box(3.0, 48.0, 4.0, 49.0)
EASTERN, WESTERN = shapely.box(3.35, 48.0, 4.0, 49.0), shapely.box(3.0, 48.0, 3.3501, 49.0)
"""Halves of `AROUND` whose border, in which they overlap, runs through the patch."""
GOOD = Verdict(declared=0, audited=0, applied=0, medians={"B02": 400.0}, n_pixels=900, refused=False, reason="")


def scene(
    day: str,
    *,
    cloud: float | None = 10.0,
    footprint: shapely.Geometry = AROUND,
    tile: str = "31UEP",
    bands: tuple[str, ...] = BANDS,
) -> Scene:
    """A scene of the zone 31N at 10:30 UTC."""
    return Scene(
        id=f"S2A_{tile}_{day.replace('-', '')}",
        provider="stac",
        collection="sentinel-2-l2a",
        sensed=datetime.combine(date.fromisoformat(day), time(10, 30), UTC),
        platform="sentinel-2a",
        orbit=8,
        mgrs_tile=tile,
        epsg=32631,
        baseline="05.00",
        cloud_cover=cloud,
        footprint=footprint,
        datatake=None,
        datastrip=None,
        generated=datetime(2023, 8, 1, 4, 5, 6, 700, tzinfo=UTC),
        assets={band: f"https://example.org/{tile}/{day}/{band}.tif" for band in bands},
        declared_offset=0,
        offset_is_firm=True,
        item={},
    )


def acquisition(day: str, *scenes: Scene, cloud: float | None = 10.0) -> Acquisition:
    """A day with one scene that covers everything, or with these."""
    found = scenes or (scene(day, cloud=cloud),)
    return Acquisition(day=date.fromisoformat(day), scenes=found, verdicts=(GOOD,) * len(found))
