"""The windows in which a model sees what it is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass

from sits_catalog.cube import CHIP
from sits_models.objectives.change import Change
from sits_models.objectives.segmentation import Segmentation
from sits_models.recipe import DataRecipe

__all__ = ["Windows", "plan_windows"]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """The windows of an evaluation."""

    size: int | None
    """For a model of whole chips, the side at which it is applied."""
    halo: int
    """For any other, the pixels around a grid chip that its logits depend on."""
    batch: int

    @property
    def side(self) -> int:
        """Of what the model sees, pixels."""
        return self.size or CHIP + 2 * self.halo


def plan_windows(objective: Segmentation | Change, recipe: DataRecipe) -> Windows:
    """Windows in which a pixel gets the logits that it has on a map."""
    backbone = objective.encoder.backbone
    halo = 0
    if isinstance(objective, Segmentation) and backbone.tile_size is None and objective.reach is not None:
        multiple = backbone.needs.size_multiple
        halo = -(-objective.reach // multiple) * multiple
    windows = Windows(size=backbone.tile_size, halo=halo, batch=1)
    # As many pixels at a time as in training.
    batch = max(1, recipe.batch * recipe.size**2 // windows.side**2)
    return Windows(size=windows.size, halo=windows.halo, batch=batch)
