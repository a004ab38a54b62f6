"""The floor: every needed source block is read once, 20 m pixels are repeated, one sharded array is written."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window
from tests.benchmarks.contestants.cube_file import write_arrays
from tests.benchmarks.job import ASSETS, Job


def run(job: dict[str, Any], out: str, threads: int) -> dict[str, float]:
    """Seconds to read and to write."""
    wanted, started = Job(**job), time.perf_counter()
    items = json.loads(Path(wanted.items).read_text())["features"]
    shape = (wanted.side, wanted.side)
    reflectance = np.empty((len(items), len(wanted.bands), *shape), np.uint16)
    scl = np.empty((len(items), *shape), np.uint8)
    jobs = []
    for t, item in enumerate(items):
        for band, target in [*zip(wanted.bands, reflectance[t], strict=True), ("SCL", scl[t])]:
            path = Path(wanted.items).parent / item["assets"][ASSETS[band]]["href"]
            jobs.append((path, wanted, target))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_read, jobs))
    read = time.perf_counter()
    write_arrays(Path(out), reflectance, scl)
    return {"read": read - started, "write": time.perf_counter() - read}


def _read(job: tuple[Path, Job, NDArray[Any]]) -> None:
    """Read the part of one file that lies in the grid, and repeat its pixels."""
    path, wanted, target = job
    with rasterio.open(path) as dataset:
        size = round(dataset.transform.a)
        factor, n = size // 10, wanted.side * 10 // size
        row, column = round(dataset.transform.f - wanted.top) // size, round(wanted.left - dataset.transform.c) // size
        values = dataset.read(1, window=Window(column, row, n, n))
    target.reshape(n, factor, n, factor)[...] = values[:, None, :, None]
