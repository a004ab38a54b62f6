"""What a map says of each parcel: the class most of its pixels have, and how sure the model is of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import fsspec
import numpy as np
from numpy.typing import NDArray

from sits_models.data.classes import ClassTable
from sits_models.data.cubes import CubeFacts
from sits_models.folder import move_whole, partial_of, sync, write_whole
from sits_models.maps.store import NO_CLASS
from sits_models.metrics import decide

__all__ = ["ParcelCounts", "Verdicts", "count_parcels", "described", "judge", "write_parcels", "write_rows"]

_ONE = 65535
"""What stands for a probability of 1: whole numbers have the same sum in any order."""
_ROWS = 50_000
"""Parcels held at a time, and rows of a row group: those whose numbers, less one, are as often a multiple of this."""


@dataclass(frozen=True, kw_only=True)
class ParcelCounts:
    """Sums over pixels, a row a parcel; parcels are ascending."""

    parcel_id: NDArray[np.uint32]
    votes: NDArray[np.uint32]
    """(n, K): pixels that have each class."""
    sums: NDArray[np.uint64]
    """(n, K): probability of each class x 65535, summed over the pixels."""

    def save(self, folder: Path, cell: int) -> None:
        """Write what a cell adds below `folder`: a file for every 50 000 numbers, each whole or not at all."""
        bucket = _bucket(self.parcel_id)
        for number in np.unique(bucket).tolist():
            mine, buffer = bucket == number, io.BytesIO()
            np.savez(buffer, parcel_id=self.parcel_id[mine], votes=self.votes[mine], sums=self.sums[mine])
            path = folder / f"{number:06d}"
            path.mkdir(parents=True, exist_ok=True)
            sync(folder.parent)
            sync(folder)
            write_whole(path / f"{cell:06d}.npz", buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote into a file."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(parcel_id=arrays["parcel_id"], votes=arrays["votes"], sums=arrays["sums"])

    @classmethod
    def total(cls, parts: Sequence[Self]) -> Self:
        """The sums over all parts, of which there is at least one."""
        ids, row = np.unique(np.concatenate([part.parcel_id for part in parts]), return_inverse=True)
        votes = np.zeros((len(ids), parts[0].votes.shape[1]), np.uint32)
        sums = np.zeros(votes.shape, np.uint64)
        first = 0
        for part in parts:
            # A part has each parcel once.
            here = row[first : first + len(part.parcel_id)]
            votes[here] += part.votes
            sums[here] += part.sums
            first += len(here)
        return cls(parcel_id=ids, votes=votes, sums=sums)


def _bucket(parcel_id: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.int64]:
    """Which file of a cell a parcel is in; numbers begin at 1."""
    return (parcel_id.astype(np.int64) - 1) // _ROWS


def count_parcels(
    parcel_id: NDArray[np.integer[Any]], crop_type: NDArray[np.uint16], probabilities: NDArray[np.float32]
) -> ParcelCounts:
    """Counts of a cell: parcel and class (y, x), probabilities (K, y, x); pixels without an observation count not."""
    counted = (parcel_id > 0) & (crop_type != NO_CLASS)
    found, row = np.unique(parcel_id[counted], return_inverse=True)
    n, classes = len(found), len(probabilities)
    votes = np.bincount(row * classes + crop_type[counted], minlength=n * classes).reshape(n, classes)
    sums = np.empty((n, classes), np.uint64)
    for index in range(classes):
        # Sums of float64 are exact below 2^53.
        sums[:, index] = np.bincount(row, weights=np.rint(probabilities[index][counted] * _ONE), minlength=n)
    return ParcelCounts(parcel_id=found.astype(np.uint32), votes=votes.astype(np.uint32), sums=sums)


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """One a parcel."""

    predicted: NDArray[np.int64]
    """Class index; -1 where no pixel was counted."""
    share: NDArray[np.float64]
    """Share of its pixels that have this class; NaN without one."""
    probability: NDArray[np.float64]
    """Mean probability of this class over its pixels; NaN without one."""
    n_pixels: NDArray[np.int64]


def judge(votes: NDArray[np.integer[Any]], sums: NDArray[np.integer[Any]]) -> Verdicts:
    """Majority vote over (n, K) counts, as evaluation takes it: of a tie the class with the smaller index."""
    predicted = decide(votes)
    rows, n_pixels = np.arange(len(votes)), votes.sum(axis=1).astype(np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = votes[rows, predicted] / n_pixels
        probability = sums[rows, predicted] / (n_pixels * float(_ONE))
    return Verdicts(
        predicted=np.where(n_pixels > 0, predicted, -1), share=share, probability=probability, n_pixels=n_pixels
    )


def write_parcels(path: Path, source: str, counts: Path, *, table: ClassTable, facts: CubeFacts) -> int:
    """Write a GeoParquet with a row for each parcel of the cube's table `source`, a path or URL; their number.

    `counts` is the folder in which the `ParcelCounts` of all cells were saved. Parcels are taken 50 000 at a time, with
    the files that count these: memory does not grow with their number, and each file is read once.
    """
    return write_rows(path, source, lambda batch: _rows(batch, _gathered(batch, counts, table.n), table, facts))


def write_rows(path: Path, source: str, rows: Callable[[Any], Any]) -> int:
    """Write a GeoParquet of the pyarrow Tables that `rows` makes of the batches of the table `source`, a path or URL.

    Batches have 50 000 rows. The number of rows that were written; no file where it is 0.
    """
    import pyarrow.parquet as pq

    partial, written = partial_of(path), 0
    with fsspec.open(source, "rb") as file, pq.ParquetFile(file) as parcels:
        geo = parcels.schema_arrow.metadata[b"geo"]
        writer = None
        try:
            for batch in parcels.iter_batches(batch_size=_ROWS):
                made = rows(batch).replace_schema_metadata({"geo": geo})
                if writer is None:
                    writer = pq.ParquetWriter(partial, made.schema, compression="zstd", write_page_index=True)
                writer.write_table(made, row_group_size=_ROWS)
                written += len(made)
        finally:
            if writer is not None:
                writer.close()
    if writer is not None:
        move_whole(partial, path)
    return written


def _gathered(batch: Any, counts: Path, classes: int) -> Verdicts:
    """The verdicts of the parcels of a batch from all cells."""
    ids = np.asarray(batch.column("parcel_id"), np.uint32)
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]
    votes, sums = np.zeros((len(ids), classes), np.int64), np.zeros((len(ids), classes), np.uint64)
    for part in _loaded(counts, ids):
        at = np.minimum(np.searchsorted(ascending, part.parcel_id), len(ids) - 1)
        mine = ascending[at] == part.parcel_id
        rows = order[at[mine]]
        votes[rows] += part.votes[mine]
        sums[rows] += part.sums[mine]
    return judge(votes, sums)


def _loaded(counts: Path, ids: NDArray[np.uint32]) -> Iterator[ParcelCounts]:
    """What all cells have of these parcels; the table is in the order of its numbers, so that this is one bucket."""
    for number in np.unique(_bucket(ids)).tolist():
        yield from map(ParcelCounts.load, sorted((counts / f"{number:06d}").glob("*.npz")))


def _rows(batch: Any, verdicts: Verdicts, table: ClassTable, facts: CubeFacts) -> Any:
    """A pyarrow Table: the parcel, what is predicted and what was declared."""
    import pyarrow as pa

    nothing = verdicts.predicted < 0
    said = {
        "share": pa.array(verdicts.share, pa.float32(), mask=nothing),
        "probability": pa.array(verdicts.probability, pa.float32(), mask=nothing),
        "n_pixels": pa.array(verdicts.n_pixels, pa.uint32()),
    }
    return described(batch, verdicts.predicted, said, table, facts)


def described(
    batch: Any, predicted: NDArray[np.int64], said: Mapping[str, Any], table: ClassTable, facts: CubeFacts
) -> Any:
    """A pyarrow Table of a batch of parcels: their class, -1 for none, what else is `said` of them, what was declared.

    `said` holds columns by name.
    """
    import pyarrow as pa

    declared = np.asarray(batch.column("crop_type"), np.int64)
    expected, nothing = table.lookup(facts)[declared], predicted < 0
    codes = {crop.index: crop.code for crop in facts.classes}
    names = batch.schema.names
    columns = {
        "parcel_id": batch.column("parcel_id"),
        "source_key": batch.column("source_key"),
        "predicted": pa.array(predicted, pa.int32(), mask=nothing),
        "predicted_code": pa.array(np.array([*table.codes, None], object)[predicted], pa.string()),
        "predicted_name": pa.array(np.array([*table.names, None], object)[predicted], pa.string()),
        **said,
        "declared_code": pa.array([codes.get(index) for index in declared.tolist()], pa.string()),
        "declared_name": batch.column("crop_name"),
        # A class that the model does not know is neither met nor missed.
        "agrees": pa.array(expected == predicted, pa.bool_(), mask=nothing | (expected < 0)),
        **{name: batch.column(name) for name in ("bbox", "geometry") if name in names},
    }
    return pa.table(columns)
