"""Sentinel Hub, of Copernicus Data Space or of its makers: scenes from its Catalog, pixels from its Process API."""

from __future__ import annotations

from sits_pipeline.sources.sentinel_hub.source import SentinelHubSource, open_sentinel_hub

__all__ = ["SentinelHubSource", "open_sentinel_hub"]
