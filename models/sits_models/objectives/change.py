"""Which pixels differ between two dates, seen by the same encoder, as SeCo is finetuned on OSCD.

O. Mañas et al., "Seasonal contrast: unsupervised pre-training from uncurated remote sensing data" (SeCo), ICCV 2021;
code: github.com/ServiceNow/seasonal-contrast, main_oscd.py and models/segmentation.py. Both dates pass through one
ResNet; a decoder with skips sees the absolute differences of five maps of either, so that the dates may change places.

Deliberate differences. A pixel has two logits, unchanged and changed, with the cross entropy, where the published
decoder has one logit with the binary cross entropy: softmax of two is the sigmoid of their difference, so the model is
the same, and the loss, labels to ignore, class weights and scores are those of any map. In training both dates are one
batch to the batch norms of the encoder, where the published code passes the dates one after the other: a date with
statistics of its own has the brightness of its season taken out in training, and not in evaluation, which has one
running mean for both. Maps of odd sides are resized to the side of the skip; the published ones must have sides that 32
divides. Not published: any width, and a ResNet-50.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones.base import Backbone
from sits_models.backbones.resnet import ResNet
from sits_models.encoder import Encoder
from sits_models.losses import cross_entropy
from sits_models.objectives.supervised import Supervised
from sits_models.recipe import ChangeRecipe
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["CHANGED", "DATES", "Change", "Decoder", "check_change"]

DATES = 2
"""That are compared."""
CHANGED = 1
"""Index of the class of pixels that differ; 0: those that do not."""


class Change(Supervised):
    """A ResNet that sees each of two dates, and a decoder of how its maps of them differ."""

    def __init__(
        self, encoder: Encoder, *, classes: int, recipe: ChangeRecipe, class_weights: Sequence[float] | None
    ) -> None:
        """`class_weights` holds a factor a class; None: both alike.

        Raises ValueError for any other number of classes than 2, a backbone without maps of several levels, and an
        encoder of finer labels.
        """
        super().__init__(classes=classes, class_weights=class_weights)
        check_change(type(encoder.backbone), dates=DATES, classes=classes)
        if encoder.magnification != 1:
            raise ValueError(
                f"a change is of pixels of the image; labels {encoder.magnification} times finer are no use to it: set "
                "data.labels=1"
            )
        self.encoder = encoder
        self.decoder = Decoder(cast(ResNet, encoder.backbone).level_channels, classes, dropout=recipe.dropout)

    def forward(self, sample: Sample) -> Tensor:
        """Logits of each pixel, (B, 2, H, W): unchanged, changed. Raises ValueError for chips of other than 2 dates."""
        b, t, _, h, w = sample.image.shape
        if t != DATES:
            raise ValueError(f"a change compares {DATES} dates; the chips hold {t}: {_TWO}")
        if sample.bands != self.encoder.bands:
            raise ValueError(
                f"this model takes the bands {', '.join(self.encoder.bands)}; got {', '.join(sample.bands)}"
            )
        backbone = cast(ResNet, self.encoder.backbone)
        # (B, 2, C, H, W) -> (2B, 1, C, H, W), the dates of a chip beside each other.
        image = self.encoder.normalize(sample.image).flatten(0, 1)[:, None]
        frame = backbone.frame(image, sample.valid.reshape(-1, 1), sample.day.reshape(-1, 1))
        pairs = (level.reshape(b, DATES, *level.shape[1:]) for level in backbone.levels(frame))  # (B, 2, C, h, w)
        logits = self.decoder([(pair[:, 0] - pair[:, 1]).abs() for pair in pairs])
        # A 1x1 convolution and a repetition of pixels may change places: the logits are fewer than the channels.
        return functional.interpolate(logits, size=(h, w), mode="nearest")

    def target(self, sample: Sample) -> Tensor:
        """The class of each pixel, (B, H, W); IGNORE_INDEX where a date of the pair is padding: nothing is compared."""
        return torch.where(sample.valid.all(dim=1)[:, None, None], sample.crop, IGNORE_INDEX)

    def loss_of(self, logits: Tensor, target: Tensor) -> Tensor:
        """The cross entropy of logits (B, 2, H, W) for the classes `target` (B, H, W), a scalar."""
        return cross_entropy(logits, target, weights=self.class_weights)


class Decoder(nn.Module):
    """From maps of several levels, the finest first, to logits at the resolution of the finest.

    At each level, from the coarsest up: the pixels of what there is are repeated to the side of the next finer map, a
    3x3 convolution brings them to its channels, and another joins both, with batch norm, ReLU and dropout of channels.
    """

    def __init__(self, channels: Sequence[int], classes: int, *, dropout: float) -> None:
        super().__init__()
        pairs = list(pairwise(channels))
        self.shrink = nn.ModuleList(nn.Conv2d(coarse, fine, 3, padding=1) for fine, coarse in pairs)
        self.join = nn.ModuleList(_joined(fine, dropout) for fine, _ in pairs)
        self.last = nn.Conv2d(channels[0], classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(B, channels, h, w) of each level to (B, classes, h, w) of the first."""
        found = levels[-1]
        steps = zip(levels[:-1], self.shrink, self.join, strict=True)
        for skip, shrink, join in reversed(list(steps)):
            found = shrink(functional.interpolate(found, size=skip.shape[2:], mode="nearest"))
            found = join(torch.cat([found, skip], dim=1))
        return cast(Tensor, self.last(found))


_TWO = "set data.dates={pick: even, n: 2}"


def check_change(backbone: type[Backbone], *, dates: int, classes: int) -> None:
    """Raises ValueError where a change cannot be told by a backbone, from so many dates, as so many classes."""
    if not issubclass(backbone, ResNet):
        raise ValueError(  # noqa: TRY004  # a wrong choice of a recipe, not a wrong type
            "a change is told from maps of several levels of a single date, which resnet18 and resnet50 give and "
            f"{backbone.__name__} does not: set backbone.name=resnet18"
        )
    if dates != DATES:
        raise ValueError(f"a change compares {DATES} dates; the chips hold {dates}: {_TWO}")
    if classes != 2:
        raise ValueError(f"a change has 2 classes, unchanged and changed; the class table has {classes}")


def _joined(channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
    )
