"""From scenes to a cube: sits-build against the floor, odc-stac and stackstac, on the same pixels."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tests.benchmarks.contestants.sits_build import NAME
from tests.benchmarks.fetch import fetched
from tests.benchmarks.job import ASSETS, Job, grid_of, job_on, one_item_a_date, write_archive
from tests.benchmarks.measure import Run, run_fresh
from tests.benchmarks.table import Table

__all__ = ["bench", "dataset_of", "prepare_job"]

BANDS = tuple(band for band in ASSETS if band != "SCL")
_PACKAGE = "tests.benchmarks.contestants"
_FLOOR = "floor"
_PEERS = {"with_odc_stac": "odc-stac", "with_stackstac": "stackstac"}
_OURS = "sits_build"

Say = Callable[[str], None]


def bench(folder: Path, *, side: int, dates: int, repeat: int, threads: int, say: Say) -> list[Table]:
    """The table of builds and the table of fetched bytes. Raises RuntimeError where contestants disagree on a pixel."""
    job = prepare_job(folder, side=side, dates=dates, say=say)
    for path in (folder / "archive").rglob("*.tif"):
        path.read_bytes()  # the page cache is warm for everyone
    names = [_FLOOR, _OURS, *_PEERS]
    runs: dict[str, list[Run]] = defaultdict(list)
    for number in range(repeat):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            say(f"build, round {number + 1} of {repeat}: {name}")
            runs[name].append(_run(name, job, folder, threads))
    say("comparing the pixels of all contestants")
    compared = run_fresh(
        f"{_PACKAGE}.agreement:compare",
        floor=str(folder / _FLOOR),
        peers={label: str(folder / name) for name, label in _PEERS.items()},
        ours=str(folder / _OURS),
    ).result
    for name in (_FLOOR, *_PEERS):
        shutil.rmtree(folder / name)
    notes = (
        f"Median and least of {repeat} interleaved rounds, each in a fresh process, files in the page cache; 'x floor' "
        "is the median of the rounds' ratios.",
        f"All contestants gave the same pixels: {compared['sits-build']:,} values compared each.".replace(",", " "),
        f"sits-build, medians: {_stages(runs[_OURS])}.",
    )
    title = f"Scenes to cube: {side} x {side} px, {dates} dates, {len(BANDS)} bands and SCL, local COGs"
    return [_table(title, runs, notes), fetched(job, folder, threads=threads, say=say)]


def prepare_job(folder: Path, *, side: int, dates: int, say: Say) -> Job:
    """The archive and the job on it; what is already in `folder` is taken."""
    say(f"writing a simulated archive of {side} x {side} px and {dates} dates")
    folder.mkdir(parents=True, exist_ok=True)
    grid = grid_of(side)
    catalog = write_archive(folder / "archive", grid, dates=dates, bands=BANDS)
    items = one_item_a_date(catalog, folder / "items.json")
    return job_on(items, catalog.parent / "parcels.parquet", grid, bands=BANDS, folder=folder / "job")


def dataset_of(folder: Path, *, side: int, dates: int, threads: int, say: Say) -> Path:
    """A dataset that sits-build wrote: the one of an earlier benchmark, or a new one."""
    dataset = folder / _OURS / NAME
    if not dataset.exists():
        job = prepare_job(folder, side=side, dates=dates, say=say)
        say("building the dataset")
        _run(_OURS, job, folder, threads)
    return dataset


def _run(name: str, job: Job, folder: Path, threads: int) -> Run:
    shutil.rmtree(folder / name, ignore_errors=True)
    os.sync()  # nobody pays for what another has still to write
    return run_fresh(f"{_PACKAGE}.{name}:run", job=job.as_json(), out=str(folder / name), threads=threads)


def _table(title: str, runs: dict[str, list[Run]], notes: tuple[str, ...]) -> Table:
    floor, ours = runs[_FLOOR], runs[_OURS]
    lines = [
        ("floor: read each source block once, write one sharded array", floor, _calls(floor)),
        *(
            (f"{label}, then written as the floor writes", runs[name], _calls(runs[name]))
            for name, label in _PEERS.items()
        ),
        ("sits-build, cells: offset, quality, lineage, labels, splits, overview, hashes", ours, _stage(ours, "cells")),
        ("sits-build, whole: also parcels, search, audit, plan, tables, report", ours, _stage(ours, "whole")),
        ("sits-build, whole, then sits-cube verify", ours, _calls(ours)),
    ]
    rows = tuple(
        (
            label,
            median(seconds for seconds, _ in spent),
            min(seconds for seconds, _ in spent),
            median(seconds / run.seconds for (seconds, _), run in zip(spent, floor, strict=True)),
            median(cpu_s for _, cpu_s in spent),
            median(run.process_s for run in of),
            median(run.peak_mb for run in of),
        )
        for label, of, spent in lines
    )
    columns = ("", "s, median", "s, least", "x floor", "CPU s", "process s", "peak MB")
    return Table(title=title, columns=columns, rows=rows, notes=notes)


def _calls(runs: list[Run]) -> list[tuple[float, float]]:
    """Seconds of the clock and of the processor."""
    return [(run.seconds, run.cpu_s) for run in runs]


def _stage(runs: list[Run], name: str) -> list[tuple[float, float]]:
    """The same of a part of a build."""
    return [tuple(run.result[name]) for run in runs]


def _stages(runs: list[Run]) -> str:
    """What the whole is made of, in words."""
    names = ("prepare", "cells", "finish", "verify")
    return ", ".join(f"{name} {median(s for s, _ in _stage(runs, name)):.2f} s" for name in names)
