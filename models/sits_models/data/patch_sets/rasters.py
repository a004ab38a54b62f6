"""Windows of raster files as GDAL reads them, and what becomes of their values.

Every read opens its file anew, so that threads and processes share nothing. Pixels alone are read: the place of a file
on the ground is not asked for, and one without it gives no warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

__all__ = ["BandFile", "RasterFacts", "describe_raster", "no_dates", "observed", "read_bands", "read_raster", "scaled"]

_LARGEST = 10_000
"""What reflectance 1, or the largest value of other data, is as an integer."""
# No listing of the folder for side files, of which there may be thousands; a torn JPEG is an error, not a grey one.
_SETTINGS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE"}


@dataclass(frozen=True, kw_only=True)
class RasterFacts:
    """What the header of a raster file says."""

    shape: tuple[int, int]
    """Height and width, pixels."""
    n: int
    """How many bands it has."""
    dtype: str
    bits: int
    """Bits a value uses, as the file says, or those of its type."""
    nodata: float | None
    descriptions: tuple[str | None, ...]
    """Names of its bands, where it has some."""


@dataclass(frozen=True, kw_only=True)
class BandFile:
    """A file of one band, whose pixels are as large as `factor` x `factor` pixels of the patch."""

    path: str
    shape: tuple[int, int]
    """Height and width in its own pixels."""
    dtype: str
    factor: int = 1


def describe_raster(path: str) -> RasterFacts:
    """The header of a file. OSError where it is missing, torn or no raster."""
    with _opened(path) as file:
        dtype = str(file.dtypes[0])
        bits = file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
        return RasterFacts(
            shape=(file.height, file.width),
            n=file.count,
            dtype=dtype,
            bits=int(bits) if bits else 8 * np.dtype(dtype).itemsize,
            nodata=file.nodata,
            descriptions=tuple(file.descriptions),
        )


def read_raster(
    path: str,
    rows: slice,
    columns: slice,
    *,
    shape: tuple[int, int],
    n: int,
    dtype: str,
    bands: Sequence[int] | None = None,
) -> NDArray[np.generic]:
    """(C, H, W): a window of a file of `n` bands, of the bands of these positions alone, which count from 0.

    OSError, in one sentence, where the file is missing, torn, or has another size, number of bands or type.
    """
    from rasterio.windows import Window

    with _opened(path) as file:
        found = (file.height, file.width, file.count, str(file.dtypes[0]))
        if found != (*shape, n, dtype):
            raise OSError(
                f"{path} should have {_words(*shape, n, dtype)}; it has {_words(*found)}: put the original file there"
            )
        height, width = rows.stop - rows.start, columns.stop - columns.start
        window = Window(columns.start, rows.start, width, height)
        numbers = [band + 1 for band in (range(n) if bands is None else bands)]
        return np.asarray(file.read(numbers, window=window))


def read_bands(files: Sequence[Sequence[BandFile]], rows: slice, columns: slice) -> NDArray[np.generic]:
    """(T, C, H, W): a window of files by date and band, each brought to the finest pixels by nearest neighbour."""
    return np.stack([np.stack([_read_band(file, rows, columns) for file in date]) for date in files])


def observed(
    stored: NDArray[np.uint16], everything: Callable[[], NDArray[np.uint16]] | None
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Values (T, C, H, W) and where they were observed (T, H, W), of files that mark it nowhere.

    A pixel was observed where any band of the set is above 0; other zeros are clipped dark values and become 1.
    `everything` reads all bands of the same window, where `stored` has some of them (None: it has all).
    """
    seen = stored.any(axis=1)
    if everything is not None and not seen.all():
        seen = everything().any(axis=1)
    return np.where(seen[:, None], np.maximum(stored, np.uint16(1)), np.uint16(0)), seen


def no_dates(n: int, height: int, width: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """(0, n, H, W) and (0, H, W): what a patch has of no date, where its labels alone are looked at."""
    return np.zeros((0, n, height, width), np.uint16), np.zeros((0, height, width), np.bool_)


def scaled(values: NDArray[np.generic], bits: int) -> NDArray[np.uint16]:
    """Observed values of so many bits, at most 16, such that the largest is 10000 and the least 1, rounded.

    >>> scaled(np.array([0, 1, 128, 255], np.uint8), 8).tolist()
    [1, 39, 5020, 10000]
    """
    return np.asarray(_scale(bits, np.iinfo(values.dtype.name).max)[values], np.uint16)


@cache
def _scale(bits: int, highest: int) -> NDArray[np.uint16]:
    """What each value from 0 to the highest of its type becomes."""
    largest = 2**bits - 1
    rounded = (np.arange(highest + 1) * (2 * _LARGEST) + largest) // (2 * largest)
    return np.asarray(rounded.clip(1, _LARGEST), np.uint16)


def _read_band(file: BandFile, rows: slice, columns: slice) -> NDArray[np.generic]:
    """(H, W)."""
    f = file.factor
    own_rows, own_columns = (slice(part.start // f, -(-part.stop // f)) for part in (rows, columns))
    (values,) = read_raster(file.path, own_rows, own_columns, shape=file.shape, n=1, dtype=file.dtype)
    if f == 1:
        return np.asarray(values)
    at_rows, at_columns = (np.arange(part.start, part.stop) // f - part.start // f for part in (rows, columns))
    return np.asarray(values[at_rows[:, None], at_columns])


@contextmanager
def _opened(path: str) -> Iterator[DatasetReader]:
    """The file, open for reading; whatever GDAL raises becomes an OSError of one sentence."""
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.Env(**_SETTINGS), _reader()(path) as file:
            yield file
    except RasterioError as error:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is missing; unpack the dataset again") from None
        reason = " ".join(str(error.__cause__ or error).split())
        raise OSError(f"{path} cannot be read ({reason}); it may be torn: unpack the dataset again") from error


@cache
def _reader() -> type[DatasetReader]:
    """rasterio's reader, which does not look for the file's place on the ground and so never warns of its absence."""
    from rasterio.io import DatasetReader

    class Pixels(DatasetReader):  # type: ignore[misc]  # rasterio is published without types
        def read_transform(self) -> list[float]:
            return [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]

    return Pixels


def _words(height: int, width: int, n: int, dtype: str) -> str:
    return f"{height} x {width} px of {n} band{'s' * (n > 1)} of {dtype}"
