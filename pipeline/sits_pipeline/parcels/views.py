"""Databases whose rows are computed: a query that a file holds may run for ever, or call what it likes."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import NoReturn

__all__ = ["refuse_view", "refuse_views"]

_MAGIC = b"SQLite format 3\0"
_GEOPACKAGE = (b"GPKG", b"GP10", b"GP11")
"""At byte 68 of a GeoPackage (OGC 12-128r19, requirement 2); of any other database GDAL makes a layer of each view."""
_LISTS = ("gpkg_geometry_columns", "geometry_columns", "views_geometry_columns", "virts_geometry_columns")
"""Tables that name layers."""
_OWN = ("gpkg_", "rtree_", "ogr_", "spatial_ref_sys", "sqlite_", *_LISTS)
"""Beginnings of the names of tables that GDAL reads for itself."""


def refuse_views(path: str, target: str) -> frozenset[str]:
    """Raise ValueError where a layer of a local SQLite database, `target`, or what GDAL reads of it, is a view.

    `path` names the file for the user. Nothing is run that the file holds but the listing of its tables. Returned are
    the names of the views that are left, in small letters.
    """
    file = Path(target)
    if not file.is_file():
        return frozenset()
    with file.open("rb") as opened:
        head = opened.read(72)
    if not head.startswith(_MAGIC):
        return frozenset()
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.text_factory = lambda name: name.decode("utf-8", "backslashreplace")
            views = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'view'")}
            layers = _layers(database) if views else set()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is a damaged database ({error}); download it again") from error
    is_geopackage = head[68:72] in _GEOPACKAGE
    wrong = sorted(
        view for view in views if not is_geopackage or view.lower() in layers or view.lower().startswith(_OWN)
    )
    if wrong:
        _refuse(path, wrong[0])
    return frozenset(view.lower() for view in views)


def refuse_view(path: str, layer: str, views: Collection[str]) -> None:
    """Raise ValueError where a layer, by GDAL's own list, is one of the views of a file that `path` names."""
    if layer.lower() in views:
        _refuse(path, layer)


def _refuse(path: str, view: str) -> NoReturn:
    raise ValueError(
        f"{path} holds {view!r} as a view, whose rows a query computes, and no query of a file is run; save the layer "
        "with the parcels as a table in a file of its own"
    )


def _layers(database: sqlite3.Connection) -> set[str]:
    """Names of the layers in small letters; none where the file lists none, or by a view, which is refused for that.

    Whichever column holds the name: all that these tables say is taken.
    """
    tables = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    listing = [name for name in tables if name.lower() in _LISTS]
    rows = [row for name in listing for row in database.execute(f'SELECT * FROM "{name}"')]  # noqa: S608  # own names
    return {str(value).lower() for row in rows for value in row}
