"""Arrays of chips that stand in a file each: checked, with days for days of the year and classes for codes."""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sits_catalog.cube import BACKGROUND
from sits_catalog.taxonomy import Taxonomy
from sits_pipeline.importers.original import OriginalPatch

__all__ = ["array_of", "classes_of", "days_of_year", "in_time", "indexed", "repeated", "whole_numbers"]

_EPOCH = date(1970, 1, 1)


def array_of(fields: Mapping[str, Any], name: str, path: Path) -> NDArray[Any]:
    """The array of this name. Raises ValueError where there is none, or none of numbers."""
    if name not in fields:
        raise ValueError(f"{path} should hold the array {name!r}; it holds {', '.join(sorted(fields)) or 'nothing'}")
    array = np.asarray(fields[name])
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: {name} should be an array of numbers; it is one of {array.dtype}")
    return array


def whole_numbers(array: NDArray[Any], name: str, path: Path, *, top: int) -> NDArray[np.int64]:
    """The array as whole numbers of -top..top. Raises ValueError where it holds others."""
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        odd = array[~np.isfinite(array) | (array != np.rint(array))].flat[0]
        raise ValueError(f"{path}: {name} should hold whole numbers; it holds {odd}")
    if array.size and float(np.abs(array.astype(np.float64)).max()) > top:
        raise ValueError(f"{path}: {name} should hold numbers up to {top}; it holds {array.min()} to {array.max()}")
    return array.astype(np.int64)


def repeated(image: NDArray[Any], name: str, path: Path, *, shape: tuple[int, int, int], factor: int) -> NDArray[Any]:
    """(time, y, x) of `shape` from pixels that are `factor` times as long. Raises ValueError for another size."""
    wanted = (shape[0], shape[1] // factor, shape[2] // factor)
    if image.shape != wanted:
        raise ValueError(f"{path}: {name} should be (time, y, x) of {wanted}; it is {image.shape}")
    return np.repeat(np.repeat(image, factor, axis=1), factor, axis=2)


def days_of_year(doy: NDArray[np.int64], year: int, path: Path) -> NDArray[np.int32]:
    """Days since 1970-01-01 of days of a year, 1..366. Raises ValueError for others."""
    last = 366 if calendar.isleap(year) else 365
    if doy.size and not (doy.min() >= 1 and doy.max() <= last):
        raise ValueError(f"{path}: days of {year} should lie in 1..{last}; they are {doy.tolist()}")
    return ((date(year, 1, 1) - _EPOCH).days + doy - 1).astype(np.int32)


def in_time(days: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Days in ascending order, and the position of each frame in the file; frames of one day keep their order."""
    order = np.argsort(days, kind="stable").astype(np.int32)
    return days[order], order


def classes_of(
    codes: NDArray[np.int64], taxonomy: Taxonomy, path: Path, *, background: int | None
) -> NDArray[np.uint16]:
    """`crop_type` of the numbers of a label raster; IGNORE where a number is neither class nor background.

    Raises ValueError below 0.
    """
    if codes.size and codes.min() < 0:
        raise ValueError(f"{path}: labels should be 0 and more; they go down to {codes.min()}")
    found, place = np.unique(codes, return_inverse=True)
    classes = [BACKGROUND if code == background else taxonomy.classify(str(code)) for code in found]
    return np.array(classes, np.uint16)[place].reshape(codes.shape)


def indexed(work: Callable[[Path], OriginalPatch], files: Sequence[Path]) -> tuple[OriginalPatch, ...]:
    """What `work` makes of each file, in their order, a few at a time."""
    with ThreadPoolExecutor(4) as pool:
        return tuple(pool.map(work, files))
