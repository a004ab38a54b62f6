"""Pixels of some images as one list, in which a window's row of neighbours is a run: views, and no copies."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sits_models.objectives.context_similarity import Window

__all__ = ["PixelRuns", "Workspace"]


@dataclass(frozen=True, kw_only=True)
class PixelRuns:
    """The pixels of some images as one list in which the neighbour (dy, dx) of pixel p is pixel p + dy * pitch + dx.

    Rows are followed by `reach` columns of zeros and images by `reach` rows, and the whole stands between `lead` more,
    so that all that lies outside of an image is a pixel of zeros. Pixels are taken in runs of n: the products of n
    queries and the n + 2 * reach keys that a row of their windows meets are one small matrix, of which every
    `spread`-th diagonal is wanted, k in all: a view. Seen from the keys, the same holds with rows and columns reversed.
    """

    window: Window
    images: int
    height: int
    width: int
    run: int

    @classmethod
    def of(cls, embedded: Tensor, window: Window) -> PixelRuns:
        """For an embedding (B, C, H, W)."""
        b, _, h, w = embedded.shape
        return cls(window=window, images=b, height=h, width=w, run=16 if embedded.device.type == "cpu" else 32)

    @property
    def pitch(self) -> int:
        """From a pixel to the one below it."""
        return self.width + self.window.reach

    @property
    def lead(self) -> int:
        """Zeros in front of the first pixel, and behind the last run."""
        return self.window.reach * (self.pitch + 1)

    @property
    def runs(self) -> int:
        """How many runs there are; the last one may end in zeros."""
        return -(-self.images * (self.height + self.window.reach) * self.pitch // self.run)

    @property
    def pixels(self) -> int:
        """Pixels of all runs."""
        return self.runs * self.run

    @property
    def length(self) -> int:
        """Of the whole list."""
        return self.pixels + 2 * self.lead

    def gather(self, values: Tensor) -> Tensor:
        """The images' pixels of (C, length), a view (C, B, H, W)."""
        b, rows, start = self.images, self.height + self.window.reach, self.lead
        images = values[:, start : start + b * rows * self.pitch].view(-1, b, rows, self.pitch)
        return images[:, :, : self.height, : self.width]

    def spread(self, images: Tensor, *, fill: float) -> Tensor:
        """(C, length) with the pixels of (C, B, H, W), and `fill` all around."""
        values = images.new_full((images.shape[0], self.length), fill)
        self.gather(values).copy_(images)
        return values

    def middle(self, values: Tensor) -> Tensor:
        """The pixels of all runs, of (length, ...)."""
        return values[self.lead : self.lead + self.pixels]

    def start(self, row: int) -> int:
        """The neighbour of the first pixel that is first in a row of its window. From the keys: of the row reversed."""
        return self.lead + (row * self.window.spread - self.window.reach) * self.pitch - self.window.reach

    def runs_from(self, vectors: Tensor, start: int, *, more: int) -> Tensor:
        """Runs of vectors (length, C) from a pixel on, each with some of the next: a view (runs, n + more, C)."""
        (pixel, channel), first = vectors.stride(), vectors.storage_offset()
        shape = (self.runs, self.run + more, vectors.shape[1])
        return vectors.as_strided(shape, (self.run * pixel, pixel, channel), first + start * pixel)

    def neighbours(self, values: Tensor, row: int) -> Tensor:
        """Of values (length,) or (length, k) what each pixel meets in a row of its window: a view (pixels, k).

        The n-th neighbour takes the n-th of the k values.
        """
        k, spread = self.window.size, self.window.spread
        pixel = values.stride(0)
        each = 0 if values.ndim == 1 else 1
        return values.as_strided((self.pixels, k), (pixel, spread * pixel + each), self.start(row) * pixel)

    def centres(self, values: Tensor, row: int) -> Tensor:
        """Of values (length, k), a value a pair, those of a key: a view (pixels, k), the last neighbour first."""
        k, spread = self.window.size, self.window.spread
        first = self.start(k - 1 - row) * k + k - 1
        return values.as_strided((self.pixels, k), (k, spread * k - 1), first)

    def diagonals(self, matrices: Tensor) -> Tensor:
        """Of (runs, n, n + 2 reach) the wanted diagonals, a view (runs, n, k)."""
        n, wide = self.run, self.run + 2 * self.window.reach
        shape, strides = (self.runs, n, self.window.size), (n * wide, wide + 1, self.window.spread)
        return matrices.as_strided(shape, strides)


@dataclass(frozen=True)
class Workspace:
    """Memory that the rows of the window use in turn."""

    products: Tensor
    """(runs, n, n + 2 reach)."""
    band: Tensor
    """The same; 0 but on the wanted diagonals."""
    pulls: Tensor
    """(length, k): a value a pair; 0 but in the middle."""
    turns: Tensor

    @classmethod
    def on(cls, layout: PixelRuns, vectors: Tensor) -> Workspace:
        """Of the device and the precision of the vectors."""
        matrices = (layout.runs, layout.run, layout.run + 2 * layout.window.reach)
        pairs = (layout.length, layout.window.size)
        return cls(vectors.new_empty(matrices), *(vectors.new_zeros(shape) for shape in (matrices, pairs, pairs)))
