"""U-TAE written straight from its description (Garnot and Landrieu 2021, section 3.1).

Entries are named as in the official code, so that `from_reference` of the backbone reads them. As there, each block of
the encoder takes the dates that are no padding out of the series and puts its output back into one.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PlainUTAE"]

HEADS = 16


class Convolutions(nn.Module):
    """Convolutions, each with norm and ReLU."""

    def __init__(
        self, widths: tuple[int, ...], *, norm: str, kernel: int = 3, stride: int = 1, padding_mode: str = "reflect"
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers.append(nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=1, padding_mode=padding_mode))
            layers.append(nn.GroupNorm(4, outputs) if norm == "group" else nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU())
        self.conv = nn.Sequential(*layers)

    def forward(self, frames: Tensor) -> Tensor:
        out: Tensor = self.conv(frames)
        return out


class EveryDate(nn.Module):
    """Applies `one` to every date that is no padding; padded dates stay 0."""

    def one(self, frames: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, series: Tensor, valid: Tensor) -> Tensor:
        b, t, c, h, w = series.shape
        kept = valid.reshape(b * t)
        out = self.one(series.reshape(b * t, c, h, w)[kept])
        filled = torch.zeros(b * t, *out.shape[1:], dtype=out.dtype, device=out.device)
        filled[kept] = out
        return filled.reshape(b, t, *out.shape[1:])


class ConvBlock(EveryDate):
    """The first convolutions."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = Convolutions(widths, norm="group")

    def one(self, frames: Tensor) -> Tensor:
        out: Tensor = self.conv(frames)
        return out


class DownBlock(EveryDate):
    """Strided convolution, convolution, residual convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = Convolutions((inputs, inputs), norm="group", kernel=4, stride=2)
        self.conv1 = Convolutions((inputs, outputs), norm="group")
        self.conv2 = Convolutions((outputs, outputs), norm="group")

    def one(self, frames: Tensor) -> Tensor:
        out: Tensor = self.conv1(self.down(frames))
        return out + self.conv2(out)


class UpBlock(nn.Module):
    """Transposed convolution, skip, convolution, residual convolution."""

    def __init__(self, inputs: int, outputs: int, skipped: int) -> None:
        super().__init__()
        self.skip_conv = nn.Sequential(nn.Conv2d(skipped, skipped, 1), nn.BatchNorm2d(skipped), nn.ReLU())
        self.up = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.conv1 = Convolutions((outputs + skipped, outputs), norm="batch")
        self.conv2 = Convolutions((outputs, outputs), norm="batch")

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        out = torch.cat([self.up(coarse), self.skip_conv(skip)], dim=1)
        out = self.conv1(out)
        return out + self.conv2(out)


class Attention(nn.Module):
    """Sixteen heads, each with a query that is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.Q = nn.Parameter(torch.randn(HEADS, 4) * 0.5**0.5)
        self.fc1_k = nn.Linear(256, HEADS * 4)
        self.dropout = nn.Dropout(0.1)

    def forward(self, values: Tensor, padded: Tensor) -> tuple[Tensor, Tensor]:
        n, t, _ = values.shape
        keys = self.fc1_k(values).reshape(n, t, HEADS, 4).permute(2, 0, 1, 3)  # (heads, N, T, 4)
        scores = torch.einsum("hk,hntk->hnt", self.Q, keys) / 2  # the root of 4
        scores = scores.masked_fill(padded, -1e3)
        attention = self.dropout(torch.softmax(scores, dim=-1))
        split = torch.stack(values.split(values.shape[-1] // HEADS, dim=-1))  # (heads, N, T, 16)
        return torch.einsum("hnt,hntv->hnv", attention, split), attention


class LTAE(nn.Module):
    """Lightweight temporal attention of every pixel of the coarsest map."""

    def __init__(self) -> None:
        super().__init__()
        self.inconv = nn.Conv1d(128, 256, 1)
        self.attention_heads = Attention()
        self.in_norm = nn.GroupNorm(HEADS, 128)
        self.out_norm = nn.GroupNorm(HEADS, 128)
        self.mlp = nn.Sequential(nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU())
        self.dropout = nn.Dropout(0.2)

    def forward(self, series: Tensor, valid: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        b, t, c, h, w = series.shape
        padded = (~valid)[:, None, None, :].expand(b, h, w, t).reshape(b * h * w, t)
        out = series.permute(0, 3, 4, 1, 2).reshape(b * h * w, t, c)
        out = self.in_norm(out.permute(0, 2, 1)).contiguous()
        out = self.inconv(out).permute(0, 2, 1)  # (B*h*w, T, 256)
        encoded = self.position(positions)[:, None, None].expand(b, h, w, t, 256).reshape(b * h * w, t, 256)
        out, attention = self.attention_heads(out + encoded, padded)
        out = out.permute(1, 0, 2).reshape(b * h * w, 256)
        out = self.out_norm(self.dropout(self.mlp(out)))
        out = out.reshape(b, h, w, 128).permute(0, 3, 1, 2)
        return out, attention.reshape(HEADS, b, h, w, t).permute(0, 1, 4, 2, 3)

    def position(self, days: Tensor) -> Tensor:
        each = 256 // HEADS
        channel = torch.arange(each, device=days.device)
        table = days[:, :, None].float() / torch.pow(1000.0, 2 * (channel // 2).float() / each)
        table = torch.where(channel % 2 == 0, torch.sin(table), torch.cos(table))
        return torch.cat([table] * HEADS, dim=-1)  # (B, T, 256)


class PlainUTAE(nn.Module):
    """Bands (B, T, C, H, W) and days since 2018-09-01 to logits (B, classes, H, W)."""

    def __init__(self, bands: int, *, classes: int) -> None:
        super().__init__()
        self.in_conv = ConvBlock((bands, 64, 64))
        self.down_blocks = nn.ModuleList([DownBlock(64, 64), DownBlock(64, 64), DownBlock(64, 128)])
        self.up_blocks = nn.ModuleList([UpBlock(128, 64, 64), UpBlock(64, 32, 64), UpBlock(32, 32, 64)])
        self.temporal_encoder = LTAE()
        self.out_conv = nn.Module()
        self.out_conv.conv = Convolutions((32, 32, classes), norm="batch")

    def forward(self, series: Tensor, valid: Tensor, positions: Tensor) -> Tensor:
        maps = [self.in_conv(series, valid)]
        for down in self.down_blocks:
            maps.append(down(maps[-1], valid))
        out, attention = self.temporal_encoder(maps[-1], valid, positions)
        for up, skip in zip(self.up_blocks, reversed(maps[:-1]), strict=True):
            out = up(out, self.over_time(skip, attention, valid))
        logits: Tensor = self.out_conv.conv(out)
        return logits

    def over_time(self, skip: Tensor, attention: Tensor, valid: Tensor) -> Tensor:
        heads, b, t, h, w = attention.shape
        size = skip.shape[-2:]
        fine = functional.interpolate(
            attention.reshape(heads * b, t, h, w), size=size, mode="bilinear", align_corners=False
        ).reshape(heads, b, t, 1, *size)
        fine = fine * valid[None, :, :, None, None, None]
        groups = torch.stack(skip.chunk(HEADS, dim=2))  # (heads, B, T, C / heads, H, W)
        weighted = (groups * fine).sum(dim=2)  # (heads, B, C / heads, H, W)
        return torch.cat(list(weighted), dim=1)
