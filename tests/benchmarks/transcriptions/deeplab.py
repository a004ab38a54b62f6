"""DeepLabV3+ on a ResNet written straight from its description, as GLCNet finetunes it (Li et al. 2022).

Entries are named as in the official code, so that `from_reference` of the backbone reads them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PlainDeepLab"]

MOMENTUM = 0.9


def convolution(inputs: int, outputs: int, side: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (side // 2)
    return nn.Conv2d(inputs, outputs, side, stride=stride, padding=padding, dilation=dilation, bias=False)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=MOMENTUM)


class Block(nn.Module):
    """A residual block of two convolutions (18 layers) or three (50)."""

    def __init__(self, inputs: int, planes: int, *, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.three = expansion == 4
        if self.three:
            self.conv1 = convolution(inputs, planes, 1)
            self.conv2 = convolution(planes, planes, 3, stride=stride, dilation=dilation)
            self.conv3 = convolution(planes, 4 * planes, 1)
            self.bn3 = norm(4 * planes)
        else:
            self.conv1 = convolution(inputs, planes, 3, stride=stride, dilation=dilation)
            self.conv2 = convolution(planes, planes, 3, dilation=dilation)
        self.bn1, self.bn2 = norm(planes), norm(planes)
        self.downsample = None
        if stride != 1 or inputs != expansion * planes:
            shortcut = convolution(inputs, expansion * planes, 1, stride=stride)
            self.downsample = nn.Sequential(shortcut, norm(expansion * planes))

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.three:
            out = self.bn3(self.conv3(functional.relu(out)))
        return functional.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Maps of the first and of the last stage, whose convolutions are dilated."""

    def __init__(self, bands: int, blocks: tuple[int, ...], expansion: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(bands, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(64)
        channels = 64
        for stage, (planes, number) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), start=1):
            layers = []
            for place in range(number):
                stride = 2 if place == 0 and stage in (2, 3) else 1
                dilation = 2 if stage == 4 else 1
                layers.append(Block(channels, planes, expansion=expansion, stride=stride, dilation=dilation))
                channels = expansion * planes
            self.add_module(f"layer{stage}", nn.Sequential(*layers))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        out = functional.max_pool2d(functional.relu(self.bn1(self.conv1(image))), 3, stride=2, padding=1)
        fine = self.layer1(out)
        return fine, self.layer4(self.layer3(self.layer2(fine)))


class ASPP(nn.Module):
    """The five branches."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for number, (side, dilation) in enumerate(((1, 1), (3, 6), (3, 12), (3, 18)), start=1):
            branch = nn.Sequential(convolution(channels, 256, side, dilation=dilation), norm(256), nn.ReLU())
            self.add_module(f"_atrous_convolution{number}", branch)
        self._image_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 256, 1, bias=False), norm(256), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        branches = [getattr(self, f"_atrous_convolution{number}")(x) for number in (1, 2, 3, 4)]
        pooled = functional.interpolate(self._image_pool(x), size=x.shape[2:], mode="bilinear", align_corners=True)
        return torch.cat([*branches, pooled], dim=1)


class Encoder(nn.Module):
    """The branches and what joins them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ASPP = ASPP(channels)
        self.conv1 = nn.Conv2d(1280, 256, 1, bias=False)
        self.bn1 = norm(256)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(functional.relu(self.bn1(self.conv1(self.ASPP(x)))))
        return out


class Decoder(nn.Module):
    """Logits at a quarter of the resolution."""

    def __init__(self, fine: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(fine, 48, 1), norm(48)
        self.conv2, self.bn2, self.dropout2 = convolution(304, 256, 3), norm(256), nn.Dropout(0.5)
        self.conv3, self.bn3, self.dropout3 = convolution(256, 256, 3), norm(256), nn.Dropout(0.1)
        self.conv4 = nn.Conv2d(256, classes, 1)

    def forward(self, fine: Tensor, context: Tensor) -> Tensor:
        fine = functional.relu(self.bn1(self.conv1(fine)))
        context = functional.interpolate(context, size=fine.shape[2:], mode="bilinear", align_corners=True)
        out = torch.cat([context, fine], dim=1)
        out = self.dropout2(functional.relu(self.bn2(self.conv2(out))))
        out = self.dropout3(functional.relu(self.bn3(self.conv3(out))))
        logits: Tensor = self.conv4(out)
        return logits


class PlainDeepLab(nn.Module):
    """One date (B, 1, C, H, W) to logits (B, classes, H, W)."""

    def __init__(self, bands: int, *, layers: int, classes: int) -> None:
        super().__init__()
        blocks, expansion = {18: ((2, 2, 2, 2), 1), 50: ((3, 4, 6, 3), 4)}[layers]
        self.backbone = ResNet(bands, blocks, expansion)
        self.encoder = Encoder(512 * expansion)
        self.decoder_ft = Decoder(64 * expansion, classes)

    def forward(self, series: Tensor, valid: Tensor) -> Tensor:  # the one date is there
        image = series[:, 0]
        fine, coarse = self.backbone(image)
        logits = self.decoder_ft(fine, self.encoder(coarse))
        return functional.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=True)
