"""Files of parcels at an address: read by our own requests, never by GDAL, which goes wherever a server sends it."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import PurePosixPath
from typing import IO, cast
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from sits_pipeline.folder import CannotWrite
from sits_pipeline.parcels.archives import PARQUET, Limits, Place, Unpacked, locate
from sits_pipeline.parcels.shown import cause, cleaned, shown

__all__ = ["is_address", "locate_address", "open_address", "plain_path"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WEB = ("http", "https")
_STORES = ("s3", "gs", "az", "abfs")
"""Object stores, whose hosts the environment names and no path."""
_CACHE_BYTES = 2**30
_PIECE = 16 * 2**20


def plain_path(path: str) -> str:
    """The path or address that is meant; raises ValueError for what GDAL or fsspec alone would know how to ask for.

    >>> plain_path("file:///data/a%20b.gpkg"), plain_path("https://example.org/a.gpkg")
    ('/data/a b.gpkg', 'https://example.org/a.gpkg')
    """
    found = _SCHEME.search(path)
    scheme = found[1].lower() if found else ""
    if path.startswith("/vsi"):
        raise ValueError(
            f"{shown(path)} is GDAL's name for a file elsewhere, which is not asked for; name an archive on this "
            "machine as FILE.zip!MEMBER, or an address as https://..."
        )
    if found is None or found.start() > 0:
        return path
    if scheme == "file":
        return url2pathname(urlsplit(path).path)
    if scheme not in (*_WEB, *_STORES):
        raise ValueError(
            f"{shown(path)} is no path and no address that is read (https, {', '.join(_STORES)}); download the file "
            "and name the copy"
        )
    return path


def is_address(path: str) -> bool:
    """Whether a path, as `plain_path` gives it, is one of no file on this machine."""
    found = _SCHEME.match(path)
    return found is not None and found[1].lower() in (*_WEB, *_STORES)


def locate_address(path: str, member: str | None, limits: Limits) -> Place:
    """The file of parcels at an address: GeoParquet where it is, read in parts; anything else in a temporary folder.

    Raises ValueError as `locate` does, and where it cannot be had.
    """
    name = PurePosixPath(unquote(urlsplit(path).path)).name
    if PurePosixPath(name).suffix.lower() in PARQUET:
        return locate(path, member, limits)
    copy = Unpacked()
    with ExitStack() as stack:
        stack.callback(copy.remove)
        local = copy.folder / (re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[-100:] or "parcels")
        with _in_words(path), open_address(path) as source, local.open("wb") as file:
            _check_room(path, source, limits, copy)
            shutil.copyfileobj(source, file, _PIECE)
        try:
            place = locate(str(local), member, limits)
        except ValueError as error:
            raise ValueError(str(error).replace(str(local), shown(path))) from None
        if place.unpacked is not None:
            return place  # the copy has done its work
        stack.pop_all()
    return replace(place, unpacked=copy)


@contextmanager
def open_address(path: str) -> Iterator[IO[bytes]]:
    """The file at an address as a seekable stream; raises OSError.

    A server may be in this network, since the user named it, and sends on to public ones alone.
    """
    if urlsplit(path).scheme not in _WEB:
        import fsspec

        with fsspec.open(path, "rb") as stored:
            yield stored
        return
    from sits_pipeline.sources.cache import open_cached, own_cache
    from sits_pipeline.sources.web import Web

    limits = Limits()
    with open_cached(path, folder=own_cache(), max_bytes=_CACHE_BYTES, web=Web(), max_file=limits.total) as file:
        yield cast(IO[bytes], file)


@contextmanager
def _in_words(path: str) -> Iterator[None]:
    try:
        yield
    except CannotWrite:
        raise
    except (OSError, ImportError) as error:
        raise ValueError(f"{shown(path)} cannot be read: {cleaned(error, path)}") from cause(error, path)


def _check_room(path: str, source: IO[bytes], limits: Limits, copy: Unpacked) -> None:
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    free = shutil.disk_usage(copy.folder).free
    if size > min(free, limits.total):
        raise ValueError(
            f"{shown(path)} has {size / 1e9:.1f} GB; {limits.total / 1e9:.1f} GB are fetched at most, and "
            f"{copy.folder.parent} has {free / 1e9:.1f} GB left: let TMPDIR name a folder with more room, or download "
            "it and name the copy"
        )
