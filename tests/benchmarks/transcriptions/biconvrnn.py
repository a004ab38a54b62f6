"""BiConvGRU and BiConvLSTM written straight from their description: convolutions that recur from each end.

Entries are named as in the official code (michaeltrs/DeepSatModels), so that `from_reference` of the backbone reads
them. The backward series is the valid dates reversed, then padded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ConvGRU", "ConvLSTM", "PlainBiConvRNN"]


def reversed_dates(series: Tensor, valid: Tensor) -> Tensor:
    """(B, T, C, H, W) with the valid dates, which stand first, in reverse."""
    out = torch.zeros_like(series)
    for row, length in enumerate(valid.sum(dim=1).tolist()):
        out[row, :length] = series[row, :length].flip(0)
    return out


class GRUCell(nn.Module):
    """u, r = sigmoid(conv[x, h]); o = tanh(conv[x, r h]); h = (1 - u) h + u o."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.reset_gate = nn.Conv2d(inputs + hidden, hidden, 3, padding=1)
        self.update_gate = nn.Conv2d(inputs + hidden, hidden, 3, padding=1)
        self.out_gate = nn.Conv2d(inputs + hidden, hidden, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        both = torch.cat([x, h], dim=1)
        update, reset = torch.sigmoid(self.update_gate(both)), torch.sigmoid(self.reset_gate(both))
        new = torch.tanh(self.out_gate(torch.cat([x, h * reset], dim=1)))
        return h * (1 - update) + new * update


class ConvGRU(nn.Module):
    """All states, (B, T, hidden, H, W)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell_list = nn.ModuleList([GRUCell(inputs, hidden)])
        self.hidden = hidden

    def forward(self, series: Tensor) -> Tensor:
        b, t, _, h, w = series.shape
        state = series.new_zeros(b, self.hidden, h, w)
        states = []
        for step in range(t):
            state = self.cell_list[0](series[:, step], state)
            states.append(state)
        return torch.stack(states, dim=1)


class LSTMCell(nn.Module):
    """i, f, o = sigmoid, g = tanh of conv[x, h]; c = f c + i g; h = o tanh(c)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.conv = nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = torch.split(self.conv(torch.cat([x, h], dim=1)), self.hidden, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class ConvLSTM(nn.Module):
    """All hidden states, (B, T, hidden, H, W)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell_list = nn.ModuleList([LSTMCell(inputs, hidden)])
        self.hidden = hidden

    def forward(self, series: Tensor) -> Tensor:
        b, t, _, h, w = series.shape
        hidden = cell = series.new_zeros(b, self.hidden, h, w)
        states = []
        for step in range(t):
            hidden, cell = self.cell_list[0](series[:, step], hidden, cell)
            states.append(hidden)
        return torch.stack(states, dim=1)


class PlainBiConvRNN(nn.Module):
    """Channels (B, T, C, H, W) to the logarithms of probabilities, (B, classes, H, W)."""

    def __init__(self, channels: int, kind: type[ConvGRU] | type[ConvLSTM], *, classes: int) -> None:
        super().__init__()
        self.inconv = nn.Conv3d(channels, 64, (1, 3, 3), padding=(0, 1, 1))
        self.forward_model = kind(64, 256)
        self.backward_model = kind(64, 256)
        self.outconv = nn.Conv2d(512, classes, 3, padding=1)

    def forward(self, series: Tensor, valid: Tensor) -> Tensor:
        last = valid.sum(dim=1) - 1
        rows = torch.arange(len(series), device=series.device)
        ends = []
        for model, dates in ((self.forward_model, series), (self.backward_model, reversed_dates(series, valid))):
            features = self.inconv(dates.permute(0, 2, 1, 3, 4)).permute(0, 2, 1, 3, 4)
            ends.append(model(features)[rows, last])
        return torch.log_softmax(self.outconv(torch.cat(ends, dim=1)), dim=1)
