"""Rows of a Parquet file of a stranger, so many at a time as fit into memory, whatever its pages unpack to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

__all__ = ["ParquetRows"]

_BATCH_ROWS = 65_536
_BATCH_BYTES = 2**27
_BUFFER = 1 << 20
"""Bytes of a column chunk that are read at once, so that a file of one row group is never in memory."""
_RATIO = 100
"""Bytes of values that a byte of a file may hold; text of few different words has 20 to 50."""
_LEAST = 2**30
"""Bytes that any file may hold."""


class ParquetRows:
    """A Parquet file, open; closed on leaving it.

    A dictionary holds a value once that a million rows repeat: a kilobyte of a file may be gigabytes in memory. So the
    dictionaries are looked at first, and as many rows read at a time as can do no harm; and a file that goes on and on
    to unpack to a hundred times its size is refused.
    """

    def __init__(self, source: Any, *, size: int, name: str) -> None:
        """Of a path or an open file of `size` bytes that people know as `name`.

        Raises OSError, or one of pyarrow's errors, where it is no Parquet.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._name = name
        self._left = max(_LEAST, _RATIO * size)
        # An open file is read twice at once, and closed by whoever opened it.
        self._source = source if isinstance(source, str) else pa.PythonFile(source, mode="r")
        self._stack = ExitStack()
        self.file = self._stack.enter_context(pq.ParquetFile(self._source, buffer_size=_BUFFER))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def batches(self, columns: Sequence[str], group: int) -> Iterator[Any]:
        """The rows of a row group in their order, as record batches; raises ValueError where they are too large."""
        for batch in self.file.iter_batches(self._rows_at_once(columns, group), row_groups=[group], columns=columns):
            self._left -= batch.nbytes
            if self._left < 0:
                raise ValueError(
                    f"{self._name} unpacks to more than {_RATIO} times its size and more than {_LEAST} bytes; give a "
                    "part of it, or write it anew without repetition"
                )
            yield batch

    def _rows_at_once(self, columns: Sequence[str], group: int) -> int:
        import pyarrow.parquet as pq

        metadata = self.file.metadata.row_group(group)
        leaves = [metadata.column(index) for index in range(metadata.num_columns)]
        wanted = [leaf for leaf in leaves if _belongs(leaf.path_in_schema, columns)]
        texts = [leaf for leaf in wanted if leaf.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")]
        # A value of these may repeat the one before it; the reader does not tell how long they are.
        untold = [leaf for leaf in texts if leaf.physical_type != "BYTE_ARRAY" or "DELTA_BYTE_ARRAY" in leaf.encodings]
        largest = max((leaf.total_uncompressed_size for leaf in untold), default=1)
        told = [leaf.path_in_schema for leaf in texts if leaf not in untold]
        if told:
            with pq.ParquetFile(
                self._source, metadata=self.file.metadata, read_dictionary=told, buffer_size=_BUFFER
            ) as file:
                for batch in file.iter_batches(1, row_groups=[group], columns=told):
                    largest = max([largest, *(_longest(batch.column(at)) for at in range(batch.num_columns))])
                    break
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // largest))


def _belongs(path: str, columns: Sequence[str]) -> bool:
    return any(path == column or path.startswith(f"{column}.") for column in columns)


def _longest(array: Any) -> int:
    """Bytes of the longest value in the dictionaries of an array."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        return int(pc.max(pc.binary_length(array.dictionary)).as_py() or 0)
    if pa.types.is_struct(array.type):
        return max((_longest(array.field(at)) for at in range(array.type.num_fields)), default=0)
    if pa.types.is_map(array.type):
        return max(_longest(array.keys), _longest(array.items))
    return _longest(array.values) if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) else 0
