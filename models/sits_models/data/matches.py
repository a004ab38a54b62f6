"""Pixels of two views that show the same ground, drawn anew for each chip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sits_models.data.draws import Draws
from sits_models.data.views import View

__all__ = ["Common", "Matches", "common_ground", "match_pixels", "observed_pixels", "random_order"]


@dataclass(frozen=True)
class Matches:
    """n pixels of the ground of each of B chips, and where two views show them; distinct ground for a chip."""

    ground: Tensor
    """(B, n) int64: number of the pixel in the original; -1 where there are fewer."""
    first: Tensor
    """(B, n) int64: row * W + column of the pixel of the first view whose centre is nearest to the ground pixel's; 0
    where there are fewer."""
    second: Tensor
    """(B, n) int64: the same in the second view."""
    found: Tensor
    """(B, n) bool: whether there is one; those that are stand in front."""


@dataclass(frozen=True)
class Common:
    """The ground that two views both show: a list for each chip, as long as the first view has pixels, with gaps."""

    ground: Tensor
    """(B, H*W) int64, ascending: the ground of all pixels of the first view, -1 for unusable ones."""
    first: Tensor
    """(B, H*W) int64: the first view's pixel."""
    second: Tensor
    """(B, H*W) int64: the second view's pixel; means nothing where it is not `both`."""
    both: Tensor
    """(B, H*W) bool: the second view shows it too, and no entry before is of the same ground."""


def match_pixels(a: View, b: View, n: int, draws: Draws, *, apart: int = 0) -> Matches:
    """n pixels of the ground that both views observe on any date, uniformly and without replacement.

    With `apart` no two of them are nearer to each other, in pixels of the original: pixels are drawn one after the
    other, any as likely that is far enough from those before. Memory is a few times that of a view's numbers of ground
    pixels. Raises ValueError where `apart` is asked of a view that does not know the width of its original.
    """
    draws.check(len(a.ground))
    if n < 1 or apart < 0:
        raise ValueError(f"1 pixel or more is matched, 0 or more apart; got {n} and {apart}")
    common = common_ground(a, b, usable_first=observed_pixels(a), usable_second=observed_pixels(b))
    keys = random_order(common.both, draws)
    # Each that is taken keeps (2 apart - 1)^2 pixels at most from being so: of n times as many, in whatever order, n
    # are apart from each other, or there are no more of them.
    looked_at = min(keys.shape[1], n * max(1, 2 * apart - 1) ** 2)
    order = keys.topk(looked_at, dim=1, largest=False, sorted=True).indices
    if apart > 1:
        if a.width is None:
            raise ValueError("pixels apart from each other need a view that knows the width of its original")
        chosen, found = _far_apart(order, common, n, apart=apart, width=a.width)
    else:
        missing = order[:, :1].expand(-1, n - looked_at)
        chosen = torch.cat([order, missing], dim=1)
        found = common.both.gather(1, chosen) & (torch.arange(n, device=order.device) < looked_at)
    return Matches(
        ground=common.ground.gather(1, chosen).masked_fill(~found, -1),
        first=common.first.gather(1, chosen).masked_fill(~found, 0),
        second=common.second.gather(1, chosen).masked_fill(~found, 0),
        found=found,
    )


def random_order(choice: Tensor, draws: Draws) -> Tensor:
    """(B, N) float64: distinct keys by which what is a `choice` (B, N) stands in front, in any order as likely."""
    n = choice.shape[1]
    # Draws are multiples of 2^-24 and repeat: by the place too, so that no sort on any device decides.
    by_place = torch.arange(n, dtype=torch.float64) * 2.0**-48
    return (draws.uniform(n) + by_place).to(choice.device).masked_fill(~choice, 2.0)


def _far_apart(order: Tensor, common: Common, n: int, *, apart: int, width: int) -> tuple[Tensor, Tensor]:
    """(B, n) numbers in the lists of common ground, and which of them are: the first in order, then the next, ..."""
    ground, free = common.ground.gather(1, order), common.both.gather(1, order)
    rows, columns = ground // width, ground % width
    picked, found = [], []
    for _ in range(n):
        place = free.to(torch.int8).argmax(dim=1, keepdim=True)
        picked.append(place)
        found.append(free.gather(1, place))
        across = (rows - rows.gather(1, place)) ** 2 + (columns - columns.gather(1, place)) ** 2
        free = free & (across >= apart**2)
    return order.gather(1, torch.cat(picked, dim=1)), torch.cat(found, dim=1)


def common_ground(a: View, b: View, *, usable_first: Tensor, usable_second: Tensor) -> Common:
    """What both views show in usable pixels, (B, H, W) bool, each by the pixel that is nearest to its centre.

    Raises ValueError for views of originals that differ in width or number.
    """
    if len(a.ground) != len(b.ground) or (None not in (a.width, b.width) and a.width != b.width):
        raise ValueError(
            "both views are of one sample; got views of "
            f"{len(a.ground)} and {len(b.ground)} chips that are {a.width} and {b.width} px wide"
        )
    ground, first = _sorted(a, usable_first)
    other, pixels = _sorted(b, usable_second)
    place = torch.searchsorted(other, ground).clamp(max=other.shape[1] - 1)  # the first of its ground: the nearest
    new = torch.ones_like(ground, dtype=torch.bool)
    new[:, 1:] = ground[:, 1:] != ground[:, :-1]
    both = new & (ground >= 0) & (other.gather(1, place) == ground)
    return Common(ground=ground, first=first, second=pixels.gather(1, place), both=both)


def observed_pixels(view: View) -> Tensor:
    """(B, H, W) bool: shows ground, and is observed in any band on any date."""
    return (view.ground >= 0) & (view.sample.image > 0).any(dim=2).any(dim=1)


def _sorted(view: View, usable: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H*W): ground, ascending, -1 where unusable, and its pixels; of one ground the nearest stands first."""
    ground = view.ground.masked_fill(~usable, -1).flatten(1)
    if view.distance is None:
        found = ground.sort(dim=1, stable=True)
        return found.values, found.indices
    # Both in one number: the bits of a float that is not negative are in its order, and below 2^30 if it is below 2.
    distance = view.distance.flatten(1).contiguous().view(torch.int32)
    found = (ground * 2**30 + distance).sort(dim=1, stable=True)
    return found.values >> 30, found.indices
