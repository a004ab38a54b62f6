"""Whether an exported file computes what the model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sits_models.tasks.exporting.dimensions import Dimension, Dimensions
from sits_models.tasks.exporting.program import Inputs, Program, draw_inputs

__all__ = ["TOLERANCE", "Agreement", "Shape", "compare", "shapes_to_try"]

TOLERANCE = 1e-4
"""Of the largest value of the model's output."""
_FLOOR = 1e-12
"""What two zeros of different programs may be apart."""
Shape = tuple[int, int, int, int]
"""Batch, dates, height, width."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far a file and the model are apart on inputs of one shape."""

    shape: Shape
    difference: float
    """The largest one of two values; NaN where one of them is."""
    largest: float
    """The largest value of the model."""

    @property
    def allowed(self) -> float:
        """How large the difference may be."""
        return max(TOLERANCE * self.largest, _FLOOR)

    @property
    def holds(self) -> bool:
        """Whether it is no larger."""
        return self.difference <= self.allowed  # not so for NaN

    def __str__(self) -> str:
        b, t, h, w = self.shape
        return f"{self.difference:.1e} of {self.largest:.3g} at {b} x {t} dates x {h} x {w} px"

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "shape": list(self.shape),
            "difference": self.difference,
            "largest": self.largest,
            "allowed": self.allowed,
        }


def shapes_to_try(dimensions: Dimensions) -> tuple[Shape, ...]:
    """The model's own sizes; the least of each; and others, no two alike, of a batch with a chip without any date."""
    own = tuple(dimension.size for _, dimension in dimensions)
    least = tuple(dimension.least for _, dimension in dimensions)
    # Sides of more than 32 px, which no backbone makes a single pixel of.
    other = (3, dimensions.dates.size + 1, _beyond(dimensions.height, 36), _beyond(dimensions.width, 20))
    shapes = [
        tuple(d.size if d.fixed else wanted for (_, d), wanted in zip(dimensions, sizes, strict=True))
        for sizes in (own, least, other)
    ]
    return tuple(dict.fromkeys((b, t, h, w) for b, t, h, w in shapes))


def compare(
    program: Program, run: Callable[[Inputs], Tensor], shapes: Iterable[Shape], *, seed: int = 0
) -> tuple[Agreement, ...]:
    """How far `run` and the model are apart on inputs that are drawn, at each of the shapes."""
    found = []
    for number, (batch, dates, height, width) in enumerate(shapes):
        inputs = draw_inputs(
            batch=batch,
            dates=dates,
            bands=len(program.encoder.bands),
            height=height,
            width=width,
            seed=seed + number,
        )
        with torch.inference_mode():
            ours, theirs = program(*inputs), run(inputs)
        if theirs.shape != ours.shape:
            raise RuntimeError(
                f"the model gives {tuple(ours.shape)} for an image {tuple(inputs.image.shape)}, and the exported file "
                f"{tuple(theirs.shape)}"
            )
        difference = float((theirs - ours).abs().max())
        shape = (batch, dates, height, width)
        found.append(Agreement(shape=shape, difference=difference, largest=float(ours.abs().max())))
    return tuple(found)


def _beyond(dimension: Dimension, more: int) -> int:
    """The first side that is so much larger than the least one."""
    return -(-(dimension.least + more) // dimension.multiple) * dimension.multiple
