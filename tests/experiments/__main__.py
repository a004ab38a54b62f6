"""`make experiment`: CSCL against random initialisation; the tables of docs/results.md."""

from __future__ import annotations

import argparse
import platform
import re
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

from tests.experiments.plan import REGIONS, SEEDS, Budget, Run, runs_of
from tests.experiments.results import tables_of

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
BEGIN, END = "<!-- begin: make experiment -->", "<!-- end: make experiment -->"
_SECONDS_A_STEP, _SECONDS_A_RUN = 0.2, 12.0
"""On two cores that do nothing else: a batch, and the evaluation with what comes around it."""


def main() -> None:
    """Run what is not done yet, and print the tables."""
    options = _parser().parse_args()
    runs = list(
        runs_of(
            options.out,
            cubes=options.cubes,
            budget=Budget(),
            regions=tuple(options.region or REGIONS),
            seeds=tuple(range(options.seeds)),
        )
    )
    _say(plan_of(runs))
    if options.plan:
        return
    _check_cubes(runs)
    from tests.experiments.work import carry_out  # torch, for those who mean it

    for number, run in enumerate(runs, 1):
        if not run.done:
            _say(f"run {number} of {len(runs)}: {run.region}, seed {run.seed}, {run.arm.title}")
            carry_out(run)
    text = markdown_of(runs)
    (options.out / "results.md").write_text(text)
    if options.write:
        PAGE.write_text(with_tables(PAGE.read_text(), text))
    print(text)


def plan_of(runs: Sequence[Run]) -> str:
    """What there is to do, and for about how long."""
    left = [run for run in runs if not run.done]
    minutes = sum(run.steps * _SECONDS_A_STEP + _SECONDS_A_RUN for run in left) / 60
    return (
        f"{len(runs)} runs of {min(run.steps for run in runs)} to {max(run.steps for run in runs)} steps, "
        f"{len(runs) - len(left)} done; the others take about {minutes:.0f} minutes on two cores that do nothing else"
    )


def markdown_of(runs: Sequence[Run]) -> str:
    """The heading and the tables, as they stand on the page."""
    heading = (
        f"{date.today().isoformat()}; {platform.machine()}, Python {platform.python_version()}, "
        f"torch {version('torch')}, sits-cubes {version('sits-cubes')}."
    )
    return "\n\n".join([heading, *(table.as_markdown() for table in tables_of(runs))]) + "\n"


def with_tables(page: str, tables: str) -> str:
    """The page with everything between its two marks replaced."""
    replaced, found = re.subn(
        f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n\n{tables}\n{END}", page, flags=re.DOTALL
    )
    if found != 1:
        raise ValueError(f"the page has the marks {BEGIN} and {END} once; found them {found} times")
    return replaced


def _check_cubes(runs: Sequence[Run]) -> None:
    missing = sorted({run.region for run in runs if not (run.cube / "cube.zarr").is_dir()})
    if missing:
        sys.exit(
            f"no dataset of {', '.join(missing)} yet: `make experiment` builds it, or sits-build --region {missing[0]}"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.experiments", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/experiment"), help="folder of the runs (out/experiment)")
    parser.add_argument("--cubes", type=Path, default=Path("out"), help="folder of the datasets (out)")
    parser.add_argument("--region", action="append", choices=REGIONS, help="one region; may be given more than once")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), metavar="N", help=f"seeds 0 to N - 1 ({len(SEEDS)})")
    parser.add_argument("--plan", action="store_true", help="say what there is to do, and stop")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/results.md")
    return parser


if __name__ == "__main__":
    main()
