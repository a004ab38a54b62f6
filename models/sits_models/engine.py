"""The training loop: Lightning around an objective, stopped at any time and resumed to the same bits."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, override

import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch import Tensor

from sits_catalog.console import Narrator
from sits_catalog.cube import CHIP, Split
from sits_models.data.transforms import augment
from sits_models.folder import move_whole, partial_of, write_whole
from sits_models.metrics import confusion_matrix, scores_of
from sits_models.objectives.base import Objective
from sits_models.objectives.segmentation import Segmentation
from sits_models.recipe import Recipe, TrainingRecipe
from sits_models.sample import Sample

__all__ = ["CHECKPOINT", "METRICS", "Batches", "Fitted", "check_precision", "derived_seed", "fit", "learning_rate"]

CHECKPOINT, METRICS = "checkpoints/last.ckpt", "metrics.csv"


class Batches(Protocol):
    """What training draws on; `data.chips.TrainingData` is one."""

    @property
    def batches_in_epoch(self) -> int:
        """Batches of one epoch."""
        ...

    def epoch(self, number: int, *, seed: int, pin: bool) -> Iterable[Sample]:
        """The batches of an epoch, in page-locked memory for `pin`; the same number and seed give the same ones."""
        ...

    def evaluation(self, split: Split, *, size: int | None, pin: bool) -> Iterable[Sample]:
        """Each pixel of a split once, in windows of `size` px."""
        ...


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


def fit(objective: Objective, batches: Batches, recipe: Recipe, *, folder: Path, narrator: Narrator) -> Fitted:
    """Train an objective, or take up the training whose checkpoint lies in `folder`.

    Every draw depends on the seed, the epoch and the batch alone, and the whole state is kept after each epoch: a
    training that was killed at any time and started again ends with the same bits on a CPU (of one kind, with as many
    threads). Writes checkpoints/last.ckpt, metrics.csv and tensorboard/ below `folder`. Raises ValueError for a
    precision that this machine cannot train in, and RuntimeError where the loss is no number.
    """
    check_precision(recipe.training)
    keeper = _Keeper(objective, recipe.training, folder, narrator)
    module = _Module(objective, recipe)
    last = folder / CHECKPOINT
    last.parent.mkdir(parents=True, exist_ok=True)
    with _quiet(), _exact_float32():
        trainer = _trainer(recipe.training, folder, keeper)
        try:
            trainer.fit(
                module,
                train_dataloaders=_Epochs(batches, module, recipe.training.seed),
                val_dataloaders=_Validation(batches, _validation_size(objective, recipe)),
                ckpt_path=str(last) if last.is_file() else None,
                weights_only=True,
            )
        except SystemExit as error:  # what Lightning makes of Ctrl-C and of SIGTERM
            raise KeyboardInterrupt from error
    return keeper.finish()


def check_precision(training: TrainingRecipe) -> None:
    """Raises ValueError for half precision without a GPU: on a CPU torch's 3D convolutions give wrong gradients."""
    if training.precision == "bf16" and not torch.cuda.is_available():
        raise ValueError(
            "training.precision bf16 needs a GPU, and this machine has none that torch can use; "
            "set training.precision=32"
        )


def learning_rate(training: TrainingRecipe, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0.

    >>> recipe = TrainingRecipe(learning_rate=1.0, decay=0.5, decay_every=2, restart_every=4)
    >>> [learning_rate(recipe, epoch) for epoch in range(6)]
    [1.0, 1.0, 0.5, 0.5, 1.0, 1.0]
    """
    first = training.learning_rate
    if epoch < training.warmup_epochs:
        return first * (epoch + 1) / (training.warmup_epochs + 1)
    length = training.restart_every or training.epochs - training.warmup_epochs
    phase = (epoch - training.warmup_epochs) % length
    if training.schedule == "exponential":
        return first * float(training.decay ** (phase // training.decay_every))
    if training.schedule == "cosine":
        final = training.final_learning_rate
        # An epoch at a rate of 0 would learn nothing: with an end of 0 that epoch is the one after the last.
        share = phase / max(1, length - 1 if final > 0 else length)
        return final + (first - final) * (1 + math.cos(math.pi * share)) / 2
    return first


def derived_seed(*parts: object) -> int:
    """A seed below 2**63 that depends on all parts and on nothing else."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class _Module(LightningModule):
    """An objective with its optimiser and its draws."""

    def __init__(self, objective: Objective, recipe: Recipe) -> None:
        super().__init__()
        self.objective = objective
        self.recipe = recipe
        self.train_means = _Means()
        self.validation_means = _Means()
        self.matrix: Tensor | None = None

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        training = self.recipe.training
        kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
        return kind(self.objective.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)

    @override
    def transfer_batch_to_device(self, batch: Sample, device: torch.device, dataloader_idx: int) -> Sample:
        return batch.to(device, non_blocking=True)

    @override
    def on_train_epoch_start(self) -> None:
        self.train_means = _Means()

    @override
    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        # Nothing is drawn from a state that runs on, so that any batch can be drawn again.
        training, epoch = self.recipe.training, self.current_epoch
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = learning_rate(training, epoch)
        generator = torch.Generator().manual_seed(derived_seed("augment", training.seed, epoch, batch_idx))
        torch.manual_seed(derived_seed("step", training.seed, epoch, batch_idx))  # dropout
        loss = self.objective.loss(augment(batch, self.recipe.augmentation, generator=generator))
        self.train_means.add({"loss": loss.value, **loss.monitors}, weight=batch.image.shape[0])
        return loss.value

    @override
    def on_validation_epoch_start(self) -> None:
        self.validation_means, self.matrix = _Means(), None

    @override
    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        if not isinstance(self.objective, Segmentation):
            loss = self.objective.loss(batch)
            self.validation_means.add({"loss": loss.value, **loss.monitors}, weight=batch.image.shape[0])
            return
        logits = self.objective(batch)
        counts = confusion_matrix(batch.crop, logits.argmax(dim=1), classes=self.objective.classes)
        self.matrix = counts if self.matrix is None else self.matrix + counts
        self.validation_means.add({"loss": self.objective.loss_of(logits, batch.crop)}, weight=counts.sum())


class _Means:
    """Weighted means of what batches report, on their device until they are asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weight: Tensor | int = 0

    def add(self, values: Mapping[str, Tensor], *, weight: Tensor | int) -> None:
        for name, value in values.items():
            share = value.detach().to(torch.float64) * weight
            self.sums[name] = self.sums[name] + share if name in self.sums else share
        self.weight = self.weight + weight

    def named(self, prefix: str) -> dict[str, float]:
        weight = int(self.weight)
        if weight == 0:
            return {}
        return {f"{prefix}_{name}": float(total) / weight for name, total in self.sums.items()}


class _Keeper(Callback):
    """Keeps the history, the best weights and the checkpoint, and says when enough is enough."""

    def __init__(self, objective: Objective, training: TrainingRecipe, folder: Path, narrator: Narrator) -> None:
        self.objective = objective
        self.training = training
        self.folder = folder
        self.narrator = narrator
        # The direction belongs to the score: a loss goes down, mIoU goes up.
        self.score, self.sign = (
            ("validation_miou", 1) if isinstance(objective, Segmentation) else ("validation_loss", -1)
        )
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self.best_tensors: dict[str, Tensor] = {}
        self.best_matrix: Tensor | None = None
        self.stopped = False
        self.validation: dict[str, float] = {}
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
        self.narrator.stage(f"epoch {len(self.history) + 1} of {self.training.epochs}{said}")
        self.validation = {}
        # The last epoch is validated, whatever the number of epochs.
        last = len(self.history) + 1 == self.training.epochs
        trainer.check_val_every_n_epoch = 1 if last else self.training.validate_every

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.narrator.progress(batch_idx + 1, int(trainer.num_training_batches))

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, _Module)
        scores: dict[str, float | None] = {}
        if pl_module.matrix is not None:
            found = scores_of(pl_module.matrix.cpu().numpy())
            scores = {"miou": found.miou, "overall_accuracy": found.overall_accuracy, "macro_f1": found.macro_f1}
        named = {f"validation_{name}": value for name, value in scores.items() if value is not None}
        found_all = {**pl_module.validation_means.named("validation"), **named}
        # What is no number was not measured: it is never the best, and JSON has no word for it.
        self.validation = {name: value for name, value in found_all.items() if math.isfinite(value)}

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, _Module)
        epoch = len(self.history)
        means = pl_module.train_means.named("train")
        if not all(math.isfinite(value) for value in means.values()):
            raise RuntimeError(
                f"the loss of epoch {epoch + 1} is no number ({means}); lower training.learning_rate or set "
                "training.clip_norm, and begin in another folder"
            )
        now = time.monotonic()
        row = {"epoch": epoch, "learning_rate": learning_rate(self.training, epoch), **means, **self.validation}
        self.history.append({**row, "seconds": round(now - self.started, 3)})
        self.started = now
        self._compare(pl_module)
        self._write(trainer)
        if self.stopped:
            trainer.should_stop = True

    def finish(self) -> Fitted:
        """The outcome; the objective gets the best weights."""
        self.objective.load_state_dict(self.best_tensors)
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

    def _compare(self, module: _Module) -> None:
        """Keep the weights if the epoch is the best so far; where nothing is validated the latest is.

        Patience is judged where there is a score, and counts scores: an epoch without one is no sign of anything.
        """
        epoch = len(self.history) - 1
        score, best = (self.history[number].get(self.score) for number in (epoch, self.best_epoch))
        if best is None or not self.best_tensors or (score is not None and self.sign * (score - best) > 0):
            self.best_epoch = epoch
            self.best_tensors = {name: t.detach().cpu().clone() for name, t in self.objective.state_dict().items()}
            self.best_matrix = None if module.matrix is None else module.matrix.cpu()
        patience = self.training.patience
        waited = sum(self.score in row for row in self.history[self.best_epoch + 1 :])
        self.stopped = patience is not None and score is not None and waited >= patience

    def _write(self, trainer: Trainer) -> None:
        last = self.folder / CHECKPOINT
        trainer.save_checkpoint(partial_of(last))
        move_whole(partial_of(last), last)
        write_whole(self.folder / METRICS, _csv(self.history))
        for logger in trainer.loggers:
            logger.log_metrics(self.history[-1], step=len(self.history) - 1)
            logger.save()

    def _in_words(self, row: Mapping[str, float]) -> str:
        names = {"train_loss": "loss", "validation_loss": "validation loss", "validation_miou": "mIoU"}
        return ", ".join(f"{word} {row[name]:.3f}" for name, word in names.items() if name in row)


@dataclass(frozen=True)
class _Epochs:
    """The loader that Lightning begins anew each epoch."""

    batches: Batches
    module: LightningModule
    seed: int

    def __len__(self) -> int:
        return self.batches.batches_in_epoch

    def __iter__(self) -> Iterator[Sample]:
        # A generator asks for the epoch with the first batch: Lightning makes an iterator before it knows the epoch.
        yield from self.batches.epoch(self.module.current_epoch, seed=self.seed, pin=torch.cuda.is_available())


@dataclass(frozen=True)
class _Validation:
    batches: Batches
    size: int

    def __iter__(self) -> Iterator[Sample]:
        # As above: Lightning makes an iterator that it leaves, too.
        yield from self.batches.evaluation(Split.VALIDATION, size=self.size, pin=torch.cuda.is_available())


def _validation_size(objective: Objective, recipe: Recipe) -> int:
    """Side of the windows to validate on: any side does for a backbone that sees a part, and one for the others."""
    whole = objective.encoder.backbone.tile_size
    return min(recipe.data.size, CHIP) if whole is None else whole


def _trainer(training: TrainingRecipe, folder: Path, keeper: _Keeper) -> Trainer:
    return Trainer(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=1,
        precision="bf16-mixed" if training.precision == "bf16" else "32-true",
        max_epochs=training.epochs,
        gradient_clip_val=training.clip_norm,
        check_val_every_n_epoch=min(training.validate_every, training.epochs),  # and see _Keeper
        num_sanity_val_steps=0,
        callbacks=[keeper],
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        plugins=[LightningEnvironment()],  # one device, also inside a job of a cluster
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Convolutions of float32 as such on a GPU, too, without TF32 whose products have 10 bits; of matrices it is off.

    So the weights that are compared, and the map that is made of them, mean the same on any device. Who needs the
    speed takes training.precision=bf16.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class _quiet(warnings.catch_warnings):  # noqa: N801  # reads as a word
    """Lightning without its advice."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", module="lightning")
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)


def _csv(rows: list[dict[str, float]]) -> bytes:
    """All rows with the columns of all of them; what an epoch lacks is empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()
