"""Jigsaw: the nine tiles of a chip are shuffled, and which of many orders they are in is to be told.

Noroozi and Favaro, "Unsupervised learning of visual representations by solving jigsaw puzzles", ECCV 2016; 1000 orders
as Li et al. (GLCNet, IEEE TGRS 2022) compare it with theirs. Tiles have gaps between them, that edges do not tell which
are neighbours, and go through the encoder one by one. Deliberate differences: the orders come from a group, and no
search; and the head is small, so that what is learnt lies in the backbone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_catalog.cube import BOUNDARY_UNKNOWN
from sits_models.data.draws import Draws
from sits_models.data.looks import draw_look, draw_single
from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss, Objective
from sits_models.objectives.chip_embeddings import chip_channels, embed_chips, leave_decoder_out, require_plain
from sits_models.recipe import Augmentation, JigsawRecipe
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["MOST_ORDERS", "Jigsaw", "Puzzle", "draw_puzzle", "orders_of_tiles"]

SIDE = 3
"""Tiles along a side of a chip."""
_MAPS = 504
"""Of the projective line over 8 elements to itself."""
MOST_ORDERS = 3 * _MAPS


@dataclass(frozen=True, kw_only=True)
class Puzzle:
    """Chips and how they are shuffled."""

    sample: Sample
    order: Tensor
    """(B,) int64: number of the order among `orders_of_tiles`."""
    corner: Tensor
    """(B, 9, 2) int64: first row and column of each tile in the chip, tile by tile as the chip has them."""
    side: int
    """Of a tile, pixels."""


def orders_of_tiles(number: int) -> Tensor:
    """Orders of nine tiles, (number, 9) int64: place i of an order shows the tile order[i].

    Any two differ in 7 places at least for up to 504 orders, the most that can (M. Deza, S. A. Vanstone, "Bounds for
    permutation arrays", 1978: 9! / 6!), and in 6 for up to 1512. They are the maps x to (a x + b) / (c x + d) of the
    projective line over the field of 8 elements to itself, PGL(2, 8), of which none but the identity leaves more than
    two places as they are; then those that take squares first, and squares of squares, with which three at most stay.
    Raises ValueError for more.

    >>> orders_of_tiles(1).tolist()
    [[0, 1, 2, 3, 4, 5, 6, 7, 8]]
    """
    if number > MOST_ORDERS:
        raise ValueError(f"{MOST_ORDERS} orders of tiles differ in 6 places at least; got {number}")
    found: list[tuple[int, ...]] = []
    for squarings in range(-(-number // _MAPS)):
        every = product(range(8), range(8), range(8), range(8))
        same = {_mapped(entries, squarings) for entries in every if _determinant(entries)}
        found += sorted(same)  # the identity is the first
    return torch.tensor(found[:number])


def draw_puzzle(sample: Sample, options: JigsawRecipe, *, draws: Draws) -> Puzzle:
    """An order for each chip, and a place for each tile in its ninth.

    Raises ValueError for chips of fewer than 3 px, and where the draws are of another number of chips.
    """
    b, h, w = sample.boundary.shape
    cell, side = min(h, w) // SIDE, options.tile(min(h, w))
    if side < 1:
        raise ValueError(f"chips of {h} x {w} px cannot be cut into nine tiles with gaps: set data.size to more")
    draws.check(b)
    order = draws.integers(options.orders)
    moved = (draws.uniform(SIDE * SIDE, 2) * (cell - side + 1)).long()
    number = torch.arange(SIDE * SIDE)
    first = torch.stack([number // SIDE * (h // SIDE), number % SIDE * (w // SIDE)], dim=1)
    device = sample.image.device
    return Puzzle(sample=sample, order=order.to(device), corner=(first + moved).to(device), side=side)


class Jigsaw(Objective[Puzzle]):
    """An encoder of tiles, and a head of two layers on the embeddings of all nine."""

    orders: Tensor

    def __init__(self, encoder: Encoder, *, options: JigsawRecipe) -> None:
        """Raises ValueError for an encoder of finer labels, or of logits."""
        super().__init__()
        require_plain(encoder, "a jigsaw")
        leave_decoder_out(encoder)
        self.encoder = encoder
        self.options = options
        self.register_buffer("orders", orders_of_tiles(options.orders), persistent=False)
        inputs = SIDE * SIDE * chip_channels(encoder)
        self.head = nn.Sequential(
            nn.Linear(inputs, options.channels), nn.ReLU(), nn.Linear(options.channels, options.orders)
        )

    def views(self, sample: Sample, augmentation: Augmentation, draws: Draws) -> Puzzle:  # noqa: ARG002
        """One date, cut and shuffled; chips without a date that is clear enough are left out."""
        (date,), there = draw_single(sample, self.options.dates, draws)
        look = draw_look(date, self.options.geometry, None, draws).sample
        puzzle = draw_puzzle(look, self.options, draws=draws)
        return Puzzle(sample=look.take(there), order=puzzle.order[there], corner=puzzle.corner[there], side=puzzle.side)

    def loss(self, views: Puzzle) -> Loss:
        """The cross entropy of the orders, a mean over the chips; watched: how often the order is told."""
        logits = self(views)
        right = (logits.max(dim=1).indices == views.order).sum() if len(logits) else logits.sum()
        value = functional.cross_entropy(logits, views.order, reduction="sum") / max(1, len(logits))
        count = torch.tensor(float(len(logits)), device=logits.device)
        return Loss(value, count, {"accuracy": right.detach() / max(1, len(logits))})

    def forward(self, puzzle: Puzzle) -> Tensor:
        """Logits of the orders, (B, orders), float32."""
        chips = len(puzzle.order)
        embedded = embed_chips(self.encoder, self.tiles(puzzle))  # (B*9, C)
        joined = embedded.reshape(chips, SIDE * SIDE * embedded.shape[1])
        return cast(Tensor, self.head(joined)).to(torch.float32)

    def tiles(self, puzzle: Puzzle) -> Sample:
        """The tiles as samples of their own, (B*9, T, C, side, side), chip by chip in their new places."""
        chips, side = len(puzzle.order), puzzle.side
        corner = puzzle.corner.gather(1, self.orders[puzzle.order][:, :, None].expand(-1, -1, 2))  # (B, 9, 2)
        within = torch.arange(side, device=corner.device)
        chip = torch.arange(chips, device=corner.device)[:, None, None, None]
        row, column = (corner[:, :, None, None, 0] + within[:, None], corner[:, :, None, None, 1] + within)

        def cut(maps: Tensor) -> Tensor:
            """(B, ..., H, W) to (B*9, ..., side, side)."""
            found = maps.view(torch.int16) if maps.dtype == torch.uint16 else maps  # which cannot be indexed
            taken = found.flatten(1, -3).movedim(1, -1)[chip, row, column].movedim(-1, 2)  # (B, 9, ..., side, side)
            return taken.reshape(chips * SIDE * SIDE, *maps.shape[1:-2], side, side).view(maps.dtype)

        sample = puzzle.sample
        once = {name: getattr(sample, name).repeat_interleave(SIDE * SIDE, dim=0) for name in ("valid", "day", "place")}
        none = sample.crop.new_full((chips * SIDE * SIDE, side, side), IGNORE_INDEX)  # labels are no part of it
        return sample.replace(
            image=cut(sample.image),
            clear=cut(sample.clear),
            crop=none,
            counted=torch.zeros_like(none, dtype=torch.bool),
            parcel=torch.zeros_like(none),
            boundary=torch.full_like(none, BOUNDARY_UNKNOWN, dtype=sample.boundary.dtype),
            **once,
        )


_FAR = 8
"""The point at infinity of the projective line, behind the elements of the field."""


def _times(a: int, b: int) -> int:
    """The product in the field of 8 elements, whose bits are coefficients of polynomials modulo x^3 + x + 1."""
    total = 0
    for bit in range(3):
        total ^= (a << bit) if b >> bit & 1 else 0
    for bit in (4, 3):
        total ^= (0b1011 << (bit - 3)) if total >> bit & 1 else 0
    return total


def _determinant(entries: tuple[int, int, int, int]) -> int:
    a, b, c, d = entries
    return _times(a, d) ^ _times(b, c)


def _mapped(entries: tuple[int, int, int, int], squarings: int) -> tuple[int, ...]:
    """Where (a x + b) / (c x + d) takes each point x, which is squared so many times first."""
    a, b, c, d = entries
    points = []
    for point in range(9):
        x = point
        for _ in range(squarings if point != _FAR else 0):
            x = _times(x, x)
        above, below = (a, c) if point == _FAR else (_times(a, x) ^ b, _times(c, x) ^ d)
        points.append(next(y for y in range(8) if _times(below, y) == above) if below else _FAR)
    return tuple(points)
