"""From a stored sample to an embedding map: normalisation, backbone, magnification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sits_models.backbones.base import Backbone
from sits_models.heads import Magnify
from sits_models.sample import Sample

__all__ = ["Encoder"]


class Encoder(nn.Module):
    """A backbone that takes samples as the cube stores them."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        bands: tuple[str, ...],
        mean: Sequence[float],
        std: Sequence[float],
        magnification: int,
    ) -> None:
        """`mean` and `std` are of stored reflectance (x 10000), a value a band; `magnification` is 1, 2 or 4."""
        super().__init__()
        if not len(mean) == len(std) == len(bands) or min(std) <= 0:
            raise ValueError(
                f"{len(bands)} bands need as many means and deviations above 0; got {list(mean)} and {list(std)}"
            )
        self.bands = bands
        self.backbone = backbone
        self.magnify = Magnify(backbone.channels, magnification)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None])

    @property
    def channels(self) -> int:
        """C of the embedding map."""
        return self.backbone.channels

    @property
    def magnification(self) -> int:
        """Pixels of the embedding map along a side of an input pixel."""
        return self.magnify.magnification

    @property
    def reach(self) -> int | None:
        """Input pixels on each side that a pixel of the embedding map depends on; None: the whole chip."""
        return None if self.backbone.reach is None else self.backbone.reach + self.magnify.reach * self.backbone.stride

    def normalize(self, image: Tensor) -> Tensor:
        """(B, T, C, H, W) as stored, integer or float, to float32 of mean 0, deviation 1, and 0 where not observed."""
        values = image.to(torch.float32)
        return ((values - self.mean) / self.std).masked_fill_(values == 0, 0.0)

    def forward(self, sample: Sample) -> Tensor:
        """The embedding map at the resolution of the labels, (B, channels, mH, mW)."""
        if sample.bands != self.bands:
            raise ValueError(f"this model takes the bands {', '.join(self.bands)}; got {', '.join(sample.bands)}")
        embedded = self.backbone(self.normalize(sample.image), sample.valid, sample.day)
        return cast(Tensor, self.magnify(embedded))
