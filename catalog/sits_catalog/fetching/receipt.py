"""`fetched.json`: what was fetched of one year of a parcel source, from where, and with which checksums."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

__all__ = ["FetchedFile", "Receipt", "check_name", "parcels_folder", "read_receipt", "sha256_of", "write_receipt"]

_NAME = "fetched.json"
_VARIABLE = "SITS_PARCELS"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIECE = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class FetchedFile:
    """One file as it was fetched."""

    name: str
    address: str
    """Empty for a file that a converter made."""
    size: int
    """Bytes."""
    sha256: str
    etag: str | None = None
    last_modified: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.size < 0 or not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.name} has no size and SHA-256: {self.size}, {self.sha256!r}")

    def lies_in(self, place: Path) -> bool:
        """Whether a file of this name and size is in a folder; its checksum is compared by `fetch --again` alone."""
        path = place / self.name
        return path.is_file() and path.stat().st_size == self.size


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The content of `fetched.json`, which stands beside the files that it names."""

    source: str
    year: int
    files: tuple[FetchedFile, ...]
    mapping: FetchedFile | None = None
    """The table from the source's codes to HCAT."""
    complete: bool = True
    """False while files are still to come."""
    converter: str | None = None
    """The converter of fiboa-cli that made the file, where one did."""
    id: str | None = None
    """Columns of a converted file; those of others are the source's."""
    code: str | None = None
    name: str | None = None
    taxonomy: str | None = None
    """Shipped taxonomy that knows the codes of a converted file."""

    def __post_init__(self) -> None:
        if self.complete and not self.files:
            raise ValueError(f"the receipt of {self.source}, {self.year}, names no file")

    def file(self, name: str) -> FetchedFile | None:
        """What is known of a file."""
        return next((file for file in self.files if file.name == name), None)

    @property
    def path(self) -> str:
        """Name of the file of the parcels: the first, where an archive comes in parts."""
        return self.files[0].name

    def parcels(self, place: Path, member: str | None) -> str | None:
        """The file of the parcels in `place`; None where files are still to come, are gone or have another size.

        Of an archive that nothing here opens (.rar) it is what a user unpacked beside it, where that is `member`.
        """
        if not self.complete or not all(file.lies_in(place) for file in self.files):
            return None
        if member is not None and self.path.lower().endswith(".rar"):
            unpacked = sorted(path for path in place.rglob("*") if fnmatchcase(path.name.lower(), member.lower()))
            if len(unpacked) == 1:
                return str(unpacked[0])
        return str(place / self.path)


def parcels_folder() -> Path:
    """Where fetched parcels lie: the folder that the environment variable SITS_PARCELS names, else `parcels` here."""
    return Path(os.environ.get(_VARIABLE) or "parcels")


def read_receipt(place: Path) -> Receipt | None:
    """The receipt in a folder; None where nothing was fetched to it.

    ValueError for a file that is no receipt.
    """
    path = place / _NAME
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(_damaged(path, str(error))) from error
    try:
        files = tuple(FetchedFile(**file) for file in plain.pop("files"))
        mapping = plain.pop("mapping")
        return Receipt(files=files, mapping=None if mapping is None else FetchedFile(**mapping), **plain)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(_damaged(path, str(error))) from error


def write_receipt(place: Path, receipt: Receipt) -> None:
    """Writes the receipt whole or not at all."""
    partial = place / f"{_NAME}.partial"
    partial.write_text(json.dumps(dataclasses.asdict(receipt), indent=2) + "\n", encoding="utf-8")
    partial.replace(place / _NAME)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def check_name(name: str) -> None:
    """Raises ValueError for a name that would not be a file in the folder itself."""
    if not name or name in (".", "..") or name != Path(name).name or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file in this folder")


def _damaged(path: Path, why: str) -> str:
    return f"{path} is not a record of fetched parcels ({why}); remove it and fetch again"
