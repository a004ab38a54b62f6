from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sits_catalog import parquet_rows
from sits_catalog.parquet_rows import ParquetRows

BIG = "x" * 10_000


def stored(columns: dict[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd", **options)
    return buffer.getvalue()


def batches(data: bytes, columns: list[str]) -> list[pa.RecordBatch]:
    with ParquetRows(io.BytesIO(data), size=len(data), name="a.parquet") as rows:
        return [batch for group in range(rows.file.num_row_groups) for batch in rows.batches(columns, group)]


@pytest.mark.parametrize("encoding", [None, "PLAIN", "DELTA_BYTE_ARRAY"])
@pytest.mark.parametrize("most", [2**27, 600])
def test_rows_come_in_their_order_whatever_their_number_at_a_time(
    monkeypatch: pytest.MonkeyPatch, encoding: str | None, most: int
) -> None:
    names = [f"{number:>6}" for number in range(1000)]
    table = {"name": names, "number": np.arange(1000), "place": [{"x": 1.0, "code": name} for name in names]}
    options: dict[str, Any] = (
        {} if encoding is None else {"use_dictionary": False, "column_encoding": {"name": encoding}}
    )
    data = stored(table, row_group_size=600, **options)
    monkeypatch.setattr(parquet_rows, "_BATCH_BYTES", most)
    found = batches(data, ["name", "number", "place"])
    assert pa.Table.from_batches(found).to_pydict() == {**table, "number": list(range(1000))}
    assert len(found) > 2 or most > 600


@pytest.mark.parametrize(
    "column",
    [
        pa.array([BIG] * 1000),
        pa.array([BIG.encode()] * 1000, pa.large_binary()),
        pa.array([{"a": {"b": BIG}}] * 1000),
        pa.array([[BIG]] * 1000),
    ],
    ids=["text", "large", "struct", "list"],
)
def test_few_rows_are_read_at_a_time_where_a_dictionary_holds_large_values(
    monkeypatch: pytest.MonkeyPatch, column: pa.Array
) -> None:
    """Ten megabytes in two kilobytes; of a value of a megabyte it is gigabytes."""
    monkeypatch.setattr(parquet_rows, "_BATCH_BYTES", 10 * len(BIG))
    monkeypatch.setattr(parquet_rows, "_LEAST", 2**22)
    data = stored({"a": column, "b": np.zeros(1000)})
    assert len(data) < 5_000
    with ParquetRows(io.BytesIO(data), size=len(data), name="a.parquet") as rows:
        assert len(next(rows.batches(["a"], 0))) == 10
        assert len(next(rows.batches(["b"], 0))) == 1000
    with pytest.raises(ValueError, match=r"a\.parquet unpacks to more than 100 times its size and more than 4194304 "):
        batches(data, ["a"])


def test_the_large_value_may_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "_BATCH_BYTES", 10 * len(BIG))
    data = stored({"a": pa.array(["small"] * 999 + [BIG])})
    assert {len(batch) for batch in batches(data, ["a"])} == {10}
