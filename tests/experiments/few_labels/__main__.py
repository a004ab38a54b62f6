"""`make few-labels`: four pretrainings against random weights where labels are few; parts of docs/results.md."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.experiments.few_labels.page import IMAGES, PAGE, section_of, with_section
from tests.experiments.few_labels.plan import COMPARISONS, ELSEWHERE, HERE, SEEDS, Comparison, Pretraining, pretrainings

from sits_models.tasks.few_labels.rows import append_row, read_rows

_FOLDER = Path(__file__).parent


def main() -> None:
    """Pretrain and compare what is not done yet, and print the tables."""
    options = _parser().parse_args()
    chosen = [one for one in COMPARISONS if options.only is None or one.name in options.only]
    if not options.tables:
        missing = [name for name in (HERE, ELSEWHERE) if not (options.cubes / name / "cube.zarr").is_dir()]
        if missing:
            sys.exit(f"no dataset of {', '.join(missing)} in {options.cubes} yet: `make few-labels` builds it")
        for one in chosen:
            pretrain(list(pretrainings(one)), options.cubes, options.out, jobs=options.jobs)
            _compare(one, options.cubes, options.out, jobs=options.jobs)
    done = [one for one in chosen if (options.out / one.name / "table.csv").is_file()]
    if not done:
        sys.exit(f"nothing is finished in {options.out}; run `make few-labels`")
    for one in done:
        text = section_of(one, options.out)
        print(text)
        if options.write:
            _write(one, text, options.out)


def _write(one: Comparison, text: str, out: Path) -> None:
    PAGE.write_text(with_section(PAGE.read_text("utf-8"), one, text), "utf-8")
    if len(one.shares) > 1:
        shutil.copyfile(out / one.name / "few-label.png", IMAGES / f"few-labels-{one.name}.png")


def pretrain(wanted: Sequence[Pretraining], cubes: Path, out: Path, *, jobs: int) -> None:
    """All of them: `sits-model pretrain` goes on with one that was stopped, does nothing to one that is finished, and
    refuses the folder of one whose recipe, or cubes, were others."""

    def one(pretraining: Pretraining) -> None:
        folder = out / "pretrained" / pretraining.folder
        changes = [part for change in pretraining.changes for part in ("--set", change)]
        recipe, cube = _FOLDER / f"{pretraining.recipe}.yaml", cubes / pretraining.region
        _run("pretrain", "--recipe", recipe, "--cube", cube, *changes, "--out", folder)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, wanted))


def _take_over(one: Comparison, out: Path) -> None:
    """The rows of other comparisons of this recipe: what two of them ask for is run once."""
    rows = out / one.name / "rows.jsonl"
    if rows.is_file():
        return
    rows.parent.mkdir(parents=True, exist_ok=True)
    for other in COMPARISONS:
        if (other.recipe, other.changes) == (one.recipe, one.changes) and other != one:
            for row in read_rows(out / other.name / "rows.jsonl"):
                append_row(rows, row)


def _compare(one: Comparison, cubes: Path, out: Path, *, jobs: int) -> None:
    _take_over(one, out)
    folders = {start.name: out / "pretrained" / start.folder for start in one.starts}
    starts = [part for name, folder in folders.items() for part in ("--start", f"{name}={folder}")]
    changes = [part for change in one.changes for part in ("--set", change)]
    _run(
        *("evaluate", "--few-label", "--recipe", _FOLDER / f"{one.recipe}.yaml", *changes, "--cube", cubes / HERE),
        *starts,
        *("--shares", ",".join(f"{share:g}" for share in one.shares), "--modes", ",".join(one.modes)),
        *("--seeds", str(len(SEEDS)), "--jobs", str(jobs), "--out", out / one.name),
    )


def _run(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "sits_models.cli", *map(str, arguments)]
    print(" ".join(command[3:]), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.few_labels", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/few-labels"), help="folder of the runs (out/few-labels)")
    parser.add_argument("--cubes", type=Path, default=Path("out/few-regions"), help="folder of the datasets")
    parser.add_argument("--only", action="append", choices=[one.name for one in COMPARISONS], help="one comparison")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="runs at a time, one thread each (2)")
    parser.add_argument("--tables", action="store_true", help="print the tables of what is done, run nothing")
    parser.add_argument("--write", action="store_true", help="put tables and pictures into docs/results.md")
    return parser


if __name__ == "__main__":
    main()
