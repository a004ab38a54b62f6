"""DeepLabV3+ on single dates, as GLCNet pretrains and finetunes it.

L.-C. Chen et al., "Encoder-decoder with atrous separable convolution for semantic image segmentation", ECCV 2018, in
the form of H. Li et al., "Global and local contrastive self-supervised learning for semantic segmentation of HR remote
sensing images" (GLCNet), IEEE TGRS 2022; code: github.com/GeoX-Lab/G-RSIM, T-SS-GLCNet. A ResNet whose last stage is
dilated keeps 1/16 of the resolution; five branches see it at as many scales; a decoder joins them with the map of the
first stage, at 1/4. The convolutions are plain ones there, not separable. A 1x1 convolution and a resize to pixels,
corners on corners, make the logits: the head and the objective do that.

`paper` has batch norms of momentum 0.9, so that a running statistic is nearly that of the last batch alone. `fixed` has
0.1, PyTorch's. Deliberate differences, in both: weights of the first convolution are drawn like those of all others,
and `deeplab_resnet18` is ours; the original ends with a message that it is not built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones.base import TimeChannel, checkpointed, scaled
from sits_models.backbones.trunk import Depth, SingleDate, build_trunk, check_statistics, run_trunk, trunk_channels
from sits_models.recipe import Variant

__all__ = ["Decoder", "DeepLab", "DeepLabResNet18", "DeepLabResNet50", "Pyramid", "from_reference", "rename"]

PUBLISHED_SIDE = 256
"""Of the crops of GLCNet's finetuning, pixels."""
RATES = (6, 12, 18)
CHANNELS, FINE_CHANNELS = 256, 48
"""Published channels of the branches, of the joined map and of the decoder; and of what it sees of the first stage."""
MOMENTUM: dict[Variant, float] = {"paper": 0.9, "fixed": 0.1}


class DeepLab(SingleDate):
    """DeepLabV3+ on a ResNet of any `depth`.

    The pooled branch sees the whole chip, so it is applied at the side of training.
    """

    stride = 4
    depth: Depth

    def __init__(
        self,
        bands: int,
        *,
        dates: int,
        size: int | None = None,
        width: float = 1.0,
        variant: Variant = "paper",
        time_channels: tuple[TimeChannel, ...] | None = None,
        outputs: int | None = None,
    ) -> None:
        """Raises ValueError for any other number of dates than 1."""
        super().__init__(dates, time_channels)
        self.variant = variant
        self.tile_size = PUBLISHED_SIDE if size is None else size
        self.context_channels = scaled(CHANNELS, width)
        self.channels = self.context_channels if outputs is None else outputs
        momentum = MOMENTUM[variant]
        self.fine_channels, coarse = trunk_channels(self.depth, width=width)
        inputs = bands + len(self.time_channels)
        self.trunk = nn.ModuleDict(build_trunk(self.depth, inputs, width=width, dilation=2, momentum=momentum))
        self.pyramid = Pyramid(coarse, self.context_channels, momentum=momentum)
        self.decoder = Decoder(
            self.fine_channels,
            self.context_channels,
            self.channels,
            narrow=scaled(FINE_CHANNELS, width),
            momentum=momentum,
            dropouts=(0.5, 0.1),
        )
        _draw_weights(self)

    def least_chips(self, size: int) -> int:  # noqa: ARG002  # the pooled branch is one value a chip
        """2, of any side."""
        return 2

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """The map of the decoder, (B, channels, H / 4, W / 4), rounded up."""
        fine, context = self.encode(self.frame(image, valid, day))
        return checkpointed(self, self.decoder, fine, context)

    def encode(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """What any decoder takes, of an image (B, C, H, W): the map of the first stage (B, `fine_channels`, H / 4,
        W / 4), and that of the joined branches (B, `context_channels`, H / 16, W / 16), both rounded up.

        Raises ValueError for a single chip in training, of which the pooled branch has no statistics.
        """
        check_statistics(self, chips=frame.shape[0], pixels=1)
        fine, coarse = run_trunk(self, dict(self.trunk.named_children()), frame)
        branches = [checkpointed(self, branch, coarse) for branch in self.pyramid.branches]
        return fine, cast(Tensor, self.pyramid.join(torch.cat(branches, dim=1)))

    def new_decoder(self) -> Decoder:
        """Another decoder of the two maps, for a pretraining: to `context_channels`, without dropout, drawn anew."""
        decoder = Decoder(
            self.fine_channels,
            self.context_channels,
            self.context_channels,
            narrow=cast(nn.Conv2d, self.decoder.reduce[0]).out_channels,
            momentum=MOMENTUM[self.variant],
            dropouts=(0.0, 0.0),
        )
        _draw_weights(decoder)
        return decoder


class DeepLabResNet18(DeepLab):
    """On a ResNet-18, for small machines; not published."""

    depth = 18


class DeepLabResNet50(DeepLab):
    """On a ResNet-50, as published."""

    depth = 50


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling (ASPP): one map at several scales, joined, (B, C, H, W) to (B, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, *, momentum: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_layer(inputs, outputs, 1, momentum)])
        self.branches.extend(_layer(inputs, outputs, 3, momentum, dilation=rate) for rate in RATES)
        self.branches.append(_Pooled(inputs, outputs, momentum))
        joined = _layer(len(self.branches) * outputs, outputs, 1, momentum)
        self.join = nn.Sequential(*joined, nn.Dropout(0.5))

    def forward(self, coarse: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        return cast(Tensor, self.join(torch.cat([branch(coarse) for branch in self.branches], dim=1)))


class _Pooled(nn.Sequential):
    """The mean of a map, at each of its pixels."""

    def __init__(self, inputs: int, outputs: int, momentum: float) -> None:
        super().__init__(*_layer(inputs, outputs, 1, momentum))

    def forward(self, coarse: Tensor) -> Tensor:
        mean = coarse.mean(dim=(2, 3), keepdim=True)
        for layer in self:
            mean = layer(mean)
        return mean.expand(-1, -1, *coarse.shape[2:])


class Decoder(nn.Module):
    """The joined branches with the borders of the first stage, at its resolution."""

    def __init__(
        self, fine: int, context: int, outputs: int, *, narrow: int, momentum: float, dropouts: tuple[float, float]
    ) -> None:
        """`fine` and `context` are the channels of the two maps, `narrow` what the first is reduced to; `dropouts`
        follow the two last convolutions."""
        super().__init__()
        self.reduce = _layer(fine, narrow, 1, momentum)
        self.join = nn.Sequential(
            *_layer(context + narrow, context, 3, momentum),
            _dropout(dropouts[0]),
            *_layer(context, outputs, 3, momentum),
            _dropout(dropouts[1]),
        )

    def forward(self, fine: Tensor, context: Tensor) -> Tensor:
        """(B, fine, H, W) and (B, context, h, w) to (B, outputs, H, W)."""
        resized = functional.interpolate(context, size=fine.shape[2:], mode="bilinear", align_corners=True)
        return cast(Tensor, self.join(torch.cat([resized, self.reduce(fine)], dim=1)))


def _draw_weights(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)


def _dropout(probability: float) -> nn.Module:
    """One of 0 would still draw a number for every value of its map."""
    return nn.Dropout(probability) if probability else nn.Identity()


def _layer(inputs: int, outputs: int, side: int, momentum: float, *, dilation: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; as many pixels as before."""
    padding = dilation * (side // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs, momentum=momentum),
        nn.ReLU(inplace=True),
    )


REFERENCE_NAMES = (
    (r"backbone\.((?:conv1|bn1|layer[1-4])\..*)", r"encoder.backbone.trunk.\1"),
    (r"encoder\.ASPP\._atrous_convolution1\.(.*)", r"encoder.backbone.pyramid.branches.0.\1"),
    (r"encoder\.ASPP\._atrous_convolution2\.(.*)", r"encoder.backbone.pyramid.branches.1.\1"),
    (r"encoder\.ASPP\._atrous_convolution3\.(.*)", r"encoder.backbone.pyramid.branches.2.\1"),
    (r"encoder\.ASPP\._atrous_convolution4\.(.*)", r"encoder.backbone.pyramid.branches.3.\1"),
    (r"encoder\.ASPP\._image_pool\.1\.(.*)", r"encoder.backbone.pyramid.branches.4.0.\1"),
    (r"encoder\.ASPP\._image_pool\.2\.(.*)", r"encoder.backbone.pyramid.branches.4.1.\1"),
    (r"encoder\.conv1\.(.*)", r"encoder.backbone.pyramid.join.0.\1"),
    (r"encoder\.bn1\.(.*)", r"encoder.backbone.pyramid.join.1.\1"),
    (r"decoder_ft\.conv1\.(.*)", r"encoder.backbone.decoder.reduce.0.\1"),
    (r"decoder_ft\.bn1\.(.*)", r"encoder.backbone.decoder.reduce.1.\1"),
    (r"decoder_ft\.conv2\.(.*)", r"encoder.backbone.decoder.join.0.\1"),
    (r"decoder_ft\.bn2\.(.*)", r"encoder.backbone.decoder.join.1.\1"),
    (r"decoder_ft\.conv3\.(.*)", r"encoder.backbone.decoder.join.4.\1"),
    (r"decoder_ft\.bn3\.(.*)", r"encoder.backbone.decoder.join.5.\1"),
    (r"decoder_ft\.conv4\.(.*)", r"head.\1"),
)


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of GLCNet's network for finetuning (G-RSIM, v3p_encoder_ft) by the names of our objective.

    Raises ValueError for an entry it does not know.
    """
    return {rename(name.removeprefix("module.")): tensor for name, tensor in state.items()}


def rename(name: str) -> str:
    """Our name of an entry of the original.

    >>> rename("decoder_ft.conv4.bias")
    'head.bias'
    """
    for pattern, replacement in REFERENCE_NAMES:
        if found := re.fullmatch(pattern, name):
            return found.expand(replacement)
    raise ValueError(f"GLCNet's network for finetuning has no entry {name!r}; give the state dict of one")
