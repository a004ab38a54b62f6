"""Archives of parcels: which file of a zip or 7z is meant, and taking it out where it cannot be read in place."""

from __future__ import annotations

import io
import shutil
import stat
import struct
import tempfile
import weakref
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from sits_pipeline.parcels.divided import FIRST, DividedFile, parts_of
from sits_pipeline.parcels.pointers import LOOKED_AT, refuse_pointer
from sits_pipeline.parcels.shown import shown

if TYPE_CHECKING:
    from py7zr import SevenZipFile

__all__ = ["PARQUET", "Limits", "Place", "Unpacked", "archive_kind", "locate"]

PARQUET = (".parquet", ".geoparquet", ".pq")
_USUAL = (".shp", ".gpkg", ".fgb", ".gml", ".gdb", ".geojson", *PARQUET)
_RARER = (".json", ".csv", ".tsv", ".xml")
"""Taken where there is none of the usual ones: beside these they are code lists and metadata."""
_SCATTERED = (".gpkg", ".gdb", ".fgb")
"""Read here and there, which is slow in a deflated stream."""
_MOST_IN_PLACE = 64 << 20
_DATABASE = b"SQLite format 3\0"
"""How a GeoPackage begins; it is looked into before GDAL opens it, and so unpacked."""
_MOST_FILES = 50_000
_MOST_NAMES = 16 << 20
"""Bytes of the list of names of a zip: some 200 000 files; a file geodatabase has hundreds."""

Kind = Literal["zip", "7z", "rar", "gzip"]
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x1f\x8b", "gzip"),
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold before it is taken for a bomb."""

    total: int = 64 << 30
    """Bytes of the files that are read, unpacked."""
    ratio: float = 300.0
    """Of unpacked to packed bytes; blank-padded tables reach 100."""
    small: int = 256 << 20
    """The ratio does not count below so many bytes unpacked."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One file in an archive."""

    name: str
    """With / between folders."""
    size: int
    packed: int | None
    """None where files are packed together."""
    is_plain: bool
    """A file, and not a link or a device."""
    is_readable: bool
    """By GDAL in place: its name is ASCII, so that nobody can decode it differently."""


class Unpacked:
    """A temporary folder; gone after `remove`, when nobody holds this any more, or when the process ends."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sits-parcels-"))
        self._end = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        self._end()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the file of parcels lies that a path and a member name."""

    target: str
    """What is to be opened: a path, or GDAL's name for a file in a zip."""
    unpacked: Unpacked | None = None

    @property
    def suffix(self) -> str:
        """Lower-case suffix of the file that is opened; the query of an address does not count."""
        return PurePosixPath(shown(self.target).rstrip("/")).suffix.lower()

    def close(self) -> None:
        """Remove what was unpacked."""
        if self.unpacked is not None:
            self.unpacked.remove()


def archive_kind(path: str) -> Kind | None:
    """What kind of archive a local file is, by its first bytes, whatever its name says."""
    if not Path(path).is_file():
        return None
    with Path(path).open("rb") as file:
        start = file.read(8)
    return next((kind for magic, kind in _MAGIC if start.startswith(magic)), None)


def locate(path: str, member: str | None, limits: Limits) -> Place:
    """The file of parcels in `path`: the path itself, or a file in the archive it is, unpacked where that must be.

    `member` is a glob over names in the archive. Raises ValueError, in one sentence, for an archive that is none, is
    of no readable kind, is damaged, holds no or several such files, or is not safe to unpack.
    """
    kind = archive_kind(path)
    if kind == "rar":
        raise ValueError(
            f"{path} is a RAR archive, which is not read here; unpack it (`unrar x`, `bsdtar -xf` or 7-Zip) and name "
            "the file that was in it"
        )
    if kind == "gzip":
        raise ValueError(f"{path} is packed by gzip; unpack it (`gunzip`, or `tar -xzf` for .tar.gz) and name the file")
    if kind is None:
        return _plain(path, member)
    with _archive_says(path):
        members = _in_zip(path) if kind == "zip" else _in_7z(path)
    if len(members) > _MOST_FILES:
        raise ValueError(
            f"{path} holds {len(members)} files, more than {_MOST_FILES}; unpack it and name the file of the parcels"
        )
    _check_names(path, [one.name for one in members])
    chosen = _choose(path, [one.name for one in members], member)
    wanted = [one for one in members if _belongs(one.name, chosen)]
    _check_size(path, wanted, limits)
    if kind == "zip" and _reads_in_place(path, chosen, wanted):
        with _archive_says(path):
            _check_whole(path, chosen, [one.name for one in wanted])
        return Place(target=f"/vsizip/{{{path}}}/{chosen}")
    return _unpack(path, kind, chosen, wanted)


def _plain(path: str, member: str | None) -> Place:
    if member is None:
        return Place(target=path)
    if "://" in path:
        raise ValueError(
            f"parcels: member names a file in a local archive; download {shown(path)} and name the copy as path"
        )
    raise ValueError(f"{path} is no zip or 7z archive, so there is no member {member!r} in it; leave out member")


@contextmanager
def _archive_says(path: str) -> Iterator[None]:
    """Turns the errors of the archive libraries into one sentence."""
    import lzma
    import zlib

    from py7zr.exceptions import ArchiveError, PasswordRequired

    try:
        yield
    except PasswordRequired as error:
        raise ValueError(
            f"{path} is encrypted; unpack it with its password and name the file that was in it"
        ) from error
    except (ArchiveError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise ValueError(
            f"{path} cannot be read as an archive ({type(error).__name__}: {error}); download it again, or unpack it "
            "by hand and name the file that was in it"
        ) from error


def _in_zip(path: str) -> list[_Member]:
    members = []
    _check_list(path)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                raise ValueError(f"{path} is encrypted; unpack it with its password and name the file that was in it")
            # The upper half holds the Unix mode where the archive was written on Unix, else nothing.
            kind = stat.S_IFMT(info.external_attr >> 16)
            members.append(
                _Member(
                    name=info.filename,
                    size=info.file_size,
                    packed=info.compress_size,
                    is_plain=kind in (0, stat.S_IFREG),
                    is_readable=info.filename.isascii() and "\\" not in info.filename,
                )
            )
    return members


def _check_list(path: str) -> None:
    """Raise ValueError for a zip with a long list of names, which would be in memory whole.

    Records at its end: APPNOTE.TXT 4.3.14 and 4.3.16.
    """
    with Path(path).open("rb") as file:
        file.seek(max(0, Path(path).stat().st_size - (1 << 16) - 98))
        tail = file.read()
    end, end64 = tail.rfind(b"PK\x05\x06"), tail.rfind(b"PK\x06\x06")
    size = struct.unpack_from("<I", tail, end + 12)[0] if 0 <= end <= len(tail) - 22 else 0
    if size == 0xFFFFFFFF and 0 <= end64 <= len(tail) - 56:
        size = struct.unpack_from("<Q", tail, end64 + 40)[0]
    if _MOST_NAMES < size < 0xFFFFFFFF or (size > 0xFFFFFFFF):
        raise ValueError(
            f"{path} has a list of names of {size / 1e6:.0f} MB, more than {_MOST_NAMES / 1e6:.0f} MB; unpack it and "
            "name the file of the parcels"
        )


def _in_7z(path: str) -> list[_Member]:
    with _open_7z(path) as archive:
        return [
            _Member(
                name=info.filename,
                size=info.uncompressed or 0,
                packed=None,
                is_plain=info.is_file,
                is_readable=False,
            )
            for info in archive.list()
            if not info.is_directory
        ]


@contextmanager
def _open_7z(path: str) -> Iterator[SevenZipFile]:
    """A 7z archive, or all parts of one whose first part (.001) is named."""
    import py7zr

    if not path.endswith(FIRST):
        with py7zr.SevenZipFile(path) as archive:
            yield archive
        return
    with DividedFile(parts_of(path)) as parts, py7zr.SevenZipFile(io.BufferedReader(parts)) as archive:
        yield archive


def _check_names(path: str, names: Sequence[str]) -> None:
    twice = [name for name, n in Counter(name.replace("\\", "/") for name in names).items() if n > 1]
    if twice:
        raise ValueError(
            f"{path} holds {len(twice)} names more than once ({_listed(twice)}), and which file is meant nobody can "
            "say; pack it anew with each file once"
        )
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or (parts.parts and ":" in parts.parts[0]):
            raise ValueError(
                f"{path} holds a file named {name!r}, which would lie outside of any folder it is unpacked to; "
                "such an archive is not opened"
            )


def _choose(path: str, names: Sequence[str], member: str | None) -> str:
    """The one file of parcels, or folder of a file geodatabase, that `member` or else its suffix tells."""
    files = {name: PurePosixPath(name) for name in names}
    own = {name: at for name, at in files.items() if "__MACOSX" not in at.parts and not at.name.startswith("._")}
    folders = {str(up): up for at in own.values() for up in at.parents if up.suffix.lower() == ".gdb"}
    pool = {**own, **folders}
    if member is not None:
        found = {name: at for name, at in pool.items() if _matches(name, member)}
        if not found:
            raise ValueError(f"{path} holds no file {member!r} (parcels: member); it holds {_listed(pool)}")
        pool = found
    for suffixes in (_USUAL, _RARER, None):
        found = {name: at for name, at in pool.items() if suffixes is None or at.suffix.lower() in suffixes}
        if found and (suffixes is not None or member is not None):
            break
    else:
        raise ValueError(f"{path} holds no vector file (shp, gpkg, fgb, gml, gdb, geojson, parquet, csv): "
                         f"it holds {_listed(pool) or 'nothing'}")  # fmt: skip
    if len(found) > 1:
        raise ValueError(
            f"{path} holds several vector files: {_listed(found)}; name one under parcels: member ({min(found)}, say)"
        )
    return next(iter(found))


def _matches(name: str, member: str) -> bool:
    pattern = member.casefold().rstrip("/")
    return any(fnmatchcase(text.casefold(), pattern) for text in (name, PurePosixPath(name).name))


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 12} more" if len(ordered) > 12 else ""
    return ", ".join(ordered[:12]) + more


def _belongs(name: str, chosen: str) -> bool:
    """Whether a file is the chosen one, lies in it, or stands beside it under the same name (.dbf, .prj, ...)."""
    at, it = PurePosixPath(name), PurePosixPath(chosen)
    return (
        name == chosen
        or it in at.parents
        or (at.parent == it.parent and at.name.split(".")[0] == it.stem.split(".")[0])
    )


def _check_size(path: str, wanted: Sequence[_Member], limits: Limits) -> None:
    links = [one.name for one in wanted if not one.is_plain]
    if links:
        raise ValueError(f"{path} holds {links[0]} as a link and not as a file; such an archive is not opened")
    total = sum(one.size for one in wanted)
    if total > limits.total:
        raise ValueError(
            f"{path} says it unpacks to {total / 1e9:.1f} GB, more than the {limits.total / 1e9:.1f} GB that are "
            "allowed; if that is right, unpack it by hand and name the file that was in it"
        )
    packed = max(1, sum(one.packed or 0 for one in wanted) or _size_of(path))
    if total > limits.small and total > limits.ratio * packed:
        raise ValueError(
            f"{path} unpacks {packed / 1e6:.2f} MB to {total / 1e6:.0f} MB, {total / packed:.0f} times as much, which "
            "no file of parcels does; if that is right, unpack it by hand and name the file that was in it"
        )


def _size_of(path: str) -> int:
    """Bytes of an archive, all parts together."""
    parts = parts_of(path) if path.endswith(FIRST) else (Path(path),)
    return sum(part.stat().st_size for part in parts)


def _reads_in_place(path: str, chosen: str, wanted: Sequence[_Member]) -> bool:
    suffix = PurePosixPath(chosen).suffix.lower()
    if suffix in PARQUET or _starts(path, chosen, _DATABASE) or not all(one.is_readable for one in wanted):
        return False
    return suffix not in _SCATTERED or sum(one.size for one in wanted) <= _MOST_IN_PLACE


def _starts(path: str, name: str, magic: bytes) -> bool:
    """Whether a file in a zip starts so; a folder does not."""
    with _archive_says(path), zipfile.ZipFile(path) as archive:
        if name not in archive.NameToInfo:
            return False
        with archive.open(name) as packed:
            return packed.read(len(magic)) == magic


def _check_whole(path: str, chosen: str, names: Sequence[str]) -> None:
    """Read each file once against its checksum, which GDAL does not look at: damaged parcels would just be others."""
    with zipfile.ZipFile(path) as archive:
        for name in names:
            with archive.open(name) as packed:
                start = packed.read(LOOKED_AT)
                while packed.read(1 << 20):
                    pass
            if name == chosen:
                refuse_pointer(f"{path}!{name}", start)


def _unpack(path: str, kind: Kind, chosen: str, wanted: Sequence[_Member]) -> Place:
    """The chosen file and what belongs to it, in a temporary folder."""
    unpacked, names = Unpacked(), [one.name for one in wanted]
    with ExitStack() as stack:
        stack.callback(unpacked.remove)
        _check_room(path, sum(one.size for one in wanted), unpacked.folder)
        with _archive_says(path):
            if kind == "zip":
                _copy_out(path, names, unpacked.folder)
            else:
                with _open_7z(path) as archive:
                    archive.extract(unpacked.folder, targets=names)
        stack.pop_all()
    return Place(target=str(unpacked.folder / chosen.replace("\\", "/")), unpacked=unpacked)


def _check_room(path: str, total: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if total > free:
        raise ValueError(
            f"{path} unpacks to {total / 1e9:.1f} GB and {folder.parent} has {free / 1e9:.1f} GB left; "
            "let TMPDIR name a folder with more room, or unpack it by hand"
        )


def _copy_out(path: str, names: Sequence[str], folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in names:
            out = folder / name.replace("\\", "/")
            out.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as packed, out.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
