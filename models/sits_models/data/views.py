"""Views of chips that know which ground each of their pixels shows: crops, resized or not, flips and turns.

Index tracking as of Li et al., "Global and local contrastive self-supervised learning for semantic segmentation of HR
remote sensing images" (GLCNet), TGRS 2022. There an image of numbers is resized with the picture; here
all that moves a pixel is one map of coordinates, made once and in whole numbers, from which both the values and the
numbers of ground pixels are read: nothing is rounded twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sits_catalog.cube import BOUNDARY_UNKNOWN
from sits_models.data.draws import Draws
from sits_models.data.transforms import LARGEST
from sits_models.recipe.views import Geometry
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["View", "draw_view", "whole_view"]

_TRIES = 10
"""Boxes drawn for a chip, of which the first that fits is taken; as torchvision's RandomResizedCrop does."""


@dataclass(frozen=True)
class View:
    """A changed sample that knows of each of its pixels which pixel of the original it shows."""

    sample: Sample
    """Its labels are hidden: no loss of a self-supervised objective sees any."""
    ground: Tensor
    """(B, H, W) int64: row * W0 + column of the pixel of the original whose centre is nearest to the pixel's own, at
    most 0.5 of the original's pixels away along rows and columns; -1 where the view's pixel shows none."""
    width: int | None = None
    """W0, pixels of a row of the original; None: not known, then no distances on the ground can be asked for."""
    distance: Tensor | None = None
    """(B, H, W) float32: from the pixel's centre to that of its ground pixel, in pixels of the original; None: 0
    everywhere, since nothing was resized."""

    def __post_init__(self) -> None:
        b, h, w = self.sample.boundary.shape
        for name, tensor in (("ground", self.ground), ("distance", self.distance)):
            if tensor is not None and tensor.shape != (b, h, w):
                raise ValueError(
                    f"{name} of a view of {b} chips of {h} x {w} px is {(b, h, w)}; got {tuple(tensor.shape)}"
                )


def whole_view(sample: Sample) -> View:
    """The view that shows all of a sample as it is, but for its labels."""
    b, h, w = sample.boundary.shape
    ground = torch.arange(h * w, device=sample.boundary.device).view(1, h, w).expand(b, h, w)
    return View(_unlabelled(sample, sample.image.to(torch.float32), sample.clear), ground, w)


def draw_view(sample: Sample, options: Geometry, draws: Draws) -> View:
    """A view of (B, T, C, n, n), n one of the sides, its image float32.

    A pixel of it is observed where its ground pixel is; its value is the weighted mean over those of the four pixels
    around its centre, and inside what the view shows, that are observed, so that no value mixes with a gap. `place` is
    as before: the corner of the original. Raises ValueError where a window does not fit into the chips.
    """
    draws.check(len(sample.image))
    map_ = _draw_map(sample, options, draws)
    device = sample.image.device
    ground = map_.ground.to(device)
    image = sample.image.to(torch.float32).flatten(-2)  # (B, T, C, H0*W0)
    interpolated = map_.resized and options.interpolation == "bilinear"
    values = _interpolated(image, map_, ground) if interpolated else _taken(image, ground)
    changed = _unlabelled(sample, values, _taken(sample.clear.flatten(-2), ground))
    distance = map_.distance.to(device) if map_.resized else None
    return View(changed, ground, sample.image.shape[-1], distance)


def _unlabelled(sample: Sample, image: Tensor, clear: Tensor) -> Sample:
    """With another image, and no labels."""
    b, _, _, h, w = image.shape
    return Sample(
        image=image,
        valid=sample.valid,
        day=sample.day,
        clear=clear,
        crop=torch.full((b, h, w), IGNORE_INDEX, device=clear.device),
        counted=torch.zeros((b, h, w), dtype=torch.bool, device=clear.device),
        parcel=torch.zeros((b, h, w), dtype=torch.int64, device=clear.device),
        boundary=torch.full((b, h, w), BOUNDARY_UNKNOWN, dtype=torch.int16, device=clear.device),
        place=sample.place,
        bands=sample.bands,
    )


@dataclass(frozen=True)
class _Axis:
    """Where a view's pixels lie along one axis of the original, (B, n)."""

    nearest: Tensor
    """int64: the nearest pixel."""
    before: Tensor
    """int64: the last pixel inside the box whose centre is not behind."""
    after: Tensor
    """int64: the first one inside that is, or `before` at the end of the box."""
    share: Tensor
    """float32: weight of `after` in a linear interpolation."""
    distance: Tensor
    """float32: to the centre of the nearest, in pixels."""


@dataclass(frozen=True)
class _Map:
    """From each pixel of a view to the original."""

    rows: _Axis
    columns: _Axis
    transposed: Tensor
    """(B,) bool: the view's columns go along the original's rows."""
    width: int
    resized: bool

    @property
    def ground(self) -> Tensor:
        return self.spread(self.rows.nearest, along_rows=True) * self.width + self.spread(
            self.columns.nearest, along_rows=False
        )

    @property
    def distance(self) -> Tensor:
        rows = self.spread(self.rows.distance, along_rows=True)
        return torch.hypot(rows, self.spread(self.columns.distance, along_rows=False))

    def spread(self, values: Tensor, *, along_rows: bool) -> Tensor:
        """(B, n, n): of values (B, n) of an axis, those of each pixel of the view."""
        n = values.shape[1]
        down, across = values[:, :, None].expand(-1, n, n), values[:, None, :].expand(-1, n, n)
        swapped = self.transposed[:, None, None]
        return torch.where(swapped, across, down) if along_rows else torch.where(swapped, down, across)


def _draw_map(sample: Sample, options: Geometry, draws: Draws) -> _Map:
    height, width = sample.image.shape[-2:]
    sides = options.sides or (sample.image.shape[-1],)
    side = sides[draws.shared_integer(len(sides))]
    heights, widths = _draw_boxes(height, width, side, options, draws)
    corners = draws.uniform(2).to(torch.float64)
    top, left = (corners[:, 0] * (height - heights + 1)).long(), (corners[:, 1] * (width - widths + 1)).long()
    turned = _draw_orientations(options, draws)
    return _Map(
        rows=_axis(top, heights, side, flipped=turned[:, 0]),
        columns=_axis(left, widths, side, flipped=turned[:, 1]),
        transposed=turned[:, 2],
        width=width,
        resized=options.scale is not None,
    )


def _draw_boxes(height: int, width: int, side: int, options: Geometry, draws: Draws) -> tuple[Tensor, Tensor]:
    """Height and width of what is shown of each chip, whole pixels, (B,) int64."""
    if options.scale is None:
        if side > min(height, width):
            raise ValueError(
                f"a window of {side} px, not resized, needs chips of that side; got {height} x {width} px: "
                "cut larger chips, or set a scale"
            )
        return torch.full((draws.count,), side), torch.full((draws.count,), side)
    drawn = draws.shared(_TRIES, 2).expand(draws.count, -1, -1) if options.shared else draws.uniform(_TRIES, 2)
    least, largest = options.scale
    area = height * width * (least + (largest - least) * drawn[..., 0].to(torch.float64))
    low, high = (math.log(ratio) for ratio in options.aspect)
    aspect = (low + (high - low) * drawn[..., 1].to(torch.float64)).exp()
    # (B, tries); what would have no pixel has one.
    heights, widths = ((area / aspect).sqrt().round().clamp(min=1), (area * aspect).sqrt().round().clamp(min=1))
    # Where none of them fits: the largest box of the nearest aspect, as torchvision's (there in the middle).
    ratio = min(max(width / height, options.aspect[0]), options.aspect[1])
    last = (min(height, round(width / ratio)), min(width, round(height * ratio)))
    heights = torch.cat([heights, torch.full_like(heights[:, :1], last[0])], dim=1)
    widths = torch.cat([widths, torch.full_like(widths[:, :1], last[1])], dim=1)
    fits = (heights <= height) & (widths <= width)
    first = fits.to(torch.int8).argmax(dim=1, keepdim=True)
    return heights.gather(1, first)[:, 0].long(), widths.gather(1, first)[:, 0].long()


# Rows flipped, columns flipped, then transposed: counter-clockwise by 0, 90, 180 and 270 degrees.
_TURNS = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 1, 0], [1, 0, 1]], dtype=torch.bool)
# Left-right, up-down, both, none.
_FLIPS = torch.tensor([[0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.bool)


def _draw_orientations(options: Geometry, draws: Draws) -> Tensor:
    """(B, 3) bool: rows flipped, columns flipped, and then transposed."""
    limits = torch.tensor(options.flips, dtype=torch.float64).cumsum(0)
    flips = _FLIPS[torch.bucketize(draws.uniform().to(torch.float64), limits, right=True)]
    turn, whether = draws.integers(4), draws.uniform() < options.turns
    return flips ^ _TURNS[torch.where(whether, turn, 0)]


def _axis(start: Tensor, length: Tensor, side: int, *, flipped: Tensor) -> _Axis:
    """Pixel i of a view of `side` lies at start + (i + 1/2) * length / side - 1/2, where centres are whole numbers.

    The nearest pixel is found in whole numbers, so that it does not depend on rounding: of two that are as near, the
    one behind.
    """
    i = torch.arange(side).expand(len(start), side)
    i = torch.where(flipped[:, None], side - 1 - i, i)
    twice = (2 * i + 1) * length[:, None]  # twice the position in the box, from its edge, in parts of `side`
    nearest = twice // (2 * side)
    centre = twice.to(torch.float64) / (2 * side) - 0.5
    inside = torch.minimum(centre.clamp(min=0), (length[:, None] - 1).to(torch.float64))
    before = inside.floor().to(torch.int64)
    return _Axis(
        nearest=start[:, None] + nearest,
        before=start[:, None] + before,
        after=start[:, None] + torch.minimum(before + 1, length[:, None] - 1),
        share=(inside - before).to(torch.float32),
        distance=(centre - nearest).abs().to(torch.float32),
    )


def _taken(pixels: Tensor, index: Tensor) -> Tensor:
    """(B, ..., n, n): the pixels of (B, ..., H0*W0) that an index (B, n, n) names."""
    b, *middle, _ = pixels.shape
    flat = index.view(b, 1, -1).expand(b, math.prod(middle), -1)
    return pixels.reshape(b, -1, pixels.shape[-1]).gather(2, flat).view(b, *middle, *index.shape[1:])


def _interpolated(image: Tensor, map_: _Map, ground: Tensor) -> Tensor:
    """(B, T, C, n, n) of (B, T, C, H0*W0): means over the observed of four pixels, 0 where the nearest is a gap."""
    total = weights = None
    for row, row_share in ((map_.rows.before, 1 - map_.rows.share), (map_.rows.after, map_.rows.share)):
        for column, share in ((map_.columns.before, 1 - map_.columns.share), (map_.columns.after, map_.columns.share)):
            pixel = map_.spread(row, along_rows=True) * map_.width + map_.spread(column, along_rows=False)
            weight = map_.spread(row_share, along_rows=True) * map_.spread(share, along_rows=False)
            values = _taken(image, pixel.to(image.device))  # (B, T, C, n, n)
            weight = weight.to(image.device)[:, None, None]
            seen = torch.where(values > 0, weight, 0.0)
            total = values * weight if total is None else total.addcmul_(values, weight)  # a gap adds 0
            weights = seen if weights is None else weights.add_(seen)
    assert total is not None
    assert weights is not None
    # The nearest pixel has a weight of 1/4 at least, so that nothing that is kept was divided by about 0.
    return (total / weights).clamp_(1.0, LARGEST).masked_fill_(_taken(image, ground) == 0, 0.0)
