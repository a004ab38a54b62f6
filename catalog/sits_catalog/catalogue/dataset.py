"""A dataset as the catalogue finds it: its small files, wherever it lies, and their hashes."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from sits_catalog.addresses import published, published_text, without_secrets

__all__ = ["DatasetFiles", "Finding", "read_finding"]

JsonObject = dict[str, Any]

_MAX_BYTES = {"item.json": 50_000_000, "cube.zarr/zarr.json": 200_000_000, "config.yaml": 5_000_000}
"""Of what is parsed whole; a dataset of a stranger may be anything."""
_PART_BYTES = 2**20
_GONE = (404, 410)
"""Statuses of HTTP that say a file is not there."""


@dataclass(frozen=True)
class DatasetFiles:
    """A dataset's folder by path or address (http, https, s3, ...)."""

    location: str

    def __post_init__(self) -> None:
        if "://" in self.location and without_secrets(self.location) != self.location:
            raise ValueError(
                f"the address of {without_secrets(self.location)} carries a user, a password, a query or a fragment, "
                "which a catalogue does not keep; give it without, and the key by the environment"
            )

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine's file system."""
        return "://" not in self.location or self.location.startswith("file://")

    @property
    def path(self) -> Path:
        """The absolute local path. Raises ValueError for an address."""
        if not self.is_local:
            raise ValueError(f"a local folder is needed here, got {self.location}")
        return Path(os.path.realpath(self.location.removeprefix("file://")))

    def place(self, name: str) -> str:
        """Path or address of a file."""
        return str(self.path / name) if self.is_local else f"{self.location.rstrip('/')}/{name}"

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file of the dataset.

        Raises FileNotFoundError where its store says that there is none, OSError with what happened otherwise: a host
        that does not answer is not one that has no such file.
        """
        place = self.place(name)
        try:
            if self.is_local:
                opened: IO[bytes] = Path(place).open("rb")  # noqa: SIM115  # closed below, outside of the translation
            else:
                import fsspec

                opened = cast("IO[bytes]", _Remote(fsspec.open(place, "rb").open(), place))
        except FileNotFoundError as error:
            if self.is_local or _is_gone(error):
                raise FileNotFoundError(f"{place} is not there") from error
            raise _unread(place, error.__cause__ or error) from error
        except Exception as error:  # the libraries of stores have errors of their own
            raise _unread(place, error) from error
        with opened:
            yield opened

    def has(self, name: str) -> bool:
        """Whether a file is there. Raises OSError as `open`."""
        try:
            with self.open(name):
                return True
        except FileNotFoundError:
            return False

    def read(self, name: str, limit: int) -> bytes:
        """A file of at most `limit` bytes. Raises as `open`, and ValueError where it is larger."""
        with self.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ValueError(f"{self.place(name)} has more than {limit} bytes, which no such file of a dataset has")
        return data

    def sha256(self, name: str) -> str:
        """Hash of a file, hex digits. Raises as `open`."""
        digest = hashlib.sha256()
        with self.open(name) as file:
            while part := file.read(_PART_BYTES):
                digest.update(part)
        return digest.hexdigest()


def _is_gone(error: FileNotFoundError) -> bool:
    """Whether a store has said so. fsspec's http raises FileNotFoundError for whatever befalls its request."""
    cause = error.__cause__
    if cause is None:
        return True
    answer = getattr(cause, "response", None)
    of_s3 = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    return (getattr(cause, "status", None) or of_s3) in _GONE


def _unread(place: str, error: BaseException) -> OSError:
    """One sentence of what happened."""
    said = " ".join(published_text(str(error)).split()) or type(error).__name__
    return OSError(f"{place} cannot be read: {said}")


class _Remote(io.RawIOBase):
    """A file of a store; what happens while it is read is an OSError of one sentence with its place."""

    def __init__(self, file: Any, place: str) -> None:
        self._file, self._place = file, place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return bytes(self._tried(self._file.read, size))

    def readline(self, _size: int | None = -1, /) -> bytes:
        return bytes(self._tried(self._file.readline))

    def seek(self, offset: int, whence: int = 0) -> int:
        self._tried(self._file.seek, offset, whence)
        return self.tell()

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _tried(self, what: Callable[..., Any], *args: int) -> Any:
        try:
            return what(*args)
        except Exception as error:  # as in `open`
            # fsspec's two words for it: a stream that cannot seek, and an answer that is the whole file.
            if isinstance(error, ValueError) and ("seek" in str(error).lower() or "range requests" in str(error)):
                raise OSError(
                    f"{self._place} lies behind a server that hands out whole files alone, and a part is needed; use "
                    "one that answers HTTP range requests, or copy the dataset to this machine"
                ) from error
            raise _unread(self._place, error) from error


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the small files of a dataset say."""

    files: DatasetFiles
    item: JsonObject
    """`item.json`, without secrets."""
    item_sha256: str
    journal_sha256: str
    size_bytes: int
    """Of all files that the journal lists, and the journal itself."""
    n_files: int
    attributes: JsonObject
    """`sits_cube` of the cube's root group."""
    class_table: tuple[JsonObject, ...]
    """`classes` of `crop_type`: index, code, name, hcat, colour; empty without labels."""
    config: JsonObject


def read_finding(location: str) -> Finding:
    """Read the small files of the dataset at `location`, pixels and tables left alone.

    Raises FileNotFoundError where there is no finished dataset, ValueError where a file is not what it should be,
    OSError where a store refuses us; each with one sentence.
    """
    files = DatasetFiles(location)
    raw = _item_bytes(files)
    item = _object(raw, files.place("item.json"))
    _check_item(item, files)
    root = _object(_read(files, "cube.zarr/zarr.json"), files.place("cube.zarr/zarr.json"))
    size, n_files = _stored(files)
    return Finding(
        files=files,
        item=published(item),
        item_sha256=hashlib.sha256(raw).hexdigest(),
        journal_sha256=files.sha256("journal.jsonl"),
        size_bytes=size,
        n_files=n_files,
        attributes=published(_mapping(_mapping(root.get("attributes")).get("sits_cube"))),
        class_table=tuple(_class_table(root)),
        config=published(_config(files)),
    )


def _read(files: DatasetFiles, name: str) -> bytes:
    return files.read(name, _MAX_BYTES[name])


def _item_bytes(files: DatasetFiles) -> bytes:
    try:
        return _read(files, "item.json")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no finished dataset in {files.location}: it has no item.json; give the folder that sits-build or "
            "sits-cube import has written to its end"
        ) from error


def _object(data: bytes, place: str) -> JsonObject:
    """A JSON object. Raises ValueError for anything else, numbers that JSON does not have included."""

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON")

    try:
        value = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{place} should hold a JSON object, got {type(value).__name__}")  # noqa: TRY004
    return value


def _check_item(item: JsonObject, files: DatasetFiles) -> None:
    place, properties = files.place("item.json"), item.get("properties")
    if item.get("type") != "Feature" or not isinstance(item.get("id"), str) or not isinstance(properties, dict):
        raise ValueError(f"{place} is no STAC item: it needs the type Feature, an id and properties")
    if item.get("stac_version") != "1.1.0":
        raise ValueError(f"{place} should be of STAC 1.1.0, got {item.get('stac_version')!r}")
    if "sits_cube:version" not in properties:
        raise ValueError(f"{place} describes no sits-cube: the property sits_cube:version is missing")
    if not isinstance(item.get("assets"), dict) or not isinstance(item.get("links"), list):
        raise ValueError(f"{place} is no STAC item: it needs assets and links")  # noqa: TRY004


def _class_table(root: JsonObject) -> Iterator[JsonObject]:
    nodes = _mapping(_mapping(root.get("consolidated_metadata")).get("metadata"))
    classes = _mapping(_mapping(nodes.get("crop_type")).get("attributes")).get("classes")
    for row in classes if isinstance(classes, list) else ():
        if isinstance(row, dict) and isinstance(row.get("index"), int):
            yield row


def _stored(files: DatasetFiles) -> tuple[int, int]:
    """Bytes and number of the files that the journal lists: `shards` of cells, `files` of its last line."""
    sizes: dict[str, int] = {}
    own = 0
    with files.open("journal.jsonl") as file:
        for number, line in enumerate(file, 1):
            own += len(line)
            entry = _object(line, f"{files.place('journal.jsonl')}, line {number},")
            for key in ("shards", "files"):
                for name, stamp in _mapping(entry.get(key)).items():
                    if isinstance(stamp, list) and stamp and isinstance(stamp[0], int):
                        sizes[name] = stamp[0]
    return sum(sizes.values()) + own, len(sizes) + 1


def _config(files: DatasetFiles) -> JsonObject:
    from sits_catalog.documents import parse_document

    text = _read(files, "config.yaml").decode()
    return dict(parse_document(text, files.place("config.yaml")).data)


def _mapping(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}
