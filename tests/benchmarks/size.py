"""A dry run of a country: plan, tasks, cluster, journal and finish as they are; pixels are neither read nor written.

Scheduler, worker and client are processes of their own. The client is killed half-way and started again.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
from tests.benchmarks.country import SIDE, make_parcels, make_plan, make_zone
from tests.benchmarks.table import Table, Value

from sits_catalog.cube import CHIP
from sits_catalog.region import Imagery, Place, Region, Season
from sits_pipeline.cell import CellTask
from sits_pipeline.config import BuildConfig
from sits_pipeline.folder import Folder
from sits_pipeline.prepare import Prepared, Zoned
from sits_pipeline.sources.base import SearchResult
from sits_pipeline.steps.statistics import accumulate
from sits_pipeline.store import CUBE
from sits_pipeline.values import JsonObject

__all__ = ["bench", "fake_cell", "make_prepared", "run"]

_ROOT = Path(__file__).parents[2]
_SEASON = Season(start=date(2023, 4, 1), end=date(2023, 6, 9))
"""Seventy days: in a zone as wide as a country, each is a date of the cube, and a place sees a quarter of them."""
_ARRAYS = (
    *("reflectance/c/0/0", "scl/c/0", "quality/c/0", "source_index/c/0", "crop_type/c", "parcel_id/c", "coverage/c"),
    *("boundary_distance/c", "conflict/c", "split/c"),
)
"""Of the overview there are no shards: the report reads it."""
_EMPTY = hashlib.sha256().hexdigest()
_SLOTS = 16
"""Cells under way at once."""
_PARCELS_A_CELL = 4
_FINISHED = 20_000
"""Of more cells the finish step is left out: it takes some 20 ms a cell, and is measured with fewer."""

Say = Callable[[str], None]


# What the worker does instead of reading and writing pixels


def fake_cell(task: CellTask) -> JsonObject:
    """The journal entry of a cell, with counts that are made up and of the size that they have; asked for as ever."""
    if task.check_wanted is not None:
        task.check_wanted()
    window = task.window
    pixels = window.height * window.width
    seen = [len(day.visits) for day in task.days]
    ids = [] if task.parcels is None else task.parcels.parcel_id.tolist()
    return {
        "kind": "cell",
        "cell": [window.row, window.column, window.height, window.width],
        "empty": False,
        "observed": [pixels if count else 0 for count in seen],
        "clear": [pixels // 3 if count else 0 for count in seen],
        "used": [list(range(count)) for count in seen],
        "failures": [],
        "classes": {str(index): pixels // 13 for index in range(13)},
        "parcels": dict.fromkeys(map(str, ids), 120),
        "splits": {"1": pixels},
        "bands": _bands(len(task.bands)),
        "chips": list(_chips(task, len(seen))),
        "chip_pieces": [],
        "shards": {f"{array}/{window.row // SIDE}/{window.column // SIDE}": [0, _EMPTY] for array in _ARRAYS},
        "seconds": 12.345,
    }


def _chips(task: CellTask, n_dates: int) -> Iterator[list[Any]]:
    window = task.window
    counts = {str(index): CHIP * CHIP // 8 for index in range(8)}
    for row in range(window.row, window.row + window.height, CHIP):
        for column in range(window.column, window.column + window.width, CHIP):
            height = min(CHIP, window.row + window.height - row)
            width = min(CHIP, window.column + window.width - column)
            place = [row, column, height, width]
            yield [f"grid-{row}-{column}", "grid", *place, 1, height * width, 3, counts, 9, 30_000, n_dates]


@cache
def _bands(n_bands: int) -> list[JsonObject]:
    dn = np.random.default_rng(0).normal(1500, 600, (1, n_bands, SIDE, SIDE)).clip(1, 20_000).astype(np.uint16)
    return accumulate(dn, np.ones((1, SIDE, SIDE), np.bool_), None)


@dataclass(frozen=True)
class _NoSource:
    """What stands for an archive; nothing is asked of it."""

    name: str = "none"


# The client


def make_prepared(path: str, *, out: str, cells: int) -> dict[str, float]:
    """Write the pickled plan of a country of so many cells, and say what it took; in a process of its own."""
    zone = make_zone(cells, name="country")
    bounds = tuple(float(edge) for edge in zone.extent.bounds)
    imagery = Imagery(source="stac", path="nowhere", max_cloud=100)
    region = Region(id="country", season=_SEASON, place=Place(bbox=bounds), imagery=imagery)
    table = make_parcels(zone, a_cell=_PARCELS_A_CELL)
    started = time.perf_counter()
    plan = make_plan(region, zone, table)
    seconds = time.perf_counter() - started
    zoned = Zoned(plan=plan, table=table, known=zone.area, found=SearchResult(scenes=()))
    prepared = Prepared(
        region=region, out=Folder(out), source=_NoSource(), taxonomy=table.taxonomy, zones=(zoned,), folding=None
    )  # type: ignore[arg-type]  # a source that is never asked
    Path(path).write_bytes(pickle.dumps(prepared))
    scenes = sum(len(acquisition.scenes) for acquisition in plan.acquisitions)
    facts = {"plan_s": seconds, "dates": len(plan.acquisitions), "scenes": scenes, "parcels": len(table)}
    return {**facts, "cells": plan.n_cells}


@dataclass
class _Watcher:
    """Listens to a build and looks at its processes at each tenth of it."""

    pids: dict[str, list[int]]
    journal: Path
    stop: int
    """Kill this process when so many cells are done; 0: never."""
    started: float = field(default_factory=time.perf_counter)
    first: int | None = None
    """Cells that were there when it was taken up."""

    def stage(self, text: str) -> None:
        """A line for the process that waits for this one."""
        self._tell(stage=text)

    def progress(self, done: int, total: int) -> None:
        """Called for each cell."""
        if self.first is None:
            self.first = done
            self._tell(done=done, total=total)
        elif done == self.first + 1:
            self._tell(first_cell=done)
        if done % max(1, total // 10) == 0:
            memory = {name: sum(_rss_mb(pid) for pid in pids) for name, pids in self.pids.items()}
            cpu = {f"{name}_cpu": sum(_cpu_s(pid) for pid in pids) for name, pids in self.pids.items()}
            size = sum(path.stat().st_size for path in self.journal.glob("*.jsonl")) / 1e6
            self._tell(done=done, total=total, journal=size, **memory, **cpu)
        if done == self.stop:
            os.kill(os.getpid(), signal.SIGKILL)

    def _tell(self, **facts: Any) -> None:
        print(json.dumps({"s": time.perf_counter() - self.started, **facts}), flush=True)


def _rss_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / 1e6)


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def run(prepared: str, *, scheduler: str, pids: dict[str, list[int]], stop: int) -> dict[str, Any]:
    """Build, or take up, a planned country with fake cells, and print a line for each stage and each tenth."""
    import sits_pipeline.build as builder

    started = time.perf_counter()
    plan: Prepared = pickle.loads(Path(prepared).read_bytes())  # written by `make_prepared`
    loaded = time.perf_counter() - started
    config = BuildConfig(out=plan.out.location, scheduler=scheduler)
    folder = plan.out.sub(plan.zones[0].plan.zone.name)
    watcher = _Watcher({**pids, "client": [os.getpid()]}, folder.path / "journal", stop)
    with patch.object(builder, "build_cell", fake_cell):
        (outcome,) = builder.build(plan, config, watcher)
    watcher._tell(finished=True)
    return {"complete": outcome.complete, "loaded_s": loaded}


def make_shards(folder: str) -> int:
    """Empty files where the journal says that shards are; how many."""
    from sits_pipeline.journal import CellLines

    n, made = 0, set[Path]()
    for line in CellLines(Folder(folder)):
        for key in json.loads(line)["shards"]:
            path = Path(folder) / CUBE / key
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            path.touch()
            n += 1
    return n


# The processes


@contextmanager
def _cluster(folder: Path) -> Iterator[tuple[str, dict[str, list[int]]]]:
    """A scheduler and a worker with their commands, on this machine alone: address and process ids."""
    address = folder / "scheduler.json"
    address.unlink(missing_ok=True)
    dask = [sys.executable, "-m", "dask"]
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    file = ["--scheduler-file", str(address)]
    commands = {
        "scheduler": [*dask, "scheduler", *local, *file, "--port", "0", "--dashboard-address", "127.0.0.1:0"],
        "worker": [*dask, "worker", *local, *file, "--nthreads", str(_SLOTS), "--no-nanny", "--memory-limit", "0"],
    }
    started: list[subprocess.Popen[bytes]] = []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)]),
        # As in our own clusters.
        "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    }
    try:
        with (folder / "cluster.log").open("ab") as log:
            for command in commands.values():
                started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        yield _address(address, started), {name: [process.pid] for name, process in zip(commands, started, strict=True)}
    finally:
        # The worker first: without a scheduler it waits for one to come back.
        for process in reversed(started):
            process.kill()
            process.wait()


def _address(file: Path, processes: Sequence[subprocess.Popen[bytes]]) -> str:
    """What a scheduler says of itself, when it does."""
    for _ in range(600):
        if any(process.poll() is not None for process in processes):
            raise RuntimeError(f"the cluster did not start; see {file.parent / 'cluster.log'}")
        try:
            return str(json.loads(file.read_text())["address"])
        except (OSError, ValueError):
            time.sleep(0.1)
    raise RuntimeError(f"the scheduler did not start within a minute; see {file.parent / 'cluster.log'}")


def _call(function: str, say: Say, **arguments: Any) -> list[JsonObject]:
    """What a function of this module prints in a process of its own; the last is what it returned and what it took.

    A process that killed itself returns nothing.
    """
    command = [sys.executable, "-m", "tests.benchmarks.measure", f"{__name__}:{function}", json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)])}
    found = []
    with subprocess.Popen(command, cwd=_ROOT, env=environment, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(f"  {line.rstrip()[:300]}")
            found.append(json.loads(line))
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{function} ended with code {process.returncode}")
    return found


def bench(folder: Path, *, cells: int, say: Say) -> list[Table]:
    """The table of memory and speed at each tenth, and that of what comes before and after."""
    folder.mkdir(parents=True, exist_ok=True)
    prepared, out = str(folder / "prepared.pickle"), folder / "out"
    say(f"planning a made-up country of {cells} cells")
    planned = _call("make_prepared", say, path=prepared, out=str(out), cells=cells)[-1]["result"]
    n_cells = int(planned["cells"])
    with _cluster(folder) as (address, pids):
        say("building the first half")
        arguments = {"prepared": prepared, "scheduler": address, "pids": pids}
        first = _call("run", say, **arguments, stop=n_cells // 2)
        say("writing empty files in place of its shards")
        n_shards = _call("make_shards", say, folder=str(out / "country"))[-1]["result"]
        say("taking it up")
        second = _call("run", say, **arguments, stop=n_cells if n_cells > _FINISHED else 0)
    return [_growth(first, second), _ends(planned, n_shards, first, second)]


def _growth(first: Sequence[JsonObject], second: Sequence[JsonObject]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for part in (first, second):
        looks = [look for look in part if "journal" in look]
        start = next(look for look in part if look.get("done") is not None)
        for before, look in pairwise([start, *looks]):
            if look["done"] == before["done"]:
                continue
            speed = (look["done"] - before["done"]) / (look["s"] - before["s"])
            memory = (look[name] for name in ("scheduler", "client", "worker"))
            rows.append((look["done"], speed, *memory, look["journal"]))
    return Table(
        title="A dry run, by cells that are done",
        columns=("cells", "cells/s", "scheduler MB", "client MB", "worker MB", "journal MB"),
        rows=tuple(rows),
        notes=(
            f"Cells of {SIDE} px; scheduler, client and one worker with {_SLOTS} threads are processes of their own. "
            "MB of a process are resident memory. The client was killed half-way and started again.",
        ),
    )


def _ends(planned: JsonObject, n_shards: int, first: Sequence[JsonObject], second: Sequence[JsonObject]) -> Table:
    resumed = next(look["s"] for look in second if "first_cell" in look)
    cpu = _cpu_a_cell(first)
    rows: list[tuple[Value, ...]] = [
        (
            f"plan: {planned['scenes']} scenes, {planned['dates']} dates, {planned['parcels']} parcels, s",
            planned["plan_s"],
        ),
        (f"taken up to its first new cell, {n_shards} shards there, s", resumed),
        *((f"processor time a cell, {name}, ms", value) for name, value in cpu.items()),
        *_finish(second),
    ]
    return Table(title="Before and after", columns=("", "figure"), rows=tuple(rows))


def _finish(looks: Sequence[JsonObject]) -> Iterator[tuple[Value, ...]]:
    """What the finish step took, where there was one."""
    if (finished := next((look["s"] for look in looks if look.get("finished")), None)) is not None:
        finishing = next(look["s"] for look in looks if str(look.get("stage", "")).startswith("finishing"))
        yield "finish step, s", finished - finishing
        yield "client, highest with the finish step, MB", looks[-1]["peak_mb"]


def _cpu_a_cell(looks: Sequence[JsonObject]) -> dict[str, float]:
    seen = [look for look in looks if "journal" in look]
    start, end = seen[0], seen[-1]
    n = max(1, end["done"] - start["done"])
    return {name: 1000 * (end[f"{name}_cpu"] - start[f"{name}_cpu"]) / n for name in ("scheduler", "client", "worker")}
