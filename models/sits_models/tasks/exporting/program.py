"""A model as a function of three tensors, as an exported file computes it."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from sits_catalog.cube import BOUNDARY_UNKNOWN
from sits_models.encoder import Encoder
from sits_models.objectives import Change, Classification, MultiLabel, Objective, Segmentation
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["Inputs", "Program", "draw_inputs"]


class Inputs(NamedTuple):
    """What a program takes, by the names that it has in a file."""

    image: Tensor
    """(B, T, C, H, W) float32: reflectance x 10000 as a cube stores it, 0 = not observed."""
    valid: Tensor
    """(B, T) bool: a date of the series; False = padding, whose other values mean nothing."""
    day: Tensor
    """(B, T) int64: days since 1970-01-01."""


class Program(nn.Module):
    """A finished model, normalization included; of a pretraining its encoder alone."""

    output: Literal["logits", "embedding"]
    """(B, K, mH, mW), or (B, K) of a model of chips, which gives them one class or several; an embedding is
    (B, channels, mH / stride, ...)."""

    def __init__(self, objective: Objective) -> None:
        """Raises ValueError for a model of changes, which shows its backbone two dates one by one."""
        super().__init__()
        if isinstance(objective, Change):
            raise ValueError(  # noqa: TRY004  # wrong weights, not a wrong type
                "a file holds a model of maps, of classes of chips or of embeddings, and these weights tell changes "
                "between two dates: give others, such as those of a segmentation"
            )
        knows_classes = isinstance(objective, Segmentation | Classification | MultiLabel)
        self.output = "logits" if knows_classes else "embedding"
        self.model: nn.Module = objective if knows_classes else objective.encoder
        # In a tuple, so that its tensors are not listed a second time.
        self._encoder = (objective.encoder,)
        self.eval()

    @property
    def encoder(self) -> Encoder:
        """The model's encoder."""
        return self._encoder[0]

    def forward(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """The output, float32; see `Inputs` and `output`."""
        return cast(Tensor, self.model(self._unlabelled(image, valid, day)))

    def _unlabelled(self, image: Tensor, valid: Tensor, day: Tensor) -> Sample:
        """A sample of which no label is known; what a model does not look at is in no traced program."""
        b, t, _, h, w = image.shape
        m = self.encoder.magnification
        nothing = image.new_full((b, m * h, m * w), IGNORE_INDEX, dtype=torch.int64)
        return Sample(
            image=image,
            valid=valid,
            day=day,
            clear=image.new_ones((b, t, h, w), dtype=torch.bool),
            crop=nothing,
            counted=torch.zeros_like(nothing, dtype=torch.bool),
            parcel=torch.zeros_like(nothing),
            boundary=image.new_full((b, h, w), BOUNDARY_UNKNOWN, dtype=torch.int16),
            place=image.new_zeros((b, 3), dtype=torch.int64),
            bands=self.encoder.bands,
        )


def draw_inputs(*, batch: int, dates: int, bands: int, height: int, width: int, seed: int) -> Inputs:
    """Inputs that have all that a cube may hold: gaps, padding behind and between dates, a chip without any date.

    In padded dates stand values like any other, which must not matter.
    """
    draw = torch.Generator().manual_seed(seed)
    shape = (batch, dates, bands, height, width)
    image = torch.randint(1, 10_000, shape, generator=draw).float()
    seen = torch.rand(batch, dates, 1, height, width, generator=draw) > 0.1
    valid = torch.ones(batch, dates, dtype=torch.bool)
    if dates > 1:
        valid[0, -(-3 * dates // 4) :] = False
        valid[1::3, dates // 2] = False
    valid[2::3] = False
    gaps = torch.randint(1, 15, (batch, dates), generator=draw)
    return Inputs(image * seen, valid, 17_700 + gaps.cumsum(1))
