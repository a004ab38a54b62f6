"""What the rows of the few-label protocol say: means over seeds, and differences to random weights pair by pair."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sits_models.tasks.few_labels.plan import RANDOM, Mode, Run, notes_of
from sits_models.tasks.few_labels.rows import Row
from sits_models.tasks.few_labels.work import SCORES, UNITS

__all__ = ["Cell", "cells_of", "table_csv", "table_md"]

_TITLES = {"miou": "mIoU", "overall_accuracy": "overall accuracy", "kappa": "Kappa", "macro_f1": "macro F1"}
_COLUMNS = ("start", "mode", "share", "unit", "score", "seeds", "mean", "sd", "pairs", "difference", "difference_sd")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One score of one start with one share of the labels, over the seeds."""

    start: str
    mode: Mode
    share: float
    unit: str
    score: str
    values: tuple[float, ...]
    """In [0, 1] (Kappa: at most 1), one a seed for which it is defined."""
    differences: tuple[float, ...]
    """To random weights with the same labels, draws and mode, one a seed; empty for random weights themselves."""

    @property
    def better(self) -> int:
        """Pairs in which the start is better than random weights."""
        return sum(difference > 0 for difference in self.differences)


def cells_of(done: Mapping[Run, Row]) -> tuple[Cell, ...]:
    """Those of all scores that the rows have, in the order of the runs."""
    rows = {(run.start.name, run.mode, run.share, run.seed): row for run, row in done.items()}
    kinds = dict.fromkeys((start, mode, share) for start, mode, share, _ in rows)
    return tuple(
        _cell(rows, start, mode, share, unit, score)
        for start, mode, share in kinds
        for unit, score in _measured(tuple(done.values()))
    )


def _measured(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for unit in UNITS:
        for score in SCORES:
            if any(f"{unit}_{score}" in row for row in rows):
                yield unit, score


def _cell(
    rows: Mapping[tuple[str, Mode, float, int], Row], start: str, mode: Mode, share: float, unit: str, score: str
) -> Cell:
    def value(name: str, seed: int) -> float | None:
        found = rows.get((name, mode, share, seed), {}).get(f"{unit}_{score}")
        return None if found is None else float(found)

    seeds = [seed for name, *kind, seed in rows if (name, *kind) == (start, mode, share)]
    values = [(value(start, seed), value(RANDOM.name, seed)) for seed in seeds]
    pairs = [(ours, theirs) for ours, theirs in values if ours is not None and theirs is not None]
    return Cell(
        start=start,
        mode=mode,
        share=share,
        unit=unit,
        score=score,
        values=tuple(ours for ours, _ in values if ours is not None),
        differences=() if start == RANDOM.name else tuple(ours - theirs for ours, theirs in pairs),
    )


def table_csv(cells: Sequence[Cell]) -> str:
    """A row a cell; scores in [0, 1], empty where a mean or a deviation is of too few."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*_COLUMNS, "better"])
    for cell in cells:
        mean, sd = _statistics(cell.values)
        difference, spread = _statistics(cell.differences)
        kind = (cell.start, cell.mode, f"{cell.share:g}", cell.unit, cell.score)
        pairs = len(cell.differences)
        rows.writerow([*kind, len(cell.values), mean, sd, pairs, difference, spread, cell.better if pairs else ""])
    return text.getvalue()


def _statistics(values: Sequence[float]) -> tuple[str, str]:
    mean = f"{statistics.mean(values):.6f}" if values else ""
    return mean, f"{statistics.stdev(values):.6f}" if len(values) > 1 else ""


def table_md(runs: Sequence[Run], done: Mapping[Run, Row]) -> str:
    """The tables for people: what the starts are, and for each mode the scores and the differences."""
    cells = cells_of(done)
    parts = [_heading(runs, done), _starts(runs)]
    for mode, unit in dict.fromkeys((cell.mode, cell.unit) for cell in cells):
        here = [cell for cell in cells if (cell.mode, cell.unit) == (mode, unit)]
        title = "fine-tuned" if mode == "finetune" else "probe: the encoder stays as it is, the head alone learns"
        parts += [f"## {_simulated(done)}{title}, {unit}", _scores(here, done), _differences(here)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _simulated(done: Mapping[Run, Row]) -> str:
    return "Simulated data, " if any(row["simulated"] for row in done.values()) else ""


def _heading(runs: Sequence[Run], done: Mapping[Run, Row]) -> str:
    protocol, row = runs[0].protocol, next(iter(done.values()))
    simulated = " Simulated data: these figures say nothing about any real place." if _simulated(done) else ""
    trained, evaluated = (", ".join(row[key]) for key in ("trained_on", "evaluated_on"))
    return (
        f"# Few labels: {protocol.recipe.name}\n\n{len(done)} of {len(runs)} runs. Learnt from a share of the labels "
        f"of {trained} by {protocol.by}, evaluated on the {protocol.split} split of {evaluated}: per cent, mean ± "
        f"standard deviation over the seeds. Of a seed all starts see the same labels and draws.{simulated}"
    )


def _starts(runs: Sequence[Run]) -> str:
    rows = []
    for name in dict.fromkeys(run.start.name for run in runs):
        mine = [run for run in runs if run.start.name == name]
        regions = dict.fromkeys(region for run in mine for region in run.start.regions)
        rows.append((name, _title(mine), ", ".join(regions) or "-"))
    return "\n\n".join([_table(("start", "what it is", "trained on"), rows), *notes_of(runs)])


def _title(runs: Sequence[Run]) -> str:
    """What a start is; of one whose weights are others for each run, all of them."""
    titles = dict.fromkeys(run.start.title for run in runs)
    if len(titles) > 1 and all(run.labels_agree for run in runs):
        titles = dict.fromkeys(run.start.titled("those of the run" if run.start.reads_labels else None) for run in runs)
    return "; ".join(titles)


def _scores(cells: Sequence[Cell], done: Mapping[Run, Row]) -> str:
    measured = dict.fromkeys(cell.score for cell in cells)
    rows = []
    for start, share in dict.fromkeys((cell.start, cell.share) for cell in cells):
        mine = [cell for cell in cells if (cell.start, cell.share) == (start, share)]
        texts = [_spread([100 * value for value in cell.values]) for cell in mine]
        rows.append((start, f"{100 * share:g} %", _kept(done, share), *texts))
    columns = ("start", "labels", "kept", *(_TITLES[score] for score in measured))
    return _table(columns, rows)


def _kept(done: Mapping[Run, Row], share: float) -> str:
    """Parcels or blocks that are kept, or, where a row does not say, labelled pixels: those of the first seed."""
    row = next(row for run, row in done.items() if run.share == share)
    if row["kept"] is None:
        return f"{sum(row['train_pixels'])} px"
    counts = [entry["kept"] for entry in row["kept"]["classes"]]
    return f"{sum(counts)} parcels" if row["by"] == "parcel" else f"{sum(row['train_pixels'])} px"


def _differences(cells: Sequence[Cell]) -> str:
    measured = dict.fromkeys(cell.score for cell in cells)
    rows = []
    for start, share in dict.fromkeys((cell.start, cell.share) for cell in cells if cell.differences):
        mine = [cell for cell in cells if (cell.start, cell.share) == (start, share)]
        texts = [_signed([100 * value for value in cell.differences]) for cell in mine]
        rows.append((start, f"{100 * share:g} %", *texts))
    if not rows:
        return ""
    columns = ("start", "labels", *(_TITLES[score] for score in measured))
    return f"Minus random weights, percentage points (pairs in which it is better):\n\n{_table(columns, rows)}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _spread(values: Sequence[float]) -> str:
    """
    >>> _spread([50.0, 52.0, 54.0]), _spread([50.0]), _spread([])
    ('52.0 ± 2.0', '50.0', 'undefined')
    """
    if not values:
        return "undefined"
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def _signed(values: Sequence[float]) -> str:
    """
    >>> _signed([-1.0, 2.0, 5.0]), _signed([])
    ('+2.0 ± 3.0 (2 of 3)', '-')
    """
    if not values:
        return "-"
    mean, better = f"{statistics.mean(values):+.1f}", sum(value > 0 for value in values)
    spread = "" if len(values) < 2 else f" ± {statistics.stdev(values):.1f}"
    return f"{mean}{spread} ({better} of {len(values)})"
