"""The loop itself: Lightning with what we hand it, on one device or on one of several."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from sits_catalog.console import Narrator
from sits_catalog.cube import CHIP, Split
from sits_models.engine.keeper import CHECKPOINT, Fitted, Keeper
from sits_models.engine.processes import Processes
from sits_models.engine.steps import Steps
from sits_models.engine.strategy import Together, synchronized
from sits_models.objectives.base import Objective
from sits_models.objectives.classification import Classification
from sits_models.objectives.multilabel import MultiLabel
from sits_models.recipe import Recipe, TrainingRecipe
from sits_models.sample import Sample

__all__ = ["Batches", "check_precision", "fit"]


_OF_CHIPS = (Classification, MultiLabel)
"""Objectives with labels of chips, not of pixels."""


class Batches(Protocol):
    """What training draws on, of several processes the part of one; `data.loader.TrainingData` is one."""

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

    def parcels(self, split: Split, *, size: int, pin: bool) -> Iterable[Sample]:
        """Each labelled parcel of a split once, in the middle of a chip of `size` px; asked for where chips as such are
        labelled."""
        ...


def fit(
    objective: Objective,
    batches: Batches,
    recipe: Recipe,
    *,
    folder: Path,
    narrator: Narrator,
    processes: Processes | None = None,
) -> Fitted:
    """Train an objective, or take up the training whose checkpoint lies in `folder`.

    Every draw depends on the seed, the epoch and the batch alone, and the whole state is kept after each epoch: a
    training that was killed at any time and started again ends with the same bits on a CPU (of one kind, with as many
    threads and processes). Writes checkpoints/last.ckpt, metrics.csv and tensorboard/ below `folder`.

    Of several `processes` each calls this with its own part of every batch; they take the steps that one would take
    with whole batches, but for rounding, dropout, and, without GPUs, batch norms, which see a part alone: a single chip
    that clouds leave of a part is left out where they need two. Validation compares views within a part. The folder is
    one that all of them see, and the first one writes there.

    Raises ValueError for a precision or a compilation that this machine cannot do, and RuntimeError where the loss is
    no number, or another process is lost.
    """
    processes = processes or Processes()
    check_precision(recipe.training)
    keeper = Keeper(objective, recipe, folder, narrator, processes)
    module = Steps(objective, recipe, processes)
    last = folder / CHECKPOINT
    last.parent.mkdir(parents=True, exist_ok=True)
    with _quiet(), _exact_float32(), _compiled(objective, recipe.training), synchronized(objective, processes):
        trainer = _trainer(recipe.training, folder, keeper, processes)
        try:
            trainer.fit(
                module,
                train_dataloaders=_Epochs(batches, module, recipe.training.seed),
                val_dataloaders=_validation(batches, objective, recipe),
                ckpt_path=str(last) if last.is_file() else None,
                weights_only=True,
            )
        except SystemExit as error:  # what Lightning makes of Ctrl-C and of SIGTERM
            raise KeyboardInterrupt from error
        except RuntimeError as error:
            if processes.alone or not _lost(error):
                raise
            text = f"another of the {processes.rank.of} processes of this training ended; run the same command to go on"
            raise processes.said(RuntimeError(text)) from error
    return processes.agree(keeper.finish)


def check_precision(training: TrainingRecipe) -> None:
    """Raises ValueError for what this machine cannot do.

    Half precision needs a GPU: on a CPU torch's 3D convolutions give wrong gradients. A compilation needs a compiler,
    and torch translates no part that is to be computed again under a context, as ours are.
    """
    if training.precision == "bf16" and not torch.cuda.is_available():
        raise ValueError(
            "training.precision bf16 needs a GPU, and this machine has none that torch can use; "
            "set training.precision=32"
        )
    if training.compile and training.checkpointing:
        raise ValueError(
            "training.compile and training.checkpointing exclude each other: torch cannot translate what is computed "
            "again; set one of them to false"
        )
    if training.compile and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ValueError(
            "training.compile needs a C++ compiler, and this machine has none on its PATH; install g++, or set "
            "training.compile=false"
        )


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
    parcels: bool

    def __iter__(self) -> Iterator[Sample]:
        # As above: Lightning makes an iterator that it leaves, too.
        read = self.batches.parcels if self.parcels else self.batches.evaluation
        yield from read(Split.VALIDATION, size=self.size, pin=torch.cuda.is_available())


def _validation(batches: Batches, objective: Objective, recipe: Recipe) -> _Validation | None:
    if recipe.training.validate_every is None:
        return None
    return _Validation(batches, _validation_size(objective, recipe), parcels=isinstance(objective, _OF_CHIPS))


def _validation_size(objective: Objective, recipe: Recipe) -> int:
    """Side of the windows to validate on: any side does for a backbone that sees a part, and one for the others."""
    if isinstance(objective, _OF_CHIPS) or recipe.label_free:
        return recipe.data.size
    whole = objective.encoder.backbone.tile_size
    return min(recipe.data.size, CHIP) if whole is None else whole


def _trainer(training: TrainingRecipe, folder: Path, keeper: Keeper, processes: Processes) -> Trainer:
    cuda, rank = torch.cuda.is_available(), processes.rank
    among: dict[str, Any] = {"devices": 1, "plugins": [LightningEnvironment()]}  # also inside a job of a cluster
    if not processes.alone:
        among = {
            "strategy": Together(gradient_as_bucket_view=True, broadcast_buffers=False),
            "devices": rank.of // rank.machines,
            "num_nodes": rank.machines,
            "plugins": [TorchElasticEnvironment()],
            "sync_batchnorm": cuda,
        }
    trainer = Trainer(
        accelerator="cuda" if cuda else "cpu",
        precision="bf16-mixed" if training.precision == "bf16" else "32-true",
        max_epochs=training.epochs,
        gradient_clip_val=training.clip_norm,
        check_val_every_n_epoch=min(training.validate_every or 1, training.epochs),  # and see Keeper
        limit_val_batches=0 if training.validate_every is None else None,
        num_sanity_val_steps=0,
        callbacks=[keeper],
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **among,
    )
    if not processes.alone:
        # Lightning asks all processes for a signal before each step, for which a GPU would wait; see Together.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


def _lost(error: RuntimeError) -> bool:
    """Whether it says that another process cannot be reached: NCCL's errors are of a kind, gloo's are known by text."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error) or "closed by peer" in str(error)


@contextmanager
def _compiled(objective: Objective, training: TrainingRecipe) -> Iterator[None]:
    """The backbone is translated by torch.compile, in place: the names of its tensors stay."""
    if not training.compile:
        yield
        return
    backbone = objective.encoder.backbone
    backbone.compile()
    try:
        yield
    finally:
        backbone._compiled_call_impl = None


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
