"""A linear probe: an encoder that stays as it is while the head on it learns."""

from __future__ import annotations

from sits_models.objectives.base import Objective

__all__ = ["freeze_encoder"]


def freeze_encoder(objective: Objective) -> None:
    """Take the gradients from an encoder, and put it into evaluation mode: no dropout, and batch norms of running
    statistics that no batch moves.

    Tensors of a backbone that belong to one task (`Backbone.of_task`) are what the head is for such a backbone, and
    learn. Raises ValueError where nothing is left to learn.
    """
    encoder = objective.encoder
    encoder.eval()
    of_task = tuple(f"backbone.{name}" for name in encoder.backbone.of_task)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad = name.startswith(of_task)
    if not any(parameter.requires_grad for parameter in objective.parameters()):
        raise ValueError(
            f"training.probe leaves the encoder as it is, and a {type(encoder.backbone).__name__} has no head besides: "
            "set training.probe=false"
        )
