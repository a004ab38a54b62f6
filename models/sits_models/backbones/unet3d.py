"""UNet3D and UNet3Df: convolutions over time and space, for series of a fixed number of dates.

UNet3D: R. M. Rustowicz et al., "Semantic segmentation of crop type in Africa", CVPR Workshops 2019, in the form the
second paper gives it. UNet3Df, with wider last layers: M. Tarasiou, R. A. Güler, S. Zafeiriou, "Context-self
contrastive pretraining for crop type semantic segmentation", IEEE TGRS 2022. Official code:
github.com/michaeltrs/DeepSatModels. The layers carry the names they have there.

Deliberate differences, none of which changes a value of `paper` beyond rounding: the last convolution and the weighted
sum over dates are both linear, so the dates are summed first and the convolution runs once instead of T times; the
dropout in front of that sum is left out; padded dates are 0 in every channel whatever stands in them.

`variant="fixed"` mends that

- T is fixed by the T weights of the sum over dates: the mean over valid dates takes their place, and any T will do (it
  is filled up with padding to a multiple of 4);
- padded dates are treated as observations of 0: their features are set to 0 in front of every convolution, which is
  what a convolution sees beyond the ends of a series;
- a date's place in the array matters: dates are put in the order of their days first, padding last.

So neither padding nor order matters in evaluation. While training, batch normalisation still takes its mean and
deviation over padded dates too, as the published one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from sits_models.backbones.base import Backbone, Needs, TimeChannel, checkpointed, scaled, with_time_channels
from sits_models.recipe import HeadKind, Variant

__all__ = ["UNet3D", "UNet3Df", "from_reference"]

POOLED = 4
"""Time, height and width are halved twice."""
PUBLISHED_TIME: tuple[TimeChannel, ...] = ("day_of_year",)


class _Volume(Backbone):
    """What UNet3D and UNet3Df share: all but the width of the last layers.

    `reach` counts the pixels an output pixel depends on, on the wider side (24 to the left and 27 to the right in the
    worst case). Pooling starts at the chip's upper-left corner: two chips give the same values only where their corners
    lie a multiple of 4 px apart.
    """

    reach = 27

    def __init__(
        self,
        bands: int,
        *,
        dates: int,
        width: float,
        variant: Variant,
        time_channels: tuple[TimeChannel, ...] | None,
        outputs: int,
        last: tuple[int, int],
    ) -> None:
        """`last` is the published channels of the two last convolutions in front of the one with `outputs` channels."""
        super().__init__()
        if variant == "paper" and (dates % POOLED or dates < POOLED):
            raise ValueError(
                f"{type(self).__name__} as published takes a number of dates that is a multiple of {POOLED}; "
                f"got {dates}: sample or pad the series to {max(POOLED, dates + -dates % POOLED)}, or use the "
                "variant fixed"
            )
        c64, c128, c256 = (scaled(channels, width) for channels in (64, 128, 256))
        first, second = (scaled(channels, width) for channels in last)
        self.variant = variant
        self.time_channels = PUBLISHED_TIME if time_channels is None else time_channels
        self.channels = outputs
        self.needs = Needs(dates=dates if variant == "paper" else None, size_multiple=POOLED, min_size=POOLED)
        self.ignores_padding = self.ignores_order = variant == "fixed"

        self.en3 = _layer_pair(bands + len(self.time_channels), c64, c64)
        self.pool_3 = nn.MaxPool3d(2)
        self.en4 = _layer_pair(c64, c128, c128)
        self.pool_4 = nn.MaxPool3d(2)
        self.center_in = nn.Sequential(*_convolution(c128, c256))
        self.center_out = nn.Sequential(*_convolution(c256, c256), _doubling(c256, c128))
        self.dc4 = _layer_pair(2 * c128, c128, c128)
        self.trans3 = nn.Sequential(_doubling(c128, c64), *_normalized(c64))
        self.dc3 = _layer_pair(2 * c64, first, second)
        self.final = nn.Conv3d(second, outputs, kernel_size=3, padding=1)
        if variant == "paper":
            self.fn = nn.Linear(dates, 1)

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """The embedding map, (B, channels, H, W)."""
        series = with_time_channels(image, valid, day, self.time_channels)
        if self.variant == "paper":
            return self.embed_series(series)
        return self.embed_series(*_in_order(series, valid, day))

    def embed_series(self, series: Tensor, valid: Tensor | None = None) -> Tensor:
        """The embedding map of a series (B, T, C, H, W) whose channels hold time already.

        `fixed` takes the dates that `valid` (B, T) marks, in the order they stand in (None: all); `paper` takes all.
        """
        volume = series.transpose(1, 2)  # (B, C, T, H, W)
        if not volume.is_cuda:  # a quarter faster on a CPU at width 1/4, and no slower at width 1
            volume = volume.contiguous(memory_format=torch.channels_last_3d)
        if self.variant == "paper":
            dates = self.fn.weight  # (1, T)
            return self._collapse(self._features(volume, None), dates) + self.fn.bias
        if valid is None:
            valid = torch.ones(series.shape[:2], dtype=torch.bool, device=series.device)
        missing = -valid.shape[1] % POOLED
        known = F.pad(valid, (0, missing)).to(series.dtype)  # (B, T')
        mask = known[:, None, :, None, None]
        features = self._features(F.pad(volume, (0, 0, 0, 0, 0, missing)), mask) * mask
        return self._collapse(features, known / known.sum(dim=1, keepdim=True).clamp(min=1.0))

    def _features(self, volume: Tensor, mask: Tensor | None) -> Tensor:
        # One mask a resolution in time, each (B, 1, T / 1, 2 or 4, 1, 1): a pooled date is known if one of its two is.
        half = None if mask is None else F.max_pool3d(mask, (2, 1, 1))
        quarter = None if half is None else F.max_pool3d(half, (2, 1, 1))
        fine = self._run(self.en3, mask, volume)
        middle = self._run(self.en4, half, self.pool_3(_known(fine, mask)))
        coarse = self._run(self.center_in, quarter, self.pool_4(_known(middle, half)))
        up = self._run(self.center_out, quarter, coarse)
        up = self._run(self.dc4, half, up, middle)
        up = self._run(self.trans3, half, up)
        return self._run(self.dc3, mask, up, fine)

    def _run(self, layers: nn.Sequential, mask: Tensor | None, *volumes: Tensor) -> Tensor:
        """`layers` on volumes (B, C, T, H, W) put together, with the dates outside the mask at 0."""
        return checkpointed(self, partial(_apply, layers, mask), *volumes)

    def _collapse(self, features: Tensor, dates: Tensor) -> Tensor:
        """`final` on (B, C, T, H, W), summed over T with the weights `dates` (B or 1, T)."""
        # sum_t d[t] sum_k W[k] x[t + k - 1] = sum_k W[k] sum_s d[s - k + 1] x[s]: three sums over the dates s, one for
        # each tap k in time, and then a convolution in the plane over 3 C channels.
        taps = torch.stack([F.pad(dates, (0, 1))[:, 1:], dates, F.pad(dates, (1, 0))[:, :-1]], dim=1)  # (B or 1, 3, T)
        b, c, t, h, w = features.shape
        summed = taps[:, None] @ features.reshape(b, c, t, h * w)  # (B, C, 3, H*W)
        kernel = self.final.weight.flatten(1, 2)  # (O, C, 3, 3, 3) to (O, C*3, 3, 3)
        bias = cast(Tensor, self.final.bias)[None, :] * dates.sum(dim=1, keepdim=True)  # (B or 1, O)
        return F.conv2d(summed.reshape(b, c * 3, h, w), kernel, padding=1) + bias[:, :, None, None]


class UNet3D(_Volume):
    """UNet3D: the last convolution gives the logits of the classes, where `outputs` names their number."""

    head: HeadKind = "none"

    def __init__(
        self,
        bands: int,
        *,
        dates: int,
        size: int | None = None,  # noqa: ARG002  # chips of any side will do
        width: float = 1.0,
        variant: Variant = "paper",
        time_channels: tuple[TimeChannel, ...] | None = None,
        outputs: int | None = None,
    ) -> None:
        """`outputs` None: 128 times `width` channels, which need a linear head."""
        super().__init__(
            bands,
            dates=dates,
            width=width,
            variant=variant,
            time_channels=time_channels,
            outputs=scaled(128, width) if outputs is None else outputs,
            last=(64, 32),
        )
        self.head = "linear" if outputs is None else "none"
        self.of_task = () if outputs is None else ("final.",)


class UNet3Df(_Volume):
    """UNet3Df: an embedding of 128 channels a pixel, with a linear head."""

    def __init__(
        self,
        bands: int,
        *,
        dates: int,
        size: int | None = None,  # noqa: ARG002  # chips of any side will do
        width: float = 1.0,
        variant: Variant = "paper",
        time_channels: tuple[TimeChannel, ...] | None = None,
        outputs: int | None = None,
    ) -> None:
        super().__init__(
            bands,
            dates=dates,
            width=width,
            variant=variant,
            time_channels=time_channels,
            outputs=scaled(128, width) if outputs is None else outputs,
            last=(128, 128),
        )


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names, those of a whole objective, for the entries of a state dict that the official code saved.

    Raises ValueError with the names that are no entries of a UNet3D or a UNet3Df.
    """
    entries = {name.removeprefix("module."): tensor for name, tensor in state.items()}  # of a model on several GPUs
    names = {name: _our_name(name) for name in entries}
    unknown = [name for name, ours in names.items() if ours is None]
    if unknown:
        raise ValueError(f"a state dict of UNet3D or UNet3Df was expected; it has other entries: {', '.join(unknown)}")
    # The official linear head is a matrix, ours a convolution of 1 x 1.
    return {
        ours: tensor[:, :, None, None] if name == "linear_out.weight" else tensor
        for (name, tensor), ours in zip(entries.items(), names.values(), strict=True)
        if ours is not None
    }


def _our_name(name: str) -> str | None:
    # UNet3D keeps its layers at the top, UNet3Df one level below.
    layer = name.removeprefix("backbone.")
    if layer.split(".")[0] in _LAYERS:
        return f"encoder.backbone.{layer}"
    for theirs, ours in _OTHERS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return None


_LAYERS = frozenset({"en3", "en4", "center_in", "center_out", "dc4", "trans3", "dc3", "final", "fn"})
_OTHERS = {
    "conv_out_x2.": "encoder.magnify.x2.",
    "conv_out_x4.": "encoder.magnify.x4.",
    "linear_out.": "head.",
    "attn_sim.": "similarity.",
}


def _normalized(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm3d(channels), nn.LeakyReLU(inplace=True)]


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv3d(inputs, outputs, kernel_size=3, padding=1), *_normalized(outputs)]


def _layer_pair(inputs: int, inner: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(inputs, inner), *_convolution(inner, outputs))


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose3d:
    return nn.ConvTranspose3d(inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1)


def _known(volume: Tensor, mask: Tensor | None) -> Tensor:
    return volume if mask is None else volume * mask


def _apply(layers: nn.Sequential, mask: Tensor | None, *volumes: Tensor) -> Tensor:
    """`layers` on volumes (B, C, T, H, W) put together; dates outside the mask are 0 in front of each convolution."""
    volume = volumes[0] if len(volumes) == 1 else torch.cat(volumes, dim=1)
    for layer in layers:
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            volume = _known(volume, mask)
        volume = layer(volume)
    return volume


def _in_order(series: Tensor, valid: Tensor, day: Tensor) -> tuple[Tensor, Tensor]:
    """Series (B, T, C, H, W) and valid (B, T) with the valid dates first, by day."""
    last = torch.iinfo(torch.int64).max
    order = torch.argsort(day.to(torch.int64).masked_fill(~valid, last), dim=1, stable=True)  # (B, T)
    ordered = torch.gather(series, 1, order[:, :, None, None, None].expand_as(series))
    return ordered, torch.gather(valid, 1, order)
