"""A long run of builds, trainings and readers side by side: what each process holds, over time.

Build, trainings and reader are processes that live as long as the run; commands are started one after another. The
regions are simulated.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from tests.benchmarks.table import Table, Value

__all__ = ["Holding", "bench", "build_again", "fold", "read_again", "slope"]

_ROOT = Path(__file__).parents[2]
_WARM = 0.25
"""Share of the run that does not count: imports, caches and pools fill."""
_LOOKS = 240
"""Looks at all processes in a run, at most; none is nearer than a second to the next."""
_BANDS = ("B02", "B04", "B08")
_KINDS = ("memory MB", "files", "threads", "sockets")

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What a family of processes holds at one instant; a family is a process with those that it started."""

    second: float
    memory_mb: float
    files: int
    """Open file descriptors, sockets among them."""
    threads: int
    sockets: int

    @property
    def values(self) -> tuple[float, ...]:
        """In the order of the table."""
        return self.memory_mb, self.files, self.threads, self.sockets


def look_at(pid: int, second: float) -> Holding | None:
    """What a process and all below it hold; None where it has ended."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return None
    memory = files = threads = sockets = 0
    for process in family:
        try:
            memory += process.memory_info().rss
            threads += process.num_threads()
            opened = list(_opened(process.pid))
        except (psutil.Error, OSError):
            continue  # it has ended between two lines of this
        files += len(opened)
        sockets += sum(name.startswith("socket:") for name in opened)
    return Holding(second=second, memory_mb=memory / 1e6, files=files, threads=threads, sockets=sockets)


def _opened(pid: int) -> Iterator[str]:
    """What the file descriptors of a process stand for."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            yield str(descriptor.readlink())


def slope(seconds: list[float], values: list[float]) -> float:
    """Growth an hour of the straight line that fits best; 0 for fewer than three points."""
    if len(seconds) < 3:
        return 0.0
    return float(np.polyfit(np.array(seconds) / 3600, values, 1)[0])


def fold(holdings: list[Holding], *, since_s: float) -> list[tuple[float, float, float]]:
    """By kind: the mean of the first and of the last sixth since then, and the slope an hour between."""
    warm = [holding for holding in holdings if holding.second >= since_s]
    few = max(1, len(warm) // 6)
    folded = []
    for kind in range(len(_KINDS)):
        values = [holding.values[kind] for holding in warm]
        before, after = float(np.mean(values[:few])), float(np.mean(values[-few:]))
        folded.append((before, after, slope([holding.second for holding in warm], values)))
    return folded


# The processes


def build_again(folder: str) -> None:
    """Build one simulated region anew, again and again, in this process; prints a line a build."""
    from sits_pipeline.build import build
    from sits_pipeline.config import BuildConfig
    from sits_pipeline.prepare import prepare

    config = BuildConfig(out=f"{folder}/out", workers=1, cell_px=512, memory_gb=2)
    while True:
        (outcome,) = build(prepare(_region(), config, _Silent()), config, _Silent())
        assert outcome.complete
        shutil.rmtree(Path(folder) / "out" / outcome.name)
        print(outcome.cells, flush=True)


class _Silent:
    """Hears nothing."""

    def stage(self, text: str) -> None:
        """Nothing."""

    def progress(self, done: int, total: int) -> None:
        """Nothing."""


def _region() -> Any:
    from sits_catalog.loading import load_region

    demo = load_region("demo")
    return demo.replace(id="load", imagery=replace(demo.imagery, bands=_BANDS, dates=4))


def read_again(cube: str) -> None:
    """Open a cube and read chips of it, again and again, with xarray and with the reader of models; a line a pass."""
    import xarray

    from sits_models.data.cubes import open_cube

    while True:
        with xarray.open_zarr(f"{cube}/cube.zarr", mask_and_scale=False, chunks=None) as found:
            for row in range(0, 256, 64):
                found.reflectance[:, :, row : row + 64, :64].load()
        open_cube(cube)
        print(1, flush=True)


@dataclass
class _Family:
    """A process that is looked at, and started again where it is a command that has ended."""

    name: str
    command: list[str]
    log: Path
    again: bool = False
    runs: int = 0
    process: subprocess.Popen[bytes] | None = None
    holdings: list[Holding] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    """Highest memory of each run."""
    began: float | None = None
    """The second at which it had done what it does for the first time."""

    def keep_running(self) -> None:
        """Start it, or start it again. Raises RuntimeError where it has failed."""
        code = None if self.process is None else self.process.poll()
        if self.process is not None and code is None:
            return
        if self.process is not None and (code or not self.again):
            raise RuntimeError(f"{self.name} ended with code {code}: {self.log.read_text()[-2000:]}")
        self.runs += 1
        self.peaks.append(0.0)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, cwd=_ROOT, env=_environment(), stdout=log, stderr=log, start_new_session=True
            )

    def look(self, second: float) -> None:
        """Note what it holds now."""
        found = None if self.process is None else look_at(self.process.pid, second)
        if found is not None:
            self.holdings.append(found)
            self.peaks[-1] = max(self.peaks[-1], found.memory_mb)
        if self.began is None and self.work > 0:
            self.began = second

    @property
    def work(self) -> int:
        """How often it has done what it does: commands, epochs of a training, lines of what counts itself."""
        if self.again:
            return self.runs
        metrics = self.log.parent / self.name / "metrics.csv"
        if metrics.exists():
            return len(metrics.read_text().splitlines()) - 1
        return sum(line.strip().isdigit() for line in self.log.read_text().splitlines())

    def end(self) -> None:
        """Kill it and all that it started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _environment() -> dict[str, str]:
    paths = os.pathsep.join([str(_ROOT), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def _recipe(path: Path, section: str) -> Path:
    recipe = {
        "name": path.stem,
        "title": f"A load of {section}",
        "data": {"dates": {"pick": "even", "n": 4}, "size": 16, "batch": 8, "chips": 32, "readers": 1},
        "backbone": {"name": "unet3df", "width": 0.0625},
        section: {},
        "training": {"epochs": 1_000_000, "learning_rate": 1e-3, "schedule": "constant"},
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


def _families(folder: Path) -> list[_Family]:
    from tests.synthetic import make_dataset

    from sits_catalog.loading import dump_region

    cube = folder / "tiny"
    make_dataset(cube, height=384, width=512)
    here = "from tests.benchmarks.load import {0}; {0}({1!r})"
    region = folder / "region.yaml"
    region.write_text(yaml.safe_dump({**dump_region(_region()), "id": "command"}))
    models = [sys.executable, "-c", "from sits_models.cli import main; main()"]
    pipeline = [sys.executable, "-c", "from sits_pipeline.cli import build_main; build_main()"]

    def training(verb: str, section: str) -> list[str]:
        recipe = _recipe(folder / f"{verb}.yaml", section)
        return [*models, verb, "--recipe", str(recipe), "--cube", str(cube), "--out", str(folder / verb)]

    out = folder / "command"
    build = [*pipeline, "--region", str(region), "--out", str(out), "--workers", "1", "--memory", "2"]
    commands = {
        "build": [sys.executable, "-c", here.format("build_again", str(folder / "build"))],
        "pretrain": training("pretrain", "contrast"),
        "finetune": training("finetune", "segmentation"),
        "reader": [sys.executable, "-c", here.format("read_again", str(cube))],
    }
    families = [_Family(name, command, folder / f"{name}.log") for name, command in commands.items()]
    return [*families, _Family("sits-build, command after command", build, folder / "command.log", again=True)]


def bench(folder: Path, *, minutes: float, say: Say) -> list[Table]:
    """The table of what each family holds after the warm-up and at the end, and how it grows."""
    folder.mkdir(parents=True, exist_ok=True)
    families = _families(folder)
    whole_s, started = 60 * minutes, time.monotonic()
    step_s = max(1.0, whole_s / _LOOKS)
    with ExitStack() as stack:
        for family in families:
            stack.callback(family.end)
        told = 0.0
        while (second := time.monotonic() - started) < whole_s:
            for family in families:
                if family.again and family.process is not None and family.process.poll() is not None:
                    # The next command has something to do.
                    shutil.rmtree(folder / "command" / "command", ignore_errors=True)
                family.keep_running()
                family.look(second)
            if second - told >= 60:
                told = second
                say(f"{second / 60:.0f} min: " + ", ".join(f"{one.name} {one.runs}" for one in families))
            time.sleep(step_s)
        work = {one.name: one.work for one in families}
    return [_table(families, work, minutes)]


def _table(families: list[_Family], work: Mapping[str, int], minutes: float) -> Table:
    rows: list[tuple[Value, ...]] = []
    for family in families:
        if family.again:
            # Each run begins anew: what one holds at its most is compared.
            peaks = family.peaks[:-1] or family.peaks
            few = max(1, len(peaks) // 3)
            first, last = float(np.mean(peaks[:few])), float(np.mean(peaks[-few:]))
            rows.append((family.name, work[family.name], "memory MB, highest of a run", first, last, None))
            continue
        if family.began is None:
            rows.append((family.name, 0, "too short: it has done nothing yet", None, None, None))
            continue
        since_s = max(60 * minutes * _WARM, family.began)
        for kind, (before, after, growth) in zip(_KINDS, fold(family.holdings, since_s=since_s), strict=True):
            rows.append((family.name, work[family.name], kind, before, after, growth))
    return Table(
        title=f"What processes hold in {minutes:g} minutes side by side",
        columns=("process", "work", "", "before", "after", "growth an hour"),
        rows=tuple(rows),
        notes=(
            "Work: builds, epochs, passes over a cube, or commands. Before and after: means of the first and the last "
            f"sixth once {_WARM:.0%} of the time is over and the first of them is done; growth: the straight line "
            "through all looks between. Files are open file descriptors, sockets among them. The regions are "
            "simulated.",
        ),
    )
