"""Who serves Sentinel-2 scenes over a STAC API: address, collections, names of assets, and what each allows.

Addresses, names and limits are those that the providers documented in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from sits_catalog.addresses import without_secrets
from sits_catalog.sentinel2 import BANDS
from sits_pipeline.sources.access import Limit

__all__ = ["PROVIDERS", "Provider", "any_api"]

_AT_ONCE = 64
"""Requests under way where a provider names no bound: enough for 16 workers, and polite."""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A STAC API and how the pixels behind it are read."""

    name: str
    url: str
    """Root of the API."""
    collections: tuple[str, ...]
    """Those whose radiometry is known, the default first; empty: any."""
    assets: Mapping[str, str]
    """Band to asset key, `key/name` for an array inside of a Zarr group; empty: found by the names of all providers."""
    limit: Limit
    page_size: int = 100
    """Items that one answer of a search holds at most."""
    signing: Literal["none", "sas", "cdse"] = "none"
    """Proof of who asks that the assets need: none, Azure's shared access signatures, or CDSE's S3 keys or tokens."""
    whole_files: bool = False
    """Whether a file is fetched whole before it is read: JPEG 2000 without markers of its tiles is read in thousands of
    small pieces otherwise, and a chunk of a Zarr array is never read in part."""
    pixels: Literal["files", "eopf"] = "files"
    """Single-band files, or ESA's Zarr products."""


def _limit(name: str, *, at_once: int = _AT_ONCE, a_minute: int = 0) -> Limit:
    return Limit(name=name, at_once=at_once, a_minute=a_minute)


_PROVIDERS = (
    Provider(
        name="earth-search",
        url="https://earth-search.aws.element84.com/v1",
        collections=("sentinel-2-l2a", "sentinel-2-c1-l2a"),
        assets={
            "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red",
            "B05": "rededge1", "B06": "rededge2", "B07": "rededge3",
            "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22", "SCL": "scl",
        },
        limit=_limit("earth-search"),
    ),
    Provider(
        name="planetary-computer",
        url="https://planetarycomputer.microsoft.com/api/stac/v1",
        collections=("sentinel-2-l2a",),
        assets={band: band for band in (*BANDS, "SCL")},
        limit=_limit("planetary-computer"),
        signing="sas",
    ),
    Provider(
        name="cdse",
        url="https://stac.dataspace.copernicus.eu/v1",
        collections=("sentinel-2-l2a",),
        assets={**{name: f"{name}_{band.resolution_m}m" for name, band in BANDS.items()}, "SCL": "SCL_20m"},
        limit=_limit("cdse", at_once=4, a_minute=2000),
        signing="cdse",
        whole_files=True,
    ),
    Provider(
        name="eopf",
        url="https://stac.core.eopf.eodc.eu",
        collections=("sentinel-2-l2a",),
        # B01 has an asset of 20 m alone; its 60 m pixels, which all others serve, lie in the group of 60 m.
        assets={
            **{name: f"{name}_{band.resolution_m}m" for name, band in BANDS.items()},
            "B01": "SR_60m/b01", "SCL": "SCL_20m",
        },
        limit=_limit("eopf"),
        whole_files=True,
        pixels="eopf",
    ),
)  # fmt: skip

PROVIDERS: Mapping[str, Provider] = {provider.name: provider for provider in _PROVIDERS}
"""By the name that `imagery.source` takes."""


def any_api(url: str, assets: Mapping[str, str] | None) -> Provider:
    """A STAC API that is none of the known ones; `assets` band to asset key, None: found by the known names."""
    url = without_secrets(url)
    host = urlsplit(url).netloc
    return Provider(
        name="stac-api", url=url, collections=(), assets=assets or {}, limit=_limit(f"stac-api {host}".rstrip())
    )
