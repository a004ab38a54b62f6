"""TSViT: a transformer over the dates of each patch, then one over the patches for each class.

M. Tarasiou, E. Chavez, S. Zafeiriou, "ViTs for SITS: vision transformers for satellite image time series", CVPR 2023,
section 3; official code: github.com/michaeltrs/DeepSatModels (TSViTdense.py, TSViTcls.py).

Deliberate differences, none of which changes a value of `paper` beyond rounding: the last layer over time computes the
class tokens alone, which are all that is read of it, and in the classifier the last layer over space its one token; a
day's embedding is looked up instead of multiplied out of a one-hot vector; it comes from `day` and not from a channel
of the image.

`variant="fixed"` mends that

- the values of the patches are laid out as if each patch were a run of pixels of a row (pixel i of the chip is element
  i % p^2 of patch i // p^2): every value goes where it lies in its patch;
- 19 days of the year come out one too small, since the day goes through float32, and a classifier has no embedding of
  the days 365 and 366, where the official code fails and `paper` takes that of day 364: every day has its own;
- padded dates are attended to as black images of a day 0: they are masked, and not computed where all series of a batch
  are shorter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones.base import (
    YEAR_DAYS,
    Backbone,
    Needs,
    TimeChannel,
    calendar_of,
    checkpointed,
    scaled,
    with_time_channels,
)
from sits_models.backbones.transformer import Run, Transformer
from sits_models.recipe import HeadKind, TransformerRecipe, Variant

__all__ = ["TSViT", "TSViTParcel", "from_reference"]

PUBLISHED_SIZE = 24
"""Side of the chips of PASTIS24, pixels."""
EMBEDDING_TOKENS = 16
"""Tokens where an embedding is asked for and no classes: its channels are shared among them, or among fewer."""


class _TSViT(Backbone):
    """What both share: all but what is made of the patches of each token at the end."""

    head: HeadKind = "none"
    ignores_order = True
    published_days: int
    """Days that have an embedding in the official code."""
    published_sizes: TransformerRecipe
    """Those of PASTIS."""

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
        transformer: TransformerRecipe | None = None,
        expansion: int = 4,
    ) -> None:
        """With `outputs` it has a token for each of so many classes, and gives their logits.

        `transformer` None: `published_sizes`. `expansion` is the factor on the channels inside the MLPs. Raises
        ValueError for a size that is no multiple of the patch.
        """
        super().__init__()
        sizes = transformer or self.published_sizes
        side = PUBLISHED_SIZE + -PUBLISHED_SIZE % sizes.patch if size is None else size
        if side % sizes.patch or side < 1:
            raise ValueError(
                f"{type(self).__name__} cuts a chip into patches of {sizes.patch} px, so its side is a multiple of "
                f"that; got {side}: change data.size or backbone.transformer.patch"
            )
        self.variant, self.patch, self.heads, self.dropout = variant, sizes.patch, sizes.heads, sizes.dropout
        self.time_channels: tuple[TimeChannel, ...] = time_channels or ()
        self.ignores_padding = variant == "fixed"
        self.needs = Needs(dates=None, size_multiple=sizes.patch, min_size=sizes.patch, size=side)
        self.tile_size = side
        self.channels = scaled(128, width) if outputs is None else outputs
        tokens = self.channels if outputs is not None else math.gcd(self.channels, EMBEDDING_TOKENS)
        if outputs is None:
            self.head = "linear"
        self.of_task = () if outputs is None else ("over_time.tokens", "last.")
        dim, square = scaled(128, width), sizes.patch**2
        layers = {"heads": sizes.heads, "head_channels": sizes.head_channels, "hidden": expansion * dim}
        self.over_time = _OverTime(
            (bands + len(self.time_channels)) * square,
            dim,
            tokens=tokens,
            days=published_rows(self.published_days) if variant == "paper" else exact_rows(),
            transformer=Transformer(dim, depth=sizes.temporal_depth, dropout=sizes.dropout, **layers),
        )
        self.places = nn.Parameter(torch.randn((side // sizes.patch) ** 2, dim))
        if self.stride == 0:
            self.chip = nn.Parameter(torch.randn(1, dim))
        self.over_space = Transformer(dim, depth=sizes.spatial_depth, dropout=sizes.dropout, **layers)
        values = self.channels // tokens * (1 if self.stride == 0 else square)
        self.last = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, values))

    def embed_patches(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """Each token at each patch, the patches row by row: (B, tokens, patches, D)."""
        series = with_time_channels(image, valid, day, self.time_channels)
        masked = self.variant == "fixed"
        if masked:
            series, valid, day, masked = _shortened(series, valid, day)
        b, t, c, h, w = series.shape
        p = self.patch
        patches = series.reshape(b, t, c, h // p, p, w // p, p).permute(0, 3, 5, 1, 4, 6, 2)  # (B, h, w, T, p, p, C)
        day_of_year = torch.where(valid, calendar_of(day)[1], 0)
        tokens: Tensor = self.over_time(
            patches.reshape(b, -1, t, p * p * c),
            day_of_year,
            seen=valid if masked else None,
            run=partial(checkpointed, self),
        )
        placed = tokens.transpose(1, 2) + self.places  # (B, tokens, patches, D)
        return functional.dropout(placed, self.dropout, self.training) if self.dropout else placed


class TSViT(_TSViT):
    """The dense TSViT: a map of each class token, laid together from what the token gives at each patch."""

    published_days = 366
    published_sizes = TransformerRecipe()

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """The logits or the embedding, (B, channels, H, W)."""
        placed = self.embed_patches(image, valid, day)
        run = partial(checkpointed, self)
        maps: Tensor = self.last(self.over_space(placed.flatten(0, 1), run=run))  # (B*tokens, patches, maps*p*p)
        b, _, _, height, width = image.shape
        p = self.patch
        if self.variant == "paper":  # as published: each patch is a run of the raster
            maps = maps.reshape(*maps.shape[:2], -1, p * p).transpose(1, 2)  # (B*tokens, maps, patches, p*p)
            return maps.reshape(b, self.channels, height, width)
        maps = maps.reshape(b, -1, height // p, width // p, maps.shape[2] // (p * p), p, p)
        return maps.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, self.channels, height, width)


class TSViTParcel(_TSViT):
    """The TSViT that classifies a chip, as 1 x 1 pixel: a further token, put in front of the patches, is read."""

    stride = 0
    published_days = 365
    published_sizes = TransformerRecipe(patch=3, temporal_depth=8, head_channels=64)

    def embed(self, image: Tensor, valid: Tensor, day: Tensor) -> Tensor:
        """The logits or the embedding, (B, channels, 1, 1)."""
        placed = self.embed_patches(image, valid, day).flatten(0, 1)  # (B*tokens, patches, D)
        tokens = torch.cat([self.chip.expand(placed.shape[0], 1, -1), placed], dim=1)
        read: Tensor = self.over_space(tokens, run=partial(checkpointed, self), kept=1)
        values: Tensor = self.last(read)  # (B*tokens, 1, values)
        return values.reshape(image.shape[0], self.channels, 1, 1)


class _OverTime(nn.Module):
    """Tokens, one for each class, that attend to the dates of a patch and to each other."""

    rows: Tensor

    def __init__(
        self, inputs: int, channels: int, *, tokens: int, days: tuple[int, ...], transformer: Transformer
    ) -> None:
        """`inputs` are the values of a patch at a date, `days` the row in the table of each day of the year."""
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(tokens, channels))
        self.patches = nn.Linear(inputs, channels)
        self.days = _Table(max(days) + 1, channels)
        self.transformer = transformer
        self.register_buffer("rows", torch.tensor(days), persistent=False)

    def forward(self, patches: Tensor, day_of_year: Tensor, *, seen: Tensor | None, run: Run) -> Tensor:
        """Patches (B, N, T, inputs) and days of the year (B, T), 0 for padding, to (B, N, tokens, channels).

        `seen` (B, T) is False for dates that are not attended to; None: all are.
        """
        b, n, t, _ = patches.shape
        number, channels = self.tokens.shape
        dates = self.patches(patches) + self.days(self.rows[day_of_year])[:, None]  # (B, N, T, D)
        tokens = torch.cat([self.tokens.expand(b, n, number, channels), dates], dim=2)  # (B, N, tokens + T, D)
        if seen is not None:
            seen = torch.cat([seen.new_ones(b, number), seen], dim=1)[:, None].expand(b, n, number + t).flatten(0, 1)
        kept: Tensor = self.transformer(tokens.flatten(0, 1), run=run, kept=number, seen=seen)
        return kept.reshape(b, n, number, channels)


class _Table(nn.Module):
    """A linear layer on one-hot vectors, drawn as one, without the vectors."""

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(rows)
        self.weight = nn.Parameter(torch.empty(rows, channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))

    def forward(self, row: Tensor) -> Tensor:
        """Rows (B, T) to (B, T, channels)."""
        return functional.embedding(row, self.weight) + self.bias


def published_rows(days: int) -> tuple[int, ...]:
    """Where the official code finds the days 0 (padding) to 366 in its table; beyond its end, the last row.

    Divided and multiplied again in float32, some come out just below the whole number that they were.

    >>> [day for day, row in enumerate(published_rows(366)) if row != day][:4]
    [13, 26, 52, 59]
    """
    ratio = np.arange(367, dtype=np.float32) / np.float32(YEAR_DAYS)
    return tuple(min(int(day), days - 1) for day in ratio * np.float32(YEAR_DAYS))


def exact_rows() -> tuple[int, ...]:
    """A row for each of the days 1 to 366; padding is masked and may have any."""
    return (0, *range(366))


def _shortened(series: Tensor, valid: Tensor, day: Tensor) -> tuple[Tensor, Tensor, Tensor, bool]:
    """The batch with valid dates first and no more dates than its longest series; whether padding is left.

    Where shapes may not depend on values, as in an export, it is left as it is.
    """
    if torch.compiler.is_compiling():
        return series, valid, day, True
    least, most = (int(number) for number in valid.sum(1).aminmax())
    if most == valid.shape[1]:
        return series, valid, day, least < most
    order = valid.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : max(most, 1)]
    chip = torch.arange(len(valid), device=valid.device)[:, None]
    return series[chip, order], valid[chip, order], day[chip, order], least < max(most, 1)


_REFERENCE_NAMES = (
    (r"temporal_token$", "over_time.tokens"),
    (r"space_token$", "chip"),
    (r"space_pos_embedding$", "places"),
    (r"to_patch_embedding\.1\.", "over_time.patches."),
    (r"to_temporal_embedding_input\.", "over_time.days."),
    (r"temporal_transformer\.", "over_time.transformer."),
    (r"space_transformer\.", "over_space."),
    (r"mlp_head\.", "last."),
)
_REFERENCE_LAYERS = {
    "0.norm": "attention_norm",
    "0.fn.to_qkv": "qkv",
    "0.fn.to_out.0": "out",
    "1.norm": "mlp_norm",
    "1.fn.net.0": "up",
    "1.fn.net.3": "down",
}

CLASS_TOKENS = "encoder.backbone.over_time.tokens"
"""Name of the tensor of an objective that has a row for each class."""


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the original (TSViT or TSViTcls of DeepSatModels) by the names of our objective.

    Raises ValueError for an entry it does not know.
    """
    ours = {}
    for name, tensor in state.items():
        ours[f"encoder.backbone.{rename(name.removeprefix('module.'))}"] = tensor  # module.: of several GPUs
    for name in ("over_time.tokens", "chip", "places"):  # (1, number, D) there
        if (key := f"encoder.backbone.{name}") in ours:
            ours[key] = ours[key].squeeze(0)
    table = "encoder.backbone.over_time.days.weight"
    if table in ours and ours[table].ndim == 2:  # a linear layer on one-hot vectors there
        ours[table] = ours[table].T.contiguous()
    return ours


def rename(name: str) -> str:
    """Our name of an entry of the original, within the backbone.

    >>> rename("space_transformer.layers.3.1.fn.net.0.bias")
    'over_space.layers.3.up.bias'
    """
    for pattern, replacement in _REFERENCE_NAMES:
        if found := re.match(pattern, name):
            rest = re.fullmatch(r"(layers\.\d+)\.(\d\..*)\.(weight|bias)", name[found.end() :])
            if rest is None:
                return replacement + name[found.end() :]
            if rest[2] in _REFERENCE_LAYERS:
                return f"{replacement}{rest[1]}.{_REFERENCE_LAYERS[rest[2]]}.{rest[3]}"
    raise ValueError(f"a TSViT of DeepSatModels has no entry {name!r}; give the state dict of one")


def sizes_of(tensors: Mapping[str, Tensor], *, bands: int, heads: int) -> tuple[TransformerRecipe, float, int]:
    """The sizes, the width and the side of a chip of weights that `from_reference` named; heads shapes do not tell.

    Raises ValueError where they are not those of a TSViT of so many bands and heads.
    """
    if bands < 1 or heads < 1:
        raise ValueError(f"a TSViT has at least a band and a head; got {bands} bands and {heads} heads")
    own = {name.removeprefix("encoder.backbone."): tensor for name, tensor in tensors.items()}
    for name in ("over_time.patches.weight", "over_space.layers.0.qkv.weight", "places"):
        if name not in own:
            raise ValueError(f"these are no weights of a TSViT: {name} is missing")
        if own[name].ndim != 2:
            raise ValueError(f"these are no weights of a TSViT: {name} has the shape {tuple(own[name].shape)}")
    dim, inputs = own["over_time.patches.weight"].shape
    inner = own["over_space.layers.0.qkv.weight"].shape[0] // 3
    places = len(own["places"])
    patch, side = math.isqrt(inputs // bands), math.isqrt(places)
    if patch**2 * bands != inputs or side**2 != places:
        raise ValueError(f"these weights take {inputs} values a patch, which is no square patch of {bands} bands")
    if inner % heads:
        raise ValueError(f"these weights have {inner} channels in all heads, which {heads} heads do not share evenly")
    depths = [
        len({name.split(".layers.")[1].split(".")[0] for name in own if name.startswith(f"{part}.layers.")})
        for part in ("over_time.transformer", "over_space")
    ]
    recipe = TransformerRecipe(
        patch=patch, temporal_depth=depths[0], spatial_depth=depths[1], heads=heads, head_channels=inner // heads
    )
    return recipe, dim / 128, side * patch
