"""What a model sees: chips through time with their labels, stacked into a batch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

__all__ = ["IGNORE_INDEX", "Sample"]

IGNORE_INDEX = -1
"""Label of a pixel that counts in no loss and no metric; 65535 in a cube."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A batch of B chips of T dates, C bands and H x W pixels of 10 m; labels may be finer by m = 1, 2 or 4."""

    image: Tensor
    """(B, T, C, H, W) uint16, or float32 once augmented: reflectance x 10000 as stored, 0 = not observed."""
    valid: Tensor
    """(B, T) bool: a date of the series; False = padding, whose other values mean nothing."""
    day: Tensor
    """(B, T) int32: days since 1970-01-01."""
    clear: Tensor
    """(B, T, H, W) bool: observed, and neither cloud, shadow, snow, cirrus nor defect."""
    crop: Tensor
    """(B, mH, mW) int64: index in the recipe's class table, or IGNORE_INDEX."""
    counted: Tensor
    """(B, mH, mW) bool: False where the label is hidden, and IGNORE_INDEX, since the pixel is not of the split, belongs
    to another chip or lies outside of the cube; True where it stands as the cube has it, ignored ones too."""
    parcel: Tensor
    """(B, mH, mW) int64: row key of the cube's parcels, 0 = none."""
    boundary: Tensor
    """(B, H, W) int16: decimetres to the nearest parcel boundary, positive inside parcels; -32768 = unknown."""
    place: Tensor
    """(B, 3) int64: number of the cube, row and column of the chip's upper-left pixel in it."""
    bands: tuple[str, ...]
    """Names of the C bands, such as "B04"."""
    present: Tensor | None = None
    """(B, K) bool: which of the K classes a chip has, where chips as such are labelled; None: they are not."""

    def __post_init__(self) -> None:
        if self.image.ndim != 5:
            raise ValueError(f"image is (B, T, C, H, W); got the shape {tuple(self.image.shape)}")
        b, t, c, h, w = self.image.shape
        m = self.crop.shape[-1] // w
        expected = {
            "valid": (b, t),
            "day": (b, t),
            "clear": (b, t, h, w),
            "crop": (b, m * h, m * w),
            "counted": (b, m * h, m * w),
            "parcel": (b, m * h, m * w),
            "boundary": (b, h, w),
            "place": (b, 3),
        }
        if self.present is not None:
            expected["present"] = (b, self.present.shape[-1])
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise ValueError(f"{name} of an image (B, T, C, H, W) = {(b, t, c, h, w)} is {shape}; got {found}")
        if len(self.bands) != c:
            raise ValueError(f"an image of {c} bands needs as many names; got {', '.join(self.bands)}")

    @property
    def magnification(self) -> int:
        """How much finer the labels are than the image: 1, 2 or 4."""
        return self.crop.shape[-1] // self.image.shape[-1]

    def replace(self, **changes: Tensor) -> Self:
        """A copy with other tensors."""
        values: dict[str, Any] = dict(changes)
        return dataclasses.replace(self, **values)

    def take(self, chips: Tensor) -> Self:
        """A copy of the chips of these numbers, or of a mask (B,) bool."""

        def taken(tensor: Tensor) -> Tensor:
            if tensor.dtype == torch.uint16:  # for which indexing lacks kernels
                return tensor.view(torch.int16)[chips].view(torch.uint16)
            return tensor[chips]

        return self.replace(**{name: taken(tensor) for name, tensor in self._tensors()})

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """A copy on a device."""
        return self.replace(**{name: tensor.to(device, non_blocking=non_blocking) for name, tensor in self._tensors()})

    def pin_memory(self) -> Self:
        """A copy in page-locked memory, from which a GPU reads without waiting."""
        return self.replace(**{name: tensor.pin_memory() for name, tensor in self._tensors()})

    def _tensors(self) -> list[tuple[str, Tensor]]:
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return [(name, value) for name, value in values if isinstance(value, Tensor)]
