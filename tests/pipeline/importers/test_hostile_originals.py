"""Files of published datasets that somebody else wrote: headers, lengths and metadata that lie."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sits_pipeline.importers.pastis import load_array
from sits_pipeline.importers.pastis_metadata import read_metadata
from sits_pipeline.importers.pickles import load_plain_pickle
from sits_pipeline.importers.tfrecords import parse_example, read_records


def npy(header: str, body: bytes = b"", version: int = 1) -> bytes:
    """An .npy file with this header, whatever it says."""
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + body


def header(descr: str, shape: str) -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


ARRAYS = {
    "objects": npy(header("'|O'", "(1,)"), pickle.dumps(print)),
    "a field of objects": npy(header("[('a', '|O')]", "(1,)"), pickle.dumps(print)),
    "a call": npy(header("__import__('os').system('true')", "(1,)")),
    "a negative shape": npy(header("'<i4'", "(-1,)"), bytes(4)),
    "two negative ones": npy(header("'<i4'", "(-1, -4)"), bytes(16)),
    "numbers of no bytes": npy(header("'|V0'", f"({2**62},)")),
    "texts of no bytes": npy(header("'|S0'", f"({2**40},)")),
    "a true shape": npy(header("'<i4'", "(True,)"), bytes(4)),
    "many dimensions": npy(header("'<i4'", f"({'1,' * 100})"), bytes(4)),
    "brackets": npy("(" * 5000),
    "digits": npy(header("'<i4'", f"({'9' * 5000},)")),
    "a long header": npy(header("'<i4'", "(1,)") + " " * 100_000, bytes(4), version=2),
    "a length that lies": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{",
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_hostile_array_is_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(ARRAYS[name])
    with pytest.raises(ValueError, match=r"a\.npy cannot be read as an array of numbers: ") as caught:
        load_array(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def metadata(**changes: object) -> bytes:
    """Metadata of one patch with some values changed; NaN and long numbers as JSON texts of their own."""
    feature = {"properties": {"ID_PATCH": 1, "Fold": 1, "dates-S2": {"0": 20180924}}, "geometry": None}
    for key, value in changes.items():
        if key in feature:
            feature[key] = value  # type: ignore[assignment]
        elif key in ("crs", "features"):
            continue
        else:
            feature["properties"][key.replace("dates", "dates-S2")] = value  # type: ignore[index]
    whole = {"features": changes.get("features", [feature]), "crs": changes.get("crs")}
    return json.dumps(whole).encode()


METADATA = {
    "brackets": b"[" * 200_000,
    "no list": metadata(features=5),
    "a text": metadata(features="abc"),
    "nothing": metadata(features=[None]),
    "an endless id": metadata(ID_PATCH=float("inf")),
    "a long id": metadata(ID_PATCH="9" * 5000),
    "brackets for dates": metadata(dates="[" * 100_000),
    "frames that skip": metadata(dates={str(2 * number): 20180924 for number in range(50_000)}),
    "a year 0": metadata(dates={"0": "00000101"}),
    "an unknown crs": metadata(
        crs={"properties": {"name": "EPSG:99999"}}, geometry={"type": "Point", "coordinates": [1, 2]}
    ),
    "a crs in a list": metadata(crs=[1]),
    "no geometry": metadata(geometry="x"),
}


@pytest.mark.parametrize("name", METADATA)
def test_hostile_metadata_are_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "metadata.geojson").write_bytes(METADATA[name])
    with pytest.raises(ValueError, match=r"metadata\.geojson") as caught:
        read_metadata(tmp_path / "metadata.geojson")
    assert len(str(caught.value)) < 1000


def framed(data: bytes, *, length: int | None = None) -> bytes:
    """A TFRecord file of one record whose length may lie, with right checksums."""

    def masked(part: bytes) -> bytes:
        crc = google_crc32c.value(part)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    size = struct.pack("<Q", len(data) if length is None else length)
    return gzip.compress(size + masked(size) + data + masked(data), 1)


@pytest.mark.parametrize(
    ("length", "said"),
    [(2**63, "at most 268435456 are read"), (2**29, "at most"), (2**27, "it ends inside of a record")],
)
def test_a_length_that_lies_asks_for_no_memory(tmp_path: Path, length: int, said: str) -> None:
    (tmp_path / "a.gz").write_bytes(framed(b"x", length=length))
    with pytest.raises(ValueError, match=said):
        list(read_records(tmp_path / "a.gz"))


def test_an_example_of_nothing_but_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 100000 fields"):
        parse_example(b"\x0a\x00" * 150_000)


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p2000000000\n"])
def test_a_pickle_that_keeps_a_value_far_away_asks_for_no_memory(tmp_path: Path, put: bytes) -> None:
    (tmp_path / "a.pickle").write_bytes(b"\x80\x02}" + put + b".")
    with pytest.raises(ValueError, match=r"a\.pickle is not read: it wants to keep 2\d+ values and has 2"):
        load_plain_pickle(tmp_path / "a.pickle")


READERS = {
    "a.npy": (load_array, npy(header("'<i4'", "(2, 3)"), bytes(24))),
    "metadata.geojson": (read_metadata, metadata()),
    "a.gz": (lambda path: list(read_records(path)), framed(b"record")),
    "a.pickle": (load_plain_pickle, pickle.dumps({"a": np.arange(4), "b": [1, "x"]}, protocol=2)),
}


def answer(folder: Path, name: str, data: st.DataObject) -> None:
    read, whole = READERS[name]
    changed = bytearray(whole)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1)):
        changed[place] = value
    (folder / name).write_bytes(bytes(changed[: data.draw(st.integers(0, len(whole)))]))
    try:
        assert read(folder / name) is not None
    except ValueError as error:
        assert name in str(error)  # noqa: PT017  # a value is right as well


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_original_is_read_or_one_sentence(tmp_path: Path, name: str, data: st.DataObject) -> None:
    answer(tmp_path, name, data)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=3000, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_thousands_of_changed_originals_are_read_or_one_sentence(
    tmp_path: Path, name: str, data: st.DataObject
) -> None:
    answer(tmp_path, name, data)


@pytest.mark.soak
@settings(max_examples=10_000, deadline=10_000)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_example_or_no_example(data: bytes) -> None:
    try:
        assert isinstance(parse_example(data), dict)
    except ValueError as error:
        assert str(error)  # noqa: PT017  # a value is right as well
