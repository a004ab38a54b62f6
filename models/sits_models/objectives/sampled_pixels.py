"""Lists of pixels sampled from the images of a batch, and which of them are no negatives of each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

__all__ = ["NearPixels", "SampledPixels"]


@dataclass(frozen=True, kw_only=True)
class SampledPixels:
    """Pixels as a list, image by image."""

    image: Tensor
    """(N,) int64: the number of the image, which does not fall from a pixel to the next."""
    ground: Tensor
    """(N, 2) int64: row and column of the ground pixel in the image's own grid."""

    def at(self, places: Tensor) -> Self:
        """Those at some places (n,) of the list."""
        return replace(self, image=self.image[places], ground=self.ground[places])


@dataclass(frozen=True, kw_only=True)
class NearPixels:
    """Which keys are no negatives of a query, since they show ground of its image that is near, or any of its image.

    Called with a slice of the queries, as `nt_xent` does, it looks at the keys of their images alone: the cost of a
    batch goes with the pixels of an image, and not with those of the batch.
    """

    queries: SampledPixels
    keys: SampledPixels
    squared: float | None
    """Square of the distance on the ground, in pixels, from which on a key of the image is a negative; None: never."""
    first: Tensor
    """(N,) int64 on the CPU: the first key of the query's image."""
    last: Tensor
    """The same for the one behind its last."""

    @classmethod
    def of(cls, queries: SampledPixels, keys: SampledPixels, *, radius: float, other_images: bool) -> Self:
        """Without what is nearer than `radius` px on the ground and of the same image, or without all of that.

        A key of the query's own ground pixel is none of its negatives, whatever the radius.
        """
        bounds = [torch.searchsorted(keys.image, queries.image, right=right).cpu() for right in (False, True)]
        # Distances of neighbours are 1 at least; float32 holds them exactly where they decide.
        squared = None if other_images else max(1.0, radius**2)
        exact = [
            SampledPixels(image=pixels.image, ground=pixels.ground.to(torch.float32)) for pixels in (queries, keys)
        ]
        return cls(queries=exact[0], keys=exact[1], squared=squared, first=bounds[0], last=bounds[1])

    def __call__(self, rows: slice) -> Tensor:
        """(queries of the slice, keys) bool."""
        image, ground = self.queries.image[rows], self.queries.ground[rows]
        hidden = torch.zeros(len(image), len(self.keys.image), dtype=torch.bool, device=image.device)
        if not len(image):
            return hidden
        near = slice(int(self.first[rows][0]), int(self.last[rows][-1]))
        same = image[:, None] == self.keys.image[near]
        if self.squared is not None:
            away = ground[:, None] - self.keys.ground[near]  # (queries, keys, 2)
            same &= away.square().sum(dim=2) < self.squared
        hidden[:, near] = same
        return hidden
