"""odc-stac: lazily in chunks of a whole date and band, its fastest setting here, then written as the floor writes."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import dask
import numpy as np
import odc.stac
from tests.benchmarks.contestants.cube_file import write_arrays
from tests.benchmarks.contestants.items import absolute_items
from tests.benchmarks.job import ASSETS, Job


def run(job: dict[str, Any], out: str, threads: int) -> dict[str, float]:
    """Seconds to read and to write."""
    wanted, started = Job(**job), time.perf_counter()
    keys = [ASSETS[band] for band in wanted.bands]
    with warnings.catch_warnings(), dask.config.set(scheduler="threads", num_workers=threads):
        warnings.simplefilter("ignore")
        loaded = odc.stac.load(
            absolute_items(wanted.items),
            bands=[*keys, "scl"],
            geobox=wanted.grid,
            chunks={"x": wanted.side, "y": wanted.side},
            resampling="nearest",
            groupby="id",
        ).compute()
    reflectance = np.stack([loaded[key].values for key in keys], axis=1)
    read = time.perf_counter()
    write_arrays(Path(out), reflectance, loaded["scl"].values)
    return {"read": read - started, "write": time.perf_counter() - read}
