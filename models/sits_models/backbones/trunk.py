"""The ResNet that the backbones of single dates share, with torchvision's blocks and names.

K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016; as in torchvision, the 3x3
convolution of a bottleneck has the stride.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones.base import Backbone, Needs, TimeChannel, checkpointed, scaled, with_time_channels

__all__ = ["Depth", "SingleDate", "build_trunk", "check_statistics", "run_trunk", "trunk_channels"]

Depth = Literal[18, 50]
"""Layers with weights, by which a ResNet is known."""
_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
_PLANES = (64, 128, 256, 512)
_EXPANSION = {18: 1, 50: 4}
"""Channels a stage gives, per plane: basic blocks have two convolutions, bottlenecks three."""


class SingleDate(Backbone):
    """A backbone that sees one image, not a series."""

    ignores_order = True

    def __init__(self, dates: int, time_channels: tuple[TimeChannel, ...] | None) -> None:
        """Raises ValueError for any other number of dates than 1."""
        super().__init__()
        self._check_single(dates)
        self.time_channels = () if time_channels is None else time_channels
        self.needs = Needs(dates=1, size_multiple=1)

    def check(self, image: Tensor) -> None:
        """Raises ValueError where the image has a shape the backbone cannot take."""
        self._check_single(image.shape[1])
        super().check(image)

    def frame(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """The one image (B, C, H, W) of the bands and the time channels, 0 where it is padding."""
        frame = with_time_channels(image, valid, day, self.time_channels)[:, 0]
        # As fast either way on a CPU.
        return frame.contiguous(memory_format=torch.channels_last) if frame.is_cuda else frame.contiguous()

    def _check_single(self, dates: int) -> None:
        if dates != 1:
            raise ValueError(
                f"{type(self).__name__} takes single dates; got {dates}: set data.dates={{pick: even, n: 1}}, or "
                "{pick: random, n: 1} for another date of the series each time"
            )


def trunk_channels(depth: Depth, *, width: float) -> tuple[int, int]:
    """Channels of the first and of the last stage.

    >>> trunk_channels(50, width=1.0)
    (256, 2048)
    """
    return scaled(_PLANES[0], width) * _EXPANSION[depth], scaled(_PLANES[-1], width) * _EXPANSION[depth]


def build_trunk(
    depth: Depth,
    inputs: int,
    *,
    width: float,
    outputs: int | None = None,
    dilation: int | None = None,
    momentum: float = 0.1,
) -> dict[str, nn.Module]:
    """The modules of a ResNet by torchvision's names, weights drawn as there: conv1, bn1, layer1 to layer4.

    `outputs` are the channels of the last stage (None: the published number times width), of which a bottleneck needs a
    multiple of 4, else ValueError. `dilation`: of the last stage, which then keeps the resolution of the one before.
    `momentum` is that of the batch norms.
    """
    expansion = _EXPANSION[depth]
    if outputs is not None and (outputs < 1 or outputs % expansion):
        raise ValueError(f"the last layer of a ResNet-{depth} has a multiple of {expansion} channels; got {outputs}")
    planes = [scaled(published, width) for published in _PLANES]
    if outputs is not None:
        planes[-1] = outputs // expansion
    norm = partial(nn.BatchNorm2d, momentum=momentum)
    channels = planes[0]
    parts: dict[str, nn.Module] = {"conv1": nn.Conv2d(inputs, channels, 7, 2, 3, bias=False), "bn1": norm(channels)}
    for number, (plane, blocks) in enumerate(zip(planes, _BLOCKS[depth], strict=True), start=1):
        stride = 1 if number == 1 or (number == 4 and dilation is not None) else 2
        parts[f"layer{number}"] = _stage(depth, channels, plane, blocks, stride, norm)
        channels = plane * expansion
    if dilation is not None:
        _dilate(parts["layer4"], dilation)
    for part in parts.values():
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return parts


def run_trunk(backbone: Backbone, parts: Mapping[str, nn.Module], frame: Tensor) -> tuple[Tensor, Tensor]:
    """The maps of the first and of the last stage of an image (B, C, H, W): one pixel per begun 4, and 32 or 16."""

    def stem(image: Tensor) -> Tensor:
        image = functional.relu(parts["bn1"](parts["conv1"](image)), inplace=True)
        return functional.max_pool2d(image, 3, stride=2, padding=1)

    fine = coarse = checkpointed(backbone, parts["layer1"], checkpointed(backbone, stem, frame))
    for name in ("layer2", "layer3", "layer4"):
        coarse = checkpointed(backbone, parts[name], coarse)
    return fine, coarse


def check_statistics(backbone: Backbone, *, chips: int, pixels: int) -> None:
    """Raises ValueError where a batch norm in training mode would see one pixel: `chips` chips of so many `pixels`."""
    single = chips * pixels == 1 and any(
        isinstance(module, nn.BatchNorm2d) and module.training for module in backbone.modules()
    )
    if single:
        raise ValueError(
            f"a batch norm of {type(backbone).__name__} would take its statistics over 1 value in training: give "
            "data.batch at least 2 chips"
        )


def _stage(
    depth: Depth, inputs: int, planes: int, blocks: int, stride: int, norm: Callable[[int], nn.Module]
) -> nn.Sequential:
    # The import takes a second, which other backbones need not wait for.
    from torchvision.models.resnet import BasicBlock, Bottleneck  # type: ignore[import-untyped]

    block = BasicBlock if depth == 18 else Bottleneck
    outputs = planes * _EXPANSION[depth]
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))
    first = block(inputs, planes, stride, shortcut, norm_layer=norm)
    return nn.Sequential(first, *(block(outputs, planes, norm_layer=norm) for _ in range(1, blocks)))


def _dilate(stage: nn.Module, rate: int) -> None:
    """Set the 3x3 convolutions apart: torchvision's basic block has no such option, and its bottlenecks leave out the
    first of a stage."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (rate, rate)
