"""UNet3D and UNet3Df written straight from their description (Rustowicz et al. 2019; Tarasiou et al. 2022).

Entries are named as in the official code, so that `from_reference` of the backbone reads them. The dropout that the
description has in front of the sum over dates is left out, as its share is nowhere given.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["PlainUNet3D", "PlainUNet3Df"]


def convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv3d(inputs, outputs, 3, padding=1), nn.BatchNorm3d(outputs), nn.LeakyReLU(0.01)]


def block(inputs: int, inner: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*convolution(inputs, inner), *convolution(inner, outputs))


def doubling(inputs: int, outputs: int) -> nn.ConvTranspose3d:
    return nn.ConvTranspose3d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


class PlainUNet3D(nn.Module):
    """Channels (B, T, C, H, W) to logits (B, classes, H, W)."""

    def __init__(self, channels: int, *, dates: int, classes: int, last: tuple[int, int] = (64, 32)) -> None:
        super().__init__()
        self.en3 = block(channels, 64, 64)
        self.pool_3 = nn.MaxPool3d(2)
        self.en4 = block(64, 128, 128)
        self.pool_4 = nn.MaxPool3d(2)
        self.center_in = nn.Sequential(*convolution(128, 256))
        self.center_out = nn.Sequential(*convolution(256, 256), doubling(256, 128))
        self.dc4 = block(256, 128, 128)
        self.trans3 = nn.Sequential(doubling(128, 64), nn.BatchNorm3d(64), nn.LeakyReLU(0.01))
        self.dc3 = block(128, *last)
        self.final = nn.Conv3d(last[1], classes, 3, padding=1)
        self.fn = nn.Linear(dates, 1)

    def forward(self, series: Tensor, valid: Tensor) -> Tensor:  # padding is like any other date
        volume = series.permute(0, 2, 1, 3, 4)  # (B, C, T, H, W)
        en3 = self.en3(volume)
        en4 = self.en4(self.pool_3(en3))
        centre = self.center_out(self.center_in(self.pool_4(en4)))
        dc4 = self.dc4(torch.cat([centre, en4], dim=1))
        dc3 = self.dc3(torch.cat([self.trans3(dc4), en3], dim=1))
        final = self.final(dc3).permute(0, 1, 3, 4, 2)  # (B, K, H, W, T)
        logits: Tensor = self.fn(final).squeeze(-1)
        return logits


class PlainUNet3Df(nn.Module):
    """Channels (B, T, C, H, W) to logits (B, classes, H, W) through an embedding of 128 channels."""

    def __init__(self, channels: int, *, dates: int, classes: int) -> None:
        super().__init__()
        self.backbone = PlainUNet3D(channels, dates=dates, classes=128, last=(128, 128))
        self.linear_out = nn.Linear(128, classes)

    def forward(self, series: Tensor, valid: Tensor) -> Tensor:
        embedding = self.backbone(series, valid)  # (B, 128, H, W)
        logits: Tensor = self.linear_out(embedding.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return logits
