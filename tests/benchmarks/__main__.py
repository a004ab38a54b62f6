"""`make bench`: speed against the floor and the peers, memory against size; the tables of docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psutil
from tests.benchmarks import build, chips, labels, load, memory, size
from tests.benchmarks.measure import on_cores
from tests.benchmarks.table import Table

BENCHMARKS = ("build", "labels", "memory", "chips", "cscl", "contrast", "backbones")
BY_HAND = ("size", "load")
"""Half an hour each, and only where asked for."""
_WITH_TORCH = ("cscl", "contrast", "backbones")
_LIBRARIES = ("numpy", "rasterio", "zarr", "dask", "odc-stac", "stackstac", "shapely", "exactextract")


def main() -> None:
    """Run what was asked for and print it."""
    options = _parser().parse_args()
    facts = _facts(options.cores, with_torch=any(name in _WITH_TORCH for name in options.only or BENCHMARKS))
    with ExitStack() as stack:
        stack.enter_context(on_cores(options.cores))
        folder = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sits-bench-")))
        tables = _run(folder.resolve(), options)
    if options.json:
        print(json.dumps({"facts": facts, "tables": [table.as_json() for table in tables]}, indent=2))
    elif options.markdown:
        print("\n\n".join([f"{_heading(facts)}.", *(table.as_markdown() for table in tables)]))
    else:
        print("\n\n".join([_heading(facts), *(table.as_text() for table in tables)]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=(*BENCHMARKS, *BY_HAND), help="one benchmark; may be given more than once"
    )
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds of each contestant (3)")
    parser.add_argument("--cores", type=int, default=2, metavar="N", help="cores that everyone may use (2)")
    parser.add_argument(
        "--side", type=int, default=1020, metavar="PX", help="side of the region, a multiple of 12 (1020)"
    )
    parser.add_argument("--dates", type=int, default=24, metavar="N", help="dates of the build (24)")
    parser.add_argument("--cells", type=int, default=100_000, metavar="N", help="cells of the dry run (100 000)")
    parser.add_argument("--minutes", type=float, default=30, metavar="N", help="length of the load (30)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder that keeps the archives for another run")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON")
    output.add_argument("--markdown", action="store_true", help="print Markdown")
    return parser


def _run(folder: Path, options: argparse.Namespace) -> list[Table]:
    chosen, tables = options.only or BENCHMARKS, list[Table]()
    job = {"side": options.side, "dates": options.dates, "threads": options.cores, "say": _say}
    if "build" in chosen:
        tables += build.bench(folder / "build", repeat=options.repeat, **job)
    if "labels" in chosen:
        tables += labels.bench(side=options.side, rounds=5, say=_say)
    if "memory" in chosen:
        tables += memory.bench(
            folder / "memory", side=options.side, times=memory.TIMES, threads=options.cores, say=_say
        )
    if "size" in chosen:
        tables += size.bench(folder / "size", cells=options.cells, say=_say)
    if "load" in chosen:
        tables += load.bench(folder / "load", minutes=options.minutes, say=_say)
    if "chips" in chosen:
        dataset = build.dataset_of(folder / "build", **job)
        tables += chips.bench(dataset, folder, chips=40, say=_say)
    if "cscl" in chosen:
        from tests.benchmarks import cscl  # needs the extra `models`

        tables += cscl.bench(
            sizes=cscl.SIZES, windows=cscl.WINDOWS, rounds=4 * options.repeat, threads=options.cores, say=_say
        )
    if "contrast" in chosen:
        from tests.benchmarks import contrast, queue  # need the extra `models`

        often = {"rounds": 4 * options.repeat, "threads": options.cores}
        tables += contrast.bench(chips=contrast.CHIPS, **often, say=_say)
        tables += queue.bench(lengths=queue.LENGTHS, **often, say=_say)
    if "backbones" in chosen:
        from tests.benchmarks import backbones  # needs the extra `models`

        tables += backbones.bench(
            contests=backbones.CONTESTS, rounds=2 * options.repeat, threads=options.cores, small=False, say=_say
        )
    return tables


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _facts(cores: int, *, with_torch: bool) -> dict[str, str]:
    """What a reader must know to compare numbers: date, class of machine, versions."""
    import rasterio

    versions = {"Python": platform.python_version(), "GDAL": rasterio.__gdal_version__}
    versions |= {name: version(name) for name in (*_LIBRARIES, *(("torch",) if with_torch else ()))}
    memory_gb = round(psutil.virtual_memory().total / 2**30)
    return {
        "date": date.today().isoformat(),
        "machine": f"{cores} of {os.cpu_count()} cores of {_processor()}, {memory_gb} GB, {platform.system()}",
        "load": f"{os.getloadavg()[0]:.1f} before",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def _heading(facts: dict[str, str]) -> str:
    return f"{facts['date']}; {facts['machine']}, load {facts['load']}; {facts['versions']}"


if __name__ == "__main__":
    main()
