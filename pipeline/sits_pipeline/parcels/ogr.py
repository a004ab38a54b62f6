"""A layer of parcels that GDAL opens."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from sits_pipeline.parcels.archives import Place
from sits_pipeline.parcels.features import Box, Features, as_text, geometry_of
from sits_pipeline.parcels.pointers import refuse_driver
from sits_pipeline.parcels.shown import cause, cleaned
from sits_pipeline.parcels.views import refuse_view

__all__ = ["OgrFile", "open_ogr"]

_LOG = logging.getLogger(__name__)
_COUNTED_BYTES = 256 << 20
"""Rows are counted where the format does not know their number in files up to this size."""
_EXACT = 2.0**53
"""Whole numbers from here on are not all float64."""
_XML = (".gml", ".xml")
_WKT_COLUMNS = ("wkt", "wkt_geom", "wkt_geometry", "geometry_wkt", "geom_wkt", "geometry", "geom", "the_geom")


@dataclass(kw_only=True)
class OgrFile:
    """A layer that GDAL opens."""

    path: str
    place: Place
    target: str
    """What GDAL is told to open."""
    layer: str
    crs: CRS | None
    names: tuple[str, ...]
    n_rows: int | None
    options: dict[str, str]
    fid: str
    """Name of the column that holds the feature's own number; empty where the format has none."""

    def bounds(self) -> Box:
        """Bounds of all rows; not numbers where there are none."""
        import pyogrio

        with _gdal_says(self.path, self.target):
            info = pyogrio.read_info(self.target, layer=self.layer, force_total_bounds=True, **self.options)
        west, south, east, north = info["total_bounds"] or (np.nan,) * 4
        return float(west), float(south), float(east), float(north)

    def read(self, columns: Sequence[str], box: Box | None) -> Features:
        """Rows whose bounds meet `box` (None: all), in the order of `row`."""
        from pyogrio.raw import read

        stored = [name for name in dict.fromkeys(columns) if name != self.fid]
        with _gdal_says(self.path, self.target):
            meta, fids, wkb, fields = read(
                self.target, layer=self.layer, columns=stored, bbox=box, return_fids=True, **self.options
            )
        if wkb is None:
            raise ValueError(f"{self.path}: its layer {self.layer} has no geometry; name the one with the parcels")
        order = np.argsort(fids, kind="stable")
        text = {name: column[order] for name, column in self._as_text(meta, fids, fields, box).items()}
        if self.fid in columns:
            text[self.fid] = as_text(fids[order])
        return Features(row=fids[order].astype(np.int64), geometry=geometry_of(wkb[order]), columns=text)

    def texts(self, name: str) -> NDArray[np.object_]:
        """A column of all rows as text, without geometry."""
        from pyogrio.raw import read

        columns = [] if name == self.fid else [name]
        with _gdal_says(self.path, self.target):
            meta, fids, _, fields = read(
                self.target,
                layer=self.layer,
                columns=columns,
                read_geometry=False,
                return_fids=True,
                **self.options,
            )
        return self._as_text(meta, fids, fields, None)[name] if columns else as_text(fids)

    def distinct(self, name: str) -> frozenset[str]:
        """The different texts of a column of all rows; GDAL finds them, so that they alone are in memory."""
        from pyogrio.raw import read

        if name == self.fid or '"' in name + self.layer:  # SQL dialects disagree on how a quote is quoted
            return _known(self.texts(name))
        with _gdal_says(self.path, self.target):
            # Without NULL, with which pyogrio makes floats of whole numbers.
            sql = f'SELECT DISTINCT "{name}" FROM "{self.layer}" WHERE "{name}" IS NOT NULL'  # noqa: S608  # own names
            _, _, _, fields = read(self.target, sql=sql, read_geometry=False, **self.options)
            return _known(as_text(fields[0]))

    def _as_text(
        self,
        meta: Mapping[str, Sequence[str]],
        fids: NDArray[np.int64],
        fields: Sequence[NDArray[Any]],
        box: Box | None,
    ) -> dict[str, NDArray[np.object_]]:
        """Columns that were read, as text."""
        text = {}
        for name, stored, values in zip(meta["fields"], meta["dtypes"], fields, strict=True):
            # pyogrio gives whole numbers with NULL among them as float64, which cuts long ones.
            is_cut = stored.startswith(("int", "uint")) and values.dtype.kind == "f"
            if is_cut and (np.abs(values[np.isfinite(values)]) >= _EXACT).any():
                values = self._whole_numbers(name, fids, box)
            with _gdal_says(self.path, self.target):
                text[name] = as_text(values)
        return text

    def _whole_numbers(self, name: str, fids: NDArray[np.int64], box: Box | None) -> NDArray[np.object_]:
        """A column of whole numbers in the order of `fids`, None where there is none, read without what is NULL."""
        from pyogrio.raw import read

        values = np.full(len(fids), None, dtype=object)
        at = {fid: index for index, fid in enumerate(fids.tolist())}
        found: list[NDArray[Any]] = []
        if '"' not in name:
            with _gdal_says(self.path, self.target):
                _, known, _, found = read(
                    self.target,
                    layer=self.layer,
                    columns=[name],
                    where=f'"{name}" IS NOT NULL',
                    bbox=box,
                    return_fids=True,
                    **self.options,
                )
        if not found or found[0].dtype.kind not in "iu" or not at.keys() >= set(known.tolist()):
            raise ValueError(
                f"{self.path}: the whole numbers of column {name!r} are too long for GDAL to give beside rows without "
                "one; write the column as text"
            )
        for fid, value in zip(known.tolist(), found[0].tolist(), strict=True):
            values[at[fid]] = value
        return values

    def close(self) -> None:
        """Remove what was unpacked."""
        self.place.close()


def _known(texts: NDArray[np.object_]) -> frozenset[str]:
    return frozenset(text for text in texts if text is not None)


def open_ogr(path: str, place: Place, layer: str | None, encoding: str | None, views: Collection[str] = ()) -> OgrFile:
    """A layer of the file at `place`, which `path` names for the user, and none of its `views`."""
    import pyogrio

    options = {} if encoding is None else {"encoding": encoding}
    if place.suffix in _XML:
        _check_xml(path, place)
    target, own = _for_driver(path, place)
    options |= own
    chosen = _choose_layer(path, layer, _layers(path, place, target, options))
    refuse_view(path, chosen, views)
    with _gdal_says(path, target):
        info = pyogrio.read_info(target, layer=chosen, **options)
        if info["features"] < 0 and _bytes_of(place) <= _COUNTED_BYTES:
            info = pyogrio.read_info(target, layer=chosen, force_feature_count=True, **options)
    refuse_driver(path, str(info["driver"]))
    fid = str(info["fid_column"] or "")
    return OgrFile(
        path=path,
        place=place,
        target=target,
        layer=chosen,
        crs=None if info["crs"] is None else _crs(path, info["crs"]),
        names=tuple(str(name) for name in info["fields"]) + ((fid,) if fid else ()),
        n_rows=int(info["features"]) if info["features"] >= 0 else None,
        options=options,
        fid=fid,
    )


def _for_driver(path: str, place: Place) -> tuple[str, dict[str, str]]:
    """What GDAL is told to open, and the options of the drivers that need some."""
    if _is_table(place):
        return place.target, {"GEOM_POSSIBLE_NAMES": _wkt_column(path, place), "KEEP_GEOM_COLUMNS": "NO"}
    if not any(suffix in f"{path} {place.target}".lower() for suffix in (".gml", ".xml")):
        return place.target, {}
    # INSPIRE keeps crops in attributes (xlink:title). The driver would write a schema (.gfs) beside the file, and does
    # so when its layers are listed whatever the options say; it knows no "beside" for a part of a file, the whole here.
    target = f"/vsisubfile/0,{place.target}" if Path(place.target).is_file() else place.target
    return target, {"WRITE_GFS": "NO", "GML_ATTRIBUTES_TO_OGR_FIELDS": "YES"}


def _check_xml(path: str, place: Place) -> None:
    """Raise ValueError where a local file breaks off: GDAL gives the parcels before that place, or none, as all."""
    from xml.parsers import expat

    if not Path(place.target).is_file():
        return
    try:
        with Path(place.target).open("rb") as file:
            expat.ParserCreate().ParseFile(file)
    except expat.ExpatError as error:
        if error.code == expat.errors.codes[expat.errors.XML_ERROR_UNKNOWN_ENCODING]:
            return
        raise ValueError(f"{path} breaks off or is damaged, as XML is not ({error}); download it again") from error


def _wkt_column(path: str, place: Place) -> str:
    """The column of a table that holds geometry: the first of the usual names, in whatever case."""
    import pyogrio

    with _gdal_says(path, place.target):
        fields = [str(name) for name in pyogrio.read_info(place.target)["fields"]]
    named = {name.lower(): name for name in reversed(fields)}
    for usual in _WKT_COLUMNS:
        if usual in named:
            return named[usual]
    raise ValueError(
        f"{path} has no column of geometry; expected WKT in a column named {', '.join(_WKT_COLUMNS)}, "
        f"it has {', '.join(fields)}"
    )


def _is_table(place: Place) -> bool:
    return place.suffix in (".csv", ".tsv")


def _bytes_of(place: Place) -> int:
    """Size of a local file or folder; 0 where it is in an archive, which bounds it, or elsewhere."""
    path = Path(place.target)
    if path.is_dir():
        return sum(part.stat().st_size for part in path.iterdir())
    return path.stat().st_size if path.is_file() else 0


def _crs(path: str, stated: str) -> CRS:
    try:
        return CRS.from_user_input(stated)
    except CRSError as error:
        raise ValueError(f"{path} states a CRS that nobody knows ({stated[:80]}); write it anew with one") from error


def _layers(path: str, place: Place, target: str, options: dict[str, str]) -> list[tuple[str, str | None]]:
    """The layers of a file and what geometry they have."""
    import pyogrio

    with _gdal_says(path, place.target):
        if not _is_table(place):
            return [(str(name), kind) for name, kind in pyogrio.list_layers(target)]
        info = pyogrio.read_info(target, **options)  # listing layers takes no options
    return [(str(info["layer_name"]), info["geometry_type"])]


@contextmanager
def _gdal_says(path: str, target: str) -> Iterator[None]:
    """Turns the errors of GDAL into one sentence, and its warnings into lines of the log; secrets of `target` go."""
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield
        for warning in said:
            _LOG.info("%s: %s", path, cleaned(warning.message, target))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} holds text that cannot be decoded ({error}); name its encoding under parcels: encoding "
            "(cp1252, say)"
        ) from error
    except (DataSourceError, DataLayerError) as error:
        raise ValueError(
            f"{path} cannot be read as a vector file (expected shp, gpkg, geojson, fgb, gml, gdb, csv with WKT, one of "
            f"them in a zip or 7z, or GeoParquet): {cleaned(error, target)}"
        ) from cause(error, target)


def _choose_layer(path: str, layer: str | None, layers: Sequence[tuple[str, str | None]]) -> str:
    spatial = [name for name, kind in layers if kind is not None]
    if layer is not None:
        if layer not in spatial:
            raise ValueError(f"{path} has no layer {layer!r} with geometry; its layers are {', '.join(spatial)}")
        return layer
    if len(spatial) != 1:
        raise ValueError(
            f"{path} holds {len(spatial)} layers with geometry ({', '.join(spatial) or 'none at all'}); "
            "name the one with the parcels under parcels: layer"
        )
    return spatial[0]
