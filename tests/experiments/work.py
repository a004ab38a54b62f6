"""One run: pretraining where the arm has it, finetuning, evaluation on the test split."""

from __future__ import annotations

from tests.experiments.plan import Run

from sits_catalog.console import Narrator
from sits_models.tasks.evaluate import evaluate
from sits_models.tasks.finetune import finetune
from sits_models.tasks.pretrain import pretrain


def carry_out(run: Run) -> None:
    """Do what is left of a run; each stage goes on where it was stopped."""
    pretraining, weights = run.pretraining(), None
    with Narrator() as narrator:
        if pretraining is not None:
            weights = str(run.folder / "pretrain")
            pretrain(pretraining, cubes=None, out=weights, narrator=narrator)
        tuned = str(run.folder / "finetune")
        finetune(run.finetuning(), cubes=None, weights=weights, out=tuned, narrator=narrator)
        evaluate(tuned, cubes=None, out=str(run.metrics.parent), split="test", narrator=narrator)
