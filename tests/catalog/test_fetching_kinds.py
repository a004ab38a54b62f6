"""A fetched file is what its name says from its beginning to its end: real files, the same cut, and messages."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.catalog.test_fetching import packed, seven_zip

from sits_catalog.fetching.kinds import check_kind

GML = (
    b'<?xml version="1.0"?>\n<!-- a -->\n<wfs:FeatureCollection n="1">'
    + b"<a>1</a>" * 2000
    + b"</wfs:FeatureCollection>\n"
)


def parquet(folder: Path) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": list(range(1000))}), folder / "made")
    return (folder / "made").read_bytes()


def sqlite(folder: Path) -> bytes:
    with closing(sqlite3.connect(folder / "made")) as database:
        database.execute("CREATE TABLE a (b)")
        database.executemany("INSERT INTO a VALUES (?)", [("x" * 1000,)] * 50)
        database.commit()
    return (folder / "made").read_bytes()


def body(kind: str, folder: Path) -> bytes:
    made = {".zip": lambda: packed(bytes(5000)), ".7z": lambda: seven_zip(5000), ".gml": lambda: GML}
    written = {".geoparquet": parquet, ".parquet": parquet, ".gpkg": sqlite}
    return made[kind]() if kind in made else written[kind](folder)


def check(folder: Path, name: str, content: bytes) -> None:
    (folder / "file.partial").write_bytes(content)
    check_kind(folder / "file.partial", name)


@pytest.mark.parametrize("kind", [".zip", ".7z", ".gml", ".geoparquet", ".parquet", ".gpkg"])
def test_a_whole_file_is_taken_and_the_same_cut_anywhere_is_not(tmp_path: Path, kind: str) -> None:
    whole = body(kind, tmp_path)
    check(tmp_path, f"a{kind.upper()}", whole)
    for keep in (len(whole) - 3, len(whole) // 2, 40):
        with pytest.raises(ValueError, match=rf"sent {keep} bytes that begin as a \{kind} file, but "):
            check(tmp_path, f"a{kind}", whole[:keep])


def test_a_file_without_any_element_and_one_behind_a_mark_are_whole(tmp_path: Path) -> None:
    check(tmp_path, "a.gml", b'\xef\xbb\xbf<?xml version="1.0"?><wfs:FeatureCollection numberMatched="0"/>\n')
    check(tmp_path, "a.gml", GML + b"<!-- written in 3 s -->\n")
    with pytest.raises(ValueError, match="the closing tag </a:b> is missing"):
        check(tmp_path, "a.gml", b"<a:b><c/></b>")


def test_pages_of_a_database_that_another_program_wrote_last_are_counted_from_the_file(tmp_path: Path) -> None:
    whole = bytearray(sqlite(tmp_path))
    whole[92:96] = bytes(4)  # version-valid-for differs: the number of pages in the header does not hold
    check(tmp_path, "a.gpkg", bytes(whole))
    with pytest.raises(ValueError, match="are no whole number of pages of 4096 bytes"):
        check(tmp_path, "a.gpkg", bytes(whole[:-1]))


@pytest.mark.parametrize("name", ["a.gml", "a.geoparquet", "a.csv", "a.zip", "a.7z.002", "a.json"])
@pytest.mark.parametrize(
    "message",
    [
        b'{"error": {"code": 500}}',
        b"<ServiceException>no such layer</ServiceException>",
        b'<?xml version="1.0"?><ogc:ServiceExceptionReport/>',
        b'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0//EN">\n<html></html>',
        b"\n <!-- moved --> <!doctype HTML><p>We have moved",
        b"<Error><Code>NoSuchKey</Code></Error>",
    ],
)
def test_a_message_of_an_error_is_no_file_whatever_its_name(tmp_path: Path, name: str, message: bytes) -> None:
    with pytest.raises(ValueError, match=r"answered with b.*, which is no \."):
        check(tmp_path, name, message)


def test_tables_and_features_in_text_are_taken(tmp_path: Path) -> None:
    check(tmp_path, "a.csv", b"original_code,HCAT3_code\n1,3301010101\n")
    check(tmp_path, "a.geojson", b'{"type": "FeatureCollection", "features": []}')
