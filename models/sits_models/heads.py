"""What turns an embedding map into logits, and into a finer map."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from sits_models.recipe import HeadKind, Variant

__all__ = ["Magnify", "build_head", "head_reach"]

MAGNIFICATIONS = (1, 2, 4)


class Magnify(nn.Module):
    """An embedding map twice or four times as fine, for labels of 5 m and 2.5 m (CSCL, Tarasiou et al. 2022).

    For each doubling: transposed convolution, batch normalisation, LeakyReLU. A magnification of 1 leaves
    the map as it is.
    """

    def __init__(self, channels: int, magnification: int) -> None:
        super().__init__()
        if magnification not in MAGNIFICATIONS:
            raise ValueError(f"a magnification is 1, 2 or 4; got {magnification}")
        self.magnification = magnification
        self.x2 = _doubling(channels) if magnification >= 2 else nn.Identity()
        self.x4 = _doubling(channels) if magnification == 4 else nn.Identity()

    @property
    def reach(self) -> int:
        """Pixels of the map it takes, on each side, that a pixel of its own depends on."""
        return 0 if self.magnification == 1 else 1

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, mH, mW)."""
        return cast(Tensor, self.x4(self.x2(embedding)))


def build_head(kind: HeadKind, *, channels: int, classes: int, variant: Variant) -> nn.Module:
    """A module from an embedding map (B, channels, H, W) to logits (B, classes, H, W).

    linear: one weight vector a class (UNet3Df). conv3: one 3x3 convolution (UNet2D-CLSTM). double_conv: two 3x3
    convolutions with reflected edges, batch normalisation and ReLU (U-TAE); as published both follow the second
    convolution too, so that no logit is negative, which `fixed` leaves out. none: the embedding is the logits.
    """
    if kind == "linear":
        return nn.Conv2d(channels, classes, kernel_size=1)
    if kind == "conv3":
        return nn.Conv2d(channels, classes, kernel_size=3, padding=1)
    if kind == "double_conv":
        layers = [*_convolution(channels, channels), *_convolution(channels, classes)]
        return nn.Sequential(*(layers if variant == "paper" else layers[:-2]))
    if channels != classes:
        raise ValueError(
            f"without a head the backbone gives one channel a class; it gives {channels} channels for {classes} classes"
        )
    return nn.Identity()


def head_reach(kind: HeadKind) -> int:
    """Pixels on each side that a logit depends on in the map a head takes."""
    return {"linear": 0, "none": 0, "conv3": 1, "double_conv": 2}[kind]


def _doubling(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(channels, channels, kernel_size=3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(inplace=True),
    )


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, padding_mode="reflect")
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
