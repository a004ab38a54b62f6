"""Squares of two views around the same ground, for GLCNet's local matching.

Li et al., "Global and local contrastive self-supervised learning for semantic segmentation of HR remote sensing images"
(GLCNet), TGRS 2022. Different from the published code: of several pixels that show the ground pixel, the nearest to its
centre is taken, and not the first; a centre is never taken twice; and the ground of a chosen square stays to choose
from where fewer centres would be left than squares are still to be chosen, not only where one would be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sits_models.data.draws import Draws
from sits_models.data.matches import Common, common_ground, observed_pixels, random_order
from sits_models.data.views import View

__all__ = ["Regions", "match_regions"]


@dataclass(frozen=True)
class Regions:
    """n squares of B chips in two views. A square shares its centre with that of the other view and, where views differ
    in scale or orientation, only some of its ground."""

    first: Tensor
    """(B, n, 2) int64: row and column of the upper-left pixel of the square in the first view; 0 where there are
    fewer."""
    second: Tensor
    """(B, n, 2) int64: the same in the second view."""
    ground: Tensor
    """(B, n) int64: the ground at row side // 2 and column side // 2 of both squares; -1 where there are fewer."""
    found: Tensor
    """(B, n) bool: whether there is one; those that are stand in front."""
    side: int
    """Of all squares, pixels."""


def match_regions(a: View, b: View, n: int, side: int, draws: Draws) -> Regions:
    """n squares of `side` pixels in each view and chip, inside the views, centred on the same observed ground pixels.

    Centres are drawn one after the other, any as likely. All ground that a chosen square shows in the first view is no
    choice after it, as long as enough centres are left; so a chip has fewer than n squares only where the views share
    fewer centres than that, and none where their middles do not overlap. Raises ValueError for views too small for a
    square.
    """
    draws.check(len(a.ground))
    if n < 1 or side < 1:
        raise ValueError(f"regions are 1 or more, of 1 pixel or more; got {n} of {side}")
    common = common_ground(
        a,
        b,
        usable_first=observed_pixels(a) & _fits(a, side),
        usable_second=observed_pixels(b) & _fits(b, side),
    )
    chosen, found = _choose(common, random_order(common.both, draws), a, n, side)
    return Regions(
        first=_corner(common.first.gather(1, chosen), a, side).masked_fill(~found[..., None], 0),
        second=_corner(common.second.gather(1, chosen), b, side).masked_fill(~found[..., None], 0),
        ground=common.ground.gather(1, chosen).masked_fill(~found, -1),
        found=found,
        side=side,
    )


def _fits(view: View, side: int) -> Tensor:
    """(H, W) bool: a square centred here, from row - side // 2 on, lies inside."""
    height, width = view.ground.shape[1:]
    if side > min(height, width):
        raise ValueError(f"a region of {side} px lies inside a view; got views of {height} x {width} px")
    inside = torch.zeros((height, width), dtype=torch.bool, device=view.ground.device)
    half = side // 2
    inside[half : height - side + half + 1, half : width - side + half + 1] = True
    return inside


def _corner(pixel: Tensor, view: View, side: int) -> Tensor:
    """(B, n, 2): row and column of the upper-left pixel of the squares that are centred on pixels (B, n)."""
    width = view.ground.shape[2]
    return torch.stack([pixel // width, pixel % width], dim=2) - side // 2


def _choose(common: Common, keys: Tensor, a: View, n: int, side: int) -> tuple[Tensor, Tensor]:
    """(B, n) numbers in the lists of common ground, and which of them are."""
    free = common.both
    picked, found = [], []
    for chosen in range(n):
        place = keys.masked_fill(~free, 3.0).argmin(dim=1, keepdim=True)
        picked.append(place)
        found.append(free.gather(1, place))
        without = free.scatter(1, place, value=False)
        shown = _ground_of(_corner(common.first.gather(1, place), a, side)[:, 0], a, side)
        outside = without & ~_among(common.ground, shown)
        enough = outside.sum(dim=1, keepdim=True) >= n - chosen - 1
        free = torch.where(enough, outside, without)
    return torch.cat(picked, dim=1), torch.cat(found, dim=1)


def _ground_of(corner: Tensor, view: View, side: int) -> Tensor:
    """(B, side * side): numbers of the ground in the squares from corners (B, 2)."""
    height, width = view.ground.shape[1:]
    steps = torch.arange(side, device=corner.device)
    # A chip without a choice is given as a corner outside; what it removes does not matter.
    rows = (corner[:, :1] + steps).clamp(0, height - 1)
    columns = (corner[:, 1:] + steps).clamp(0, width - 1)
    pixels = rows[:, :, None] * width + columns[:, None, :]
    return view.ground.flatten(1).gather(1, pixels.flatten(1))


def _among(values: Tensor, few: Tensor) -> Tensor:
    """(B, N) bool: which values (B, N) are among the few (B, M) of their chip."""
    ordered = few.sort(dim=1).values
    place = torch.searchsorted(ordered, values).clamp(max=ordered.shape[1] - 1)
    return ordered.gather(1, place) == values
