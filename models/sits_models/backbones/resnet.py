"""ResNet-18 and ResNet-50 on single dates: what SeCo pretrains and torchvision offers weights for.

K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016. The tensors carry
torchvision's names, so that ImageNet weights and those of SeCo and MoCo, which keep them, fit. The published network
has no fault that we know of: `fixed` is the same as `paper`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones.base import TimeChannel, checkpointed
from sits_models.backbones.trunk import Depth, SingleDate, build_trunk, check_statistics, run_trunk, trunk_channels
from sits_models.recipe import Variant

__all__ = ["ResNet", "ResNet18", "ResNet50", "from_reference"]

PUBLISHED_SIDE = 224
"""Of the images of ImageNet, and of the crops of SeCo, pixels."""
_STAGES = ("layer1", "layer2", "layer3", "layer4")


class ResNet(SingleDate):
    """A ResNet without its pooling and its last layer: one embedding per begun 32 x 32 pixels.

    A logit resized from there to pixels depends on how large the chip is, so it is applied at the side of training.
    """

    stride = 32
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
        """Raises ValueError for any other number of dates than 1, and for `outputs` that the last layer cannot have."""
        super().__init__(dates, time_channels)
        self.variant = variant
        self.tile_size = PUBLISHED_SIDE if size is None else size
        self.channels = trunk_channels(self.depth, width=width)[1] if outputs is None else outputs
        # Children of the backbone itself, so that their names are torchvision's.
        inputs = bands + len(self.time_channels)
        for name, part in build_trunk(self.depth, inputs, width=width, outputs=outputs).items():
            self.add_module(name, part)

    def least_chips(self, size: int) -> int:
        """2 where a chip of `size` px has one embedding alone."""
        return 1 if size > self.stride else 2

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """The map of the last stage, (B, channels, H / 32, W / 32), rounded up."""
        frame = self.frame(image, valid, day)
        chips, _, height, width = frame.shape
        check_statistics(self, chips=chips, pixels=-(-height // self.stride) * -(-width // self.stride))
        return run_trunk(self, dict(self.named_children()), frame)[1]

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of the five `levels`."""
        stages = dict(self.named_children())
        # The last convolution of a stage is that of its last block, which has no shortcut of its own.
        last = [
            [module for module in stages[name].modules() if isinstance(module, nn.Conv2d)][-1]
            for name in ("conv1", *_STAGES)
        ]
        return tuple(convolution.out_channels for convolution in last)

    def levels(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Five maps of an image (N, C, H, W), (N, `level_channels`, H / 2, W / 2) to a 32nd, each side rounded up: of
        the first convolution as such, before its batch norm, and of the four stages.

        Raises ValueError where a batch norm in training would see a single value.
        """
        chips, _, height, width = frame.shape
        check_statistics(self, chips=chips, pixels=-(-height // self.stride) * -(-width // self.stride))
        parts = dict(self.named_children())

        def to_first_stage(stem: Tensor) -> Tensor:
            return functional.max_pool2d(functional.relu(parts["bn1"](stem)), 3, stride=2, padding=1)

        stem = cast(Tensor, parts["conv1"](frame))
        found, coarse = [stem], checkpointed(self, to_first_stage, stem)
        for name in _STAGES:
            coarse = checkpointed(self, parts[name], coarse)
            found.append(coarse)
        return tuple(found)


class ResNet18(ResNet):
    """Eighteen layers in basic blocks, 512 channels."""

    depth = 18


class ResNet50(ResNet):
    """Fifty layers in bottlenecks, 2048 channels; `outputs` are a multiple of 4."""

    depth = 50


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in torchvision's layout by the names of our objective, a classification of chips, whose head is `fc`.

    Raises ValueError for an entry that a ResNet of torchvision does not have.
    """
    given = {name.removeprefix("module."): tensor for name, tensor in state.items()}  # of a model on several GPUs
    parts = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.", "fc.")
    unknown = [name for name in given if not name.startswith(parts)]
    if unknown:
        raise ValueError(f"a ResNet of torchvision has other entries: {', '.join(unknown)}")
    # Files older than PyTorch 0.4.1, ImageNet's among them, do not count batches.
    norms = [name.removesuffix("running_mean") for name in given if name.endswith(".running_mean")]
    given = {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms} | given
    return {
        f"head.{name.removeprefix('fc.')}" if name.startswith("fc.") else f"encoder.backbone.{name}": tensor
        for name, tensor in given.items()
    }
