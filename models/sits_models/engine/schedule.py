"""What is known of a step beforehand: its learning rate and its seeds."""

from __future__ import annotations

import hashlib
import math

from sits_models.recipe import TrainingRecipe

__all__ = ["derived_seed", "learning_rate"]


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
    if training.schedule == "milestones":
        return first * float(training.decay ** sum(phase >= epoch for epoch in training.milestones))
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
