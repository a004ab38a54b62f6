"""Global style and local matching contrast (GLCNet): whole chips by their style, and the same ground in two views.

H. Li, Y. Li, G. Zhang, R. Liu, H. Huang, Q. Zhu, C. Tao, "Global and local contrastive self-supervised learning for
semantic segmentation of HR remote sensing images", IEEE TGRS 2022; code: github.com/GeoX-Lab/G-RSIM, T-SS-GLCNet.

The style of a chip is the mean and the unbiased variance of each channel of DeepLabV3+'s joined branches. A region is
the mean of a map of a decoder, resized to pixels with corners on corners, over a rectangle. Both go through projection
heads of two layers and into NT-Xent, with the positive left out of the denominator, and the two losses are weighted.

Deliberate differences: negatives are those of all processes, where the original takes those of its own; the mean over a
rectangle is made from the map of the decoder as it is, since the resize is linear, and not from a copy of each region;
a `weight` between two losses is not applied where a mode has one alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn

from sits_models.backbones import deeplab
from sits_models.backbones.deeplab import DeepLab
from sits_models.data.draws import Draws
from sits_models.data.looks import draw_look, draw_single
from sits_models.data.regions import Regions, match_regions
from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss, Objective
from sits_models.objectives.chip_embeddings import embed_maps, enough_chips, leave_decoder_out, require_plain
from sits_models.objectives.projection import build_projection
from sits_models.objectives.region_means import region_means
from sits_models.objectives.view_contrast import Found, ViewContrast, count_of
from sits_models.recipe import Augmentation, GLCNetRecipe
from sits_models.sample import Sample

__all__ = [
    "GlobalLocalContrast",
    "Mode",
    "RegionViews",
    "from_reference",
    "style_of",
]

Mode = Literal["glcnet", "no_style", "no_global", "no_local"]
"""All of it; means without variances; regions alone; whole chips alone: the ablations of the paper."""


@dataclass(frozen=True, kw_only=True)
class RegionViews:
    """Two views of each chip, and rectangles in them that show the same ground, or nearly so."""

    first: Sample
    second: Sample
    first_regions: Tensor
    """(B, n, 4) integers, up to n a chip: top, bottom, left and right in pixels of the first view; the rows top to
    bottom - 1 and the columns left to right - 1 are inside, as in a slice. Where no regions are compared n may be 0."""
    second_regions: Tensor
    """(B, n, 4): in the second view, region for region."""
    counted: Tensor
    """(B, n) bool: False in place of a region that a chip has not, whose rectangles are any inside of the views."""

    def __post_init__(self) -> None:
        chips = self.first.image.shape[0]
        shapes = tuple(self.first_regions.shape), tuple(self.second_regions.shape)
        if len(shapes[0]) != 3 or shapes[0][::2] != (chips, 4) or shapes[0] != shapes[1]:
            raise ValueError(
                f"{chips} chips have regions (B, n, 4), as many in both views; got {shapes[0]} and {shapes[1]}"
            )
        if tuple(self.counted.shape) != shapes[0][:2]:
            raise ValueError(f"of regions {shapes[0]} these count, {shapes[0][:2]}; got {tuple(self.counted.shape)}")
        if self.second.image.shape[0] != chips:
            raise ValueError(f"two views show the same chips; got {chips} and {self.second.image.shape[0]}")

    @classmethod
    def of(cls, first: Sample, second: Sample, squares: Regions) -> Self:
        """Of squares that were matched in the two views."""
        rectangles = [
            torch.cat([corner, corner + squares.side], dim=2)[..., [0, 2, 1, 3]]  # (B, n, 4)
            for corner in (squares.first, squares.second)
        ]
        return cls(
            first=first,
            second=second,
            first_regions=rectangles[0],
            second_regions=rectangles[1],
            counted=squares.found,
        )


class GlobalLocalContrast(Objective[RegionViews]):
    """A DeepLab, a decoder for regions and two projection heads."""

    def __init__(self, encoder: Encoder, *, options: GLCNetRecipe) -> None:
        """Raises ValueError for a backbone that has not the two maps of a DeepLab, or for finer labels."""
        super().__init__()
        backbone = encoder.backbone
        if not isinstance(backbone, DeepLab):
            raise ValueError(  # noqa: TRY004  # of a recipe, like all that an objective refuses
                "a contrast of style and regions needs the two maps of a DeepLab; "
                f"{type(backbone).__name__} has not both: choose deeplab_resnet50 or deeplab_resnet18"
            )
        require_plain(encoder, "a contrast of style and regions")
        leave_decoder_out(encoder)
        self.encoder = encoder
        self.options = options
        self.contrast = ViewContrast(temperature=options.temperature, decoupled=options.decoupled)
        context, channels = backbone.context_channels, options.channels
        if self.compares_regions:
            self.decoder = backbone.new_decoder()
            self.region_map = nn.Conv2d(context, channels, 1)
            self.region_head = _head(channels, channels, channels)
        if self.compares_chips:
            style = context if options.mode == "no_style" else 2 * context
            self.style_head = _head(style, context, channels)

    @property
    def compares_chips(self) -> bool:
        """Whether there is a global contrast."""
        return self.options.mode != "no_global"

    @property
    def compares_regions(self) -> bool:
        """Whether there is a local contrast."""
        return self.options.mode != "no_local"

    def views(self, sample: Sample, augmentation: Augmentation, draws: Draws) -> RegionViews:  # noqa: ARG002
        """Two views of one date, the second of other values, and regions that both show; chips without a date that is
        clear enough are left out."""
        options = self.options
        (date,), there = draw_single(sample, options.dates, draws)
        first = draw_look(date, options.first, None, draws)
        second = draw_look(date, options.second, options.photometry, draws)
        views = RegionViews.of(
            first.sample, second.sample, match_regions(first, second, options.regions, options.region, draws)
        )
        there = enough_chips(self.encoder, there, side=views.first.image.shape[-1])
        return RegionViews(
            first=views.first.take(there),
            second=views.second.take(there),
            first_regions=views.first_regions[there],
            second_regions=views.second_regions[there],
            counted=views.counted[there],
        )

    def loss(self, views: RegionViews) -> Loss:
        """The loss of a batch; watched: both losses, how often the positive is found, and the effective rank.

        It counts the chips of both views, or the regions where there is no global contrast; 0 where no other is there
        to tell one from. Raises ValueError for regions that are not inside, or for views without a place for any.
        """
        if self.compares_regions and views.first_regions.shape[1] == 0:
            raise ValueError(
                f"the mode {self.options.mode} compares regions; got none: give some, or choose the mode no_local"
            )
        sides = ((views.first, views.first_regions), (views.second, views.second_regions))
        chips, regions = zip(
            *(self.embed(sample, taken, counted=views.counted) for sample, taken in sides), strict=True
        )
        return self._joined(self._found(*chips), self._found(*regions), counted=views.counted)

    def embed(self, sample: Sample, regions: Tensor, *, counted: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The projections of chips (B, D), and of the regions that count (N, D), chip by chip; None where a mode has
        none."""
        fine, context = embed_maps(self.encoder, sample)
        chips, matched = None, None
        if self.compares_chips:
            chips = cast(Tensor, self.style_head(style_of(context, variance=self.options.mode != "no_style")))
        if self.compares_regions:
            size = (sample.image.shape[-2], sample.image.shape[-1])
            means = region_means(self.region_map(self.decoder(fine, context)), regions, size=size)  # (B, n, C)
            matched = cast(Tensor, self.region_head(means[counted.to(means.device)]))
        return chips, matched

    def _found(self, first: Tensor | None, second: Tensor | None) -> Found | None:
        if first is None or second is None:
            return None
        return self.contrast(first, second, gathered=self.compared)

    def _joined(self, chips: Found | None, regions: Found | None, *, counted: Tensor) -> Loss:
        device = next(one.value.device for one in (chips, regions) if one is not None)
        matched = torch.zeros((), device=device)
        if regions is not None and regions.pairs > 1:
            matched = (2.0 * counted.sum()).to(device)
        watched = _watched(regions, "local")
        over = dict.fromkeys(watched, matched)
        if chips is None:
            assert regions is not None  # a mode has one of the two at least
            return Loss(regions.value, matched, watched, over)
        count = count_of(chips, chips=len(counted), device=device)
        value = chips.value
        if regions is not None:
            # A mean over the regions of all processes, though what they are weighted by is the number of their chips.
            share = matched / (2 * max(1, len(counted))) * chips.pairs / max(1, regions.pairs)
            value = self.options.weight * value + (1 - self.options.weight) * share * regions.value
            value = value if chips.pairs > 1 else value * 0
        return Loss(value, count, _watched(chips, "global") | watched, over)


def style_of(context: Tensor, *, variance: bool) -> Tensor:
    """Means over the pixels of a map (B, C, H, W), and behind them the unbiased variances: (B, C) or (B, 2C), float32.

    Raises ValueError for the variance of a single pixel.
    """
    pixels = context.flatten(2).to(torch.promote_types(context.dtype, torch.float32))  # (B, C, H*W)
    if not variance:
        return pixels.mean(dim=2)
    if pixels.shape[2] < 2:
        raise ValueError(
            "a style has the variance over the pixels of a map, one for each 16 x 16 of the chip; got 1 pixel: give "
            "data.size above 16, or choose the mode no_style"
        )
    if not len(pixels):  # for which torch warns of too few values
        return pixels.sum(dim=2).repeat(1, 2)
    return torch.cat(torch.var_mean(pixels, dim=2, correction=1)[::-1], dim=1)


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return build_projection(inputs, hidden=(hidden,), outputs=outputs, kind="vector", batch_norm=False)


def _watched(found: Found | None, kind: str) -> dict[str, Tensor]:
    if found is None:
        return {}
    return {
        f"loss_{kind}": found.value.detach(),
        f"accuracy_{kind}": found.accuracy,
        f"effective_rank_{kind}": found.effective_rank,
    }


_REFERENCE_NAMES = (
    (r"decoder\.conv1\.(.*)", r"decoder.reduce.0.\1"),
    (r"decoder\.bn1\.(.*)", r"decoder.reduce.1.\1"),
    (r"decoder\.conv2\.(.*)", r"decoder.join.0.\1"),
    (r"decoder\.bn2\.(.*)", r"decoder.join.1.\1"),
    (r"decoder\.conv3\.(.*)", r"decoder.join.4.\1"),
    (r"decoder\.bn3\.(.*)", r"decoder.join.5.\1"),
    (r"decoder\.conv41\.(.*)", r"region_map.\1"),
    (r"proj\.(.*)", r"style_head.\1"),
    (r"proj1\.(.*)", r"region_head.\1"),
)


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of GLCNet's network for pretraining (G-RSIM, v3p_encoder) by the names of our objective.

    Raises ValueError for an entry it does not know.
    """
    return {rename(name.removeprefix("module.")): tensor for name, tensor in state.items()}


def rename(name: str) -> str:
    """Our name of an entry of the original.

    >>> rename("decoder.conv41.bias")
    'region_map.bias'
    """
    for pattern, replacement in _REFERENCE_NAMES:
        if found := re.fullmatch(pattern, name):
            return found.expand(replacement)
    if name.startswith(("backbone.", "encoder.")):
        return deeplab.rename(name)
    raise ValueError(f"GLCNet's network for pretraining has no entry {name!r}; give the state dict of one")
