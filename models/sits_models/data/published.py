"""The inputs that published models were trained on, from the arrays of their files: T31TFM_1618, MTLCC, PASTIS24.

Reading the files is the caller's: most are pickles, which run whatever code they hold. Orders of bands, labels and
scales are those of DeepSatModels, the code published with CSCL (Tarasiou et al. 2022), with these differences: labels
are always cropped with the image; MTLCC dates are drawn only by who asks for it, not in evaluation; labels of PASTIS24
may be one map or several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from sits_models.sample import IGNORE_INDEX

__all__ = [
    "FRANCE_BANDS",
    "FRANCE_CLASSES",
    "MTLCC_BANDS",
    "MTLCC_CLASSES",
    "PASTIS_BANDS",
    "PASTIS_CLASSES",
    "PublishedChip",
    "france_chip",
    "mtlcc_chip",
    "pastis24_chip",
]

Arrays = Mapping[str, NDArray[np.generic]]
Values = NDArray[np.float32]

YEAR_DAYS = 365.0001
"""Days of the year are divided by this."""

FRANCE_BANDS = ("B04", "B03", "B02", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09", "B10")
MTLCC_BANDS = FRANCE_BANDS
PASTIS_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")

FRANCE_CLASSES = 20
"""The 20 classes with most pixels, 0 to 19; label 20 is unknown."""
MTLCC_CLASSES = 17
"""Label 17 is unknown; the published models have an output for it that is never trained."""
PASTIS_CLASSES = 19
"""Background, 0, counts; label 19 is void."""

# Codes as they stand in the files; every other is unknown.
_FRANCE_CODES = (1, 2, 3, *range(6, 15), 20, 25, 33, 34, 35, 36, 48, 73)
_MTLCC_CODES = (1, 2, 3, 5, 8, 9, 12, 13, 15, 16, 17, 19, 22, 23, 24, 25, 26)

# Mean and deviation of the first fold, as NORM_S2_patch.json of PASTIS has them to float32; the published models take
# them for every fold.
_PASTIS_MEAN = (
    *(1165.93982, 1375.65344, 1429.21912, 1764.79883, 2719.27319),
    *(3063.61182, 3205.90186, 3319.10962, 2422.90430, 1639.37036),
)
_PASTIS_STD = (
    *(1942.61563, 1881.92346, 1959.37988, 1867.22400, 1754.58508),
    *(1769.40466, 1784.86060, 1767.71008, 1458.96362, 1299.28333),
)


@dataclass(frozen=True, kw_only=True)
class PublishedChip:
    """One chip of T dates as a published model takes it, m times finer labels."""

    inputs: Values
    """(T, C, H, W): bands, then the channels of time; zero in all channels after the last date."""
    labels: NDArray[np.int64]
    """(mH, mW): 0 to K - 1, and K for unknown."""
    known: NDArray[np.bool_]
    """(mH, mW): where the label counts in losses and scores."""
    dates: int
    """How many of the T dates are real."""
    ids: NDArray[np.int64] | None = None
    """(mH, mW): the file's own number of the parcel, where it has one."""
    backward: Values | None = field(default=None, repr=False)
    """(T, C, H, W): the dates from last to first, then padding, for models that read in both directions."""

    @property
    def crop(self) -> NDArray[np.int64]:
        """The labels with IGNORE_INDEX for unknown, as `Sample.crop`."""
        return np.where(self.known, self.labels, IGNORE_INDEX)


def france_chip(
    arrays: Arrays, *, dates: int = 16, size: int = 48, magnification: Literal[1, 2, 4] = 1
) -> PublishedChip:
    """A chip of T31TFM_1618: 13 bands of reflectance and the day of the year; the first `dates` dates of the year.

    `arrays` holds the bands (T, h, w) by name, each at its own resolution, `doy` (T,), `labels` and, where the file
    has them, `ids`, `full_ass` and `part_ass` or the newer `masks`; for labels at 5 m or 2.5 m those with the suffix
    _x2 or _x4. A pixel that parcels share (full_ass, part_ass, masks) is unknown. A smaller `size` than the chip's
    cuts from its middle.
    """
    suffix = "" if magnification == 1 else f"_x{magnification}"
    raw = _array(arrays, f"labels{suffix}")
    side = raw.shape[-1] // magnification
    reflectance = np.concatenate([_resized(_array(arrays, band)[:, None], side) for band in FRANCE_BANDS], axis=1)
    inputs = _with_planes(reflectance * np.float32(1e-4), _year_share(_array(arrays, "doy")))
    shared = [arrays[name + suffix] != 0 for name in ("full_ass", "part_ass", "masks") if name + suffix in arrays]
    labels = _renumbered(raw, _FRANCE_CODES)
    for where in shared:
        labels[where] = FRANCE_CLASSES
    labels = _middle(labels, size * magnification)
    ids = arrays.get(f"ids{suffix}")
    return PublishedChip(
        inputs=_padded(_middle(inputs, size), dates),
        labels=labels,
        known=labels != FRANCE_CLASSES,
        dates=min(dates, len(inputs)),
        ids=None if ids is None else _middle(ids.astype(np.int64), size * magnification),
    )


def mtlcc_chip(
    arrays: Arrays,
    *,
    dates: int = 16,
    size: int = 24,
    picked: Sequence[int] | None = None,
    picked_backward: Sequence[int] | None = None,
) -> PublishedChip:
    """A chip of MTLCC: 13 bands of reflectance, the day of the year and the years since 2016, in both directions.

    `arrays` holds `x10`, `x20` and `x60` (T, h, w, bands), `day` and `year` (T,) and `labels` (T, H, W) or (H, W); of
    labels a date the first is taken. A series longer than `dates` keeps the first ones, or those that `picked` names;
    the published code draws them at random, in ascending order, anew for the series read backwards, whose numbers
    (0 is then the last date) are `picked_backward` (None: the dates of `inputs`, from last to first).
    """
    stacks = [_resized(np.moveaxis(_array(arrays, name), -1, 1), size) for name in ("x10", "x20", "x60")]
    inputs = _with_planes(
        np.concatenate(stacks, axis=1) * np.float32(1e-4),
        _year_share(_array(arrays, "day")),
        _array(arrays, "year").astype(np.float32) - np.float32(2016),
    )
    forward = inputs[_picked(picked, len(inputs), dates)]
    backward = forward[::-1] if picked_backward is None else inputs[::-1][_picked(picked_backward, len(inputs), dates)]
    labels = _renumbered(_first_map(_array(arrays, "labels")), _MTLCC_CODES)
    return PublishedChip(
        inputs=_padded(forward, dates),
        labels=labels,
        known=labels != MTLCC_CLASSES,
        dates=len(forward),
        backward=_padded(backward, dates),
    )


def pastis24_chip(arrays: Arrays, *, dates: int = 60, size: int = 24) -> PublishedChip:
    """A chip of PASTIS24: 10 bands, normalised with the statistics of the first fold, and the day of the year.

    `arrays` holds `img` (T, 10, H, W), `doy` (T,) and `labels`, (H, W) or (maps, H, W), of which the first map is
    that of the classes. The file's frames stand in the order of the day of the year, not in that of time.
    """
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (_PASTIS_MEAN, _PASTIS_STD))
    image = (_array(arrays, "img").astype(np.float32) - mean) / std
    inputs = _with_planes(image, _year_share(_array(arrays, "doy")))
    labels = _middle(_first_map(_array(arrays, "labels")).astype(np.int64), size)
    return PublishedChip(
        inputs=_padded(_middle(inputs, size), dates),
        labels=labels,
        known=labels != PASTIS_CLASSES,
        dates=min(dates, len(inputs)),
    )


def _array(arrays: Arrays, name: str) -> NDArray[np.generic]:
    if name not in arrays:
        raise ValueError(f"a chip of this data set has the array {name!r}; this one has {', '.join(sorted(arrays))}")
    return arrays[name]


def _resized(image: NDArray[np.generic], size: int) -> Values:
    """(T, C, h, w) to (T, C, size, size), bilinear between pixel centres."""
    values = torch.from_numpy(image.astype(np.float32))
    if tuple(values.shape[-2:]) == (size, size):
        return values.numpy()
    return functional.interpolate(values, size=(size, size), mode="bilinear", align_corners=False).numpy()


def _year_share(day_of_year: NDArray[np.generic]) -> Values:
    return day_of_year.astype(np.float32) / np.float32(YEAR_DAYS)


def _with_planes(image: Values, *values: Values) -> Values:
    """(T, C, H, W) with a channel for each of the values (T,)."""
    t, _, h, w = image.shape
    planes = [np.broadcast_to(value.reshape(t, 1, 1, 1), (t, 1, h, w)) for value in values]
    return np.concatenate([image, *planes], axis=1).astype(np.float32)


def _padded(series: Values, dates: int) -> Values:
    """The first `dates` of (T, C, H, W), with zeros to that number."""
    kept = series[:dates]
    return np.concatenate([kept, np.zeros((dates - len(kept), *series.shape[1:]), np.float32)])


def _picked(picked: Sequence[int] | None, length: int, dates: int) -> list[int]:
    numbers = list(range(min(length, dates)) if picked is None else picked)
    if len(numbers) > dates or any(not 0 <= number < length for number in numbers):
        raise ValueError(f"at most {dates} of the dates 0 to {length - 1} can be picked; got {numbers}")
    return numbers


def _middle[T: np.generic](maps: NDArray[T], size: int) -> NDArray[T]:
    """The middle size x size pixels of (..., H, W)."""
    height, width = maps.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f"a chip of {height} x {width} px has no middle of {size} x {size}; ask for a smaller size")
    row, column = (height - size) // 2, (width - size) // 2
    return maps[..., row : row + size, column : column + size]


def _first_map(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    return labels[0] if labels.ndim == 3 else labels


def _renumbered(codes: NDArray[np.generic], known: tuple[int, ...]) -> NDArray[np.int64]:
    """Position of each code among the known ones; their number where it is none of them."""
    whole = codes.astype(np.int64)
    place = np.searchsorted(known, whole).clip(max=len(known) - 1)
    return np.where(np.array(known)[place] == whole, place, len(known))
