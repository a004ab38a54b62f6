"""A batch while a reader fills it, chip by chip, and the sample that it becomes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["BatchArrays"]


@dataclass
class BatchArrays:
    """The arrays of a batch, in the shapes and types of `Sample`."""

    image: NDArray[np.uint16]
    valid: NDArray[np.bool_]
    day: NDArray[np.int32]
    clear: NDArray[np.bool_]
    crop: NDArray[np.int64]
    counted: NDArray[np.bool_]
    parcel: NDArray[np.int64]
    boundary: NDArray[np.int16]
    present: NDArray[np.bool_] | None = None

    def keep(self, b: int, part: NDArray[np.int64]) -> None:
        """Hide the labels of a chip outside of (top, bottom, left, right), pixels of the labels."""
        top, bottom, left, right = part.tolist()
        for rows, columns in (
            (slice(None, top), slice(None)),
            (slice(bottom, None), slice(None)),
            (slice(None), slice(None, left)),
            (slice(None), slice(right, None)),
        ):
            self.crop[b, rows, columns] = IGNORE_INDEX
            self.counted[b, rows, columns] = False

    def sample(self, places: NDArray[np.int64], bands: tuple[str, ...]) -> Sample:
        """The batch as tensors, in the same memory."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}
        return Sample(**tensors, place=torch.from_numpy(np.array(places, np.int64).reshape(-1, 3)), bands=bands)
