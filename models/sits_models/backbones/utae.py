"""U-TAE: a U-Net on every date whose scales are gathered over time by one temporal attention."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones.base import (
    Backbone,
    Needs,
    TimeChannel,
    calendar_of,
    checkpointed,
    is_leap,
    with_time_channels,
)
from sits_models.recipe import Variant

__all__ = ["UTAE", "UTAELayout", "from_reference", "season_start"]

PUBLISHED_ORIGIN = 17775
"""2018-09-01 in days since 1970-01-01: the series of PASTIS count from it."""
POSITION_PERIOD = 1000.0
"""Base of the periods of the sinusoids that encode a position, days."""
GROUPS = 4
"""Groups of the encoder's group norms."""

Aggregation = Literal["att_group", "att_mean", "mean"]


@dataclass(frozen=True, kw_only=True)
class UTAELayout:
    """Sizes of a U-TAE; the defaults are the published ones."""

    encoder: tuple[int, ...] = (64, 64, 64, 128)
    """Channels at each scale, from the finest; multiples of 4 and, for att_group, of `heads`."""
    decoder: tuple[int, ...] = (32, 32, 64, 128)
    """Channels at each scale on the way back; the first is the embedding, the last that of the encoder."""
    heads: int = 16
    keys: int = 4
    """Channels of a head's query and keys."""
    values: int = 256
    """Channels of the values of all heads together, a multiple of 2 heads."""
    aggregation: Aggregation = "att_group"
    """How skips are summed over time: a group of channels by each head's attention, all by the mean, or evenly."""

    def __post_init__(self) -> None:
        if len(self.encoder) != len(self.decoder) or len(self.encoder) < 2 or self.encoder[-1] != self.decoder[-1]:
            raise ValueError(
                "encoder and decoder of a U-TAE have as many scales, at least 2, and equal channels at the coarsest; "
                f"got {self.encoder} and {self.decoder}"
            )

    @classmethod
    def scaled(cls, width: float, *, outputs: int | None = None) -> UTAELayout:
        """The published sizes times width, in whole heads, each as large as published; `outputs` channels come out."""
        heads = max(1, round(16 * width))
        return cls(
            encoder=(4 * heads, 4 * heads, 4 * heads, 8 * heads),
            decoder=(2 * heads if outputs is None else outputs, 2 * heads, 4 * heads, 8 * heads),
            heads=heads,
            values=16 * heads,
        )


class UTAE(Backbone):
    """The U-Net with temporal attention encoder of Garnot and Landrieu 2021, section 3.1.

    "Panoptic Segmentation of Satellite Image Time Series with Convolutional Temporal Attention Networks"; the code is
    VSainteuf/utae-paps. The embedding is the output of the decoder, before the output layers. Unlike there, a date is
    padding where `valid` says so and not where all its values are 0, and no layer is initialised anew after PyTorch.

    `paper` normalises the attention's input over all dates, padded ones included, so padding changes the output, and
    counts days from 2018-09-01. `fixed` normalises over valid dates alone and counts from `season_start`.
    """

    head = "double_conv"
    ignores_order = True

    def __init__(
        self,
        bands: int,
        *,
        dates: int,  # noqa: ARG002  # any number of dates will do
        size: int | None = None,
        width: float = 1.0,
        variant: Variant = "paper",
        time_channels: tuple[TimeChannel, ...] | None = None,
        outputs: int | None = None,
        layout: UTAELayout | None = None,
    ) -> None:
        """A `layout` replaces `width` and `outputs`."""
        super().__init__()
        self.time_channels: tuple[TimeChannel, ...] = time_channels or ()
        self.variant: Variant = variant
        self.layout = layout or UTAELayout.scaled(width, outputs=outputs)
        encoder, decoder = self.layout.encoder, self.layout.decoder
        self.channels = decoder[0]
        scales = len(encoder) - 1
        # Reflecting a border of one pixel takes two pixels, at the coarsest scale too.
        self.needs = Needs(dates=None, size_multiple=2**scales, min_size=2 ** (scales + 1))
        # Group norms see the whole chip; 128 px is the side of the published chips of PASTIS.
        self.tile_size = 128 if size is None else self.needs.side_for(size)
        self.ignores_padding = variant == "fixed"
        self.stem = nn.Sequential(
            *_conv(bands + len(self.time_channels), encoder[0], norm="group"),
            *_conv(encoder[0], encoder[0], norm="group"),
        )
        self.down = nn.ModuleList(Down(fine, coarse) for fine, coarse in pairwise(encoder))
        self.temporal = TemporalAttention(self.layout, padding_counts=variant == "paper")
        self.up = nn.ModuleList(
            Up(decoder[i], decoder[i - 1], skipped=encoder[i - 1]) for i in range(len(decoder) - 1, 0, -1)
        )

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """The decoder's output, (B, channels, H, W)."""
        series = with_time_channels(image, valid, day, self.time_channels)
        origin = season_start(day, valid)[:, None] if self.variant == "fixed" else PUBLISHED_ORIGIN
        return self.embed_positions(series, valid, day - origin)[0]

    def embed_positions(self, image: Tensor, valid: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's output, (B, channels, H, W), and the attention, (heads, B, T, h, w) at the coarsest scale.

        `positions` (B, T) are days since any origin. The attention of a pixel sums to 1 over the dates.
        """
        places, lengths = _pack(valid)
        frames = image.flatten(0, 1)[places]  # (N, C, H, W)
        if not frames.is_cuda:  # a tenth faster on a CPU; on a GPU a group norm would copy each map
            frames = frames.contiguous(memory_format=torch.channels_last)
        scales = [checkpointed(self, self.stem, frames)]
        for down in self.down:
            scales.append(checkpointed(self, down, scales[-1]))
        out, attention = self.temporal(_unpack(scales[-1], places, valid), valid, positions)
        weights = self._weights(attention, valid)[places]  # (N, h, w, heads)
        for up, skip in zip(self.up, reversed(scales[:-1]), strict=True):
            out = checkpointed(self, up, out, _gather(skip, weights, lengths))
        return out, attention

    def _weights(self, attention: Tensor, valid: Tensor) -> Tensor:
        """How much each date counts in a skip, (B*T, h, w, heads or 1)."""
        if self.layout.aggregation == "mean":
            even = valid / valid.sum(1, keepdim=True).clamp(min=1)  # (B, T)
            return even.to(attention.dtype).flatten()[:, None, None, None]
        if self.layout.aggregation == "att_mean":
            attention = attention.mean(0, keepdim=True)
        return attention.permute(1, 2, 3, 4, 0).flatten(0, 1)


class Down(nn.Module):
    """Halves the resolution, (N, C, H, W) to (N, C', H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        shrink = nn.Conv2d(inputs, inputs, 4, stride=2, padding=1, padding_mode="reflect")
        self.shrink = nn.Sequential(shrink, nn.GroupNorm(GROUPS, inputs), nn.ReLU())
        self.conv = nn.Sequential(*_conv(inputs, outputs, norm="group"))
        self.residual = nn.Sequential(*_conv(outputs, outputs, norm="group"))

    def forward(self, frames: Tensor) -> Tensor:
        out: Tensor = self.conv(self.shrink(frames))
        return out + cast(Tensor, self.residual(out))


class Up(nn.Module):
    """Doubles the resolution and joins what the encoder had there."""

    def __init__(self, inputs: int, outputs: int, *, skipped: int) -> None:
        super().__init__()
        self.skip = nn.Sequential(nn.Conv2d(skipped, skipped, 1), nn.BatchNorm2d(skipped), nn.ReLU())
        self.grow = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.conv = nn.Sequential(*_conv(outputs + skipped, outputs, norm="batch"))
        self.residual = nn.Sequential(*_conv(outputs, outputs, norm="batch"))

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.conv(torch.cat([self.grow(coarse), self.skip(skip)], dim=1))
        return out + cast(Tensor, self.residual(out))


class TemporalAttention(nn.Module):
    """The lightweight temporal attention encoder (L-TAE, Garnot and Landrieu 2020), at every pixel by itself."""

    def __init__(self, layout: UTAELayout, *, padding_counts: bool) -> None:
        """`padding_counts`: the first norm takes its statistics over padded dates too, as published."""
        super().__init__()
        channels, heads, keys, values = layout.encoder[-1], layout.heads, layout.keys, layout.values
        self.padding_counts = padding_counts
        self.in_norm = SeriesNorm(heads, channels)
        self.project = nn.Linear(channels, values)
        self.queries = nn.Parameter(torch.empty(heads, keys))
        self.keys = nn.Linear(values, heads * keys)
        self.attention_dropout = nn.Dropout(0.1)
        self.mix = nn.Sequential(nn.Linear(values, channels), nn.BatchNorm1d(channels), nn.ReLU())
        self.dropout = nn.Dropout(0.2)
        self.out_norm = nn.GroupNorm(heads, channels)
        for weight in (self.queries, self.keys.weight):
            nn.init.normal_(weight, std=math.sqrt(2.0 / keys))

    def forward(self, series: Tensor, valid: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, C, h, w) over time, (B, C, h, w), and the attention, (heads, B, T, h, w), 0 in padded dates."""
        heads, width = len(self.queries), self.project.out_features // len(self.queries)
        b, t, _, h, w = series.shape
        values = self.in_norm(series, torch.ones_like(valid) if self.padding_counts else valid)
        values = self.project(values.permute(0, 1, 3, 4, 2))  # (B, T, h, w, V)
        exact = torch.promote_types(values.dtype, torch.float32)
        places = encode_positions(positions, width, dtype=exact).repeat(1, 1, heads)  # (B, T, V)
        values = values + places[:, :, None, None, :]
        keys = self.keys(values).reshape(b, t, h, w, heads, -1)  # (B, T, h, w, heads, K)
        scores = (keys * self.queries).sum(-1) / math.sqrt(self.queries.shape[1])  # (B, T, h, w, heads)
        kept = valid[:, :, None, None, None]
        scores = scores.masked_fill(~kept, torch.finfo(scores.dtype).min)
        # A series without a valid date attends to nothing.
        attention = self.attention_dropout(scores.softmax(dim=1) * kept)
        seen = (values.reshape(b, t, h, w, heads, width) * attention.unsqueeze(-1)).sum(1).reshape(b * h * w, -1)
        out: Tensor = self.out_norm(self.dropout(self.mix(seen)))  # (B*h*w, C)
        return out.reshape(b, h, w, -1).permute(0, 3, 1, 2), attention.permute(4, 0, 1, 2, 3)


class SeriesNorm(nn.Module):
    """Group norm of each pixel's series, over the channels of a group and the dates that count."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, series: Tensor, counted: Tensor) -> Tensor:
        """(B, T, C, h, w), float32 at least, with the dates where `counted` (B, T) is True; 0 elsewhere."""
        b, t, c, h, w = series.shape
        exact = torch.promote_types(series.dtype, torch.float32)
        grouped = series.to(exact).reshape(b, t, self.groups, c // self.groups, h, w)
        mask = counted[:, :, None, None, None, None].to(exact)
        number = (mask.sum(1, keepdim=True) * grouped.shape[3]).clamp(min=1)
        mean = (grouped * mask).sum((1, 3), keepdim=True) / number
        centred = (grouped - mean) * mask
        variance = centred.square().sum((1, 3), keepdim=True) / number
        normal = (centred / (variance + 1e-5).sqrt()).flatten(2, 3)
        affine = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return affine * counted[:, :, None, None, None]


def encode_positions(positions: Tensor, channels: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sinusoids of (B, T) positions, (B, T, channels): sines in even channels, cosines of the same period in odd ones.

    >>> encode_positions(torch.tensor([[0]]), 4).tolist()
    [[[0.0, 1.0, 0.0, 1.0]]]
    """
    exponent = torch.arange(0, channels, 2, device=positions.device).to(dtype) / channels
    angle = positions.to(dtype)[:, :, None] / POSITION_PERIOD**exponent
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(2)[:, :, :channels]


def season_start(day: Tensor, valid: Tensor) -> Tensor:
    """The last first of September up to the middle of each series of days (B, T) since 1970-01-01: (B,) int64.

    It makes one season like another, and gives the published origin for the published series. The middle, half way
    between first and last valid date, decides and not the first date: where a season begins about September,
    one date more or less at its start would else move all positions by a year. The middle stays put.

    >>> autumn_to_autumn = torch.tensor([[17791, 18190]])  # 2018-09-17 to 2019-10-21
    >>> season_start(autumn_to_autumn, torch.tensor([[True, True]])).item() == PUBLISHED_ORIGIN
    True
    """
    days = day.to(torch.int64)
    some = valid.any(1)
    first = torch.where(valid, days, torch.iinfo(torch.int64).max).amin(1)
    last = torch.where(valid, days, torch.iinfo(torch.int64).min).amax(1)
    middle = torch.where(some, torch.where(some, first + last, 0) // 2, 0)
    year, day_of_year = calendar_of(middle)
    new_year = middle - day_of_year + 1
    september = new_year + 243 + is_leap(year)
    return torch.where(middle >= september, september, new_year - 122)


REFERENCE_NAMES = (
    (r"in_conv\.conv\.conv\.", "encoder.backbone.stem."),
    (r"down_blocks\.(\d+)\.down\.conv\.", r"encoder.backbone.down.\1.shrink."),
    (r"down_blocks\.(\d+)\.conv1\.conv\.", r"encoder.backbone.down.\1.conv."),
    (r"down_blocks\.(\d+)\.conv2\.conv\.", r"encoder.backbone.down.\1.residual."),
    (r"up_blocks\.(\d+)\.skip_conv\.", r"encoder.backbone.up.\1.skip."),
    (r"up_blocks\.(\d+)\.up\.", r"encoder.backbone.up.\1.grow."),
    (r"up_blocks\.(\d+)\.conv1\.conv\.", r"encoder.backbone.up.\1.conv."),
    (r"up_blocks\.(\d+)\.conv2\.conv\.", r"encoder.backbone.up.\1.residual."),
    (r"temporal_encoder\.inconv\.", "encoder.backbone.temporal.project."),
    (r"temporal_encoder\.attention_heads\.Q$", "encoder.backbone.temporal.queries"),
    (r"temporal_encoder\.attention_heads\.fc1_k\.", "encoder.backbone.temporal.keys."),
    (r"temporal_encoder\.mlp\.", "encoder.backbone.temporal.mix."),
    (r"temporal_encoder\.(in_norm|out_norm)\.", r"encoder.backbone.temporal.\1."),
    (r"out_conv\.conv\.conv\.", "head."),
)


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the original (UTAE of VSainteuf/utae-paps) by the names of our objective; none is left out.

    Raises ValueError for an entry it does not know.
    """
    ours = {rename(name.removeprefix("module.")): tensor for name, tensor in state.items()}  # module.: of several GPUs
    projection = "encoder.backbone.temporal.project.weight"
    if projection in ours:
        ours[projection] = ours[projection].squeeze(-1)  # a convolution over one date there
    return ours


def rename(name: str) -> str:
    """Our name of an entry of the original.

    >>> rename("up_blocks.0.conv2.conv.1.bias")
    'encoder.backbone.up.0.residual.1.bias'
    """
    for pattern, replacement in REFERENCE_NAMES:
        if found := re.match(pattern, name):
            return found.expand(replacement) + name[found.end() :]
    raise ValueError(f"a UTAE of utae-paps has no entry {name!r}; give the state dict of one")


def _pack(valid: Tensor) -> tuple[Tensor, list[int] | int]:
    """The dates to look at among the B*T of `valid` (B, T), in order, and how many a series has, or all of them have.

    They are the valid ones. Where a graph is traced, whose sizes cannot depend on values, they are all: what padded
    ones give is left out of the series by `_unpack`, and counts for nothing in the skips.
    """
    if torch.compiler.is_exporting():  # for any number of series, which a list of their lengths would fix
        return torch.arange(valid.numel(), device=valid.device), valid.shape[1]
    if torch.compiler.is_compiling():
        return torch.arange(valid.numel(), device=valid.device), [valid.shape[1]] * len(valid)
    return valid.flatten().nonzero().squeeze(1), valid.sum(1).tolist()


def _unpack(frames: Tensor, places: Tensor, valid: Tensor) -> Tensor:
    """(N, C, H, W) of the dates at `places` to (B, T, C, H, W), 0 in padded ones."""
    series = frames.new_zeros(valid.numel(), *frames.shape[1:]).index_copy(0, places, frames)
    return torch.where(valid[:, :, None, None, None], series.reshape(*valid.shape, *frames.shape[1:]), 0.0)


def _gather(frames: Tensor, weights: Tensor, lengths: list[int] | int) -> Tensor:
    """Series of so many frames each, (N, C, H, W) together, over time: (B, C, H, W).

    `weights` (N, h, w, heads) are of a coarser map; each head's are those of a group of channels.
    """
    _, channels, h, w = frames.shape
    heads = weights.shape[-1]
    if isinstance(lengths, int | torch.SymInt):
        fine = functional.interpolate(weights.permute(0, 3, 1, 2), size=(h, w), mode="bilinear", align_corners=False)
        counted = frames.reshape(-1, heads, channels // heads, h, w) * fine[:, :, None]  # (B*T, heads, C / heads, H, W)
        return counted.reshape(-1, lengths, channels, h, w).sum(1)
    gathered = []
    # One series after the other, so that what is added up has hardly left the processor's cache.
    for series, coarse in zip(torch.split(frames, lengths), torch.split(weights, lengths), strict=True):
        fine = functional.interpolate(coarse.permute(0, 3, 1, 2), size=(h, w), mode="bilinear", align_corners=False)
        grouped = series.permute(0, 2, 3, 1).reshape(-1, h, w, heads, channels // heads)  # (T, H, W, heads, C / heads)
        gathered.append((grouped * fine.permute(0, 2, 3, 1)[..., None]).sum(0).flatten(2))  # (H, W, C)
    return torch.stack(gathered).permute(0, 3, 1, 2)


def _conv(inputs: int, outputs: int, *, norm: Literal["group", "batch"]) -> tuple[nn.Module, ...]:
    normalize = nn.GroupNorm(GROUPS, outputs) if norm == "group" else nn.BatchNorm2d(outputs)
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect"), normalize, nn.ReLU()
