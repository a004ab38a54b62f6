"""What every backbone answers, so that no objective asks which one it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from sits_models.recipe import DateRule, HeadKind, Variant

__all__ = [
    "Backbone",
    "HeadKind",
    "Needs",
    "TimeChannel",
    "check_dates",
    "checkpointed",
    "scaled",
    "with_time_channels",
]

TimeChannel = Literal["day_of_year", "year"]
YEAR_DAYS = 365.0001
"""The published codes divide the day of the year by this."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a backbone asks of the shape (B, T, C, H, W) of its input."""

    dates: int | None
    """T it was built for, where no other number works; shorter series are padded."""
    size_multiple: int
    """H and W are multiples of this."""
    min_size: int = 1
    size: int | None = None
    """H and W it was built for, where no others work."""

    def side_for(self, size: int) -> int:
        """The least side of at least `size` px that it takes, whatever it was built for.

        >>> Needs(dates=None, size_multiple=8, min_size=16).side_for(17)
        24
        """
        return -(-max(size, self.min_size) // self.size_multiple) * self.size_multiple


class Backbone(nn.Module, ABC):
    """A satellite image time series in, one embedding a pixel out.

    Constructors of all backbones take (bands, *, dates, size, width, variant, time_channels, outputs): the bands of the
    image; the T and the side of the chips of training (None: the published side); a factor on the published channel
    counts; `paper` or `fixed`; the extra input channels (None: the published ones); and the channels of the embedding
    (None: the published number times width). One that has a `transformer` in recipes takes that as well.
    """

    channels: int
    """C of the embedding map."""
    needs: Needs
    stride: int = 1
    """Input pixels per pixel of the embedding map; 0 where one embedding stands for the whole chip, as 1 x 1 pixel."""
    tile_size: int | None = None
    """Side at which to apply it, where an operation sees the whole chip; None: any size gives the same values."""
    reach: int | None = None
    """Pixels on each side that an output pixel depends on; None: the whole chip."""
    head: HeadKind = "linear"
    """The published segmentation head; "none" where the embedding itself holds the logits."""
    variant: Variant = "paper"
    time_channels: tuple[TimeChannel, ...] = ()
    ignores_padding: bool = False
    """Whether padded dates, any number of them, leave the output as it is."""
    ignores_order: bool = False
    """Whether the order in which the dates stand, each on a day of its own, leaves the output as it is."""
    of_task: tuple[str, ...] = ()
    """Beginnings of the names of those of its tensors that belong to the outputs of one task, as a head does: weights
    of another task leave them out."""
    checkpointing: bool = False
    """Whether `checkpointed` parts are computed again in the backward pass, for less memory."""

    @abstractmethod
    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """The embedding map, (B, channels, H / stride, W / stride), sides rounded up; for a stride of 0 one pixel.

        `image` (B, T, C, H, W) is normalised float32 and 0 where nothing was observed, `valid` (B, T) is False for
        padded dates, `day` (B, T) counts days since 1970-01-01.
        """

    def check(self, image: Tensor) -> None:
        """Raises ValueError where the image has a shape the backbone cannot take."""
        _, dates, _, height, width = image.shape
        needs, name = self.needs, type(self).__name__
        if needs.dates is not None and dates != needs.dates:
            raise ValueError(f"this {name} was built for {needs.dates} dates; got {dates}: pad or sample the series")
        if height % needs.size_multiple or width % needs.size_multiple or min(height, width) < needs.min_size:
            raise ValueError(
                f"{name} takes chips of at least {needs.min_size} px whose sides are multiples of "
                f"{needs.size_multiple}; got {height} x {width}"
            )
        if needs.size is not None and (height, width) != (needs.size, needs.size):
            raise ValueError(
                f"this {name} was built for chips of {needs.size} x {needs.size} px; got {height} x {width}: set "
                f"data.size={needs.size}"
            )

    def least_chips(self, size: int) -> int:  # noqa: ARG002  # most take statistics over the pixels of a chip
        """Chips of `size` px that it is trained on at a time at least: no statistic is taken over a single value."""
        return 1

    def forward(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """`check`, then `embed`."""
        self.check(image)
        return self.embed(image, valid, day)


def checkpointed(backbone: Backbone, part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """What a part of a backbone makes of its inputs; where that is `checkpointing`, without keeping activations.

    They are computed again for the gradients, from the same random numbers, and no running statistic moves twice.
    """
    if not (backbone.checkpointing and backbone.training and torch.is_grad_enabled()):
        return part(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _still_statistics(backbone)

    found: Tensor = checkpoint(part, *inputs, use_reentrant=False, context_fn=contexts)
    return found


@contextmanager
def _still_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms normalise by the batch, and leave their running statistics as they are.

    They are given with a momentum of 0 and not withheld: what is computed again must keep as many tensors as before.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, number) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, number


def check_dates(needs: Needs, rule: DateRule, days: int) -> int:
    """How many dates of a series of so many days a model sees by a rule.

    Raises ValueError where these are more than it was built for.
    """
    chosen = days if rule.n is None else min(rule.n, days)
    if needs.dates is not None and chosen > needs.dates:
        raise ValueError(
            f"this model was built for {needs.dates} dates and takes all of a cube, but this one has {days}; "
            "train with data.dates={pick: even, n: ...}, or build the cube with fewer dates"
        )
    return chosen


def scaled(channels: int, width: float) -> int:
    """A published channel count times `width`, rounded to an even number, at least 2.

    >>> scaled(64, 0.25)
    16
    """
    if width <= 0:
        raise ValueError(f"width is a factor above 0, 1 as published; got {width}")
    return max(2, 2 * round(channels * width / 2))


def with_time_channels(image: Tensor, valid: Tensor, day: Tensor, channels: tuple[TimeChannel, ...]) -> Tensor:
    """The image with its dates as further channels, (B, T, C + len(channels), H, W); all 0 in padded dates.

    day_of_year is the day, 1 to 366, over 365.0001, and year counts from 2016, as in the published codes.
    """
    b, t, _, h, w = image.shape
    year, day_of_year = calendar_of(day)
    planes = {"day_of_year": day_of_year.to(image.dtype) / YEAR_DAYS, "year": (year - 2016).to(image.dtype)}
    extra = [planes[name][:, :, None, None, None].expand(b, t, 1, h, w) for name in channels]
    # Not times `valid`: in a padded date anything may stand, NaN too.
    return torch.where(valid[:, :, None, None, None], torch.cat([image, *extra], dim=2), 0.0)


def calendar_of(day: Tensor) -> tuple[Tensor, Tensor]:
    """Year and day of the year (1 to 366) of days since 1970-01-01, by the Gregorian calendar.

    >>> [int(x) for x in calendar_of(torch.tensor(18322))]  # 2020-03-01
    [2020, 61]
    """
    # Days from civil, H. Hinnant, "chrono-Compatible Low-Level Date Algorithms": eras of 400 years from 0000-03-01.
    shifted = day.to(torch.int64) + 719468
    era = torch.div(shifted, 146097, rounding_mode="floor")
    of_era = shifted - era * 146097
    year_of_era = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    from_march = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)  # 0 is 1 March
    year = year_of_era + era * 400 + (from_march >= 306).to(torch.int64)
    return year, torch.where(from_march >= 306, from_march - 305, from_march + 60 + is_leap(year))


def is_leap(year: Tensor) -> Tensor:
    """1 for years of 366 days by the Gregorian calendar, 0 for others; int64.

    >>> is_leap(torch.tensor([1900, 2000, 2019, 2020])).tolist()
    [0, 1, 0, 1]
    """
    return ((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))).to(torch.int64)
