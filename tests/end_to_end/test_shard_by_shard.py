"""A cell that is computed shard by shard, for want of memory, is the cell that is computed whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.end_to_end.archives import (
    BANDS,
    DATES,
    SmallArchive,
    build_arguments,
    cells_in_journal,
    leftovers,
    promised,
    region_document,
    run_here,
    write_small_archive,
)

from sits_pipeline.plan import cell_memory

pytestmark = pytest.mark.slow

CELL = 1024
"""Two by two shards of 512 px."""


@dataclass(frozen=True)
class Pair:
    """A build whose cells are computed whole, and one shard by shard."""

    whole: Path
    shard_by_shard: Path


def memory_gb(side: int) -> float:
    """What a cell of this side takes, as the build bounds it."""
    return cell_memory(len(DATES), len(BANDS), side**2, labels=True, finer=(2,)).first / 1e9


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> SmallArchive:
    archive = write_small_archive(tmp_path_factory.mktemp("archive"))
    # One scene cannot be read: its pixels lie in several shards of a cell.
    archive.asset("31TEJ", DATES[2], "B04").write_bytes(b"no image")
    archive.region.write_text(yaml.safe_dump(region_document(labels={"finer": [2]}), sort_keys=False))
    return archive


@pytest.fixture(scope="module")
def pair(archive: SmallArchive, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    # Half way between a shard and a cell: the cells are not refused, so that they are not computed whole.
    little = (memory_gb(512) + memory_gb(CELL)) / 2
    assert memory_gb(512) < little < memory_gb(CELL)
    found = []
    for name, memory in (("whole", 4.0), ("shards", little)):
        out = tmp_path_factory.mktemp(name)
        more = ("--cell", CELL, "--chips", "parcel", "--memory", memory)
        ended = run_here("sits-build", *build_arguments(archive, out, *more))
        assert ended.code == 3, ended.stderr  # incomplete: a scene is unread
        found.append(out / "small")
    return Pair(*found)


def test_files_are_equal_byte_by_byte(pair: Pair) -> None:
    files = promised(pair.whole)
    assert any(name.startswith("cube.zarr/labels_x2/") for name in files)
    assert any(name.startswith("cube.zarr/overview/") for name in files)
    assert promised(pair.shard_by_shard) == files
    assert leftovers(pair.shard_by_shard) == []


def test_journal_entries_are_equal_but_for_their_seconds(pair: Pair) -> None:
    whole, merged = (cells_in_journal(path) for path in (pair.whole, pair.shard_by_shard))
    assert len(whole) == 4
    for key, entry in whole.items():
        seconds, others = entry.pop("seconds"), merged[key].pop("seconds")
        assert seconds > 0
        assert others > 0
        # The order of every list is the same, too.
        assert json.dumps(merged[key]) == json.dumps(entry)
    first = whole[min(whole)]
    assert len(first["failures"]) == 1
    assert first["splits"].keys() >= {"1"}
    assert first["chip_pieces"]
    assert sum(row[1] == "parcel" for row in first["chips"]) > 100
