"""The loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sits_models.recipe.checks import check_above_zero, check_at_least

__all__ = ["TrainingRecipe"]


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """The loop."""

    epochs: int = 50
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    """Of adam and adamw: what the running means of gradients and of their squares keep."""
    momentum: float = 0.9
    """Of sgd."""
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["constant", "exponential", "cosine", "milestones"] = "exponential"
    """exponential: times `decay` every `decay_every` epochs; cosine: to `final_learning_rate` in the last epoch, or,
    where that is 0, in the epoch after it, so that none is trained at a rate of 0; milestones: times `decay` at each
    of these."""
    decay: float = 0.975
    decay_every: int = 1
    milestones: tuple[int, ...] = ()
    """Finished epochs after each of which the rate falls, for the schedule of that name."""
    restart_every: int | None = None
    """Epochs after which the schedule begins anew."""
    warmup_epochs: int = 0
    final_learning_rate: float = 0.0
    probe: bool = False
    """Whether the encoder stays as it is, its batch norms with their running statistics, and the head alone learns: a
    linear probe, where the head is linear."""
    precision: Literal["32", "bf16"] = "32"
    """32: float32, without TF32 on a GPU; bf16: half precision where it is safe, on a GPU alone."""
    compile: bool = False
    """Whether torch.compile translates the model first: minutes at the start, and faster steps on a GPU."""
    checkpointing: bool = False
    """Whether activations are computed again for the gradients instead of kept: less memory for about a third more
    work."""
    clip_norm: float | None = None
    patience: int | None = None
    """Validations without a better score after which training stops, those that gave none not counted; None: never."""
    validate_every: int | None = 1
    """Epochs from one validation to the next, and the last epoch is validated in any case; None: none is, and the
    latest epoch is kept."""
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"epochs": self.epochs, "decay_every": self.decay_every, "validate_every": self.validate_every}
        check_at_least(1, "training", **counts, restart_every=self.restart_every, patience=self.patience)
        if self.validate_every is None and self.patience is not None:
            raise ValueError(
                f"training.patience counts validations, and without training.validate_every there are none; got "
                f"{self.patience}: leave it out, or set training.validate_every=1"
            )
        check_at_least(0, "training", weight_decay=self.weight_decay, warmup_epochs=self.warmup_epochs)
        check_at_least(0, "training", seed=self.seed, final_learning_rate=self.final_learning_rate)
        check_above_zero("training", learning_rate=self.learning_rate, decay=self.decay, clip_norm=self.clip_norm)
        for key, value in (("momentum", self.momentum), ("betas", self.betas[0]), ("betas", self.betas[1])):
            if not 0 <= value < 1:
                raise ValueError(f"training.{key} is at least 0 and below 1; got {value}")
        if (self.schedule == "milestones") != bool(self.milestones):
            raise ValueError(
                f"training.schedule {self.schedule} goes {'with' if self.schedule == 'milestones' else 'without'} "
                "training.milestones"
            )
        if list(self.milestones) != sorted({*self.milestones}) or any(epoch < 1 for epoch in self.milestones):
            raise ValueError(f"training.milestones are numbers of epochs from 1, ascending; got {self.milestones}")
