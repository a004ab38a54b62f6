"""Reading chips: a cube's layout against one chunk a date, the same values and codec."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import zarr
from tests.benchmarks.measure import run_fresh
from tests.benchmarks.table import Table

from sits_catalog.cube import CHIP
from sits_pipeline.store import COMPRESSOR

__all__ = ["bench", "run"]

_DATE_CHUNK = 512


def bench(dataset: Path, folder: Path, *, chips: int, say: Callable[[str], None]) -> list[Table]:
    """The table of milliseconds a chip."""
    say("reading chips")
    copy = folder / "date-major.zarr"
    try:
        result = run_fresh(
            "tests.benchmarks.chips:run", cube=str(dataset / "cube.zarr"), copy=str(copy), chips=chips
        ).result
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    dates, bands, height, width = result["shape"]
    own, other = result["cube"], result["date-major"]
    rows = (
        (f"cube: chunks of all dates and bands, {CHIP} px", *own.values(), 1.0),
        (f"date-major: a chunk a date, {_DATE_CHUNK} px", *other.values(), other["random"] / own["random"]),
    )
    return [
        Table(
            title=f"Chips of {CHIP} px over {dates} dates and {bands} bands, from {height} x {width} px",
            columns=("layout", "ms a random chip", "ms an aligned chip", "ms a whole date", "random, x cube"),
            rows=rows,
            notes=(f"Median of {chips} chips, one reader, files in the page cache.",),
        )
    ]


def run(cube: str, copy: str, chips: int) -> dict[str, Any]:
    """Shape of the cube; for both layouts the median milliseconds of a random chip, an aligned one and a whole date."""
    stored: Any = zarr.open_array(f"{cube}/reflectance", mode="r")
    arrays = {"cube": stored, "date-major": _date_major(stored, copy)}
    result: dict[str, Any] = {"shape": stored.shape}
    for name, array in arrays.items():
        result[name] = {
            "random": _ms(array, _random(stored.shape, chips)),
            "aligned": _ms(array, _aligned(stored.shape, chips)),
            "date": _ms(array, ((slice(t, t + 1),) for t in range(min(3, stored.shape[0])))),
        }
    same = [np.array_equal(*(array[chip] for array in arrays.values())) for chip in _random(stored.shape, 3)]
    assert all(same), "the layouts hold different values"
    return result


def _date_major(stored: Any, copy: str) -> Any:
    _, bands, height, width = stored.shape
    array = zarr.create_array(
        copy,
        shape=stored.shape,
        chunks=(1, bands, min(_DATE_CHUNK, height), min(_DATE_CHUNK, width)),
        dtype=stored.dtype,
        fill_value=0,
        compressors=COMPRESSOR,
    )
    array[...] = stored[...]
    return array


def _random(shape: tuple[int, ...], count: int) -> Iterator[tuple[slice, ...]]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        y, x = (int(rng.integers(0, size - CHIP + 1)) for size in shape[2:])
        yield slice(None), slice(None), slice(y, y + CHIP), slice(x, x + CHIP)


def _aligned(shape: tuple[int, ...], count: int) -> Iterator[tuple[slice, ...]]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        y, x = (int(rng.integers(0, size // CHIP)) * CHIP for size in shape[2:])
        yield slice(None), slice(None), slice(y, y + CHIP), slice(x, x + CHIP)


def _ms(array: Any, selections: Iterator[tuple[slice, ...]]) -> float:
    times = []
    for selection in selections:
        started = time.perf_counter()
        array[selection]
        times.append(time.perf_counter() - started)
    return 1000 * median(times)
