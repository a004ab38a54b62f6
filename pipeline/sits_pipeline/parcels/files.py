"""Opening a vector file of parcels, whatever its format, plain or in an archive."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError, ProjError

from sits_pipeline.parcels.addressed import is_address, locate_address, plain_path
from sits_pipeline.parcels.archives import PARQUET, Limits, Place, locate
from sits_pipeline.parcels.features import Box, Features
from sits_pipeline.parcels.geoparquet_file import open_geoparquet
from sits_pipeline.parcels.ogr import open_ogr
from sits_pipeline.parcels.pointers import LOOKED_AT, refuse_pointer
from sits_pipeline.parcels.shown import shown
from sits_pipeline.parcels.views import refuse_views
from sits_pipeline.transformers import transformer_between

__all__ = ["VectorFile", "open_vector"]


class VectorFile(Protocol):
    """One layer of a file: what it says about itself, and its rows. To be closed, so that unpacked files go."""

    path: str
    """What names the file in sentences and reports: an address without user, password and signature."""
    crs: CRS | None
    names: tuple[str, ...]
    n_rows: int | None
    """None where the format does not know and counting would read a large file."""

    def bounds(self) -> Box:
        """Bounds of all rows; not numbers where there are none."""
        ...

    def read(self, columns: Sequence[str], box: Box | None) -> Features:
        """Rows whose bounds meet `box` (None: all), in the order of `row`."""
        ...

    def texts(self, name: str) -> NDArray[np.object_]:
        """A column of all rows as text, without geometry."""
        ...

    def distinct(self, name: str) -> frozenset[str]:
        """The different texts of a column of all rows, found in bounded memory."""
        ...

    def close(self) -> None:
        """Remove what was unpacked."""
        ...


def open_vector(
    path: str, *, layer: str | None, crs: str | None, encoding: str | None, member: str | None = None
) -> VectorFile:
    """The layer of a vector file; `crs` counts only where the file states none, `member` is a glob in an archive.

    Raises FileNotFoundError for a path that is not there, ValueError, in one sentence, for a file that neither GDAL
    nor pyarrow reads, for an archive that is not safe, for several files or layers of which none is named, and for a
    CRS that is neither stated nor given.
    """
    path, member = _divide(plain_path(path), member)
    if not is_address(path) and not Path(path).exists():
        raise FileNotFoundError(f"no parcels at {shown(path)}: there is no such file")
    _check_encoding(encoding)
    given = None if crs is None else _given_crs(crs)
    place = (locate_address if is_address(path) else locate)(path, member, Limits())
    with ExitStack() as stack:
        stack.callback(place.close)
        file = _open(shown(path), place, layer, encoding)
        if file.crs is None and given is None:
            raise ValueError(
                f"{file.path} states no CRS, so nobody knows where its parcels lie; name it in the region file "
                "under parcels: crs (EPSG:2154, say)"
            )
        file.crs = file.crs or given
        _check_on_earth(file.path, file.crs)
        stack.pop_all()
    return file


def _open(name: str, place: Place, layer: str | None, encoding: str | None) -> VectorFile:
    """The file at `place`, which `name` names for the user."""
    if place.suffix in PARQUET or _start(place, 4) == b"PAR1":
        return open_geoparquet(name, place)
    refuse_pointer(name, _start(place, LOOKED_AT))
    views = refuse_views(name, place.target)
    # GDAL takes names such as WFS:http://... for services, whatever lies there; with its folder a name is a file.
    whole = place if place.target.startswith("/vsi") else replace(place, target=str(Path(place.target).absolute()))
    return open_ogr(name, whole, layer, encoding, views)


def _divide(path: str, member: str | None) -> tuple[str, str | None]:
    """Path and member of `archive.zip!member`."""
    outer, mark, inner = path.partition("!")
    if member is None and mark and not Path(path).exists() and Path(outer).is_file():
        return outer, inner
    return path, member


def _start(place: Place, length: int) -> bytes:
    """The first bytes of a local file; none of what lies elsewhere."""
    if not Path(place.target).is_file():
        return b""
    with Path(place.target).open("rb") as file:
        return file.read(length)


def _check_encoding(encoding: str | None) -> None:
    try:
        codecs.lookup(encoding or "utf-8")
    except LookupError as error:
        raise ValueError(f"parcels: encoding names one as cp1252 or utf-8 does; nobody knows {encoding!r}") from error


def _check_on_earth(path: str, crs: CRS | None) -> None:
    """Raise ValueError for a CRS of heights, of a workshop or of another planet."""
    try:
        transformer_between(crs, 4326)
    except ProjError:
        on_earth = False
    else:
        on_earth = crs is not None and not crs.is_vertical
    if not on_earth:
        name = "" if crs is None else crs.name[:80]
        raise ValueError(
            f"{path} has the CRS {name}, in which nothing has a longitude and a latitude; write it in another"
        )


def _given_crs(crs: str) -> CRS:
    try:
        return CRS.from_user_input(crs)
    except CRSError as error:
        raise ValueError(
            f"parcels: crs names a coordinate reference system, as EPSG:2154 does; nobody knows {crs!r}"
        ) from error
