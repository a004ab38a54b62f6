from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sits_pipeline.folder import Folder
from sits_pipeline.journal import (
    MERGED,
    CellLines,
    Journal,
    cell_parts,
    encode_line,
    plan_lines,
    read_journal,
    segments,
)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def entry(number: int) -> dict[str, object]:
    return {"kind": "cell", "cell": [number, 0, 512, 512], "text": "Hérault \n ü"}


def stored(folder: Folder) -> list[object]:
    return list(read_journal(folder))


# Lines


def test_a_line_is_one_line_of_json_with_sorted_keys() -> None:
    assert encode_line({"b": "x\ny", "a": [1, 2]}) == b'{"a":[1,2],"b":"x\\ny"}\n'


def test_numbers_that_json_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_line({"a": float("nan")})


# Reading and writing


def test_a_dataset_without_a_journal_has_no_entries(folder: Folder) -> None:
    assert stored(folder) == []


def test_entries_are_read_in_the_order_in_which_they_were_added(folder: Folder) -> None:
    journal = Journal(folder)
    for number in range(5):
        journal.append(entry(number))
    journal.flush()
    assert stored(folder) == [entry(number) for number in range(5)]


def test_a_journal_that_is_taken_up_goes_on_in_a_new_segment(folder: Folder) -> None:
    for number in range(3):
        journal = Journal(folder)
        journal.append(entry(number))
        journal.flush()
    assert segments(folder) == ["journal/000001.jsonl", "journal/000002.jsonl", "journal/000003.jsonl"]
    assert stored(folder) == [entry(number) for number in range(3)]


def test_a_segment_holds_a_hundred_entries(folder: Folder) -> None:
    journal = Journal(folder, clock=Clock())
    for number in range(250):
        journal.append(entry(number))
    journal.flush()
    assert [folder.read(name).count(b"\n") for name in segments(folder)] == [100, 100, 50]
    assert stored(folder) == [entry(number) for number in range(250)]


def test_a_segment_ends_after_ten_seconds(folder: Folder) -> None:
    clock = Clock()
    journal = Journal(folder, clock=clock)
    for seconds in (0, 9, 1, 4, 4, 4):
        clock.now += seconds
        journal.append(entry(int(clock.now)))
    journal.flush()
    assert [folder.read(name).count(b"\n") for name in segments(folder)] == [3, 3]


def test_flushing_without_entries_writes_nothing(folder: Folder) -> None:
    Journal(folder).flush()
    assert list(folder.files()) == []


def test_a_local_disk_holds_each_entry_when_append_returns(local: Folder) -> None:
    journal = Journal(local, clock=Clock())
    for number in range(3):
        journal.append(entry(number))
        assert stored(local) == [entry(n) for n in range(number + 1)]
    journal.flush()


def test_a_local_line_is_synced_at_once_and_those_of_one_moment_together(
    local: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real: Callable[[int], None] = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        real(descriptor)

    clock = Clock()
    journal = Journal(local, clock=clock)
    journal.append(entry(0))
    monkeypatch.setattr(os, "fsync", fsync)
    line = len(encode_line(entry(0)))
    for seconds, lines in ((0.0, None), (0.04, None), (0.02, 4), (0.06, 5), (0.01, None)):
        clock.now += seconds
        synced.clear()
        journal.append(entry(0))
        assert synced == ([] if lines is None else [lines * line])
    journal.flush()
    assert synced == [6 * line]


def test_two_writers_do_not_share_a_segment(local: Folder) -> None:
    first, second = Journal(local), Journal(local)
    first.append(entry(1))
    with pytest.raises(FileExistsError):
        second.append(entry(2))
    first.flush()


def test_two_writers_do_not_share_a_segment_of_a_store(remote: Folder) -> None:
    first, second = Journal(remote, clock=Clock()), Journal(remote, clock=Clock())
    first.append(entry(1))
    second.append(entry(2))
    first.flush()
    with pytest.raises(FileExistsError, match=r"journal/000001\.jsonl is there already"):
        second.flush()
    assert stored(remote) == [entry(1)]


def test_on_an_object_store_a_segment_is_one_put(remote: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    puts: list[str] = []
    real = Folder.create

    def create(self: Folder, name: str, data: bytes) -> None:
        puts.append(name)
        real(self, name, data)

    monkeypatch.setattr(Folder, "create", create)
    clock = Clock()
    journal = Journal(remote, clock=clock)
    for number in range(99):
        journal.append(entry(number))
    assert puts == []
    journal.append(entry(99))
    assert puts == ["journal/000001.jsonl"]
    # Slow cells: each comes more than 10 s after the last PUT and is stored at once.
    for number in range(100, 103):
        clock.now += 60
        journal.append(entry(number))
        assert len(puts) == number - 98
    assert stored(remote) == [entry(number) for number in range(103)]
    assert len(set(puts)) == len(puts)


# Torn and damaged lines


@pytest.mark.parametrize("kept", range(len(encode_line(entry(2)))))
def test_a_last_line_cut_anywhere_is_left_out_and_the_rest_stands(tmp_path: Path, kept: int) -> None:
    folder = Folder(str(tmp_path))
    journal = Journal(folder)
    for number in range(3):
        journal.append(entry(number))
    journal.flush()
    path = tmp_path / "journal" / "000001.jsonl"
    path.write_bytes(path.read_bytes()[: 2 * len(encode_line(entry(0))) + kept])
    assert stored(folder) == [entry(0), entry(1)]
    # Taken up, the build goes on in a segment of its own.
    again = Journal(folder)
    again.append(entry(7))
    again.flush()
    assert stored(folder) == [entry(0), entry(1), entry(7)]


def test_a_segment_that_holds_only_a_torn_line_is_empty(local: Folder) -> None:
    local.write("journal/000001.jsonl", b'{"kind":')
    local.write("journal/000002.jsonl", encode_line(entry(1)))
    assert stored(local) == [entry(1)]


def test_a_damaged_line_before_the_last_is_an_error_that_names_it(local: Folder) -> None:
    local.write("journal/000001.jsonl", encode_line(entry(0)) + b"{broken\n" + encode_line(entry(1)))
    with pytest.raises(
        ValueError, match=r"line 2 of the journal is damaged: b'\{broken'; the dataset cannot be taken up"
    ):
        stored(local)


def test_bytes_that_are_no_text_are_a_damaged_line(local: Folder) -> None:
    local.write("journal/000001.jsonl", b'{"a":"\xff"}\n')
    with pytest.raises(ValueError, match="line 1 of the journal is damaged"):
        stored(local)


# Merging


def test_merging_leaves_one_file_with_the_entries(folder: Folder) -> None:
    journal = Journal(folder)
    journal.append(entry(3))
    journal.flush()
    journal.append(entry(1))
    journal.merge(encode_line(one) for one in (entry(1), entry(3), {"kind": "files"}))
    assert list(folder.files()) == [MERGED]
    assert stored(folder) == [entry(1), entry(3), {"kind": "files"}]
    assert folder.read(MERGED) == encode_line(entry(1)) + encode_line(entry(3)) + encode_line({"kind": "files"})


def test_what_is_being_read_may_be_merged(folder: Folder) -> None:
    journal = Journal(folder)
    for number in range(3):
        journal.append(entry(number))
    journal.flush()
    journal.merge(map(encode_line, read_journal(folder)))
    assert stored(folder) == [entry(number) for number in range(3)]


def test_a_merged_journal_is_taken_up_and_merged_again(folder: Folder) -> None:
    for number in range(3):
        journal = Journal(folder)
        journal.append(entry(number))
        journal.flush()
        journal.merge(map(encode_line, read_journal(folder)))
    assert stored(folder) == [entry(number) for number in range(3)]
    assert list(folder.files()) == [MERGED]


def test_a_merge_cut_short_repeats_entries_and_is_done_again(folder: Folder) -> None:
    journal = Journal(folder)
    for number in range(3):
        journal.append(entry(number))
        journal.flush()
    left = {name: folder.read(name) for name in segments(folder)[1:]}
    journal.merge(encode_line(entry(number)) for number in range(3))
    for name, data in left.items():
        folder.write(name, data)

    assert stored(folder) == [entry(0), entry(1), entry(2), entry(1), entry(2)]
    by_cell = {json.dumps(found["cell"]): found for found in read_journal(folder)}
    again = Journal(folder)
    again.merge(map(encode_line, by_cell.values()))
    assert stored(folder) == [entry(0), entry(1), entry(2)]
    assert segments(folder) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=6), st.data())
def test_whatever_is_added_and_wherever_segments_end_is_read_back(
    entries: list[dict[str, object]], data: st.DataObject
) -> None:
    folder = Folder(f"memory://{uuid.uuid4().hex}")
    journal = Journal(folder)
    for one in entries:
        journal.append(one)
        if data.draw(st.booleans()):
            journal.flush()
    journal.flush()
    assert stored(folder) == entries
    journal.merge(map(encode_line, entries))
    assert stored(folder) == entries


# Parts of lines


def renamed(value: object) -> object:
    """The same with an underscore before each key."""
    if isinstance(value, dict):
        return {f"_{key}": renamed(one) for key, one in value.items()}
    return [renamed(one) for one in value] if isinstance(value, list) else value


@given(
    st.dictionaries(st.sampled_from(["bands", "failures", "notes", "seconds", "shards", "split_for"]), JSON, max_size=5)
)
def test_parts_of_a_cell_s_line_are_those_of_the_whole(parts: dict[str, object]) -> None:
    # What is inside of an entry has keys of its own, never those of a line.
    inner = {name: renamed(one) for name, one in parts.items()}
    line = {"kind": "cell", "cell": [3, 4], "text": 'no "shards": here', **inner}
    folder = Folder(f"memory://{uuid.uuid4().hex}")
    folder.write("journal/000001.jsonl", encode_line({"kind": "plan"}) + encode_line(line))
    wanted = ("failures", "shards", "split_for")
    expected = {name: value for name, value in line.items() if name in ("cell", *wanted)}
    assert list(cell_parts(folder, wanted)) == [expected]


def test_parts_are_whole_whatever_their_length(remote: Folder) -> None:
    # They end before, at and behind the end of what is looked at first.
    parts = [{"failures": [], "shards": [123456] * n, "splits": {"1": 5}} for n in range(580, 590)]
    parts += [{"failures": [{"item": "a" * n}], "shards": {"a": [1, "b"]}} for n in range(4070, 4100)]
    lines = [{"kind": "cell", "cell": [number], **part} for number, part in enumerate(parts)]
    remote.write("journal/000001.jsonl", b"".join(map(encode_line, lines)))
    found = list(cell_parts(remote, ("failures", "shards")))
    assert found == [{key: line[key] for key in ("cell", "failures", "shards")} for line in lines]


def test_a_cell_s_line_whose_wanted_part_is_damaged_is_named(local: Folder) -> None:
    line = encode_line({"kind": "cell", "cell": [0, 0], "shards": {"a": [1, "b"]}})
    local.write("journal/000001.jsonl", encode_line({"kind": "plan"}) + line.replace(b'[1,"b"]', b'[1"b"]'))
    assert len(CellLines(local)) == 1
    with pytest.raises(ValueError, match="line 2 of the journal is damaged"):
        list(cell_parts(local, ("shards",)))


# Journals of an object store that are larger than what is fetched at once


@pytest.mark.parametrize("part", [1, 50, 64, 1000])
def test_lines_of_a_store_that_begin_and_end_in_any_part_are_whole(
    remote: Folder, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    journal = Journal(remote, clock=Clock())
    journal.append({"kind": "plan", "text": "p" * 40})
    for number in (3, 1, 2):
        journal.append(entry(number))
        journal.flush()
    for module in ("folder.folder", "journal"):
        monkeypatch.setattr(f"sits_pipeline.{module}.PART_BYTES", part)
    assert [one.get("cell") for one in read_journal(remote)] == [None, *(entry(number)["cell"] for number in (3, 1, 2))]
    assert plan_lines(remote) == [{"kind": "plan", "text": "p" * 40}]
    lines = CellLines(remote)
    assert list(lines) == [encode_line(entry(number)) for number in (1, 2, 3)]
    journal.merge(lines)
    assert list(CellLines(remote)) == [encode_line(entry(number)) for number in (1, 2, 3)]


def test_of_a_store_few_parts_of_a_journal_are_kept(remote: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(remote, clock=Clock())
    for number in range(40):
        journal.append(entry(number))
        journal.flush()
    fetched: list[str] = []
    real = Folder.read_range

    def read_range(self: Folder, name: str, start: int, stop: int) -> bytes:
        fetched.append(name)
        return real(self, name, start, stop)

    lines = CellLines(remote)
    monkeypatch.setattr(Folder, "read_range", read_range)
    assert len(list(lines)) == len(fetched) == 40
    assert len(list(lines)) == 40
    assert len(fetched) == 80  # the first ones were let go of


def test_what_a_store_has_not_got_yet_is_put_when_a_build_ends_with_an_error(remote: Folder) -> None:
    journal = Journal(remote, clock=Clock())
    journal.append(entry(1))
    assert stored(remote) == []
    journal.close()
    assert stored(remote) == [entry(1)]
