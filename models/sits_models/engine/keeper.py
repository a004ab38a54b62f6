"""What is kept of a training: the history, the best weights and the checkpoint, and when enough is enough."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, override

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from sits_catalog.console import Narrator
from sits_models.engine.processes import Processes
from sits_models.engine.schedule import learning_rate
from sits_models.engine.steps import Steps
from sits_models.folder import move_whole, partial_of, write_whole
from sits_models.metrics import scores_of
from sits_models.objectives.base import Objective
from sits_models.objectives.change import CHANGED, Change
from sits_models.objectives.multilabel import MultiLabel
from sits_models.objectives.supervised import Supervised
from sits_models.recipe import Recipe

__all__ = ["CHECKPOINT", "METRICS", "Fitted", "Keeper"]

CHECKPOINT, METRICS = "checkpoints/last.ckpt", "metrics.csv"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a training went; the objective holds the weights of the best epoch."""

    epochs: int
    """Finished epochs."""
    best_epoch: int
    """Number of the best, from 1."""
    metrics: Mapping[str, float]
    """Of the best epoch, by the names of metrics.csv."""
    confusion: NDArray[np.int64] | None
    """(K, K) over the validation split in the best epoch, rows = truth; None where nothing was classified."""
    seconds: float
    stopped_early: bool


class Keeper(Callback):
    """Keeps the history and the best weights, alike in all processes; the first one alone writes and speaks."""

    def __init__(
        self,
        objective: Objective,
        recipe: Recipe,
        folder: Path,
        narrator: Narrator,
        processes: Processes,
    ) -> None:
        self.objective = objective
        self.training = recipe.training
        self.folder = folder
        self.narrator = narrator
        self.processes = processes
        self.score, self.sign = _score_of(objective, recipe)
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self.best_tensors: dict[str, Tensor] = {}  # none where no score has chosen any: those of the objective
        self.best_matrix: Tensor | None = None
        self.stopped = False
        self.validation: dict[str, float] = {}
        self.matrix: Tensor | None = None
        self.started = time.monotonic()

    @override
    def state_dict(self) -> dict[str, Any]:
        names = ("history", "best_epoch", "best_tensors", "best_matrix", "stopped")
        return {name: getattr(self, name) for name in names}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.monotonic()
        trainer.should_stop = self.stopped

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        said = f" ({self._in_words(self.history[-1])})" if self.history else ""
        if self.processes.rank.first:
            self.narrator.stage(f"epoch {len(self.history) + 1} of {self.training.epochs}{said}")
        self.validation, self.matrix = {}, None
        # The last epoch is validated, whatever the number of epochs, where any is.
        last = len(self.history) + 1 == self.training.epochs
        trainer.check_val_every_n_epoch = 1 if last else self.training.validate_every or 1

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.processes.rank.first:
            self.narrator.progress(batch_idx + 1, int(trainer.num_training_batches))

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Steps)
        scores: dict[str, float | None] = {}
        self.matrix = pl_module.matrix()
        if self.matrix is not None:
            found = scores_of(self.matrix.numpy())
            scores = {"miou": found.miou, "overall_accuracy": found.overall_accuracy, "macro_f1": found.macro_f1}
            if isinstance(self.objective, Change):
                scores["change_f1"] = found.f1[CHANGED]
        elif isinstance(self.objective, MultiLabel) and (ranking := pl_module.ranking()) is not None:
            scores = {"map": ranking.macro, "micro_ap": ranking.micro}
        named = {f"validation_{name}": value for name, value in scores.items() if value is not None}
        found_all = {**pl_module.validation_means.named("validation"), **named}
        # What is no number was not measured: it is never the best, and JSON has no word for it.
        self.validation = {name: value for name, value in found_all.items() if math.isfinite(value)}

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Steps)
        epoch = len(self.history)
        means = pl_module.train_means.named("train")
        if not all(math.isfinite(value) for value in means.values()):
            text = (
                f"the loss of epoch {epoch + 1} is no number ({means}); lower training.learning_rate or set "
                "training.clip_norm, and begin in another folder"
            )
            raise self.processes.said(RuntimeError(text))
        now = time.monotonic()
        row = {"epoch": epoch, "learning_rate": learning_rate(self.training, epoch), **means, **self.validation}
        self.history.append({**row, "seconds": round(now - self.started, 3)})
        self.started = now
        self.processes.take_buffers(self.objective)
        self._compare()
        self._write(trainer)
        if self.stopped:
            trainer.should_stop = True

    def finish(self) -> Fitted:
        """The outcome; the objective gets the best weights, which it has already where no score chose them."""
        if self.best_tensors:
            self.objective.load_state_dict(self.best_tensors)
        if self.processes.rank.first:
            write_whole(self.folder / METRICS, _csv(self.history))
        best = self.history[self.best_epoch]
        return Fitted(
            epochs=len(self.history),
            best_epoch=self.best_epoch + 1,
            metrics={name: best[name] for name in best if name.startswith(("train_", "validation_"))},
            confusion=None if self.best_matrix is None else self.best_matrix.numpy(),
            seconds=round(sum(row["seconds"] for row in self.history), 3),
            stopped_early=self.stopped,
        )

    def _compare(self) -> None:
        """Keep the weights if the epoch is the best so far; where nothing is validated the latest is.

        Patience is judged where there is a score, and counts scores: an epoch without one is no sign of anything.
        """
        epoch = len(self.history) - 1
        scores = [None if self.score is None else row.get(self.score) for row in self.history]
        score, best = scores[epoch], scores[self.best_epoch]
        if best is None or not self.best_tensors or (score is not None and self.sign * (score - best) > 0):
            self.best_epoch = epoch
            self.best_matrix = self.matrix
            # Without a score the next epoch is the better one: the latest weights are kept, which the objective holds.
            state = {} if score is None else self.objective.state_dict()
            self.best_tensors = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        patience = self.training.patience
        waited = sum(found is not None for found in scores[self.best_epoch + 1 :])
        self.stopped = patience is not None and score is not None and waited >= patience

    def _write(self, trainer: Trainer) -> None:
        last = self.folder / CHECKPOINT
        trainer.save_checkpoint(partial_of(last))  # in which all processes take part
        if not self.processes.rank.first:
            return
        move_whole(partial_of(last), last)
        write_whole(self.folder / METRICS, _csv(self.history))
        for logger in trainer.loggers:
            logger.log_metrics(self.history[-1], step=len(self.history) - 1)
            logger.save()

    def _in_words(self, row: Mapping[str, float]) -> str:
        scores = {"validation_miou": "mIoU", "validation_map": "mAP"}
        names = {"train_loss": "loss", "validation_loss": "validation loss", **scores}
        return ", ".join(f"{word} {row[name]:.3f}" for name, word in names.items() if name in row)


def _score_of(objective: Objective, recipe: Recipe) -> tuple[str | None, int]:
    """What the best epoch is told by, None for the latest, and whether it goes up (1) or, as a loss, down (-1).

    Without labels it is the latest: telling views apart is the easier the less a network knows of them, most of all
    while a queue holds random vectors.
    """
    if recipe.label_free:
        return None, 1
    if isinstance(objective, Supervised):
        return "validation_miou", 1
    return ("validation_map", 1) if isinstance(objective, MultiLabel) else ("validation_loss", -1)


def _csv(rows: list[dict[str, float]]) -> bytes:
    """All rows with the columns of all of them; what an epoch lacks is empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()
