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
    """Folder or fsspec URL under which `<region>/` is written; a local one becomes an absolute path, since workers may
    run in other folders."""
    scheduler: str | None = None
    """Address of a running Dask scheduler (tcp://host:port); None: this machine."""
    workers: int = 0
    """Workers on this machine; 0: one a core."""
    kind: Literal["threads", "processes"] = "threads"
    """What the workers on this machine are."""
    cell_px: int = 0
    """Side of a cell in pixels, a multiple of the shard; 0: chosen by dates and bands alone, never by the memory."""
    memory_gb: float = 0.0
    """Memory the workers of this machine may use together; 0: 60 % of what is free."""
    cache: Path | None = None
    """Folder for bytes of remote assets, made absolute; None: a temporary one."""
    cache_gb: float = 20.0
    chips: Literal["grid", "parcel"] = "grid"
    """Chips to list in chips.parquet: the grid alone, or one around each parcel as well."""
    search_again: bool = False
    """Ask a service's catalogue anew, whatever an earlier search of the same plan found."""
    max_pu: float | None = None
    """Sentinel Hub's processing units that a build may use at most, with those of its earlier runs; None: as many as it
    takes."""
    requests_a_minute: int = 0
    """Requests that all workers together send a service in a minute at most, where the provider allows more; 0: what it
    allows."""
    retries: int = 3
    """How often a cell whose task raised is tried again."""

    def __post_init__(self) -> None:
        if self.max_pu is not None and not 0 <= self.max_pu < float("inf"):
            raise ValueError(f"max_pu is a number of processing units, 0 or more; got {self.max_pu}")
        if self.requests_a_minute < 0:
            raise ValueError(f"requests_a_minute is 0 (the provider's limit) or more; got {self.requests_a_minute}")
        if "://" not in self.out or self.out.startswith("file://"):
            object.__setattr__(self, "out", str(Path(self.out.removeprefix("file://")).absolute()))
        if self.cache is not None:
            object.__setattr__(self, "cache", self.cache.absolute())
