"""From a stored sample to an embedding map: normalisation, backbone, magnification."""

from __future__ import annotations

from collections.abc import Sequence

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
        self.bands = bands
        self.backbone = backbone
        self.magnify = Magnify(backbone.channels, magnification)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None])

    @property
    def channels(self) -> int:
        """C of the embedding map."""
        return self.backbone.channels

    def normalize(self, image: Tensor) -> Tensor:
        """(B, T, C, H, W) as stored, integer or float, to float32 of mean 0 and deviation 1; 0 where nothing was observed."""
        values = image.to(torch.float32)
        return torch.where(values > 0, (values - self.mean) / self.std, 0.0)

    def forward(self, sample: Sample) -> Tensor:
        """The embedding map at the resolution of the labels, (B, channels, mH, mW)."""
        if sample.bands != self.bands:
            raise ValueError(f"this model takes the bands {', '.join(self.bands)}; got {', '.join(sample.bands)}")
        embedded: Tensor = self.backbone(self.normalize(sample.image), sample.valid, sample.day)
        return self.magnify(embedded)  # type: ignore[no-any-return]  # modules are callables that return Any
