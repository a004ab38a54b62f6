"""`make experiment`: CSCL against random initialisation; the tables and the picture of docs/results.md."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.experiments.pages import replaced
from tests.experiments.picture import draw
from tests.experiments.plan import ARMS, REGIONS, SEEDS, Budget, Run, runs_of
from tests.experiments.results import pairs_of, tables_of
from tests.experiments.rows import Row, done_of, read_rows
from tests.experiments.runner import commit_of, run_all

from sits_catalog.cube import Split

_HERE = Path(__file__).parent
PAGE = _HERE.parents[1] / "docs" / "results.md"
PICTURE = PAGE.parent / "images" / "results-claim.png"
BEGIN, END = "<!-- begin: make experiment -->", "<!-- end: make experiment -->"
_SECONDS_A_RUN = 25.0
"""Of one core, before any run has said what it took."""


def main() -> None:
    """Run what is not done yet, and print the tables."""
    options = _parser().parse_args()
    rows = options.out / "rows.jsonl"
    grid = runs_of(budget=Budget(), regions=tuple(options.region or REGIONS), seeds=tuple(range(options.seeds)))
    runs = [run for run in grid if options.arm is None or run.arm in options.arm]
    _say(plan_of(runs, done_of(read_rows(rows), runs), jobs=options.jobs))
    if options.plan:
        return
    if not options.tables:
        _check_cubes(runs, options.cubes)
        run_all(
            runs,
            rows,
            cubes=options.cubes,
            split=Split.TEST,
            jobs=options.jobs,
            commit=options.commit or commit_of(_HERE),
            say=_say,
        )
    done = done_of(read_rows(rows), runs)
    if not pairs_of(done):
        sys.exit(f"no pair of runs is finished in {rows}; run `make experiment`")
    text = markdown_of(runs, done)
    if options.write:
        PAGE.write_text(replaced(PAGE.read_text("utf-8"), text, begin=BEGIN, end=END), "utf-8")
        draw(pairs_of(done), PICTURE)
    print(text)


def plan_of(runs: Sequence[Run], done: Mapping[Run, Row], *, jobs: int) -> str:
    """What there is to do, and for about how long."""
    seconds = statistics.mean(row["cpu_seconds"] for row in done.values()) if done else _SECONDS_A_RUN
    left = len(runs) - len(done)
    minutes = left * seconds / jobs / 60
    return (
        f"{len(runs)} runs, {len(done)} done; the other {left} take about {minutes:.0f} minutes, "
        f"{jobs} at a time on as many cores that do nothing else"
    )


def markdown_of(runs: Sequence[Run], done: Mapping[Run, Row]) -> str:
    """What it ran with, the picture and the tables, as they stand on the page."""
    ran = sorted(
        {
            f"{row['machine']}, Python {row['python']}, torch {row['torch']}, sits-cubes {row['sits-cubes']} "
            f"({row['commit']}), {row['threads']} thread a run"
            for row in done.values()
        }
    )
    heading = f"{len(done)} of {len(runs)} runs. {'; '.join(ran)}."
    picture = (
        "![Simulated data: difference of mIoU between CSCL and random initialisation, by backbone, for all pixels, "
        f"boundaries and interiors, at 10 m and at 5 m](images/{PICTURE.name})"
    )
    legend = (
        "A point is a pair: one region, one seed. A diamond is the mean of the nine pairs, its bar their standard "
        "deviation. Above 0 CSCL is better."
    )
    return "\n\n".join([heading, picture, legend, *(table.as_markdown() for table in tables_of(done))]) + "\n"


def _check_cubes(runs: Sequence[Run], cubes: Path) -> None:
    missing = sorted({run.region for run in runs if not (cubes / run.region / "cube.zarr").is_dir()})
    if missing:
        sys.exit(f"no dataset of {', '.join(missing)} in {cubes} yet: `make experiment` builds it")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.experiments", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/experiment"), help="folder of the rows (out/experiment)")
    parser.add_argument("--cubes", type=Path, default=Path("out/experiment-regions"), help="folder of the datasets")
    parser.add_argument("--region", action="append", choices=REGIONS, help="one region; may be given more than once")
    parser.add_argument("--arm", action="append", choices=[arm.name for arm in ARMS], help="one arm; likewise")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), metavar="N", help=f"seeds 0 to N - 1 ({len(SEEDS)})")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="runs at a time, one thread each (2)")
    parser.add_argument("--commit", help="what the rows say of the code; without it, what git says")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--plan", action="store_true", help="say what there is to do, and stop")
    only.add_argument("--tables", action="store_true", help="print the tables of what is done, run nothing")
    parser.add_argument("--write", action="store_true", help="put tables and picture into docs/results.md")
    return parser


if __name__ == "__main__":
    main()
