"""UNet2D-CLSTM: a U-Net on every date, a convolutional LSTM over the dates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones.base import Backbone, Needs, TimeChannel, checkpointed, scaled, with_time_channels
from sits_models.recipe import Variant

__all__ = ["UNet2DCLSTM", "from_reference", "unused_in_reference"]

GROUP_CHANNELS = 16
"""Channels of a group of the group norms, as published: 4, 8 and 16 groups of 64, 128 and 256 channels."""


class UNet2DCLSTM(Backbone):
    """The FCN-CLSTM of Rustowicz et al. 2019, "Semantic Segmentation of Crop Type in Africa", as trained for CSCL.

    After Tarasiou et al. 2022, "Context-Self Contrastive Pretraining for Crop Type Semantic Segmentation", and its
    code, michaeltrs/DeepSatModels. The embedding is the mean of the hidden states of all dates.

    `paper` processes padded dates as if they were black images, and moves the running statistics of the recurrent
    batch norm as two passes over the series do, for the original evaluates its LSTM twice. `fixed` leaves padded dates
    out, wherever they stand, of the U-Net, of the statistics, of the LSTM and of the mean, and moves the statistics
    once.
    """

    head = "conv3"

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
        """`dates` is the number of steps that have running statistics of their own."""
        super().__init__()
        self.time_channels: tuple[TimeChannel, ...] = ("day_of_year",) if time_channels is None else time_channels
        self.variant: Variant = variant
        self.channels = scaled(128, width) if outputs is None else outputs
        self.needs = Needs(dates=None, size_multiple=4, min_size=4)
        # Group norms see the whole chip; 48 px is the side of the published chips of France.
        self.tile_size = 48 if size is None else self.needs.side_for(size)
        self.ignores_padding = variant == "fixed"
        features = scaled(128, width)
        self.unet = UNet2D(bands + len(self.time_channels), features, width)
        self.lstm = ConvLSTMCell(features, self.channels, steps=dates, passes=2 if variant == "paper" else 1)

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """The mean hidden state, (B, channels, H, W); 0 for a series without a valid date in the variant `fixed`."""
        series = with_time_channels(image, valid, day, self.time_channels)
        return self.embed_series(series, valid if self.variant == "fixed" else None)

    def embed_series(self, series: Tensor, valid: Tensor | None = None) -> Tensor:
        """The mean hidden state, (B, channels, H, W), of bands and time channels (B, T, C, H, W).

        Dates where `valid` (B, T) is False are left out; None keeps all of them.
        """
        b, t, _, h, w = series.shape
        if valid is None:
            valid = torch.ones(b, t, dtype=torch.bool, device=series.device)
        if torch.compiler.is_exporting():
            return self._embed_unpacked(series, valid)
        order, counts = _pack(valid)
        frames = series.flatten(0, 1)  # (B*T, C, H, W)
        # A tenth faster on a CPU; on a GPU each group norm would make a copy.
        layout = torch.contiguous_format if series.is_cuda else torch.channels_last
        total = hidden = cell = series.new_zeros(b, self.channels, h, w).contiguous(memory_format=layout)
        if not counts:
            return total
        # Step by step: the first dates of all series that have one, then the second ones, and so on.
        frames = frames[order].contiguous(memory_format=layout)
        inputs = checkpointed(self, self._gates, frames)  # (sum of counts, 4 hidden, H, W)
        for step, gates in enumerate(torch.split(inputs, counts)):
            n = len(gates)
            if n < len(hidden):
                hidden, cell = hidden[:n], cell[:n]
            hidden, cell = self.lstm(gates, hidden, cell, step, of=len(counts))
            seen = hidden.to(total.dtype)
            total = total + (seen if n == b else functional.pad(seen, (0, 0, 0, 0, 0, 0, 0, b - n)))
        lengths = valid.sum(1)
        rows = torch.argsort(lengths, descending=True, stable=True)
        mean = total / lengths[rows].clamp(min=1)[:, None, None, None]
        # Indexed as (B, H, W, C), which keeps the layout of the values, and that of the gradients that come back.
        return mean.permute(0, 2, 3, 1)[torch.argsort(rows)].permute(0, 3, 1, 2)

    def _embed_unpacked(self, series: Tensor, valid: Tensor) -> Tensor:
        """The same for a graph, whose sizes cannot depend on values: padding is computed too, and not added."""
        b, t, _, h, w = series.shape
        lengths = valid.sum(1)
        dates = torch.argsort((~valid).to(torch.int64), dim=1, stable=True)  # the valid ones first, in their order
        ordered = torch.gather(series, 1, dates[:, :, None, None, None].expand_as(series))
        inputs = self._gates(ordered.flatten(0, 1)).reshape(b, t, -1, h, w)  # (B, T, 4 hidden, H, W)
        total = hidden = cell = series.new_zeros(b, self.channels, h, w)
        for step in range(t):
            hidden, cell = self.lstm(inputs[:, step], hidden, cell, step, of=t)
            total = total + torch.where((step < lengths)[:, None, None, None], hidden, 0.0)
        return total / lengths.clamp(min=1)[:, None, None, None]

    def _gates(self, frames: Tensor) -> Tensor:
        """What the dates (N, C, H, W) add to the gates, (N, 4 hidden, H, W)."""
        return cast(Tensor, self.lstm.input_conv(self.unet(frames)))


def _pack(valid: Tensor) -> tuple[Tensor, list[int]]:
    """Where the dates of each step stand in the flattened (B*T,) series, and how many series have such a step.

    The series are taken from the longest to the shortest, so those that still have a date are always the first ones.

    >>> order, counts = _pack(torch.tensor([[True, False, False], [True, False, True]]))
    >>> order.tolist(), counts  # the first dates of series 1 and 0, then the second date of series 1
    ([3, 0, 5], [2, 1])
    """
    t = valid.shape[1]
    lengths = valid.sum(1)
    rows = torch.argsort(lengths, descending=True, stable=True)
    # Valid dates first, in their order.
    dates = torch.argsort((~valid).to(torch.int8), dim=1, stable=True)[rows]  # (B, T)
    kept = torch.arange(t, device=valid.device) < lengths[rows, None]  # (B, T)
    places = rows[:, None] * t + dates
    counts = [n for n in kept.sum(0).tolist() if n]
    return places.T[kept.T], counts


class UNet2D(nn.Module):
    """A U-Net of three scales, (N, C, H, W) to (N, features, H, W)."""

    def __init__(self, inputs: int, features: int, width: float) -> None:
        super().__init__()
        c1, c2, c4, last = scaled(64, width), scaled(128, width), scaled(256, width), scaled(32, width)
        self.encode1 = nn.Sequential(*_conv(inputs, c1, _group_norm(c1)), *_conv(c1, c1, _group_norm(c1)))
        self.encode2 = nn.Sequential(*_conv(c1, c2, _group_norm(c2)), *_conv(c2, c2, _group_norm(c2)))
        self.pool = nn.MaxPool2d(2)
        self.centre = nn.Sequential(
            *_conv(c2, c4, _group_norm(c4)), *_conv(c4, c4, _group_norm(c4)), nn.ConvTranspose2d(c4, c2, 2, stride=2)
        )
        self.decode2 = nn.Sequential(
            *_conv(2 * c2, c2, nn.BatchNorm2d(c2)),
            *_conv(c2, c2, nn.BatchNorm2d(c2)),
            nn.ConvTranspose2d(c2, c1, 2, stride=2),
        )
        self.decode1 = nn.Sequential(
            *_conv(2 * c1, c1, nn.BatchNorm2d(c1)),
            *_conv(c1, last, nn.BatchNorm2d(last)),
            nn.Conv2d(last, features, 3, padding=1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, frames: Tensor) -> Tensor:
        fine = self.encode1(frames)
        middle = self.encode2(self.pool(fine))
        up = self.centre(self.pool(middle))
        up = self.decode2(torch.cat([up, middle], dim=1))
        return cast(Tensor, self.decode1(torch.cat([up, fine], dim=1)))


class ConvLSTMCell(nn.Module):
    """A convolutional LSTM cell with recurrent batch norm (Cooijmans et al. 2017), one set of statistics a step."""

    def __init__(self, inputs: int, hidden: int, *, steps: int, passes: int) -> None:
        super().__init__()
        self.hidden_conv = nn.Conv2d(hidden, 4 * hidden, 3, padding=1)
        self.input_conv = nn.Conv2d(inputs, 4 * hidden, 3, padding=1)
        self.hidden_norm = StepBatchNorm(4 * hidden, steps=steps, passes=passes)
        self.input_norm = StepBatchNorm(4 * hidden, steps=steps, passes=passes)
        self.cell_norm = StepBatchNorm(hidden, steps=steps, passes=passes)

    def forward(self, inputs: Tensor, hidden: Tensor, cell: Tensor, step: int, *, of: int) -> tuple[Tensor, Tensor]:
        """Next hidden and cell state, (N, hidden, H, W), at a step of as many; `inputs` is `input_conv` of features."""
        gates = self._recurrent(hidden, step, of=of) + self.input_norm(inputs, step, of=of)
        enter, forget, leave, new = gates.chunk(4, dim=1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(leave) * self.cell_norm(torch.tanh(cell), step, of=of), cell

    def _recurrent(self, hidden: Tensor, step: int, *, of: int) -> Tensor:
        """What the hidden state adds to the gates, (N, 4 hidden, H, W) or (4 hidden, 1, 1)."""
        if step or of == 1:  # a series of one date needs the convolution for weights that have a gradient
            return cast(Tensor, self.hidden_norm(self.hidden_conv(hidden), step, of=of))
        # The first state is 0, so the convolution gives its bias everywhere; of one pixel there is no deviation.
        two_pixels = cast(Tensor, self.hidden_conv.bias).expand(2, -1)
        return cast(Tensor, self.hidden_norm(two_pixels, step, of=of))[0, :, None, None]


class StepBatchNorm(nn.Module):
    """Batch norm with one scale for all steps, no offset, and running statistics of each step."""

    running_mean: Tensor
    running_var: Tensor
    summed: Callable[[Tensor], Tensor] | None = None
    """The sum over all processes that share a batch, and of its gradients; None: the whole batch is here."""

    def __init__(self, channels: int, *, steps: int, passes: int) -> None:
        """Statistics of `steps` steps; later ones share those of the last. A series moves them as `passes` would."""
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.1))
        self.register_buffer("running_mean", torch.zeros(steps, channels))
        self.register_buffer("running_var", torch.ones(steps, channels))
        self.passes = passes

    def forward(self, values: Tensor, step: int, *, of: int) -> Tensor:
        """(N, channels, H, W) to the same, normalised as of `step` of a series of `of` steps, which counts from 0."""
        row = min(step, len(self.running_mean) - 1)
        sharing = 1 if row < len(self.running_mean) - 1 else of - row
        momentum = momentum_of_passes(step - row, sharing, passes=self.passes)
        if self.training and self.summed is not None:
            return self._shared(values, row, momentum, self.summed)
        return functional.batch_norm(
            values, self.running_mean[row], self.running_var[row], self.weight, None, self.training, momentum, 1e-5
        )

    def _shared(self, values: Tensor, row: int, momentum: float, summed: Callable[[Tensor], Tensor]) -> Tensor:
        """As batch norm of the parts of all processes together, which all have a part."""
        exact, axes = values.to(torch.float32), (0, 2, 3)
        here = exact.new_full((1,), values.numel() / values.shape[1])
        sums = summed(torch.cat([exact.sum(axes), here]))  # (channels + 1,)
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = exact - mean[:, None, None]
        variance = summed(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.running_mean[row].lerp_(mean, momentum)
            self.running_var[row].lerp_(variance * count / (count - 1), momentum)
        scale = self.weight * (variance + 1e-5).rsqrt()
        return (centred * scale[:, None, None]).to(values.dtype)


def momentum_of_passes(place: int, values: int, *, passes: int) -> float:
    """With which momentum each of some values, met once, moves a running mean as `passes` passes over all of them do.

    A pass sets m <- 0.9 m + 0.1 x for one value x after the other. What the original pays two passes for:

    >>> round(momentum_of_passes(0, 1, passes=2), 9)  # m <- 0.81 m + 0.19 x
    0.19
    """
    kept = 1 - 0.1
    if values == 1 or passes == 1:
        return 1 - kept**passes
    # All passes leave x_i the weight 0.1 kept^(values - 1 - i) (1 + kept^values + kept^(2 values) + ...). What is left
    # for the values before it, by how much of this is left after it, is what its own momentum must leave of them.
    repeated = (1 - kept ** (passes * values)) / (1 - kept**values)
    left = [1 - repeated * (1 - kept**later) for later in (values - place, values - place - 1)]
    return 1 - left[0] / left[1]


REFERENCE_NAMES = (
    (r"fcn\.unet_encode\.enc3\.encode\.", "encoder.backbone.unet.encode1."),
    (r"fcn\.unet_encode\.enc4\.encode\.", "encoder.backbone.unet.encode2."),
    (r"fcn\.unet_encode\.center\.", "encoder.backbone.unet.centre."),
    (r"fcn\.unet_decode\.center_decode\.(\d+)\.", "encoder.backbone.unet.centre.{+3}."),
    (r"fcn\.unet_decode\.dec4\.decode\.", "encoder.backbone.unet.decode2."),
    (r"fcn\.unet_decode\.final\.", "encoder.backbone.unet.decode1."),
    (r"crnn_main\.clstm\.cell_list\.0\.h_conv\.", "encoder.backbone.lstm.hidden_conv."),
    (r"crnn_main\.clstm\.cell_list\.0\.input_conv\.", "encoder.backbone.lstm.input_conv."),
    (r"crnn_main\.clstm\.cell_list\.0\.h_norm\.", "encoder.backbone.lstm.hidden_norm."),
    (r"crnn_main\.clstm\.cell_list\.0\.input_norm\.", "encoder.backbone.lstm.input_norm."),
    (r"crnn_main\.clstm\.cell_list\.0\.cell_norm\.", "encoder.backbone.lstm.cell_norm."),
    (r"main_finalconv\.", "head."),
    (r"attn_sim\.", "similarity."),
)


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the original (UNET2D-CLSTM of michaeltrs/DeepSatModels) by the names of our objective.

    Raises ValueError for an entry it does not know. Entries named by `unused_in_reference` are left out.
    """
    unused = set(unused_in_reference(state))
    ours: dict[str, Tensor] = {}
    steps: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items():
        if name in unused:
            continue
        renamed = rename(name.removeprefix("module."))  # of a model on several GPUs
        if statistic := re.fullmatch(r"(.*\.running_(?:mean|var))_(\d+)", renamed):
            steps.setdefault(statistic[1], {})[int(statistic[2])] = tensor
        else:
            ours[renamed] = tensor
    return ours | {name: torch.stack([rows[step] for step in sorted(rows)]) for name, rows in steps.items()}


def unused_in_reference(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Entries of the original that shape no output: the class convolution of a model for contrastive pretraining."""
    pretraining = any("attn_sim." in name for name in state)
    return tuple(name for name in state if pretraining and "main_finalconv." in name)


def rename(name: str) -> str:
    """Our name of an entry of the original; statistics keep the number of their step.

    >>> rename("fcn.unet_decode.center_decode.1.bias")
    'encoder.backbone.unet.centre.4.bias'
    """
    for pattern, replacement in REFERENCE_NAMES:
        if found := re.match(pattern, name):
            # The decoding half of the centre follows the three modules of the encoding half.
            start = replacement.replace("{+3}", str(int(found[1]) + 3)) if found.groups() else replacement
            return start + name[found.end() :]
    raise ValueError(f"a UNET2D-CLSTM of DeepSatModels has no entry {name!r}; give the state dict of one")


def _conv(inputs: int, outputs: int, norm: nn.Module) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), norm, nn.LeakyReLU()


def _group_norm(channels: int) -> nn.GroupNorm:
    most = max(1, channels // GROUP_CHANNELS)
    return nn.GroupNorm(max(n for n in range(1, most + 1) if channels % n == 0), channels)
