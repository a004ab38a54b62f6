"""sits-build, from a region to a finished and verified dataset, with the time that each stage took."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
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
    """Notes when each stage begins: seconds of the clock and of the processor."""

    def __init__(self) -> None:
        self.starts: dict[str, NDArray[np.float64]] = {}

    def stage(self, text: str) -> None:
        self.starts[text.split()[0]] = _now()

    def progress(self, done: int, total: int) -> None:
        pass


def _now() -> NDArray[np.float64]:
    return np.array([time.perf_counter(), time.process_time()])


def run(
    job: dict[str, Any],
    out: str,
    threads: int,
    cell_px: int = 0,
    kind: Literal["threads", "processes"] = "threads",
    cache: str | None = None,
) -> dict[str, list[float]]:
    """Seconds, of the clock and of the processor: to prepare, for the cells, to finish, for all this; to verify."""
    wanted, clock, started = Job(**job), _Clock(), _now()
    config = BuildConfig(
        out=out, workers=threads, cell_px=cell_px, kind=kind, cache=None if cache is None else Path(cache)
    )
    (outcome,) = build(prepare(_region(wanted), config, clock), config, clock)
    built = _now()
    found = verify(Folder(outcome.location))
    if found or not outcome.complete:
        raise RuntimeError(f"the dataset is not whole: {[*map(str, found), *outcome.failures][:3]}")
    cells, finish = clock.starts["building"], clock.starts["finishing"]
    stages = {
        "prepare": cells - started,
        "cells": finish - cells,
        "finish": built - finish,
        "whole": built - started,
        "verify": _now() - built,
    }
    return {name: spent.tolist() for name, spent in stages.items()}


def _region(wanted: Job) -> Region:
    return Region(
        id=NAME,
        season=SEASON,
        place=Place(file=wanted.area),
        imagery=Imagery(source="stac", path=wanted.items, bands=tuple(wanted.bands)),
        parcels=ParcelSource(path=wanted.parcels, id="id", code="crop_code", name="crop_name", labelled_area="region"),
        taxonomy="demo-crops",
    )
