"""Tables that are written piece by piece are one table."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from sits_pipeline.geoparquet import GeoTableWriter, geo_table, write_geo_table


def table_of(numbers: range) -> Any:
    """A row a number: a square of 10 m with its corner there."""
    left = np.array(numbers, dtype=np.float64) * 10
    columns = {
        "number": pa.array(np.array(numbers), pa.uint32()),
        "name": pa.array([f"n{n}" for n in numbers], pa.string()),
    }
    return geo_table(columns, geometry=np.asarray(shapely.box(left, 0, left + 10, 10), dtype=object), epsg=32631)


def written(tables: Sequence[Any]) -> bytes:
    file = io.BytesIO()
    writer = GeoTableWriter(file)
    for table in tables:
        writer.write(table)
    writer.close()
    return file.getvalue()


@pytest.mark.parametrize(
    ("cuts", "groups"),
    [
        ([0, 10], [10]),
        ([0, 3, 3, 10], [10]),
        ([0, 50_000], [50_000]),
        ([0, 20_000, 50_000], [50_000]),
        ([0, 20_000, 49_999, 50_001], [50_000, 1]),
        ([0, 7, 120_000, 120_007], [50_000, 50_000, 20_007]),
    ],
)
def test_pieces_make_the_file_of_one_table(cuts: list[int], groups: list[int]) -> None:
    pieces = [table_of(range(start, end)) for start, end in pairwise(cuts)]
    data, whole = written(pieces), table_of(range(cuts[-1]))
    one = io.BytesIO()
    write_geo_table(one, whole)
    assert data == one.getvalue()
    file = pq.ParquetFile(io.BytesIO(data))
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == groups
    assert file.read().equals(whole)
    assert file.schema_arrow.metadata == whole.schema.metadata


def test_a_table_without_rows_is_a_file_without_rows() -> None:
    found = geopandas.read_parquet(io.BytesIO(written([table_of(range(0))])))
    assert len(found) == 0
    assert found.crs.to_epsg() == 32631


def test_other_programs_find_crs_and_places() -> None:
    found = geopandas.read_parquet(io.BytesIO(written([table_of(range(2)), table_of(range(2, 5))])))
    assert found.crs.to_epsg() == 32631
    assert found.total_bounds.tolist() == [0, 0, 50, 10]
    assert found.number.tolist() == [0, 1, 2, 3, 4]
