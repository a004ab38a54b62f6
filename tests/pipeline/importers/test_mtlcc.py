"""MTLCC in small, as TFRecords and as pickles; and the reader of TFRecords against other programs' writers."""

from __future__ import annotations

import gzip
import pickle
import struct
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.pipeline.importers.chips_in_files import (
    FULL,
    MTLCC_DOYS,
    MTLCC_TILES,
    example_of,
    mtlcc_tile,
    padded,
    serialized,
    write_mtlcc,
    write_records,
)
from tests.pipeline.importers.made_up import Silent

from sits_catalog.cube import IGNORE, check
from sits_catalog.sentinel2 import L1C_BANDS
from sits_pipeline.folder import Folder
from sits_pipeline.importers.mtlcc import open_mtlcc
from sits_pipeline.importers.tfrecords import parse_example, read_records
from sits_pipeline.importers.write import import_dataset
from sits_pipeline.store.patches import read_patches
from sits_pipeline.verify import verify

KINDS = ("tfrecord", "pickle")
ROWS = {
    1: 1, 2: 2, 3: 3, 5: 4, 8: 5, 9: 6, 12: 7, 13: 8, 15: 9,
    16: 10, 17: 11, 19: 12, 22: 13, 23: 14, 24: 15, 25: 16, 26: 17,
}  # fmt: skip
"""Class index of each number of the label arrays: that of the published table, plus 1."""


def days_of(name: str) -> list[date]:
    year = 2000 + int(MTLCC_TILES[name][0][4:])
    return [date(year, 1, 1) + timedelta(days=doy - 1) for doy in MTLCC_DOYS[name]]


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_are_read_with_dates_of_their_folder_and_without_padding(tmp_path: Path, kind: str) -> None:
    original = open_mtlcc(write_mtlcc(tmp_path, kind=kind, padding=3))
    patches = {patch.name: patch for patch in original.index()}
    assert list(patches) == ["data16/101", "data16/102", "data17/7"]
    for name, (folder, _) in MTLCC_TILES.items():
        patch = patches[f"{folder}/{name}"]
        assert patch.days.tolist() == [(day - date(1970, 1, 1)).days for day in days_of(name)]
        assert patch.order.tolist() == list(range(len(patch.days)))
    assert [patch.split for patch in patches.values()] == ["train", "validation", "test"]
    assert pickle.loads(pickle.dumps(original)) == original


@pytest.mark.parametrize("kind", KINDS)
def test_bands_are_repeated_to_10_m_and_numbers_become_classes(tmp_path: Path, kind: str) -> None:
    original = open_mtlcc(write_mtlcc(tmp_path, kind=kind, padding=1), years=[2016])
    patch = original.index()[0]
    pixels, tile = original.read(patch), mtlcc_tile("101")
    assert pixels.dn.shape == (4, 13, 24, 24)
    names = list(original.facts.bands)
    assert names == list(L1C_BANDS)
    order = {
        "B04": ("x10", 0, 1), "B03": ("x10", 1, 1), "B02": ("x10", 2, 1), "B08": ("x10", 3, 1),
        "B05": ("x20", 0, 2), "B06": ("x20", 1, 2), "B07": ("x20", 2, 2),
        "B8A": ("x20", 3, 2), "B11": ("x20", 4, 2), "B12": ("x20", 5, 2),
        "B01": ("x60", 0, 6), "B09": ("x60", 1, 6), "B10": ("x60", 2, 6),
    }  # fmt: skip
    assert sorted(order) == sorted(names)
    for band, (stack, channel, factor) in order.items():
        found = pixels.dn[:, names.index(band)]
        for row, column in ((0, 0), (5, 17), (23, 23)):
            np.testing.assert_array_equal(
                found[:, row, column], tile[stack][:, row // factor, column // factor, channel]
            )
    raw = tile["labels"][0]
    expected = np.array([[ROWS.get(int(code), IGNORE) for code in line] for line in raw])
    np.testing.assert_array_equal(pixels.labels["crop_type"], expected)
    assert (pixels.labels["crop_type"] == IGNORE).sum() == (raw == 0).sum() > 0


def test_tiles_of_the_lists_that_are_missing_and_tiles_of_no_list_are_counted(tmp_path: Path) -> None:
    lists = write_mtlcc(tmp_path, kind="tfrecord") / FULL / "240/tileids"
    (lists / "train_fold0.tileids").write_text("999\n998\n")
    notes = open_mtlcc(tmp_path, years=[2016]).facts.notes
    assert "2 of the 4 tiles of the lists are not there, the first is 998." in notes
    assert "1 tiles are in no list and so in no split, the first is 101." in notes


def test_tfrecords_and_pickles_of_the_same_tiles_are_two_imports(tmp_path: Path) -> None:
    for kind in KINDS:
        original = open_mtlcc(write_mtlcc(tmp_path / kind, kind=kind))
        if kind == KINDS[0]:
            import_dataset(original, str(tmp_path / "out"), Silent())
        else:
            with pytest.raises(FileExistsError, match="holds an import of another original"):
                import_dataset(original, str(tmp_path / "out"), Silent())


def test_frames_that_are_not_in_order_are_put_in_order(tmp_path: Path) -> None:
    tile = {name: array[[2, 0, 1]] for name, array in mtlcc_tile("7").items()}
    folder = tmp_path / "240pkl/data17"
    folder.mkdir(parents=True)
    (folder / "7.pickle").write_bytes(pickle.dumps(tile))
    original = open_mtlcc(tmp_path)
    patch = original.index()[0]
    assert np.diff(patch.days).tolist() == [299, 65]
    assert patch.order.tolist() == [1, 2, 0]
    np.testing.assert_array_equal(original.read(patch).dn[:, 3], mtlcc_tile("7")["x10"][..., 0])  # B04
    assert "there is no split" in original.facts.notes[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_an_import_is_a_dataset_of_the_contract(tmp_path: Path, kind: str) -> None:
    original = open_mtlcc(write_mtlcc(tmp_path / "clone", kind=kind))
    outcome = import_dataset(original, str(tmp_path / "out"), Silent())
    folder = Folder(outcome.location)
    assert outcome.complete
    assert folder.location.endswith("mtlcc-2016-2017")
    assert check(folder.path) == []
    assert verify(folder) == []
    stored = read_patches(folder, "reflectance", slice(0, 1))[0]
    np.testing.assert_array_equal(stored, original.read(original.index()[0]).dn)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": "differ"}, "the labels of all frames should be one map"),
        ({"x20": "short"}, r"x20 should be \(4, y, x, 6\)"),
        ({"day": [5, 95, 95, 367]}, r"days of 2016 should lie in 1\.\.366"),
        ({"x10": "missing"}, "should hold the array 'x10'"),
    ],
)
def test_what_is_not_of_the_format_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    tile: dict[str, NDArray[Any]] = mtlcc_tile("101")
    write_mtlcc(tmp_path, kind="pickle", tiles=["101", "102"])
    for name, how in change.items():
        if how == "differ":
            tile[name] = tile[name].copy()
            tile[name][-1, 3, 3] += 1
        elif how == "short":
            tile[name] = tile[name][..., :-1]
        elif how == "missing":
            del tile[name]
        else:
            tile[name] = np.array(how, np.int16)
    path = tmp_path / FULL / "240pkl/data16/101.pickle"
    path.write_bytes(pickle.dumps(tile))

    def read() -> None:
        original = open_mtlcc(tmp_path)
        original.read(original.index()[0])

    with pytest.raises(ValueError, match=said) as error:
        read()
    assert str(path) in str(error.value)


def test_a_clone_with_both_formats_or_without_any_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no tiles of MTLCC below"):
        open_mtlcc(tmp_path)
    write_mtlcc(tmp_path, kind="pickle", tiles=["101"])
    with pytest.raises(FileNotFoundError, match="has no tiles of 2017; it has those of 2016"):
        open_mtlcc(tmp_path, years=[2017])
    (tmp_path / FULL / "240/data16").mkdir()
    write_records(tmp_path / FULL / "240/data16/101.tfrecord.gz", [example_of(mtlcc_tile("101"))])
    with pytest.raises(ValueError, match=r"holds tiles of MTLCC in several forms: .*240.*tfrecord.*240pkl.*pickle"):
        open_mtlcc(tmp_path)


def test_a_tile_of_two_lists_is_refused(tmp_path: Path) -> None:
    write_mtlcc(tmp_path, kind="pickle", tiles=["101"])
    (tmp_path / FULL / "240/tileids/eval.tileids").write_text("101\n")
    with pytest.raises(ValueError, match="tile 101 is listed for validation and for train"):
        open_mtlcc(tmp_path)


def test_lists_of_paths_beside_the_pickles_are_splits_where_there_are_no_tileids(tmp_path: Path) -> None:
    write_mtlcc(tmp_path / "clone", kind="pickle")
    folder = (tmp_path / "clone" / FULL / "240pkl").rename(tmp_path / "240pkl")
    (folder / "train_paths.csv").write_text(f"{FULL}/240pkl/data17/7.pickle\n")
    (folder / "eval_paths.csv").write_text(f"{FULL}/240pkl/data16/101.pickle\n")
    assert [patch.split for patch in open_mtlcc(folder).index()] == ["validation", "none", "train"]


# TFRecords


def test_a_file_that_tensorboard_wrote_is_read(tmp_path: Path) -> None:
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    records = [b"", b"one", bytes(range(256)) * 50]
    with (tmp_path / "plain").open("wb") as file:
        writer = record_writer.RecordWriter(file)
        for record in records:
            writer.write(record)
        writer.flush()
    path = tmp_path / "a.tfrecord.gz"
    path.write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
    assert list(read_records(path)) == records


def test_an_example_that_protobuf_serialized_is_parsed() -> None:
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, json_format, message_factory

    def field(name: str, number: int, kind: str, *, repeated: bool = False, of: str = "") -> Any:
        proto = descriptor_pb2.FieldDescriptorProto
        made = proto(name=name, number=number, type=getattr(proto, f"TYPE_{kind}"))
        made.label = proto.LABEL_REPEATED if repeated else proto.LABEL_OPTIONAL
        if of:
            made.type_name = f".t.{of}"
        return made

    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    messages = {
        "BytesList": [field("value", 1, "BYTES", repeated=True)],
        "FloatList": [field("value", 1, "FLOAT", repeated=True)],
        "Int64List": [field("value", 1, "INT64", repeated=True)],
        "Feature": [
            field("bytes_list", 1, "MESSAGE", of="BytesList"),
            field("float_list", 2, "MESSAGE", of="FloatList"),
            field("int64_list", 3, "MESSAGE", of="Int64List"),
        ],
        "Entry": [field("key", 1, "STRING"), field("value", 2, "MESSAGE", of="Feature")],
        "Features": [field("feature", 1, "MESSAGE", repeated=True, of="Entry")],
        "Example": [field("features", 1, "MESSAGE", of="Features")],
    }
    for name, fields in messages.items():
        file.message_type.add(name=name, field=fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    example = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))()
    entries = [
        {"key": "numbers", "value": {"int64List": {"value": ["0", "1", "-5", str(2**62), "300"]}}},
        {"key": "bytes", "value": {"bytesList": {"value": ["AAEC/w=="]}}},
        {"key": "shares", "value": {"floatList": {"value": [0.5, 2.0]}}},
    ]
    json_format.ParseDict({"features": {"feature": entries}}, example)
    found = parse_example(example.SerializeToString())
    assert sorted(found) == ["bytes", "numbers"]
    assert found["bytes"] == b"\x00\x01\x02\xff"
    np.testing.assert_array_equal(found["numbers"], [0, 1, -5, 2**62, 300])


def test_every_flipped_byte_of_a_record_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord.gz"
    write_records(path, [serialized({"n": (1, 2, 3), "b": b"bytes"})])
    plain = gzip.decompress(path.read_bytes())
    for place in range(len(plain)):
        broken = bytearray(plain)
        broken[place] ^= 0x10
        path.write_bytes(gzip.compress(bytes(broken), compresslevel=0))
        with pytest.raises(ValueError, match=r"a\.tfrecord\.gz should be a TFRecord file in gzip, but"):
            list(read_records(path))


@pytest.mark.parametrize("cut", [1, 11, 13, 40])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.tfrecord.gz"
    write_records(path, [b"x" * 30])
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:cut]))
    with pytest.raises(ValueError, match="it ends inside of a record"):
        list(read_records(path))
    path.write_bytes(gzip.compress(b"x" * 100)[:30])
    with pytest.raises(ValueError, match="fetch it again"):
        list(read_records(path))
    path.write_bytes(b"plain")
    with pytest.raises(ValueError, match="fetch it again"):
        list(read_records(path))


def test_bytes_that_are_no_example_are_refused(tmp_path: Path) -> None:
    for data in (b"\x0a\xff\x01", b"\x0b", b"\x80" * 12):
        with pytest.raises(ValueError, match="example"):
            parse_example(data)
    write_mtlcc(tmp_path, kind="tfrecord", tiles=["101"])
    path = tmp_path / FULL / "240/data16/101.tfrecord.gz"
    for features, said in (
        ({"x10/data": b"12345678"}, "x10/shape is missing"),
        ({"x10/data": struct.pack("<q", 1), "x10/shape": (2, 1, 1, 1)}, r"x10/data \(1 numbers, which should be"),
    ):
        write_records(path, [serialized(features)])
        with pytest.raises(ValueError, match=said):
            open_mtlcc(tmp_path)
    write_records(path, [example_of(padded(mtlcc_tile("101"), 2))] * 2)
    with pytest.raises(ValueError, match="should hold one record, the tile; it holds 2"):
        open_mtlcc(tmp_path)
