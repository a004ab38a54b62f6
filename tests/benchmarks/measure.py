"""Runs one function in a fresh Python process and says how long it took and how much memory it held.

As a module (`python -m tests.benchmarks.measure package.module:function ARGUMENTS`) it is that process.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

__all__ = ["Run", "Watch", "grown_mb", "interleaved", "on_cores", "run_fresh"]

_ROOT = Path(__file__).parents[2]
_INTERVAL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Highest resident memory seen in a tree of processes, MB, sampled 20 times a second."""

    first: float
    """The process itself: it plans, feeds the scheduler and finishes."""
    largest_child: float
    """The largest of its workers."""
    tree: float
    """All of them at one instant; what they share counts in each."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a function returned and what it cost."""

    result: Any
    seconds: float
    """The call alone: Python was running and the function's module imported."""
    cpu_s: float
    """Of all threads during the call; a busy machine hardly changes it."""
    process_s: float
    """The whole process, from its start to its end."""
    peak_mb: float
    """Highest resident memory of the process itself."""
    watch: Watch | None


def run_fresh(function: str, *, watch: bool = False, **arguments: Any) -> Run:
    """Call `package.module:function` with JSON-able arguments in a process of its own.

    Raises RuntimeError with the end of what the process said where it fails.
    """
    command = [sys.executable, "-m", "tests.benchmarks.measure", function, json.dumps(arguments)]
    # Side files are looked for by nobody: the same for all contestants.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    }
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=_ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        watcher = _Watcher(process.pid) if watch else None
        while True:
            try:
                out, said = process.communicate(timeout=_INTERVAL_S if watcher else None)
                break
            except subprocess.TimeoutExpired:
                assert watcher is not None
                watcher.look()
    process_s = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{function} failed: {said.strip()[-2000:]}")
    report = json.loads(out.splitlines()[-1])
    return Run(
        result=report["result"],
        seconds=report["seconds"],
        cpu_s=report["cpu_s"],
        process_s=process_s,
        peak_mb=report["peak_mb"],
        watch=None if watcher is None else watcher.seen(),
    )


def interleaved(steps: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, dict[str, float]]:
    """By `ms` and `ratio`: the median milliseconds of each step, in turns after one that does not count, and the median
    of the rounds' ratios to the first of them."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if number:
                seconds[name].append(time.perf_counter() - started)
    first = next(iter(seconds.values()))
    ratios = {name: median(a / b for a, b in zip(took, first, strict=True)) for name, took in seconds.items()}
    return {"ms": {name: 1000 * median(took) for name, took in seconds.items()}, "ratio": ratios}


def grown_mb(step: Callable[[], object]) -> float:
    """MB by which the highest resident memory of this process grows in two steps, but for the matrix library's own."""
    import torch  # benchmarks of pipelines need none

    torch.randn(512, 512) @ torch.randn(512, 512)
    before = _peak_mb()
    step()
    step()
    return _peak_mb() - before


@dataclass
class _Watcher:
    """Looks at a tree of processes from time to time."""

    pid: int
    first: int = 0
    largest_child: int = 0
    tree: int = 0

    def look(self) -> None:
        try:
            root = psutil.Process(self.pid)
            first = root.memory_info().rss
            children = [_memory(child) for child in root.children(recursive=True)]
        except psutil.Error:
            return
        self.first = max(self.first, first)
        self.largest_child = max([self.largest_child, *children])
        self.tree = max(self.tree, first + sum(children))

    def seen(self) -> Watch:
        return Watch(first=self.first / 1e6, largest_child=self.largest_child / 1e6, tree=self.tree / 1e6)


def _memory(process: psutil.Process) -> int:
    """Bytes held by a process that may just have ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Let this process, and those that it starts, use so many cores, where the system can say so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _peak_mb() -> float:
    """Highest resident memory of this process: on Linux of this program alone, not of the one that started it."""
    if platform.system() == "Linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak * 1024 / 1e6


def _main(function: str, arguments: str) -> None:
    module, name = function.split(":")
    call = getattr(importlib.import_module(module), name)
    started, started_cpu = time.perf_counter(), time.process_time()
    result = call(**json.loads(arguments))
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    print(json.dumps({"result": result, "seconds": seconds, "cpu_s": cpu_s, "peak_mb": _peak_mb()}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
