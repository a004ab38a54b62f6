"""Statistics of the bands over clear train pixels: exact sums that add up over cells, then mean and quantiles."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise, repeat

import numpy as np
from numpy.typing import NDArray

from sits_pipeline.values import JsonObject

__all__ = ["BIN_DN", "BandSums", "accumulate", "merge", "summarise"]

BIN_DN = 10
"""Width of a histogram's bin in DN."""
_VALUES = 65536
_BINS = -(-_VALUES // BIN_DN)
_SCALE = 10_000


@dataclass(frozen=True, kw_only=True)
class BandSums:
    """What is known of one band's pixels: exact integers, so that the order of cells never shows."""

    n: int
    total: int
    """Sum of the DN."""
    squares: int
    """Sum of the squared DN."""
    histogram: NDArray[np.int64]
    """(bin,): pixels with DN in [10 i, 10 i + 10)."""

    def __add__(self, other: BandSums) -> BandSums:
        """The sums of both sets of pixels."""
        return BandSums(
            n=self.n + other.n,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            histogram=self.histogram + other.histogram,
        )

    def to_json(self) -> JsonObject:
        """Plain JSON, a few hundred bytes; the histogram as deflated bytes in base64."""
        return {
            "n": self.n,
            "total": self.total,
            "squares": self.squares,
            "histogram": base64.b64encode(zlib.compress(_packed(self.histogram), 9)).decode(),
        }

    @classmethod
    def from_json(cls, value: JsonObject) -> BandSums:
        """The sums that `to_json` wrote."""
        histogram = _unpacked(zlib.decompress(base64.b64decode(value["histogram"])))
        return cls(n=value["n"], total=value["total"], squares=value["squares"], histogram=histogram)


def accumulate(
    reflectance: NDArray[np.uint16],
    clear: NDArray[np.bool_],
    train: NDArray[np.bool_] | None,
    pool: Executor | None = None,
) -> list[JsonObject]:
    """The sums of each band of a cell, as they stand in the journal.

    `reflectance` is (time, band, y, x), `clear` (time, y, x), `train` (y, x) or None for all pixels. With a `pool`
    its threads share the dates.
    """
    run = map if pool is None else pool.map
    counts = np.zeros((reflectance.shape[1], _VALUES), dtype=np.int64)
    for one in run(_counts_of_date, reflectance, clear, repeat(train)):
        counts += one
    return [_sums(row).to_json() for row in counts]


def _counts_of_date(
    frame: NDArray[np.uint16], clear: NDArray[np.bool_], train: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    """Pixels a DN, (band, 65536): one pass gives every sum exactly."""
    chosen = np.flatnonzero(clear if train is None else clear & train)
    counts = np.zeros((len(frame), _VALUES), dtype=np.int64)
    if len(chosen):
        for band, dn in zip(counts, frame, strict=True):
            band += np.bincount(dn.reshape(-1)[chosen], minlength=_VALUES)
    return counts


def _sums(counts: NDArray[np.int64]) -> BandSums:
    dn = np.arange(_VALUES, dtype=np.int64)
    padded = np.pad(counts, (0, _BINS * BIN_DN - _VALUES))
    return BandSums(
        n=int(counts.sum()),
        total=int((counts * dn).sum()),
        squares=int((counts * dn * dn).sum()),  # 2^32 x pixels of a cell stays far below 2^63
        histogram=padded.reshape(_BINS, BIN_DN).sum(axis=1),
    )


def _packed(histogram: NDArray[np.int64]) -> bytes:
    """First used bin, then the counts up to the last used one, each in as many 7-bit groups as it needs."""
    used = np.flatnonzero(histogram)
    if not len(used):
        return b""
    first = int(used[0])
    return b"".join(_varint(int(value)) for value in [first, *histogram[first : used[-1] + 1].tolist()])


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _unpacked(data: bytes) -> NDArray[np.int64]:
    histogram = np.zeros(_BINS, dtype=np.int64)
    ends = [position + 1 for position, byte in enumerate(data) if byte < 0x80]
    values = [
        sum((byte & 0x7F) << 7 * group for group, byte in enumerate(data[start:end]))
        for start, end in pairwise([0, *ends])
    ]
    if values:
        histogram[values[0] : values[0] + len(values) - 1] = values[1:]
    return histogram


def merge(cells: Iterable[Sequence[JsonObject]]) -> list[BandSums]:
    """The sums of each band over cells, from what `accumulate` put into the journal; empty for no cells."""
    merged: list[BandSums] = []
    for cell in cells:
        sums = [BandSums.from_json(value) for value in cell]
        merged = [a + b for a, b in zip(merged, sums, strict=True)] if merged else sums
    return merged


def summarise(bands: Sequence[str], sums: Sequence[BandSums]) -> JsonObject:
    """Band name to `{mean, std, p2, p50, p98, n}` in reflectance; all but `n` None where no pixel was clear."""
    return {name: _summary(one) for name, one in zip(bands, sums, strict=True)}


def _summary(sums: BandSums) -> JsonObject:
    if sums.n == 0:
        return {"mean": None, "std": None, "p2": None, "p50": None, "p98": None, "n": 0}
    # Integers until the last division: no cancellation, whatever the number of pixels.
    variance = (sums.n * sums.squares - sums.total**2) / sums.n**2
    values = {"mean": sums.total / sums.n, "std": variance**0.5}
    for name, share in (("p2", 0.02), ("p50", 0.5), ("p98", 0.98)):
        values[name] = _quantile(sums.histogram, share)
    return {**{name: round(value / _SCALE, 6) for name, value in values.items()}, "n": sums.n}


def _quantile(histogram: NDArray[np.int64], share: float) -> float:
    """The DN below which a share of the pixels lies, linear inside of a bin."""
    above = np.cumsum(histogram)
    wanted = share * float(above[-1])
    index = int(np.searchsorted(above, wanted))
    before = float(above[index] - histogram[index])
    return BIN_DN * (index + (wanted - before) / float(histogram[index]))
