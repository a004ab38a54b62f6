"""One year of a parcel source to a folder: all parts of its archive, the table of its codes, and a receipt."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sits_catalog.fetching.download import WAITS_S, Listener, download
from sits_catalog.fetching.kinds import check_volumes
from sits_catalog.fetching.receipt import FetchedFile, Receipt, check_name, read_receipt, sha256_of, write_receipt
from sits_catalog.fetching.requesting import check_address
from sits_catalog.parcel_source import NationalSource

__all__ = ["fetch_edition", "held"]


def fetch_edition(
    national: NationalSource,
    year: int,
    *,
    folder: Path,
    listener: Listener,
    again: bool = False,
    mapping: bool = True,
    waits_s: Sequence[float] = WAITS_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Receipt:
    """What lies at the addresses of a year, under `folder`/ID/YEAR; files that are there are not fetched again.

    With `again` the server is asked whether they have changed, and their checksums are compared with the receipt.
    With `mapping` the table from the codes to HCAT is fetched as well. Raises ValueError for a year that was not
    published, else as `download` does.
    """
    edition = national.edition(year)
    parts = [
        _Part(name, address, sha256)
        for name, address, sha256 in zip(
            edition.file_names, edition.addresses, edition.sha256 or (None,) * len(edition.addresses), strict=True
        )
    ]
    table = national.mapping_of(year) if mapping else None
    for part in parts:
        part.check()
    with held(folder / national.id / str(year)) as place:
        former = read_receipt(place)
        if former is None or former.converter is not None:
            former = Receipt(source=national.id, year=year, files=(), complete=False)
        fetch = _Fetch(place, listener, again, waits_s, sleep)
        receipt = Receipt(source=national.id, year=year, files=(), complete=False, mapping=former.mapping)
        if table is not None:
            name = unquote(urlsplit(table).path.rpartition("/")[2])
            receipt = replace(receipt, mapping=fetch.file(_Part(name, table, None), former.mapping))
            write_receipt(place, replace(receipt, files=former.files))
        for part in parts:
            found = fetch.file(part, former.file(part.name))
            receipt = replace(receipt, files=(*receipt.files, found))
            names = {file.name for file in receipt.files}
            to_come = tuple(file for file in former.files if file.name not in names)
            write_receipt(place, replace(receipt, files=(*receipt.files, *to_come)))
        check_volumes([place / part.name for part in parts])
        receipt = replace(receipt, complete=True)
        write_receipt(place, receipt)
    return receipt


@dataclass(frozen=True)
class _Part:
    """One file to fetch."""

    name: str
    address: str
    sha256: str | None

    def check(self) -> None:
        check_name(self.name)
        check_address(self.address)


@dataclass(frozen=True)
class _Fetch:
    """How the files of one edition are fetched."""

    place: Path
    listener: Listener
    again: bool
    waits_s: Sequence[float]
    sleep: Callable[[float], None]

    def file(self, part: _Part, former: FetchedFile | None) -> FetchedFile:
        """One file, fetched or kept."""
        part.check()
        kept = self._kept(part, former)
        if kept is not None and not self.again:
            return kept
        found = download(
            part.address,
            self.place / part.name,
            listener=self.listener,
            known=kept,
            sha256=part.sha256,
            waits_s=self.waits_s,
            sleep=self.sleep,
        )
        if former is not None and found.sha256 != former.sha256:
            self.listener.stage(
                f"{part.name} is another file than the one fetched before: its SHA-256 was {former.sha256} and is "
                f"{found.sha256}"
            )
        return found

    def _kept(self, part: _Part, former: FetchedFile | None) -> FetchedFile | None:
        """What is known of the file that lies there, where it is what the receipt says; with `again` to the byte."""
        path = self.place / part.name
        if former is None or former.address != part.address or not path.is_file():
            return None
        if path.stat().st_size != former.size or part.sha256 not in (None, former.sha256):
            return None
        if not self.again:
            return former
        self.listener.stage(f"checking {part.name}")
        found = sha256_of(path)
        if found != former.sha256:
            self.listener.stage(f"{part.name} is damaged: its SHA-256 was {former.sha256} and is {found}")
            return None
        return former


@contextmanager
def held(place: Path) -> Iterator[Path]:
    """A folder, made where it is missing, that no other process fetches to at the same time.

    OSError with one sentence where it cannot be made or written to.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = (place / ".lock").open("w")
    except OSError as error:
        raise type(error)(
            f"parcels cannot be put into {place} ({error.strerror}): name a folder that you may write to with --out, "
            "or by the environment variable SITS_PARCELS"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"another process is fetching to {place}; wait until it has finished") from error
        yield place
