"""Whether a fetched file is what its name says, from beginning to end: no page, no message of an error, not cut.

Where the formats say what stands at the end: ZIP's central directory (APPNOTE 4.3.16), the header of 7z (7zFormat.txt,
SignatureHeader), the footer of Parquet, pages of SQLite (file format, 1.3), the closing tag of XML.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

__all__ = ["check_kind", "check_volumes"]

_HEAD = 64 * 1024
_TAIL = 4096
_SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"
_SEVEN_ZIP_HEADER = 32
"""Bytes."""
_BEGINNINGS = {
    ".zip": b"PK",
    ".7z": _SEVEN_ZIP,
    ".001": _SEVEN_ZIP,
    ".rar": b"Rar!",
    ".gpkg": b"SQLite format 3\0",
    ".parquet": b"PAR1",
    ".geoparquet": b"PAR1",
    ".gml": b"<",
    ".xml": b"<",
}
_ROOT = re.compile(rb"<((?:[A-Za-z_][\w.\-]*:)?([A-Za-z_][\w.\-]*))")
_BEFORE_ROOT = re.compile(rb"<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(?:\[[^\]]*\])?[^>]*>", re.DOTALL | re.IGNORECASE)
_MESSAGES = (b"html", b"error", b"exception", b"exceptionreport", b"serviceexception", b"serviceexceptionreport")
"""Roots of XML, in small letters, that say what went wrong."""
_JSON_ERROR = re.compile(rb'\{\s*"(?:error|errors|exception|exceptions|message|detail)"\s*:', re.IGNORECASE)


def check_kind(path: Path, name: str) -> None:
    """Raises ValueError for a file that is none of the kind that `name` ends in; the sentence begins with what came.

    A page or a message of an error is known under any name; ends are looked at where the format says what stands there.
    """
    suffix = Path(name).suffix.lower()
    size = path.stat().st_size
    if size == 0:
        raise ValueError("sent a file of 0 bytes")
    with path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    start = text if suffix in (".gml", ".xml") else head
    if (
        _is_message(text)
        or not start.startswith(_BEGINNINGS.get(suffix, b""))
        or (suffix == ".csv" and text[:1] in (b"<", b"{", b"["))
    ):
        raise ValueError(f"answered with {head[:40]!r}, which is no {suffix} file")
    if (missing := _missing(path, suffix, head, tail, size)) is not None:
        raise ValueError(f"sent {size} bytes that begin as a {suffix} file, but {missing}")


def check_volumes(paths: Sequence[Path]) -> None:
    """Raises ValueError where the parts of a 7z archive are together shorter than its header says."""
    if not paths or not paths[0].name.lower().endswith(".7z.001"):
        return
    with paths[0].open("rb") as file:
        needed = _seven_zip_end(file.read(_SEVEN_ZIP_HEADER))
    have = sum(path.stat().st_size for path in paths)
    if needed is not None and have < needed:
        raise ValueError(
            f"the {len(paths)} parts of {paths[0]} have {have} bytes, and the archive should have {needed}: remove "
            "them and fetch again"
        )


def _is_message(text: bytes) -> bool:
    """Whether a text is a page or says what went wrong."""
    if text[:1] == b"{":
        return _JSON_ERROR.match(text) is not None
    if text[:1] != b"<":
        return False
    if re.match(rb"(?:<\?[^>]*\?>|<!--.*?-->|\s)*<!doctype\s+html", text, re.DOTALL | re.IGNORECASE):
        return True
    root = _root(text)
    return root is not None and root[2].lower() in _MESSAGES


def _root(text: bytes) -> re.Match[bytes] | None:
    """The first tag of an XML text; group 1 is its name, group 2 that without its prefix."""
    return _ROOT.match(_BEFORE_ROOT.sub(b"", text).lstrip())


def _missing(path: Path, suffix: str, head: bytes, tail: bytes, size: int) -> str | None:
    """What a file lacks that its format has at its end; None where it has it, or the format says nothing."""
    if suffix == ".zip":
        return _missing_of_zip(path)
    if suffix in (".7z", ".001"):
        end = _seven_zip_end(head)
        if end is None:
            return "their header is damaged"
        return f"its header says {end} bytes" if suffix == ".7z" and size < end else None
    if suffix in (".parquet", ".geoparquet"):
        footer = int.from_bytes(tail[-8:-4], "little")
        return None if size >= 12 + footer and tail.endswith(b"PAR1") else "have no footer (PAR1)"
    if suffix == ".gpkg":
        return _missing_of_sqlite(head, size)
    if suffix in (".gml", ".xml"):
        return _missing_of_xml(head, tail)
    return None


def _missing_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path):
            return None
    except zipfile.BadZipFile:
        return "have no list of its files (central directory) at the end"


def _seven_zip_end(head: bytes) -> int | None:
    """Bytes of an archive by its first 32; None where their checksum is wrong."""
    start = head[12:_SEVEN_ZIP_HEADER]
    if len(start) < _SEVEN_ZIP_HEADER - 12 or zlib.crc32(start) != int.from_bytes(head[8:12], "little"):
        return None
    return _SEVEN_ZIP_HEADER + int.from_bytes(start[:8], "little") + int.from_bytes(start[8:16], "little")


def _missing_of_sqlite(head: bytes, size: int) -> str | None:
    """A file may be longer than its pages; the number of pages holds where the two change counters are equal."""
    page = int.from_bytes(head[16:18], "big")
    page = 65536 if page == 1 else page
    pages = int.from_bytes(head[28:32], "big")
    if len(head) < 100 or page < 512:
        return "their header is damaged"
    if pages and head[24:28] == head[92:96]:
        return f"its header says {pages} pages of {page} bytes" if size < pages * page else None
    return f"are no whole number of pages of {page} bytes" if size % page else None


def _missing_of_xml(head: bytes, tail: bytes) -> str | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None  # UTF-16, of which the tags are not looked for
    root = _root(head.removeprefix(b"\xef\xbb\xbf"))
    if root is None:
        return "have no tag"
    closed = _BEFORE_ROOT.sub(b"", tail).rstrip()
    closing = rb"</" + re.escape(root[1]) + rb"\s*>\Z"
    empty = root.string[root.end() :].rstrip()
    if re.search(closing, closed) or (empty.endswith(b"/>") and empty.count(b"<") == 0):
        return None
    return f"the closing tag </{root[1].decode('ascii', 'replace')}> is missing"
