"""TFRecord files and the message tf.train.Example, without tensorflow.

Framing (tensorflow.org/tutorials/load_data/tfrecord): length as uint64, its checksum, the bytes, their checksum;
numbers are little-endian, and a checksum is CRC-32C turned right by 15 bits plus a constant. Example: a map of names to
lists of bytes, floats or int64 in the wire format of protocol buffers (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["Feature", "parse_example", "read_records"]

Feature = bytes | NDArray[np.int64]
"""The one value of a list of bytes, or the numbers of a list of int64."""

_MAX_RECORD = 2**28
_MAX_FIELDS = 100_000
"""Fields of a message, and numbers of a list; an example of MTLCC has some ten of the one and hundreds of the other."""
_MASK_DELTA = 0xA282EAD8
_U32 = 0xFFFFFFFF
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a gzip-compressed TFRecord file, both checksums of each verified.

    Raises FileNotFoundError, and ValueError with the file's name where it is cut short or damaged.
    """
    with gzip.open(path, "rb") as file:
        while True:
            try:
                record = _next_record(file)
            except (*_BROKEN, ValueError) as error:
                raise ValueError(
                    f"{path} should be a TFRecord file in gzip, but {str(error) or 'it is cut short'}; fetch it again"
                ) from error
            if record is None:
                return
            yield record


def _next_record(file: gzip.GzipFile | BinaryIO) -> bytes | None:
    head = file.read(12)
    if not head:
        return None
    if len(head) < 12:
        raise EOFError("it ends inside of a record's length")
    length, check = struct.unpack("<QI", head)
    _check(head[:8], check, "of a record's length")
    if length > _MAX_RECORD:
        raise ValueError(f"a record has {length} bytes; at most {_MAX_RECORD} are read")
    data, tail = file.read(length), file.read(4)
    if len(data) < length or len(tail) < 4:
        raise EOFError(f"it ends inside of a record of {length} bytes")
    _check(data, struct.unpack("<I", tail)[0], f"of a record of {length} bytes")
    return data


def _check(data: bytes, expected: int, what: str) -> None:
    import google_crc32c

    crc = google_crc32c.value(data)
    masked = (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & _U32
    if masked != expected:
        raise ValueError(f"the checksum {what} is {masked:08x} and should be {expected:08x}")


def parse_example(data: bytes) -> Mapping[str, Feature]:
    """The features of a serialized tf.train.Example, without lists of floats. Raises ValueError for other bytes."""
    features: dict[str, Feature] = {}
    for _, entry in _messages(data, 1):  # Example.features
        for _, pair in _messages(entry, 1):  # Features.feature, a map
            fields = dict(_messages(pair))
            if 1 not in fields or 2 not in fields:
                raise ValueError("an entry of the example has no name or no value")
            value = _feature(fields[2])
            if value is not None:
                features[fields[1].decode("utf-8")] = value
    return features


def _feature(data: bytes) -> Feature | None:
    for number, content in _messages(data):
        if number == 1:  # bytes_list
            values = [value for _, value in _messages(content, 1)]
            if len(values) != 1:
                raise ValueError(f"a feature of bytes should hold one value; it holds {len(values)}")
            return values[0]
        if number == 3:  # int64_list
            numbers = list(islice(_int64s(content), _MAX_FIELDS + 1))
            if len(numbers) > _MAX_FIELDS:
                raise ValueError(f"a list of numbers holds more than {_MAX_FIELDS}")
            return np.array(numbers, np.uint64).astype(np.int64)
    return None


def _int64s(data: bytes) -> Iterator[int]:
    """Numbers of an Int64List, packed or one by one, as unsigned 64-bit numbers."""
    for number, value in _fields(data):
        if number != 1:
            continue
        if isinstance(value, int):
            yield value
            continue
        place = 0
        while place < len(value):
            number_, place = _varint(value, place)
            yield number_


def _messages(data: bytes, wanted: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of the fields that have a length; those of one number alone where it is given."""
    for number, value in _fields(data):
        if isinstance(value, bytes) and wanted in (None, number):
            yield number, value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: a number for a varint, bytes for what has a length; others are passed over."""
    place = fields = 0
    while place < len(data):
        fields += 1
        if fields > _MAX_FIELDS:
            raise ValueError(f"it has more than {_MAX_FIELDS} fields")
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield number, value
        elif kind in (1, 2, 5):
            length = {1: 8, 5: 4}.get(kind)
            if length is None:
                length, place = _varint(data, place)
            if place + length > len(data):
                raise ValueError("a field of the example reaches beyond its end")
            if kind == 2:
                yield number, data[place : place + length]
            place += length
        else:
            raise ValueError(f"an example has no fields of the wire type {kind}")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
    raise ValueError("a number of the example has no end")
