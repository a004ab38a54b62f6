"""sits-build, from a region to a finished and verified dataset, with the time that each stage took."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from tests.benchmarks.job import SEASON, Job

from sits_catalog.parcel_source import ParcelSource
from sits_catalog.region import Imagery, Place, Region
from sits_pipeline.build import build
from sits_pipeline.config import BuildConfig
from sits_pipeline.folder import Folder
from sits_pipeline.prepare import prepare
from sits_pipeline.verify import verify

NAME = "bench"
"""Name of the dataset's folder."""


class _Clock:
    """Notes when each stage begins."""

    def __init__(self) -> None:
        self.starts: list[tuple[str, float]] = []

    def stage(self, text: str) -> None:
        self.starts.append((text.split()[0], time.perf_counter()))

    def progress(self, done: int, total: int) -> None:
        pass

    def start_of(self, word: str) -> float:
        return next(at for stage, at in self.starts if stage == word)


def run(
    job: dict[str, Any],
    out: str,
    threads: int,
    cell_px: int = 0,
    kind: Literal["threads", "processes"] = "threads",
    cache: str | None = None,
) -> dict[str, float]:
    """Seconds to prepare (parcels, search, audit, plan), for the cells, to finish, and to verify."""
    wanted, clock, started = Job(**job), _Clock(), time.perf_counter()
    config = BuildConfig(
        out=out, workers=threads, cell_px=cell_px, kind=kind, cache=None if cache is None else Path(cache)
    )
    (outcome,) = build(prepare(_region(wanted), config, clock), config, clock)
    built = time.perf_counter()
    found = verify(Folder(outcome.location))
    if found or not outcome.complete:
        raise RuntimeError(f"the dataset is not whole: {[*map(str, found), *outcome.failures][:3]}")
    cells, finish = clock.start_of("building"), clock.start_of("finishing")
    return {
        "prepare": cells - started,
        "cells": finish - cells,
        "finish": built - finish,
        "whole": built - started,
        "verify": time.perf_counter() - built,
    }


def _region(wanted: Job) -> Region:
    return Region(
        id=NAME,
        season=SEASON,
        place=Place(file=wanted.area),
        imagery=Imagery(source="stac", path=wanted.items, bands=tuple(wanted.bands)),
        parcels=ParcelSource(path=wanted.parcels, id="id", code="crop_code", name="crop_name", labelled_area="region"),
        taxonomy="demo-crops",
    )
