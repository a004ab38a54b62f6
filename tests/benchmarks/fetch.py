"""Bytes that a build fetches from a web server, over the bytes it cannot do without."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import rasterio
from tests.benchmarks.job import ASSETS, Job
from tests.benchmarks.measure import run_fresh
from tests.benchmarks.table import Table
from tests.pipeline.sources.range_server import RangeServer

from sits_catalog.cube import shard_side

__all__ = ["fetched", "sent_and_unique"]

_AUDIT_SIDE = 400
"""Pixels a side that the audit asks of B02, B04 and SCL."""


def fetched(job: Job, folder: Path, *, threads: int, say: Callable[[str], None]) -> Table:
    """Build in cells of one shard, so that cells share source blocks, from files behind a server of this machine."""
    say("building from a web server")
    items = json.loads(Path(job.items).read_text())["features"]
    paths = [
        Path(job.items).parent / item["assets"][ASSETS[band]]["href"] for item in items for band in (*job.bands, "SCL")
    ]
    needed = sum(_needed(path, job) for path in paths)
    cell = shard_side(len(items), len(job.bands))
    server = RangeServer(folder)
    try:
        remote = replace(job, items=f"{server.url}/{Path(job.items).name}")
        run_fresh(
            "tests.benchmarks.contestants.sits_build:run",
            job=remote.as_json(),
            out=str(folder / "remote"),
            threads=threads,
            cell_px=cell,
            cache=str(folder / "cache"),
        )
    finally:
        server.close()
        for name in ("remote", "cache"):
            shutil.rmtree(folder / name, ignore_errors=True)
    requests = [(path, wanted) for path, wanted in server.requests if path.endswith(".tif")]
    sent, unique = sent_and_unique(folder, requests)
    rows = (
        ("needed: heads of files, source blocks of the region, overviews for the audit", needed / 1e6, 1.0),
        ("sent by the server", sent / 1e6, sent / needed),
        ("sent by the server, each byte counted once", unique / 1e6, unique / needed),
    )
    note = f"{len(requests)} requests for {len(paths)} files, cells of {cell} px, {threads} workers, one cache on disk."
    return Table(title="Bytes fetched over http", columns=("", "MB", "x needed"), rows=rows, notes=(note,))


def sent_and_unique(folder: Path, requests: list[tuple[str, str | None]]) -> tuple[int, int]:
    """Bytes that requests for files of a folder ask for, and these with each byte counted once."""
    return sum(_length(folder / path, wanted) for path, wanted in requests), _unique(folder, requests)


def _needed(path: Path, job: Job) -> int:
    """Bytes of one file's head, of its blocks in the grid, and of the overview that the audit reads."""
    with rasterio.open(path) as dataset:
        factors = [1, *dataset.overviews(1)]
        head = min(offset for level in range(len(factors)) for offset, _ in _blocks(dataset, level, factors[level]))
        blocks = dict(_blocks(dataset, 0, 1, job))
        if path.stem in ("B02", "B04", "SCL"):
            level = max(n for n, factor in enumerate(factors) if factor <= max(1, dataset.height / _AUDIT_SIDE))
            blocks |= dict(_blocks(dataset, level, factors[level]))
    return head + sum(blocks.values())


def _blocks(dataset: Any, level: int, factor: int, job: Job | None = None) -> Iterator[tuple[int, int]]:
    """Offset and size of the blocks of a file or of one of its overviews; of those that meet the grid alone."""
    rows, columns = dataset.block_shapes[0]
    overview = level - 1 if level else None
    for row in range(-(-dataset.height // factor // rows)):
        for column in range(-(-dataset.width // factor // columns)):
            if job is not None and not _meets(dataset, job, row * rows, column * columns, rows, columns):
                continue
            names = (f"BLOCK_OFFSET_{column}_{row}", f"BLOCK_SIZE_{column}_{row}")
            offset, size = (dataset.get_tag_item(name, "TIFF", bidx=1, ovr=overview) for name in names)
            if offset is not None:
                yield int(offset), int(size)


def _meets(dataset: Any, job: Job, row: int, column: int, rows: int, columns: int) -> bool:
    west, north = dataset.transform @ (column, row)
    east, south = dataset.transform @ (column + columns, row + rows)
    here = job.grid.boundingbox
    return bool(west < here.right and east > here.left and south < here.top and north > here.bottom)


def _span(path: Path, wanted: str | None) -> range:
    """The bytes that a request for a file asks for."""
    match, size = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or ""), path.stat().st_size
    return range(int(match[1]), min(int(match[2] or size - 1) + 1, size)) if match else range(size)


def _length(path: Path, wanted: str | None) -> int:
    return len(_span(path, wanted))


def _unique(folder: Path, requests: list[tuple[str, str | None]]) -> int:
    """Bytes sent at least once."""
    total, last, end = 0, "", 0
    spans = [(path, _span(folder / path, wanted)) for path, wanted in requests]
    for path, span in sorted(spans, key=lambda pair: (pair[0], pair[1].start)):
        end = end if path == last else 0
        total += max(0, span.stop - max(span.start, end))
        last, end = path, max(end, span.stop)
    return total
