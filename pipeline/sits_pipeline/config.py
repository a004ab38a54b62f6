"""How a build runs: settings that decide no pixel, so that they never enter `config_sha256`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["BuildConfig"]


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Settings of one run. What decides pixels stands in the region file instead."""

    out: str = "out"
    """Folder or fsspec URL under which `<region>/` is written."""
    scheduler: str | None = None
    """Address of a running Dask scheduler (tcp://host:port); None: this machine."""
    workers: int = 0
    """Workers on this machine; 0: one a core."""
    kind: Literal["threads", "processes"] = "threads"
    """What the workers on this machine are."""
    cell_px: int = 0
    """Side of a cell in pixels, a multiple of the shard; 0: the largest of 1024, 512, ... that fits the memory."""
    memory_gb: float = 0.0
    """Memory the workers of this machine may use together; 0: 60 % of what is free."""
    cache: Path | None = None
    """Folder for bytes of remote assets; None: a temporary one."""
    cache_gb: float = 20.0
    chips: Literal["grid", "parcel"] = "grid"
    """Chips to list in chips.parquet: the grid alone, or one around each parcel as well."""
    retries: int = 3
    """How often a cell whose task raised is tried again."""
