"""What a process does with its part of a batch: the loss to minimise, and what is watched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, override

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from sits_models.data.draws import Draws
from sits_models.engine.frozen import freeze_encoder
from sits_models.engine.means import Mean, Means
from sits_models.engine.processes import Processes
from sits_models.engine.schedule import derived_seed, learning_rate
from sits_models.metrics import AveragePrecision, confusion_matrix, rank_classes
from sits_models.objectives.base import Loss, Objective
from sits_models.objectives.multilabel import MultiLabel
from sits_models.objectives.supervised import Supervised
from sits_models.recipe import Augmentation, Recipe
from sits_models.sample import Sample

__all__ = ["Steps"]


class Steps(LightningModule):
    """An objective with its optimiser and its draws, in one of the processes that share every batch."""

    def __init__(self, objective: Objective, recipe: Recipe, processes: Processes) -> None:
        """Raises ValueError where a probe leaves nothing to learn."""
        super().__init__()
        self.objective = objective
        self.recipe = recipe
        self.processes = processes
        self.train_means = Means(processes)
        self.validation_means = Means(processes)
        self._matrix: Tensor | None = None
        self._ranked: list[tuple[Tensor, Tensor]] = []
        if recipe.training.probe:
            freeze_encoder(objective)

    @override
    def train(self, mode: bool = True) -> Self:
        # Whoever sets the modes of all modules leaves a probed encoder in evaluation mode.
        super().train(mode)
        if self.recipe.training.probe:
            self.objective.encoder.eval()
        return self

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        training = self.recipe.training
        learnt = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        rate, decay = training.learning_rate, training.weight_decay
        if training.optimizer == "sgd":
            return torch.optim.SGD(learnt, lr=rate, momentum=training.momentum, weight_decay=decay)
        kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
        return kind(learnt, lr=rate, betas=training.betas, weight_decay=decay)

    @override
    def transfer_batch_to_device(self, batch: Sample, device: torch.device, dataloader_idx: int) -> Sample:
        return batch.to(device, non_blocking=True)

    @override
    def on_train_epoch_start(self) -> None:
        self.train_means = Means(self.processes)

    @override
    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        # Nothing is drawn from a state that runs on, so that any batch can be drawn again.
        training, epoch = self.recipe.training, self.current_epoch
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = learning_rate(training, epoch)
        step = (training.seed, epoch, batch_idx)
        generator = torch.Generator().manual_seed(derived_seed("augment", *step))
        alone, rank = self.processes.alone, self.processes.rank
        # Dropout: every process has draws of its own, for it drops in other chips.
        torch.manual_seed(derived_seed("step", *step) if alone else derived_seed("step", *step, rank.number))
        whole = batch.image.shape[0] if alone else self.recipe.data.batch
        draws = Draws(generator, rank.part(whole), whole)
        loss = self.objective.loss(self.objective.views(batch, self.recipe.augmentation, draws))
        self.train_means.add(_reported(loss), weight=batch.image.shape[0])
        return loss.value if alone else self._share(loss)

    def _share(self, loss: Loss) -> Tensor:
        """This process's share in the loss of the whole batch, times the number of processes.

        The gradients, of which DDP takes the mean over the processes, are then those of the mean over all that counts
        in the batch, however unequally it lies in the parts. Where nothing counts anywhere they are 0.
        """
        count = loss.count.detach().to(torch.float64)
        total = self.processes.sum(count)
        share = torch.where(total > 0, count * self.processes.rank.of / total, 0.0)
        return loss.value * share.to(loss.value.dtype)

    @override
    def on_validation_epoch_start(self) -> None:
        self.validation_means, self._matrix, self._ranked = Means(self.processes), None, []
        # Batch norms of processes without a GPU have running statistics of their own parts: those of the first count.
        self.processes.take_buffers(self.objective)

    @override
    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        if isinstance(self.objective, MultiLabel):
            scores, present = self.objective(batch), self.objective.present(batch)
            self._ranked.append((scores.float().cpu(), present.cpu()))
            loss = self.objective.labelled_loss(scores, present)
            self.validation_means.add({"loss": Mean(loss.value, loss.count)}, weight=len(scores))
            return
        if not isinstance(self.objective, Supervised):
            # The same draws in each epoch, so that losses compare; each process draws for its own chips.
            generator = torch.Generator().manual_seed(derived_seed("validation", self.recipe.training.seed, batch_idx))
            draws = Draws.of(generator, chips=batch.image.shape[0])
            seen = self.objective.views(batch, Augmentation(flips=False), draws)
            self.validation_means.add(_reported(self.objective.loss(seen)), weight=batch.image.shape[0])
            return
        logits, target = self.objective(batch), self.objective.target(batch)
        counts = confusion_matrix(target, logits.argmax(dim=1), classes=self.objective.classes)
        self._matrix = counts if self._matrix is None else self._matrix + counts
        loss = self.objective.supervised_loss(logits, target)
        self.validation_means.add({"loss": Mean(loss.value, loss.count)}, weight=counts.sum())

    def matrix(self) -> Tensor | None:
        """(K, K) int64 on the CPU: the confusion of the last validation over all processes, which ask together."""
        if not any(self.processes.gather(self._matrix is not None)):
            return None
        assert isinstance(self.objective, Supervised)
        k = self.objective.classes
        mine = torch.zeros(k, k, dtype=torch.int64) if self._matrix is None else self._matrix.cpu()
        return self.processes.sum(mine)

    def ranking(self) -> AveragePrecision | None:
        """The average precision of the last validation over all processes, which ask together."""
        parts = [part for ranked in self.processes.gather(self._ranked) for part in ranked]
        if not parts:
            return None
        scores, present = (torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True))
        return rank_classes(scores, present)


def _reported(loss: Loss) -> Mapping[str, Mean]:
    monitors = {name: Mean(value, loss.over.get(name, loss.count)) for name, value in loss.monitors.items()}
    return {"loss": Mean(loss.value, loss.count), **monitors}
