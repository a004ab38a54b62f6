"""The finished runs of the experiment: a file of JSON lines, as the few-label protocol keeps its own."""

from __future__ import annotations

from collections.abc import Sequence

from tests.experiments.plan import Run

from sits_models.tasks.few_labels.rows import Row, append_row, read_rows, rows_by_key

__all__ = ["Row", "append_row", "done_of", "read_rows"]


def done_of(rows: Sequence[Row], runs: Sequence[Run]) -> dict[Run, Row]:
    """The rows of these runs, in the order of the runs."""
    by_key = rows_by_key(rows)
    return {run: by_key[run.key] for run in runs if run.key in by_key}
