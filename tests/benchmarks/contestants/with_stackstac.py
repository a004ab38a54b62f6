"""stackstac: in chunks of 512 pixels, its fastest setting here, then written as the floor writes."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import dask
import numpy as np
import stackstac
from tests.benchmarks.contestants.cube_file import write_arrays
from tests.benchmarks.contestants.items import absolute_items
from tests.benchmarks.job import ASSETS, EPSG, Job


def run(job: dict[str, Any], out: str, threads: int) -> dict[str, float]:
    """Seconds to read and to write."""
    wanted, started = Job(**job), time.perf_counter()
    with warnings.catch_warnings(), dask.config.set(scheduler="threads", num_workers=threads):
        warnings.simplefilter("ignore")
        stacked = stackstac.stack(
            absolute_items(wanted.items),
            assets=[*(ASSETS[band] for band in wanted.bands), "scl"],
            epsg=EPSG,
            resolution=10,
            bounds=wanted.grid.boundingbox.bbox,
            dtype="uint16",
            fill_value=np.uint16(0),
            rescale=False,
            chunksize=512,
            xy_coords=False,
            properties=False,
            band_coords=False,
            sortby_date=False,
        ).compute()
    reflectance, scl = stacked.values[:, :-1], stacked.values[:, -1].astype(np.uint8)
    read = time.perf_counter()
    write_arrays(Path(out), reflectance, scl)
    return {"read": read - started, "write": time.perf_counter() - read}
