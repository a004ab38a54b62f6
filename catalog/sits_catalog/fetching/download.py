"""One address to one file: resumed where it was cut, whole or not there at all.

While bytes come they lie in `NAME.partial`, with what the server said about them in `NAME.partial.json`. A part is
continued only where the server can say that its file is still the same (Range and If-Range, RFC 9110, 13.1.5 and
14.2); else the download starts again.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sits_catalog.addresses import without_secrets
from sits_catalog.fetching.kinds import check_kind
from sits_catalog.fetching.receipt import FetchedFile, sha256_of
from sits_catalog.fetching.requesting import AttemptError, get

if TYPE_CHECKING:
    import requests

__all__ = ["WAITS_S", "Listener", "download"]

WAITS_S = (1.0, 3.0, 10.0, 30.0, 60.0)
"""Seconds before the next attempt, after so many in a row that brought nothing."""
_PIECE = 64 * 1024
"""Bytes; so many at most are fetched twice where a connection is cut."""
_SPARE = 64 * 1024 * 1024
"""Bytes of the disk that are left free."""
_MB = 1_000_000
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "sits-cubes"}
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Listener(Protocol):
    """Hears how far a download is."""

    def stage(self, text: str) -> None:
        """A new stage begins."""

    def progress(self, done: int, total: int) -> None:
        """So many MB are there."""


@dataclass(frozen=True, kw_only=True)
class _Note:
    """What the server said about the file that a partial download belongs to."""

    address: str
    size: int | None
    etag: str | None
    last_modified: str | None

    @property
    def validator(self) -> str | None:
        """What If-Range may hold: a strong ETag, else the date (RFC 9110, 13.1.5)."""
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


def download(
    address: str,
    target: Path,
    *,
    listener: Listener,
    known: FetchedFile | None = None,
    sha256: str | None = None,
    waits_s: Sequence[float] = WAITS_S,
    sleep: Callable[[float], None] = time.sleep,
) -> FetchedFile:
    """The file at `address` as `target`, tried again after `waits_s`.

    `known` is what lies at `target` already: it is kept where the server says that it has not changed. `sha256` is
    what the file should have. Raises ValueError for another checksum, FileNotFoundError, PermissionError or
    OSError with one sentence.
    """
    partial = target.with_name(f"{target.name}.partial")
    failures = 0
    while True:
        before = _size(partial)
        try:
            note = _attempt(address, partial, listener, known)
            break
        except AttemptError as error:
            failures = 0 if _size(partial) > before else failures + 1
            if failures > len(waits_s):
                raise ConnectionError(
                    f"{error}, {failures} times in a row; {_size(partial)} bytes are kept: run the same command later "
                    "to go on"
                ) from error
            wait_s = max(waits_s[max(failures - 1, 0)] if waits_s else 0.0, error.wait_s)
            listener.stage(f"{error}; trying again in {wait_s:.0f} s")
            sleep(wait_s)
    if note is None and known is not None:
        return known
    assert note is not None
    return _finished(partial, target, note, sha256, listener)


def _attempt(address: str, partial: Path, listener: Listener, known: FetchedFile | None) -> _Note | None:
    """One attempt to get what is missing; None where `known` is still the file of the server."""
    before = _read_note(partial, address)
    start = 0 if before is None or before.validator is None else _size(partial)
    with get(address, _headers(before, start, known)) as answer:
        if answer.status_code == 304:
            return None
        if answer.status_code == 416:
            return _nothing_left(answer, partial, before, start)
        note, end = _note_of(answer, address), None
        if answer.status_code == 206:
            part = _continued(answer, before, start)
            if before is None or part is None:
                _forget(partial)
                raise AttemptError(f"{without_secrets(address)} sent another part than the one it was asked for")
            end, size = part
            note = replace(before, size=size)
        else:
            start = 0
        _receive(answer, partial, note, start, listener)
    have = _size(partial)
    too_many = any(limit is not None and have > limit for limit in (note.size, end))
    if too_many:
        _forget(partial)
    if too_many or (note.size is not None and have < note.size):
        raise AttemptError(f"{without_secrets(address)} was to send {note.size} bytes and sent {have}")
    return note


def _headers(before: _Note | None, start: int, known: FetchedFile | None) -> dict[str, str]:
    headers = dict(_HEADERS)
    if before is not None and before.validator is not None and start > 0:
        return headers | {"Range": f"bytes={start}-", "If-Range": before.validator}
    if known is not None and known.etag is not None:
        headers["If-None-Match"] = known.etag
    elif known is not None and known.last_modified is not None:
        headers["If-Modified-Since"] = known.last_modified
    return headers


def _note_of(answer: requests.Response, address: str) -> _Note:
    length = answer.headers.get("Content-Length", "")
    size = int(length) if answer.status_code == 200 and length.isdigit() else None
    return _Note(
        address=address,
        size=size,
        etag=answer.headers.get("ETag"),
        last_modified=answer.headers.get("Last-Modified"),
    )


def _continued(answer: requests.Response, before: _Note | None, start: int) -> tuple[int, int] | None:
    """Where a partial answer ends and the size of the whole file (Content-Range); None for another part or file.

    The size counts even where the first answer gave none: a part may end before the file does.
    """
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if before is None or found is None or answer.headers.get("ETag", before.etag) != before.etag:
        return None
    end, size = int(found[2]) + 1, int(found[3])
    if int(found[1]) != start or not start < end <= size or before.size not in (None, size):
        return None
    return end, size


def _nothing_left(answer: requests.Response, partial: Path, before: _Note | None, start: int) -> _Note:
    """The answer that no byte comes after `start`: all are there, or the file is another one now."""
    whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
    if before is not None and start > 0 and whole == str(start) and before.size in (None, start):
        return before
    _forget(partial)
    raise AttemptError(f"{without_secrets(answer.url)} has fewer bytes than were fetched of it before")


def _receive(answer: requests.Response, partial: Path, note: _Note, start: int, listener: Listener) -> None:
    """Writes the body of an answer behind the first `start` bytes."""
    if note.size is not None:
        _check_space(partial, note.size - start)
    _write_note(partial, note)
    name = partial.name.removesuffix(".partial")
    listener.stage(f"fetching {name}, {_in_mb(note.size)}" + (f", from MB {start // _MB} on" if start else ""))
    done = start
    try:
        with partial.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            for piece in answer.iter_content(_PIECE):
                file.write(piece)
                done += len(piece)
                if note.size is not None:
                    listener.progress(done // _MB, max(1, -(-note.size // _MB)))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(_no_space(partial, f"after {done} bytes of {_in_mb(note.size)}")) from error


def _finished(partial: Path, target: Path, note: _Note, sha256: str | None, listener: Listener) -> FetchedFile:
    """Moves a whole download to its place, once it is what it should be."""
    try:
        _check_kind(partial, target.name, note.address)
        listener.stage(f"checking {target.name}")
        found = sha256_of(partial)
        _check_sha256(found, sha256, note.address)
    except ValueError:
        _forget(partial)
        raise
    size = _size(partial)
    partial.replace(target)
    _forget(partial)
    return FetchedFile(
        name=target.name,
        address=note.address,
        size=size,
        sha256=found,
        etag=note.etag,
        last_modified=note.last_modified,
    )


def _check_kind(partial: Path, name: str, address: str) -> None:
    """Raises ValueError for a page or a message of an error where a file was expected, and for a file that was cut."""
    try:
        check_kind(partial, name)
    except ValueError as error:
        raise ValueError(
            f"{without_secrets(address)} {error}; fetch it again, or look at the provider's page and name the file "
            "with --parcels FILE"
        ) from error


def _check_sha256(found: str, expected: str | None, address: str) -> None:
    if expected is not None and found != expected:
        raise ValueError(
            f"{without_secrets(address)} has SHA-256 {found} and should have {expected}: it was damaged, or replaced "
            "by another; it was not kept"
        )


def _check_space(partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if free < needed + _SPARE:
        raise OSError(_no_space(partial, f"{_in_mb(needed)} are to come and {_in_mb(free)} are free"))


def _no_space(partial: Path, what: str) -> str:
    name = partial.name.removesuffix(".partial")
    return f"the disk of {partial.parent} has no room for {name}: {what}; make room, or choose another --out"


def _in_mb(size: int | None) -> str:
    return "of unknown size" if size is None else f"{size / _MB:.1f} MB"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _note_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _read_note(partial: Path, address: str) -> _Note | None:
    """What is known of a partial download; None where that is nothing, or it belongs to another address."""
    if not partial.exists():
        return None
    try:
        plain: Mapping[str, str | int | None] = json.loads(_note_path(partial).read_text(encoding="utf-8"))
        note = _Note(**plain)  # type: ignore[arg-type]  # a note that is none is not used
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return note if note.address == address else None


def _write_note(partial: Path, note: _Note) -> None:
    place = _note_path(partial)
    fresh = place.with_name(f"{place.name}.new")
    fresh.write_text(json.dumps(asdict(note)), encoding="utf-8")
    fresh.replace(place)


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _note_path(partial).unlink(missing_ok=True)
