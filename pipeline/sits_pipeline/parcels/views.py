"""Databases whose rows are computed: a query that a file holds may run for ever, or call what it likes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["refuse_views"]

_MAGIC = b"SQLite format 3\0"
_TABLE = "gpkg_geometry_columns"
_OWN = ("gpkg_", "rtree_", "ogr_", "geometry_columns", "spatial_ref_sys", "sqlite_")
"""Beginnings of the names of tables that GDAL reads for itself."""


def refuse_views(path: str, target: str) -> None:
    """Raise ValueError where a layer of a local SQLite database, `target`, or what GDAL reads of it, is a view.

    `path` names the file for the user. Nothing is run that the file holds but the listing of its tables.
    """
    file = Path(target)
    if not file.is_file():
        return
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) != _MAGIC:
            return
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.text_factory = lambda name: name.decode("utf-8", "backslashreplace")
            views = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'view'")}
            layers = _layers(database) if views else set()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is a damaged database ({error}); download it again") from error
    wrong = sorted(view for view in views if view.lower() in layers or view.lower().startswith(_OWN))
    if wrong:
        raise ValueError(
            f"{path} holds {wrong[0]!r} as a view, whose rows a query computes, and no query of a file is run; save "
            "the layer with the parcels as a table in a file of its own"
        )


def _layers(database: sqlite3.Connection) -> set[str]:
    """Names of the layers in small letters; none where the file lists none, or by a view, which is refused for that."""
    tables = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if _TABLE not in tables:
        return set()
    return {str(name).lower() for (name,) in database.execute(f"SELECT table_name FROM {_TABLE}")}  # noqa: S608
