"""Who holds Level-2A of which time and place.

Level-1C reaches back to July 2015 everywhere, Level-2A does not: ESA began to process it over Europe in 2017 and over
the world in December 2018, and made the years before later, in Collection 1. Who copied the archive when decides what
can be read there. The table holds what providers and users have published by November 2026; a search settles it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sits_catalog.region import ImagerySource, Season

__all__ = ["HOLDINGS", "Holding", "Span", "holding_of", "why_not_held"]

_EUROPE = (-32.0, 27.0, 45.0, 72.0)
_WORLD = (-180.0, -84.0, 180.0, 84.0)


@dataclass(frozen=True, kw_only=True)
class Span:
    """A time and a place of which all scenes are held, but for single ones that are missing anywhere."""

    first: date
    last: date | None = None
    """None: new scenes come in."""
    bbox: tuple[float, float, float, float] = _WORLD
    """West, south, east, north in degrees."""

    def covers(self, season: Season, bbox: tuple[float, float, float, float]) -> bool:
        """Whether all of a season and a box lie inside."""
        within = self.first <= season.start and (self.last is None or season.end <= self.last)
        west, south, east, north = self.bbox
        return within and west <= bbox[0] and south <= bbox[1] and bbox[2] <= east and bbox[3] <= north


@dataclass(frozen=True, kw_only=True)
class Holding:
    """A provider's collection of Level-2A."""

    provider: ImagerySource
    collection: str | None
    """None: the provider has one and needs no name."""
    spans: tuple[Span, ...]
    """Empty: samples, of no time and place as a whole."""
    processing: str
    """Which processing of ESA's archive it is."""
    sources: tuple[str, ...]
    """Where these facts are published."""


HOLDINGS: tuple[Holding, ...] = (
    Holding(
        provider="planetary-computer",
        collection="sentinel-2-l2a",
        # The collection says "from 2016 to the present"; single tiles and days are missing (issues 381 and 438).
        spans=(Span(first=date(2016, 1, 1)),),
        processing="its own run of Sen2Cor over all of the archive up to 2020 (baseline 02.12), ESA's products since",
        sources=(
            "https://planetarycomputer.microsoft.com/dataset/sentinel-2-l2a",
            "https://github.com/microsoft/PlanetaryComputer/issues/381",
            "https://github.com/microsoft/PlanetaryComputer/issues/438",
        ),
    ),
    Holding(
        provider="cdse",
        collection="sentinel-2-l2a",
        # Publication of Collection 1 was completed with 2015-2021 in May 2025 and with 2022-2023 in June 2025.
        spans=(Span(first=date(2015, 7, 4)),),
        processing="ESA's Collection 1 (baselines 05.00 and 05.10) up to 2023, the current one since",
        sources=(
            "https://documentation.dataspace.copernicus.eu/Data/Others/Sentinel2_L2A_baseline.html",
            "https://github.com/Element84/earth-search/issues/70",
        ),
    ),
    Holding(
        provider="sentinel-hub",
        collection=None,
        # At Copernicus Data Space (the deployment `cdse`) it reads the same archive; users still find tiles missing in
        # 2017 (sentinelhub-py issue 572), so what it holds is counted from the world-wide processing on.
        spans=(
            Span(first=date(2017, 3, 28), bbox=_EUROPE),
            Span(first=date(2018, 12, 13)),
        ),
        processing="the archive of Copernicus Data Space",
        sources=("https://github.com/sentinel-hub/sentinelhub-py/issues/572",),
    ),
    Holding(
        provider="earth-search",
        collection="sentinel-2-l2a",
        spans=(
            # The first products over Europe were sensed on 2017-03-28; the world follows from December 2018.
            Span(first=date(2017, 3, 28), bbox=_EUROPE),
            Span(first=date(2018, 12, 13)),
        ),
        processing="ESA's products as they first came out",
        sources=(
            "https://sentinels.copernicus.eu/web/sentinel/technical-guides/sentinel-2-msi/level-2a-processing",
            "https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S2_SR",
            "https://github.com/sentinelsat/sentinelsat/issues/335",
        ),
    ),
    Holding(
        provider="earth-search",
        collection="sentinel-2-c1-l2a",
        # 2016-11 to 2019-11 and 2022 were missing in April 2024, 2018 and 2019 for the greater part still in July 2025.
        spans=(
            Span(first=date(2019, 12, 1), last=date(2021, 12, 31)),
            Span(first=date(2023, 1, 1)),
        ),
        processing="ESA's Collection 1, baseline 05.00 and later",
        sources=(
            "https://github.com/Element84/earth-search/issues/29",
            "https://github.com/Element84/earth-search/issues/70",
        ),
    ),
    Holding(
        provider="eopf",
        collection="sentinel-2-l2a",
        spans=(),
        processing="samples of ESA's Zarr products; --plan without --offline says which",
        sources=("https://zarr.eopf.copernicus.eu",),
    ),
)
"""What is known of the providers that a region can name; your own files and any other API hold what they hold."""


def holding_of(provider: str, collection: str | None) -> Holding | None:
    """What a provider holds in a collection, by default its first; None: nothing is known of it."""
    known = [holding for holding in HOLDINGS if holding.provider == provider]
    named = [holding for holding in known if collection in (None, holding.collection)]
    return named[0] if named else None


def why_not_held(holding: Holding, season: Season, bbox: tuple[float, float, float, float]) -> str | None:
    """One sentence if a season at a place (west, south, east, north) is not all held; None where it is."""
    if any(span.covers(season, bbox) for span in holding.spans):
        return None
    name = holding.provider if holding.collection is None else f"{holding.provider} ({holding.collection})"
    if not holding.spans:
        return f"{name} holds samples only, so scenes of this season and place may be missing"
    spans = " and ".join(
        f"from {span.first} {'on' if span.last is None else f'to {span.last}'}"
        + ("" if span.bbox == _WORLD else " over Europe")
        for span in holding.spans
    )
    return (
        f"{name} is known to hold L2A {spans}, and the season is {season.start} to {season.end}: "
        "fewer dates than estimated, or none, will be found"
    )
