"""The tables of the experiment: each arm's scores over the seeds, and what pretraining changed, seed by seed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.benchmarks.table import Table
from tests.experiments.plan import Run

Metrics = Mapping[str, Any]
COLUMNS: dict[str, Callable[[Metrics], float]] = {
    "mIoU": lambda found: found["overall"]["scores"]["miou"],
    "boundary mIoU": lambda found: found["boundary"]["scores"]["miou"],
    "interior mIoU": lambda found: found["interior"]["scores"]["miou"],
    "overall accuracy": lambda found: found["overall"]["scores"]["overall_accuracy"],
    "parcels right": lambda found: found["parcels"]["scores"]["overall_accuracy"],
}
COMPARISONS = (
    ("CSCL - random, equal finetuning steps", "cscl", "random"),
    ("CSCL - random, equal steps in all", "cscl", "random-longer"),
)


def tables_of(runs: Sequence[Run]) -> list[Table]:
    """Scores and differences of each region, in per cent; runs that are not done are left out."""
    done = {(run.region, run.seed, run.arm.name): json.loads(run.metrics.read_text()) for run in runs if run.done}
    tables = []
    for region in dict.fromkeys(run.region for run in runs):
        tables += [_scores(region, runs, done), _differences(region, runs, done)]
    return tables


def _scores(region: str, runs: Sequence[Run], done: Mapping[tuple[str, int, str], Metrics]) -> Table:
    rows = []
    for arm in dict.fromkeys(run.arm for run in runs):
        found = [metrics for (where, _, name), metrics in done.items() if (where, name) == (region, arm.name)]
        epoch = next(run.budget.steps_an_epoch for run in runs)
        cells = [_spread([100 * column(metrics) for metrics in found]) for column in COLUMNS.values()]
        rows.append((arm.title, str(arm.pretrain_epochs * epoch), str(arm.finetune_epochs * epoch), *cells))
    note = _note(region, done)
    return Table(
        title=f"{region}: test split, per cent, mean ± standard deviation over the seeds",
        columns=("initialisation", "pretraining steps", "finetuning steps", *COLUMNS),
        rows=tuple(rows),
        notes=(note,) if note else (),
    )


def _differences(region: str, runs: Sequence[Run], done: Mapping[tuple[str, int, str], Metrics]) -> Table:
    seeds = list(dict.fromkeys(run.seed for run in runs))
    rows = []
    for title, one, other in COMPARISONS:
        pairs = [
            (done[region, seed, one], done[region, seed, other])
            for seed in seeds
            if (region, seed, one) in done and (region, seed, other) in done
        ]
        cells = [_paired([100 * (column(a) - column(b)) for a, b in pairs]) for column in COLUMNS.values()]
        rows.append((title, *cells))
    return Table(
        title=f"{region}: differences in percentage points, mean ± standard deviation (each seed)",
        columns=("difference", *COLUMNS),
        rows=tuple(rows),
    )


def _note(region: str, done: Mapping[tuple[str, int, str], Metrics]) -> str:
    """How much was measured, which is the same for all runs of a region."""
    found = next((metrics for (where, _, _), metrics in done.items() if where == region), None)
    if found is None:
        return ""
    pixels, edge, parcels = (found[part]["scores"]["count"] for part in ("overall", "boundary", "parcels"))
    seeds = len({seed for where, seed, _ in done if where == region})
    return (
        f"{seeds} seeds; {_grouped(pixels)} labelled pixels, {100 * edge / pixels:.0f} % of them at a boundary, "
        f"{_grouped(parcels)} parcels, {len(found['classes'])} classes."
    )


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _spread(values: Sequence[float]) -> str:
    """
    >>> _spread([50.0, 52.0, 54.0]), _spread([50.0]), _spread([])
    ('52.0 ± 2.0', '50.0', '-')
    """
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def _paired(values: Sequence[float]) -> str:
    """
    >>> _paired([1.0, 2.0, -0.3])
    '+0.9 ± 1.2 (+1.0, +2.0, -0.3)'
    """
    if not values:
        return "-"
    each = ", ".join(f"{value:+.1f}" for value in values)
    if len(values) == 1:
        return each
    return f"{statistics.fmean(values):+.1f} ± {statistics.stdev(values):.1f} ({each})"
