"""UNet2D-CLSTM written straight from its description (Rustowicz et al. 2019; Tarasiou et al. 2022).

Entries are named as in the official code, so that `from_reference` of the backbone reads them. The official code
evaluates the ConvLSTM twice in a forward pass and uses one of the two; `passes` says how often it is done here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PlainUNet2DCLSTM"]


def grouped(inputs: int, outputs: int, groups: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(groups, outputs), nn.LeakyReLU(0.01)]


def normalized(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.01)]


class Encode(nn.Module):
    """Two convolutions of one scale."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(*grouped(inputs, outputs, groups), *grouped(outputs, outputs, groups))

    def forward(self, frames: Tensor) -> Tensor:
        out: Tensor = self.encode(frames)
        return out


class Decode(nn.Module):
    """Two convolutions and a doubling."""

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.decode = nn.Sequential(
            *normalized(inputs, inner), *normalized(inner, inner), nn.ConvTranspose2d(inner, outputs, 2, stride=2)
        )

    def forward(self, frames: Tensor) -> Tensor:
        out: Tensor = self.decode(frames)
        return out


class UNetEncode(nn.Module):
    """The way down: maps of three scales."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enc3 = Encode(channels, 64, 4)
        self.enc4 = Encode(64, 128, 8)
        self.pool = nn.MaxPool2d(2)
        self.center = nn.Sequential(*grouped(128, 256, 16))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        enc3 = self.enc3(frames)
        enc4 = self.enc4(self.pool(enc3))
        return enc3, enc4, self.center(self.pool(enc4))


class UNetDecode(nn.Module):
    """The way up."""

    def __init__(self) -> None:
        super().__init__()
        self.center_decode = nn.Sequential(*grouped(256, 256, 16), nn.ConvTranspose2d(256, 128, 2, stride=2))
        self.dec4 = Decode(256, 128, 64)
        self.final = nn.Sequential(*normalized(128, 64), *normalized(64, 32), nn.Conv2d(32, 128, 3, padding=1))

    def forward(self, enc3: Tensor, enc4: Tensor, centre: Tensor) -> Tensor:
        up = self.dec4(torch.cat([self.center_decode(centre), enc4], dim=1))
        out: Tensor = self.final(torch.cat([up, enc3], dim=1))
        return out


class UNet(nn.Module):
    """Of each date by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.unet_encode = UNetEncode(channels)
        self.unet_decode = UNetDecode()

    def forward(self, frames: Tensor) -> Tensor:
        out: Tensor = self.unet_decode(*self.unet_encode(frames))
        return out


class RecurrentNorm(nn.Module):
    """Batch norm with one scale and statistics of each step."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.weight = nn.Parameter(torch.full((channels,), 0.1))
        for step in range(steps):
            self.register_buffer(f"running_mean_{step}", torch.zeros(channels))
            self.register_buffer(f"running_var_{step}", torch.ones(channels))

    def forward(self, values: Tensor, step: int) -> Tensor:
        row = min(step, self.steps - 1)
        mean, variance = getattr(self, f"running_mean_{row}"), getattr(self, f"running_var_{row}")
        return functional.batch_norm(values, mean, variance, self.weight, None, self.training, 0.1, 1e-5)


class Cell(nn.Module):
    """gates = RN_h(conv(h)) + RN_x(conv(x)); c = f c + i g; h = o RN_c(tanh(c))."""

    def __init__(self, channels: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.h_conv = nn.Conv2d(hidden, 4 * hidden, 3, padding=1)
        self.input_conv = nn.Conv2d(channels, 4 * hidden, 3, padding=1)
        self.h_norm = RecurrentNorm(4 * hidden, steps)
        self.input_norm = RecurrentNorm(4 * hidden, steps)
        self.cell_norm = RecurrentNorm(hidden, steps)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, step: int) -> tuple[Tensor, Tensor]:
        gates = self.h_norm(self.h_conv(h), step) + self.input_norm(self.input_conv(x), step)
        i, f, o, g = torch.split(gates, self.hidden, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * self.cell_norm(torch.tanh(c), step), c


class CLSTM(nn.Module):
    """All hidden states of one layer, (B, T, hidden, H, W)."""

    def __init__(self, channels: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.cell_list = nn.ModuleList([Cell(channels, hidden, steps)])

    def forward(self, series: Tensor) -> Tensor:
        b, t, _, h, w = series.shape
        hidden = cell = series.new_zeros(b, self.hidden, h, w)
        states = []
        for step in range(t):
            hidden, cell = self.cell_list[0](series[:, step], hidden, cell, step)
            states.append(hidden)
        return torch.stack(states, dim=1)


class PlainUNet2DCLSTM(nn.Module):
    """Channels (B, T, C, H, W) to logits (B, classes, H, W)."""

    def __init__(self, channels: int, *, dates: int, classes: int, passes: int = 1) -> None:
        super().__init__()
        self.passes = passes
        self.fcn = UNet(channels)
        self.crnn_main = nn.Module()
        self.crnn_main.clstm = CLSTM(128, 128, dates)
        self.main_finalconv = nn.Conv2d(128, classes, 3, padding=1)

    def forward(self, series: Tensor, valid: Tensor) -> Tensor:  # padding is like any other date
        b, t, c, h, w = series.shape
        features = self.fcn(series.reshape(b * t, c, h, w)).reshape(b, t, -1, h, w)
        for _ in range(self.passes):
            states = self.crnn_main.clstm(features)
        logits: Tensor = self.main_finalconv(states.mean(dim=1))
        return logits
