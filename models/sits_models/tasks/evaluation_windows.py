"""The windows in which a model sees what it is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sits_catalog.cube import CHIP
from sits_models.backbones.base import check_dates
from sits_models.checkpoints import Card
from sits_models.data.classes import ClassTable
from sits_models.data.cubes import Cube
from sits_models.data.loader import EvaluationData
from sits_models.objectives.base import Objective
from sits_models.objectives.change import Change
from sits_models.objectives.segmentation import Segmentation
from sits_models.recipe import DataRecipe

__all__ = ["Windows", "open_evaluation", "plan_windows"]

_LEAST_ON_CPU = 4
"""Windows of a batch. On a CPU torch's convolutions take two to four times as long, a pixel, for a batch of one."""


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
    least = _LEAST_ON_CPU if objective.encoder.mean.device.type == "cpu" else 1
    # As many pixels at a time as in training.
    return replace(windows, batch=max(least, recipe.batch * recipe.size**2 // windows.side**2))


def open_evaluation(
    cubes: Sequence[Cube], objective: Objective, card: Card, *, batch: int, readers: int
) -> EvaluationData:
    """Cubes as a model was shown those of its training: its bands and classes, on as many dates."""
    backbone, recipe = objective.encoder.backbone, card.recipe.data
    dates = max(check_dates(backbone.needs, recipe.dates, len(cube.facts.days)) for cube in cubes)
    if not backbone.ignores_padding or backbone.needs.dates is not None:
        dates = max(dates, card.dates)  # as in training
    return EvaluationData.open(
        cubes,
        table=ClassTable(classes=card.classes),
        bands=card.bands,
        dates=recipe.dates,
        labels=recipe.labels,
        batch=batch,
        pad_to=dates,
        readers=readers,
        cache_mb=recipe.cache_mb,
    )
